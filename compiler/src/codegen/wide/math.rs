//! The functions of [`super::super::math`] in the instructions of this width: the same polynomials with the same
//! roundings, so results have the same bits as in four lanes.
//!
//! Three things are shorter: `maxps` with the limit first passes NaN on, which makes clamping one instruction a side;
//! `scalef` multiplies by a power of two and rounds once; and beyond the limits the rational functions are rounded to 1
//! by the last clamp alone, since their quotient at the limit is 1 or above.

use super::tape::{Binary, Compare, Source, Tape, Unary};
use crate::codegen::math::coefficients::{
    ERF, ERF_LIMIT, EXP, LN_2_HIGH, LN_2_LOW, LOG, LOG2_E, ROUND, TANH, TANH_LIMIT,
};

impl Tape {
    pub(in crate::codegen) fn exp(&mut self, x: Source) -> Source {
        let x = self.clamp(-104.0, 89.0, x);
        let (log2_e, round) = (self.number(LOG2_E), self.number(ROUND));
        let shifted = self.mul_add(x, log2_e, round);
        let n = self.binary(Binary::Sub, shifted, round);
        let (high, low) = (self.number(-LN_2_HIGH), self.number(-LN_2_LOW));
        let r = self.mul_add(n, high, x);
        let r = self.mul_add(n, low, r);
        let series = self.horner(&EXP, r);
        let square = self.binary(Binary::Mul, r, r);
        let series = self.mul_add(square, series, r);
        let one = self.number(1.0);
        let series = self.binary(Binary::Add, series, one);
        self.binary(Binary::Scale, series, n)
    }

    pub(in crate::codegen) fn log(&mut self, x: Source) -> Source {
        let (least, factor) = (self.number(f32::MIN_POSITIVE), self.number(8_388_608.0));
        let tiny = self.compare(Compare::LESS, x, least);
        let scaled = self.binary(Binary::Mul, x, factor);
        let normal = self.select(tiny, scaled, x);
        let (minus, zero) = (self.number(-23.0), self.number(0.0));
        let offset = self.select(tiny, minus, zero);

        let root_half = Source::Word(self.literal(0x3f35_04f3));
        let above = self.binary(Binary::IntSub, normal, root_half);
        let exponent = self.unary(Unary::ShiftRightSigned(23), above);
        let field = self.unary(Unary::ShiftLeft(23), exponent);
        let mantissa = self.binary(Binary::IntSub, normal, field);
        let one = self.number(1.0);
        let f = self.binary(Binary::Sub, mantissa, one);
        let k = self.unary(Unary::FromInt, exponent);
        let k = self.binary(Binary::Add, k, offset);

        let series = self.horner(&LOG, f);
        let square = self.binary(Binary::Mul, f, f);
        let cube = self.binary(Binary::Mul, square, f);
        let low = self.number(LN_2_LOW);
        let small = self.binary(Binary::Mul, k, low);
        let small = self.mul_add(cube, series, small);
        let half = self.number(-0.5);
        let small = self.mul_add(square, half, small);
        let sum = self.binary(Binary::Add, f, small);
        let high = self.number(LN_2_HIGH);
        let result = self.mul_add(k, high, sum);
        self.log_edges(x, result)
    }

    fn log_edges(&mut self, x: Source, result: Source) -> Source {
        let (infinity, zero) = (self.number(f32::INFINITY), self.number(0.0));
        let finite = self.compare(Compare::LESS, x, infinity);
        let result = self.select(finite, result, x);
        let pole = self.number(f32::NEG_INFINITY);
        let is_zero = self.compare(Compare::EQUAL, x, zero);
        let result = self.select(is_zero, pole, result);
        let nan = self.number(f32::NAN);
        let negative = self.compare(Compare::LESS, x, zero);
        self.select(negative, nan, result)
    }

    pub(in crate::codegen) fn tanh(&mut self, x: Source) -> Source {
        self.rational(&TANH.0, &TANH.1, TANH_LIMIT, x)
    }

    pub(in crate::codegen) fn erf(&mut self, x: Source) -> Source {
        self.rational(&ERF.0, &ERF.1, ERF_LIMIT, x)
    }

    fn rational(&mut self, p: &[f32], q: &[f32], limit: f32, x: Source) -> Source {
        let x = self.clamp(-limit, limit, x);
        let square = self.binary(Binary::Mul, x, x);
        let numerator = self.horner(p, square);
        let numerator = self.binary(Binary::Mul, numerator, x);
        let denominator = self.horner(q, square);
        let quotient = self.binary(Binary::Div, numerator, denominator);
        self.clamp(-1.0, 1.0, quotient)
    }

    fn horner(&mut self, coefficients: &[f32], x: Source) -> Source {
        let mut coefficients = coefficients.iter().rev();
        let mut sum = self.number(coefficients.next().copied().unwrap_or(0.0));
        for coefficient in coefficients {
            let coefficient = self.number(*coefficient);
            sum = self.mul_add(sum, x, coefficient);
        }
        sum
    }

    /// NaN stays.
    fn clamp(&mut self, least: f32, greatest: f32, x: Source) -> Source {
        let (least, greatest) = (self.number(least), self.number(greatest));
        let x = self.binary(Binary::Greatest, least, x);
        self.binary(Binary::Least, greatest, x)
    }
}
