//! The operations of a tape as instructions, one copy at a time.

use super::allocate::{EVEN, OTHER_SCRATCH, SCRATCH, SCRATCH_MASK, TAIL};
use super::assemble::{LANES, LIMIT, POSITION, TEMPORARY, Writer, block};
use super::encode::{Condition, Gpr, Lanes, MaskOp, Memory, Rm};
use super::instructions::{self, Evex};
use super::tape::{At, Combine, Compare, Element, Op, Source, Tape, Vector, Word, WordData};

impl Writer<'_> {
    pub(super) fn word_memory(&mut self, word: Word) -> Memory {
        match self.tape.words[word.0 as usize] {
            WordData::Literal(bits) => self.a.word(bits),
            WordData::Argument(number) => block(self.tape.argument_offset(number)),
        }
    }

    /// An operand in a register; a word that has none goes to the scratch register.
    fn register(&mut self, source: Source, copy: usize) -> u8 {
        match source {
            Source::Vector(vector) => self.registers.vector(vector, copy),
            Source::Word(word) => match self.registers.word(word) {
                Some(register) => register,
                None => {
                    self.broadcast(SCRATCH, word);
                    SCRATCH
                }
            },
        }
    }

    /// An operand where memory is allowed.
    fn rm(&mut self, source: Source, copy: usize) -> Rm {
        match source {
            Source::Vector(vector) => Rm::Register(self.registers.vector(vector, copy)),
            Source::Word(word) => match self.registers.word(word) {
                Some(register) => Rm::Register(register),
                None => Rm::Word(self.word_memory(word)),
            },
        }
    }

    fn tail_lanes(&self) -> Option<u8> {
        self.tail.then_some(TAIL)
    }

    pub(super) fn op(&mut self, op: &Op, copy: usize) {
        match *op {
            Op::Load { to, at, element } => self.load(to, at, element, copy),
            Op::LoadWhere { to, at, element, mask, otherwise, whole } => {
                let (to, mask) = (self.registers.vector(to, copy), self.registers.mask(mask, copy));
                self.move_to(to, otherwise, copy);
                let none = whole.then(|| self.a.label());
                if let Some(none) = none {
                    self.a.mask_test(mask);
                    self.a.jump_if(Condition::Zero, none);
                }
                self.load_where(to, at, element, mask, copy);
                if let Some(none) = none {
                    self.a.bind(none);
                    // The jump may have gone past the load of the pointer.
                    self.loaded = None;
                }
            }
            Op::Position { to } => {
                let to = self.registers.vector(to, copy);
                self.a.evex(instructions::VPBROADCASTD, to, 0, Rm::Register(POSITION.0), Lanes::All, None);
                let numbers = std::array::from_fn(|lane| (lane + copy * LANES as usize) as u32);
                let numbers = Rm::Memory(self.a.words(numbers));
                self.a.evex(instructions::VPADDD, to, to, numbers, Lanes::All, None);
            }
            Op::Row { to, level } => {
                match level.checked_sub(1) {
                    None => self.a.load(Gpr::RCX, block(Tape::ROWS_OFFSET)),
                    Some(inner) => self.a.set(Gpr::RCX, self.tape.rows[inner]),
                }
                self.a.subtract_register(Gpr::RCX, self.pointers.rows[level]);
                let to = self.registers.vector(to, copy);
                self.a.evex(instructions::VPBROADCASTD, to, 0, Rm::Register(Gpr::RCX.0), Lanes::All, None);
            }
            Op::Spread { to, mask } => {
                let mask = Rm::Register(self.registers.mask(mask, copy));
                self.a.evex(instructions::VPMOVM2D, self.registers.vector(to, copy), 0, mask, Lanes::All, None);
            }
            Op::Store { at, value, .. } if self.tape.streams[at.stream.0 as usize].step == 2 => {
                self.store_every_second(at, value, copy);
            }
            Op::Store { at, element, value } => {
                let from = self.register(value, copy);
                let instruction = store_instruction(element);
                let memory = Rm::Memory(self.memory(at, copy));
                let lanes = self.tail_lanes().map_or(Lanes::All, Lanes::Where);
                self.a.evex(instruction, from, 0, memory, lanes, None);
            }
            Op::Unary { to, f, x } => {
                let (instruction, immediate) = f.instruction();
                let x = self.rm(x, copy);
                self.a.evex(instruction, self.registers.vector(to, copy), 0, x, Lanes::All, immediate);
            }
            Op::Binary { to, f, a, b } => {
                let (a, b) = (self.register(a, copy), self.rm(b, copy));
                self.a.evex(f.instruction(), self.registers.vector(to, copy), a, b, Lanes::All, None);
            }
            Op::MulAdd { to, a, b, c } => self.mul_add(self.registers.vector(to, copy), [a, b, c], copy),
            Op::Extreme { to, max, a, b } => {
                let to = self.registers.vector(to, copy);
                self.move_to(to, a, copy);
                let b = self.rm(b, copy);
                self.combine(if max { Combine::Max } else { Combine::Min }, to, b, None);
            }
            Op::Compare { to, f, a, b } => {
                let (instruction, predicate) = f.instruction();
                let (a, b) = (self.register(a, copy), self.rm(b, copy));
                self.a.evex(instruction, self.registers.mask(to, copy), a, b, Lanes::All, Some(predicate));
            }
            Op::Test { to, x } => {
                let x = self.register(x, copy);
                self.a.evex(
                    instructions::VPTESTMD,
                    self.registers.mask(to, copy),
                    x,
                    Rm::Register(x),
                    Lanes::All,
                    None,
                );
            }
            Op::Logic { to, f, a, b } => {
                let (to, a, b) =
                    (self.registers.mask(to, copy), self.registers.mask(a, copy), self.registers.mask(b, copy));
                self.a.mask(f, to, a, b);
            }
            Op::Not { to, a } => self.a.mask_not(self.registers.mask(to, copy), self.registers.mask(a, copy)),
            Op::Select { to, mask, a, b } => {
                // The instruction takes its last operand where the mask is set.
                let (b, a) = (self.register(b, copy), self.rm(a, copy));
                let lanes = Lanes::Where(self.registers.mask(mask, copy));
                self.a.evex(instructions::VBLENDMPS, self.registers.vector(to, copy), b, a, lanes, None);
            }
            Op::Copy { to, from } => self.move_to(self.registers.vector(to, copy), from, copy),
            Op::Accumulate { to, f, value } => {
                let value = self.rm(value, copy);
                let mask = self.tail_lanes().filter(|_| self.tape.is_total(to));
                self.combine(f, self.registers.vector(to, copy), value, mask);
            }
            Op::AccumulateProduct { to, a, b } => {
                let (a, b) = if matches!(a, Source::Word(_)) { (b, a) } else { (a, b) };
                let (a, b) = (self.register(a, copy), self.rm(b, copy));
                let lanes = self.tail_lanes().filter(|_| self.tape.is_total(to)).map_or(Lanes::All, Lanes::Where);
                self.a.evex(instructions::VFMADD231PS, self.registers.vector(to, copy), a, b, lanes, None);
            }
            Op::Repeat { .. } | Op::End { .. } => {}
        }
    }

    fn load(&mut self, to: Vector, at: At, element: Element, copy: usize) {
        let step = self.tape.streams[at.stream.0 as usize].step;
        if step == 0 && copy > 0 {
            return;
        }
        let to = self.registers.vector(to, copy);
        let memory = self.memory(at, copy);
        if step == 2 {
            return self.load_every_second(to, memory);
        }
        let instruction = if step == 0 { instructions::VBROADCASTSS } else { load_instruction(element) };
        let lanes = self.tail_lanes().filter(|_| step > 0).map_or(Lanes::All, Lanes::OrZero);
        self.a.evex(instruction, to, 0, Rm::Memory(memory), lanes, None);
    }

    fn load_where(&mut self, to: u8, at: At, element: Element, mut mask: u8, copy: usize) {
        if self.tail {
            self.a.mask(MaskOp::And, SCRATCH_MASK, mask, TAIL);
            mask = SCRATCH_MASK;
        }
        let memory = Rm::Memory(self.memory(at, copy));
        self.a.evex(load_instruction(element), to, 0, memory, Lanes::Where(mask), None);
    }

    /// Elements 0, 2, ... 30, without touching element 31: the second of the two loads begins with element 15.
    fn load_every_second(&mut self, to: u8, memory: Memory) {
        let second = ahead(memory, 15 * 4);
        if !self.tail {
            self.a.evex(instructions::VMOVUPS, to, 0, Rm::Memory(memory), Lanes::All, None);
            return self.a.evex(instructions::VPERMT2PS, to, EVEN, Rm::Memory(second), Lanes::All, None);
        }
        self.a.mask_spread(SCRATCH_MASK, LIMIT, 0, false, TEMPORARY);
        self.a.evex(instructions::VMOVUPS, to, 0, Rm::Memory(memory), Lanes::OrZero(SCRATCH_MASK), None);
        self.a.mask_spread(SCRATCH_MASK, LIMIT, 15, false, TEMPORARY);
        self.a.evex(instructions::VMOVUPS, SCRATCH, 0, Rm::Memory(second), Lanes::OrZero(SCRATCH_MASK), None);
        self.a.evex(instructions::VPERMT2PS, to, EVEN, Rm::Register(SCRATCH), Lanes::All, None);
    }

    fn store_every_second(&mut self, at: At, value: Source, copy: usize) {
        let memory = self.memory(at, copy);
        let value = self.register(value, copy);
        for half in 0..2u8 {
            // The expansion takes as many elements from the front as the mask has bits.
            let from = if half == 0 { value } else { SCRATCH };
            self.a.mask_bits(SCRATCH_MASK, 0x5555);
            let (to, expanded) = (Rm::Memory(ahead(memory, 64 * i32::from(half))), OTHER_SCRATCH);
            if half == 1 {
                self.a.evex(instructions::VALIGND, SCRATCH, value, Rm::Register(value), Lanes::All, Some(8));
            }
            self.a.evex(instructions::VEXPANDPS, expanded, 0, Rm::Register(from), Lanes::OrZero(SCRATCH_MASK), None);
            if self.tail {
                self.a.mask_spread(SCRATCH_MASK, LIMIT, 16 * half, true, TEMPORARY);
            }
            self.a.evex(instructions::VMOVUPS_STORE, expanded, 0, to, Lanes::Where(SCRATCH_MASK), None);
        }
    }

    /// `a * b + c`, which overwrites one of the three.
    fn mul_add(&mut self, to: u8, [a, b, c]: [Source; 3], copy: usize) {
        let is_here = |w: &Writer<'_>, source: Source| match source {
            Source::Vector(vector) => w.registers.vector(vector, copy) == to,
            Source::Word(_) => false,
        };
        if is_here(self, c) {
            let (a, b) = word_last(a, b);
            let (a, b) = (self.register(a, copy), self.rm(b, copy));
            return self.a.evex(instructions::VFMADD231PS, to, a, b, Lanes::All, None);
        }
        let (a, b) = if is_here(self, b) { (b, a) } else { (a, b) };
        if !is_here(self, a) {
            // Nothing dies: one factor is copied, a word if there is one.
            let (other, first) = word_last(a, b);
            self.move_to(to, first, copy);
            return self.multiply_here(to, other, c, copy);
        }
        self.multiply_here(to, b, c, copy);
    }

    /// `to = to * b + c`
    fn multiply_here(&mut self, to: u8, b: Source, c: Source, copy: usize) {
        if matches!(b, Source::Word(_)) {
            let (c, b) = (self.register(c, copy), self.rm(b, copy));
            return self.a.evex(instructions::VFMADD132PS, to, c, b, Lanes::All, None);
        }
        let (b, c) = (self.register(b, copy), self.rm(c, copy));
        self.a.evex(instructions::VFMADD213PS, to, b, c, Lanes::All, None);
    }

    pub(super) fn move_to(&mut self, to: u8, from: Source, copy: usize) {
        match from {
            Source::Word(word) => match self.registers.word(word) {
                Some(register) => self.a.evex(instructions::VMOVAPS, to, 0, Rm::Register(register), Lanes::All, None),
                None => self.broadcast(to, word),
            },
            Source::Vector(vector) => {
                let from = self.registers.vector(vector, copy);
                if from != to {
                    self.a.evex(instructions::VMOVAPS, to, 0, Rm::Register(from), Lanes::All, None);
                }
            }
        }
    }

    /// `to = f(to, value)`, in the lanes of a mask.
    pub(super) fn combine(&mut self, f: Combine, to: u8, value: Rm, mask: Option<u8>) {
        let lanes = mask.map_or(Lanes::All, Lanes::Where);
        let instruction: Evex = match f {
            Combine::Plain(f) => return self.a.evex(f.instruction(), to, to, value, lanes, None),
            Combine::Max => instructions::VMAXPS,
            Combine::Min => instructions::VMINPS,
        };
        // The instruction gives its second operand if either is NaN; where the first is, it stays.
        let (compare, predicate) = Compare::ORDERED.instruction();
        self.a.evex(compare, SCRATCH_MASK, to, Rm::Register(to), lanes, Some(predicate));
        self.a.evex(instruction, to, to, value, Lanes::Where(SCRATCH_MASK), None);
    }
}

fn load_instruction(element: Element) -> Evex {
    match element {
        Element::Word => instructions::VMOVUPS,
        Element::Signed => instructions::VPMOVSXBD,
        Element::Unsigned => instructions::VPMOVZXBD,
        Element::Half => instructions::VPMOVZXWD,
    }
}

fn store_instruction(element: Element) -> Evex {
    match element {
        Element::Word => instructions::VMOVUPS_STORE,
        Element::Signed | Element::Unsigned => instructions::VPMOVDB,
        Element::Half => instructions::VPMOVDW,
    }
}

/// The same memory, some bytes further.
fn ahead(memory: Memory, bytes: i32) -> Memory {
    match memory {
        Memory::At { base, index, displacement } => Memory::At { base, index, displacement: displacement + bytes },
        Memory::Pool(word) => Memory::Pool(word + bytes as usize / 4),
    }
}

fn word_last(a: Source, b: Source) -> (Source, Source) {
    if matches!(a, Source::Word(_)) { (b, a) } else { (a, b) }
}
