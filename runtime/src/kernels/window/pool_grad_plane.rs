#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "inner loops over raw planes; the contract is PoolGradCall's, stated once on `pool_grad_plane`"
)]
#![allow(clippy::needless_range_loop, reason = "phases number registers and addresses alike")]
//! One plane of a gradient. At stride 2 the even and the odd elements of a row belong to different columns of
//! the windows: each *phase* is summed by itself, with contiguous loads, and the two are interleaved at the end.

use super::lanes::{announce, announce_write, first_lanes};
use super::pool_grad::PoolGradDescriptor;
use crate::kernels::simd::SimdWindow;

/// One plane, or several: pointers to their first elements.
pub(crate) struct PoolGradCall<'a> {
    pub(super) d: &'a PoolGradDescriptor,
    /// Planes from the first on: one, or all of a tile.
    pub(super) planes: usize,
    pub(super) dy: *const f32,
    /// Bits of i32.
    pub(super) place: *const f32,
    pub(super) gate: *const f32,
    pub(super) w: *const f32,
    pub(super) dx: *mut f32,
}

pub(crate) type PoolGradFn = unsafe fn(&PoolGradCall<'_>);

/// As [`Share`](super::pool_grad::Share): what an element takes of a window.
pub(crate) const WHOLE: u8 = 0;
pub(crate) const CHOSEN: u8 = 1;
pub(crate) const WEIGHTED: u8 = 2;

/// Computes one plane; `SHARE` is one of the above, `STRIDE` is the one along a row, 1 or 2.
///
/// # Safety
/// The processor has the instructions of `S`, whose lanes are the table's; the call's pointers are good for the planes
/// of its spec.
#[inline(always)]
pub(crate) unsafe fn pool_grad_plane<S: SimdWindow, const SHARE: u8, const STRIDE: usize>(call: &PoolGradCall<'_>) {
    let d = call.d;
    let (rows, columns) = (&d.spec.rows, &d.spec.columns);
    for y in 0..rows.input {
        let row = y * columns.input;
        announce_write(call.dx.wrapping_add(row), columns.input);
        if d.spec.gate {
            announce(call.gate.wrapping_add(row), columns.input);
        }
        for v in 0..d.full.len() {
            let sums = if *d.full.get_unchecked(v) {
                sums::<S, SHARE, STRIDE, false>(call, y, v)
            } else {
                sums::<S, SHARE, STRIDE, true>(call, y, v)
            };
            let first = v * S::LANES * STRIDE;
            let halves = if STRIDE == 2 { sums[0].interleave(sums[1]) } else { (sums[0], sums[0]) };
            let at = row + first;
            put(call, halves.0, at, columns.input - first);
            if STRIDE == 2 && first + S::LANES < columns.input {
                put(call, halves.1, at + S::LANES, columns.input - first - S::LANES);
            }
        }
    }
}

/// The sums of vector `v` of each phase of row `y`, over the windows in row-major order of their positions.
#[inline(always)]
unsafe fn sums<S: SimdWindow, const SHARE: u8, const STRIDE: usize, const MASKED: bool>(
    call: &PoolGradCall<'_>,
    y: usize,
    v: usize,
) -> [S; STRIDE] {
    let d = call.d;
    let (rows, columns) = (&d.spec.rows, &d.spec.columns);
    let zero = S::splat(0.0);
    let mut sums = [zero; STRIDE];
    let (mut i, mut window) = *d.first.get_unchecked(y);
    while i < rows.kernel {
        if (window as usize) < rows.output {
            let row = window as usize * columns.output + v * S::LANES;
            for phase in 0..STRIDE {
                let mut j = d.phases[phase];
                while j < columns.kernel {
                    let mask = *d.masks.get_unchecked(v * columns.kernel + j);
                    let at = row as isize + *d.shifts.get_unchecked(j);
                    let load = |from: *const f32| {
                        let from = from.wrapping_offset(at);
                        // SAFETY: the mask leaves the windows that exist; the level is the caller's promise.
                        unsafe { if MASKED { S::load_mask(from, mask) } else { S::load(from) } }
                    };
                    let mut term = load(call.dy);
                    if SHARE == CHOSEN {
                        let here = S::splat(f32::from_bits((i * columns.kernel + j) as u32));
                        term = S::select(load(call.place).same_bits(here), term, zero);
                    }
                    sums[phase] = if SHARE == WEIGHTED {
                        term.mul_add(S::splat(*call.w.add(i * columns.kernel + j)), sums[phase])
                    } else {
                        sums[phase].add(term)
                    };
                    j += STRIDE;
                }
            }
        }
        // The next row of a window that this row is, one window further up.
        i += rows.stride;
        window -= 1;
    }
    sums
}

/// Stores the first `left` lanes at most, where the gate is open.
#[inline(always)]
unsafe fn put<S: SimdWindow>(call: &PoolGradCall<'_>, mut value: S, at: usize, left: usize) {
    let mask = first_lanes(left, S::LANES);
    if call.d.spec.gate {
        let zero = S::splat(0.0);
        let gate = S::load_mask(call.gate.wrapping_add(at), mask);
        value = S::select(zero.less(gate), value, zero);
    }
    if left >= S::LANES {
        value.store(call.dx.wrapping_add(at));
    } else {
        value.store_mask(call.dx.wrapping_add(at), mask);
    }
}
