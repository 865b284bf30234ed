#![allow(unsafe_code, unsafe_op_in_unsafe_fn, reason = "loads of raw planes; the contract is stated once on `vector`")]
#![allow(clippy::needless_range_loop, reason = "loads number registers and addresses alike")]
//! The taps of one vector of [`Flat`], one after the other.

use super::flat::{Flat, FlatVector};
use crate::kernels::simd::SimdWindow;

/// What becomes of the taps of a vector: each comes once, in row-major order.
pub(super) trait TapSink<S> {
    /// # Safety
    /// The processor has the instructions of `S`.
    unsafe fn tap(&mut self, x: S);
}

/// Tables from what comes next on.
struct Cursor {
    masks: *const u16,
    picks: *const i32,
}

impl Cursor {
    /// # Safety
    /// A mask is left.
    #[inline(always)]
    unsafe fn mask(&mut self) -> u16 {
        let mask = *self.masks;
        self.masks = self.masks.add(1);
        mask
    }

    /// The lanes of `a` followed by `b` that come next.
    ///
    /// # Safety
    /// As [`vector`]; picks are left.
    #[inline(always)]
    unsafe fn pick<S: SimdWindow>(&mut self, a: S, b: S) -> S {
        let x = a.pick(b, self.picks);
        self.picks = self.picks.add(S::LANES);
        x
    }
}

/// Gives the taps of one vector of `flat` to `sink`; `x` is the first element of its group's input. Lanes outside are those
/// of `outside`.
///
/// # Safety
/// The processor has the instructions of `S`, for whose lanes `flat` was made; the group's planes may be read.
#[inline(always)]
pub(super) unsafe fn vector<S: SimdWindow, T: TapSink<S>>(
    flat: &Flat,
    vector: &FlatVector,
    [rows, taps]: [usize; 2],
    x: *const f32,
    outside: S,
    sink: &mut T,
) {
    let mut next =
        Cursor { masks: flat.masks.as_ptr().add(vector.masks), picks: flat.picks.as_ptr().add(vector.picks) };
    for row in 0..rows {
        let row = flat.rows.get_unchecked(vector.rows + row);
        let at = x.wrapping_offset(vector.x + row.at);
        match row.loads {
            2 if row.even => halves(at, taps, sink),
            4 if row.even => quarters(at, taps, sink),
            0 => {
                for j in 0..taps {
                    sink.tap(S::load_mask_or(at.wrapping_add(j), next.mask(), outside));
                }
            }
            2 => picked::<S, T, 2>(&mut next, at, taps, outside, sink),
            4 => picked::<S, T, 4>(&mut next, at, taps, outside, sink),
            loads => far(&mut next, at, loads, taps, outside, sink),
        }
    }
}

/// At most two taps of windows two elements apart.
///
/// # Safety
/// As [`vector`]; two vectors may be read.
#[inline(always)]
unsafe fn halves<S: SimdWindow, T: TapSink<S>>(at: *const f32, taps: usize, sink: &mut T) {
    let (even, odd) = S::load(at).deinterleave(S::load(at.wrapping_add(S::LANES)));
    for x in [even, odd].into_iter().take(taps) {
        sink.tap(x);
    }
}

/// At most four taps of windows four elements apart.
///
/// # Safety
/// As [`vector`]; four vectors may be read.
#[inline(always)]
unsafe fn quarters<S: SimdWindow, T: TapSink<S>>(at: *const f32, taps: usize, sink: &mut T) {
    let later = at.wrapping_add(2 * S::LANES);
    let (even, odd) = S::load(at).deinterleave(S::load(at.wrapping_add(S::LANES)));
    let (later_even, later_odd) = S::load(later).deinterleave(S::load(later.wrapping_add(S::LANES)));
    let (first, third) = even.deinterleave(later_even);
    let (second, fourth) = odd.deinterleave(later_odd);
    for x in [first, second, third, fourth].into_iter().take(taps) {
        sink.tap(x);
    }
}

/// A row of taps from `N` vectors, which stay in registers.
///
/// # Safety
/// As [`vector`].
#[inline(always)]
unsafe fn picked<S: SimdWindow, T: TapSink<S>, const N: usize>(
    next: &mut Cursor,
    at: *const f32,
    taps: usize,
    outside: S,
    sink: &mut T,
) {
    let mut x = [outside; N];
    for load in 0..N {
        x[load] = S::load_mask(at.wrapping_add(load * S::LANES), next.mask());
    }
    for _ in 0..taps {
        let inside = next.mask();
        let mut y = next.pick(x[0], x[1]);
        for pair in 1..N / 2 {
            let from = next.mask();
            y = S::blend(from, next.pick(x[2 * pair], x[2 * pair + 1]), y);
        }
        sink.tap(S::blend(inside, y, outside));
    }
}

/// As [`picked`], with more vectors than registers: each tap loads them.
///
/// # Safety
/// As [`vector`].
#[inline(always)]
unsafe fn far<S: SimdWindow, T: TapSink<S>>(
    next: &mut Cursor,
    at: *const f32,
    loads: usize,
    taps: usize,
    outside: S,
    sink: &mut T,
) {
    let masks = next.masks;
    next.masks = masks.add(loads);
    for _ in 0..taps {
        let inside = next.mask();
        let mut y = outside;
        for pair in (0..loads).step_by(2) {
            let from = if pair > 0 { next.mask() } else { !0 };
            let a = S::load_mask(at.wrapping_add(pair * S::LANES), *masks.add(pair));
            let b = S::load_mask(at.wrapping_add((pair + 1) * S::LANES), *masks.add(pair + 1));
            y = S::blend(from, next.pick(a, b), y);
        }
        sink.tap(S::blend(inside, y, outside));
    }
}
