//! Rational approximations that kernels and compiled loops share: `x * P(x^2) / Q(x^2)`, coefficients lowest first.
#![allow(clippy::excessive_precision, reason = "coefficients stand as fitted")]

/// `tanh(x) = x * P(x^2) / Q(x^2)` on `0..9`; relative error 1.3e-9.
pub const TANH: ([f32; 6], [f32; 5]) = (
    [1.0, 0.136_808_946_6, 0.003_869_555_36, 2.803_223_341e-5, 3.064_460_669e-8, -1.224_765_843e-11],
    [1.0, 0.470_142_267_5, 0.027_250_331_32, 3.940_795_731e-4, 1.289_097_707e-6],
);

/// `erf(x) = x * P(x^2) / Q(x^2)` on `0..3.95`; relative error 1.9e-9.
pub const ERF: ([f32; 7], [f32; 6]) = (
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
pub const TANH_LIMIT: f32 = 9.25;
/// The same for erf.
pub const ERF_LIMIT: f32 = 4.1;
