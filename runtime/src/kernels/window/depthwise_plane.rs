#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "inner loops over raw planes; the contract is PlaneCall's, stated once on `plane`"
)]
#![allow(clippy::needless_range_loop, reason = "rows and taps number registers and addresses alike")]
//! One plane of a depthwise convolution: `R` rows by one vector of the output at a time, accumulated in registers.
//!
//! An input row is loaded once for all output rows of a block that it meets, so seven rows of a 3 x 3 kernel load nine
//! input rows: 3.9 loads for 9 multiply-adds a vector, which is what the load units keep up with.

use super::depthwise::DepthwiseDescriptor;
use super::lanes::{first_lanes, tap, taps};
use crate::kernels::math::clamp;
use crate::kernels::simd::SimdWindow;
use crate::kernels::tile::{CLAMP, LEAKY_RELU, RELU};

/// One plane: pointers to its first elements, null where the epilogue has none.
pub(crate) struct PlaneCall<'a> {
    pub(super) d: &'a DepthwiseDescriptor,
    pub(super) x: *const f32,
    pub(super) w: *const f32,
    pub(super) out: *mut f32,
    pub(super) bias: *const f32,
    pub(super) scale: *const f32,
    pub(super) residual: *const f32,
}

pub(crate) type PlaneFn = unsafe fn(&PlaneCall<'_>);

/// Computes one plane. `K` is the extent of a square kernel whose rows and columns have the same stride, or 0 for any
/// kernel; `STRIDE` is the one along a row, 1 or 2; `R` is the most rows of a block.
///
/// # Safety
/// The processor has the instructions of `S`, whose lanes are the table's; the call's pointers are good for the planes
/// and vectors of its spec.
#[inline(always)]
pub(crate) unsafe fn plane<S: SimdWindow, const K: usize, const STRIDE: usize, const R: usize>(call: &PlaneCall<'_>) {
    let spec = &call.d.spec;
    let filter = Filter::of(call);
    let mut w = [[S::splat(0.0); K]; K];
    for i in 0..K {
        for j in 0..K {
            w[i][j] = S::splat(*filter.at(i, j));
        }
    }
    let mut y = 0;
    while y < spec.rows.output {
        match spec.rows.output - y {
            left if left >= R => {
                rows::<S, K, STRIDE, R>(call, &w, &filter, y);
                y += R;
            }
            left if left >= 4 && R > 4 => {
                rows::<S, K, STRIDE, 4>(call, &w, &filter, y);
                y += 4;
            }
            left if left >= 2 && R > 2 => {
                rows::<S, K, STRIDE, 2>(call, &w, &filter, y);
                y += 2;
            }
            _ => {
                rows::<S, K, STRIDE, 1>(call, &w, &filter, y);
                y += 1;
            }
        }
    }
    let (code, alpha) = call.d.activation;
    if code > CLAMP {
        (call.d.table.activate)(code, alpha, call.out, spec.rows.output * spec.columns.output);
    }
}

/// Where the taps of a filter lie.
struct Filter {
    first: *const f32,
    row: isize,
    column: isize,
}

impl Filter {
    #[inline(always)]
    fn of(call: &PlaneCall<'_>) -> Filter {
        let spec = &call.d.spec;
        let (rows, columns) = (spec.rows.kernel, spec.columns.kernel);
        let [row, column] = spec.flipped;
        let first = usize::from(row) * (rows - 1) * columns + usize::from(column) * (columns - 1);
        let turned = |flipped: bool, step: usize| if flipped { -(step as isize) } else { step as isize };
        Filter { first: call.w.wrapping_add(first), row: turned(row, columns), column: turned(column, 1) }
    }

    #[inline(always)]
    fn at(&self, i: usize, j: usize) -> *const f32 {
        self.first.wrapping_offset(i as isize * self.row + j as isize * self.column)
    }
}

/// `R` output rows from row `y` on, vector by vector.
#[inline(always)]
unsafe fn rows<S: SimdWindow, const K: usize, const STRIDE: usize, const R: usize>(
    call: &PlaneCall<'_>,
    w: &[[S; K]; K],
    filter: &Filter,
    y: usize,
) {
    let d = call.d;
    let inside = d.interior.start <= y && y + R <= d.interior.end;
    for v in 0..d.full.len() {
        if inside && *d.full.get_unchecked(v) {
            block::<S, K, STRIDE, R, false>(call, w, filter, y, v);
        } else {
            block::<S, K, STRIDE, R, true>(call, w, filter, y, v);
        }
    }
}

/// `R` rows of vector `v`. Unless `MASKED`, all windows lie inside and all outputs exist.
#[inline(always)]
unsafe fn block<S: SimdWindow, const K: usize, const STRIDE: usize, const R: usize, const MASKED: bool>(
    call: &PlaneCall<'_>,
    w: &[[S; K]; K],
    filter: &Filter,
    y: usize,
    v: usize,
) {
    let spec = &call.d.spec;
    let columns = &spec.columns;
    let top = (y * spec.rows.stride) as isize + spec.rows.offset as isize;
    let left = (v * S::LANES * STRIDE) as isize + columns.offset as isize;
    let masks = call.d.masks.as_ptr().add(v * columns.kernel);
    let input = Input {
        at: call.x.wrapping_offset(top * columns.input as isize + left),
        pitch: columns.input,
        top,
        rows: spec.rows.input,
    };
    let mut acc = [S::splat(0.0); R];
    if K == 0 {
        any_kernel::<S, STRIDE, R, MASKED>(call, filter, &input, masks, &mut acc);
    } else {
        // Written out, because the accumulators are registers only if their numbers are constants.
        macro_rules! rows {
            ($($i:literal)*) => {$(
                if $i < (R - 1) * STRIDE + K {
                    let (row, exists) = input.row($i);
                    // SAFETY: the masks leave what lies inside; the level is the caller's promise.
                    let x = taps::<S, K, STRIDE>(row, masks, |at, mask| unsafe { load::<S, MASKED>(at, mask & exists) });
                    for r in 0..R {
                        if $i >= r * STRIDE && $i - r * STRIDE < K {
                            for j in 0..K {
                                acc[r] = x[j].mul_add(w[$i - r * STRIDE][j], acc[r]);
                            }
                        }
                    }
                }
            )*};
        }
        rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }
    let at = y * columns.output + v * S::LANES;
    finish::<S, R, MASKED>(call, &mut acc, at, columns.output - v * S::LANES);
}

/// The input as one block sees it: `at` is what its first output meets with its first tap.
struct Input {
    at: *const f32,
    pitch: usize,
    top: isize,
    rows: usize,
}

impl Input {
    /// Row `i`, and the mask of its rows that exist.
    #[inline(always)]
    fn row(&self, i: usize) -> (*const f32, u16) {
        let exists = ((self.top + i as isize) as usize) < self.rows;
        (self.at.wrapping_add(i * self.pitch), if exists { !0 } else { 0 })
    }
}

/// Loads what of a vector exists; lanes outside are zero.
#[inline(always)]
unsafe fn load<S: SimdWindow, const MASKED: bool>(at: *const f32, mask: u16) -> S {
    if MASKED { S::load_mask(at, mask) } else { S::load(at) }
}

/// As the written-out rows of [`block`], tap by tap, for kernels of any extent.
#[inline(always)]
unsafe fn any_kernel<S: SimdWindow, const STRIDE: usize, const R: usize, const MASKED: bool>(
    call: &PlaneCall<'_>,
    filter: &Filter,
    input: &Input,
    masks: *const [u16; 2],
    acc: &mut [S; R],
) {
    let spec = &call.d.spec;
    for i in 0..spec.rows.kernel {
        for j in 0..spec.columns.kernel {
            let w = S::splat(*filter.at(i, j));
            for r in 0..R {
                let (row, exists) = input.row(r * spec.rows.stride + i);
                // SAFETY: as in `block`.
                let (x, _) =
                    tap::<S, STRIDE>(row, masks, j, &|at, mask| unsafe { load::<S, MASKED>(at, mask & exists) });
                acc[r] = x.mul_add(w, acc[r]);
            }
        }
    }
}

/// Epilogue and stores of a block whose first output is element `at` of the plane and that has `left` outputs a row.
#[inline(always)]
unsafe fn finish<S: SimdWindow, const R: usize, const MASKED: bool>(
    call: &PlaneCall<'_>,
    acc: &mut [S; R],
    at: usize,
    left: usize,
) {
    let pitch = call.d.spec.columns.output;
    let mask = first_lanes(left, S::LANES);
    if !call.bias.is_null() {
        let bias = S::splat(*call.bias);
        acc.iter_mut().for_each(|a| *a = a.add(bias));
    }
    if !call.scale.is_null() {
        let scale = S::splat(*call.scale);
        acc.iter_mut().for_each(|a| *a = a.mul(scale));
    }
    if !call.residual.is_null() {
        for r in 0..R {
            let from = call.residual.wrapping_add(at + r * pitch);
            acc[r] = acc[r].add(if MASKED { S::load_mask(from, mask) } else { S::load(from) });
        }
    }
    let (code, alpha) = call.d.activation;
    match code {
        RELU => acc.iter_mut().for_each(|a| *a = S::splat(0.0).max_or_other(*a)),
        LEAKY_RELU => acc.iter_mut().for_each(|a| *a = a.leaky(S::splat(alpha[0]))),
        CLAMP => acc.iter_mut().for_each(|a| *a = clamp(*a, S::splat(alpha[0]), S::splat(alpha[1]))),
        _ => {}
    }
    for r in 0..R {
        let to = call.out.wrapping_add(at + r * pitch);
        if MASKED {
            acc[r].store_mask(to, mask);
        } else {
            acc[r].store(to);
        }
    }
}
