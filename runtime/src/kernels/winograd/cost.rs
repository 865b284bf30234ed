//! Estimated cycles of a convolution: summed directly, and by each algorithm.

use std::fmt;

use super::super::abi::GROUP;
use super::super::spec::ContractSpec;
use super::super::{Kernels, Level};
use super::algorithm::{ALGORITHMS, Algorithm};
use super::blocks::Blocks;
use super::gradient::{Cut, cut, gradient_shape};
use super::shape::{Shape, shape_of};
use super::{WinogradError, WinogradTile};

/// Cycles on one thread of a Zen 5 core, weights not in its caches unless the spec says that they are near.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WinogradEstimate {
    /// The direct sum.
    pub direct: f64,
    /// By each of [`WinogradTile::ALL`], where there is an algorithm for the kernel.
    pub tiles: [Option<f64>; 2],
}

/// What a level does in a cycle, and in how many cycles it does something, for each of [`Algorithm::ALL`]. Measured for
/// AVX-512, as README.md records; guessed for the other levels.
struct Rates {
    /// Multiply-adds of a cycle.
    products: f64,
    /// Cycles of packing one step of sixteen pixels for the direct sum.
    pack: f64,
    /// Cycles of one channel of a group.
    input: [f64; ALGORITHMS],
    output: [f64; ALGORITHMS],
    /// Cycles of one pair of channels.
    weights: [f64; ALGORITHMS],
    /// Of the gradient by the weights: cycles of sixteen channels of a tile of `x` and of `dy`, and of sixteen weights'
    /// sums.
    image: [f64; ALGORITHMS],
    gradient: [f64; ALGORITHMS],
    taps: [f64; ALGORITHMS],
}

/// Bytes that a core gets from memory, and from the third-level cache, in a cycle.
const MEMORY: f64 = 5.0;
const CACHE: f64 = 16.0;
/// Cycles of loading or storing what a vector has of one more row.
const RUN: f64 = 2.4;
/// Part of the direct sum's time that Winograd has to stay below: estimates are not that good.
const MARGIN: f64 = 0.9;

impl Rates {
    fn of(level: Level) -> Rates {
        match level {
            Level::Avx512 => Rates {
                products: 32.0,
                pack: 5.0,
                input: [150.0, 300.0, 330.0, 45.0, 45.0, 30.0, 30.0],
                output: [110.0, 200.0, 190.0, 40.0, 35.0, 20.0, 20.0],
                weights: [22.0, 35.0, 67.0, 8.0, 10.0, 8.0, 10.0],
                image: [90.0, 180.0, 190.0, 30.0, 30.0, 30.0, 30.0],
                gradient: [60.0, 120.0, 90.0, 25.0, 20.0, 25.0, 20.0],
                taps: [160.0, 220.0, 350.0, 40.0, 60.0, 40.0, 60.0],
            },
            Level::Avx2 => Rates {
                products: 16.0,
                pack: 8.0,
                input: [800.0, 1500.0, 1500.0, 250.0, 250.0, 250.0, 250.0],
                output: [500.0, 1000.0, 600.0, 200.0, 150.0, 200.0, 150.0],
                weights: [25.0, 45.0, 80.0, 12.0, 15.0, 12.0, 15.0],
                image: [180.0, 360.0, 360.0, 60.0, 60.0, 60.0, 60.0],
                gradient: [120.0, 240.0, 180.0, 50.0, 40.0, 50.0, 40.0],
                taps: [300.0, 440.0, 700.0, 80.0, 120.0, 80.0, 120.0],
            },
            _ => Rates {
                products: 5.0,
                pack: 12.0,
                input: [1000.0, 2000.0, 2000.0, 350.0, 350.0, 350.0, 350.0],
                output: [700.0, 1400.0, 1000.0, 300.0, 220.0, 300.0, 220.0],
                weights: [40.0, 90.0, 150.0, 25.0, 30.0, 25.0, 30.0],
                image: [900.0, 1800.0, 1800.0, 300.0, 300.0, 300.0, 300.0],
                gradient: [600.0, 1200.0, 900.0, 250.0, 200.0, 250.0, 200.0],
                taps: [800.0, 1500.0, 2400.0, 200.0, 300.0, 200.0, 300.0],
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
        let source = if spec.near { CACHE } else { MEMORY };
        let estimate = |algorithm: Algorithm| {
            let blocks = Blocks::new(&shape, algorithm, kernels.f32, None);
            winograd(&shape, &blocks, &rates, ahead, source)
        };
        Ok(Self { direct: direct(&shape, &rates, source), tiles: each_tile(shape.taps, estimate) })
    }

    /// Estimates a contraction that is the gradient by the weights of a convolution.
    ///
    /// # Errors
    /// [`WinogradError`] says what the spec is not.
    pub(super) fn of_gradient(spec: &ContractSpec, kernels: &Kernels) -> Result<Self, WinogradError> {
        let shape = gradient_shape(spec)?;
        let rates = Rates::of(kernels.level);
        let pixels = shape.images * shape.out_size.0 * shape.out_size.1;
        let pairs = (shape.outputs * shape.channels) as f64;
        let taps = shape.taps.0 * shape.taps.1;
        let products = taps as f64 * pairs * pixels as f64 / rates.products * 1.08;
        let packing = rates.pack * (pixels * (taps * shape.channels + shape.outputs).div_ceil(GROUP)) as f64;
        let estimate = |algorithm: Algorithm| gradient(&cut(&shape, algorithm, kernels), &rates);
        Ok(Self { direct: products + packing, tiles: each_tile(shape.taps, estimate) })
    }

    /// The tile to use, if any.
    pub fn best(&self) -> Option<WinogradTile> {
        let estimates = WinogradTile::ALL.into_iter().zip(self.tiles);
        let known = estimates.filter_map(|(tile, cycles)| Some((tile, cycles?)));
        let (tile, least) = known.min_by(|a, b| a.1.total_cmp(&b.1))?;
        (least < MARGIN * self.direct).then_some(tile)
    }
}

impl fmt::Display for WinogradEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kilo = |cycles: f64| (cycles / 1e3).ceil();
        write!(f, "thousand cycles: direct {}", kilo(self.direct))?;
        for (tile, cycles) in WinogradTile::ALL.into_iter().zip(self.tiles) {
            if let Some(cycles) = cycles {
                write!(f, ", Winograd by tiles of {} {}", tile.size(), kilo(cycles))?;
            }
        }
        Ok(())
    }
}

