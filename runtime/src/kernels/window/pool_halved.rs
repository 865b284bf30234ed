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
use super::lanes::{AHEAD, first_lanes};
use super::pool_grad_plane::{CHOSEN, PoolGradCall};
use super::pool_plane::{ARG_MAX, End, PoolCall, State, neutral, step};
use crate::kernels::math::CLAMP;
use crate::kernels::simd::{SimdWindow, prefetch_near, prefetch_write};

/// Whether windows are of 2 x 2 by 2 and cover their planes.
pub(super) fn covers(rows: &Axis, columns: &Axis) -> bool {
    let covered =
        |axis: &Axis| axis.kernel == 2 && axis.stride == 2 && axis.offset == 0 && axis.input == 2 * axis.output;
    covered(rows) && covered(columns)
}

/// A vector of windows, by halves: the first element of each, in the input and in the output, and the lanes that exist.
struct Vector {
    x: [usize; 2],
    out: [usize; 2],
    elements: [u16; 2],
    windows: [u16; 2],
}

/// The vectors of rows of windows in order. Those of a pair of rows, if `PAIRED`; the last may lack its second row.
struct Vectors {
    rows: usize,
    columns: usize,
    lanes: usize,
    row: usize,
    first: usize,
    elements: [u16; 2],
    windows: u16,
}

impl Vectors {
    #[inline(always)]
    fn new<const PAIRED: bool>(rows: usize, columns: usize, lanes: usize) -> Self {
        let tail = if PAIRED { columns } else { columns % lanes };
        let high = if PAIRED { 2 * tail } else { (2 * tail).saturating_sub(lanes) };
        let elements = [first_lanes(2 * tail, lanes), first_lanes(high, lanes)];
        Vectors { rows, columns, lanes, row: 0, first: 0, elements, windows: first_lanes(tail, lanes) }
    }

    #[inline(always)]
    fn next<const PAIRED: bool>(&mut self) -> Option<Vector> {
        let Vectors { rows, columns, lanes, row, first, .. } = *self;
        if row >= rows {
            return None;
        }
        let (x, out) = (4 * row * columns + 2 * first, row * columns + first);
        if PAIRED {
            self.row += 2;
            let second = if row + 1 < rows { (self.elements[1], self.windows << (lanes / 2)) } else { (0, 0) };
            let (elements, windows) = ([self.elements[0], second.0], [self.windows, second.1]);
            return Some(Vector { x: [x, x + 4 * columns], out: [out, out + columns], elements, windows });
        }
        self.first += lanes;
        if self.first >= columns {
            (self.row, self.first) = (row + 1, 0);
        }
        let all = first_lanes(lanes, lanes);
        let full = first + lanes <= columns;
        let (elements, windows) = if full { ([all; 2], all) } else { (self.elements, self.windows) };
        Some(Vector { x: [x, x + lanes], out: [out; 2], elements, windows: [windows; 2] })
    }
}

/// Reduces the windows of the call's planes by `OP`.
///
/// # Safety
/// The processor has the instructions of `S`; [`covers`] the axes; the call's pointers are good for its planes.
#[inline(always)]
pub(crate) unsafe fn pool_halved<S: SimdWindow, const OP: u32>(call: &PoolCall<'_>) {
    let d = call.d;
    let (rows, columns) = (call.planes * d.spec.rows.output, d.spec.columns.output);
    if columns <= S::LANES / 2 {
        reduce::<S, OP, true>(call, rows, columns);
    } else {
        reduce::<S, OP, false>(call, rows, columns);
    }
    let (code, alpha) = d.activation;
    if code > CLAMP {
        (d.table.activate)(code, alpha, call.out, rows * columns);
    }
}

#[inline(always)]
unsafe fn reduce<S: SimdWindow, const OP: u32, const PAIRED: bool>(call: &PoolCall<'_>, rows: usize, columns: usize) {
    let end = End::of(call.d);
    let mut vectors = Vectors::new::<PAIRED>(rows, columns, S::LANES);
    while let Some(vector) = vectors.next::<PAIRED>() {
        let (value, place) = windows::<S, OP>(call.x, &vector, 2 * columns);
        put_windows::<S, PAIRED>(end.apply::<S, OP>(value), call.out, &vector);
        if OP == ARG_MAX {
            put_windows::<S, PAIRED>(place, call.place, &vector);
        }
    }
}

/// The reduced windows of a vector; rows are `pitch` elements apart.
#[inline(always)]
unsafe fn windows<S: SimdWindow, const OP: u32>(x: *const f32, vector: &Vector, pitch: usize) -> (S, S) {
    let outside = S::splat(neutral::<OP>());
    let mut state = State::<S>::new::<OP>();
    for i in 0..2 {
        let [low, high] = vector.x.map(|at| x.wrapping_add(at + i * pitch));
        prefetch_near(low.wrapping_add(AHEAD));
        prefetch_near(high.wrapping_add(AHEAD));
        let low = load::<S>(low, vector.elements[0], outside);
        let high = load::<S>(high, vector.elements[1], outside);
        let (even, odd) = low.deinterleave(high);
        step::<S, OP>(&mut state, even, 2 * i);
        step::<S, OP>(&mut state, odd, 2 * i + 1);
    }
    state.result::<OP>()
}

