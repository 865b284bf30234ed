//! What has to be placed: buffers, their live ranges and who shares storage with whom.

use std::fmt;

/// Storage asked for by one value, one scratch area or one packed panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// Name, for messages, charts and CSV files.
    pub id: String,
    /// Bytes asked for; the plan reserves them rounded up to [`Problem::alignment`].
    pub size: u64,
    /// First schedule step at which the buffer holds something.
    pub lower: u32,
    /// First schedule step at which it no longer does: live for `lower <= step < upper`.
    pub upper: u32,
    /// Index of a buffer whose storage this one shares: a view, a part, or an in-place result. That the sharing is legal
    /// is the caller's claim; [`mod@crate::memory::check`] replays it.
    pub alias_of: Option<usize>,
    /// Byte of that buffer at which this one begins.
    pub alias_at: u64,
}

impl Buffer {
    /// A buffer with storage of its own.
    pub fn new(id: impl Into<String>, size: u64, lower: u32, upper: u32) -> Self {
        Self { id: id.into(), size, lower, upper, alias_of: None, alias_at: 0 }
    }

    /// The same buffer, sharing the storage of `buffers[target]`.
    #[must_use]
    pub fn alias_of(self, target: usize) -> Self {
        self.part_of(target, 0)
    }

    /// The same buffer, in the storage of `buffers[target]` from its byte `at` on.
    #[must_use]
    pub fn part_of(mut self, target: usize, at: u64) -> Self {
        (self.alias_of, self.alias_at) = (Some(target), at);
        self
    }
}

/// One finding about a problem, a plan or a CSV file, with a stable label such as `memory.K1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Stable label: `memory.P..` a problem, `memory.K..` a plan.
    pub label: &'static str,
    /// What is wrong, and with which buffers.
    pub message: String,
}

impl Fault {
    pub(crate) fn new(label: &'static str, message: String) -> Self {
        Self { label, message }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.label, self.message)
    }
}

impl std::error::Error for Fault {}

/// Buffers to be placed in one arena. Every value of this type is well formed, so planning cannot fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    buffers: Vec<Buffer>,
    alignment: u64,
    storage_of: Vec<usize>,
    position_of: Vec<u64>,
    storages: Vec<Storage>,
}

/// Bytes that are placed once: a buffer together with all its aliases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// Index of the buffer at the end of the alias chain.
    pub root: usize,
    /// Bytes reserved: up to the end of the member that reaches furthest, rounded up to the alignment.
    pub size: u64,
    /// First step at which a member is live.
    pub lower: u32,
    /// First step after the last one at which a member is live.
    pub upper: u32,
}

impl Storage {
    /// Number of steps for which the storage is reserved.
    pub(crate) fn duration(&self) -> u64 {
        u64::from(self.upper - self.lower)
    }
}

/// Alignment of arenas and of every buffer in them, in bytes: one cache line, one AVX-512 register.
pub const ALIGNMENT: u64 = 64;

/// Largest total of sizes accepted: beyond this no allocation exists, and sums stay clear of overflow.
const LARGEST_TOTAL: u64 = i64::MAX as u64;

impl Problem {
    /// A problem with every offset a multiple of [`ALIGNMENT`].
    ///
    /// # Errors
    /// All of the following that apply:
    /// - `memory.P1` a live range holds no step;
    /// - `memory.P2` an alias names a buffer that does not exist;
    /// - `memory.P3` an alias chain leads back to itself;
    /// - `memory.P4` the sizes add up to more than an address space holds;
    /// - `memory.P5` the alignment is not a power of two;
    /// - `memory.P6` an alias begins at a byte that is no multiple of the alignment.
    pub fn new(buffers: Vec<Buffer>) -> Result<Self, Vec<Fault>> {
        Self::with_alignment(buffers, ALIGNMENT)
    }

