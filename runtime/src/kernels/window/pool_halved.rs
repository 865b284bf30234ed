#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "inner loops over raw planes; the contract is that of the calls, stated once on each function"
)]
//! Pools of 2 x 2 by 2 whose windows cover their planes, and their gradients.
//!
//! Every element is in one window, and the rows of a plane follow those of the plane before, so that the planes of a tile
//! are one: nothing is decided for a plane. Where half a vector holds a row of windows, the other half holds the next row.

use super::axis::Axis;
use super::lanes::{announce, announce_write, first_lanes};
use super::pool_grad_plane::{CHOSEN, PoolGradCall};
use super::pool_plane::{ARG_MAX, End, PoolCall, State, neutral, step};
use crate::kernels::math::CLAMP;
use crate::kernels::simd::SimdWindow;

/// Whether windows cover the planes in a way that pays: vectors of several rows hold more windows of fewer columns.
pub(super) fn covers(rows: &Axis, columns: &Axis) -> bool {
    let covered =
        |axis: &Axis| axis.kernel == 2 && axis.stride == 2 && axis.offset == 0 && axis.input == 2 * axis.output;
    covered(rows) && covered(columns) && columns.output > 2
}

/// A vector of windows, by halves: the first element of each, in the input and in the output, and the lanes that exist.
struct Vector {
    x: [usize; 2],
    out: [usize; 2],
    elements: [u16; 2],
    windows: [u16; 2],
}

/// All windows of a vector exist.
const FULL: u8 = 0;
/// The last of a row.
const TAIL: u8 = 1;
/// Of two rows.
const PAIR: u8 = 2;

/// Calls `each` for the vectors of `rows` rows of windows, with their kind; masks are worked out once.
macro_rules! for_each_vector {
    ($lanes:expr, $rows:expr, $columns:expr, $announce:ident, $each:ident) => {
        let (lanes, rows, columns): (usize, usize, usize) = ($lanes, $rows, $columns);
        let half = lanes / 2;
        if columns <= half {
            let (elements, windows) = (first_lanes(2 * columns, lanes), first_lanes(columns, half));
            let pair = |row: usize, next: bool| Vector {
                x: [4 * row * columns, 4 * (row + 1) * columns],
                out: [row * columns, (row + 1) * columns],
                elements: [elements, if next { elements } else { 0 }],
                windows: [windows, if next { windows << half } else { 0 }],
            };
            for row in (0..rows / 2).map(|pair| 2 * pair) {
                $announce(4 * row * columns, 8 * columns);
                $each!(PAIR, pair(row, true));
            }
            if rows % 2 == 1 {
                $each!(PAIR, pair(rows - 1, false));
            }
        } else {
            let (full, left) = (columns / lanes * lanes, columns % lanes);
            let elements = [first_lanes(2 * left, lanes), first_lanes((2 * left).saturating_sub(lanes), lanes)];
            let windows = [first_lanes(left, lanes); 2];
            for row in 0..rows {
                $announce(4 * row * columns, 4 * columns);
                let vector = |first: usize| {
                    let (x, out) = (4 * row * columns + 2 * first, row * columns + first);
                    Vector { x: [x, x + lanes], out: [out; 2], elements, windows }
                };
                for first in (0..full / lanes).map(|vector| vector * lanes) {
                    $each!(FULL, vector(first));
                }
                if left > 0 {
                    $each!(TAIL, vector(full));
                }
            }
        }
    };
}

/// Reduces the windows of the call's planes by `OP`.
///
/// # Safety
/// The processor has the instructions of `S`; [`covers`] the axes; the call's pointers are good for its planes.
#[inline(always)]
pub(crate) unsafe fn pool_halved<S: SimdWindow, const OP: u32>(call: &PoolCall<'_>) {
    let d = call.d;
    let (rows, columns) = (call.planes * d.spec.rows.output, d.spec.columns.output);
    let end = End::of(d);
    let announce = |at: usize, len: usize| announce(call.x.wrapping_add(at), len);
    macro_rules! reduce {
        ($kind:ident, $vector:expr) => {{
            let vector = $vector;
            let (value, place) = windows::<S, OP, $kind>(call.x, &vector, 2 * columns);
            put_windows::<S, $kind>(end.apply::<S, OP>(value), call.out, &vector);
            if OP == ARG_MAX {
                put_windows::<S, $kind>(place, call.place, &vector);
            }
        }};
    }
    for_each_vector!(S::LANES, rows, columns, announce, reduce);
    let (code, alpha) = d.activation;
    if code > CLAMP {
        (d.table.activate)(code, alpha, call.out, rows * columns);
    }
}

