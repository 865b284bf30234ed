//! A tape as machine code.
//!
//! The function takes the address of its argument block in `rdi`: the number of elements of a row, the number of rows, a
//! pointer per stream, the argument words, then a word per total, which it writes. Of every row it runs rounds of several
//! vectors, then single vectors under a mask of the elements that are left. It saves what the System V convention asks
//! for.

use super::allocate::{MOST_COPIES, Registers, SCRATCH, SCRATCH_MASK, TAIL, allocate};
use super::encode::{self, Assembler, Condition, Evex, Gpr, Lanes, Memory, Rm};
use super::tape::{At, Combine, Compare, Element, Op, Source, StreamData, Tape, Word, WordData};

/// Elements in a vector.
pub(in crate::codegen) const LANES: i64 = 16;

/// Registers for pointers and counters: those that a call may change come first.
const POINTERS: [Gpr; 11] =
    [Gpr(6), Gpr(8), Gpr(9), Gpr(10), Gpr(11), Gpr(3), Gpr(5), Gpr(12), Gpr(13), Gpr(14), Gpr(15)];
/// Of these, how many need not be saved.
const VOLATILE: usize = 5;
const BLOCK: Gpr = Gpr::RDI;
/// Element that the round begins with.
const POSITION: Gpr = Gpr::RAX;
/// Last position of a whole round, or elements left.
const LIMIT: Gpr = Gpr::RDX;

/// Machine code of a wide loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::codegen) struct WideCode {
    /// Position-independent; begins at a multiple of 64 bytes.
    pub(in crate::codegen) bytes: Vec<u8>,
    /// Vectors per round.
    pub(in crate::codegen) copies: usize,
    /// Instructions as text, if wanted.
    pub(in crate::codegen) listing: Option<String>,
}

/// Offsets in the argument block, in bytes.
impl Tape {
    /// Of the number of rows.
    pub(in crate::codegen) const ROWS_OFFSET: i32 = 8;

    pub(in crate::codegen) fn pointer_offset(stream: usize) -> i32 {
        16 + 8 * stream as i32
    }

    pub(in crate::codegen) fn argument_offset(&self, argument: u32) -> i32 {
        Tape::pointer_offset(self.streams.len()) + 4 * argument as i32
    }

    pub(in crate::codegen) fn total_offset(&self, total: usize) -> i32 {
        self.argument_offset(self.arguments) + 4 * total as i32
    }

    pub(in crate::codegen) fn block_bytes(&self) -> u32 {
        self.total_offset(self.totals.len()) as u32
    }
}

/// The code for at most `copies` vectors at a time, or why there is none.
pub(in crate::codegen) fn assemble(tape: &Tape, copies: usize, listing: bool) -> Result<WideCode, &'static str> {
    let mut copies = copies.clamp(1, MOST_COPIES);
    let registers = loop {
        match allocate(tape, copies) {
            Some(registers) => break registers,
            None if copies == 1 => return Err("more values are alive than there are vector registers"),
            None => copies /= 2,
        }
    };
    let pointers = Pointers::of(tape).ok_or("more streams than general registers")?;
    let mut writer = Writer { tape, registers, pointers, a: Assembler::new(listing), tail: false };
    writer.function();
    let (bytes, listing) = writer.a.finish();
    Ok(WideCode { bytes, copies, listing })
}

/// General registers of streams and loops.
struct Pointers {
    streams: Vec<Gpr>,
    /// By stream and loop, outermost first.
    cursors: Vec<Vec<(usize, Gpr)>>,
    counters: Vec<Gpr>,
    /// Of the loops around the lanes.
    rows: Vec<Gpr>,
    used: usize,
}

