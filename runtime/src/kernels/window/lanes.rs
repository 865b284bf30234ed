#![allow(unsafe_code, unsafe_op_in_unsafe_fn, reason = "loads of raw planes; the contract is stated once on `taps`")]
#![allow(clippy::needless_range_loop, reason = "taps number registers and addresses alike")]
//! What a row of the input gives to the taps of a window, as vectors along the output row.

use crate::kernels::simd::{SimdWindow, prefetch_near, prefetch_write};

/// One vector for each of `K` taps along `row`, which points to what the first output meets with its first tap. `masks`
/// says, for the tap a load begins at and by halves, which elements lie inside; unless `MASKED`, all do. Lanes outside
/// are those of `outside`.
///
/// At stride 2 an odd count of taps begins with taps 1 and 2, which one pair of loads gives; tap 0 is tap 2 of the output
/// before, so that a shift takes the place of a second pair of loads and of a permutation, of which the processor does
/// one per cycle. With the usual padding of one, the loads are then aligned where rows are.
///
/// # Safety
/// The processor has the instructions of `S`; what `masks` (or everything, unless `MASKED`) leaves may be read; there are
/// `K` masks.
#[inline(always)]
pub(super) unsafe fn taps<S: SimdWindow, const K: usize, const STRIDE: usize, const MASKED: bool>(
    row: *const f32,
    masks: *const [u16; 2],
    outside: S,
) -> [S; K] {
    let mut x = [outside; K];
    let shifted = STRIDE == 2 && K % 2 == 1 && K > 1;
    for j in (usize::from(shifted)..K).step_by(STRIDE) {
        let (even, odd) = tap::<S, STRIDE, MASKED>(row, masks, j, outside);
        x[j] = even;
        if STRIDE == 2 && j + 1 < K {
            x[j + 1] = odd;
        }
    }
    if shifted {
        let last = S::LANES - 1;
        let inside = if MASKED { (*masks)[0] & 1 } else { 1 };
        let first = S::load_mask_or(row.wrapping_sub(last), inside << last, outside);
        x[0] = first.splice(x[2.min(K - 1)], last);
    }
    x
}

/// Tap `j`, and at stride 2 also tap `j + 1`, which the same loads give.
///
/// # Safety
/// As [`taps`].
#[inline(always)]
pub(super) unsafe fn tap<S: SimdWindow, const STRIDE: usize, const MASKED: bool>(
    row: *const f32,
    masks: *const [u16; 2],
    j: usize,
    outside: S,
) -> (S, S) {
    let [low, high] = if MASKED { *masks.add(j) } else { [!0; 2] };
    let a = load::<S, MASKED>(row.wrapping_add(j), low, outside);
    if STRIDE == 1 {
        return (a, a);
    }
    a.deinterleave(load::<S, MASKED>(row.wrapping_add(j + S::LANES), high, outside))
}

#[inline(always)]
unsafe fn load<S: SimdWindow, const MASKED: bool>(at: *const f32, mask: u16, outside: S) -> S {
    if MASKED { S::load_mask_or(at, mask, outside) } else { S::load(at) }
}

/// The input as one block of outputs sees it: `at` is what its first output meets with its first tap.
pub(super) struct Rows {
    pub(super) at: *const f32,
    pub(super) pitch: usize,
    /// Number of the first row, which may lie outside.
    pub(super) top: isize,
    pub(super) count: usize,
}

impl Rows {
    /// Whether row `i` exists.
    #[inline(always)]
    pub(super) fn exists(&self, i: usize) -> bool {
        ((self.top + i as isize) as usize) < self.count
    }

    /// The [`taps`] of row `i`. A row that does not exist (all do, unless `MASKED`) is zeros, not skipped: what is infinite
    /// times zero is NaN there as everywhere. A branch, because masks that depend on the row are as much work as the sums.
    ///
    /// # Safety
    /// As [`taps`], for rows that exist.
    #[inline(always)]
    pub(super) unsafe fn taps<S: SimdWindow, const K: usize, const STRIDE: usize, const MASKED: bool>(
        &self,
        i: usize,
        masks: *const [u16; 2],
    ) -> [S; K] {
        let zero = S::splat(0.0);
        if MASKED && !self.exists(i) {
            return [zero; K];
        }
        taps::<S, K, STRIDE, MASKED>(self.at.wrapping_add(i * self.pitch), masks, zero)
    }
}

/// The mask of the first `left` lanes.
#[inline(always)]
pub(super) fn first_lanes(left: usize, lanes: usize) -> u16 {
    ((1u32 << left.min(lanes)) - 1) as u16
}

/// Elements between what is computed and what is announced.
pub(super) const AHEAD: usize = 1024;

/// Asks for `len` elements a little after `at`, to be read. Tensors are walked front to back, plane after plane.
#[inline(always)]
pub(super) fn announce(at: *const f32, len: usize) {
    for line in (0..len).step_by(16) {
        prefetch_near(at.wrapping_add(AHEAD + line));
    }
}

/// As [`announce`], to be written.
#[inline(always)]
pub(super) fn announce_write(at: *const f32, len: usize) {
    for line in (0..len).step_by(16) {
        prefetch_write(at.wrapping_add(AHEAD + line));
    }
}
