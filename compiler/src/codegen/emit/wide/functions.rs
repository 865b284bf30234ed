//! Functions of expressions as operations of a tape.

use kiln_ir::DType;
use kiln_ir::scalar::{BinaryFn, CompareFn, Number, UnaryFn};

use super::super::lanes::literal_bytes;
use super::lower::{Lowered, Lowering, Value};
use crate::codegen::wide::MaskOp;
use crate::codegen::wide::tape::{Binary, Combine, Compare, Element, Op, Source, Unary};
use crate::loops::nest::{Expr, ExprNode};

impl Lowering<'_> {
    pub(super) fn unary(&mut self, f: UnaryFn, x: Expr, dtype: DType) -> Lowered<Value> {
        if dtype == DType::Bool {
            if f != UnaryFn::Not {
                return Err("arithmetic of truth values");
            }
            let a = self.mask(x)?;
            let to = self.wide.tape.mask();
            self.wide.tape.push(Op::Not { to, a });
            return Ok(Value::Mask(to));
        }
        if dtype != DType::F32 {
            return Err("a function of integers");
        }
        let x = self.source(x)?;
        let tape = &mut self.wide.tape;
        Ok(vector(match f {
            UnaryFn::Neg => {
                let sign = Source::Word(tape.literal(0x8000_0000));
                tape.binary(Binary::Xor, x, sign)
            }
            UnaryFn::Abs => {
                let size = Source::Word(tape.literal(0x7fff_ffff));
                tape.binary(Binary::And, x, size)
            }
            UnaryFn::Sqrt => tape.unary(Unary::Sqrt, x),
            UnaryFn::Floor => tape.unary(Unary::Floor, x),
            UnaryFn::Ceil => tape.unary(Unary::Ceil, x),
            UnaryFn::Round => tape.unary(Unary::Nearest, x),
            UnaryFn::Rsqrt => {
                let (root, one) = (tape.unary(Unary::Sqrt, x), tape.number(1.0));
                tape.binary(Binary::Div, one, root)
            }
            UnaryFn::Sign => {
                let (zero, one, minus) = (tape.number(0.0), tape.number(1.0), tape.number(-1.0));
                let negative = tape.compare(Compare::LESS, x, zero);
                let rest = tape.select(negative, minus, x);
                let positive = tape.compare(Compare::GREATER, x, zero);
                tape.select(positive, one, rest)
            }
            UnaryFn::Exp => tape.exp(x),
            UnaryFn::Log => tape.log(x),
            UnaryFn::Tanh => tape.tanh(x),
            UnaryFn::Erf => tape.erf(x),
            UnaryFn::Sin | UnaryFn::Cos => return Err("a function that is computed in binary64"),
            UnaryFn::Not => return Err("not of a float"),
        }))
    }

    pub(super) fn binary(&mut self, f: BinaryFn, a: Expr, b: Expr, dtype: DType) -> Lowered<Value> {
        if dtype == DType::Bool {
            return self.logic(f, a, b);
        }
        let literal = |expr: Expr| match self.nest.node(expr) {
            ExprNode::Literal(value) => Some(*value),
            _ => None,
        };
        let (left, right) = (literal(a), literal(b));
        let square = f == BinaryFn::Pow && right == Some(Number::Float(2.0));
        let (a, b) = (self.source(a)?, if square { self.source(a)? } else { self.source(b)? });
        let tape = &mut self.wide.tape;
        if let Some(distance) = shift(f, right, dtype)? {
            return Ok(vector(tape.unary(distance, a)));
        }
        Ok(vector(match (f, dtype) {
            (BinaryFn::Pow, DType::F32) if square => tape.binary(Binary::Mul, a, b),
            (BinaryFn::Max | BinaryFn::Min, DType::F32) => {
                let max = f == BinaryFn::Max;
                let plain = if max { Binary::Greatest } else { Binary::Least };
                // A literal is no NaN: it goes first, and the instruction passes on a NaN of the other.
                match (left.is_some(), right.is_some()) {
                    (_, true) => tape.binary(plain, b, a),
                    (true, _) => tape.binary(plain, a, b),
                    _ => {
                        let to = tape.vector();
                        tape.push(Op::Extreme { to, max, a, b });
                        Source::Vector(to)
                    }
                }
            }
            _ => match combination(f, dtype) {
                Ok(Combine::Plain(f)) => tape.binary(f, a, b),
                Ok(_) => return Err("a maximum of floats"),
                Err(_) => tape.binary(difference(f, dtype)?, a, b),
            },
        }))
    }

    pub(super) fn logic(&mut self, f: BinaryFn, a: Expr, b: Expr) -> Lowered<Value> {
        let f = match f {
            BinaryFn::And | BinaryFn::Min | BinaryFn::Mul => MaskOp::And,
            BinaryFn::Or | BinaryFn::Max => MaskOp::Or,
            BinaryFn::Xor => MaskOp::Xor,
            _ => return Err("arithmetic of truth values"),
        };
        let (a, b) = (self.mask(a)?, self.mask(b)?);
        let to = self.wide.tape.mask();
        self.wide.tape.push(Op::Logic { to, f, a, b });
        Ok(Value::Mask(to))
    }

    pub(super) fn cast(&mut self, x: Expr, to: DType) -> Lowered<Value> {
        let from = self.nest.dtype(x);
        if from == DType::Bool {
            let mask = self.mask(x)?;
            let one = match to {
                DType::F32 => 1.0f32.to_bits(),
                DType::I32 | DType::U32 | DType::I8 | DType::U8 => 1,
                _ => return Err("a conversion"),
            };
            let tape = &mut self.wide.tape;
            let (one, zero) = (tape.literal(one), tape.literal(0));
            return Ok(vector(tape.select(mask, Source::Word(one), Source::Word(zero))));
        }
        if to == DType::Bool && from == DType::F32 {
            let x = self.source(x)?;
            let zero = self.wide.tape.number(0.0);
            return Ok(Value::Mask(self.wide.tape.compare(Compare::Float(4), x, zero)));
        }
        let x = self.source(x)?;
        match (from, to) {
            (DType::F32, DType::I32) => Ok(vector(self.truncated(x))),
            (DType::I32 | DType::I8 | DType::U8, DType::F32) => Ok(vector(self.wide.tape.unary(Unary::FromInt, x))),
            (DType::U32, DType::F32) => Ok(vector(self.wide.tape.unary(Unary::FromUint, x))),
            (DType::I32, DType::U32) | (DType::U32, DType::I32) => Ok(vector(x)),
            (DType::I8 | DType::U8, DType::I32 | DType::U32) => Ok(vector(x)),
            _ => Err("a conversion"),
        }
    }
}