/// The reduced windows of a vector; rows are `pitch` elements apart.
#[inline(always)]
unsafe fn windows<S: SimdWindow, const OP: u32, const KIND: u8>(
    x: *const f32,
    vector: &Vector,
    pitch: usize,
) -> (S, S) {
    let outside = S::splat(neutral::<OP>());
    let mut state = State::<S>::new::<OP>();
    for i in 0..2 {
        let [low, high] = vector.x.map(|at| x.wrapping_add(at + i * pitch));
        let low = load::<S, KIND>(low, vector.elements[0], outside);
        let high = load::<S, KIND>(high, vector.elements[1], outside);
        let (even, odd) = low.deinterleave(high);
        step::<S, OP>(&mut state, even, 2 * i);
        step::<S, OP>(&mut state, odd, 2 * i + 1);
    }
    state.result::<OP>()
}

#[inline(always)]
unsafe fn load<S: SimdWindow, const KIND: u8>(at: *const f32, mask: u16, outside: S) -> S {
    if KIND == FULL { S::load(at) } else { S::load_mask_or(at, mask, outside) }
}

/// Stores a number for each window.
#[inline(always)]
unsafe fn put_windows<S: SimdWindow, const KIND: u8>(value: S, to: *mut f32, vector: &Vector) {
    let at = to.wrapping_add(vector.out[0]);
    if KIND == FULL {
        value.store(at);
    } else {
        value.store_mask(at, vector.windows[0]);
    }
    if KIND == PAIR {
        value.store_mask(to.wrapping_add(vector.out[1]).wrapping_sub(S::LANES / 2), vector.windows[1]);
    }
}

/// Loads a number for each window.
#[inline(always)]
unsafe fn of_windows<S: SimdWindow, const KIND: u8>(from: *const f32, vector: &Vector) -> S {
    let at = from.wrapping_add(vector.out[0]);
    if KIND == FULL {
        return S::load(at);
    }
    let low = S::load_mask(at, vector.windows[0]);
    if KIND == TAIL {
        return low;
    }
    S::load_mask_or(from.wrapping_add(vector.out[1]).wrapping_sub(S::LANES / 2), vector.windows[1], low)
}

/// The gradient of the call's planes; `SHARE` is [`CHOSEN`] or the whole.
///
/// # Safety
/// As [`pool_halved`].
#[inline(always)]
pub(crate) unsafe fn pool_grad_halved<S: SimdWindow, const SHARE: u8>(call: &PoolGradCall<'_>) {
    let spec = &call.d.spec;
    let (rows, columns) = (call.planes * spec.rows.output, spec.columns.output);
    let zero = S::splat(0.0);
    let announce = |at: usize, len: usize| {
        announce_write(call.dx.wrapping_add(at), len);
        if spec.gate {
            announce(call.gate.wrapping_add(at), len);
        }
    };
    macro_rules! spread {
        ($kind:ident, $vector:expr) => {{
            let vector = $vector;
            // A sum begins with 0, so that -0 becomes 0.
            let dy = zero.add(of_windows::<S, $kind>(call.dy, &vector));
            let place = if SHARE == CHOSEN { of_windows::<S, $kind>(call.place, &vector) } else { zero };
            for i in 0..2 {
                let even = taken::<S, SHARE>(dy, place, 2 * i);
                let odd = taken::<S, SHARE>(dy, place, 2 * i + 1);
                let (low, high) = even.interleave(odd);
                let [first, second] = vector.x.map(|at| at + i as usize * 2 * columns);
                put::<S, $kind>(call, low, first, vector.elements[0]);
                put::<S, $kind>(call, high, second, vector.elements[1]);
            }
        }};
    }
    for_each_vector!(S::LANES, rows, columns, announce, spread);
}

/// What the elements at place `at` of their windows take.
#[inline(always)]
unsafe fn taken<S: SimdWindow, const SHARE: u8>(dy: S, place: S, at: u32) -> S {
    if SHARE == CHOSEN { S::select(place.same_bits(S::splat(f32::from_bits(at))), dy, S::splat(0.0)) } else { dy }
}

/// Stores the lanes of the mask, where the gate is open.
#[inline(always)]
unsafe fn put<S: SimdWindow, const KIND: u8>(call: &PoolGradCall<'_>, mut value: S, at: usize, mask: u16) {
    if call.d.spec.gate {
        let zero = S::splat(0.0);
        let gate = load::<S, KIND>(call.gate.wrapping_add(at), mask, zero);
        value = S::select(zero.less(gate), value, zero);
    }
    let to = call.dx.wrapping_add(at);
    if KIND == FULL { value.store(to) } else { value.store_mask(to, mask) }
}
