//! Faults put into sound plans of random programs: each kind has to be found every time, by the label that names it.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use super::*;
use crate::memory::programs::{self, Program, Random};
use crate::memory::{Options, plan};

/// A program with a plan that holds, to be spoilt.
struct Sound {
    buffers: Vec<Buffer>,
    /// Storage of each buffer: equal ones may overlap.
    storage: Vec<usize>,
    offsets: Vec<u64>,
    arena: u64,
    trace: Vec<Access>,
}

/// Puts one fault into a plan; false if the program offers no place for it.
type Seed = fn(&mut Sound, &mut Random) -> bool;

/// Name, labels of which one has to be reported, and how to do it.
const KINDS: [(&str, &[&str], Seed); 21] = [
    ("overlap", &["memory.K1"], overlap),
    ("wrong size", &["memory.K1"], wrong_size),
    ("early reuse", &["memory.K1"], early_reuse),
    ("late reader of a value overwritten in place", &["memory.K2"], late_alias),
    ("result stored before the operand is read", &["memory.K2"], swapped_accesses),
    ("arena too small", &["memory.K3"], small_arena),
    ("misaligned offset", &["memory.K4"], misaligned),
    ("alias moved", &["memory.K5"], moved_alias),
    ("write left out", &["memory.K6", "memory.K2"], left_out_write),
    ("view larger than the value", &["memory.K6", "memory.K2", "memory.K3"], large_view),
    ("freed early", &["memory.K7"], early_free),
    ("born late", &["memory.K7"], late_birth),
    ("offset missing", &["memory.K8"], missing_offset),
    ("trace out of order", &["memory.K9"], backwards),
    ("part in the place of another", &["memory.K2", "memory.K6"], part_over_part),
    ("part moved without the whole", &["memory.K5"], moved_part),
    ("part that is not all there", &["memory.K6", "memory.K2"], short_part),
    ("part never written", &["memory.K6", "memory.K2"], missing_part),
    ("joined before a part is written", &["memory.K6", "memory.K2"], early_join),
    ("part overwritten after the join", &["memory.K2"], overwritten_part),
    ("never joined", &["memory.K6"], left_out_join),
];

#[test]
fn every_kind_of_seeded_fault_is_found() {
    let mut random = Random::new(11);
    let mut found = [0usize; KINDS.len()];
    for round in 0..4_000 {
        let program = programs::random(4 + round % 24, &mut random);
        for ((name, labels, seed), found) in KINDS.iter().zip(&mut found) {
            let mut sound = Sound::of(&program);
            if seed(&mut sound, &mut random) {
                let faults = sound.check();
                let named = faults.iter().any(|fault| labels.contains(&fault.label));
                assert!(named, "{name} gave {faults:?} in {:?} at {:?}", sound.buffers, sound.offsets);
                *found += 1;
            }
        }
    }
    for ((name, ..), found) in KINDS.iter().zip(found) {
        assert!(found > 200, "{name} was seeded {found} times only");
    }
}

impl Sound {
    fn of(program: &Program) -> Self {
        let Program { problem, trace } = program;
        let plan = plan(problem, &Options { exact_nodes: 0, capacity: None });
        Self {
            buffers: problem.buffers().to_vec(),
            storage: problem.storage_of().to_vec(),
            offsets: plan.offsets,
            arena: plan.peak,
            trace: trace.clone(),
        }
    }

    fn check(&self) -> Vec<Fault> {
        let problem = Problem::new(self.buffers.clone()).unwrap();
        check(&problem, &self.offsets, self.arena, &self.trace)
    }

    /// Any buffer that satisfies the condition.
    fn pick(&self, random: &mut Random, condition: impl Fn(usize, &Buffer) -> bool) -> Option<usize> {
        let candidates: Vec<usize> = (0..self.buffers.len()).filter(|&i| condition(i, &self.buffers[i])).collect();
        (!candidates.is_empty()).then(|| candidates[random.below(candidates.len())])
    }

    /// Two buffers with bytes and without a common storage that are live at the same step.
    fn pick_rivals(&self, random: &mut Random, condition: impl Fn(usize, usize) -> bool) -> Option<(usize, usize)> {
        let a = self.pick(random, |_, b| b.size > 0)?;
        let (x, shared) = (&self.buffers[a], self.storage[a]);
        let together = |y: &Buffer| x.lower < y.upper && y.lower < x.upper && y.size > 0;
        let b = self.pick(random, |i, y| self.storage[i] != shared && together(y) && condition(a, i))?;
        Some((a, b))
    }

