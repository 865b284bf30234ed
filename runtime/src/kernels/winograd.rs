#![allow(unsafe_code, reason = "`run` and `pack_weights` call entry points")]
//! Convolutions of stride 1 by minimal filtering (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR
//! 2016). F(m x m, r x r) makes tiles of `m x m` outputs of a kernel of `r x r` taps by `(m + r - 1)^2` products instead
//! of `m^2 r^2`:
//!
//! | algorithm | products of an output | times fewer |
//! |---|---|---|
//! | F(2 x 2, 3 x 3) | 16 / 4 | 2.25 |
//! | F(4 x 4, 3 x 3) | 36 / 16 | 4 |
//! | F(2 x 2, 5 x 5) | 36 / 4 | 2.8 |
//! | F(4, 3) along one dimension | 6 / 4 | 2 |
//! | F(2, 5) along one dimension | 6 / 2 | 1.7 |
//!
//! ```text
//! U = G w G^T       for each output and input channel      winograd_pack
//! V = B^T x B       for each input channel and tile        winograd_input, or within winograd_tiles
//! Y = A^T (U V) A   (m + r - 1)^2 products of matrices     winograd_tiles
//! ```
//!
//! The matrices are those of `filter.rs`, one dimension of each algorithm; everything else only counts with `m` and `r`.
//! Tiles lie in the lanes: sixteen neighbours are a group, up to eight groups a block, which is transformed, multiplied
//! and transformed back while it is in the second-level cache. Images stay row-major.

mod algorithm;
mod blocks;
mod cost;
mod drive;
mod filter;
mod geometry;
mod gradient;
mod levels;
mod line;
mod shape;
mod transform;

#[cfg(target_arch = "x86_64")]
mod avx512;

pub use drive::{WinogradDescriptor, winograd_input, winograd_pack, winograd_tiles};
pub use gradient::{
    WinogradGradientDescriptor, WinogradGradientPlan, winograd_gradient_input, winograd_gradient_sum,
    winograd_gradient_tiles,
};

use super::abi::Arguments;
use super::spec::{ContractSpec, Side};
use super::{Kernels, Level};
use algorithm::Algorithm;
use blocks::Blocks;
pub use cost::WinogradEstimate;
use shape::shape_of;

/// Why a contraction is no Winograd convolution.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum WinogradError {
    /// Another element type than `f32`.
    #[error("winograd.K1: only f32 is transformed")]
    Element,
    /// More than one group.
    #[error("winograd.K2: a convolution in groups")]
    Groups,
    /// A kernel without an algorithm for tiles of this size.
    #[error("winograd.K3: no algorithm for tiles of kernels of this size")]
    Taps,
    /// Another stride or dilation than 1.
    #[error("winograd.K4: stride or dilation is not 1")]
    Stride,
    /// No convolution of dense rows with an epilogue by channel.
    #[error("winograd.K5: not a convolution of row-major images with dense weights")]
    Form,
    /// Nothing is gained.
    #[error("winograd.K6: {0}")]
    Slower(WinogradEstimate),
    /// A gradient that few positions contribute to.
    #[error("winograd.K7: a gradient summed over {0} positions only, where it may be exactly zero")]
    Few(usize),
}

/// Size of the output tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WinogradTile {
    /// 2 x 2, for kernels of 3 x 3 and 5 x 5; 2 for those of 5 in one dimension.
    Two,
    /// 4 x 4, for kernels of 3 x 3; 4 for those of 3 in one dimension.
    Four,
}

impl WinogradTile {
    /// All of them.
    pub const ALL: [WinogradTile; 2] = [WinogradTile::Two, WinogradTile::Four];

    /// Rows and columns, as far as the kernel has them.
    pub fn size(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// One way to compute a Winograd convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WinogradChoice {
    /// Size of the output tiles, which decides the bits.
    pub tile: WinogradTile,
    /// Groups of sixteen tiles in a block.
    pub groups: usize,
    /// Parts of the outputs, each a tile of the launch; if there are several, the input is transformed once for all.
    pub parts: usize,
}

/// In which order a plan adds: plans of one convolution that have equal orders compute equal bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WinogradOrder {
    tile: WinogradTile,
    chained: Option<usize>,
}