/// Loads the lanes of the mask; a full vector without one.
#[inline(always)]
unsafe fn load<S: SimdWindow>(at: *const f32, mask: u16, outside: S) -> S {
    if mask == first_lanes(S::LANES, S::LANES) { S::load(at) } else { S::load_mask_or(at, mask, outside) }
}

/// Likewise.
#[inline(always)]
unsafe fn store<S: SimdWindow>(value: S, to: *mut f32, mask: u16) {
    if mask == first_lanes(S::LANES, S::LANES) { value.store(to) } else { value.store_mask(to, mask) }
}

/// Stores a number for each window.
#[inline(always)]
unsafe fn put_windows<S: SimdWindow, const PAIRED: bool>(value: S, to: *mut f32, vector: &Vector) {
    store(value, to.wrapping_add(vector.out[0]), vector.windows[0]);
    if PAIRED {
        value.store_mask(to.wrapping_add(vector.out[1]).wrapping_sub(S::LANES / 2), vector.windows[1]);
    }
}

/// Loads a number for each window.
#[inline(always)]
unsafe fn of_windows<S: SimdWindow, const PAIRED: bool>(from: *const f32, vector: &Vector) -> S {
    let low = load(from.wrapping_add(vector.out[0]), vector.windows[0], S::splat(0.0));
    if !PAIRED {
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
    if call.d.spec.columns.output <= S::LANES / 2 {
        spread::<S, SHARE, true>(call);
    } else {
        spread::<S, SHARE, false>(call);
    }
}

/// The gate of a vector is loaded before the vector in front of it is stored, since the gradient may lie over the gate:
/// lanes that a masked store leaves out still hold back a load of their place.
#[inline(always)]
unsafe fn spread<S: SimdWindow, const SHARE: u8, const PAIRED: bool>(call: &PoolGradCall<'_>) {
    let spec = &call.d.spec;
    let pitch = 2 * spec.columns.output;
    let zero = S::splat(0.0);
    let mut vectors = Vectors::new::<PAIRED>(call.planes * spec.rows.output, spec.columns.output, S::LANES);
    let mut following = vectors.next::<PAIRED>();
    let mut open = [S::all(); 4];
    if let (Some(first), true) = (&following, spec.gate) {
        open = gate::<S>(call, first, pitch);
    }
    while let Some(vector) = following {
        following = vectors.next::<PAIRED>();
        let now = open;
        if let (Some(next), true) = (&following, spec.gate) {
            open = gate::<S>(call, next, pitch);
        }
        // A sum begins with 0, so that -0 becomes 0.
        let dy = zero.add(of_windows::<S, PAIRED>(call.dy, &vector));
        let place = if SHARE == CHOSEN { of_windows::<S, PAIRED>(call.place, &vector) } else { zero };
        for i in 0..2 {
            let even = taken::<S, SHARE>(dy, place, 2 * i as u32);
            let odd = taken::<S, SHARE>(dy, place, 2 * i as u32 + 1);
            let (low, high) = even.interleave(odd);
            let [first, second] = vector.x.map(|at| call.dx.wrapping_add(at + i * pitch));
            prefetch_write(first.wrapping_add(AHEAD));
            prefetch_write(second.wrapping_add(AHEAD));
            store(S::select(now[2 * i], low, zero), first, vector.elements[0]);
            store(S::select(now[2 * i + 1], high, zero), second, vector.elements[1]);
        }
    }
}

/// What the elements at place `at` of their windows take.
#[inline(always)]
unsafe fn taken<S: SimdWindow, const SHARE: u8>(dy: S, place: S, at: u32) -> S {
    if SHARE == CHOSEN { S::select(place.same_bits(S::splat(f32::from_bits(at))), dy, S::splat(0.0)) } else { dy }
}

/// Where the gate is open, for each row and half of a vector.
#[inline(always)]
unsafe fn gate<S: SimdWindow>(call: &PoolGradCall<'_>, vector: &Vector, pitch: usize) -> [S::Mask; 4] {
    let zero = S::splat(0.0);
    let mut open = [S::all(); 4];
    for i in 0..2 {
        for half in 0..2 {
            let at = call.gate.wrapping_add(vector.x[half] + i * pitch);
            prefetch_near(at.wrapping_add(AHEAD));
            open[2 * i + half] = zero.less(load(at, vector.elements[half], zero));
        }
    }
    open
}
