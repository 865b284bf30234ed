#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "inner loops over raw planes; the contract is PlaneCall's, stated once on `block`"
)]
#![allow(clippy::needless_range_loop, reason = "rows and taps number registers and addresses alike")]
//! One block of a depthwise convolution: `R` rows by one vector of the output, accumulated in registers.
//!
//! An input row is loaded once for all output rows of a block that it meets, so seven rows of a 3 x 3 kernel load nine
//! input rows: 3.9 loads for 9 multiply-adds a vector, which is what the load units keep up with.

use super::depthwise::DepthwiseDescriptor;
use super::depthwise_plane::Block;
use super::flat::Flat;
use super::flat_lanes::{TapSink, vector};
use super::lanes::{Rows, tap, taps};
use crate::kernels::math::clamp;
use crate::kernels::math::{CLAMP, LEAKY_RELU, RELU};
use crate::kernels::simd::{SimdWindow, prefetch_near};

/// One plane: pointers to its first elements, null where the epilogue has none.
pub(crate) struct PlaneCall<'a> {
    pub(super) d: &'a DepthwiseDescriptor,
    pub(super) x: *const f32,
    /// The first tap of its filter, in the order that it is used.
    pub(super) w: *const f32,
    pub(super) out: *mut f32,
    pub(super) bias: *const f32,
    pub(super) scale: *const f32,
    pub(super) residual: *const f32,
}

/// Functions of their own, not one for a plane: LLVM would prepare the addresses of every kind of block before the first.
pub(crate) type BlockFn = unsafe fn(&PlaneCall<'_>, &Block);

/// The functions for blocks of as many rows: all lanes inside; some masked; masked with the first, the last or both
/// input rows outside, or more where a set allows it.
#[derive(Debug)]
pub(crate) struct BlockSet {
    pub(crate) rows: usize,
    /// Input rows that may lie outside on a side.
    pub(crate) outside: usize,
    pub(crate) run: [BlockFn; 5],
}

/// Whether input rows of a block lie outside, above and below.
#[derive(Clone, Copy)]
pub(super) struct Border {
    pub(super) above: bool,
    pub(super) below: bool,
}

impl BlockSet {
    pub(super) fn function(&self, border: Border, full: bool) -> BlockFn {
        let [inside, masked, first, last, both] = self.run;
        match (border.above, border.below) {
            (false, false) if full => inside,
            (false, false) => masked,
            (true, false) => first,
            (false, true) => last,
            (true, true) => both,
        }
    }
}

/// Bits of `EDGE`: the first or last input row of a block lies outside, known when it is compiled, since tests or masks
/// for each row are as much work as the sums of a small plane.
pub(crate) const FIRST: u8 = 1;
pub(crate) const LAST: u8 = 2;
/// Any rows of a block may lie outside, which each asks for itself: next to the sums of a larger kernel that is little.
pub(crate) const ANY: u8 = 4;

/// Computes one block of a plane. `K` is the extent of a square kernel whose rows and columns have the same stride, or 0
/// for any kernel and any border; `STRIDE` is the one along a row, 1 or 2; `R` is the rows. Unless `MASKED`, all lanes lie
/// inside and all outputs exist.
///
/// # Safety
/// The processor has the instructions of `S`, whose lanes are the table's; the call's pointers are good for the planes
/// and vectors of its spec; the block is one of its descriptor's.
#[inline(always)]
pub(crate) unsafe fn block<
    S: SimdWindow,
    const K: usize,
    const STRIDE: usize,
    const R: usize,
    const EDGE: u8,
    const MASKED: bool,
>(
    call: &PlaneCall<'_>,
    block: &Block,
) {
    let columns = &call.d.spec.columns;
    let masks = call.d.masks.as_ptr().add(block.masks);
    let at = call.x.wrapping_offset(block.x);
    let mut acc = [if call.bias.is_null() { S::splat(0.0) } else { S::splat(*call.bias) }; R];
    if K == 0 {
        any_kernel::<S, STRIDE, R, MASKED>(call, block, masks, &mut acc);
    } else {
        let mut w = [[S::splat(0.0); K]; K];
        for i in 0..K {
            for j in 0..K {
                w[i][j] = S::splat(tap_at(call, i, j));
            }
        }
        // Written out, because the accumulators are registers only if their numbers are constants.
        macro_rules! rows {
            ($($i:literal)*) => {$(
                if $i < (R - 1) * STRIDE + K {
                    let outside = EDGE & FIRST != 0 && $i == 0
                        || EDGE & LAST != 0 && $i + 1 == (R - 1) * STRIDE + K
                        || EDGE & ANY != 0 && (block.top + $i) as usize >= call.d.spec.rows.input;
                    let row = at.wrapping_add($i * columns.input);
                    // Zeros, not skipped: what is infinite times zero is NaN there as everywhere.
                    let zero = S::splat(0.0);
                    let x = if outside { [zero; K] } else { taps::<S, K, STRIDE, MASKED>(row, masks, zero) };
                    if !MASKED && $i >= K - STRIDE {
                        // The rows of the block below: its loads of several rows are no stream that hardware foresees.
                        for line in 0..STRIDE {
                            prefetch_near(row.wrapping_add(R * STRIDE * columns.input + line * S::LANES));
                        }
                    }
                    for j in 0..K {
                        for r in 0..R {
                            if $i >= r * STRIDE && $i - r * STRIDE < K {
                                acc[r] = x[j].mul_add(w[$i - r * STRIDE][j], acc[r]);
                            }
                        }
                    }
                }
            )*};
        }
        rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }
    finish::<S, R, MASKED>(call, &mut acc, block.out, columns.output, [block.lanes; R]);
}

/// Computes a plane by the vectors of `flat`, which hold outputs of several rows.
///
/// # Safety
/// As [`block`]; `flat` is the descriptor's.
#[inline(always)]
pub(crate) unsafe fn depthwise_flat<S: SimdWindow>(call: &PlaneCall<'_>, flat: &Flat) {
    let spec = &call.d.spec;
    let size = [spec.rows.kernel, spec.columns.kernel];
    let bias = if call.bias.is_null() { S::splat(0.0) } else { S::splat(*call.bias) };
    for v in &flat.vectors {
        let mut sum = Sum { acc: bias, call, i: 0, j: 0 };
        vector(flat, v, size, call.x, S::splat(0.0), &mut sum);
        finish::<S, 1, true>(call, &mut [sum.acc], v.out, 0, [v.lanes]);
    }
}

/// Sums taps, of which `(i, j)` comes next, by the filter's weights.
struct Sum<'a, S> {
    acc: S,
    call: &'a PlaneCall<'a>,
    i: usize,
    j: usize,
}