    /// Position in the trace of a write into the place of an operand: of something that was written itself.
    fn pick_in_place(&self, random: &mut Random) -> Option<usize> {
        let writes = |i: usize| self.trace.iter().any(|a| a.buffer == i && a.kind == AccessKind::Write);
        let i = self.pick(random, |i, b| b.size > 0 && b.alias_of.is_some_and(writes) && writes(i))?;
        self.trace.iter().position(|access| access.buffer == i && access.kind == AccessKind::Write)
    }
}

fn overlap(sound: &mut Sound, random: &mut Random) -> bool {
    let Some((a, b)) = sound.pick_rivals(random, |_, _| true) else { return false };
    sound.offsets[a] = sound.offsets[b];
    true
}

fn wrong_size(sound: &mut Sound, random: &mut Random) -> bool {
    let offsets = sound.offsets.clone();
    let Some((a, b)) = sound.pick_rivals(random, |a, b| offsets[a] < offsets[b]) else { return false };
    sound.buffers[a].size = offsets[b] - offsets[a] + 1;
    true
}

/// A buffer moves to the place of one that dies when it is born, and the other one lives a step longer.
fn early_reuse(sound: &mut Sound, random: &mut Random) -> bool {
    let buffers = sound.buffers.clone();
    let storage = sound.storage.clone();
    let follows = |a: usize, b: usize| {
        buffers[a].upper == buffers[b].lower && storage[a] != storage[b] && buffers[a].size > 0 && buffers[b].size > 0
    };
    let Some(b) = sound.pick(random, |b, _| (0..buffers.len()).any(|a| follows(a, b))) else { return false };
    let Some(a) = sound.pick(random, |a, _| follows(a, b)) else { return false };
    sound.offsets[b] = sound.offsets[a];
    sound.buffers[a].upper += 1;
    true
}

fn late_alias(sound: &mut Sound, random: &mut Random) -> bool {
    let Some(at) = sound.pick_in_place(random) else { return false };
    let Access { step, buffer, .. } = sound.trace[at];
    let old = sound.buffers[buffer].alias_of.unwrap();
    sound.trace.insert(at + 1, Access::read(step, old));
    true
}

fn swapped_accesses(sound: &mut Sound, random: &mut Random) -> bool {
    let Some(at) = sound.pick_in_place(random) else { return false };
    let Access { step, buffer, .. } = sound.trace[at];
    let old = sound.buffers[buffer].alias_of.unwrap();
    let Some(read) = sound.trace.iter().position(|access| *access == Access::read(step, old)) else { return false };
    sound.trace.swap(read, at);
    true
}

fn small_arena(sound: &mut Sound, random: &mut Random) -> bool {
    let ends = sound.buffers.iter().zip(&sound.offsets).map(|(b, offset)| offset + b.size);
    let top = ends.max().unwrap_or(0);
    if top == 0 {
        return false;
    }
    sound.arena = top - 1 - random.below(top.min(64) as usize) as u64;
    true
}

fn misaligned(sound: &mut Sound, random: &mut Random) -> bool {
    let i = random.below(sound.buffers.len());
    sound.offsets[i] += 1 + random.below(63) as u64;
    true
}

fn moved_alias(sound: &mut Sound, random: &mut Random) -> bool {
    let Some(i) = sound.pick(random, |_, b| b.alias_of.is_some()) else { return false };
    sound.offsets[i] += 64 * (1 + random.below(4) as u64);
    true
}

fn left_out_write(sound: &mut Sound, random: &mut Random) -> bool {
    // Of a value that is read in its own name.
    let trace = sound.trace.clone();
    let does = |i: usize, kind: AccessKind| trace.iter().any(|a| a.buffer == i && a.kind == kind);
    let used = |i: usize| does(i, AccessKind::Read) && does(i, AccessKind::Write);
    let Some(i) = sound.pick(random, |i, b| b.size > 0 && b.alias_of.is_none() && used(i)) else { return false };
    sound.trace.retain(|a| !(a.buffer == i && a.kind == AccessKind::Write));
    true
}

