#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "inner loops over raw planes; the contract is PoolCall's, stated once on `pool_flat`"
)]
//! A group of planes of a pool, in vectors of windows in row-major order.

use super::flat_lanes::{TapSink, vector};
use super::lanes::{announce, announce_write};
use super::pool_plane::{ARG_MAX, End, PoolCall, State, neutral, step};
use crate::kernels::math::CLAMP;
use crate::kernels::simd::SimdWindow;

/// Computes the planes of one group by `OP`.
///
/// # Safety
/// The processor has the instructions of `S`, whose lanes are the table's; the call's pointers are good for the planes
/// of its group.
#[inline(always)]
pub(crate) unsafe fn pool_flat<S: SimdWindow, const OP: u32>(call: &PoolCall<'_>) {
    let Some(flat) = call.flat else { return };
    let (rows, columns) = (&call.d.spec.rows, &call.d.spec.columns);
    let end = End::of(call.d);
    // What a vector reads, about: a whole plane at once is more than the processor asks for without waiting.
    let part = (call.planes * rows.input * columns.input).div_ceil(flat.vectors.len());
    for (n, v) in flat.vectors.iter().enumerate() {
        announce(call.x.wrapping_add(n * part), part);
        announce_write(call.out.wrapping_add(v.out), S::LANES);
        if OP == ARG_MAX {
            announce_write(call.place.wrapping_add(v.out), S::LANES);
        }
        let mut taps = Taps::<S, OP> { state: State::new::<OP>(), place: 0 };
        let outside = S::splat(neutral::<OP>());
        vector(flat, v, [rows.kernel, columns.kernel], call.x, outside, &mut taps);
        let (value, place) = taps.state.result::<OP>();
        end.apply::<S, OP>(value).store_mask(call.out.wrapping_add(v.out), v.lanes);
        if OP == ARG_MAX {
            place.store_mask(call.place.wrapping_add(v.out), v.lanes);
        }
    }
    let (code, alpha) = call.d.activation;
    if code > CLAMP {
        (call.d.table.activate)(code, alpha, call.out, call.planes * rows.output * columns.output);
    }
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