impl<S: SimdWindow> TapSink<S> for Sum<'_, S> {
    #[inline(always)]
    unsafe fn tap(&mut self, x: S) {
        self.acc = x.mul_add(S::splat(tap_at(self.call, self.i, self.j)), self.acc);
        self.j += 1;
        if self.j == self.call.d.spec.columns.kernel {
            (self.i, self.j) = (self.i + 1, 0);
        }
    }
}

/// Tap `(i, j)` of the plane's filter.
#[inline(always)]
pub(super) unsafe fn tap_at(call: &PlaneCall<'_>, i: usize, j: usize) -> f32 {
    let [row, column] = call.d.tap_steps;
    *call.w.wrapping_offset(i as isize * row + j as isize * column)
}

/// As the written-out rows of [`block`], tap by tap, for kernels of any extent.
#[inline(always)]
unsafe fn any_kernel<S: SimdWindow, const STRIDE: usize, const R: usize, const MASKED: bool>(
    call: &PlaneCall<'_>,
    block: &Block,
    masks: *const [u16; 2],
    acc: &mut [S; R],
) {
    let spec = &call.d.spec;
    let at = call.x.wrapping_offset(block.x);
    let input = Rows { at, pitch: spec.columns.input, top: block.top, count: spec.rows.input };
    for i in 0..spec.rows.kernel {
        for j in 0..spec.columns.kernel {
            let w = S::splat(tap_at(call, i, j));
            for r in 0..R {
                let i = r * spec.rows.stride + i;
                let row = input.at.wrapping_add(i * input.pitch);
                let zero = S::splat(0.0);
                let x = if !MASKED || input.exists(i) { tap::<S, STRIDE, MASKED>(row, masks, j, zero).0 } else { zero };
                acc[r] = x.mul_add(w, acc[r]);
            }
        }
    }
}

/// Epilogue and stores: `R` vectors `pitch` apart from element `out` on, of which `lanes` exist if `MASKED`.
#[inline(always)]
pub(super) unsafe fn finish<S: SimdWindow, const R: usize, const MASKED: bool>(
    call: &PlaneCall<'_>,
    acc: &mut [S; R],
    out: usize,
    pitch: usize,
    lanes: [u16; R],
) {
    if !call.scale.is_null() {
        let scale = S::splat(*call.scale);
        for a in acc.iter_mut() {
            *a = a.mul(scale);
        }
    }
    if !call.residual.is_null() {
        for r in 0..R {
            let from = call.residual.wrapping_add(out.wrapping_add(r * pitch));
            acc[r] = acc[r].add(if MASKED { S::load_mask(from, lanes[r]) } else { S::load(from) });
        }
    }
    let (code, alpha) = call.d.activation;
    for a in acc.iter_mut() {
        *a = match code {
            RELU => S::splat(0.0).max_or_other(*a),
            LEAKY_RELU => a.leaky(S::splat(alpha[0])),
            CLAMP => clamp(*a, S::splat(alpha[0]), S::splat(alpha[1])),
            _ => *a,
        };
    }
    for r in 0..R {
        let to = call.out.wrapping_add(out.wrapping_add(r * pitch));
        if MASKED {
            acc[r].store_mask(to, lanes[r]);
        } else {
            acc[r].store(to);
        }
    }
}
