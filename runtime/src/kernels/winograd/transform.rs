#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "loops over raw planes and panels; each contract is stated once on its function"
)]
#![allow(clippy::needless_range_loop, reason = "rows and columns number registers and addresses alike")]
//! The transforms of weights, input and output, once for every level and both tile sizes.
//!
//! Lanes are the sixteen tiles of a group. How pixels get into lanes and back is the business of [`Lanes`].

use super::super::abi::{ActivateFn, GROUP};
use super::super::simd::SimdMath;
use super::geometry::Geometry;

/// A minimal filtering algorithm F(M, 3) in one dimension; two dimensions are it applied to rows, then columns. Arrays
/// are as long as the larger algorithm needs.
pub(super) trait Variant {
    /// Outputs of a tile's row.
    const M: usize;
    /// Inputs of a tile's row, `M + 2`.
    const A: usize;
    unsafe fn input<S: SimdMath>(x: [S; 6]) -> [S; 6];
    unsafe fn weights<S: SimdMath>(w: [S; 3]) -> [S; 6];
    unsafe fn output<S: SimdMath>(x: [S; 6]) -> [S; 4];
    /// The transpose of `output`.
    unsafe fn gradient<S: SimdMath>(y: [S; 4]) -> [S; 6];
    /// The transpose of `weights`.
    unsafe fn taps<S: SimdMath>(u: [S; 6]) -> [S; 3];
}

/// F(2, 3): points 0, 1, -1 and infinity.
pub(super) struct F2;
/// F(4, 3): points 0, `P`, `-P`, `Q`, `-Q` and infinity.
pub(super) struct F4;

impl Variant for F2 {
    const M: usize = 2;
    const A: usize = 4;
    #[inline(always)]
    unsafe fn input<S: SimdMath>(x: [S; 6]) -> [S; 6] {
        [x[0].sub(x[2]), x[1].add(x[2]), x[2].sub(x[1]), x[3].sub(x[1]), x[4], x[5]]
    }
    #[inline(always)]
    unsafe fn weights<S: SimdMath>(w: [S; 3]) -> [S; 6] {
        let half = S::splat(0.5);
        let (even, odd) = (w[0].add(w[2]).mul(half), w[1].mul(half));
        [w[0], even.add(odd), even.sub(odd), w[2], w[2], w[2]]
    }
    #[inline(always)]
    unsafe fn output<S: SimdMath>(x: [S; 6]) -> [S; 4] {
        [x[0].add(x[1]).add(x[2]), x[1].sub(x[2]).add(x[3]), x[3], x[3]]
    }
    #[inline(always)]
    unsafe fn gradient<S: SimdMath>(y: [S; 4]) -> [S; 6] {
        [y[0], y[0].add(y[1]), y[0].sub(y[1]), y[1], y[1], y[1]]
    }
    #[inline(always)]
    unsafe fn taps<S: SimdMath>(u: [S; 6]) -> [S; 3] {
        let half = S::splat(0.5);
        let even = u[1].add(u[2]).mul(half);
        [u[0].add(even), u[1].sub(u[2]).mul(half), even.add(u[3])]
    }
}

const P: f32 = 0.625;
const Q: f32 = 1.5;
const PP: f32 = P * P;
const QQ: f32 = Q * Q;

