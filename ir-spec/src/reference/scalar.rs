//! Scalar expressions on single numbers.

use super::{Evaluator, Precision, erf, philox4x32};
use crate::scalar::{BinaryFn, CompareFn, Number, ScalarExpr, ScalarNode, UnaryFn};
use crate::types::DType;

impl Evaluator {
    /// The nearest value of `dtype`, ties to even; itself in wide precision.
    pub(super) fn round(&self, value: f64, dtype: DType) -> f64 {
        match (self.precision, dtype) {
            (Precision::Wide, _) => value,
            (Precision::Native, DType::F32) => f64::from(value as f32),
            (Precision::Native, DType::F16) => round_to(value, 10, -14, 65_504.0),
            (Precision::Native, DType::Bf16) => round_to(value, 7, -126, f64::from(f32::from_bits(0x7f7f_0000))),
            (Precision::Native, _) => value,
        }
    }

    /// The value of an expression whose reads have the given values.
    pub fn expr(&self, expr: &ScalarExpr, reads: &[Number], point: &[usize]) -> Number {
        let dtype = expr.dtype();
        let recur = |e: &ScalarExpr| self.expr(e, reads, point);
        match expr.node() {
            ScalarNode::Read(read) => reads[*read],
            ScalarNode::Literal(number) => match *number {
                Number::Float(value) => Number::Float(self.round(value, dtype)),
                Number::Int(value) => Number::Int(wrap(value, dtype)),
            },
            ScalarNode::Index(dim) => Number::Int(point[*dim] as i64),
            ScalarNode::Unary(function, x) => match recur(x) {
                Number::Float(x) => Number::Float(self.round(float_unary(*function, x), dtype)),
                Number::Int(x) => Number::Int(wrap(int_unary(*function, x, dtype), dtype)),
            },
            ScalarNode::Binary(function, a, b) => self.binary(*function, recur(a), recur(b), dtype),
            ScalarNode::Compare(function, a, b) => Number::Int(compare(*function, recur(a), recur(b)).into()),
            ScalarNode::Select(condition, then, otherwise) => {
                recur(if recur(condition).to_i64() != 0 { then } else { otherwise })
            }
            ScalarNode::Cast(x) => self.cast(recur(x), dtype),
            ScalarNode::Philox { key, counter, position } => {
                let (counter, position) = (recur(counter).to_i64() as u64, recur(position).to_i64() as u64);
                let words = [position as u32, (position >> 32) as u32, counter as u32, (counter >> 32) as u32];
                Number::Int(philox4x32(words, [*key as u32, (*key >> 32) as u32])[0].into())
            }
        }
    }

    /// `function(a, b)` in `dtype`.
    pub(super) fn binary(&self, function: BinaryFn, a: Number, b: Number, dtype: DType) -> Number {
        match (a, b) {
            (Number::Int(a), Number::Int(b)) => Number::Int(wrap(int_binary(function, a, b, dtype), dtype)),
            (a, b) => Number::Float(self.round(float_binary(function, a.to_f64(), b.to_f64()), dtype)),
        }
    }

    pub(super) fn cast(&self, value: Number, dtype: DType) -> Number {
        match value {
            Number::Float(x) if dtype == DType::Bool => Number::Int((x != 0.0).into()),
            Number::Int(x) if dtype == DType::Bool => Number::Int((x != 0).into()),
            Number::Float(x) if dtype.is_float() => Number::Float(self.round(x, dtype)),
            Number::Float(x) => Number::Int(saturate(x, dtype)),
            // Straight to f32: by way of binary64 a large integer would be rounded twice.
            Number::Int(x) if dtype == DType::F32 && self.precision == Precision::Native => {
                Number::Float(f64::from(x as f32))
            }
            Number::Int(x) if dtype.is_float() => Number::Float(self.round(x as f64, dtype)),
            Number::Int(x) => Number::Int(wrap(x, dtype)),
        }
    }
}

/// The nearest number with `fraction` bits after the leading one and exponents from `lowest`, ties to even; infinite
/// beyond `largest`.
fn round_to(value: f64, fraction: i32, lowest: i32, largest: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let exponent = (((value.to_bits() >> 52) & 0x7ff) as i32 - 1023).max(lowest);
    let unit = 2f64.powi(exponent - fraction);
    let rounded = (value / unit).round_ties_even() * unit;
    if rounded.abs() > largest { f64::INFINITY.copysign(value) } else { rounded }
}

/// An integer in the width of `dtype`.
pub(super) fn wrap(value: i64, dtype: DType) -> i64 {
    match dtype {
        DType::I8 => (value as i8).into(),
        DType::U8 => (value as u8).into(),
        DType::I32 => (value as i32).into(),
        DType::U32 => (value as u32).into(),
        DType::Bool => value & 1,
        _ => value,
    }
}

