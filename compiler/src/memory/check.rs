//! The checker: replays a plan and proves that it is safe, or says why not.
//!
//! It shares no code with the solvers and trusts nothing they derive: it follows the buffers' own offsets, live ranges
//! and alias claims. Two sweeps, each over an ordered map of byte ranges, in O((n + accesses) log n):
//!
//! 1. over time, *who owns which bytes*: buffers that are live at the same time share none, unless one is an alias of
//!    the other or both are of a third (`memory.K1`);
//! 2. over the accesses, *what is in which bytes*: a write fills a buffer with the identity of that write, and a read has
//!    to find the write that the program means. So a reused byte, a late reader of a value that was overwritten in place,
//!    and a buffer nobody has written are all found by what a run would do, not by another rule about live ranges.

mod bytes;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::problem::{Buffer, Fault, Problem};
use bytes::ByteMap;

/// What an access does with a buffer, always with all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessKind {
    /// Uses the value. The buffer's own last write is meant; a buffer that was never written is a view, and the last
    /// write of what it is an alias of is meant.
    Read,
    /// Stores a new value.
    Write,
    /// Becomes what its parts hold, the buffers that are aliases of it: no byte moves. Each of them has to hold its own
    /// last write, and together they cover the buffer. Who reads it later means these writes.
    Join,
}

/// One use of a buffer by a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Schedule step of the kernel.
    pub step: u32,
    /// Index of the buffer in the problem.
    pub buffer: usize,
    /// Read, write or join.
    pub kind: AccessKind,
}

impl Access {
    /// A read of `buffer` in `step`.
    pub fn read(step: u32, buffer: usize) -> Self {
        Self { step, buffer, kind: AccessKind::Read }
    }

    /// The parts of `buffer` become its value in `step`.
    pub fn join(step: u32, buffer: usize) -> Self {
        Self { step, buffer, kind: AccessKind::Join }
    }

    /// A write of `buffer` in `step`.
    pub fn write(step: u32, buffer: usize) -> Self {
        Self { step, buffer, kind: AccessKind::Write }
    }
}

/// Checks `offsets`, one per buffer, in an arena of `arena` bytes against what the program does. The trace lists the
/// accesses by step; within a step in the order in which they take effect, so that a kernel's operands are read before
/// its result is written, and its scratch is written before it is read.
///
/// Returns all faults, none if the plan holds:
/// - `memory.K1` two live buffers overlap;
/// - `memory.K2` a read finds a value other than the one it means;
/// - `memory.K3` a buffer reaches beyond the arena;
/// - `memory.K4` an offset is not aligned;
/// - `memory.K5` an alias lies elsewhere than what it is an alias of;
/// - `memory.K6` a read finds bytes that nobody has written;
/// - `memory.K7` an access outside of the buffer's live range;
/// - `memory.K8` offsets, or accesses, that belong to no buffer;
/// - `memory.K9` a trace that runs backwards in time.
pub fn check(problem: &Problem, offsets: &[u64], arena: u64, trace: &[Access]) -> Vec<Fault> {
    let buffers = problem.buffers();
    if offsets.len() != buffers.len() {
        let message = format!("the plan has {} offsets for {} buffers", offsets.len(), buffers.len());
        return vec![Fault::new("memory.K8", message)];
    }
    let placed: Vec<Placed<'_>> =
        buffers.iter().zip(offsets).map(|(buffer, &offset)| Placed { buffer, offset }).collect();
    let mut faults = Vec::new();
    check_places(problem, &placed, arena, &mut faults);
    check_owners(&placed, &mut faults);
    check_values(&placed, trace, &mut faults);
    faults
}

/// A buffer and where the plan puts it.
#[derive(Clone, Copy)]
struct Placed<'a> {
    buffer: &'a Buffer,
    offset: u64,
}

impl Placed<'_> {
    /// First byte after the buffer. An offset so large that it overflows is out of any arena.
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.buffer.size)
    }

    fn bytes(&self) -> Range<u64> {
        self.offset..self.end()
    }

    fn id(&self) -> &str {
        &self.buffer.id
    }

    /// Whether it lies where an alias of `target` says that it does.
    fn is_inside(&self, target: &Placed<'_>) -> bool {
        target.offset.checked_add(self.buffer.alias_at) == Some(self.offset)
    }
}

