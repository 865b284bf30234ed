//! The operations of a tape.

use super::encode::MaskOp;
use super::instructions::{self, Evex};
use super::tape::{At, Element, Mask, Source, Vector};

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
            Binary::Add => instructions::VADDPS,
            Binary::Sub => instructions::VSUBPS,
            Binary::Mul => instructions::VMULPS,
            Binary::Div => instructions::VDIVPS,
            Binary::Least => instructions::VMINPS,
            Binary::Greatest => instructions::VMAXPS,
            Binary::Scale => instructions::VSCALEFPS,
            Binary::IntAdd => instructions::VPADDD,
            Binary::IntSub => instructions::VPSUBD,
            Binary::IntMul => instructions::VPMULLD,
            Binary::IntMin => instructions::VPMINSD,
            Binary::IntMax => instructions::VPMAXSD,
            Binary::UintMin => instructions::VPMINUD,
            Binary::UintMax => instructions::VPMAXUD,
            Binary::And => instructions::VPANDD,
            Binary::Or => instructions::VPORD,
            Binary::Xor => instructions::VPXORD,
        }
    }

    pub(super) fn commutes(self) -> bool {
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
            Unary::Sqrt => (instructions::VSQRTPS, None),
            // 8 keeps the inexact flag silent.
            Unary::Nearest => (instructions::VRNDSCALEPS, Some(8)),
            Unary::Floor => (instructions::VRNDSCALEPS, Some(9)),
            Unary::Ceil => (instructions::VRNDSCALEPS, Some(10)),
            Unary::FromInt => (instructions::VCVTDQ2PS, None),
            Unary::FromUint => (instructions::VCVTUDQ2PS, None),
            Unary::ToInt => (instructions::VCVTTPS2DQ, None),
            Unary::ShiftLeft(distance) => (instructions::VPSLLD, Some(distance)),
            Unary::ShiftRight(distance) => (instructions::VPSRLD, Some(distance)),
            Unary::ShiftRightSigned(distance) => (instructions::VPSRAD, Some(distance)),
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
            Compare::Float(predicate) => (instructions::VCMPPS, predicate),
            Compare::Int(predicate) => (instructions::VPCMPD, predicate),
            Compare::Uint(predicate) => (instructions::VPCMPUD, predicate),
        }
    }

    /// The comparison with its operands exchanged.
    pub(super) fn turned(self) -> Compare {
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
    /// The lanes of a mask, the others from elsewhere.
    LoadWhere {
        to: Vector,
        at: At,
        element: Element,
        mask: Mask,
        otherwise: Source,
        /// The mask has all lanes or none: where it has none, the load is jumped over. Its address is then that of
        /// another operand's row, and a load without lanes from a page that is not there costs hundreds of cycles.
        whole: bool,
    },
    /// Number of the element in its row.
    Position {
        to: Vector,
    },
    /// Number of the row in the loop at this level.
    Row {
        to: Vector,
        level: usize,
    },
    /// All bits where the mask is set.
    Spread {
        to: Vector,
        mask: Mask,
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
        f: MaskOp,
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

impl Op {
    /// Operands; accumulators that are written in place are among them.
    pub(super) fn sources(&self) -> [Option<Source>; 3] {
        match *self {
            Op::Load { .. }
            | Op::Position { .. }
            | Op::Row { .. }
            | Op::Spread { .. }
            | Op::Logic { .. }
            | Op::Not { .. }
            | Op::Repeat { .. }
            | Op::End { .. } => [None; 3],
            Op::LoadWhere { otherwise, .. } => [Some(otherwise), None, None],
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
            Op::Select { mask, .. } | Op::LoadWhere { mask, .. } | Op::Spread { mask, .. } => [Some(mask), None],
            _ => [None; 2],
        }
    }

    /// The vector that is written.
    pub(super) fn result(&self) -> Option<Vector> {
        match *self {
            Op::Load { to, .. }
            | Op::LoadWhere { to, .. }
            | Op::Position { to }
            | Op::Row { to, .. }
            | Op::Spread { to, .. }
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
