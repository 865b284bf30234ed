#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "vector bodies over raw strips; the contract is stated once on `map`"
)]
#![allow(
    clippy::excessive_precision,
    clippy::approx_constant,
    reason = "fitted coefficients, written as they were computed"
)]
//! Elementary functions over strips of `f32`, for JITed loops and for epilogues.
//!
//! Largest error found against f64 over the whole range, in units in the last place (tests hold the bound of 4): exp
//! 0.9, log 0.8, tanh 1.3, sigmoid 2.2, erf 2.4. Infinities, NaN, signed zeros and subnormal results are those of the exact function.
//! Polynomials are Chebyshev fits computed at 40 digits.

use super::rational::{self, ERF_LIMIT, TANH_LIMIT};
use super::simd::{Simd, SimdMath};

pub(crate) const RELU: u32 = 1;
pub(crate) const LEAKY_RELU: u32 = 2;
pub(crate) const CLAMP: u32 = 3;
pub(crate) const GELU_TANH: u32 = 4;
pub(crate) const GELU_ERF: u32 = 5;
pub(crate) const SILU: u32 = 6;
pub(crate) const SIGMOID: u32 = 7;
pub(crate) const TANH: u32 = 8;
pub(crate) const HARD_SIGMOID: u32 = 9;
pub(crate) const HARD_SWISH: u32 = 10;

/// `C0 x^(n-1) + ... + C(n-1)`
#[inline(always)]
unsafe fn polynomial<S: SimdMath, const N: usize>(x: S, coefficients: [f32; N]) -> S {
    let mut sum = S::splat(coefficients[0]);
    for c in &coefficients[1..] {
        sum = sum.mul_add(x, S::splat(*c));
    }
    sum
}

#[inline(always)]
pub(crate) unsafe fn exp<S: SimdMath>(x: S) -> S {
    // Outside these bounds the result is 0 or infinity, and is so at the bounds. NaN passes: it is the second operand.
    let x = S::splat(89.0).min_or_other(S::splat(-104.0).max_or_other(x));
    let n = x.mul(S::splat(std::f32::consts::LOG2_E)).round();
    // ln 2 in two parts, the first with trailing zero bits so that its product with n is exact.
    let r = n.mul_add(S::splat(-0.693_359_4), x);
    let r = n.mul_add(S::splat(2.121_944_4e-4), r);
    let p = polynomial(r, [1.989_198_1e-4, 1.393_454_2e-3, 8.333_310e-3, 4.166_645_7e-2, 1.666_666_7e-1, 0.5]);
    p.mul_add(r.mul(r), r).add(S::splat(1.0)).scale(n)
}

#[inline(always)]
pub(crate) unsafe fn log<S: SimdMath>(x: S) -> S {
    let subnormal = x.less(S::splat(f32::MIN_POSITIVE));
    let scaled = S::select(subnormal, x.mul(S::splat(33_554_432.0)), x);
    let bias = S::select(subnormal, S::splat(126.0 + 25.0), S::splat(126.0));
    let e = scaled.exponent().sub(bias);
    let m = scaled.and_bits(0x007f_ffff).or_bits(0x3f00_0000);
    let low = m.less(S::splat(std::f32::consts::FRAC_1_SQRT_2));
    let e = S::select(low, e.sub(S::splat(1.0)), e);
    let f = S::select(low, m.add(m), m).sub(S::splat(1.0));
    let square = f.mul(f);
    let p = polynomial(
        f,
        [
            6.971_611_5e-2,
            -1.147_973_4e-1,
            1.168_542e-1,
            -1.242_568_7e-1,
            1.424_905_8e-1,
            -1.666_780_2e-1,
            2.000_071_6e-1,
            -2.499_999_7e-1,
            3.333_333e-1,
        ],
    );
    let tail = e.mul_add(S::splat(-2.121_944_4e-4), p.mul(f).mul(square));
    let tail = square.mul_add(S::splat(-0.5), tail);
    let result = e.mul_add(S::splat(0.693_359_4), f.add(tail));
    let zero = S::splat(0.0);
    let result = S::select(x.less(S::splat(f32::INFINITY)), result, x);
    let result = S::select(zero.less(x), result, S::splat(f32::NEG_INFINITY));
    let result = S::select(x.less(zero), S::splat(f32::NAN), result);
    S::select(x.is_nan(), x, result)
}

#[inline(always)]
pub(crate) unsafe fn tanh<S: SimdMath>(x: S) -> S {
    let sign = x.and_bits(0x8000_0000);
    let size = x.and_bits(0x7fff_ffff);
    let z = x.mul(x);
    let p = polynomial(z, [2.269_501_7e-3, -8.323_187e-3, 2.176_250_3e-2, -5.395_846e-2, 1.333_33e-1, -3.333_333_3e-1]);
    let small = p.mul(z).mul_add(x, x);
    let e = exp(S::splat(10.0).min_or_other(size).mul(S::splat(2.0)));
    let large = S::splat(1.0).sub(S::splat(2.0).div(e.add(S::splat(1.0)))).or(sign);
    S::select(size.less(S::splat(0.625)), small, large)
}

