#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "loops over raw planes and panels; each contract is stated once on its function"
)]
#![allow(clippy::needless_range_loop, reason = "rows and columns number registers and addresses alike")]
//! The transforms of `x`, `dy` and `dw`, once for every level and both tile sizes.
//!
//! Lanes are sixteen channels, because the products sum over tiles: pixels are turned into lanes strip by strip, and a
//! tile is then a window of whole vectors.

use super::super::super::abi::{GROUP, TransposeFn};
use super::super::super::simd::{SimdMath, prefetch_near};
use super::super::super::store::copy_short;
use super::super::algorithm::ALGORITHMS;
use super::super::filter::{Filter, Filters, INPUTS, OUTPUTS, TAPS};
use super::super::shape::{Strides, WeightStrides};
use super::super::transform::column;

/// How a level turns pixels into lanes, and stores the rows of register blocks.
pub(in super::super) trait Channels: SimdMath {
    /// Rows of the register block, [`Simd::LANES`](super::super::super::simd::Simd::LANES) or half of it.
    const ROWS: usize;

    /// Pixels `0..count` of up to sixteen channels, `[channel][pixel]` with `stride` between channels, to
    /// `[pixel][channel]`. Channels from `channels` on become zero.
    ///
    /// # Safety
    /// `from` holds the pixels, `to` is good for `count * 16` elements; `count <= 16`.
    #[inline(always)]
    unsafe fn turn(from: *const f32, stride: isize, channels: usize, count: usize, to: *mut f32) {
        for pixel in 0..count {
            for channel in 0..GROUP {
                let at = from.wrapping_offset(channel as isize * stride).wrapping_add(pixel);
                *to.add(pixel * GROUP + channel) = if channel < channels { *at } else { 0.0 };
            }
        }
    }

    /// Asks for a row of sixteen channels, as [`Self::turn`] will read it; `at` may be anything.
    #[inline(always)]
    fn announce(at: *const f32, stride: isize) {
        for i in 0..GROUP as isize {
            prefetch_near(at.wrapping_offset(i * stride));
        }
    }

    /// Stores lanes in runs of [`Self::ROWS`], `panel` elements apart.
    ///
    /// # Safety
    /// `to` is good for all runs.
    #[inline(always)]
    unsafe fn store_rows(self, to: *mut f32, panel: usize) {
        if Self::ROWS == Self::LANES {
            return self.store(to);
        }
        let low = ((1u32 << Self::ROWS) - 1) as u16;
        self.store_mask(to, low);
        self.store_mask(to.wrapping_add(panel).wrapping_sub(Self::ROWS), low << Self::ROWS);
    }
}

/// One group of sixteen channels of `x` or `dy` in some strips, to `[position][tile][lane]`.
pub(in super::super) struct StripsCall {
    /// Column 0 of the group's first channel.
    pub(super) from: *const f32,
    pub(super) strides: Strides,
    /// Rows and columns of the plane.
    pub(super) size: (usize, usize),
    /// Coordinates of the first pixel of tile 0.
    pub(super) origin: (isize, isize),
    /// Channels of the group that exist.
    pub(super) channels: usize,
    pub(super) strips: (usize, usize),
    /// Strips of an image, tiles of a strip.
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) band: usize,
    pub(super) stage: *mut f32,
    pub(super) to: *mut f32,
    pub(super) position: usize,
    /// From one tile to the next, and from one vector of the group to the next.
    pub(super) tile: usize,
    pub(super) vector: usize,
    /// Between panels of rows, for `dy`.
    pub(super) panel: usize,
}

/// What becomes of a tile's pixels. A trait and no closure, which would not inherit target features.
pub(in super::super) trait Operand {
    /// Rows and columns of a tile beyond `M`.
    fn halo<F: Filters>() -> (usize, usize);

    /// Transforms the tile whose pixels begin at `pixels`, rows `row` apart.
    ///
    /// # Safety
    /// The processor has the instructions of `S`; the pixels are there; `to` is good for all positions.
    unsafe fn tile<S: Channels, F: Filters>(call: &StripsCall, pixels: *const f32, row: usize, to: *mut f32);
}