    /// A problem whose offsets are multiples of `alignment` bytes; `1` places bytes anywhere.
    ///
    /// # Errors
    /// As for [`Problem::new`].
    pub fn with_alignment(buffers: Vec<Buffer>, alignment: u64) -> Result<Self, Vec<Fault>> {
        let mut faults = check_sizes(&buffers, alignment);
        faults.extend(buffers.iter().filter(|b| b.lower >= b.upper).map(empty_range));
        faults.extend(buffers.iter().filter(|b| b.alias_at.checked_rem(alignment) != Some(0)).map(misaligned));
        let roots = resolve_aliases(&buffers, &mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        let position_of: Vec<u64> = (0..buffers.len()).map(|i| position(&buffers, i)).collect();
        let (storages, storage_of) = merge_aliases(&buffers, &roots, &position_of, alignment);
        Ok(Self { buffers, alignment, storage_of, position_of, storages })
    }

    /// The buffers, in the order given.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// Bytes of which every offset is a multiple.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// What is placed: one storage per alias chain, in the order of the roots.
    pub fn storages(&self) -> &[Storage] {
        &self.storages
    }

    /// For each buffer the index of its storage in [`Problem::storages`].
    pub fn storage_of(&self) -> &[usize] {
        &self.storage_of
    }

    /// For each buffer its first byte in its storage.
    pub fn position_of(&self) -> &[u64] {
        &self.position_of
    }

    /// Bytes reserved for a buffer: its size rounded up to the alignment.
    pub fn reserved(&self, buffer: &Buffer) -> u64 {
        buffer.size.next_multiple_of(self.alignment)
    }

    /// Bytes an allocator that never reuses anything would take, aliases included.
    pub fn naive_total(&self) -> u64 {
        self.buffers.iter().map(|b| self.reserved(b)).sum()
    }

    /// Largest sum of reserved bytes over all steps: no plan has a lower peak.
    pub fn lower_bound(&self) -> u64 {
        self.live_bytes().iter().map(|&(_, bytes)| bytes).max().unwrap_or(0)
    }

    /// Reserved bytes over time, as `(step, bytes)` from `step` until the next entry.
    pub fn live_bytes(&self) -> Vec<(u32, u64)> {
        let mut events: Vec<(u32, bool, u64)> = Vec::with_capacity(2 * self.storages.len());
        for s in &self.storages {
            events.push((s.lower, true, s.size));
            events.push((s.upper, false, s.size));
        }
        // Ends sort before starts of the same step: a half-open range has already left.
        events.sort_unstable();
        let mut bytes = 0;
        let mut profile: Vec<(u32, u64)> = Vec::new();
        for (step, starts, size) in events {
            bytes = if starts { bytes + size } else { bytes - size };
            match profile.last_mut() {
                Some(last) if last.0 == step => last.1 = bytes,
                _ => profile.push((step, bytes)),
            }
        }
        profile
    }
}

fn check_sizes(buffers: &[Buffer], alignment: u64) -> Vec<Fault> {
    if !alignment.is_power_of_two() {
        let message = format!("alignment {alignment} is not a power of two");
        return vec![Fault::new("memory.P5", message)];
    }
    let total = buffers.iter().try_fold(0u64, |sum, b| {
        let reserved = b.size.checked_next_multiple_of(alignment)?;
        sum.checked_add(reserved)?.checked_add(b.alias_at).filter(|&s| s <= LARGEST_TOTAL)
    });
    match total {
        Some(_) => Vec::new(),
        None => {
            let message = format!("the sizes add up to more than {LARGEST_TOTAL} bytes");
            vec![Fault::new("memory.P4", message)]
        }
    }
}

fn empty_range(buffer: &Buffer) -> Fault {
    let Buffer { id, lower, upper, .. } = buffer;
    Fault::new("memory.P1", format!("`{id}` is live for {lower} <= step < {upper}, which holds no step"))
}

fn misaligned(buffer: &Buffer) -> Fault {
    let Buffer { id, alias_at, .. } = buffer;
    Fault::new("memory.P6", format!("`{id}` begins at byte {alias_at} of another buffer, which is not aligned"))
}

/// First byte of a buffer in that at the end of its alias chain, which has an end.
fn position(buffers: &[Buffer], start: usize) -> u64 {
    let (mut at, mut position) = (start, 0);
    while let Some(target) = buffers[at].alias_of {
        position += buffers[at].alias_at;
        at = target;
    }
    position
}

/// Root of each buffer's alias chain.
fn resolve_aliases(buffers: &[Buffer], faults: &mut Vec<Fault>) -> Vec<usize> {
    let mut roots: Vec<Option<usize>> = vec![None; buffers.len()];
    for start in 0..buffers.len() {
        let mut chain = Vec::new();
        let mut at = start;
        let root = loop {
            if let Some(root) = roots[at] {
                break root;
            }
            if chain.len() > buffers.len() {
                let id = &buffers[start].id;
                faults.push(Fault::new("memory.P3", format!("the alias chain of `{id}` never reaches a root")));
                break start;
            }
            chain.push(at);
            match buffers[at].alias_of {
                None => break at,
                Some(target) if target < buffers.len() => at = target,
                Some(target) => {
                    let (id, count) = (&buffers[at].id, buffers.len());
                    let message = format!("`{id}` is an alias of buffer {target}, but there are only {count}");
                    faults.push(Fault::new("memory.P2", message));
                    break at;
                }
            }
        };
        for member in chain {
            roots[member] = Some(root);
        }
    }
    roots.into_iter().enumerate().map(|(i, root)| root.unwrap_or(i)).collect()
}

fn merge_aliases(buffers: &[Buffer], roots: &[usize], positions: &[u64], alignment: u64) -> (Vec<Storage>, Vec<usize>) {
    let mut storages = Vec::new();
    let mut of_root = vec![usize::MAX; buffers.len()];
    for (i, b) in buffers.iter().enumerate() {
        if roots[i] == i {
            of_root[i] = storages.len();
            storages.push(Storage { root: i, size: 0, lower: b.lower, upper: b.upper });
        }
    }
    let storage_of: Vec<usize> = roots.iter().map(|&root| of_root[root]).collect();
    for ((b, &index), position) in buffers.iter().zip(&storage_of).zip(positions) {
        let storage: &mut Storage = &mut storages[index];
        storage.size = storage.size.max(position + b.size.next_multiple_of(alignment));
        storage.lower = storage.lower.min(b.lower);
        storage.upper = storage.upper.max(b.upper);
    }
    (storages, storage_of)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    fn labels(buffers: Vec<Buffer>, alignment: u64) -> Vec<&'static str> {
        Problem::with_alignment(buffers, alignment).unwrap_err().iter().map(|fault| fault.label).collect()
    }

