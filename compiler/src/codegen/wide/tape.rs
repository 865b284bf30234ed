//! A wide loop as a list of vector operations: what is left of a loop nest when everything that is the same in all
//! lanes has become a word, and every access a stream.
//!
//! Registers are virtual and without number limit. A register is written once, except accumulators. What lies between
//! [`Op::Repeat`] and its [`Op::End`] runs a fixed number of times.

pub(in crate::codegen) use super::op::{Binary, Combine, Compare, Op, Unary};

/// A virtual vector register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::codegen) struct Vector(pub(super) u32);

/// A virtual mask register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::codegen) struct Mask(pub(super) u32);

/// Number of a word: 32 bit that are the same in all lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::codegen) struct Word(pub(super) u32);

/// What a word holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum WordData {
    /// These bits.
    Literal(u32),
    /// The argument with this number.
    Argument(u32),
}

/// Where an operand comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::codegen) enum Source {
    Vector(Vector),
    Word(Word),
}

/// Number of a stream: memory that is walked along the lanes, or along inner loops, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codegen) struct Stream(pub(super) u32);

/// How a stream advances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::codegen) struct StreamData {
    /// Bytes of an element, 1, 2 or 4.
    pub(in crate::codegen) size: u8,
    /// Elements from lane to lane: 0, 1 or 2.
    pub(in crate::codegen) step: u8,
    /// Bytes per iteration of inner loops, outermost first.
    pub(in crate::codegen) strides: Vec<(usize, i32)>,
    /// Bytes per iteration of the loops around the lanes, outermost first.
    pub(in crate::codegen) rows: Vec<i32>,
    /// Bytes in addition after every [`Tape::turn`] rows.
    pub(in crate::codegen) turn: i32,
}

/// An element of a stream, some bytes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codegen) struct At {
    pub(in crate::codegen) stream: Stream,
    pub(in crate::codegen) displacement: i32,
}

/// How elements stand in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codegen) enum Element {
    /// 32 bit.
    Word,
    /// 8 bit with sign.
    Signed,
    /// 8 bit without sign.
    Unsigned,
    /// 16 bit without sign.
    Half,
}

/// A value that is carried from one vector to the next, with a partial value per lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codegen) struct Total {
    pub(super) vector: Vector,
    pub(super) combine: Combine,
    /// Bits of the neutral element.
    pub(super) neutral: Word,
}

/// A wide loop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::codegen) struct Tape {
    /// What is done for every vector.
    pub(super) ops: Vec<Op>,
    /// What is done once per row, before its first vector.
    pub(super) head: Vec<Op>,
    /// Whether operations go to the head.
    in_head: bool,
    /// Rows of the outermost loop after which streams make another step, or 0.
    pub(super) turn: i32,
    /// Iterations of the loops around the lanes but for the outermost, whose number is an argument; outermost first.
    pub(super) rows: Vec<i32>,
    pub(super) words: Vec<WordData>,
    pub(super) arguments: u32,
    pub(super) streams: Vec<StreamData>,
    /// Iterations of inner loops.
    pub(super) repeats: Vec<i32>,
    /// Vectors that are written more than once.
    changed: Vec<Vector>,
    pub(super) totals: Vec<Total>,
    pub(super) vectors: u32,
    pub(super) masks: u32,
    /// Vectors that are the same in all lanes: one register serves all copies.
    pub(super) uniform: Vec<Vector>,
}

impl Tape {
    pub(in crate::codegen) fn vector(&mut self) -> Vector {
        self.vectors += 1;
        let vector = Vector(self.vectors - 1);
        if self.in_head {
            self.uniform.push(vector);
        }
        vector
    }

    pub(in crate::codegen) fn mask(&mut self) -> Mask {
        self.masks += 1;
        Mask(self.masks - 1)
    }

    /// The word of these bits.
    pub(in crate::codegen) fn literal(&mut self, bits: u32) -> Word {
        let data = WordData::Literal(bits);
        let known = self.words.iter().position(|word| *word == data);
        Word(known.unwrap_or_else(|| {
            self.words.push(data);
            self.words.len() - 1
        }) as u32)
    }

    /// A number as operand.
    pub(in crate::codegen) fn number(&mut self, value: f32) -> Source {
        Source::Word(self.literal(value.to_bits()))
    }

    /// The next argument.
    pub(in crate::codegen) fn argument(&mut self) -> Word {
        self.words.push(WordData::Argument(self.arguments));
        self.arguments += 1;
        Word(self.words.len() as u32 - 1)
    }

