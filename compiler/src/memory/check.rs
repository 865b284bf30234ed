//! The checker: replays a plan and proves that it is safe, or says why not.
//!
//! It shares no code with the solvers and trusts nothing they derive: it follows the buffers' own offsets, live ranges
//! and alias claims. Two sweeps, each over an ordered map of byte ranges, in O((n + accesses) log n):
//!
//! 1. over time, *who owns which bytes*: buffers that are live at the same time share none, unless one is an alias of
//!    the other (`memory.K1`);
//! 2. over the accesses, *what is in which bytes*: a write fills a buffer with the identity of that write, and a read has
//!    to find the write that the program means. So a reused byte, a late reader of a value that was overwritten in place,
//!    and a buffer nobody has written are all found by what a run would do, not by another rule about live ranges.

mod bytes;

use std::collections::{BTreeMap, BTreeSet};

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
}

/// One use of a buffer by a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Schedule step of the kernel.
    pub step: u32,
    /// Index of the buffer in the problem.
    pub buffer: usize,
    /// Read or write.
    pub kind: AccessKind,
}

impl Access {
    /// A read of `buffer` in `step`.
    pub fn read(step: u32, buffer: usize) -> Self {
        Self { step, buffer, kind: AccessKind::Read }
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

    fn id(&self) -> &str {
        &self.buffer.id
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
        if let Some(target) = target.filter(|target| target.offset != b.offset) {
            let (id, of) = (b.id(), target.id());
            let message = format!("`{id}` at {} is an alias of `{of}`, which is at {}", b.offset, target.offset);
            faults.push(Fault::new("memory.K5", message));
        }
    }
}

/// Sweeps over time with a map from bytes to the family that owns them. A family is a buffer and its aliases at the same
/// offset; it owns as many bytes as the largest of its members that are live.
fn check_owners(placed: &[Placed<'_>], faults: &mut Vec<Fault>) {
    let family: Vec<usize> = (0..placed.len()).map(|i| head_of_family(placed, i)).collect();
    let mut live: BTreeMap<usize, BTreeSet<(u64, usize)>> = BTreeMap::new();
    let mut owners: ByteMap<usize> = ByteMap::default();
    for (_, starts, i) in events(placed) {
        let b = &placed[i];
        if starts {
            for rival in owners.values(b.offset..b.end()).filter(|&rival| rival != family[i]) {
                let largest = live.get(&rival).and_then(BTreeSet::last);
                faults.extend(largest.map(|&(_, member)| overlap(b, &placed[member])));
            }
        }
        let members = live.entry(family[i]).or_default();
        let before = largest_end(members, b.offset);
        if starts {
            members.insert((b.end(), i));
            owners.fill(before..b.end(), family[i]);
        } else {
            members.remove(&(b.end(), i));
            owners.clear_if(largest_end(members, b.offset)..before, |owner| owner == family[i]);
        }
    }
}

/// The last buffer of the alias chain that is still at the same offset.
fn head_of_family(placed: &[Placed<'_>], start: usize) -> usize {
    let mut head = start;
    // A well-formed problem has no circular chains, but a checker does not hang on one.
    for _ in 0..placed.len() {
        match placed[head].buffer.alias_of {
            Some(target) if placed[target].offset == placed[head].offset => head = target,
            _ => break,
        }
    }
    head
}

fn largest_end(members: &BTreeSet<(u64, usize)>, offset: u64) -> u64 {
    members.last().map_or(offset, |&(end, _)| end)
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

/// Replays the trace on a map from bytes to the write whose value they hold.
fn check_values(placed: &[Placed<'_>], trace: &[Access], faults: &mut Vec<Fault>) {
    let mut memory: ByteMap<Written> = ByteMap::default();
    let mut last_write: Vec<Option<Written>> = vec![None; placed.len()];
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
            AccessKind::Write => {
                let written = Written { at, step, buffer };
                last_write[buffer] = Some(written);
                memory.fill(b.offset..b.end(), written);
            }
            AccessKind::Read => faults.extend(check_read(placed, &memory, &last_write, step, buffer)),
        }
    }
}

/// The fault of one read, at the lowest byte that does not hold what is meant.
fn check_read(
    placed: &[Placed<'_>],
    memory: &ByteMap<Written>,
    last_write: &[Option<Written>],
    step: u32,
    buffer: usize,
) -> Option<Fault> {
    let b = &placed[buffer];
    let Some(meant) = meant_write(placed, last_write, buffer) else {
        let message = format!("step {step} reads `{}` before anybody has written it", b.id());
        return Some(Fault::new("memory.K6", message));
    };
    let (bytes, found) = memory.pieces(b.offset..b.end()).find(|&(_, found)| found != Some(meant))?;
    let place = format!("step {step} reads `{}`, but bytes {}..{}", b.id(), bytes.start, bytes.end);
    let source = format!("`{}` as step {} wrote it", placed[meant.buffer].id(), meant.step);
    Some(match found {
        Some(found) => {
            let (holds, since) = (placed[found.buffer].id(), found.step);
            Fault::new("memory.K2", format!("{place} hold `{holds}` since step {since} and not {source}"))
        }
        None => Fault::new("memory.K6", format!("{place} were never written; {source} is smaller")),
    })
}

/// The write whose value a read of `buffer` means: its own last one, or that of what it is a view of.
fn meant_write(placed: &[Placed<'_>], last_write: &[Option<Written>], buffer: usize) -> Option<Written> {
    let mut at = buffer;
    for _ in 0..placed.len() {
        if last_write[at].is_some() {
            return last_write[at];
        }
        at = placed[at].buffer.alias_of?;
    }
    None
}

#[cfg(test)]
mod seeded;
#[cfg(test)]
mod tests;
