#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "inner loops over raw planes; the contract is PoolCall's, stated once on `pool_plane`"
)]
#![allow(clippy::needless_range_loop, reason = "taps number registers and addresses alike")]
//! One plane of a pool, vector by vector along the output rows.

use super::flat::Flat;
use super::flat_lanes::{TapSink, vector};
use super::lanes::{announce, announce_write, first_lanes, tap, taps};
use super::pool::PoolDescriptor;
use crate::kernels::math::clamp;
use crate::kernels::simd::SimdWindow;
use crate::kernels::tile::{CLAMP, LEAKY_RELU, RELU};

pub(crate) const MAX: u32 = 0;
pub(crate) const ARG_MAX: u32 = 1;
pub(crate) const SUM: u32 = 2;

/// One plane, or a group of planes: pointers to its first elements.
pub(crate) struct PoolCall<'a> {
    pub(super) d: &'a PoolDescriptor,
    /// The vectors, where they are not those of rows.
    pub(super) flat: Option<&'a Flat>,
    /// Planes from the first on: one, or those of `flat`.
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
    for y in 0..rows.output {
        let top = (y * rows.stride) as isize + rows.offset as isize;
        announce(call.x.wrapping_add(y * rows.stride * columns.input), rows.stride * columns.input);
        announce_write(call.out.wrapping_add(y * columns.output), columns.output);
        if OP == ARG_MAX {
            announce_write(call.place.wrapping_add(y * columns.output), columns.output);
        }
        for v in 0..d.full.len() {
            let block = Block {
                at: call
                    .x
                    .wrapping_offset(top * columns.input as isize + columns.offset as isize)
                    .wrapping_add(v * S::LANES * STRIDE),
                masks: d.masks.as_ptr().add(v * columns.kernel),
                // Rows of the window that exist.
                from: (-top).clamp(0, rows.kernel as isize) as usize,
                to: (rows.input as isize - top).clamp(0, rows.kernel as isize) as usize,
            };
            let full = *d.full.get_unchecked(v);
            let best = if full {
                reduce::<S, OP, K, STRIDE, false>(call, &block)
            } else {
                reduce::<S, OP, K, STRIDE, true>(call, &block)
            };
            let mask = first_lanes(columns.output - v * S::LANES, S::LANES);
            store::<S, OP>(call, best, y * columns.output + v * S::LANES, if full { None } else { Some(mask) });
        }
    }
    activate(call);
}

/// As [`pool_plane`], for a group of planes whose vectors hold outputs of several rows.
///
/// # Safety
/// As [`pool_plane`].
#[inline(always)]
pub(crate) unsafe fn pool_flat<S: SimdWindow, const OP: u32>(call: &PoolCall<'_>) {
    let Some(flat) = call.flat else { return };
    let (rows, columns) = (&call.d.spec.rows, &call.d.spec.columns);
    // What a vector reads, about: a whole plane at once is more than the processor asks for without waiting.
    let part = (call.planes * rows.input * columns.input).div_ceil(flat.vectors.len());
    for (n, v) in flat.vectors.iter().enumerate() {
        announce(call.x.wrapping_add(n * part), part);
        announce_write(call.out.wrapping_add(v.out), S::LANES);
        if OP == ARG_MAX {
            announce_write(call.place.wrapping_add(v.out), S::LANES);
        }
        let neutral = neutral::<S, OP>();
        let mut taps = Taps::<S, OP> { state: State::new(neutral), place: 0 };
        vector(flat, v, [rows.kernel, columns.kernel], call.x, neutral, &mut taps);
        store::<S, OP>(call, result::<S, OP>(taps.state), v.out, Some(v.lanes));
    }
    activate(call);
}

/// Reduces taps; `place` numbers them.
struct Taps<S: SimdWindow, const OP: u32> {
    state: State<S>,
    place: usize,
}

impl<S: SimdWindow, const OP: u32> TapSink<S> for Taps<S, OP> {
    #[inline(always)]
    unsafe fn tap(&mut self, x: S) {
        step::<S, OP>(&mut self.state, x, self.place);
        self.place += 1;
    }
}