impl Lowering<'_> {
    /// To the nearest number in range towards zero; NaN gives 0. The instruction gives the least number for all that is
    /// out of range.
    pub(super) fn truncated(&mut self, x: Source) -> Source {
        let tape = &mut self.wide.tape;
        let whole = tape.unary(Unary::ToInt, x);
        let (limit, most, zero) = (tape.number(2_147_483_648.0), tape.literal(i32::MAX as u32), tape.literal(0));
        let below = tape.compare(Compare::LESS, x, limit);
        let whole = tape.select(below, whole, Source::Word(most));
        let ordered = tape.compare(Compare::ORDERED, x, x);
        tape.select(ordered, whole, Source::Word(zero))
    }
}

pub(super) fn vector(source: Source) -> Value {
    match source {
        Source::Vector(vector) => Value::Vector(vector),
        Source::Word(word) => Value::Word(word),
    }
}

pub(super) fn numeric(dtype: DType) -> Lowered<()> {
    if matches!(dtype, DType::F32 | DType::I32 | DType::U32) { Ok(()) } else { Err("values that have no 32 bit") }
}

pub(super) fn element(dtype: DType) -> Lowered<Element> {
    match dtype {
        DType::F32 | DType::I32 | DType::U32 => Ok(Element::Word),
        DType::I8 => Ok(Element::Signed),
        DType::U8 | DType::Bool => Ok(Element::Unsigned),
        DType::Bf16 | DType::F16 => Ok(Element::Half),
        _ => Err("elements of 64 bit"),
    }
}

