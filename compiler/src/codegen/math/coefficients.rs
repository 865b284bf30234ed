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

/// `tanh(x) = x * P(x^2) / Q(x^2)` on `0..9`; relative error 1.3e-9.
pub(in crate::codegen) const TANH: ([f32; 6], [f32; 5]) = (
    [1.0, 0.136_808_946_6, 0.003_869_555_36, 2.803_223_341e-5, 3.064_460_669e-8, -1.224_765_843e-11],
    [1.0, 0.470_142_267_5, 0.027_250_331_32, 3.940_795_731e-4, 1.289_097_707e-6],
);

/// `erf(x) = x * P(x^2) / Q(x^2)` on `0..3.95`; relative error 1.9e-9.
pub(in crate::codegen) const ERF: ([f32; 7], [f32; 6]) = (
    [
        1.128_379_169,
        0.185_170_150_6,
        0.054_275_516_88,
        0.003_843_496_891,
        3.779_642_297e-4,
        4.641_120_431e-6,
        -1.297_061_338e-8,
    ],
    [1.0, 0.497_436_182_2, 0.113_911_988_3, 0.015_444_061_65, 0.001_304_125_739, 6.269_909_228e-5],
);

/// Where the rational functions stop: beyond the fit, at numbers where their quotient rounds to 1 or above it, with fused
/// multiply-add and without. Large arguments then give 1 exactly; one bit less is blown up by the gradient of `gelu_tanh`,
/// `1 - tanh^2` times a cubic.
pub(in crate::codegen) const TANH_LIMIT: f32 = 9.25;
pub(in crate::codegen) const ERF_LIMIT: f32 = 4.1;