/// `x`, by `B^T x B`.
pub(in super::super) struct Image;
/// `dy`, by `A dy A^T`.
pub(in super::super) struct Gradient;

impl Operand for Image {
    #[inline(always)]
    fn halo<F: Filters>() -> (usize, usize) {
        (F::Y::R - 1, F::X::R - 1)
    }

    #[inline(always)]
    unsafe fn tile<S: Channels, F: Filters>(call: &StripsCall, pixels: *const f32, row: usize, to: *mut f32) {
        let zero = S::splat(0.0);
        let mut rows = [[zero; INPUTS]; INPUTS];
        for r in 0..F::Y::A {
            let mut line = [zero; INPUTS];
            for j in 0..F::X::A {
                line[j] = S::load(pixels.wrapping_add(r * row + j * GROUP));
            }
            rows[r] = F::X::input(line);
        }
        for j in 0..F::X::A {
            let column = F::Y::input(column(&rows, j));
            for i in 0..F::Y::A {
                column[i].store(to.wrapping_add((i * F::X::A + j) * call.position));
            }
        }
    }
}

impl Operand for Gradient {
    #[inline(always)]
    fn halo<F: Filters>() -> (usize, usize) {
        (0, 0)
    }

    #[inline(always)]
    unsafe fn tile<S: Channels, F: Filters>(call: &StripsCall, pixels: *const f32, row: usize, to: *mut f32) {
        let zero = S::splat(0.0);
        let mut rows = [[zero; INPUTS]; OUTPUTS];
        for r in 0..F::Y::M {
            let mut line = [zero; OUTPUTS];
            for j in 0..F::X::M {
                line[j] = S::load(pixels.wrapping_add(r * row + j * GROUP));
            }
            rows[r] = F::X::gradient(line);
        }
        for j in 0..F::X::A {
            let column = F::Y::gradient(column(&rows, j));
            for i in 0..F::Y::A {
                column[i].store_rows(to.wrapping_add((i * F::X::A + j) * call.position), call.panel);
            }
        }
    }
}

/// Transforms strips of an operand.
///
/// # Safety
/// The processor has the instructions of `S`; the strides lead to the operand; `stage` and `to` hold the strips.
#[inline(always)]
pub(in super::super) unsafe fn strips<S: Channels, F: Filters, O: Operand>(call: &StripsCall) {
    let row = (call.columns * F::X::M + O::halo::<F>().1) * GROUP;
    let len = (call.band * F::Y::M + O::halo::<F>().0) * row;
    // Columns outside of the plane stay zero from here on; rows outside are cleared when it is their turn.
    std::slice::from_raw_parts_mut(call.stage, len).fill(0.0);
    let mut to = call.to;
    let (mut strip, end) = call.strips;
    while strip < end {
        let (image, first) = (strip / call.rows, strip % call.rows);
        let count = call.band.min(call.rows - first).min(end - strip);
        let plane = call.from.wrapping_offset(image as isize * call.strides.image);
        let top = (first * F::Y::M) as isize + call.origin.0;
        strip += count;
        // From a row of this band to that of the next, which may be in the next image.
        let images = (strip / call.rows) as isize - image as isize;
        let down = ((strip % call.rows) as isize - first as isize) * F::Y::M as isize;
        let ahead = images * call.strides.image + down * call.strides.row;
        for r in 0..count * F::Y::M + O::halo::<F>().0 {
            turn_row::<S>(call, plane, top + r as isize, call.stage.wrapping_add(r * row), row, ahead);
        }
        for s in 0..count {
            for column in 0..call.columns {
                let pixels = call.stage.wrapping_add(s * F::Y::M * row + column * F::X::M * GROUP);
                for v in 0..GROUP / S::LANES {
                    O::tile::<S, F>(call, pixels.wrapping_add(v * S::LANES), row, to.wrapping_add(v * call.vector));
                }
                to = to.wrapping_add(call.tile);
            }
        }
    }
}

