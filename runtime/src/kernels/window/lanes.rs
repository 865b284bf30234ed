#![allow(unsafe_code, unsafe_op_in_unsafe_fn, reason = "loads of raw planes; the contract is stated once on `taps`")]
#![allow(clippy::needless_range_loop, reason = "taps number registers and addresses alike")]
//! What a row of the input gives to the taps of a window, as vectors along the output row.

use crate::kernels::simd::SimdWindow;

/// One vector for each of `K` taps along `row`, which points to what the first output meets with its first tap. `load`
/// reads a vector, of which `masks` says, for the tap it begins at and by halves, which elements lie inside.
///
/// # Safety
/// The processor has the instructions of `S`; `load` may be called with these pointers and masks; there are `K` masks.
#[inline(always)]
pub(super) unsafe fn taps<S: SimdWindow, const K: usize, const STRIDE: usize>(
    row: *const f32,
    masks: *const [u16; 2],
    load: impl Fn(*const f32, u16) -> S,
) -> [S; K] {
    let mut x = [S::splat(0.0); K];
    for j in (0..K).step_by(STRIDE) {
        let (even, odd) = tap::<S, STRIDE>(row, masks, j, &load);
        x[j] = even;
        if STRIDE == 2 && j + 1 < K {
            x[j + 1] = odd;
        }
    }
    x
}

/// Tap `j`, and at stride 2 also tap `j + 1`, which the same loads give.
///
/// # Safety
/// As [`taps`].
#[inline(always)]
pub(super) unsafe fn tap<S: SimdWindow, const STRIDE: usize>(
    row: *const f32,
    masks: *const [u16; 2],
    j: usize,
    load: &impl Fn(*const f32, u16) -> S,
) -> (S, S) {
    let [low, high] = *masks.add(j);
    let a = load(row.wrapping_add(j), low);
    if STRIDE == 1 { (a, a) } else { a.deinterleave(load(row.wrapping_add(j + S::LANES), high)) }
}

/// The mask of the first `left` lanes.
#[inline(always)]
pub(super) fn first_lanes(left: usize, lanes: usize) -> u16 {
    ((1u32 << left.min(lanes)) - 1) as u16
}

/// Elements between what is computed and what is announced.
const AHEAD: usize = 1024;

/// Asks for `len` elements a little after `at`, to be read. Tensors are walked front to back, plane after plane.
#[inline(always)]
pub(super) fn announce(at: *const f32, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..len).step_by(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of the architecture, and a prefetch of any address does no harm.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD + line).cast()) }
    }
}

/// As [`announce`], to be written.
#[inline(always)]
pub(super) fn announce_write(at: *const f32, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..len).step_by(16) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.wrapping_add(AHEAD + line).cast()) }
    }
}
