//! A wide loop as a list of vector operations: what is left of a loop nest when everything that is the same in all
//! lanes has become a word, and every access a stream.
//!
//! Registers are virtual and without number limit. A register is written once, except accumulators. What lies between
//! [`Op::Repeat`] and its [`Op::End`] runs a fixed number of times.

use super::encode::{self, Evex};

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
    /// Bytes of an element, 1 or 4.
    pub(in crate::codegen) size: u8,
    /// Whether neighbouring lanes read neighbouring elements; else all lanes read the same.
    pub(in crate::codegen) lanes: bool,
    /// Bytes per iteration of inner loops, outermost first.
    pub(in crate::codegen) strides: Vec<(usize, i32)>,
    /// Bytes per iteration of the loops around the lanes, outermost first.
    pub(in crate::codegen) rows: Vec<i32>,
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
}

/// `f(a, b)` in one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codegen) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// The smaller; the second if either is NaN.
    Least,
    /// The greater; the second if either is NaN.
    Greatest,
    /// `a * 2^floor(b)`.
    Scale,
    IntAdd,
    IntSub,
    IntMul,
    IntMin,
    IntMax,
    UintMin,
    UintMax,
    And,
    Or,
    Xor,
}

impl Binary {
    pub(super) fn instruction(self) -> Evex {
        match self {
            Binary::Add => encode::VADDPS,
            Binary::Sub => encode::VSUBPS,
            Binary::Mul => encode::VMULPS,
            Binary::Div => encode::VDIVPS,
            Binary::Least => encode::VMINPS,
            Binary::Greatest => encode::VMAXPS,
            Binary::Scale => encode::VSCALEFPS,
            Binary::IntAdd => encode::VPADDD,
            Binary::IntSub => encode::VPSUBD,
            Binary::IntMul => encode::VPMULLD,
            Binary::IntMin => encode::VPMINSD,
            Binary::IntMax => encode::VPMAXSD,
            Binary::UintMin => encode::VPMINUD,
            Binary::UintMax => encode::VPMAXUD,
            Binary::And => encode::VPANDD,
            Binary::Or => encode::VPORD,
            Binary::Xor => encode::VPXORD,
        }
    }

    fn commutes(self) -> bool {
        !matches!(self, Binary::Sub | Binary::Div | Binary::Least | Binary::Greatest | Binary::Scale | Binary::IntSub)
    }
}

/// `f(x)` in one instruction, some with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codegen) enum Unary {
    Sqrt,
    /// To the nearest, ties to even.
    Nearest,
    Floor,
    Ceil,
    FromInt,
    FromUint,
    ToInt,
    ShiftLeft(u8),
    ShiftRight(u8),
    ShiftRightSigned(u8),
}

impl Unary {
    pub(super) fn instruction(self) -> (Evex, Option<u8>) {
        match self {
            Unary::Sqrt => (encode::VSQRTPS, None),
            // 8 keeps the inexact flag silent.
            Unary::Nearest => (encode::VRNDSCALEPS, Some(8)),
            Unary::Floor => (encode::VRNDSCALEPS, Some(9)),
            Unary::Ceil => (encode::VRNDSCALEPS, Some(10)),
            Unary::FromInt => (encode::VCVTDQ2PS, None),
            Unary::FromUint => (encode::VCVTUDQ2PS, None),
            Unary::ToInt => (encode::VCVTTPS2DQ, None),
            Unary::ShiftLeft(distance) => (encode::VPSLLD, Some(distance)),
            Unary::ShiftRight(distance) => (encode::VPSRLD, Some(distance)),
            Unary::ShiftRightSigned(distance) => (encode::VPSRAD, Some(distance)),
        }
    }
}

/// A comparison; the number is the instruction's predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codegen) enum Compare {
    Float(u8),
    Int(u8),
    Uint(u8),
}

impl Compare {
    /// Neither is NaN.
    pub(in crate::codegen) const ORDERED: Compare = Compare::Float(7);
    pub(in crate::codegen) const LESS: Compare = Compare::Float(0x11);
    pub(in crate::codegen) const EQUAL: Compare = Compare::Float(0);
    pub(in crate::codegen) const GREATER: Compare = Compare::Float(0x1e);

    pub(super) fn instruction(self) -> (Evex, u8) {
        match self {
            Compare::Float(predicate) => (encode::VCMPPS, predicate),
            Compare::Int(predicate) => (encode::VPCMPD, predicate),
            Compare::Uint(predicate) => (encode::VPCMPUD, predicate),
        }
    }