/// Stores reduced windows, and their places; all lanes, or those of a mask.
#[inline(always)]
unsafe fn store<S: SimdWindow, const OP: u32>(call: &PoolCall<'_>, best: (S, S), at: usize, mask: Option<u16>) {
    let value = finish::<S, OP>(call, best.0);
    match mask {
        None => value.store(call.out.wrapping_add(at)),
        Some(mask) => value.store_mask(call.out.wrapping_add(at), mask),
    }
    if OP == ARG_MAX {
        match mask {
            None => best.1.store(call.place.wrapping_add(at)),
            Some(mask) => best.1.store_mask(call.place.wrapping_add(at), mask),
        }
    }
}

/// An activation that vectors of the pool do not have.
#[inline(always)]
unsafe fn activate(call: &PoolCall<'_>) {
    let (rows, columns) = (&call.d.spec.rows, &call.d.spec.columns);
    let (code, alpha) = call.d.activation;
    if code > CLAMP {
        (call.d.table.activate)(code, alpha, call.out, call.planes * rows.output * columns.output);
    }
}

struct Block {
    at: *const f32,
    masks: *const [u16; 2],
    from: usize,
    to: usize,
}

/// What one vector of windows has become so far.
#[derive(Clone, Copy)]
struct State<S: SimdWindow> {
    value: S,
    place: S,
    /// Windows without NaN so far: the first NaN stays.
    numbers: S::Mask,
}

impl<S: SimdWindow> State<S> {
    #[inline(always)]
    unsafe fn new(neutral: S) -> Self {
        Self { value: neutral, place: S::splat(0.0), numbers: S::all() }
    }
}

/// The reduced windows of one vector, and their places.
#[inline(always)]
unsafe fn reduce<S: SimdWindow, const OP: u32, const K: usize, const STRIDE: usize, const MASKED: bool>(
    call: &PoolCall<'_>,
    block: &Block,
) -> (S, S) {
    let columns = &call.d.spec.columns;
    let neutral = neutral::<S, OP>();
    let mut state = State::new(neutral);
    if K > 0 && block.from == 0 && block.to == K {
        for i in 0..K {
            let x = taps::<S, K, STRIDE, MASKED>(block.at.wrapping_add(i * columns.input), block.masks, neutral);
            for j in 0..K {
                step::<S, OP>(&mut state, x[j], i * K + j);
            }
        }
    } else {
        for i in block.from..block.to {
            let row = block.at.wrapping_add(i * columns.input);
            for j in 0..columns.kernel {
                let (x, _) = tap::<S, STRIDE, MASKED>(row, block.masks, j, neutral);
                step::<S, OP>(&mut state, x, i * columns.kernel + j);
            }
        }
    }
    result::<S, OP>(state)
}

/// What changes no window.
#[inline(always)]
unsafe fn neutral<S: SimdWindow, const OP: u32>() -> S {
    S::splat(if OP == SUM { 0.0 } else { f32::NEG_INFINITY })
}

/// Reduced windows, and their places.
#[inline(always)]
unsafe fn result<S: SimdWindow, const OP: u32>(state: State<S>) -> (S, S) {
    let State { value, place, numbers } = state;
    (if OP == MAX { S::select(numbers, value, S::splat(f32::NAN)) } else { value }, place)
}

/// Compares with the mask of what is still a number: the chain from maximum to maximum is then one comparison long, or
/// without places one maximum.
#[inline(always)]
unsafe fn step<S: SimdWindow, const OP: u32>(state: &mut State<S>, x: S, place: usize) {
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

#[inline(always)]
unsafe fn finish<S: SimdWindow, const OP: u32>(call: &PoolCall<'_>, value: S) -> S {
    let value = if OP == SUM { value.mul(S::splat(call.d.scale)) } else { value };
    let (code, alpha) = call.d.activation;
    match code {
        RELU => S::splat(0.0).max_or_other(value),
        LEAKY_RELU => value.leaky(S::splat(alpha[0])),
        CLAMP => clamp(value, S::splat(alpha[0]), S::splat(alpha[1])),
        _ => value,
    }
}