/// The estimate of each tile, where there is an algorithm for kernels of `taps x taps`.
fn each_tile(taps: (usize, usize), estimate: impl Fn(Algorithm) -> f64) -> [Option<f64>; 2] {
    WinogradTile::ALL.map(|tile| Algorithm::of(tile, taps).map(&estimate))
}

/// Arithmetic and memory overlap in part.
fn overlap(a: f64, b: f64) -> f64 {
    a.max(b) + 0.5 * a.min(b)
}

/// Weights come at `source` bytes a cycle.
fn direct(shape: &Shape, rates: &Rates, source: f64) -> f64 {
    let pixels = shape.images * shape.out_size.0 * shape.out_size.1;
    let pairs = (shape.outputs * shape.channels) as f64;
    let taps = (shape.taps.0 * shape.taps.1) as f64;
    let products = taps * pairs * pixels as f64 / rates.products * 1.08;
    let packing = rates.pack * taps * (shape.channels * pixels.div_ceil(GROUP)) as f64;
    overlap(products + packing, 4.0 * taps * pairs / source)
}

fn gradient(cut: &Cut, rates: &Rates) -> f64 {
    let (algorithm, positions) = (cut.algorithm as usize, cut.algorithm.positions() as f64);
    let (outputs, channels) = (cut.output_groups as f64, cut.channel_groups as f64);
    let group = GROUP as f64;
    let sums = group * outputs * channels;
    let products = positions * sums * group * cut.tiles() as f64 / rates.products * 1.15;
    // Tiles that transform for themselves repeat what their neighbours do.
    let (output_parts, channel_parts) = if cut.shared { (1, 1) } else { cut.parts() };
    let operands = outputs * rates.gradient[algorithm] * channel_parts as f64
        + channels * rates.image[algorithm] * output_parts as f64;
    products + cut.tiles() as f64 * operands + sums * cut.splits as f64 * rates.taps[algorithm]
}

/// Rows of a narrow plane, beyond the first, in which sixteen tiles of one column lie.
fn more_runs(shape: &Shape, algorithm: Algorithm) -> f64 {
    if algorithm.outputs().1 > 1 { 0.0 } else { (GROUP / shape.out_size.1).saturating_sub(1) as f64 }
}

fn winograd(shape: &Shape, blocks: &Blocks, rates: &Rates, ahead: bool, source: f64) -> f64 {
    let (algorithm, positions) = (blocks.algorithm as usize, blocks.algorithm.positions() as f64);
    let pairs = (shape.outputs * shape.channels) as f64;
    let groups = blocks.all_groups as f64;
    let products = positions * pairs * groups * GROUP as f64 / rates.products * 1.1;
    let bytes = 4.0 * positions * pairs;
    let again = if blocks.weights_are_far() { MEMORY } else { CACHE };
    let traffic = bytes / source + bytes * (blocks.blocks - 1) as f64 / again;
    let (inputs, outputs) = (blocks.algorithm.inputs().0, blocks.algorithm.outputs().0);
    let runs = RUN * more_runs(shape, blocks.algorithm);
    let input = rates.input[algorithm] + runs * inputs as f64;
    let output = rates.output[algorithm] + runs * outputs as f64;
    let transforms = groups * (shape.channels as f64 * input + shape.outputs as f64 * output);
    let weights = if ahead { 0.0 } else { pairs * rates.weights[algorithm] };
    overlap(products, traffic) + transforms + weights
}
