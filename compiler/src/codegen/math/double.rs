//! Functions of binary64 that kernels call through their table.
#![allow(clippy::excessive_precision, reason = "coefficients stand as published")]

/// A function of one or two binary64 numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MathFn {
    /// `e^x`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Hyperbolic tangent.
    Tanh,
    /// Error function.
    Erf,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
    /// `a^b`.
    Pow,
    /// Remainder with the sign of `a`.
    Rem,
}

impl MathFn {
    /// Address for the table: an `extern "C" fn(f64) -> f64`, or of two numbers for `Pow` and `Rem`.
    pub fn address(self) -> *const u8 {
        let one: extern "C" fn(f64) -> f64 = match self {
            MathFn::Exp => exp,
            MathFn::Log => log,
            MathFn::Tanh => tanh,
            MathFn::Erf => erf,
            MathFn::Sin => sin,
            MathFn::Cos => cos,
            MathFn::Pow => return pow as extern "C" fn(f64, f64) -> f64 as *const u8,
            MathFn::Rem => return rem as extern "C" fn(f64, f64) -> f64 as *const u8,
        };
        one as *const u8
    }
}

extern "C" fn exp(x: f64) -> f64 {
    x.exp()
}

extern "C" fn log(x: f64) -> f64 {
    x.ln()
}

extern "C" fn tanh(x: f64) -> f64 {
    x.tanh()
}

extern "C" fn sin(x: f64) -> f64 {
    x.sin()
}

extern "C" fn cos(x: f64) -> f64 {
    x.cos()
}

extern "C" fn pow(a: f64, b: f64) -> f64 {
    a.powf(b)
}

extern "C" fn rem(a: f64, b: f64) -> f64 {
    a % b
}

/// Rational approximations of Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969):
/// relative error below 6e-19 before rounding.
extern "C" fn erf(x: f64) -> f64 {
    let magnitude = x.abs();
    if x.is_nan() {
        return x;
    }
    if magnitude <= 0.468_75 {
        let square = x * x;
        return x * horner(&NEAR.0, square) / horner(&NEAR.1, square);
    }
    let rest = if magnitude <= 4.0 {
        (-magnitude * magnitude).exp() * horner(&MIDDLE.0, magnitude) / horner(&MIDDLE.1, magnitude)
    } else {
        let square = 1.0 / (magnitude * magnitude);
        let series = square * horner(&FAR.0, square) / horner(&FAR.1, square);
        (-magnitude * magnitude).exp() * (1.0 / std::f64::consts::PI.sqrt() - series) / magnitude
    };
    (1.0 - rest).copysign(x)
}

/// Polynomial with the highest coefficient first.
fn horner(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

const NEAR: ([f64; 5], [f64; 5]) = (
    [
        1.857_777_061_846_031_53e-1,
        3.161_123_743_870_565_60,
        1.138_641_541_510_501_56e2,
        3.774_852_376_853_020_21e2,
        3.209_377_589_138_469_47e3,
    ],
    [
        1.0,
        2.360_129_095_234_412_09e1,
        2.440_246_379_344_441_73e2,
        1.282_616_526_077_372_28e3,
        2.844_236_833_439_170_62e3,
    ],
);

const MIDDLE: ([f64; 9], [f64; 9]) = (
    [
        2.153_115_354_744_038_46e-8,
        5.641_884_969_886_700_89e-1,
        8.883_149_794_388_375_94,
        6.611_919_063_714_162_95e1,
        2.986_351_381_974_001_31e2,
        8.819_522_212_417_690_90e2,
        1.712_047_612_634_070_58e3,
        2.051_078_377_826_071_47e3,
        1.230_339_354_797_997_25e3,
    ],
    [
        1.0,
        1.574_492_611_070_983_47e1,
        1.176_939_508_913_124_99e2,
        5.371_811_018_620_098_58e2,
        1.621_389_574_566_690_19e3,
        3.290_799_235_733_459_63e3,
        4.362_619_090_143_247_16e3,
        3.439_367_674_143_721_64e3,
        1.230_339_354_803_749_42e3,
    ],
);

const FAR: ([f64; 6], [f64; 6]) = (
    [
        1.631_538_713_730_209_78e-2,
        3.053_266_349_612_323_44e-1,
        3.603_448_999_498_044_39e-1,
        1.257_817_261_112_292_46e-1,
        1.608_378_514_874_227_66e-2,
        6.587_491_615_298_378_03e-4,
    ],
    [
        1.0,
        2.568_520_192_289_822_42,
        1.872_952_849_923_467_25,
        5.279_051_029_514_284_12e-1,
        6.051_834_131_244_131_91e-2,
        2.335_204_976_268_691_85e-3,
    ],
);

#[cfg(test)]
pub(in crate::codegen) mod tests {
    use super::erf;

    /// `2/sqrt(pi) e^(-x^2) sum 2^n x^(2n+1) / (1 * 3 * ... (2n+1))`: all terms have one sign.
    pub(in crate::codegen) fn erf_series(x: f64) -> f64 {
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term.abs() > 1e-18 * sum.abs() {
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
    }

    #[test]
    fn erf_agrees_with_its_series() {
        for step in -600..=600 {
            let x = f64::from(step) / 100.0;
            assert!((erf(x) - erf_series(x)).abs() <= 2e-15, "erf({x})");
        }
        assert_eq!(erf(f64::INFINITY), 1.0);
        assert_eq!(erf(f64::NEG_INFINITY), -1.0);
        assert!(erf(f64::NAN).is_nan());
    }
}