/// A number in the width of `dtype`; floats are left.
pub(super) fn wrapped(number: Number, dtype: DType) -> Number {
    match number {
        Number::Int(value) => Number::Int(wrap(value, dtype)),
        float => float,
    }
}

/// Truncates towards zero and saturates; NaN becomes 0.
fn saturate(x: f64, dtype: DType) -> i64 {
    match dtype {
        DType::I8 => (x as i8).into(),
        DType::U8 => (x as u8).into(),
        DType::I32 => (x as i32).into(),
        DType::U32 => (x as u32).into(),
        _ => x as i64,
    }
}

fn float_unary(function: UnaryFn, x: f64) -> f64 {
    match function {
        UnaryFn::Neg => -x,
        UnaryFn::Abs => x.abs(),
        UnaryFn::Sign if x == 0.0 => 0.0,
        UnaryFn::Sign if x.is_nan() => x,
        UnaryFn::Sign => x.signum(),
        UnaryFn::Exp => x.exp(),
        UnaryFn::Log => x.ln(),
        UnaryFn::Sqrt => x.sqrt(),
        UnaryFn::Rsqrt => 1.0 / x.sqrt(),
        UnaryFn::Sin => x.sin(),
        UnaryFn::Cos => x.cos(),
        UnaryFn::Tanh => x.tanh(),
        UnaryFn::Erf => erf(x),
        UnaryFn::Floor => x.floor(),
        UnaryFn::Ceil => x.ceil(),
        UnaryFn::Round => x.round_ties_even(),
        UnaryFn::Not => f64::NAN,
    }
}

fn int_unary(function: UnaryFn, x: i64, dtype: DType) -> i64 {
    match function {
        UnaryFn::Neg => x.wrapping_neg(),
        UnaryFn::Abs => x.wrapping_abs(),
        UnaryFn::Sign => x.signum(),
        UnaryFn::Not if dtype == DType::Bool => i64::from(x == 0),
        UnaryFn::Not => !x,
        // The rest are functions of floats; `infer` lets no integers through.
        _ => x,
    }
}

fn float_binary(function: BinaryFn, a: f64, b: f64) -> f64 {
    match function {
        BinaryFn::Add => a + b,
        BinaryFn::Sub => a - b,
        BinaryFn::Mul => a * b,
        BinaryFn::Div => a / b,
        BinaryFn::Rem => a % b,
        BinaryFn::Pow => a.powf(b),
        BinaryFn::Max | BinaryFn::Min if a.is_nan() || b.is_nan() => f64::NAN,
        BinaryFn::Max => {
            if a >= b {
                a
            } else {
                b
            }
        }
        BinaryFn::Min => {
            if a <= b {
                a
            } else {
                b
            }
        }
        // Functions of bits; `infer` lets no floats through.
        BinaryFn::And | BinaryFn::Or | BinaryFn::Xor | BinaryFn::Shl | BinaryFn::Shr => f64::NAN,
    }
}

fn int_binary(function: BinaryFn, a: i64, b: i64, dtype: DType) -> i64 {
    let width = if dtype == DType::Bool { 1 } else { 8 * dtype.bytes() as i64 };
    let shift = b.rem_euclid(width) as u32;
    match function {
        BinaryFn::Add => a.wrapping_add(b),
        BinaryFn::Sub => a.wrapping_sub(b),
        BinaryFn::Mul => a.wrapping_mul(b),
        BinaryFn::Div if b == 0 => -1,
        BinaryFn::Div => a.wrapping_div(b),
        BinaryFn::Rem if b == 0 => a,
        BinaryFn::Rem => a.wrapping_rem(b),
        BinaryFn::Max => a.max(b),
        BinaryFn::Min => a.min(b),
        BinaryFn::And => a & b,
        BinaryFn::Or => a | b,
        BinaryFn::Xor => a ^ b,
        BinaryFn::Shl => a.wrapping_shl(shift),
        BinaryFn::Shr => a.wrapping_shr(shift),
        // A function of floats; `infer` lets no integers through.
        BinaryFn::Pow => a,
    }
}

/// A comparison; with a NaN all are false but `Ne`.
pub(super) fn compare(function: CompareFn, a: Number, b: Number) -> bool {
    let order = match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        (a, b) => a.to_f64().partial_cmp(&b.to_f64()),
    };
    match function {
        CompareFn::Eq => order.is_some_and(|o| o.is_eq()),
        CompareFn::Ne => !order.is_some_and(|o| o.is_eq()),
        CompareFn::Lt => order.is_some_and(|o| o.is_lt()),
        CompareFn::Le => order.is_some_and(|o| o.is_le()),
        CompareFn::Gt => order.is_some_and(|o| o.is_gt()),
        CompareFn::Ge => order.is_some_and(|o| o.is_ge()),
    }
}