/// A view of more bytes than the value has, read as soon as the value is there.
fn large_view(sound: &mut Sound, random: &mut Random) -> bool {
    let at = random.below(sound.trace.len());
    let Access { step, buffer, kind } = sound.trace[at];
    if kind == AccessKind::Read {
        return false;
    }
    let size = sound.buffers[buffer].size + 1;
    sound.buffers.push(Buffer::new("large", size, step, step + 1).alias_of(buffer));
    sound.offsets.push(sound.offsets[buffer]);
    sound.trace.insert(at + 1, Access::read(step, sound.buffers.len() - 1));
    true
}

fn early_free(sound: &mut Sound, random: &mut Random) -> bool {
    let Access { step, buffer, .. } = sound.trace[random.below(sound.trace.len())];
    let b = &mut sound.buffers[buffer];
    let last = step + 1 == b.upper && b.lower < step;
    b.upper -= u32::from(last);
    last
}

fn late_birth(sound: &mut Sound, random: &mut Random) -> bool {
    let Access { step, buffer, .. } = sound.trace[random.below(sound.trace.len())];
    let b = &mut sound.buffers[buffer];
    let first = step == b.lower && step + 1 < b.upper;
    b.lower += u32::from(first);
    first
}

/// Position in the trace of a join, and two parts of what it joins.
fn pick_join(sound: &Sound, random: &mut Random) -> Option<(usize, [usize; 2])> {
    let joins = sound.trace.iter().enumerate().filter(|(_, access)| access.kind == AccessKind::Join);
    let joins: Vec<(usize, usize)> = joins.map(|(at, access)| (at, access.buffer)).collect();
    let &(at, whole) = joins.get(random.below(joins.len().max(1)))?;
    let is_part = |i: &usize| sound.buffers[*i].alias_of == Some(whole) && sound.buffers[*i].size > 0;
    let mut parts = (0..sound.buffers.len()).filter(is_part);
    Some((at, [parts.next()?, parts.next()?]))
}

/// The second part is declared, and lies, where the first one is.
fn part_over_part(sound: &mut Sound, random: &mut Random) -> bool {
    let Some((_, [first, second])) = pick_join(sound, random) else { return false };
    sound.buffers[second].alias_at = sound.buffers[first].alias_at;
    sound.offsets[second] = sound.offsets[first];
    true
}

fn moved_part(sound: &mut Sound, random: &mut Random) -> bool {
    let Some((_, [first, second])) = pick_join(sound, random) else { return false };
    sound.offsets.swap(first, second);
    true
}

/// The kernel writes less than the part that it should.
fn short_part(sound: &mut Sound, random: &mut Random) -> bool {
    let Some((_, parts)) = pick_join(sound, random) else { return false };
    let part = &mut sound.buffers[parts[random.below(2)]];
    part.size -= 1;
    true
}

fn missing_part(sound: &mut Sound, random: &mut Random) -> bool {
    let Some((_, parts)) = pick_join(sound, random) else { return false };
    let part = parts[random.below(2)];
    sound.trace.retain(|a| !(a.buffer == part && a.kind == AccessKind::Write));
    true
}

fn early_join(sound: &mut Sound, random: &mut Random) -> bool {
    let Some((at, parts)) = pick_join(sound, random) else { return false };
    // The last part is written right before.
    let before = at.checked_sub(1).map(|before| sound.trace[before]);
    if before.is_none_or(|access| !parts.contains(&access.buffer) || access.kind != AccessKind::Write) {
        return false;
    }
    sound.trace.swap(at - 1, at);
    true
}

fn overwritten_part(sound: &mut Sound, random: &mut Random) -> bool {
    let Some((at, parts)) = pick_join(sound, random) else { return false };
    let access = Access::write(sound.trace[at].step, parts[random.below(2)]);
    sound.trace.insert(at + 1, access);
    true
}

fn left_out_join(sound: &mut Sound, random: &mut Random) -> bool {
    let Some((at, _)) = pick_join(sound, random) else { return false };
    sound.trace.remove(at);
    true
}

fn missing_offset(sound: &mut Sound, random: &mut Random) -> bool {
    sound.offsets.truncate(random.below(sound.offsets.len()));
    true
}

fn backwards(sound: &mut Sound, random: &mut Random) -> bool {
    let Some(i) = sound.pick(random, |_, b| b.lower + 1 < b.upper) else { return false };
    let first = sound.buffers[i].lower;
    if !sound.trace.iter().any(|access| access.step > first) {
        return false;
    }
    sound.trace.push(Access::read(first, i));
    true
}
