#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "inner loops over raw planes; the contract is FilterCall's, stated once on `filter`"
)]
#![allow(clippy::needless_range_loop, reason = "rows and taps number registers and addresses alike")]
//! The gradient of one filter. Nine taps are nine sums in registers; an input row is loaded once for all rows of `dy`
//! in a block that meet it. Each plane is summed by itself first, so that the error grows with the planes' size only.

use super::depthwise_grad::DepthwiseGradDescriptor;
use super::lanes::{Rows, first_lanes, tap};
use crate::kernels::simd::SimdWindow;

/// One filter: its number, the whole tensors that it is summed from, and where it goes.
pub(crate) struct FilterCall<'a> {
    pub(super) d: &'a DepthwiseGradDescriptor,
    pub(super) filter: usize,
    pub(super) x: *const f32,
    pub(super) dy: *const f32,
    pub(super) dw: *mut f32,
}

pub(crate) type FilterFn = unsafe fn(&FilterCall<'_>);

/// Computes the gradient of one filter. `K` is the extent of a square kernel whose rows and columns have the same
/// stride, or 0 for any kernel; `STRIDE` is the one along a row, 1 or 2; `R` is the rows of a block.
///
/// # Safety
/// The processor has the instructions of `S`, whose lanes are the table's; the call's pointers are good for the planes
/// of its spec.
#[inline(always)]
pub(crate) unsafe fn filter<S: SimdWindow, const K: usize, const STRIDE: usize, const R: usize>(call: &FilterCall<'_>) {
    if K == 0 {
        any_kernel::<S, STRIDE>(call);
        return;
    }
    let mut total = [[S::splat(0.0); K]; K];
    for plane in planes(call) {
        let mut sums = [[S::splat(0.0); K]; K];
        let mut y = 0;
        while y + R <= plane.rows {
            rows::<S, K, STRIDE, R>(call, &plane, y, &mut sums);
            y += R;
        }
        while y < plane.rows {
            rows::<S, K, STRIDE, 1>(call, &plane, y, &mut sums);
            y += 1;
        }
        for i in 0..K {
            for j in 0..K {
                total[i][j] = total[i][j].add(sums[i][j]);
            }
        }
    }
    for i in 0..K {
        for j in 0..K {
            *call.dw.add(i * K + j) = lanes(total[i][j]);
        }
    }
}

/// A plane of `dy` with the plane of the input that it belongs to.
struct Plane {
    x: *const f32,
    dy: *const f32,
    rows: usize,
}

fn planes<'a>(call: &'a FilterCall<'_>) -> impl Iterator<Item = Plane> + 'a {
    let spec = &call.d.spec;
    let (input, output) = (spec.rows.input * spec.columns.input, spec.rows.output * spec.columns.output);
    (call.filter..spec.planes).step_by(spec.filters).map(move |plane| Plane {
        x: call.x.wrapping_add(plane / spec.multiplier * input),
        dy: call.dy.wrapping_add(plane * output),
        rows: spec.rows.output,
    })
}

/// Adds what rows `y..y + R` of one plane give to all taps.
#[inline(always)]
unsafe fn rows<S: SimdWindow, const K: usize, const STRIDE: usize, const R: usize>(
    call: &FilterCall<'_>,
    plane: &Plane,
    y: usize,
    sums: &mut [[S; K]; K],
) {
    let top = (y * STRIDE) as isize + call.d.spec.rows.offset as isize;
    let inside = top >= 0 && top as usize + (R - 1) * STRIDE + K <= call.d.spec.rows.input;
    for v in 0..call.d.full.len() {
        if inside && *call.d.full.get_unchecked(v) {
            block::<S, K, STRIDE, R, false>(call, plane, y, v, sums);
        } else {
            block::<S, K, STRIDE, R, true>(call, plane, y, v, sums);
        }
    }
}

#[inline(always)]
unsafe fn block<S: SimdWindow, const K: usize, const STRIDE: usize, const R: usize, const MASKED: bool>(
    call: &FilterCall<'_>,
    plane: &Plane,
    y: usize,
    v: usize,
    sums: &mut [[S; K]; K],
) {
    let (rows, columns) = (&call.d.spec.rows, &call.d.spec.columns);
    let masks = call.d.masks.as_ptr().add(v * columns.kernel);
    let mut dy = [S::splat(0.0); R];
    for r in 0..R {
        let at = plane.dy.wrapping_add((y + r) * columns.output + v * S::LANES);
        dy[r] = load::<S, MASKED>(at, first_lanes(columns.output - v * S::LANES, S::LANES));
    }
    let top = (y * STRIDE) as isize + rows.offset as isize;
    let left = (v * S::LANES * STRIDE) as isize + columns.offset as isize;
    let at = plane.x.wrapping_offset(top * columns.input as isize + left);
    let input = Rows { at, pitch: columns.input, top, count: rows.input };
    // Written out, because the sums are registers only if their numbers are constants.
    macro_rules! rows {
        ($($i:literal)*) => {$(
            if $i < (R - 1) * STRIDE + K {
                let x = input.taps::<S, K, STRIDE, MASKED>($i, masks);
                for r in 0..R {
                    if $i >= r * STRIDE && $i - r * STRIDE < K {
                        for j in 0..K {
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
unsafe fn any_kernel<S: SimdWindow, const STRIDE: usize>(call: &FilterCall<'_>) {
    let (rows, columns) = (&call.d.spec.rows, &call.d.spec.columns);
    for i in 0..rows.kernel {
        for j in 0..columns.kernel {
            let mut total = S::splat(0.0);
            for plane in planes(call) {
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
            *call.dw.add(i * columns.kernel + j) = lanes(total);
        }
    }
}