/// A compiled Winograd convolution: descriptor, and the sizes its caller must provide.
#[derive(Debug)]
pub struct WinogradPlan {
    descriptor: Box<WinogradDescriptor>,
    kernel: String,
    multiply_adds: u64,
}

impl WinogradPlan {
    /// Compiles `spec`, which may be a convolution or its gradient by the input. The weights are passed as
    /// [`winograd_pack`] writes them.
    ///
    /// # Errors
    /// [`WinogradError`] says what the spec is not.
    pub fn new(spec: &ContractSpec, tile: WinogradTile, kernels: &Kernels) -> Result<Self, WinogradError> {
        Self::build(spec, tile, None, kernels)
    }

    /// As [`WinogradPlan::new`], cut as `choice` says, as far as that is possible.
    ///
    /// # Errors
    /// As [`WinogradPlan::new`].
    pub fn with(spec: &ContractSpec, choice: &WinogradChoice, kernels: &Kernels) -> Result<Self, WinogradError> {
        Self::build(spec, choice.tile, Some((choice.groups, choice.parts)), kernels)
    }

    fn build(
        spec: &ContractSpec,
        tile: WinogradTile,
        wish: Option<(usize, usize)>,
        kernels: &Kernels,
    ) -> Result<Self, WinogradError> {
        let shape = shape_of(spec)?;
        let algorithm = Algorithm::of(tile, shape.taps).ok_or(WinogradError::Taps)?;
        let blocks = Blocks::new(&shape, algorithm, kernels.f32, wish);
        let descriptor = WinogradDescriptor {
            shape,
            blocks,
            table: kernels.f32,
            transforms: transforms(kernels.level),
            activation: shape.activation.code(),
        };
        let kernel = format!("winograd-{algorithm}-{}-{}x{}", kernels.f32.name, blocks.mr, blocks.nr);
        let multiply_adds = [&spec.batch, &spec.m, &spec.n, &spec.k].into_iter().flatten().map(|&e| e as u64).product();
        Ok(Self { descriptor: Box::new(descriptor), kernel, multiply_adds })
    }

    /// How it is computed.
    pub fn choice(&self) -> WinogradChoice {
        let b = &self.descriptor.blocks;
        WinogradChoice { tile: b.algorithm.tile(), groups: b.groups, parts: b.output_parts }
    }

    /// In which order it adds.
    pub fn order(&self) -> WinogradOrder {
        let (b, shape) = (&self.descriptor.blocks, &self.descriptor.shape);
        WinogradOrder { tile: b.algorithm.tile(), chained: b.chained(shape.outputs, self.descriptor.table) }
    }

    /// Other ways that add in the same order, and that differ.
    pub fn alternatives(&self) -> Vec<WinogradChoice> {
        let (b, table) = (&self.descriptor.blocks, self.descriptor.table);
        let mut found = Vec::new();
        for groups in [1, 2, 3, 4, 6, 8] {
            for parts in [1, 2, 3, 4, 6, 8] {
                let other = Blocks::new(&self.descriptor.shape, b.algorithm, table, Some((groups, parts)));
                let order = other.chained(self.descriptor.shape.outputs, table) == self.order().chained;
                if order && other != *b && found.iter().all(|(_, blocks)| *blocks != other) {
                    found.push((WinogradChoice { groups, parts, ..self.choice() }, other));
                }
            }
        }
        // Likely ones first: as many tiles of the launch as now.
        let tiles = |b: &Blocks| (b.blocks * b.output_parts) as f64;
        found.sort_by(|x, y| {
            let far = |blocks: &Blocks| (tiles(blocks) / tiles(b)).ln().abs();
            far(&x.1).total_cmp(&far(&y.1))
        });
        found.into_iter().map(|(choice, _)| choice).collect()
    }

    /// Multiply-adds of the sums that it replaces.
    pub fn multiply_adds(&self) -> u64 {
        self.multiply_adds
    }

