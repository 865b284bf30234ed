#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "loops over raw planes and panels; each contract is stated once on its function"
)]
#![allow(clippy::needless_range_loop, reason = "rows and columns number registers and addresses alike")]
//! The transforms of weights, input and output, once for every level and algorithm.
//!
//! Lanes are the sixteen tiles of a group. How pixels get into lanes and back is the business of [`Lanes`].

use super::super::abi::{ActivateFn, GROUP};
use super::super::simd::SimdMath;
use super::algorithm::ALGORITHMS;
use super::filter::{Filter, Filters, INPUTS, OUTPUTS, TAPS};
use super::geometry::Geometry;

/// Pixels of a group outside registers: `[row][column][tile]`.
pub(super) type Stage = [[f32; GROUP]; INPUTS * INPUTS];

/// How a level moves pixels between images and lanes. The provided methods go through a [`Stage`], pixel by pixel.
pub(super) trait Lanes: SimdMath {
    /// Fetches a group's pixels of one channel, `at` being the channel's plane in image 0.
    ///
    /// # Safety
    /// Pixels that the geometry's masks name lie inside the tensor at `at`.
    #[inline(always)]
    unsafe fn fetch<F: Filters>(geometry: &Geometry, at: *const f32, row: isize, stage: &mut Stage) {
        for slot in stage.iter_mut().take(F::Y::A * F::X::A) {
            *slot = [0.0; GROUP];
        }
        for (p, part) in geometry.parts.iter().take(F::X::M).enumerate() {
            for r in 0..F::Y::A {
                for run in 0..part.runs {
                    let from = at.wrapping_offset(part.from[run] + r as isize * row);
                    for lane in 0..GROUP {
                        let (tile, column) = ((p * GROUP + lane) / F::X::M, lane % F::X::M);
                        for (shift, inside) in (0..F::X::A).step_by(F::X::M).zip(&part.inside) {
                            if inside[r][run] >> lane & 1 == 1 {
                                stage[r * F::X::A + shift + column][tile] = *from.wrapping_add(shift + lane);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Announces the pixels that [`Self::fetch`] will ask for.
    ///
    /// # Safety
    /// The processor has the instructions of `Self`; `at` may be anything.
    #[inline(always)]
    unsafe fn announce<F: Filters>(_geometry: &Geometry, _at: *const f32, _row: isize) {}

    /// Row `r` of a group's pixels, by column, for vector `v` of the group.
    ///
    /// # Safety
    /// As [`Self::fetch`], which has filled the stage.
    #[inline(always)]
    unsafe fn columns<F: Filters>(
        _geometry: &Geometry,
        _at: *const f32,
        _row: isize,
        stage: &Stage,
        (r, v): (usize, usize),
    ) -> [Self; INPUTS] {
        let mut columns = [Self::splat(0.0); INPUTS];
        for j in 0..F::X::A {
            columns[j] = Self::load(stage[r * F::X::A + j].as_ptr().add(v * Self::LANES));
        }
        columns
    }

    /// Finishes row `r` of the outputs of vector `v`.
    ///
    /// # Safety
    /// Pixels that the geometry's masks name lie inside the tensors of `to`.
    #[inline(always)]
    unsafe fn put<F: Filters>(
        _geometry: &Geometry,
        _to: &Plane,
        y: [Self; OUTPUTS],
        stage: &mut Stage,
        (r, v): (usize, usize),
    ) {
        for j in 0..F::X::M {
            y[j].store(stage[r * F::X::M + j].as_mut_ptr().add(v * Self::LANES));
        }
    }

    /// Stores what will not be read while it is in the caches; visible to others after [`Self::settle`].
    ///
    /// # Safety
    /// As `store`.
    #[inline(always)]
    unsafe fn store_far(self, to: *mut f32) {
        self.store(to);
    }

    /// Makes what [`Self::store_far`] has stored visible in the order of the program.
    ///
    /// # Safety
    /// The processor has the instructions of `Self`.
    #[inline(always)]
    unsafe fn settle() {}

    /// Stores what [`Self::put`] has left in the stage.
    ///
    /// # Safety
    /// As [`Self::put`].
    #[inline(always)]
    unsafe fn flush<F: Filters>(geometry: &Geometry, to: &Plane, stage: &mut Stage) {
        for (p, part) in geometry.parts.iter().take(F::X::M).enumerate() {
            for r in 0..F::Y::M {
                let mut pixels = [0.0f32; GROUP];
                for lane in 0..GROUP {
                    pixels[lane] = stage[r * F::X::M + lane % F::X::M][(p * GROUP + lane) / F::X::M];
                }
                let inside = |run: usize, lane: usize| part.out[r][run] >> lane & 1 == 1;
                let offset = |run: usize| part.to[run] + r as isize * to.row;
                if !to.residual.is_null() {
                    for run in 0..part.runs {
                        let from = to.residual.wrapping_offset(offset(run));
                        for lane in (0..GROUP).filter(|&lane| inside(run, lane)) {
                            pixels[lane] += *from.wrapping_add(lane);
                        }
                    }
                }
                if to.activation != 0 {
                    (to.activate)(to.activation, to.alpha, pixels.as_mut_ptr(), GROUP);
                }
                for run in 0..part.runs {
                    let out = to.out.wrapping_offset(offset(run));
                    for lane in (0..GROUP).filter(|&lane| inside(run, lane)) {
                        *out.wrapping_add(lane) = pixels[lane];
                    }
                }
            }
        }
    }
}

/// One channel's output in image 0, and what is done on the way there.
pub(super) struct Plane {
    pub(super) out: *mut f32,
    /// Null for none.
    pub(super) residual: *const f32,
    pub(super) row: isize,
    pub(super) activation: u32,
    pub(super) alpha: [f32; 2],
    pub(super) activate: ActivateFn<f32>,
}

/// Channels `begin..end` of the groups of one block of tiles, to `[position][panel][channel][width]`.
pub(super) struct InputCall<'a> {
    pub(super) from: *const f32,
    pub(super) channel: isize,
    pub(super) row: isize,
    pub(super) begin: usize,
    pub(super) end: usize,
    pub(super) groups: &'a [Geometry],
    pub(super) to: *mut f32,
    /// Elements from one position of the tile to the next.
    pub(super) position: usize,
    pub(super) channels: usize,
    /// Lanes of a panel; the last has what is left.
    pub(super) nr: usize,
}

/// Transforms input tiles.
///
/// # Safety
/// The processor has the instructions of `S`; the tensor at `from` is the one of the geometry; `to` holds the block.
#[inline(always)]
pub(super) unsafe fn input<S: Lanes, F: Filters>(call: &InputCall<'_>) {
    let mut stage: Stage = [[0.0; GROUP]; INPUTS * INPUTS];
    let zero = S::splat(0.0);
    let lanes = call.groups.len() * GROUP;
    for c in call.begin..call.end {
        let plane = call.from.wrapping_offset(c as isize * call.channel);
        for (g, geometry) in call.groups.iter().enumerate() {
            if c + 1 < call.end {
                S::announce::<F>(geometry, plane.wrapping_offset(call.channel), call.row);
            }
            S::fetch::<F>(geometry, plane, call.row, &mut stage);
            for v in 0..GROUP / S::LANES {
                let lane = g * GROUP + v * S::LANES;
                let panel = lane / call.nr * call.nr;
                let width = call.nr.min(lanes - panel);
                let to = call.to.add(panel * call.channels + c * width + lane - panel);
                let mut rows = [[zero; INPUTS]; INPUTS];
                for r in 0..F::Y::A {
                    rows[r] = F::X::input(S::columns::<F>(geometry, plane, call.row, &stage, (r, v)));
                }
                for j in 0..F::X::A {
                    let column = F::Y::input(column(&rows, j));
                    for i in 0..F::Y::A {
                        column[i].store(to.add((i * F::X::A + j) * call.position));
                    }
                }
            }
        }
    }
}

/// One row panel of weights, to `[position][channel][rows]`.
pub(super) struct WeightsCall {
    /// The panel's first output.
    pub(super) from: *const f32,
    pub(super) strides: super::shape::WeightStrides,
    pub(super) rows: usize,
    pub(super) channels: usize,
    pub(super) to: *mut f32,
    pub(super) position: usize,
    /// Whether all weights are more than the caches hold.
    pub(super) far: bool,
}

/// Channels transformed together.
const CHUNK: usize = 16;
/// Rows of the highest panel of any level.
const MOST_ROWS: usize = 14;

/// Transforms weights.
///
/// # Safety
/// The processor has the instructions of `S`; the strides lead to weights; `to` holds the panel.
#[inline(always)]
pub(super) unsafe fn weights<S: Lanes, F: Filters>(call: &WeightsCall) {
    let mut taps = [[0.0f32; CHUNK * MOST_ROWS]; TAPS * TAPS];
    let zero = S::splat(0.0);
    for first in (0..call.channels).step_by(CHUNK) {
        let count = CHUNK.min(call.channels - first);
        for row in 0..call.rows {
            for c in 0..count {
                let s = &call.strides;
                let from = call.from.wrapping_offset(row as isize * s.output + (first + c) as isize * s.channel);
                for t in 0..F::Y::R * F::X::R {
                    let tap = (t / F::X::R) as isize * s.y + (t % F::X::R) as isize * s.x;
                    taps[t][c * call.rows + row] = *from.wrapping_offset(tap);
                }
            }
        }
        let len = count * call.rows;
        let to = call.to.add(first * call.rows);
        for lane in (0..len).step_by(S::LANES) {
            let mut rows = [[zero; INPUTS]; TAPS];
            for r in 0..F::Y::R {
                let mut row = [zero; TAPS];
                for x in 0..F::X::R {
                    row[x] = S::load(taps[r * F::X::R + x].as_ptr().add(lane));
                }
                rows[r] = F::X::weights(row);
            }
            let left = (len - lane).min(S::LANES);
            let mask = ((1u32 << left) - 1) as u16;
            for j in 0..F::X::A {
                let column = F::Y::weights(column(&rows, j));
                for i in 0..F::Y::A {
                    let to = to.add((i * F::X::A + j) * call.position + lane);
                    if left < S::LANES {
                        column[i].store_mask(to, mask);
                    } else if call.far {
                        column[i].store_far(to);
                    } else {
                        column[i].store(to);
                    }
                }
            }
        }
    }
    S::settle();
}

/// Outputs of a block of channels and tiles, from `[position][channel][lane]`.
pub(super) struct OutputCall<'a> {
    pub(super) from: *const f32,
    pub(super) position: usize,
    pub(super) rows: usize,
    pub(super) groups: &'a [Geometry],
    /// Of the first channel.
    pub(super) plane: Plane,
    pub(super) channel: isize,
    /// From the first channel on; null for none.
    pub(super) bias: *const f32,
    pub(super) scale: *const f32,
}

/// Transforms outputs.
///
/// # Safety
/// The processor has the instructions of `S`; the tensors are those of the geometry.
#[inline(always)]
pub(super) unsafe fn output<S: Lanes, F: Filters>(call: &OutputCall<'_>) {
    let mut stage: Stage = [[0.0; GROUP]; INPUTS * INPUTS];
    let zero = S::splat(0.0);
    let lanes = call.groups.len() * GROUP;
    for o in 0..call.rows {
        let offset = o as isize * call.channel;
        let plane = Plane {
            out: call.plane.out.wrapping_offset(offset),
            residual: if call.plane.residual.is_null() {
                call.plane.residual
            } else {
                call.plane.residual.wrapping_offset(offset)
            },
            ..call.plane
        };
        let bias = S::splat(if call.bias.is_null() { 0.0 } else { *call.bias.add(o) });
        let scale = S::splat(if call.scale.is_null() { 1.0 } else { *call.scale.add(o) });
        for (g, geometry) in call.groups.iter().enumerate() {
            for v in 0..GROUP / S::LANES {
                let from = call.from.add(o * lanes + g * GROUP + v * S::LANES);
                let mut columns = [[zero; OUTPUTS]; INPUTS];
                for j in 0..F::X::A {
                    let mut column = [zero; INPUTS];
                    for i in 0..F::Y::A {
                        column[i] = S::load(from.add((i * F::X::A + j) * call.position));
                    }
                    columns[j] = F::Y::output(column);
                }
                for r in 0..F::Y::M {
                    let mut y = F::X::output(column(&columns, r));
                    for j in 0..F::X::M {
                        y[j] = y[j].add(bias).mul(scale);
                    }
                    S::put::<F>(geometry, &plane, y, &mut stage, (r, v));
                }
            }
            S::flush::<F>(geometry, &plane, &mut stage);
        }
    }
}

/// Column `j` of a matrix whose rows are given.
#[inline(always)]
pub(super) fn column<S: Copy, const N: usize, const L: usize>(rows: &[[S; L]; N], j: usize) -> [S; N] {
    std::array::from_fn(|i| rows[i][j])
}

/// The transforms of one level, for each of `Algorithm::ALL`.
pub(crate) struct Transforms {
    pub(super) input: [unsafe fn(&InputCall<'_>); ALGORITHMS],
    pub(super) weights: [unsafe fn(&WeightsCall); ALGORITHMS],
    pub(super) output: [unsafe fn(&OutputCall<'_>); ALGORITHMS],
}

/// Instantiates the transforms for a vector type.
macro_rules! transforms {
    ($vector:ty $(, $feature:literal)?) => {
        $crate::kernels::winograd::transform::transforms!(@each input, InputCall<'_>, $vector $(, $feature)?);
        $crate::kernels::winograd::transform::transforms!(@each weights, WeightsCall, $vector $(, $feature)?);
        $crate::kernels::winograd::transform::transforms!(@each output, OutputCall<'_>, $vector $(, $feature)?);
        pub(crate) static TRANSFORMS: Transforms =
            Transforms { input: input::ALL, weights: weights::ALL, output: output::ALL };
    };
    (@each $name:ident, $call:ty, $vector:ty $(, $feature:literal)?) => {
        mod $name {
            use super::*;
            use $crate::kernels::winograd::algorithm::ALGORITHMS;
            use $crate::kernels::winograd::filter::{F11, F23, F25, F43, Filters, each_algorithm};
            $(#[target_feature(enable = $feature)])?
            unsafe fn of<F: Filters>(call: &$call) {
                $crate::kernels::winograd::transform::$name::<$vector, F>(call);
            }
            pub(super) const ALL: [unsafe fn(&$call); ALGORITHMS] = each_algorithm!(of);
        }
    };
}
pub(super) use transforms;
