//! Whether two executors agree.

use kiln_ir::reference::Array;

use crate::executors::Outcome;

/// How far floats may be apart. Integers and bools never may.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// Relative to the largest element of the result, or to 1 if that is larger: sums lose what cancels.
    OfLargest(f64),
    /// Relative to each element, or to 0.1 if that is larger: elementwise functions, some of which take 1 from numbers
    /// near 1.
    OfEach(f64),
}

/// The first difference of two outcomes.
///
/// # Errors
/// Result, position and both numbers.
pub fn same(want: &Outcome, have: &Outcome, tolerance: Tolerance) -> Result<(), String> {
    let returns = want.returns.iter().zip(&have.returns).enumerate();
    for (number, (a, b)) in returns {
        array(a, b, tolerance).map_err(|what| format!("result {number} {what}"))?;
    }
    for ((name, a), (other, b)) in want.updates.iter().zip(&have.updates) {
        array(a, b, tolerance).map_err(|what| format!("state @{name} (@{other}) {what}"))?;
    }
    let count = |outcome: &Outcome| (outcome.returns.len(), outcome.updates.len());
    if count(want) == count(have) { Ok(()) } else { Err(format!("{:?} results, not {:?}", count(have), count(want))) }
}

/// The first difference of two arrays.
///
/// # Errors
/// Position and both numbers.
pub fn array(want: &Array, have: &Array, tolerance: Tolerance) -> Result<(), String> {
    if (want.ty.dtype, want.ty.extents()) != (have.ty.dtype, have.ty.extents()) {
        return Err(format!("is {}, not {}", have.ty, want.ty));
    }
    if !want.ty.dtype.is_float() {
        let numbers = |array: &Array| -> Vec<i64> {
            (0..array.ty.elements()).filter_map(|p| Some(array.at(p)?.to_i64())).collect()
        };
        let (want, have) = (numbers(want), numbers(have));
        return match (0..want.len()).find(|&p| want[p] != have[p]) {
            Some(position) => Err(format!("at {position}: {}, not {}", have[position], want[position])),
            None => Ok(()),
        };
    }
    let (a, b) = (want.to_f64(), have.to_f64());
    let largest = a.iter().filter(|v| v.is_finite()).fold(1.0f64, |most, v| most.max(v.abs()));
    let allowed = |a: f64| match tolerance {
        Tolerance::OfLargest(tolerance) => tolerance * largest,
        Tolerance::OfEach(tolerance) => tolerance * a.abs().max(0.1),
    };
    let differ = |p: &usize| {
        let (a, b) = (a[*p], b[*p]);
        !(a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= allowed(a))
    };
    match (0..a.len()).find(differ) {
        Some(position) => Err(format!("at {position}: {:?}, not {:?}", b[position], a[position])),
        None => Ok(()),
    }
}