/// Row `y` of sixteen planes to `[column][lane]`, from the first column of tile 0 on; `len` elements.
#[inline(always)]
unsafe fn turn_row<S: Channels>(
    call: &StripsCall,
    plane: *const f32,
    y: isize,
    to: *mut f32,
    len: usize,
    ahead: isize,
) {
    if y < 0 || y >= call.size.0 as isize {
        std::slice::from_raw_parts_mut(to, len).fill(0.0);
        return;
    }
    let first = call.origin.1;
    let end = (first + (len / GROUP) as isize).min(call.size.1 as isize);
    let mut x = first.max(0);
    let from = plane.wrapping_offset(y * call.strides.row);
    while x < end {
        let count = (end - x).min(GROUP as isize) as usize;
        let at = to.wrapping_offset((x - first) * GROUP as isize);
        S::announce(from.wrapping_offset(x + ahead), call.strides.channel);
        S::turn(from.wrapping_offset(x), call.strides.channel, call.channels, count, at);
        x += count as isize;
    }
}

/// Sums of products of some outputs and groups of channels, back to taps.
pub(in super::super) struct TapsCall {
    /// `[position][output][channel]`
    pub(super) from: *const f32,
    pub(super) position: usize,
    /// Channels of the sums, a multiple of sixteen.
    pub(super) lanes: usize,
    pub(super) outputs: usize,
    pub(super) to: Taps,
}

/// Where taps go.
#[derive(Clone, Copy)]
pub(super) enum Taps {
    /// `[output][group][tap][lane]`, so many elements from one output to the next.
    Partial(*mut f32, usize),
    /// The gradient.
    Weights(Weights),
}

/// The gradient from some output and channel on, and how many channels there are from there.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    pub(super) to: *mut f32,
    pub(super) strides: WeightStrides,
    pub(super) channels: usize,
    pub(super) transpose: TransposeFn<f32>,
}

/// Transforms sums: `G^T (sum) G`.
///
/// # Safety
/// The processor has the instructions of `S`; `from` holds the sums and `to` takes the taps.
#[inline(always)]
pub(in super::super) unsafe fn taps<S: Channels, F: Filters>(call: &TapsCall) {
    let zero = S::splat(0.0);
    for o in 0..call.outputs {
        for group in 0..call.lanes / GROUP {
            let mut block = [0.0f32; TAPS * TAPS * GROUP];
            let to = match call.to {
                Taps::Partial(to, output) => to.wrapping_add(o * output + group * F::Y::R * F::X::R * GROUP),
                Taps::Weights(_) => block.as_mut_ptr(),
            };
            for v in 0..GROUP / S::LANES {
                let from = call.from.wrapping_add(o * call.lanes + group * GROUP + v * S::LANES);
                let mut columns = [[zero; TAPS]; INPUTS];
                for j in 0..F::X::A {
                    let mut column = [zero; INPUTS];
                    for i in 0..F::Y::A {
                        column[i] = S::load(from.wrapping_add((i * F::X::A + j) * call.position));
                    }
                    columns[j] = F::Y::taps(column);
                }
                for r in 0..F::Y::R {
                    let row = F::X::taps(column(&columns, r));
                    for s in 0..F::X::R {
                        row[s].store(to.wrapping_add((F::X::R * r + s) * GROUP + v * S::LANES));
                    }
                }
            }
            if let Taps::Weights(weights) = &call.to {
                store_taps::<F>(weights, o, group, block.as_ptr());
            }
        }
    }
}

/// Partial gradients and where their sum goes.
pub(in super::super) struct SumCall {
    /// `[output][group][tap][lane]`, `partial` elements from one to the next.
    pub(super) from: *const f32,
    pub(super) splits: usize,
    pub(super) partial: usize,
    pub(super) groups: usize,
    pub(super) outputs: usize,
    pub(super) to: Weights,
}