impl Variant for F4 {
    const M: usize = 4;
    const A: usize = 6;
    #[inline(always)]
    unsafe fn input<S: SimdMath>(x: [S; 6]) -> [S; 6] {
        let (even_p, even_q) = (axpy(-QQ, x[2], x[4]), axpy(-PP, x[2], x[4]));
        let (odd_p, odd_q) = (axpy(-QQ, x[1], x[3]), axpy(-PP, x[1], x[3]));
        [
            axpy(PP * QQ, x[0], axpy(-PP - QQ, x[2], x[4])),
            axpy(P, odd_p, even_p),
            axpy(-P, odd_p, even_p),
            axpy(Q, odd_q, even_q),
            axpy(-Q, odd_q, even_q),
            axpy(PP * QQ, x[1], axpy(-PP - QQ, x[3], x[5])),
        ]
    }
    #[inline(always)]
    unsafe fn weights<S: SimdMath>(w: [S; 3]) -> [S; 6] {
        let (p, q) = (f64::from(P), f64::from(Q));
        let (plus_p, minus_p) = pair(w, p, q);
        let (plus_q, minus_q) = pair(w, q, p);
        let zero = S::splat((1.0 / (p * p * q * q)) as f32);
        [zero.mul(w[0]), plus_p, minus_p, plus_q, minus_q, w[2]]
    }
    #[inline(always)]
    unsafe fn output<S: SimdMath>(x: [S; 6]) -> [S; 4] {
        let (even_p, odd_p) = (x[1].add(x[2]), x[1].sub(x[2]));
        let (even_q, odd_q) = (x[3].add(x[4]), x[3].sub(x[4]));
        [
            x[0].add(even_p).add(even_q),
            axpy(Q, odd_q, S::splat(P).mul(odd_p)),
            axpy(QQ, even_q, S::splat(PP).mul(even_p)),
            axpy(Q * QQ, odd_q, axpy(P * PP, odd_p, x[5])),
        ]
    }
    #[inline(always)]
    unsafe fn gradient<S: SimdMath>(y: [S; 4]) -> [S; 6] {
        let (even_p, odd_p) = (axpy(PP, y[2], y[0]), axpy(P * PP, y[3], S::splat(P).mul(y[1])));
        let (even_q, odd_q) = (axpy(QQ, y[2], y[0]), axpy(Q * QQ, y[3], S::splat(Q).mul(y[1])));
        [y[0], even_p.add(odd_p), even_p.sub(odd_p), even_q.add(odd_q), even_q.sub(odd_q), y[3]]
    }
    #[inline(always)]
    unsafe fn taps<S: SimdMath>(u: [S; 6]) -> [S; 3] {
        let (p, q) = (f64::from(P), f64::from(Q));
        let (norm_p, norm_q) = (norm(p, q), norm(q, p));
        let (even_p, odd_p) = (u[1].add(u[2]), u[1].sub(u[2]));
        let (even_q, odd_q) = (u[3].add(u[4]), u[3].sub(u[4]));
        let zero = S::splat((1.0 / (p * p * q * q)) as f32);
        [
            axpy(norm_q as f32, even_q, axpy(norm_p as f32, even_p, zero.mul(u[0]))),
            axpy((norm_q * q) as f32, odd_q, S::splat((norm_p * p) as f32).mul(odd_p)),
            axpy((norm_q * q * q) as f32, even_q, axpy((norm_p * p * p) as f32, even_p, u[5])),
        ]
    }
}

/// `a x + y`
#[inline(always)]
unsafe fn axpy<S: SimdMath>(a: f32, x: S, y: S) -> S {
    S::splat(a).mul_add(x, y)
}

/// The first element of the row of `G` for the point `at`.
#[inline(always)]
fn norm(at: f64, other: f64) -> f64 {
    0.5 / (at * at * (at * at - other * other))
}

/// The rows of `G` for the points `at` and `-at`, `-other` and `other` being the rest.
#[inline(always)]
unsafe fn pair<S: SimdMath>(w: [S; 3], at: f64, other: f64) -> (S, S) {
    let norm = norm(at, other);
    let even = axpy((norm * at * at) as f32, w[2], S::splat(norm as f32).mul(w[0]));
    let odd = S::splat((norm * at) as f32).mul(w[1]);
    (even.add(odd), even.sub(odd))
}

/// Pixels of a group outside registers: `[row][column][tile]`.
pub(super) type Stage = [[f32; GROUP]; 36];

