#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "inner loops over raw planes; the contract is FilterCall's, stated once on `filter`"
)]
#![allow(clippy::needless_range_loop, reason = "rows and taps number registers and addresses alike")]
//! The gradient of neighbouring filters. The taps of a few rows of a filter are sums in registers; an input row is loaded
//! once for all rows of `dy` in a block that meet it. Each plane is summed by itself first, so that the error grows with
//! the planes' size only. The planes of one image are walked in the order of memory: filter by filter, an image away from
//! each other, small planes come from the third level one by one, at several times their work.

use std::ops::Range;

use super::depthwise_grad::DepthwiseGradDescriptor;
use super::lanes::{Rows, first_lanes, tap};
use crate::kernels::simd::SimdWindow;

/// Vectors of sums over planes, on the stack: those of all taps of a few filters, in the first level.
pub(super) const TOTALS: usize = 192;

/// Some filters: their numbers, and the whole tensors.
pub(crate) struct FilterCall<'a> {
    pub(super) d: &'a DepthwiseGradDescriptor,
    pub(super) filters: Range<usize>,
    pub(super) x: *const f32,
    pub(super) dy: *const f32,
    pub(super) dw: *mut f32,
}

pub(crate) type FilterFn = unsafe fn(&FilterCall<'_>);

/// Computes the gradient of some filters. `KC` is the columns of a kernel whose rows and columns have the same stride and
/// whose taps are at most [`TOTALS`], of which `KR` rows at a time are in registers; or 0 for any kernel. `STRIDE` is the
/// one along a row, 1 or 2; `R` is the rows of a block.
///
/// # Safety
/// The processor has the instructions of `S`, whose lanes are the table's; the call's pointers are good for the planes
/// of its spec.
#[inline(always)]
pub(crate) unsafe fn filters<S: SimdWindow, const KR: usize, const KC: usize, const STRIDE: usize, const R: usize>(
    call: &FilterCall<'_>,
) {
    if KC == 0 {
        call.filters.clone().for_each(|filter| any_kernel::<S, STRIDE>(call, filter));
        return;
    }
    let taps = call.d.spec.rows.kernel * KC;
    let group = (TOTALS / taps).max(1);
    for first in call.filters.clone().step_by(group) {
        let filters = first..(first + group).min(call.filters.end);
        let mut totals = [S::splat(0.0); TOTALS];
        for image in 0..call.d.spec.planes / call.d.spec.filters {
            for filter in filters.clone() {
                let totals = totals.as_mut_ptr().add((filter - first) * taps);
                one_plane::<S, KR, KC, STRIDE, R>(call, &plane(call, image, filter), totals);
            }
        }
        for (number, total) in totals.iter().take(filters.len() * taps).enumerate() {
            *call.dw.add(first * taps + number) = lanes(*total);
        }
    }
}

/// A plane of `dy` with the plane of the input that it belongs to.
struct Plane {
    x: *const f32,
    dy: *const f32,
    rows: usize,
}

fn plane(call: &FilterCall<'_>, image: usize, filter: usize) -> Plane {
    let spec = &call.d.spec;
    let (input, output) = (spec.rows.input * spec.columns.input, spec.rows.output * spec.columns.output);
    let plane = image * spec.filters + filter;
    Plane {
        x: call.x.wrapping_add(plane / spec.multiplier * input),
        dy: call.dy.wrapping_add(plane * output),
        rows: spec.rows.output,
    }
}

/// Adds what one plane gives to the totals of a filter's taps, `KR` rows of taps at a time, then row by row.
#[inline(always)]
unsafe fn one_plane<S: SimdWindow, const KR: usize, const KC: usize, const STRIDE: usize, const R: usize>(
    call: &FilterCall<'_>,
    plane: &Plane,
    totals: *mut S,
) {
    let rows = call.d.spec.rows.kernel;
    let whole = rows - rows % KR;
    for tap_row in (0..whole).step_by(KR) {
        tap_rows::<S, KR, KC, STRIDE, R>(call, plane, tap_row, totals.add(tap_row * KC));
    }
    for tap_row in whole..rows {
        tap_rows::<S, 1, KC, STRIDE, R>(call, plane, tap_row, totals.add(tap_row * KC));
    }
}

/// Adds what one plane gives to the totals of `KR` rows of taps.
#[inline(always)]
unsafe fn tap_rows<S: SimdWindow, const KR: usize, const KC: usize, const STRIDE: usize, const R: usize>(
    call: &FilterCall<'_>,
    plane: &Plane,
    tap_row: usize,
    totals: *mut S,
) {
    let mut sums = [[S::splat(0.0); KC]; KR];
    let mut y = 0;
    while y + R <= plane.rows {
        block_rows::<S, KR, KC, STRIDE, R>(call, plane, y, tap_row, &mut sums);
        y += R;
    }
    while y < plane.rows {
        block_rows::<S, KR, KC, STRIDE, 1>(call, plane, y, tap_row, &mut sums);
        y += 1;
    }
    for i in 0..KR {
        for j in 0..KC {
            let total = totals.add(i * KC + j);
            *total = (*total).add(sums[i][j]);
        }
    }
}

/// Adds what rows `y..y + R` of one plane give to the taps from one row of them on.
#[inline(always)]
unsafe fn block_rows<S: SimdWindow, const KR: usize, const KC: usize, const STRIDE: usize, const R: usize>(
    call: &FilterCall<'_>,
    plane: &Plane,
    y: usize,
    tap_row: usize,
    sums: &mut [[S; KC]; KR],
) {
    let top = (y * STRIDE + tap_row) as isize + call.d.spec.rows.offset as isize;
    let inside = top >= 0 && top as usize + (R - 1) * STRIDE + KR <= call.d.spec.rows.input;
    for v in 0..call.d.full.len() {
        if inside && *call.d.full.get_unchecked(v) {
            block::<S, KR, KC, STRIDE, R, false>(call, plane, y, top, v, sums);
        } else {
            block::<S, KR, KC, STRIDE, R, true>(call, plane, y, top, v, sums);
        }
    }
}

#[inline(always)]
unsafe fn block<
    S: SimdWindow,
    const KR: usize,
    const KC: usize,
    const STRIDE: usize,
    const R: usize,
    const MASKED: bool,
>(
    call: &FilterCall<'_>,
    plane: &Plane,
    y: usize,
    top: isize,
    v: usize,
    sums: &mut [[S; KC]; KR],
) {
    let (rows, columns) = (&call.d.spec.rows, &call.d.spec.columns);
    let masks = call.d.masks.as_ptr().add(v * columns.kernel);
    let mut dy = [S::splat(0.0); R];
    for r in 0..R {
        let at = plane.dy.wrapping_add((y + r) * columns.output + v * S::LANES);
        dy[r] = load::<S, MASKED>(at, first_lanes(columns.output - v * S::LANES, S::LANES));
    }
    let left = (v * S::LANES * STRIDE) as isize + columns.offset as isize;
    let at = plane.x.wrapping_offset(top * columns.input as isize + left);
    let input = Rows { at, pitch: columns.input, top, count: rows.input };
    // Written out, because the sums are registers only if their numbers are constants.
    macro_rules! rows {
        ($($i:literal)*) => {$(
            if $i < (R - 1) * STRIDE + KR {
                let x = input.taps::<S, KC, STRIDE, MASKED>($i, masks);
                for r in 0..R {
                    if $i >= r * STRIDE && $i - r * STRIDE < KR {
                        for j in 0..KC {
                            sums[$i - r * STRIDE][j] = x[j].mul_add(dy[r], sums[$i - r * STRIDE][j]);
                        }
                    }
                }
            }
        )*};
    }
    rows!(0 1 2 3 4 5 6 7 8);
}

/// Loads what of a vector exists; lanes outside are zero.
#[inline(always)]
unsafe fn load<S: SimdWindow, const MASKED: bool>(at: *const f32, mask: u16) -> S {
    if MASKED { S::load_mask(at, mask) } else { S::load(at) }
}

/// The sum over the lanes, in their order.
#[inline(always)]
unsafe fn lanes<S: SimdWindow>(sum: S) -> f32 {
    let mut lanes = [0.0f32; 16];
    sum.store(lanes.as_mut_ptr());
    lanes[..S::LANES].iter().map(|&lane| f64::from(lane)).sum::<f64>() as f32
}

/// Tap by tap, for kernels of any extent.
#[inline(always)]
unsafe fn any_kernel<S: SimdWindow, const STRIDE: usize>(call: &FilterCall<'_>, filter: usize) {
    let spec = &call.d.spec;
    let (rows, columns) = (&spec.rows, &spec.columns);
    for i in 0..rows.kernel {
        for j in 0..columns.kernel {
            let mut total = S::splat(0.0);
            for image in 0..spec.planes / spec.filters {
                let plane = plane(call, image, filter);
                let mut sum = S::splat(0.0);
                for y in 0..plane.rows {
                    let from = (y * rows.stride + i) as isize + rows.offset as isize;
                    let exists = (from as usize) < rows.input;
                    let row = plane.x.wrapping_offset(from * columns.input as isize + columns.offset as isize);
                    for v in 0..call.d.full.len() {
                        let masks = call.d.masks.as_ptr().add(v * columns.kernel);
                        let at = plane.dy.wrapping_add(y * columns.output + v * S::LANES);
                        let dy = load::<S, true>(at, first_lanes(columns.output - v * S::LANES, S::LANES));
                        let row = row.wrapping_add(v * S::LANES * STRIDE);
                        let zero = S::splat(0.0);
                        let x = if exists { tap::<S, STRIDE, true>(row, masks, j, zero).0 } else { zero };
                        sum = x.mul_add(dy, sum);
                    }
                }
                total = total.add(sum);
            }
            *call.dw.add((filter * rows.kernel + i) * columns.kernel + j) = lanes(total);
        }
    }
}
