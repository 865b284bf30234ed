//! Polynomials of binary32, for one element or four lanes alike.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::immediates::Ieee32;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};
use kiln_ir::scalar::UnaryFn;

use super::coefficients::{ERF, ERF_LIMIT, EXP, LN_2_HIGH, LN_2_LOW, LOG, LOG2_E, ROUND, TANH, TANH_LIMIT};
use crate::codegen::emit::Emitter;

const ONE_BITS: i32 = 0x3f80_0000;

/// Emits the functions; `x` decides whether one element or lanes.
pub(in crate::codegen) struct Polynomials<'e, 'a, 'f> {
    emitter: &'e mut Emitter<'a, 'f>,
    lanes: bool,
}

impl<'e, 'a, 'f> Polynomials<'e, 'a, 'f> {
    /// Over this emitter.
    pub(in crate::codegen) fn new(emitter: &'e mut Emitter<'a, 'f>) -> Polynomials<'e, 'a, 'f> {
        Polynomials { emitter, lanes: false }
    }

    /// `f(x)` of binary32.
    pub(in crate::codegen) fn apply(&mut self, function: UnaryFn, x: Value) -> Result<Value, String> {
        self.lanes = self.emitter.b.func.dfg.value_type(x) == types::F32X4;
        match function {
            UnaryFn::Exp => Ok(self.exp(x)),
            UnaryFn::Log => Ok(self.log(x)),
            UnaryFn::Tanh => Ok(self.rational(&TANH.0, &TANH.1, TANH_LIMIT, x)),
            UnaryFn::Erf => Ok(self.rational(&ERF.0, &ERF.1, ERF_LIMIT, x)),
            _ => Err(format!("{function:?} has no polynomial")),
        }
    }

    /// `e^x = 2^n e^r`; the power of two is applied in two factors, so that results below the normal range and just
    /// above the largest number are rounded once.
    fn exp(&mut self, x: Value) -> Value {
        let x = self.clamp(-104.0, 89.0, x);
        let (log2_e, round) = (self.constant(LOG2_E), self.constant(ROUND));
        let shifted = self.multiply_add(x, log2_e, round);
        let n = self.emitter.b.ins().fsub(shifted, round);
        let high = self.constant(-LN_2_HIGH);
        let r = self.multiply_add(n, high, x);
        let low = self.constant(-LN_2_LOW);
        let r = self.multiply_add(n, low, r);
        let series = self.horner(&EXP, r);
        let square = self.emitter.b.ins().fmul(r, r);
        let series = self.multiply_add(square, series, r);
        let one = self.constant(1.0);
        let series = self.emitter.b.ins().fadd(series, one);

        // The integer stands in the low bits of `shifted`, whose other bits the shift by 23 pushes out.
        let bits = self.bits(shifted);
        let half = self.shift(bits, Shift::Right, 1);
        let half = self.shift(half, Shift::Left, 23);
        let whole = self.shift(bits, Shift::Left, 23);
        let rest = self.emitter.b.ins().isub(whole, half);
        let series = self.scale_by(series, half);
        self.scale_by(series, rest)
    }

    /// `x * 2^n`, given `n << 23`.
    fn scale_by(&mut self, x: Value, exponent: Value) -> Value {
        let one = self.integer(ONE_BITS);
        let bits = self.emitter.b.ins().iadd(exponent, one);
        let power = self.float(bits);
        self.emitter.b.ins().fmul(x, power)
    }

    /// `ln(x) = k ln(2) + ln(1 + f)`.
    fn log(&mut self, x: Value) -> Value {
        let least = self.constant(f32::MIN_POSITIVE);
        let tiny = self.emitter.b.ins().fcmp(FloatCC::LessThan, x, least);
        let factor = self.constant(8_388_608.0);
        let scaled = self.emitter.b.ins().fmul(x, factor);
        let normal = self.select(tiny, scaled, x);
        let (minus, zero) = (self.constant(-23.0), self.constant(0.0));
        let offset = self.select(tiny, minus, zero);

        let bits = self.bits(normal);
        let root_half = self.integer(0x3f35_04f3);
        let above = self.emitter.b.ins().isub(bits, root_half);
        let exponent = self.shift(above, Shift::Right, 23);
        let field = self.shift(exponent, Shift::Left, 23);
        let mantissa = self.emitter.b.ins().isub(bits, field);
        let mantissa = self.float(mantissa);
        let one = self.constant(1.0);
        let f = self.emitter.b.ins().fsub(mantissa, one);
        let ty = self.float_type();
        let k = self.emitter.b.ins().fcvt_from_sint(ty, exponent);
        let k = self.emitter.b.ins().fadd(k, offset);

        let series = self.horner(&LOG, f);
        let square = self.emitter.b.ins().fmul(f, f);
        let cube = self.emitter.b.ins().fmul(square, f);
        let low = self.constant(LN_2_LOW);
        let small = self.emitter.b.ins().fmul(k, low);
        let small = self.multiply_add(cube, series, small);
        let half = self.constant(-0.5);
        let small = self.multiply_add(square, half, small);
        let sum = self.emitter.b.ins().fadd(f, small);
        let high = self.constant(LN_2_HIGH);
        let result = self.multiply_add(k, high, sum);
        self.log_edges(x, result)
    }

    fn log_edges(&mut self, x: Value, result: Value) -> Value {
        let infinity = self.constant(f32::INFINITY);
        let finite = self.emitter.b.ins().fcmp(FloatCC::LessThan, x, infinity);
        let result = self.select(finite, result, x);
        let zero = self.constant(0.0);
        let is_zero = self.emitter.b.ins().fcmp(FloatCC::Equal, x, zero);
        let pole = self.constant(f32::NEG_INFINITY);
        let result = self.select(is_zero, pole, result);
        let negative = self.emitter.b.ins().fcmp(FloatCC::LessThan, x, zero);
        let nan = self.constant(f32::NAN);
        self.select(negative, nan, result)
    }

    /// `x * P(x^2) / Q(x^2)`, constant beyond `limit`.
    fn rational(&mut self, p: &[f32], q: &[f32], limit: f32, x: Value) -> Value {
        let (least, greatest) = (self.constant(-limit), self.constant(limit));
        let below = self.emitter.b.ins().fcmp(FloatCC::LessThanOrEqual, x, least);
        let above = self.emitter.b.ins().fcmp(FloatCC::GreaterThanOrEqual, x, greatest);
        let x = self.select(below, least, x);
        let x = self.select(above, greatest, x);
        let square = self.emitter.b.ins().fmul(x, x);
        let numerator = self.horner(p, square);
        let numerator = self.emitter.b.ins().fmul(numerator, x);
        let denominator = self.horner(q, square);
        let quotient = self.emitter.b.ins().fdiv(numerator, denominator);
        // Rounding must not lead beyond the function's range, nor stay short of it where the function is 1: gelu
        // multiplies what is missing by x.
        let (minus, plus) = (self.constant(-1.0), self.constant(1.0));
        let under = self.emitter.b.ins().fcmp(FloatCC::LessThan, quotient, minus);
        let over = self.emitter.b.ins().fcmp(FloatCC::GreaterThan, quotient, plus);
        let low = self.emitter.b.ins().bor(below, under);
        let high = self.emitter.b.ins().bor(above, over);
        let result = self.select(low, minus, quotient);
        self.select(high, plus, result)
    }

    /// Polynomial with the lowest coefficient first.
    fn horner(&mut self, coefficients: &[f32], x: Value) -> Value {
        let mut coefficients = coefficients.iter().rev();
        let highest = coefficients.next().copied().unwrap_or(0.0);
        let mut sum = self.constant(highest);
        for coefficient in coefficients {
            let coefficient = self.constant(*coefficient);
            sum = self.multiply_add(sum, x, coefficient);
        }
        sum
    }

    /// NaN stays.
    fn clamp(&mut self, least: f32, greatest: f32, x: Value) -> Value {
        let least = self.constant(least);
        let above = self.emitter.b.ins().fcmp(FloatCC::LessThan, x, least);
        let x = self.select(above, least, x);
        let greatest = self.constant(greatest);
        let below = self.emitter.b.ins().fcmp(FloatCC::LessThan, greatest, x);
        self.select(below, greatest, x)
    }

    fn multiply_add(&mut self, a: Value, b: Value, c: Value) -> Value {
        self.emitter.multiply_add(a, b, c)
    }

    fn select(&mut self, condition: Value, a: Value, b: Value) -> Value {
        if !self.lanes {
            return self.emitter.pick(condition, a, b);
        }
        let mask = self.float(condition);
        self.emitter.b.ins().bitselect(mask, a, b)
    }

    fn constant(&mut self, value: f32) -> Value {
        if self.lanes {
            self.vector(value.to_le_bytes(), types::F32X4)
        } else {
            self.emitter.b.ins().f32const(Ieee32::with_float(value))
        }
    }

    fn integer(&mut self, value: i32) -> Value {
        if self.lanes {
            self.vector(value.to_le_bytes(), types::I32X4)
        } else {
            self.emitter.b.ins().iconst(types::I32, i64::from(value))
        }
    }

    fn vector(&mut self, lane: [u8; 4], ty: Type) -> Value {
        let mut bytes = [0; 16];
        bytes.chunks_exact_mut(4).for_each(|part| part.copy_from_slice(&lane));
        self.emitter.constant(bytes, ty)
    }

    fn float_type(&self) -> Type {
        if self.lanes { types::F32X4 } else { types::F32 }
    }

    fn bits(&mut self, x: Value) -> Value {
        self.cast(x, if self.lanes { types::I32X4 } else { types::I32 })
    }

    fn float(&mut self, x: Value) -> Value {
        self.cast(x, self.float_type())
    }

    fn cast(&mut self, x: Value, ty: Type) -> Value {
        if self.lanes { self.emitter.bits(x, ty) } else { self.emitter.b.ins().bitcast(ty, MemFlagsData::new(), x) }
    }

    fn shift(&mut self, x: Value, shift: Shift, distance: i64) -> Value {
        let distance = self.emitter.b.ins().iconst(types::I32, distance);
        match shift {
            Shift::Left => self.emitter.b.ins().ishl(x, distance),
            Shift::Right => self.emitter.b.ins().sshr(x, distance),
        }
    }
}

#[derive(Clone, Copy)]
enum Shift {
    Left,
    Right,
}
