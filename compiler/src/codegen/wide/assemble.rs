//! A tape as machine code.
//!
//! The function takes the address of its argument block in `rdi`: the number of elements of a row, the number of rows and
//! of those before the first turn, a pointer per stream, the argument words, then a word per total, which it writes. Of every row it runs rounds of several
//! vectors, then single vectors under a mask of the elements that are left. It saves what the System V convention asks
//! for.

use super::allocate::{EVEN, MOST_COPIES, Registers, SCRATCH, TAIL, allocate};
use super::encode::{self, Assembler, Condition, Gpr, Lanes, Memory, Rm};
use super::instructions;
use super::tape::{At, Op, StreamData, Tape, Word, WordData};

/// Elements in a vector.
pub(in crate::codegen) const LANES: i64 = 16;

/// Registers for pointers and counters: those that a call may change come first.
const POINTERS: [Gpr; 10] = [Gpr(6), Gpr(8), Gpr(9), Gpr(10), Gpr(3), Gpr(5), Gpr(12), Gpr(13), Gpr(14), Gpr(15)];
/// Of these, how many need not be saved.
const VOLATILE: usize = 4;
/// Beside `rcx`, for masks.
pub(super) const TEMPORARY: Gpr = Gpr(11);
const BLOCK: Gpr = Gpr::RDI;
/// Element that the round begins with.
pub(super) const POSITION: Gpr = Gpr::RAX;
/// Last position of a whole round, or elements left.
pub(super) const LIMIT: Gpr = Gpr::RDX;

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
    /// Of the number of rows until the first turn.
    pub(in crate::codegen) const TURN_OFFSET: i32 = 16;

    pub(in crate::codegen) fn pointer_offset(stream: usize) -> i32 {
        24 + 8 * stream as i32
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
    let pointers = Pointers::of(tape).ok_or("more inner loops than general registers")?;
    let mut writer = Writer { tape, registers, pointers, a: Assembler::new(listing), tail: false, loaded: None };
    writer.function();
    let (bytes, listing) = writer.a.finish();
    Ok(WideCode { bytes, copies, listing })
}

/// General registers of streams and loops.
pub(super) struct Pointers {
    /// Those that have none stay in the argument block, where they also advance: an access loads them first, which
    /// nothing waits for.
    pub(super) streams: Vec<Option<Gpr>>,
    /// By stream and loop, outermost first.
    pub(super) cursors: Vec<Vec<(usize, Gpr)>>,
    pub(super) counters: Vec<Gpr>,
    /// Of the loops around the lanes.
    pub(super) rows: Vec<Gpr>,
    /// Rows until the next turn.
    pub(super) turn: Option<Gpr>,
    pub(super) used: usize,
}

impl Pointers {
    fn of(tape: &Tape) -> Option<Pointers> {
        let mut next = POINTERS.into_iter();
        let mut take = || next.next();
        let counters = tape.repeats.iter().map(|_| take()).collect::<Option<Vec<_>>>()?;
        let levels = tape.streams.iter().map(|stream| stream.rows.len()).max().unwrap_or(0);
        let rows = (0..levels).map(|_| take()).collect::<Option<Vec<_>>>()?;
        let turn = if tape.turn > 0 { Some(take()?) } else { None };
        let mut cursors = Vec::new();
        for stream in &tape.streams {
            let own = stream.strides.iter().map(|(number, _)| Some((*number, take()?)));
            cursors.push(own.collect::<Option<Vec<_>>>()?);
        }
        let mut streams = vec![None; tape.streams.len()];
        for number in by_need(tape) {
            streams[number] = take();
            if streams[number].is_none() && needs_register(&tape.streams[number]) {
                return None;
            }
        }
        let used = POINTERS.len() - next.len();
        Some(Pointers { streams, cursors, counters, rows, turn, used })
    }
}

/// Every second element takes several instructions, which need the register that pointers are loaded into.
fn needs_register(stream: &StreamData) -> bool {
    stream.step == 2 && stream.strides.is_empty()
}

/// Streams in the order in which they get registers: those with cursors last, as only the cursors are in inner loops.
fn by_need(tape: &Tape) -> Vec<usize> {
    let mut order: Vec<usize> = (0..tape.streams.len()).collect();
    order.sort_by_key(|number| {
        let stream = &tape.streams[*number];
        (!needs_register(stream), !stream.strides.is_empty())
    });
    order
}

pub(super) struct Writer<'a> {
    pub(super) tape: &'a Tape,
    pub(super) registers: Registers,
    pub(super) pointers: Pointers,
    pub(super) a: Assembler,
    /// Whether the body is for one vector under a mask.
    pub(super) tail: bool,
    /// The stream whose pointer [`TEMPORARY`] holds. No operation takes it over from another.
    pub(super) loaded: Option<usize>,
}

