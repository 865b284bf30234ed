//! Registers for a tape: one pass over it, a place per value for its whole life, nothing is ever spilled.
//!
//! The body is emitted for several vectors at a time, operation by operation, so every value has a register per copy.
//! What is left over after that keeps words that would otherwise be read from memory at each use.

use super::tape::{Mask, Op, Source, Tape, Vector, Word};

/// Most vectors at a time.
pub(super) const MOST_COPIES: usize = 8;
/// Vector registers.
const VECTORS: usize = 32;
/// Register that takes a word where an instruction needs one.
pub(super) const SCRATCH: u8 = 31;
/// Numbers of the even elements of two vectors, if the tape takes every second.
pub(super) const EVEN: u8 = 30;
/// Another register for steps inside one operation, if the tape takes every second element.
pub(super) const OTHER_SCRATCH: u8 = 29;
/// The mask of the last, partial vector.
pub(super) const TAIL: u8 = 1;
/// Mask of steps inside one operation.
pub(super) const SCRATCH_MASK: u8 = 7;
/// First mask that values may have; those up to [`SCRATCH_MASK`] follow.
const FIRST_MASK: u8 = 2;
/// How much more a use in an inner loop counts.
const LOOP_WEIGHT: u64 = 16;

/// Where everything is.
#[derive(Debug)]
pub(super) struct Registers {
    pub(super) copies: usize,
    vectors: Vec<[u8; MOST_COPIES]>,
    masks: Vec<[u8; MOST_COPIES]>,
    words: Vec<Option<u8>>,
}

impl Registers {
    pub(super) fn vector(&self, vector: Vector, copy: usize) -> u8 {
        self.vectors[vector.0 as usize][copy]
    }

    pub(super) fn mask(&self, mask: Mask, copy: usize) -> u8 {
        self.masks[mask.0 as usize][copy]
    }

    /// The register that keeps a word, if one does.
    pub(super) fn word(&self, word: Word) -> Option<u8> {
        self.words[word.0 as usize]
    }

    /// Words that are kept, with their registers.
    pub(super) fn kept(&self) -> impl Iterator<Item = (Word, u8)> {
        self.words.iter().enumerate().filter_map(|(word, register)| Some((Word(word as u32), (*register)?)))
    }
}

/// Registers for `copies` vectors at a time, if there are enough.
pub(super) fn allocate(tape: &Tape, copies: usize) -> Option<Registers> {
    let lives = Lives::of(tape);
    let mut state = State {
        tape,
        copies,
        registers: Registers {
            copies,
            vectors: vec![[u8::MAX; MOST_COPIES]; tape.vectors as usize],
            masks: vec![[u8::MAX; MOST_COPIES]; tape.masks as usize],
            words: vec![None; tape.words.len()],
        },
        free: (0..first_reserved(tape)).rev().collect(),
        free_masks: (FIRST_MASK..SCRATCH_MASK).rev().collect(),
        used: [false; VECTORS],
    };
    for total in &tape.totals {
        state.take(total.vector)?;
    }
    for (position, op) in tape.head.iter().chain(&tape.ops).enumerate() {
        state.step(position, op, &lives)?;
    }
    state.keep_words();
    Some(state.registers)
}

/// First vector register that values may not have.
fn first_reserved(tape: &Tape) -> u8 {
    if tape.has_steps_of_two() { OTHER_SCRATCH } else { SCRATCH }
}

/// Last position at which each value is read or, for accumulators, written.
struct Lives {
    vectors: Vec<usize>,
    masks: Vec<usize>,
}