    /// The fastest tile, if any is faster than summing directly.
    ///
    /// # Errors
    /// [`WinogradError`], or the estimates if the direct sum is faster.
    pub fn choose(spec: &ContractSpec, kernels: &Kernels) -> Result<Self, WinogradError> {
        let estimate = WinogradEstimate::new(spec, kernels)?;
        match estimate.best() {
            Some(tile) => Self::new(spec, tile, kernels),
            None => Err(WinogradError::Slower(estimate)),
        }
    }

    /// The argument of the entry points; good while `self` lives.
    pub fn descriptor(&self) -> *const WinogradDescriptor {
        &raw const *self.descriptor
    }

    /// Which operand the weights are: the one that is passed transformed.
    pub fn weights(&self) -> Side {
        if self.descriptor.shape.weights_left { Side::Left } else { Side::Right }
    }

    /// Tiles of [`winograd_pack`].
    pub fn pack_tiles(&self) -> u64 {
        self.descriptor.blocks.panels as u64
    }

    /// Tiles of `winograd_input`, after which `winograd_tiles` may run; 0 if those fetch the input themselves.
    pub fn input_tiles(&self) -> u64 {
        let b = &self.descriptor.blocks;
        if b.shared_input { (b.blocks * b.channel_chunks) as u64 } else { 0 }
    }

    /// Tiles of `winograd_tiles`.
    pub fn tiles(&self) -> u64 {
        (self.descriptor.blocks.blocks * self.descriptor.blocks.output_parts) as u64
    }

    /// Bytes of transformed input shared by all workers, `Arguments::partials`; 0 if the tiles fetch it themselves.
    pub fn partial_bytes(&self) -> usize {
        let b = &self.descriptor.blocks;
        if b.shared_input { 4 * b.blocks * b.input_len } else { 0 }
    }

    /// Bytes of scratch each worker needs.
    pub fn scratch_bytes(&self) -> usize {
        let b = &self.descriptor.blocks;
        4 * (b.sums_len + if b.shared_input { 0 } else { b.input_len })
    }

    /// Bytes of the transformed weights.
    pub fn packed_bytes(&self) -> usize {
        4 * self.descriptor.blocks.weights_len
    }

    /// Algorithm, level, element and register block, such as `winograd-f4x3-avx512-f32-13x32`.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// Tiles of a group, groups of a block, and outputs of a tile of the launch, for humans.
    pub fn describe(&self) -> String {
        let b = &self.descriptor.blocks;
        let input = if b.shared_input { "for all first" } else { "by each tile" };
        format!(
            "{} groups of 16 tiles of {} x {}, {} to a block, {} outputs a tile; transforms the input {input}",
            b.all_groups,
            b.algorithm.outputs().0,
            b.algorithm.outputs().1,
            b.groups,
            b.output_part.min(self.descriptor.shape.outputs),
        )
    }

    /// Transforms all weights on this thread.
    ///
    /// # Safety
    /// `from` is the operand's tensor; `to` holds [`Self::packed_bytes`] bytes.
    pub unsafe fn pack_weights(&self, from: *const u8, to: *mut u8) {
        // SAFETY: passed on to the caller.
        unsafe { winograd_pack(self.descriptor(), self.weights().code(), from, to, 0, self.pack_tiles()) }
    }

    /// Runs all tiles on this thread.
    ///
    /// # Safety
    /// The contract of the entry points, with the buffers in `arguments`.
    pub unsafe fn run(&self, arguments: &Arguments) {
        // SAFETY: passed on to the caller.
        unsafe {
            winograd_input(self.descriptor(), arguments, 0, self.input_tiles());
            winograd_tiles(self.descriptor(), arguments, 0, self.tiles());
        }
    }
}

/// The transforms of a level.
fn transforms(level: Level) -> &'static transform::Transforms {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => &avx512::TRANSFORMS,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => &levels::avx2::TRANSFORMS,
        #[cfg(target_arch = "aarch64")]
        Level::Neon => &levels::neon::TRANSFORMS,
        _ => &levels::portable::TRANSFORMS,
    }
}