pub(super) fn checked_bits(value: Number, dtype: DType) -> Lowered<u32> {
    match dtype {
        DType::F32 | DType::I32 | DType::U32 | DType::Bool => Ok(bits(value, dtype)),
        _ => Err("a constant that has no 32 bit"),
    }
}

/// First lane of the constant; truth values have all bits or none.
pub(super) fn bits(value: Number, dtype: DType) -> u32 {
    let (bytes, _) = literal_bytes(value, dtype);
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Functions that combine partial values.
pub(super) fn combination(f: BinaryFn, dtype: DType) -> Lowered<Combine> {
    let plain = match (f, dtype) {
        (BinaryFn::Add, DType::F32) => Binary::Add,
        (BinaryFn::Mul, DType::F32) => Binary::Mul,
        (BinaryFn::Max, DType::F32) => return Ok(Combine::Max),
        (BinaryFn::Min, DType::F32) => return Ok(Combine::Min),
        (BinaryFn::Add, DType::I32 | DType::U32) => Binary::IntAdd,
        (BinaryFn::Mul, DType::I32 | DType::U32) => Binary::IntMul,
        (BinaryFn::Max, DType::I32) => Binary::IntMax,
        (BinaryFn::Min, DType::I32) => Binary::IntMin,
        (BinaryFn::Max, DType::U32) => Binary::UintMax,
        (BinaryFn::Min, DType::U32) => Binary::UintMin,
        (BinaryFn::And, DType::I32 | DType::U32) => Binary::And,
        (BinaryFn::Or, DType::I32 | DType::U32) => Binary::Or,
        (BinaryFn::Xor, DType::I32 | DType::U32) => Binary::Xor,
        _ => return Err("an accumulator that has no 32 bit"),
    };
    Ok(Combine::Plain(plain))
}

pub(super) fn difference(f: BinaryFn, dtype: DType) -> Lowered<Binary> {
    match (f, dtype) {
        (BinaryFn::Sub, DType::F32) => Ok(Binary::Sub),
        (BinaryFn::Div, DType::F32) => Ok(Binary::Div),
        (BinaryFn::Sub, DType::I32 | DType::U32) => Ok(Binary::IntSub),
        _ => Err("a function that the vectors do not have"),
    }
}

/// Shifts by a constant, modulo 32.
pub(super) fn shift(f: BinaryFn, distance: Option<Number>, dtype: DType) -> Lowered<Option<Unary>> {
    if !matches!(f, BinaryFn::Shl | BinaryFn::Shr) {
        return Ok(None);
    }
    let distance = distance.ok_or("a shift that varies")?.to_i64().rem_euclid(32) as u8;
    match (f, dtype) {
        (BinaryFn::Shl, DType::I32 | DType::U32) => Ok(Some(Unary::ShiftLeft(distance))),
        (_, DType::I32) => Ok(Some(Unary::ShiftRightSigned(distance))),
        (_, DType::U32) => Ok(Some(Unary::ShiftRight(distance))),
        _ => Err("a shift of 8 or 64 bit"),
    }
}

pub(super) fn comparison(f: CompareFn, dtype: DType) -> Lowered<Compare> {
    let float = match f {
        CompareFn::Eq => 0,
        CompareFn::Ne => 4,
        CompareFn::Lt => 0x11,
        CompareFn::Le => 0x12,
        CompareFn::Gt => 0x1e,
        CompareFn::Ge => 0x1d,
    };
    let integer = match f {
        CompareFn::Eq => 0,
        CompareFn::Lt => 1,
        CompareFn::Le => 2,
        CompareFn::Ne => 4,
        CompareFn::Ge => 5,
        CompareFn::Gt => 6,
    };
    match dtype {
        DType::F32 => Ok(Compare::Float(float)),
        DType::I32 | DType::I8 => Ok(Compare::Int(integer)),
        DType::U32 | DType::U8 => Ok(Compare::Uint(integer)),
        _ => Err("a comparison of 64 bit"),
    }
}
