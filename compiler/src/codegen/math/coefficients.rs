//! Coefficients that every emitter shares, so that all of them give the same bits.
#![allow(clippy::excessive_precision, reason = "coefficients stand as fitted")]

/// `log2(e)`.
pub(in crate::codegen) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// `ln 2` in two parts, the first with nine trailing zeros: its product with an exponent is exact.
pub(in crate::codegen) const LN_2_HIGH: f32 = 0.693_359_375;
pub(in crate::codegen) const LN_2_LOW: f32 = -2.121_944_4e-4;
/// `1.5 * 2^23`: adding it rounds to an integer, which then stands in the low bits.
pub(in crate::codegen) const ROUND: f32 = 12_582_912.0;

/// `(e^r - 1 - r) / r^2` on `|r| <= ln(2)/2`, lowest first; relative error of `e^r` 3.3e-9.
pub(in crate::codegen) const EXP: [f32; 5] =
    [0.499_999_930_6, 0.166_665_148_1, 0.041_668_454_34, 0.008_369_416_794, 0.001_381_330_415];

/// `(ln(1 + f) - f + f^2/2) / f^3` on `sqrt(1/2)-1..sqrt(2)-1`; relative error of the logarithm 5.8e-9.
pub(in crate::codegen) const LOG: [f32; 8] = [
    0.333_333_313_6,
    -0.250_008_207_8,
    0.200_012_462_7,
    -0.166_233_851_7,
    0.142_015_248_2,
    -0.131_597_357,
    0.127_621_966_6,
    -0.076_358_626_74,
];

pub(in crate::codegen) use kiln_rt::kernels::rational::{ERF, ERF_LIMIT, TANH, TANH_LIMIT};