    /// The comparison with its operands exchanged.
    fn turned(self) -> Compare {
        match self {
            Compare::Float(predicate) => Compare::Float(match predicate {
                0x11 => 0x1e,
                0x1e => 0x11,
                0x12 => 0x1d,
                0x1d => 0x12,
                other => other,
            }),
            Compare::Int(predicate) => Compare::Int(turned_integer(predicate)),
            Compare::Uint(predicate) => Compare::Uint(turned_integer(predicate)),
        }
    }
}

/// 1 is less, 2 less or equal, 5 greater or equal, 6 greater.
fn turned_integer(predicate: u8) -> u8 {
    match predicate {
        1 => 6,
        6 => 1,
        2 => 5,
        5 => 2,
        other => other,
    }
}

/// How an accumulator takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codegen) enum Combine {
    Plain(Binary),
    /// The greater of floats, NaN if either is.
    Max,
    /// The smaller of floats, NaN if either is.
    Min,
}

/// One step of a tape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::codegen) enum Op {
    Load {
        to: Vector,
        at: At,
        element: Element,
    },
    Store {
        at: At,
        element: Element,
        value: Source,
    },
    Unary {
        to: Vector,
        f: Unary,
        x: Source,
    },
    Binary {
        to: Vector,
        f: Binary,
        a: Source,
        b: Source,
    },
    MulAdd {
        to: Vector,
        a: Source,
        b: Source,
        c: Source,
    },
    /// The greater or smaller of floats, NaN if either is.
    Extreme {
        to: Vector,
        max: bool,
        a: Source,
        b: Source,
    },
    Compare {
        to: Mask,
        f: Compare,
        a: Source,
        b: Source,
    },
    /// Whether any bit is set.
    Test {
        to: Mask,
        x: Source,
    },
    Logic {
        to: Mask,
        f: super::encode::MaskOp,
        a: Mask,
        b: Mask,
    },
    Not {
        to: Mask,
        a: Mask,
    },
    Select {
        to: Vector,
        mask: Mask,
        a: Source,
        b: Source,
    },
    /// Gives an accumulator a value.
    Copy {
        to: Vector,
        from: Source,
    },
    /// `to = f(to, value)`.
    Accumulate {
        to: Vector,
        f: Combine,
        value: Source,
    },
    /// `to = a * b + to`.
    AccumulateProduct {
        to: Vector,
        a: Source,
        b: Source,
    },
    /// Begins an inner loop.
    Repeat {
        number: usize,
    },
    End {
        number: usize,
    },
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

    pub(in crate::codegen) fn runs_along_lanes(&self, stream: Stream) -> bool {
        self.streams[stream.0 as usize].lanes
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

    /// Whether something per row needs a mask, of which there are too few.
    pub(in crate::codegen) fn has_masks_in_head(&self) -> bool {
        self.head.iter().any(|op| op.mask_result().is_some())
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

impl Op {
    /// Operands; accumulators that are written in place are among them.
    pub(super) fn sources(&self) -> [Option<Source>; 3] {
        match *self {
            Op::Load { .. } | Op::Logic { .. } | Op::Not { .. } | Op::Repeat { .. } | Op::End { .. } => [None; 3],
            Op::Store { value: x, .. } | Op::Unary { x, .. } | Op::Test { x, .. } | Op::Copy { from: x, .. } => {
                [Some(x), None, None]
            }
            Op::Binary { a, b, .. } | Op::Extreme { a, b, .. } | Op::Compare { a, b, .. } | Op::Select { a, b, .. } => {
                [Some(a), Some(b), None]
            }
            Op::MulAdd { a, b, c, .. } => [Some(a), Some(b), Some(c)],
            Op::Accumulate { to, value, .. } => [Some(value), Some(Source::Vector(to)), None],
            Op::AccumulateProduct { to, a, b } => [Some(a), Some(b), Some(Source::Vector(to))],
        }
    }

    pub(super) fn masks(&self) -> [Option<Mask>; 2] {
        match *self {
            Op::Logic { a, b, .. } => [Some(a), Some(b)],
            Op::Not { a, .. } => [Some(a), None],
            Op::Select { mask, .. } => [Some(mask), None],
            _ => [None; 2],
        }
    }

    /// The vector that is written.
    pub(super) fn result(&self) -> Option<Vector> {
        match *self {
            Op::Load { to, .. }
            | Op::Unary { to, .. }
            | Op::Binary { to, .. }
            | Op::MulAdd { to, .. }
            | Op::Extreme { to, .. }
            | Op::Select { to, .. }
            | Op::Copy { to, .. }
            | Op::Accumulate { to, .. }
            | Op::AccumulateProduct { to, .. } => Some(to),
            _ => None,
        }
    }

    pub(super) fn mask_result(&self) -> Option<Mask> {
        match *self {
            Op::Compare { to, .. } | Op::Test { to, .. } | Op::Logic { to, .. } | Op::Not { to, .. } => Some(to),
            _ => None,
        }
    }
}