/// How a level moves pixels between images and lanes. The provided methods go through a [`Stage`], pixel by pixel.
pub(super) trait Lanes: SimdMath {
    /// Fetches a group's pixels of one channel, `at` being the channel's plane in image 0.
    ///
    /// # Safety
    /// Pixels that the geometry's masks name lie inside the tensor at `at`.
    #[inline(always)]
    unsafe fn fetch<F: Variant>(geometry: &Geometry, at: *const f32, row: isize, stage: &mut Stage) {
        for slot in stage.iter_mut().take(F::A * F::A) {
            *slot = [0.0; GROUP];
        }
        for (p, part) in geometry.parts.iter().take(F::M).enumerate() {
            for r in 0..F::A {
                for run in 0..part.runs {
                    let from = at.wrapping_offset(part.from[run] + r as isize * row);
                    let (low, high) = (part.low[r][run], part.high[r][run]);
                    for lane in 0..GROUP {
                        let (tile, column) = ((p * GROUP + lane) / F::M, lane % F::M);
                        if low >> lane & 1 == 1 {
                            stage[r * F::A + column][tile] = *from.wrapping_add(lane);
                        }
                        if high >> lane & 1 == 1 {
                            stage[r * F::A + F::M + column][tile] = *from.wrapping_add(lane + F::M);
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
    unsafe fn announce<F: Variant>(_geometry: &Geometry, _at: *const f32, _row: isize) {}

    /// Row `r` of a group's pixels, by column, for vector `v` of the group.
    ///
    /// # Safety
    /// As [`Self::fetch`], which has filled the stage.
    #[inline(always)]
    unsafe fn columns<F: Variant>(
        _geometry: &Geometry,
        _at: *const f32,
        _row: isize,
        stage: &Stage,
        (r, v): (usize, usize),
    ) -> [Self; 6] {
        let mut columns = [Self::splat(0.0); 6];
        for j in 0..F::A {
            columns[j] = Self::load(stage[r * F::A + j].as_ptr().add(v * Self::LANES));
        }
        columns
    }

    /// Finishes row `r` of the outputs of vector `v`.
    ///
    /// # Safety
    /// Pixels that the geometry's masks name lie inside the tensors of `to`.
    #[inline(always)]
    unsafe fn put<F: Variant>(
        _geometry: &Geometry,
        _to: &Plane,
        y: [Self; 4],
        stage: &mut Stage,
        (r, v): (usize, usize),
    ) {
        for j in 0..F::M {
            y[j].store(stage[r * F::M + j].as_mut_ptr().add(v * Self::LANES));
        }
    }

    /// Stores what [`Self::put`] has left in the stage.
    ///
    /// # Safety
    /// As [`Self::put`].
    #[inline(always)]
    unsafe fn flush<F: Variant>(geometry: &Geometry, to: &Plane, stage: &mut Stage) {
        for (p, part) in geometry.parts.iter().take(F::M).enumerate() {
            for r in 0..F::M {
                let mut pixels = [0.0f32; GROUP];
                for lane in 0..GROUP {
                    pixels[lane] = stage[r * F::M + lane % F::M][(p * GROUP + lane) / F::M];
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
pub(super) unsafe fn input<S: Lanes, F: Variant>(call: &InputCall<'_>) {
    let mut stage: Stage = [[0.0; GROUP]; 36];
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
                let mut rows = [[zero; 6]; 6];
                for r in 0..F::A {
                    rows[r] = F::input(S::columns::<F>(geometry, plane, call.row, &stage, (r, v)));
                }
                for j in 0..F::A {
                    let column = [rows[0][j], rows[1][j], rows[2][j], rows[3][j], rows[4][j], rows[5][j]];
                    let column = F::input(column);
                    for i in 0..F::A {
                        column[i].store(to.add((i * F::A + j) * call.position));
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
pub(super) unsafe fn weights<S: Lanes, F: Variant>(call: &WeightsCall) {
    let mut taps = [[0.0f32; CHUNK * MOST_ROWS]; 9];
    let zero = S::splat(0.0);
    for first in (0..call.channels).step_by(CHUNK) {
        let count = CHUNK.min(call.channels - first);
        for row in 0..call.rows {
            for c in 0..count {
                let s = &call.strides;
                let from = call.from.wrapping_offset(row as isize * s.output + (first + c) as isize * s.channel);
                for t in 0..9 {
                    let tap = (t / 3) as isize * s.y + (t % 3) as isize * s.x;
                    taps[t][c * call.rows + row] = *from.wrapping_offset(tap);
                }
            }
        }
        let len = count * call.rows;
        let to = call.to.add(first * call.rows);
        for lane in (0..len).step_by(S::LANES) {
            let mut rows = [[zero; 6]; 3];
            for r in 0..3 {
                let mut row = [zero; 3];
                for x in 0..3 {
                    row[x] = S::load(taps[r * 3 + x].as_ptr().add(lane));
                }
                rows[r] = F::weights(row);
            }
            let left = (len - lane).min(S::LANES);
            let mask = ((1u32 << left) - 1) as u16;
            for j in 0..F::A {
                let column = F::weights([rows[0][j], rows[1][j], rows[2][j]]);
                for i in 0..F::A {
                    let to = to.add((i * F::A + j) * call.position + lane);
                    if left == S::LANES { column[i].store(to) } else { column[i].store_mask(to, mask) }
                }
            }
        }
    }
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
pub(super) unsafe fn output<S: Lanes, F: Variant>(call: &OutputCall<'_>) {
    let mut stage: Stage = [[0.0; GROUP]; 36];
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
                let mut columns = [[zero; 4]; 6];
                for j in 0..F::A {
                    let mut column = [zero; 6];
                    for i in 0..F::A {
                        column[i] = S::load(from.add((i * F::A + j) * call.position));
                    }
                    columns[j] = F::output(column);
                }
                for r in 0..F::M {
                    let row =
                        [columns[0][r], columns[1][r], columns[2][r], columns[3][r], columns[4][r], columns[5][r]];
                    let mut y = F::output(row);
                    for j in 0..F::M {
                        y[j] = y[j].add(bias).mul(scale);
                    }
                    S::put::<F>(geometry, &plane, y, &mut stage, (r, v));
                }
            }
            S::flush::<F>(geometry, &plane, &mut stage);
        }
    }
}

/// The transforms of one level, for tiles of 2 x 2 and of 4 x 4.
pub(crate) struct Transforms {
    pub(super) input: [unsafe fn(&InputCall<'_>); 2],
    pub(super) weights: [unsafe fn(&WeightsCall); 2],
    pub(super) output: [unsafe fn(&OutputCall<'_>); 2],
}

/// Instantiates the transforms for a vector type.
macro_rules! transforms {
    ($vector:ty $(, $feature:literal)?) => {
        $crate::kernels::winograd::transform::transforms!(@one input2, input, F2, InputCall<'_>, $vector $(, $feature)?);
        $crate::kernels::winograd::transform::transforms!(@one input4, input, F4, InputCall<'_>, $vector $(, $feature)?);
        $crate::kernels::winograd::transform::transforms!(@one weights2, weights, F2, WeightsCall, $vector $(, $feature)?);
        $crate::kernels::winograd::transform::transforms!(@one weights4, weights, F4, WeightsCall, $vector $(, $feature)?);
        $crate::kernels::winograd::transform::transforms!(@one output2, output, F2, OutputCall<'_>, $vector $(, $feature)?);
        $crate::kernels::winograd::transform::transforms!(@one output4, output, F4, OutputCall<'_>, $vector $(, $feature)?);
        pub(crate) static TRANSFORMS: Transforms = Transforms {
            input: [input2, input4],
            weights: [weights2, weights4],
            output: [output2, output4],
        };
    };
    (@one $name:ident, $function:ident, $variant:ident, $call:ty, $vector:ty $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name(call: &$call) {
            $crate::kernels::winograd::transform::$function::<$vector, $variant>(call);
        }
    };
}
pub(super) use transforms;
