use super::super::math::erf_f64;
use super::super::{Kernels, Level, StripFn};

/// Distance in units in the last place of the f32 nearest to `exact`.
fn ulps(actual: f32, exact: f64) -> f64 {
    let nearest = exact as f32;
    if actual.to_bits() == nearest.to_bits() || (actual.is_nan() && nearest.is_nan()) {
        return 0.0;
    }
    if !actual.is_finite() || !nearest.is_finite() {
        return f64::INFINITY;
    }
    let size = nearest.abs().max(f32::MIN_POSITIVE);
    let unit = f64::from(f32::from_bits(size.to_bits() + 1)) - f64::from(size);
    (f64::from(actual) - exact).abs() / unit
}

/// Every 10007th f32, and the special ones.
fn inputs() -> Vec<f32> {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        1e-45,
        -1e-45,
        88.72,
        88.73,
        -103.9,
        -104.0,
        0.625,
        0.92,
    ];
    let sweep = (0..u32::MAX).step_by(10_007).map(f32::from_bits);
    special.into_iter().chain(sweep).collect()
}

fn check(name: &str, pick: fn(&Kernels) -> StripFn, exact: fn(f64) -> f64) {
    let inputs = inputs();
    for level in Level::ALL.into_iter().filter(|level| level.available()) {
        let Some(kernels) = Kernels::for_level(level) else {
            continue;
        };
        let mut out = vec![0.0f32; inputs.len()];
        // SAFETY: equal lengths.
        unsafe { pick(kernels)(inputs.as_ptr(), out.as_mut_ptr(), inputs.len() as u64) };
        let mut worst = (0.0, 0.0);
        for (x, y) in inputs.iter().zip(&out) {
            let error = ulps(*y, exact(f64::from(*x)));
            if error > worst.0 {
                worst = (error, *x);
            }
        }
        println!("{name} {level}: {:.2} ulp at {:e}", worst.0, worst.1);
        assert!(worst.0 <= 4.0, "{name} {level}: {} ulp at {:e}", worst.0, worst.1);
    }
}

#[test]
fn exp_within_four_ulp() {
    check("exp", |k| k.strips.exp, f64::exp);
}

#[test]
fn log_within_four_ulp() {
    check("log", |k| k.strips.log, f64::ln);
}

#[test]
fn tanh_within_four_ulp() {
    check("tanh", |k| k.strips.tanh, f64::tanh);
}

#[test]
fn erf_within_four_ulp() {
    check("erf", |k| k.strips.erf, erf_f64);
}

#[test]
fn sigmoid_within_four_ulp() {
    check("sigmoid", |k| k.strips.sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
}

/// Published values (Abramowitz and Stegun, table 7.1).
#[test]
fn the_reference_erf_is_erf() {
    for (x, y) in [(0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0), (3.0, 0.999_977_909_5)] {
        assert!((erf_f64(x) - y).abs() < 1e-10);
    }
}

#[test]
fn strips_in_place_and_of_any_length() {
    for level in Level::ALL.into_iter().filter(|level| level.available()) {
        let Some(kernels) = Kernels::for_level(level) else {
            continue;
        };
        for len in 0..40usize {
            let mut data: Vec<f32> = (0..=len).map(|i| i as f32 / 8.0).collect();
            let guard = data[len];
            // SAFETY: `data` holds one element more than `len`.
            unsafe { (kernels.strips.exp)(data.as_ptr(), data.as_mut_ptr(), len as u64) };
            assert!(data[..len].iter().enumerate().all(|(i, y)| ulps(*y, (i as f64 / 8.0).exp()) < 4.0));
            assert_eq!(data[len], guard);
        }
    }
}