#[inline(always)]
pub(crate) unsafe fn erf<S: SimdMath>(x: S) -> S {
    let sign = x.and_bits(0x8000_0000);
    let size = x.and_bits(0x7fff_ffff);
    let p = polynomial(
        x.mul(x),
        [8.212_780_5e-5, -8.105_054_5e-4, 5.197_685e-3, -2.685_804_2e-2, 1.128_367_1e-1, -3.761_263_2e-1, 1.128_379_2],
    );
    let small = p.mul(x);
    // log(erfc(x)) is nearly quadratic, and 1 - exp of it needs it to few digits only.
    let p = polynomial(
        S::splat(4.0).min_or_other(size),
        [
            1.643_569_7e-6,
            -4.617_791_3e-5,
            5.977_434_7e-4,
            -4.763_575e-3,
            2.643_101_8e-2,
            -1.100_944_8e-1,
            -6.318_145e-1,
            -1.130_237_6,
            3.204_415_3e-4,
        ],
    );
    let large = S::splat(1.0).sub(exp(p)).or(sign);
    S::select(size.less(S::splat(0.92)), small, large)
}

/// `1 / (1 + e^-x)`, by `e^-|x|` so that small results keep their digits.
#[inline(always)]
pub(crate) unsafe fn sigmoid<S: SimdMath>(x: S) -> S {
    let one = S::splat(1.0);
    let e = exp(x.or_bits(0x8000_0000));
    S::select(x.less(S::splat(0.0)), e, one).div(one.add(e))
}

#[inline(always)]
unsafe fn silu<S: SimdMath>(x: S) -> S {
    x.mul(sigmoid(x))
}

/// `min(max(x + 3, 0), 6) / 6`, in the operations of compiled loops.
#[inline(always)]
unsafe fn hard_sigmoid<S: SimdMath>(x: S) -> S {
    clamp(x.add(S::splat(3.0)), S::splat(0.0), S::splat(6.0)).mul(S::splat(1.0 / 6.0))
}

/// A rational approximation: half the operations of [`tanh`] and [`erf`], and an error of up to 6 units in the last place,
/// which does not count where 1 is added to the result.
#[inline(always)]
unsafe fn quotient<S: SimdMath, const P: usize, const Q: usize>(x: S, (p, q): ([f32; P], [f32; Q]), limit: f32) -> S {
    let x = clamp(x, S::splat(-limit), S::splat(limit));
    let square = x.mul(x);
    let quotient = rising(square, p).mul(x).div(rising(square, q));
    clamp(quotient, S::splat(-1.0), S::splat(1.0))
}

/// `C0 + C1 x + ...`
#[inline(always)]
unsafe fn rising<S: SimdMath, const N: usize>(x: S, mut coefficients: [f32; N]) -> S {
    coefficients.reverse();
    polynomial(x, coefficients)
}

#[inline(always)]
unsafe fn gelu_tanh<S: SimdMath>(x: S) -> S {
    let cube = x.mul(x).mul(x);
    let inner = cube.mul_add(S::splat(0.044_715), x).mul(S::splat(0.797_884_6));
    x.mul(S::splat(0.5)).mul(S::splat(1.0).add(quotient(inner, rational::TANH, TANH_LIMIT)))
}

#[inline(always)]
unsafe fn gelu_erf<S: SimdMath>(x: S) -> S {
    let inner = x.mul(S::splat(std::f32::consts::FRAC_1_SQRT_2));
    x.mul(S::splat(0.5)).mul(S::splat(1.0).add(quotient(inner, rational::ERF, ERF_LIMIT)))
}

/// `x` between two bounds; a NaN stays.
#[inline(always)]
pub(crate) unsafe fn clamp<S: Simd>(x: S, low: S, high: S) -> S {
    high.min_or_other(low.max_or_other(x))
}

/// Applies an expression of the vector `x` to `len` elements; `src` may equal `dst`.
///
/// A macro, since a closure that LLVM does not inline is a function compiled for the baseline processor, whose vectors pass
/// through memory (gelu: 25 ns per element instead of 0.5).
macro_rules! map {
    ($vector:ty, $src:expr, $dst:expr, $len:expr, $x:ident => $y:expr) => {{
        let (src, dst, len) = ($src, $dst, $len);
        let mut i = 0;
        while i < len {
            let whole = i + <$vector>::LANES <= len;
            let mask = if whole { 0 } else { ((1u32 << (len - i)) - 1) as u16 };
            let $x = if whole { <$vector>::load(src.add(i)) } else { <$vector>::load_mask(src.add(i), mask) };
            let y = $y;
            if whole {
                y.store(dst.add(i))
            } else {
                y.store_mask(dst.add(i), mask)
            }
            i += <$vector>::LANES;
        }
    }};
}
pub(crate) use map;

