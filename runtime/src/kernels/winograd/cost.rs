//! Estimated cycles of a convolution: summed directly, and by each Winograd tile.

use std::fmt;

use super::super::abi::GROUP;
use super::super::spec::ContractSpec;
use super::super::{Kernels, Level};
use super::blocks::Blocks;
use super::gradient::{Cut, cuts};
use super::shape::{Shape, shape_of};
use super::{WinogradError, WinogradTile};

/// Cycles on one thread of a Zen 5 core, weights not in its caches, as they are not in a network of many layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WinogradEstimate {
    /// The direct sum.
    pub direct: f64,
    /// F(2 x 2, 3 x 3).
    pub two: f64,
    /// F(4 x 4, 3 x 3).
    pub four: f64,
}

/// What a level does in a cycle, and in how many cycles it does something. Measured for AVX-512, as README.md
/// records; guessed for the other levels.
struct Rates {
    /// Multiply-adds of a cycle.
    products: f64,
    /// Cycles of packing one step of sixteen pixels for the direct sum.
    pack: f64,
    /// Cycles of one channel of a group, for both tiles.
    input: [f64; 2],
    output: [f64; 2],
    /// Cycles of one pair of channels.
    weights: [f64; 2],
    /// Of the gradient by the weights: cycles of sixteen channels of a tile of `x` and of `dy`, and of sixteen weights'
    /// sums.
    image: [f64; 2],
    gradient: [f64; 2],
    taps: [f64; 2],
}

/// Bytes that a core gets from memory, and from the third-level cache, in a cycle.
const MEMORY: f64 = 5.0;
const CACHE: f64 = 16.0;
/// Part of the direct sum's time that Winograd has to stay below: estimates are not that good.
const MARGIN: f64 = 0.9;

impl Rates {
    fn of(level: Level) -> Rates {
        match level {
            Level::Avx512 => Rates {
                products: 32.0,
                pack: 5.0,
                input: [150.0, 300.0],
                output: [110.0, 200.0],
                weights: [22.0, 35.0],
                image: [90.0, 180.0],
                gradient: [60.0, 120.0],
                taps: [160.0, 220.0],
            },
            Level::Avx2 => Rates {
                products: 16.0,
                pack: 8.0,
                input: [800.0, 1500.0],
                output: [500.0, 1000.0],
                weights: [25.0, 45.0],
                image: [180.0, 360.0],
                gradient: [120.0, 240.0],
                taps: [300.0, 440.0],
            },
            _ => Rates {
                products: 5.0,
                pack: 12.0,
                input: [1000.0, 2000.0],
                output: [700.0, 1400.0],
                weights: [40.0, 90.0],
                image: [900.0, 1800.0],
                gradient: [600.0, 1200.0],
                taps: [800.0, 1500.0],
            },
        }
    }
}

impl WinogradEstimate {
    /// Estimates a contraction that is a convolution.
    ///
    /// # Errors
    /// [`WinogradError`] says what the spec is not.
    pub fn new(spec: &ContractSpec, kernels: &Kernels) -> Result<Self, WinogradError> {
        let shape = shape_of(spec)?;
        let ahead = if shape.weights_left { spec.packed.left } else { spec.packed.right };
        let rates = Rates::of(kernels.level);
        let tile = |tile: WinogradTile| {
            let blocks = Blocks::new(&shape, tile.size(), kernels.f32, None);
            winograd(&shape, &blocks, &rates, ahead)
        };
        Ok(Self { direct: direct(&shape, &rates), two: tile(WinogradTile::Two), four: tile(WinogradTile::Four) })
    }

    /// Estimates a contraction that is the gradient by the weights of a convolution.
    ///
    /// # Errors
    /// [`WinogradError`] says what the spec is not.
    pub(super) fn of_gradient(spec: &ContractSpec, kernels: &Kernels) -> Result<Self, WinogradError> {
        let (shape, [two, four]) = cuts(spec, kernels)?;
        let rates = Rates::of(kernels.level);
        let pixels = shape.images * shape.out_size.0 * shape.out_size.1;
        let pairs = (shape.outputs * shape.channels) as f64;
        let products = 9.0 * pairs * pixels as f64 / rates.products * 1.08;
        let packing = rates.pack * (pixels * (9 * shape.channels + shape.outputs).div_ceil(GROUP)) as f64;
        let tile = |cut: &Cut| gradient(cut, &rates);
        Ok(Self { direct: products + packing, two: tile(&two), four: tile(&four) })
    }

    /// The tile to use, if any.
    pub fn best(&self) -> Option<WinogradTile> {
        let (least, tile) =
            if self.two < self.four { (self.two, WinogradTile::Two) } else { (self.four, WinogradTile::Four) };
        (least < MARGIN * self.direct).then_some(tile)
    }
}

impl fmt::Display for WinogradEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kilo = |cycles: f64| (cycles / 1e3).ceil();
        let (direct, two, four) = (kilo(self.direct), kilo(self.two), kilo(self.four));
        write!(f, "thousand cycles: direct {direct}, Winograd 2 x 2 {two}, Winograd 4 x 4 {four}")
    }
}

/// Arithmetic and memory overlap in part.
fn overlap(a: f64, b: f64) -> f64 {
    a.max(b) + 0.5 * a.min(b)
}

fn direct(shape: &Shape, rates: &Rates) -> f64 {
    let pixels = shape.images * shape.out_size.0 * shape.out_size.1;
    let pairs = (shape.outputs * shape.channels) as f64;
    let products = 9.0 * pairs * pixels as f64 / rates.products * 1.08;
    let packing = rates.pack * 9.0 * (shape.channels * pixels.div_ceil(GROUP)) as f64;
    overlap(products + packing, 36.0 * pairs / MEMORY)
}

fn gradient(cut: &Cut, rates: &Rates) -> f64 {
    let (variant, positions) = (usize::from(cut.m == 4), cut.positions() as f64);
    let (outputs, channels) = (cut.output_groups as f64, cut.channel_groups as f64);
    let group = GROUP as f64;
    let sums = group * outputs * channels;
    let products = positions * sums * group * cut.tiles() as f64 / rates.products * 1.15;
    // Tiles that transform for themselves repeat what their neighbours do.
    let (output_parts, channel_parts) = if cut.shared { (1, 1) } else { cut.parts() };
    let operands = outputs * rates.gradient[variant] * channel_parts as f64
        + channels * rates.image[variant] * output_parts as f64;
    products + cut.tiles() as f64 * operands + sums * cut.splits as f64 * rates.taps[variant]
}

fn winograd(shape: &Shape, blocks: &Blocks, rates: &Rates, ahead: bool) -> f64 {
    let (variant, positions) = (blocks.variant(), blocks.positions() as f64);
    let pairs = (shape.outputs * shape.channels) as f64;
    let groups = blocks.all_groups as f64;
    let products = positions * pairs * groups * GROUP as f64 / rates.products * 1.1;
    let bytes = 4.0 * positions * pairs;
    let again = if blocks.weights_are_far() { MEMORY } else { CACHE };
    let traffic = bytes / MEMORY + bytes * (blocks.blocks - 1) as f64 / again;
    let transforms =
        groups * (shape.channels as f64 * rates.input[variant] + shape.outputs as f64 * rates.output[variant]);
    let weights = if ahead { 0.0 } else { pairs * rates.weights[variant] };
    overlap(products, traffic) + transforms + weights
}