impl Pointers {
    fn of(tape: &Tape) -> Option<Pointers> {
        let mut next = POINTERS.into_iter();
        let mut take = || next.next();
        let streams = tape.streams.iter().map(|_| take()).collect::<Option<Vec<_>>>()?;
        let counters = tape.repeats.iter().map(|_| take()).collect::<Option<Vec<_>>>()?;
        let levels = tape.streams.iter().map(|stream| stream.rows.len()).max().unwrap_or(0);
        let rows = (0..levels).map(|_| take()).collect::<Option<Vec<_>>>()?;
        let mut cursors = Vec::new();
        for stream in &tape.streams {
            let own = stream.strides.iter().map(|(number, _)| Some((*number, take()?)));
            cursors.push(own.collect::<Option<Vec<_>>>()?);
        }
        let used = POINTERS.len() - next.len();
        Some(Pointers { streams, cursors, counters, rows, used })
    }
}

struct Writer<'a> {
    tape: &'a Tape,
    registers: Registers,
    pointers: Pointers,
    a: Assembler,
    /// Whether the body is for one vector under a mask.
    tail: bool,
}

impl Writer<'_> {
    fn function(&mut self) {
        let saved: Vec<Gpr> = POINTERS[..self.pointers.used].iter().skip(VOLATILE).copied().collect();
        saved.iter().for_each(|register| self.a.push(*register));
        for (number, pointer) in self.pointers.streams.clone().into_iter().enumerate() {
            self.a.load(pointer, block(Tape::pointer_offset(number)));
        }
        self.constants();
        self.rows(0);
        self.totals();
        saved.iter().rev().for_each(|register| self.a.pop(*register));
        self.a.leave();
    }

    /// The loops around the lanes from this level on.
    fn rows(&mut self, level: usize) {
        let Some(counter) = self.pointers.rows.get(level).copied() else {
            self.a.set(POSITION, 0);
            self.tail = false;
            let tape = self.tape;
            tape.head.iter().for_each(|op| self.op(op, 0));
            self.rounds();
            return self.rest();
        };
        match level.checked_sub(1) {
            None => self.a.load(counter, block(Tape::ROWS_OFFSET)),
            Some(inner) => self.a.set(counter, self.tape.rows[inner]),
        }
        let head = self.a.label();
        self.a.bind(head);
        self.rows(level + 1);
        for (stream, data) in self.tape.streams.iter().enumerate() {
            // The loop inside has moved the pointer to its own end.
            let inside = match (data.rows.get(level + 1), self.tape.rows.get(level)) {
                (Some(stride), Some(count)) => stride.wrapping_mul(*count),
                _ => 0,
            };
            let step = data.rows.get(level).map_or(0, |stride| stride.wrapping_sub(inside));
            if step != 0 {
                self.a.add(self.pointers.streams[stream], step);
            }
        }
        self.a.subtract(counter, 1);
        self.a.jump_if(Condition::NotZero, head);
    }

    /// Neutral elements of totals, and words that have a register.
    fn constants(&mut self) {
        let kept: Vec<_> = self.registers.kept().collect();
        for (word, register) in kept {
            self.broadcast(register, word);
        }
        for total in &self.tape.totals {
            for copy in 0..self.registers.copies {
                let register = self.registers.vector(total.vector, copy);
                self.broadcast(register, total.neutral);
            }
        }
    }

    fn broadcast(&mut self, register: u8, word: Word) {
        if self.tape.words[word.0 as usize] == WordData::Literal(0) {
            let zero = Rm::Register(register);
            return self.a.evex(encode::VPXORD, register, register, zero, Lanes::All, None);
        }
        let memory = self.word_memory(word);
        self.a.evex(encode::VBROADCASTSS, register, 0, Rm::Memory(memory), Lanes::All, None);
    }

    fn rounds(&mut self) {
        let round = self.registers.copies as i32 * LANES as i32;
        let (head, done) = (self.a.label(), self.a.label());
        self.a.load(LIMIT, block(0));
        self.a.subtract(LIMIT, round);
        self.a.jump_if(Condition::Less, done);
        self.a.align(32);
        self.a.bind(head);
        self.tail = false;
        self.body();
        self.a.add(POSITION, round);
        self.a.compare(POSITION, LIMIT);
        self.a.jump_if(Condition::LessOrEqual, head);
        self.a.bind(done);
    }

    fn rest(&mut self) {
        let (head, done) = (self.a.label(), self.a.label());
        self.a.load(LIMIT, block(0));
        self.a.subtract_register(LIMIT, POSITION);
        self.a.jump_if(Condition::LessOrEqual, done);
        self.a.bind(head);
        self.tail = true;
        // At most 127 elements are left.
        self.a.mask_below(TAIL, LIMIT);
        self.body();
        self.a.add(POSITION, LANES as i32);
        self.a.subtract(LIMIT, LANES as i32);
        self.a.jump_if(Condition::Greater, head);
        self.a.bind(done);
    }

    /// Copies of a total are combined pairwise, then the halves of the vector, of half of it, and so on.
    fn totals(&mut self) {
        let totals = self.tape.totals.clone();
        for (number, total) in totals.iter().enumerate() {
            let mut count = self.registers.copies;
            while count > 1 {
                let pairs = count / 2;
                for pair in 0..pairs {
                    let (to, from) =
                        (self.registers.vector(total.vector, pair), self.registers.vector(total.vector, pair + pairs));
                    self.combine(total.combine, to, Rm::Register(from), None);
                }
                count = pairs;
            }
            let to = self.registers.vector(total.vector, 0);
            for distance in [8, 4, 2, 1] {
                self.a.evex(encode::VALIGND, SCRATCH, to, Rm::Register(to), Lanes::All, Some(distance));
                self.combine(total.combine, to, Rm::Register(SCRATCH), None);
            }
            let memory = Rm::Memory(block(self.tape.total_offset(number)));
            self.a.evex(encode::VMOVSS_STORE, to, 0, memory, Lanes::All, None);
        }
    }

    fn body(&mut self) {
        let tape = self.tape;
        let mut heads = Vec::new();
        for op in &tape.ops {
            match op {
                Op::Repeat { number } => heads.push(self.repeat(*number)),
                Op::End { number } => {
                    if let Some(head) = heads.pop() {
                        self.end(*number, head);
                    }
                }
                _ => {
                    let copies = if self.tail { 1 } else { self.registers.copies };
                    (0..copies).for_each(|copy| self.op(op, copy));
                }
            }
        }
    }

    fn repeat(&mut self, number: usize) -> encode::Label {
        for (stream, data) in self.tape.streams.iter().enumerate() {
            let Some(level) = data.strides.iter().position(|(own, _)| *own == number) else { continue };
            let cursor = self.pointers.cursors[stream][level].1;
            match level.checked_sub(1) {
                Some(outer) => self.a.copy(cursor, self.pointers.cursors[stream][outer].1),
                None if data.lanes => {
                    let memory = self.at_position(self.pointers.streams[stream], data, 0);
                    self.a.address(cursor, memory);
                }
                None => self.a.copy(cursor, self.pointers.streams[stream]),
            }
        }
        self.a.set(self.pointers.counters[number], self.tape.repeats[number]);
        let head = self.a.label();
        self.a.align(32);
        self.a.bind(head);
        head
    }

    fn end(&mut self, number: usize, head: encode::Label) {
        for (stream, data) in self.tape.streams.iter().enumerate() {
            let Some(level) = data.strides.iter().position(|(own, _)| *own == number) else { continue };
            self.a.add(self.pointers.cursors[stream][level].1, data.strides[level].1);
        }
        self.a.subtract(self.pointers.counters[number], 1);
        self.a.jump_if(Condition::NotZero, head);
    }

    fn at_position(&self, base: Gpr, data: &StreamData, displacement: i32) -> Memory {
        let scale = if data.size == 4 { 2 } else { 0 };
        Memory::At { base, index: Some((POSITION, scale)), displacement }
    }

    /// Memory of an access of one copy.
    fn memory(&self, at: At, copy: usize) -> Memory {
        let data = &self.tape.streams[at.stream.0 as usize];
        let ahead = if data.lanes { copy as i32 * LANES as i32 * i32::from(data.size) } else { 0 };
        let displacement = at.displacement + ahead;
        match self.pointers.cursors[at.stream.0 as usize].last() {
            Some((_, cursor)) => Memory::At { base: *cursor, index: None, displacement },
            None => {
                let base = self.pointers.streams[at.stream.0 as usize];
                if data.lanes {
                    self.at_position(base, data, displacement)
                } else {
                    Memory::At { base, index: None, displacement }
                }
            }
        }
    }

    fn word_memory(&mut self, word: Word) -> Memory {
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

    fn op(&mut self, op: &Op, copy: usize) {
        match *op {
            Op::Load { to, at, element } => self.load(to, at, element, copy),
            Op::Store { at, element, value } => {
                let from = self.register(value, copy);
                let instruction = if element == Element::Word { encode::VMOVUPS_STORE } else { encode::VPMOVDB };
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
                self.a.evex(encode::VPTESTMD, self.registers.mask(to, copy), x, Rm::Register(x), Lanes::All, None);
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
                self.a.evex(encode::VBLENDMPS, self.registers.vector(to, copy), b, a, lanes, None);
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
                self.a.evex(encode::VFMADD231PS, self.registers.vector(to, copy), a, b, lanes, None);
            }
            Op::Repeat { .. } | Op::End { .. } => {}
        }
    }

    fn load(&mut self, to: super::tape::Vector, at: At, element: Element, copy: usize) {
        let data = &self.tape.streams[at.stream.0 as usize];
        if !data.lanes && copy > 0 {
            return;
        }
        let instruction = match (data.lanes, element) {
            (false, _) => encode::VBROADCASTSS,
            (true, Element::Word) => encode::VMOVUPS,
            (true, Element::Signed) => encode::VPMOVSXBD,
            (true, Element::Unsigned) => encode::VPMOVZXBD,
        };
        let lanes = self.tail_lanes().filter(|_| data.lanes).map_or(Lanes::All, Lanes::OrZero);
        let memory = Rm::Memory(self.memory(at, copy));
        self.a.evex(instruction, self.registers.vector(to, copy), 0, memory, lanes, None);
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
            return self.a.evex(encode::VFMADD231PS, to, a, b, Lanes::All, None);
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
            return self.a.evex(encode::VFMADD132PS, to, c, b, Lanes::All, None);
        }
        let (b, c) = (self.register(b, copy), self.rm(c, copy));
        self.a.evex(encode::VFMADD213PS, to, b, c, Lanes::All, None);
    }

    fn move_to(&mut self, to: u8, from: Source, copy: usize) {
        match from {
            Source::Word(word) => match self.registers.word(word) {
                Some(register) => self.a.evex(encode::VMOVAPS, to, 0, Rm::Register(register), Lanes::All, None),
                None => self.broadcast(to, word),
            },
            Source::Vector(vector) => {
                let from = self.registers.vector(vector, copy);
                if from != to {
                    self.a.evex(encode::VMOVAPS, to, 0, Rm::Register(from), Lanes::All, None);
                }
            }
        }
    }

    /// `to = f(to, value)`, in the lanes of a mask.
    fn combine(&mut self, f: Combine, to: u8, value: Rm, mask: Option<u8>) {
        let lanes = mask.map_or(Lanes::All, Lanes::Where);
        let instruction: Evex = match f {
            Combine::Plain(f) => return self.a.evex(f.instruction(), to, to, value, lanes, None),
            Combine::Max => encode::VMAXPS,
            Combine::Min => encode::VMINPS,
        };
        // The instruction gives its second operand if either is NaN; where the first is, it stays.
        let (compare, predicate) = Compare::ORDERED.instruction();
        self.a.evex(compare, SCRATCH_MASK, to, Rm::Register(to), lanes, Some(predicate));
        self.a.evex(instruction, to, to, value, Lanes::Where(SCRATCH_MASK), None);
    }
}

fn word_last(a: Source, b: Source) -> (Source, Source) {
    if matches!(a, Source::Word(_)) { (b, a) } else { (a, b) }
}

fn block(displacement: i32) -> Memory {
    Memory::At { base: BLOCK, index: None, displacement }
}