impl Lives {
    fn of(tape: &Tape) -> Lives {
        let mut lives = Lives { vectors: vec![0; tape.vectors as usize], masks: vec![0; tape.masks as usize] };
        let mut first = vec![usize::MAX; tape.vectors as usize];
        let mut first_mask = vec![usize::MAX; tape.masks as usize];
        for (position, op) in tape.head.iter().chain(&tape.ops).enumerate() {
            for vector in vectors_of(op).chain(op.result()) {
                lives.vectors[vector.0 as usize] = position;
                first[vector.0 as usize] = first[vector.0 as usize].min(position);
            }
            for mask in op.masks().into_iter().flatten().chain(op.mask_result()) {
                lives.masks[mask.0 as usize] = position;
                first_mask[mask.0 as usize] = first_mask[mask.0 as usize].min(position);
            }
        }
        // What an inner loop reads and did not make is needed again in its next iteration. Inner loops end first.
        for (begin, end) in loops(tape) {
            let inside = |first: usize, last: usize| first < begin && (begin..end).contains(&last);
            for (first, last) in first.iter().zip(&mut lives.vectors) {
                if inside(*first, *last) {
                    *last = end;
                }
            }
            for (first, last) in first_mask.iter().zip(&mut lives.masks) {
                if inside(*first, *last) {
                    *last = end;
                }
            }
        }
        for total in &tape.totals {
            lives.vectors[total.vector.0 as usize] = usize::MAX;
        }
        // What is made per row is read in every round of it.
        for (first, last) in first.iter().zip(&mut lives.vectors) {
            if *first < tape.head.len() && *last >= tape.head.len() {
                *last = usize::MAX;
            }
        }
        lives
    }
}

/// Begin and end of every inner loop, in the order of their ends.
fn loops(tape: &Tape) -> Vec<(usize, usize)> {
    let mut open = Vec::new();
    let mut found = Vec::new();
    for (position, op) in tape.head.iter().chain(&tape.ops).enumerate() {
        match op {
            Op::Repeat { .. } => open.push(position),
            Op::End { .. } => found.extend(open.pop().map(|begin| (begin, position))),
            _ => {}
        }
    }
    found
}

fn vectors_of(op: &Op) -> impl Iterator<Item = Vector> + use<> {
    op.sources().into_iter().flatten().filter_map(|source| match source {
        Source::Vector(vector) => Some(vector),
        Source::Word(_) => None,
    })
}

struct State<'a> {
    tape: &'a Tape,
    copies: usize,
    registers: Registers,
    free: Vec<u8>,
    free_masks: Vec<u8>,
    used: [bool; VECTORS],
}

