#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "inner loops over raw planes; the contract is PoolCall's, stated once on `pool_plane`"
)]
#![allow(clippy::needless_range_loop, reason = "taps number registers and addresses alike")]
//! One plane of a pool, in vectors of windows along the output rows.

use std::ops::Range;

use super::axis::Axis;
use super::flat::Flat;
use super::lanes::{AHEAD, first_lanes, tap, taps};
use super::pool::PoolDescriptor;
use crate::kernels::math::clamp;
use crate::kernels::math::{CLAMP, LEAKY_RELU, RELU};
use crate::kernels::simd::{SimdWindow, prefetch_near};

pub(crate) const MAX: u32 = 0;
pub(crate) const ARG_MAX: u32 = 1;
pub(crate) const SUM: u32 = 2;

/// One plane, or a group of planes: pointers to its first elements.
pub(crate) struct PoolCall<'a> {
    pub(super) d: &'a PoolDescriptor,
    /// The vectors, where they are not those of rows.
    pub(super) flat: Option<&'a Flat>,
    /// Planes from the first on: one, or those of `flat`, or all of a tile.
    pub(super) planes: usize,
    pub(super) x: *const f32,
    pub(super) out: *mut f32,
    /// Bits of i32.
    pub(super) place: *mut f32,
}

pub(crate) type PoolFn = unsafe fn(&PoolCall<'_>);

/// Computes one plane by `OP`. `K` is the extent of a square window, or 0 for any; `STRIDE` is along a row, 1 or 2.
///
/// # Safety
/// The processor has the instructions of `S`, whose lanes are the table's; the call's pointers are good for the planes
/// of its spec.
#[inline(always)]
pub(crate) unsafe fn pool_plane<S: SimdWindow, const OP: u32, const K: usize, const STRIDE: usize>(
    call: &PoolCall<'_>,
) {
    let d = call.d;
    let (rows, columns) = (&d.spec.rows, &d.spec.columns);
    let vectors = d.full.len();
    let whole = d.whole_rows.clone();
    for y in (0..whole.start).chain(whole.end..rows.output) {
        for v in 0..vectors {
            border::<S, OP, STRIDE>(call, y, v);
        }
    }
    // Along the rows where that is far enough, and what is left down the columns.
    let along = if d.full_vectors.len() >= LONG_RUN { d.full_vectors.clone() } else { 0..0 };
    if !along.is_empty() {
        for y in whole.clone() {
            let steps = Steps { count: along.len(), x: S::LANES * STRIDE, out: S::LANES };
            run::<S, OP, K, STRIDE, false>(call, y, along.start, steps);
        }
    }
    for v in (0..along.start).chain(along.end..vectors) {
        let steps = Steps { count: whole.len(), x: rows.stride * columns.input, out: columns.output };
        if *d.full.get_unchecked(v) {
            run::<S, OP, K, STRIDE, false>(call, whole.start, v, steps);
        } else {
            run::<S, OP, K, STRIDE, true>(call, whole.start, v, steps);
        }
    }
    let (code, alpha) = d.activation;
    if code > CLAMP {
        (d.table.activate)(code, alpha, call.out, rows.output * columns.output);
    }
}

/// Vectors of windows in a row from which on they are walked row by row, else column by column.
const LONG_RUN: usize = 4;

/// Vectors of windows that lie equally far apart and have the same lanes inside.
struct Steps {
    count: usize,
    /// Elements from vector to vector.
    x: usize,
    out: usize,
}

/// Vectors of windows of which all rows exist, from vector `v` of row `y` on. Nothing is decided in the loop: with one
/// vector in a row, what it takes to find its rows took longer than its maxima.
#[inline(always)]
unsafe fn run<S: SimdWindow, const OP: u32, const K: usize, const STRIDE: usize, const MASKED: bool>(
    call: &PoolCall<'_>,
    y: usize,
    v: usize,
    steps: Steps,
) {
    let d = call.d;
    let (rows, columns) = (d.spec.rows, d.spec.columns);
    let end = End::of(d);
    let mut x = first_element(call, y, v * S::LANES * STRIDE);
    // Whole steps, so that what is asked for is what a later vector reads.
    let ahead = AHEAD.next_multiple_of(steps.x.max(1));
    let masks = d.masks.as_ptr().add(v * columns.kernel);
    let mut at = y * columns.output + v * S::LANES;
    let lanes = first_lanes(columns.output - v * S::LANES, S::LANES);
    for _ in 0..steps.count {
        for row in 0..rows.stride {
            for part in 0..STRIDE {
                prefetch_near(x.wrapping_add(ahead + row * columns.input + part * S::LANES));
            }
        }
        let (value, place) = if K > 0 {
            reduce_square::<S, OP, K, STRIDE, MASKED>(x, columns.input, masks)
        } else {
            reduce_any::<S, OP, STRIDE, MASKED>(x, &columns, masks, 0..rows.kernel)
        };
        put::<S, MASKED>(end.apply::<S, OP>(value), call.out.wrapping_add(at), lanes);
        if OP == ARG_MAX {
            put::<S, MASKED>(place, call.place.wrapping_add(at), lanes);
        }
        x = x.wrapping_add(steps.x);
        at += steps.out;
    }
}

/// Vector `v` of row `y`, whose windows lack rows.
#[inline(always)]
unsafe fn border<S: SimdWindow, const OP: u32, const STRIDE: usize>(call: &PoolCall<'_>, y: usize, v: usize) {
    let d = call.d;
    let (rows, columns) = (&d.spec.rows, &d.spec.columns);
    let end = End::of(d);
    let top = (y * rows.stride) as isize + rows.offset as isize;
    let inside = |row: isize| row.clamp(0, rows.kernel as isize) as usize;
    let exist = inside(-top)..inside(rows.input as isize - top);
    let masks = d.masks.as_ptr().add(v * columns.kernel);
    let x = first_element(call, y, v * S::LANES * STRIDE);
    let (value, place) = reduce_any::<S, OP, STRIDE, true>(x, columns, masks, exist);
    let at = y * columns.output + v * S::LANES;
    let lanes = first_lanes(columns.output - v * S::LANES, S::LANES);
    put::<S, true>(end.apply::<S, OP>(value), call.out.wrapping_add(at), lanes);
    if OP == ARG_MAX {
        put::<S, true>(place, call.place.wrapping_add(at), lanes);
    }
}

/// What the windows of row `y` meet with their first tap, from element `along` of it on. It may lie outside.
#[inline(always)]
fn first_element(call: &PoolCall<'_>, y: usize, along: usize) -> *const f32 {
    let (rows, columns) = (&call.d.spec.rows, &call.d.spec.columns);
    let top = (y * rows.stride) as isize + rows.offset as isize;
    call.x.wrapping_offset(top * columns.input as isize + columns.offset as isize).wrapping_add(along)
}

/// Stores the lanes of the mask, which are all unless `MASKED`.
#[inline(always)]
unsafe fn put<S: SimdWindow, const MASKED: bool>(value: S, at: *mut f32, lanes: u16) {
    if MASKED { value.store_mask(at, lanes) } else { value.store(at) }
}

/// What one vector of windows has become so far.
#[derive(Clone, Copy)]
pub(super) struct State<S: SimdWindow> {
    value: S,
    place: S,
    /// Windows without NaN so far: the first NaN stays.
    numbers: S::Mask,
}

impl<S: SimdWindow> State<S> {
    #[inline(always)]
    pub(super) unsafe fn new<const OP: u32>() -> Self {
        let neutral = S::splat(neutral::<OP>());
        Self { value: neutral, place: S::splat(0.0), numbers: S::all() }
    }

    /// The reduced windows, and their places.
    #[inline(always)]
    pub(super) unsafe fn result<const OP: u32>(self) -> (S, S) {
        let value = if OP == MAX { S::select(self.numbers, self.value, S::splat(f32::NAN)) } else { self.value };
        (value, self.place)
    }
}

/// What an element outside counts as.
pub(super) const fn neutral<const OP: u32>() -> f32 {
    if OP == SUM { 0.0 } else { f32::NEG_INFINITY }
}

/// One vector of `K x K` windows; rows are `pitch` elements apart.
#[inline(always)]
unsafe fn reduce_square<S: SimdWindow, const OP: u32, const K: usize, const STRIDE: usize, const MASKED: bool>(
    x: *const f32,
    pitch: usize,
    masks: *const [u16; 2],
) -> (S, S) {
    let mut state = State::<S>::new::<OP>();
    for i in 0..K {
        let x = taps::<S, K, STRIDE, MASKED>(x.wrapping_add(i * pitch), masks, S::splat(neutral::<OP>()));
        for j in 0..K {
            step::<S, OP>(&mut state, x[j], i * K + j);
        }
    }
    state.result::<OP>()
}

/// One vector of windows of any extents, of which the rows of `exist` do.
#[inline(always)]
unsafe fn reduce_any<S: SimdWindow, const OP: u32, const STRIDE: usize, const MASKED: bool>(
    x: *const f32,
    columns: &Axis,
    masks: *const [u16; 2],
    exist: Range<usize>,
) -> (S, S) {
    let mut state = State::<S>::new::<OP>();
    for i in exist {
        let row = x.wrapping_add(i * columns.input);
        for j in 0..columns.kernel {
            let (x, _) = tap::<S, STRIDE, MASKED>(row, masks, j, S::splat(neutral::<OP>()));
            step::<S, OP>(&mut state, x, i * columns.kernel + j);
        }
    }
    state.result::<OP>()
}

/// Compares with the mask of what is still a number: the chain from maximum to maximum is then one comparison long, or
/// without places one maximum.
#[inline(always)]
pub(super) unsafe fn step<S: SimdWindow, const OP: u32>(state: &mut State<S>, x: S, place: usize) {
    match OP {
        SUM => state.value = state.value.add(x),
        MAX => {
            state.value = x.max_or_other(state.value);
            state.numbers = x.is_number(state.numbers);
        }
        _ => {
            let wins = x.wins(state.value, state.numbers);
            state.value = S::select(wins, x, state.value);
            state.place = S::select(wins, S::splat(f32::from_bits(place as u32)), state.place);
            state.numbers = x.is_number(state.numbers);
        }
    }
}

/// What is done to the reduced windows.
pub(super) struct End {
    scale: f32,
    activation: (u32, [f32; 2]),
}

impl End {
    pub(super) fn of(d: &PoolDescriptor) -> Self {
        Self { scale: d.scale, activation: d.activation }
    }

    #[inline(always)]
    pub(super) unsafe fn apply<S: SimdWindow, const OP: u32>(&self, value: S) -> S {
        let value = if OP == SUM { value.mul(S::splat(self.scale)) } else { value };
        let (code, alpha) = self.activation;
        match code {
            RELU => S::splat(0.0).max_or_other(value),
            LEAKY_RELU => value.leaky(S::splat(alpha[0])),
            CLAMP => clamp(value, S::splat(alpha[0]), S::splat(alpha[1])),
            _ => value,
        }
    }
}
