//! Functions of floats: bounds against binary64, edges, NaN rules.

use super::*;
use crate::codegen::math::tests::erf_series;

/// Distance in units in the last place of the true value.
fn ulps(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if got == rounded || (got.is_nan() && want.is_nan()) {
        return 0.0;
    }
    if got.is_nan() || rounded.is_infinite() || got.is_infinite() {
        return f64::INFINITY;
    }
    let next = f32::from_bits(rounded.abs().to_bits() + 1);
    (f64::from(got) - want).abs() / f64::from(next - rounded.abs())
}

/// Numbers in steps over all of binary32 that lie in a range, both signs, and every edge.
fn spread(least: f32, greatest: f32) -> Vec<f32> {
    let steps = (0..0x7f80_0000u32).step_by(9973).map(f32::from_bits).flat_map(|x| [x, -x]);
    let fine =
        (0..=40_000).map(|step| least.max(-100.0) + step as f32 * (greatest.min(100.0) - least.max(-100.0)) / 4e4);
    let edges = [0.0, -0.0, 1.0, -1.0, f32::MIN_POSITIVE, 1e-45, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY];
    steps.chain(fine).chain(edges).filter(|x| (least..=greatest).contains(x)).collect()
}

fn worst(function: UnaryFn, values: &[f32], want: impl Fn(f64) -> f64) -> f64 {
    let got: Vec<f32> = unary(values, |n, x| n.unary(function, x[0]));
    let mut worst = (0.0, 0.0, 0.0);
    for (x, got) in values.iter().zip(&got) {
        let distance = ulps(*got, want(f64::from(*x)));
        if distance > worst.0 {
            worst = (distance, *x, *got);
        }
    }
    println!("{function:?}: {} ULP at {:e} ({:e})", worst.0, worst.1, worst.2);
    worst.0
}

#[test]
fn exp_within_1_ulp() {
    let values = spread(f32::NEG_INFINITY, f32::INFINITY);
    assert!(worst(UnaryFn::Exp, &values, f64::exp) <= 1.0);
}

#[test]
fn log_within_1_ulp() {
    let values = spread(f32::NEG_INFINITY, f32::INFINITY);
    assert!(worst(UnaryFn::Log, &values, f64::ln) <= 1.0);
    let edges: Vec<f32> =
        unary(&[0.0, -0.0, -1.0, f32::INFINITY, f32::NEG_INFINITY], |n, x| n.unary(UnaryFn::Log, x[0]));
    assert_eq!(edges[..2], [f32::NEG_INFINITY; 2]);
    assert!(edges[2].is_nan() && edges[4].is_nan() && edges[3] == f32::INFINITY);
}

#[test]
fn tanh_within_4_ulp() {
    let values = spread(f32::NEG_INFINITY, f32::INFINITY);
    assert!(worst(UnaryFn::Tanh, &values, f64::tanh) <= 4.0);
}

#[test]
fn large_arguments_saturate_exactly() {
    let values = [10.0f32, -10.0, 60.0, -1e4, f32::INFINITY, f32::NEG_INFINITY];
    for function in [UnaryFn::Tanh, UnaryFn::Erf] {
        assert_eq!(unary::<f32, f32>(&values, |n, x| n.unary(function, x[0])), values.map(f32::signum), "{function:?}");
    }
}

#[test]
fn erf_within_4_ulp() {
    let values = spread(f32::NEG_INFINITY, f32::INFINITY);
    let erf = |x: f64| if x.abs() > 6.0 { x.signum() } else { erf_series(x) };
    assert!(worst(UnaryFn::Erf, &values, erf) <= 4.0);
}

#[test]
fn other_functions_within_2_ulp() {
    let values = spread(-1e6, 1e6);
    assert!(worst(UnaryFn::Sin, &values, f64::sin) <= 1.0);
    assert!(worst(UnaryFn::Cos, &values, f64::cos) <= 1.0);
    let positive = spread(0.0, f32::INFINITY);
    assert!(worst(UnaryFn::Rsqrt, &positive, |x| 1.0 / x.sqrt()) <= 2.0);
    let powers: Vec<(f32, f32)> =
        (1..200).map(|i| (i as f32 * 0.31, (i % 17) as f32 - 8.0)).chain([(-2.0, 3.0), (0.0, 0.0)]).collect();
    let got: Vec<f32> = binary(&powers, |n, x| n.binary(BinaryFn::Pow, x[0], x[1]));
    for ((a, b), got) in powers.iter().zip(got) {
        assert!(ulps(got, f64::from(*a).powf(f64::from(*b))) <= 1.0, "{a}^{b}");
    }
    let rests: Vec<f32> = binary(&[(7.5f32, 2.0), (-7.5, 2.0), (7.5, -2.0), (1e10, 3.0), (1.0, 0.0)], |n, x| {
        n.binary(BinaryFn::Rem, x[0], x[1])
    });
    assert_eq!(rests[..4], [1.5, -1.5, 1.5, 1e10 % 3.0]);
    assert!(rests[4].is_nan());
}