/// Adds partial gradients in the order of their numbers.
///
/// # Safety
/// The processor has the instructions of `S`; `from` holds the partial gradients, `to` takes `outputs` of them.
#[inline(always)]
pub(in super::super) unsafe fn sum<S: Channels, F: Filters>(call: &SumCall) {
    let len = F::Y::R * F::X::R * GROUP;
    for o in 0..call.outputs {
        for group in 0..call.groups {
            let mut block = [0.0f32; TAPS * TAPS * GROUP];
            let from = call.from.wrapping_add((o * call.groups + group) * len);
            for at in (0..len).step_by(S::LANES) {
                let mut total = S::load(from.wrapping_add(at));
                for split in 1..call.splits {
                    total = total.add(S::load(from.wrapping_add(split * call.partial + at)));
                }
                total.store(block.as_mut_ptr().add(at));
            }
            store_taps::<F>(&call.to, o, group, block.as_ptr());
        }
    }
}

/// Stores `[tap][lane]` of one output and group.
#[inline(always)]
unsafe fn store_taps<F: Filters>(weights: &Weights, output: usize, group: usize, block: *const f32) {
    let (s, taps) = (&weights.strides, F::Y::R * F::X::R);
    let dense = (F::Y::R == 1 || s.y == F::X::R as isize) && (F::X::R == 1 || s.x == 1);
    let first = weights.to.wrapping_offset(output as isize * s.output + (group * GROUP) as isize * s.channel);
    for tap in (0..taps).step_by(GROUP) {
        let mut turned = [0.0f32; GROUP * GROUP];
        let count = GROUP.min(taps - tap);
        (weights.transpose)(count, GROUP, block.add(tap * GROUP), turned.as_mut_ptr());
        for lane in 0..GROUP.min(weights.channels - group * GROUP) {
            let from = turned.as_ptr().add(lane * GROUP);
            let to = first.wrapping_offset(lane as isize * s.channel);
            if dense {
                copy_short(from, to.wrapping_add(tap), count);
            } else {
                for i in 0..count {
                    let (y, x) = ((tap + i) / F::X::R, (tap + i) % F::X::R);
                    *to.wrapping_offset(y as isize * s.y + x as isize * s.x) = *from.add(i);
                }
            }
        }
    }
}

/// The transforms of one level, for each of `Algorithm::ALL`.
pub(crate) struct GradientTransforms {
    /// Rows of the register block.
    pub(in super::super) rows: usize,
    pub(in super::super) image: [unsafe fn(&StripsCall); ALGORITHMS],
    pub(in super::super) gradient: [unsafe fn(&StripsCall); ALGORITHMS],
    pub(in super::super) taps: [unsafe fn(&TapsCall); ALGORITHMS],
    pub(in super::super) sum: [unsafe fn(&SumCall); ALGORITHMS],
}

/// Instantiates the transforms for a vector type.
macro_rules! gradient_transforms {
    ($vector:ty $(, $feature:literal)?) => {
        mod gradients {
            use super::*;
            use $crate::kernels::winograd::filter::{F11, F23, F25, F43, Filters, each_algorithm};
            use $crate::kernels::winograd::gradient::transform::{
                self, Channels, Gradient, GradientTransforms, Image, StripsCall, SumCall, TapsCall,
            };
            $(#[target_feature(enable = $feature)])?
            unsafe fn image<F: Filters>(call: &StripsCall) {
                transform::strips::<$vector, F, Image>(call);
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn gradient<F: Filters>(call: &StripsCall) {
                transform::strips::<$vector, F, Gradient>(call);
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn taps<F: Filters>(call: &TapsCall) {
                transform::taps::<$vector, F>(call);
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn sum<F: Filters>(call: &SumCall) {
                transform::sum::<$vector, F>(call);
            }
            pub(crate) static GRADIENT: GradientTransforms = GradientTransforms {
                rows: <$vector as Channels>::ROWS,
                image: each_algorithm!(image),
                gradient: each_algorithm!(gradient),
                taps: each_algorithm!(taps),
                sum: each_algorithm!(sum),
            };
        }
        pub(crate) use gradients::GRADIENT;
    };
}
pub(in super::super) use gradient_transforms;