/// Each buffer by itself: inside the arena, aligned, and where its alias is.
fn check_places(problem: &Problem, placed: &[Placed<'_>], arena: u64, faults: &mut Vec<Fault>) {
    for b in placed {
        if b.end() > arena {
            let message = format!("`{}` reaches to byte {}, the arena ends at {arena}", b.id(), b.end());
            faults.push(Fault::new("memory.K3", message));
        }
        if b.offset % problem.alignment() != 0 {
            let message = format!("`{}` is at {}, no multiple of {}", b.id(), b.offset, problem.alignment());
            faults.push(Fault::new("memory.K4", message));
        }
        let target = b.buffer.alias_of.and_then(|target| placed.get(target));
        if let Some(target) = target.filter(|target| !b.is_inside(target)) {
            let (id, of, at) = (b.id(), target.id(), b.buffer.alias_at);
            let at = if at == 0 { String::new() } else { format!(" from its byte {at} on") };
            let message = format!("`{id}` at {} is an alias of `{of}`{at}, which is at {}", b.offset, target.offset);
            faults.push(Fault::new("memory.K5", message));
        }
    }
}

/// Sweeps over time with a map from bytes to the family that owns them. A family is a buffer with all its aliases that
/// lie where they should; it owns the bytes of those of them that are live.
fn check_owners(placed: &[Placed<'_>], faults: &mut Vec<Fault>) {
    let family: Vec<usize> = (0..placed.len()).map(|i| head_of_family(placed, i)).collect();
    let mut live: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut owners: ByteMap<usize> = ByteMap::default();
    for (_, starts, i) in events(placed) {
        let b = &placed[i];
        if starts {
            for rival in owners.values(b.bytes()).filter(|&rival| rival != family[i]) {
                let mut members = live.get(&rival).into_iter().flatten().map(|&member| &placed[member]);
                let overlapping = members.find(|other| other.offset < b.end() && b.offset < other.end());
                faults.extend(overlapping.map(|other| overlap(b, other)));
            }
            live.entry(family[i]).or_default().insert(i);
            owners.fill(b.bytes(), family[i]);
        } else if let Some(members) = live.get_mut(&family[i]) {
            members.remove(&i);
            owners.clear_if(b.bytes(), |owner| owner == family[i]);
            members.iter().for_each(|&member| owners.fill(placed[member].bytes(), family[i]));
        }
    }
}

/// The last buffer of the alias chain of which every alias lies where it should.
fn head_of_family(placed: &[Placed<'_>], start: usize) -> usize {
    let mut head = start;
    // A well-formed problem has no circular chains, but a checker does not hang on one.
    for _ in 0..placed.len() {
        match placed[head].buffer.alias_of {
            Some(target) if placed[head].is_inside(&placed[target]) => head = target,
            _ => break,
        }
    }
    head
}

/// Starts and ends of live ranges by time; ends first, because a half-open range has left at its upper step.
fn events(placed: &[Placed<'_>]) -> Vec<(u32, bool, usize)> {
    let mut events: Vec<(u32, bool, usize)> = Vec::with_capacity(2 * placed.len());
    for (i, b) in placed.iter().enumerate() {
        events.push((b.buffer.lower, true, i));
        events.push((b.buffer.upper, false, i));
    }
    events.sort_unstable();
    events
}

fn overlap(late: &Placed<'_>, early: &Placed<'_>) -> Fault {
    let describe = |b: &Placed<'_>| {
        let Buffer { id, lower, upper, .. } = b.buffer;
        format!("`{id}` (bytes {}..{}, steps {lower}..{upper})", b.offset, b.end())
    };
    Fault::new("memory.K1", format!("{} overlaps {}", describe(late), describe(early)))
}

/// One write of the trace: what its bytes hold until somebody else writes there.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Written {
    /// Position in the trace.
    at: usize,
    step: u32,
    buffer: usize,
}

/// What a buffer is to hold: bytes of the arena, each with the write that is to be found there.
type Value = Vec<(Range<u64>, Written)>;

/// Replays the trace on a map from bytes to the write whose value they hold.
fn check_values(placed: &[Placed<'_>], trace: &[Access], faults: &mut Vec<Fault>) {
    let mut replay = Replay { placed, memory: ByteMap::default(), values: vec![None; placed.len()] };
    let mut now = 0;
    for (at, access) in trace.iter().enumerate() {
        let &Access { step, buffer, kind } = access;
        let Some(b) = placed.get(buffer) else {
            let message = format!("step {step} uses buffer {buffer}, but there are only {}", placed.len());
            faults.push(Fault::new("memory.K8", message));
            continue;
        };
        if step < now {
            let message = format!("step {step} uses `{}` after step {now} in the trace", b.id());
            faults.push(Fault::new("memory.K9", message));
        }
        now = now.max(step);
        if !(b.buffer.lower..b.buffer.upper).contains(&step) {
            let Buffer { id, lower, upper, .. } = b.buffer;
            let message = format!("step {step} uses `{id}`, which is live for {lower} <= step < {upper}");
            faults.push(Fault::new("memory.K7", message));
        }
        match kind {
            AccessKind::Write => replay.write(Written { at, step, buffer }),
            AccessKind::Read => faults.extend(replay.read(step, buffer)),
            AccessKind::Join => faults.extend(replay.join(step, buffer)),
        }
    }
}

struct Replay<'a> {
    placed: &'a [Placed<'a>],
    memory: ByteMap<Written>,
    /// What each buffer holds, if it was written or joined.
    values: Vec<Option<Value>>,
}

impl Replay<'_> {
    fn write(&mut self, written: Written) {
        let bytes = self.placed[written.buffer].bytes();
        self.memory.fill(bytes.clone(), written);
        self.values[written.buffer] = Some(vec![(bytes, written)]);
    }

    /// The fault of one read, at the lowest byte that does not hold what is meant.
    fn read(&self, step: u32, buffer: usize) -> Option<Fault> {
        let b = &self.placed[buffer];
        let Some(meant) = self.meant(buffer) else {
            let message = format!("step {step} reads `{}` before anybody has written it", b.id());
            return Some(Fault::new("memory.K6", message));
        };
        self.memory.pieces(b.bytes()).find_map(|(bytes, found)| self.differs(step, b, meant, bytes, found))
    }

    /// The fault of bytes that hold something else than `meant` says, which may be several writes.
    fn differs(
        &self,
        step: u32,
        b: &Placed<'_>,
        meant: &Value,
        bytes: Range<u64>,
        found: Option<Written>,
    ) -> Option<Fault> {
        let mut at = bytes.start;
        while at < bytes.end {
            let wanted = meant.iter().find(|(range, _)| range.contains(&at));
            match wanted {
                Some((range, written)) if found == Some(*written) => at = range.end,
                _ => {
                    let written = wanted.or(meant.first()).map(|&(_, written)| written);
                    let other = found.filter(|_| found != written);
                    return Some(self.fault(step, b, at..bytes.end, other, written));
                }
            }
        }
        None
    }

    fn fault(
        &self,
        step: u32,
        b: &Placed<'_>,
        bytes: Range<u64>,
        found: Option<Written>,
        meant: Option<Written>,
    ) -> Fault {
        let place = format!("step {step} reads `{}`, but bytes {}..{}", b.id(), bytes.start, bytes.end);
        let source = meant.map_or("nothing".to_owned(), |meant| {
            format!("`{}` as step {} wrote it", self.placed[meant.buffer].id(), meant.step)
        });
        match found {
            Some(found) => {
                let (holds, since) = (self.placed[found.buffer].id(), found.step);
                Fault::new("memory.K2", format!("{place} hold `{holds}` since step {since} and not {source}"))
            }
            None => Fault::new("memory.K6", format!("{place} were never written; {source} is smaller")),
        }
    }

    /// What a read of `buffer` means: its own value, or that of what it is a view of.
    fn meant(&self, buffer: usize) -> Option<&Value> {
        let mut at = buffer;
        for _ in 0..self.placed.len() {
            if self.values[at].is_some() {
                return self.values[at].as_ref();
            }
            at = self.placed[at].buffer.alias_of?;
        }
        None
    }

    /// The parts of a buffer become its value, if each is what it was written as and none of its bytes is missing.
    fn join(&mut self, step: u32, buffer: usize) -> Vec<Fault> {
        let is_part = |i: usize| self.placed[i].buffer.alias_of == Some(buffer) && self.values[i].is_some();
        let parts: Vec<usize> = (0..self.placed.len()).filter(|&i| is_part(i)).collect();
        let faults: Vec<Fault> = parts.iter().filter_map(|&part| self.read(step, part)).collect();
        if !faults.is_empty() {
            return faults;
        }
        let b = &self.placed[buffer];
        let mut value = Value::new();
        for (bytes, found) in self.memory.pieces(b.bytes()) {
            let Some(written) = found.filter(|written| parts.contains(&written.buffer)) else {
                let message = format!(
                    "step {step} joins `{}`, but bytes {}..{} are of none of its parts",
                    b.id(),
                    bytes.start,
                    bytes.end
                );
                return vec![Fault::new("memory.K6", message)];
            };
            value.push((bytes, written));
        }
        self.values[buffer] = Some(value);
        Vec::new()
    }
}

#[cfg(test)]
mod seeded;
#[cfg(test)]
mod tests;