/// In-place activation of an epilogue.
///
/// # Safety
/// The processor has the instructions of `S`; `data` holds `len` elements.
#[inline(always)]
pub(crate) unsafe fn activate<S: SimdMath>(code: u32, alpha: [f32; 2], data: *mut f32, len: usize) {
    match code {
        RELU => map!(S, data, data, len, x => S::splat(0.0).max_or_other(x)),
        LEAKY_RELU => map!(S, data, data, len, x => x.leaky(S::splat(alpha[0]))),
        CLAMP => map!(S, data, data, len, x => clamp(x, S::splat(alpha[0]), S::splat(alpha[1]))),
        GELU_TANH => map!(S, data, data, len, x => gelu_tanh(x)),
        GELU_ERF => map!(S, data, data, len, x => gelu_erf(x)),
        SILU => map!(S, data, data, len, x => silu(x)),
        SIGMOID => map!(S, data, data, len, x => sigmoid(x)),
        TANH => map!(S, data, data, len, x => tanh(x)),
        HARD_SIGMOID => map!(S, data, data, len, x => hard_sigmoid(x)),
        HARD_SWISH => map!(S, data, data, len, x => x.mul(hard_sigmoid(x))),
        _ => {}
    }
}

/// In-place activation in double precision, one element at a time.
pub(crate) unsafe fn activate_f64(code: u32, alpha: [f64; 2], data: *mut f64, len: usize) {
    for x in std::slice::from_raw_parts_mut(data, len) {
        *x = activation_f64(code, alpha, *x);
    }
}

/// Integers have no activations but those that registers do.
pub(crate) unsafe fn activate_i32(_: u32, _: [i32; 2], _: *mut i32, _: usize) {}

/// The exact activation that every level approximates.
pub(crate) fn activation_f64(code: u32, alpha: [f64; 2], x: f64) -> f64 {
    match code {
        RELU if x < 0.0 => 0.0,
        LEAKY_RELU if x <= 0.0 => x * alpha[0],
        CLAMP if x < alpha[0] => alpha[0],
        CLAMP if x > alpha[1] => alpha[1],
        GELU_TANH => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        GELU_ERF => 0.5 * x * (1.0 + erf_f64(x * std::f64::consts::FRAC_1_SQRT_2)),
        SILU => x / (1.0 + (-x).exp()),
        SIGMOID => 1.0 / (1.0 + (-x).exp()),
        TANH => x.tanh(),
        HARD_SIGMOID => (x + 3.0).clamp(0.0, 6.0) / 6.0,
        HARD_SWISH => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        _ => x,
    }
}

/// erf by its Maclaurin series below 2.5 and the continued fraction of erfc above (Abramowitz and Stegun 7.1.6, 7.1.14).
pub(crate) fn erf_f64(x: f64) -> f64 {
    let size = x.abs();
    if size.is_nan() {
        return x;
    }
    if size > 6.0 {
        return x.signum();
    }
    let scale = (-size * size).exp() / std::f64::consts::PI.sqrt();
    let value = if size < 2.5 {
        let mut term = size;
        let mut sum = size;
        for n in 1..80 {
            term *= 2.0 * size * size / f64::from(2 * n + 1);
            sum += term;
        }
        2.0 * scale * sum
    } else {
        let mut tail = size;
        for n in (1..80).rev() {
            tail = size + f64::from(n) / 2.0 / tail;
        }
        1.0 - scale / tail
    };
    value.copysign(x)
}

/// The C-callable strip functions of one vector type.
macro_rules! strips {
    ($vector:ty $(, $feature:literal)?) => {
        crate::kernels::math::strips!(@one exp, $vector $(, $feature)?);
        crate::kernels::math::strips!(@one log, $vector $(, $feature)?);
        crate::kernels::math::strips!(@one tanh, $vector $(, $feature)?);
        crate::kernels::math::strips!(@one erf, $vector $(, $feature)?);
        crate::kernels::math::strips!(@one sigmoid, $vector $(, $feature)?);
        pub(crate) static STRIPS: crate::kernels::Strips =
            crate::kernels::Strips { exp, log, tanh, erf, sigmoid };
    };
    (@one $name:ident, $vector:ty $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe extern "C" fn $name(src: *const f32, dst: *mut f32, len: u64) {
            crate::kernels::math::map!($vector, src, dst, len as usize, x => crate::kernels::math::$name(x));
        }
    };
}
pub(crate) use strips;