impl Writer<'_> {
    fn function(&mut self) {
        let saved: Vec<Gpr> = POINTERS[..self.pointers.used].iter().skip(VOLATILE).copied().collect();
        saved.iter().for_each(|register| self.a.push(*register));
        for (number, pointer) in self.pointers.streams.clone().into_iter().enumerate() {
            pointer.into_iter().for_each(|pointer| self.a.load(pointer, block(Tape::pointer_offset(number))));
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
            for op in &tape.head {
                self.loaded = None;
                self.op(op, 0);
            }
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
                self.advance(stream, step);
            }
        }
        if level == 0 {
            self.turn();
        }
        self.a.subtract(counter, 1);
        self.a.jump_if(Condition::NotZero, head);
    }

    /// What streams advance in addition when a digit of the row's number is full.
    fn turn(&mut self) {
        let Some(left) = self.pointers.turn else { return };
        let done = self.a.label();
        self.a.subtract(left, 1);
        self.a.jump_if(Condition::NotZero, done);
        self.a.set(left, self.tape.turn);
        for (stream, data) in self.tape.streams.iter().enumerate().filter(|(_, data)| data.turn != 0) {
            self.advance(stream, data.turn);
        }
        self.a.bind(done);
    }

    /// Neutral elements of totals, and words that have a register.
    fn constants(&mut self) {
        let kept: Vec<_> = self.registers.kept().collect();
        for (word, register) in kept {
            self.broadcast(register, word);
        }
        if self.tape.has_steps_of_two() {
            // Of two vectors, of which the second begins with element 15.
            let evens: [u32; 16] = std::array::from_fn(|lane| if lane < 8 { 2 * lane } else { 2 * lane + 1 } as u32);
            let memory = Rm::Memory(self.a.words(evens));
            self.a.evex(instructions::VMOVUPS, EVEN, 0, memory, Lanes::All, None);
        }
        if let Some(turn) = self.pointers.turn {
            self.a.load(turn, block(Tape::TURN_OFFSET));
        }
        for total in &self.tape.totals {
            for copy in 0..self.registers.copies {
                let register = self.registers.vector(total.vector, copy);
                self.broadcast(register, total.neutral);
            }
        }
    }

    pub(super) fn broadcast(&mut self, register: u8, word: Word) {
        if self.tape.words[word.0 as usize] == WordData::Literal(0) {
            let zero = Rm::Register(register);
            return self.a.evex(instructions::VPXORD, register, register, zero, Lanes::All, None);
        }
        let memory = self.word_memory(word);
        self.a.evex(instructions::VBROADCASTSS, register, 0, Rm::Memory(memory), Lanes::All, None);
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
                self.a.evex(instructions::VALIGND, SCRATCH, to, Rm::Register(to), Lanes::All, Some(distance));
                self.combine(total.combine, to, Rm::Register(SCRATCH), None);
            }
            let memory = Rm::Memory(block(self.tape.total_offset(number)));
            self.a.evex(instructions::VMOVSS_STORE, to, 0, memory, Lanes::All, None);
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
                    self.loaded = None;
                    (0..copies).for_each(|copy| self.op(op, copy));
                }
            }
        }
    }

    fn repeat(&mut self, number: usize) -> encode::Label {
        for (stream, data) in self.tape.streams.iter().enumerate() {
            let Some(level) = data.strides.iter().position(|(own, _)| *own == number) else { continue };
            let cursor = self.pointers.cursors[stream][level].1;
            self.loaded = None;
            match level.checked_sub(1) {
                Some(outer) => self.a.copy(cursor, self.pointers.cursors[stream][outer].1),
                None => {
                    let base = self.pointer(stream);
                    if data.step > 0 {
                        let memory = self.at_position(base, data, 0);
                        self.a.address(cursor, memory);
                    } else {
                        self.a.copy(cursor, base);
                    }
                }
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
        let scale = (data.size * data.step).trailing_zeros() as u8;
        Memory::At { base, index: Some((POSITION, scale)), displacement }
    }

    /// The register that a stream's pointer is in, at least until the next operation.
    fn pointer(&mut self, stream: usize) -> Gpr {
        if let Some(register) = self.pointers.streams[stream] {
            return register;
        }
        if self.loaded.replace(stream) != Some(stream) {
            self.a.load(TEMPORARY, block(Tape::pointer_offset(stream)));
        }
        TEMPORARY
    }

    fn advance(&mut self, stream: usize, bytes: i32) {
        match self.pointers.streams[stream] {
            Some(register) => self.a.add(register, bytes),
            None => self.a.add_to_memory(block(Tape::pointer_offset(stream)), bytes),
        }
    }

    /// Memory of an access of one copy.
    pub(super) fn memory(&mut self, at: At, copy: usize) -> Memory {
        let stream = at.stream.0 as usize;
        let data = &self.tape.streams[stream];
        let ahead = copy as i32 * LANES as i32 * i32::from(data.size * data.step);
        let displacement = at.displacement + ahead;
        if let Some((_, cursor)) = self.pointers.cursors[stream].last() {
            return Memory::At { base: *cursor, index: None, displacement };
        }
        let base = self.pointer(stream);
        if data.step > 0 {
            self.at_position(base, data, displacement)
        } else {
            Memory::At { base, index: None, displacement }
        }
    }
}

pub(super) fn block(displacement: i32) -> Memory {
    Memory::At { base: BLOCK, index: None, displacement }
}
