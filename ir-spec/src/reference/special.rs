//! The error function and Philox, which std does not have.

use std::f64::consts::{FRAC_2_SQRT_PI, PI};

/// The error function to a few units in the last place of binary64.
///
/// Abramowitz and Stegun, Handbook of Mathematical Functions: series 7.1.6, whose terms are all positive, for small
/// arguments; the continued fraction 7.1.14 of the complement for large ones.
pub fn erf(x: f64) -> f64 {
    let size = x.abs();
    if x.is_nan() || x == 0.0 {
        x
    } else if size > 6.0 {
        // 1 - erf(6) is 2e-17, below half a unit in the last place of 1.
        1f64.copysign(x)
    } else if size > 1.5 {
        (1.0 - complement(size)).copysign(x)
    } else {
        // `x + 2 x^3 / 3 + 4 x^5 / 15 + ...`, the smallest of forty terms first.
        let square = 2.0 * size * size;
        let sum = (1..=40).rev().fold(1.0, |rest, n| 1.0 + rest * square / f64::from(2 * n + 1));
        (FRAC_2_SQRT_PI * gauss(size) * size * sum).copysign(x)
    }
}

/// `e^(-x^2)`, with the rounding error of the square made good.
fn gauss(x: f64) -> f64 {
    let square = x * x;
    let error = x.mul_add(x, -square);
    (-square).exp() * (1.0 - error)
}

/// `1 - erf(x)` for `x > 1.5`: `e^(-x^2) / sqrt(pi) / (x + (1/2) / (x + (2/2) / (x + (3/2) / (x + ...))))`.
fn complement(x: f64) -> f64 {
    // At x = 1.5 the hundredth level changes the fraction by less than 1e-18.
    let fraction = (1..=100).rev().fold(x, |rest, level| x + 0.5 * f64::from(level) / rest);
    gauss(x) / (PI.sqrt() * fraction)
}

/// Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011).
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
        }
        let first = u64::from(counter[0]) * 0xd251_1f53;
        let second = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference values from glibc's `erf`, by way of Python's `math.erf`.
    #[test]
    fn erf_agrees_with_tabulated_values() {
        let table = [
            (1e-10, 1.128_379_167_095_512_6e-10),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (2.5, 0.999_593_047_982_555),
            (3.0, 0.999_977_909_503_001_4),
            (5.5, 0.999_999_999_999_992_7),
        ];
        for (x, expected) in table {
            for (x, expected) in [(x, expected), (-x, -expected)] {
                let error = (erf(x) / expected - 1.0).abs();
                assert!(error <= 4.5e-16, "erf({x}) = {:e}, off by {error:e}", erf(x));
            }
        }
        assert!(erf(f64::NAN).is_nan());
        assert_eq!((erf(f64::INFINITY), erf(0.0)), (1.0, 0.0));
    }

    /// Known answers of the Random123 distribution, `kat_vectors`.
    #[test]
    fn philox_gives_the_known_answers() {
        let ones = u32::MAX;
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let expected = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox4x32(pi, [0xa409_3822, 0x299f_31d0]), expected);
    }
}
