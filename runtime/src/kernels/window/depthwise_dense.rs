#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "inner loops over raw planes; the contract is PlaneCall's, stated once on `depthwise_dense`"
)]
#![allow(clippy::needless_range_loop, reason = "taps and vectors number registers and addresses alike")]
//! Depthwise convolutions whose outputs lie as their inputs do: stride 1, as many columns out as in, windows centred along
//! a row.
//!
//! Vectors hold outputs in row-major order, across the ends of rows, so that only the plane's last one has empty lanes.
//! What the columns of a window add is summed apart, `sums[j][p] = sum over i of w[i, j] * x[p + i * pitch]`, and moved
//! to its output at the end, `out[p] = sum over j of sums[j][p + j - K / 2]`: a vector takes a load for each row of the
//! window and a shift for each column, not one for each tap. Where a tap lies beside the row, its column's sum is that of
//! weights times zero.

use super::dense::Dense;
use super::depthwise_block::{PlaneCall, finish, tap_at};
use crate::kernels::simd::SimdWindow;

/// Computes a plane; `K` is the columns of the window, `ROWS` its rows, or 0 for any number. `N` vectors share weights.
///
/// # Safety
/// The processor has the instructions of `S`; the call's pointers are good for the planes and vectors of its spec; `dense`
/// is its descriptor's.
#[inline(always)]
pub(crate) unsafe fn depthwise_dense<S: SimdWindow, const ROWS: usize, const K: usize, const N: usize>(
    call: &PlaneCall<'_>,
    dense: &Dense,
) {
    let zero = S::splat(0.0);
    let rows = if ROWS > 0 { ROWS } else { call.d.spec.rows.kernel };
    let mut outside = [zero; K];
    for i in 0..rows {
        for j in 0..K {
            outside[j] = zero.mul_add(S::splat(tap_at(call, i, j)), outside[j]);
        }
    }
    let many = dense.vectors / N * N;
    // Sums of the last two vectors; the last one's outputs wait for the vector after it. Nothing comes before the first,
    // of which the first step makes outputs all the same.
    let (mut before, mut last) = ([zero; K], [zero; K]);
    let mut columns = Columns { dense, phase: dense.period - 1 };
    let mut v = 0;
    while v < many {
        let sums = sums_of::<S, ROWS, K, N>(call, dense, v);
        let mut out = [zero; N];
        out[0] = output(&mut columns, [&before, &last, &sums[0]], &outside);
        for n in 1..N {
            out[n] =
                output(&mut columns, [if n == 1 { &last } else { &sums[n - 2] }, &sums[n - 1], &sums[n]], &outside);
        }
        let at = (v * S::LANES).wrapping_sub(S::LANES);
        if v == 0 {
            let mut lanes = [!0; N];
            lanes[0] = 0;
            finish::<S, N, true>(call, &mut out, at, S::LANES, lanes);
        } else {
            finish::<S, N, false>(call, &mut out, at, S::LANES, [!0; N]);
        }
        before = if N > 1 { sums[N.max(2) - 2] } else { last };
        last = sums[N - 1];
        v += N;
    }
    while v < dense.vectors {
        let sums = sums_of::<S, ROWS, K, 1>(call, dense, v);
        let out = output(&mut columns, [&before, &last, &sums[0]], &outside);
        let lanes = if v == 0 { 0 } else { !0 };
        finish::<S, 1, true>(call, &mut [out], (v * S::LANES).wrapping_sub(S::LANES), 0, [lanes]);
        (before, last) = (last, sums[0]);
        v += 1;
    }
    // What comes after the last vector lies beside its row.
    let out = output(&mut columns, [&before, &last, &last], &outside);
    finish::<S, 1, true>(call, &mut [out], (v - 1) * S::LANES, 0, [dense.last]);
}

/// The masks of one vector after the other.
struct Columns<'a> {
    dense: &'a Dense,
    phase: usize,
}

/// Sums of vectors `v..v + N` by columns of the window, the bias in those of the middle one.
#[inline(always)]
unsafe fn sums_of<S: SimdWindow, const ROWS: usize, const K: usize, const N: usize>(
    call: &PlaneCall<'_>,
    dense: &Dense,
    v: usize,
) -> [[S; K]; N] {
    if v >= dense.whole.start && v + N <= dense.whole.end {
        sums::<S, ROWS, K, N, false>(call, dense, v)
    } else {
        sums::<S, ROWS, K, N, true>(call, dense, v)
    }
}

/// As [`sums_of`]; unless `MASKED`, all rows exist.
#[inline(always)]
unsafe fn sums<S: SimdWindow, const ROWS: usize, const K: usize, const N: usize, const MASKED: bool>(
    call: &PlaneCall<'_>,
    dense: &Dense,
    v: usize,
) -> [[S; K]; N] {
    let rows = if ROWS > 0 { ROWS } else { call.d.spec.rows.kernel };
    let mut sums = [[S::splat(0.0); K]; N];
    if !call.bias.is_null() {
        let bias = S::splat(*call.bias);
        for n in 0..N {
            sums[n][K / 2] = bias;
        }
    }
    let first = call.x.wrapping_offset(dense.first).wrapping_add(v * S::LANES);
    let masks = if MASKED { dense.row_masks(v, rows) } else { std::ptr::null() };
    for i in 0..rows {
        let row = first.wrapping_add(i * call.d.spec.columns.input);
        let mut x = [S::splat(0.0); N];
        for n in 0..N {
            let at = row.wrapping_add(n * S::LANES);
            // Zeros outside, not skipped: what is infinite times zero is NaN there as everywhere.
            x[n] = if MASKED { S::load_mask(at, *masks.wrapping_add(n * rows + i)) } else { S::load(at) };
        }
        for j in 0..K {
            let w = S::splat(tap_at(call, i, j));
            for n in 0..N {
                sums[n][j] = x[n].mul_add(w, sums[n][j]);
            }
        }
    }
    sums
}

/// The outputs of the second of three vectors in a row, to which the sums of all three are moved.
#[inline(always)]
unsafe fn output<S: SimdWindow, const K: usize>(
    columns: &mut Columns<'_>,
    [before, this, after]: [&[S; K]; 3],
    outside: &[S; K],
) -> S {
    let masks = columns.dense.columns.as_ptr().add(columns.phase * K);
    columns.phase += 1;
    if columns.phase == columns.dense.period {
        columns.phase = 0;
    }
    let mut out = this[K / 2];
    for j in 0..K / 2 {
        let moved = before[j].splice(this[j], S::LANES - (K / 2 - j));
        out = out.add(S::blend(*masks.add(j), moved, outside[j]));
    }
    for j in K / 2 + 1..K {
        let moved = this[j].splice(after[j], j - K / 2);
        out = out.add(S::blend(*masks.add(j), moved, outside[j]));
    }
    out
}