    #[test]
    fn bounds_count_aligned_roots() {
        let buffers = vec![
            Buffer::new("a", 100, 0, 2),
            Buffer::new("b", 1, 1, 3),
            Buffer::new("c", 130, 2, 4).alias_of(0),
            Buffer::new("d", 64, 3, 5),
        ];
        let problem = Problem::new(buffers).unwrap();
        // `a` and `c` share 192 bytes from 0 to 4; `b` adds 64 until 3, `d` from 3 on.
        assert_eq!(problem.storages()[0], Storage { root: 0, size: 192, lower: 0, upper: 4 });
        assert_eq!(problem.live_bytes(), [(0, 192), (1, 256), (3, 256), (4, 64), (5, 0)]);
        assert_eq!((problem.lower_bound(), problem.naive_total()), (256, 128 + 64 + 192 + 64));
    }

    #[test]
    fn malformed_problems_are_refused() {
        let two = |a: Buffer, b: Buffer| vec![a, b];
        let (a, b) = (Buffer::new("a", 4, 0, 1), Buffer::new("b", 4, 0, 1));
        assert_eq!(labels(vec![Buffer::new("a", 4, 2, 2), Buffer::new("b", 4, 3, 1)], 64), ["memory.P1", "memory.P1"]);
        assert_eq!(labels(two(a.clone(), b.clone().alias_of(7)), 64), ["memory.P2"]);
        assert_eq!(labels(two(a.clone().alias_of(1), b.clone().alias_of(0)), 64), ["memory.P3"]);
        assert_eq!(labels(vec![Buffer::new("a", u64::MAX, 0, 1)], 64), ["memory.P4"]);
        assert_eq!(labels(vec![Buffer::new("a", 1 << 62, 0, 1), Buffer::new("b", 1 << 62, 2, 3)], 64), ["memory.P4"]);
        assert_eq!(labels(two(a.clone(), b.clone().part_of(0, 32)), 64), ["memory.P6"]);
        assert_eq!(labels(two(a.clone(), b.clone().part_of(0, 1 << 63)), 64), ["memory.P4"]);
        assert_eq!(labels(two(a, b), 48), ["memory.P5"]);
    }

    #[test]
    fn parts_lie_inside_their_root() {
        let buffers = vec![
            Buffer::new("whole", 192, 2, 4),
            Buffer::new("low", 64, 0, 3).part_of(0, 0),
            Buffer::new("high", 100, 1, 3).part_of(0, 64),
            Buffer::new("in place", 36, 3, 5).part_of(2, 64),
        ];
        let problem = Problem::new(buffers).unwrap();
        assert_eq!(problem.position_of(), [0, 0, 64, 128]);
        assert_eq!(problem.storages(), [Storage { root: 0, size: 192, lower: 0, upper: 5 }]);
    }

    #[test]
    fn alias_chains_end_at_their_root() {
        let chain =
            (0..5).map(|i| Buffer { alias_of: (i < 4).then_some(i + 1), ..Buffer::new(i.to_string(), 8, 0, 1) });
        let problem = Problem::new(chain.collect()).unwrap();
        assert_eq!((problem.storages().len(), problem.storages()[0].root), (1, 4));
    }
}