    /// A vector that [`Op::Copy`] and [`Op::Accumulate`] may write again.
    pub(in crate::codegen) fn accumulator(&mut self) -> Vector {
        let vector = self.vector();
        self.changed.push(vector);
        vector
    }

    /// A partial value per lane, which outlives the loop.
    pub(in crate::codegen) fn total(&mut self, combine: Combine, neutral: Word) -> Vector {
        let vector = self.accumulator();
        self.totals.push(Total { vector, combine, neutral });
        vector
    }

    pub(in crate::codegen) fn is_changed(&self, vector: Vector) -> bool {
        self.changed.contains(&vector)
    }

    pub(in crate::codegen) fn is_total(&self, vector: Vector) -> bool {
        self.totals.iter().any(|total| total.vector == vector)
    }

    /// An inner loop with this many iterations.
    pub(in crate::codegen) fn repeat(&mut self, count: i32) -> usize {
        self.repeats.push(count);
        self.repeats.len() - 1
    }

    pub(in crate::codegen) fn has_repeats(&self) -> bool {
        !self.repeats.is_empty()
    }

    pub(in crate::codegen) fn has_totals(&self) -> bool {
        !self.totals.is_empty()
    }

    /// The stream that advances like this, one of several perhaps, at a pointer of its own.
    pub(in crate::codegen) fn add_stream(&mut self, data: StreamData) -> Stream {
        self.streams.push(data);
        Stream(self.streams.len() as u32 - 1)
    }

    pub(in crate::codegen) fn streams(&self) -> impl Iterator<Item = (Stream, &StreamData)> {
        self.streams.iter().enumerate().map(|(number, data)| (Stream(number as u32), data))
    }

    pub(in crate::codegen) fn step(&self, stream: Stream) -> u8 {
        self.streams[stream.0 as usize].step
    }

    pub(in crate::codegen) fn runs_along_lanes(&self, stream: Stream) -> bool {
        self.streams[stream.0 as usize].step > 0
    }

    /// The vector is the same in all lanes and copies.
    pub(in crate::codegen) fn mark_uniform(&mut self, vector: Vector) {
        if !self.uniform.contains(&vector) {
            self.uniform.push(vector);
        }
    }

    pub(in crate::codegen) fn push(&mut self, op: Op) {
        if self.in_head { self.head.push(op) } else { self.ops.push(op) }
    }

    /// Whether what follows is done once per row, and is the same in all lanes, or for every vector; gives what was.
    pub(in crate::codegen) fn set_head(&mut self, in_head: bool) -> bool {
        std::mem::replace(&mut self.in_head, in_head)
    }

    /// Iterations of the loops around the lanes, without the outermost.
    pub(in crate::codegen) fn set_rows(&mut self, rows: Vec<i32>) {
        self.rows = rows;
    }

    /// Rows of the outermost loop after which streams make another step.
    pub(in crate::codegen) fn set_turn(&mut self, turn: i32) {
        self.turn = turn;
    }

    pub(in crate::codegen) fn turn(&self) -> i32 {
        self.turn
    }

    /// Whether a stream takes every second element.
    pub(super) fn has_steps_of_two(&self) -> bool {
        self.streams.iter().any(|stream| stream.step == 2)
    }

    pub(in crate::codegen) fn binary(&mut self, f: Binary, a: Source, b: Source) -> Source {
        let (a, b) = match (a, b) {
            (Source::Word(_), Source::Vector(_)) if f.commutes() => (b, a),
            _ => (a, b),
        };
        let to = self.vector();
        self.push(Op::Binary { to, f, a, b });
        Source::Vector(to)
    }

    pub(in crate::codegen) fn unary(&mut self, f: Unary, x: Source) -> Source {
        let to = self.vector();
        self.push(Op::Unary { to, f, x });
        Source::Vector(to)
    }

    pub(in crate::codegen) fn mul_add(&mut self, a: Source, b: Source, c: Source) -> Source {
        let to = self.vector();
        self.push(Op::MulAdd { to, a, b, c });
        Source::Vector(to)
    }

    pub(in crate::codegen) fn compare(&mut self, f: Compare, a: Source, b: Source) -> Mask {
        let (f, a, b) = match (a, b) {
            (Source::Word(_), Source::Vector(_)) => (f.turned(), b, a),
            _ => (f, a, b),
        };
        let to = self.mask();
        self.push(Op::Compare { to, f, a, b });
        to
    }

    pub(in crate::codegen) fn select(&mut self, mask: Mask, a: Source, b: Source) -> Source {
        let to = self.vector();
        self.push(Op::Select { to, mask, a, b });
        Source::Vector(to)
    }
}