#[test]
fn binary64_functions_are_those_of_rust() {
    let xs = [-2.5f64, -1e-3, 0.0, 0.7, 30.0];
    type Pair = (UnaryFn, fn(f64) -> f64);
    let pairs: [Pair; 6] = [
        (UnaryFn::Exp, f64::exp),
        (UnaryFn::Tanh, f64::tanh),
        (UnaryFn::Sin, f64::sin),
        (UnaryFn::Cos, f64::cos),
        (UnaryFn::Floor, f64::floor),
        (UnaryFn::Round, f64::round_ties_even),
    ];
    for (function, want) in pairs {
        assert_eq!(unary::<f64, f64>(&xs, |n, x| n.unary(function, x[0])), xs.map(want), "{function:?}");
    }
    for (x, got) in xs.iter().zip(unary::<f64, f64>(&xs, |n, x| n.unary(UnaryFn::Erf, x[0]))) {
        let want = if *x == 0.0 {
            0.0
        } else if *x > 6.0 {
            1.0
        } else {
            erf_series(*x)
        };
        assert!((got - want).abs() <= 2e-15, "erf({x}) = {got}");
    }
}

#[test]
fn nan_stays_in_every_function() {
    use UnaryFn::{Abs, Ceil, Cos, Erf, Exp, Floor, Log, Neg, Round, Rsqrt, Sign, Sin, Sqrt, Tanh};
    for function in [Neg, Abs, Sign, Exp, Log, Sqrt, Rsqrt, Sin, Cos, Tanh, Erf, Floor, Ceil, Round] {
        let got: Vec<f32> = unary(&[f32::NAN; 5], |n, x| n.unary(function, x[0]));
        assert!(got.iter().all(|x| x.is_nan()), "{function:?}");
        let got: Vec<f64> = unary(&[f64::NAN; 5], |n, x| n.unary(function, x[0]));
        assert!(got.iter().all(|x| x.is_nan()), "{function:?}");
    }
    let sign: Vec<f32> = unary(&[-2.0, 0.0, 5.0, -0.0, f32::INFINITY], |n, x| n.unary(Sign, x[0]));
    assert_eq!(sign, [-1.0, 0.0, 1.0, 0.0, 1.0]);
}

#[test]
fn maxima_give_nan_if_either_is() {
    let nan = f32::NAN;
    let pairs = [(nan, 1.0), (1.0, nan), (nan, nan), (1.0, 2.0), (2.0, 1.0), (nan, 3.0), (-1.0, -2.0)];
    for (function, want) in [(Max, [2.0f32, 2.0, 0.0, -1.0]), (BinaryFn::Min, [1.0, 1.0, 0.0, -2.0])] {
        let got: Vec<f32> = binary(&pairs, |n, x| n.binary(function, x[0], x[1]));
        assert!(got[..3].iter().chain([&got[5]]).all(|x| x.is_nan()), "{function:?} {got:?}");
        assert_eq!((got[3], got[4], got[6]), (want[0], want[1], want[3]));
        // With a literal on either side.
        for literal_first in [false, true] {
            let got: Vec<f32> = unary(&[nan, -5.0, 5.0, 0.5, nan], |n, x| {
                let half = n.literal(0.5, F32);
                if literal_first { n.binary(function, half, x[0]) } else { n.binary(function, x[0], half) }
            });
            assert!(got[0].is_nan() && got[4].is_nan(), "{function:?} {got:?}");
            let want = if function == Max { [0.5, 5.0, 0.5] } else { [-5.0, 0.5, 0.5] };
            assert_eq!(got[1..4], want);
        }
    }
}

#[test]
fn comparisons_with_nan_are_false_but_ne() {
    let pairs = [(f32::NAN, 1.0), (1.0, f32::NAN), (1.0, 1.0), (1.0, 2.0), (2.0, 1.0)];
    use CompareFn::{Eq, Ge, Gt, Le, Lt, Ne};
    for (function, want) in [
        (Eq, [0u8, 0, 1, 0, 0]),
        (Ne, [1, 1, 0, 1, 1]),
        (Lt, [0, 0, 0, 1, 0]),
        (Le, [0, 0, 1, 1, 0]),
        (Gt, [0, 0, 0, 0, 1]),
        (Ge, [0, 0, 1, 0, 1]),
    ] {
        let got: Vec<u8> = binary(&pairs, |n, x| n.cast(n.compare(function, x[0], x[1]), U8));
        assert_eq!(got, want, "{function:?}");
        let wide: Vec<(f64, f64)> = pairs.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).collect();
        let got: Vec<u8> = binary(&wide, |n, x| n.cast(n.compare(function, x[0], x[1]), U8));
        assert_eq!(got, want, "{function:?}");
    }
}