impl State<'_> {
    fn step(&mut self, position: usize, op: &Op, lives: &Lives) -> Option<()> {
        let dies = |vector: Vector| lives.vectors[vector.0 as usize] == position;
        let mut dying: Vec<Vector> = vectors_of(op).filter(|v| dies(*v)).collect();
        dying.dedup();
        let mut ending: Vec<Mask> =
            op.masks().into_iter().flatten().filter(|m| lives.masks[m.0 as usize] == position).collect();
        ending.dedup();
        let result = op.result().filter(|to| !self.is_placed(*to));
        // An operation of several instructions may write its result before it has read everything: it takes over the
        // register that it changes in place, or a fresh one.
        let in_place = match *op {
            Op::MulAdd { a, b, c, .. } => Some([Some(c), Some(a), Some(b)]),
            Op::Extreme { a, .. } => Some([Some(a), None, None]),
            Op::LoadWhere { otherwise, .. } => Some([Some(otherwise), None, None]),
            _ => None,
        };
        if let (Some(to), Some(candidates)) = (result, in_place) {
            let heir = candidates.into_iter().flatten().find_map(|source| match source {
                Source::Vector(vector) if dying.contains(&vector) && !self.tape.uniform.contains(&vector) => {
                    Some(vector)
                }
                _ => None,
            });
            match heir {
                Some(vector) => {
                    self.registers.vectors[to.0 as usize] = self.registers.vectors[vector.0 as usize];
                    dying.retain(|v| *v != vector);
                }
                None => self.take(to)?,
            }
            self.release(&dying, &ending);
        } else {
            // Copies come one after another, and a copy may not overwrite what the next one reads.
            let shared: Vec<Vector> = dying.iter().copied().filter(|v| self.tape.uniform.contains(v)).collect();
            dying.retain(|v| !shared.contains(v));
            self.release(&dying, &ending);
            if let Some(to) = result {
                self.take_like(to, &dying)?;
            }
            self.release(&shared, &[]);
        }
        if let Some(mask) = op.mask_result() {
            self.take_mask(mask)?;
        }
        // A value that nobody reads.
        if let Some(to) = op.result().filter(|to| dies(*to) && !vectors_of(op).any(|v| v == *to)) {
            self.release(&[to], &[]);
        }
        if let Some(mask) = op.mask_result().filter(|mask| lives.masks[mask.0 as usize] == position) {
            self.release(&[], &[mask]);
        }
        if matches!(op, Op::End { .. }) {
            self.end(position, lives);
        }
        Some(())
    }

    fn is_placed(&self, vector: Vector) -> bool {
        self.registers.vectors[vector.0 as usize][0] != u8::MAX
    }

    /// Frees what was kept for the next iteration of a loop that ends.
    fn end(&mut self, position: usize, lives: &Lives) {
        let vectors: Vec<Vector> =
            (0..self.tape.vectors).map(Vector).filter(|v| lives.vectors[v.0 as usize] == position).collect();
        let masks: Vec<Mask> =
            (0..self.tape.masks).map(Mask).filter(|m| lives.masks[m.0 as usize] == position).collect();
        self.release(&vectors, &masks);
    }

    fn release(&mut self, vectors: &[Vector], masks: &[Mask]) {
        for vector in vectors.iter().rev() {
            let count = self.copies_of(*vector);
            let registers = self.registers.vectors[vector.0 as usize];
            self.free.extend(registers[..count].iter().rev().filter(|register| **register != u8::MAX));
        }
        for mask in masks {
            self.free_masks.extend(self.registers.masks[mask.0 as usize][..self.copies].iter().rev());
        }
    }

    fn copies_of(&self, vector: Vector) -> usize {
        if self.tape.uniform.contains(&vector) { 1 } else { self.copies }
    }

    fn take(&mut self, vector: Vector) -> Option<()> {
        let mut registers = [u8::MAX; MOST_COPIES];
        for register in &mut registers[..self.copies_of(vector)] {
            *register = self.free.pop()?;
            self.used[usize::from(*register)] = true;
        }
        if self.tape.uniform.contains(&vector) {
            registers = [registers[0]; MOST_COPIES];
        }
        self.registers.vectors[vector.0 as usize] = registers;
        Some(())
    }

    /// Takes registers such that no copy overwrites what a later copy reads: those of one dying operand, copy for copy,
    /// or registers that were free before.
    fn take_like(&mut self, to: Vector, dying: &[Vector]) -> Option<()> {
        if let Some(heir) = dying.first().filter(|_| !self.tape.uniform.contains(&to)) {
            let registers = self.registers.vectors[heir.0 as usize];
            self.free.retain(|free| !registers[..self.copies].contains(free));
            self.registers.vectors[to.0 as usize] = registers;
            return Some(());
        }
        self.take(to)
    }

    fn take_mask(&mut self, mask: Mask) -> Option<()> {
        let mut registers = [u8::MAX; MOST_COPIES];
        for register in &mut registers[..self.copies] {
            *register = self.free_masks.pop()?;
        }
        self.registers.masks[mask.0 as usize] = registers;
        Some(())
    }

    /// Gives words the registers that nothing else used, the most read first.
    fn keep_words(&mut self) {
        let mut uses = vec![0u64; self.tape.words.len()];
        let mut weight = 1;
        for op in &self.tape.ops {
            match op {
                Op::Repeat { .. } => weight *= LOOP_WEIGHT,
                Op::End { .. } => weight /= LOOP_WEIGHT,
                _ => {}
            }
            let sources = op.sources();
            for (place, source) in sources.iter().enumerate() {
                let Some(Source::Word(word)) = source else { continue };
                // As a first operand a word needs a register, and an instruction of its own to get there.
                let first = place == 0 && !matches!(op, Op::Select { .. });
                uses[word.0 as usize] += if first { 3 * weight } else { weight };
            }
        }
        let mut order: Vec<usize> = (0..uses.len()).filter(|word| uses[*word] > 0).collect();
        order.sort_by_key(|word| std::cmp::Reverse(uses[*word]));
        let spare = (0..first_reserved(self.tape)).filter(|register| !self.used[usize::from(*register)]);
        for (word, register) in order.into_iter().zip(spare) {
            self.registers.words[word] = Some(register);
        }
    }
}
