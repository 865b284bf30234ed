#![allow(unsafe_code, reason = "`run` and `pack_weights` call entry points")]
//! 3 x 3 convolutions of stride 1 by minimal filtering: a tile of `M x M` outputs costs `(M + 2)^2` products instead of
//! `9 M^2`, 2.25 times less for M = 2 and 4 times less for M = 4 (Lavin and Gray, Fast Algorithms for Convolutional
//! Neural Networks, CVPR 2016).
//!
//! ```text
//! U = G w G^T       for each output and input channel      winograd_weights, or `WinogradPlan::pack_weights` ahead
//! V = B^T x B       for each input channel and tile        winograd_input, or within winograd_tiles
//! Y = A^T (U V) A   (M + 2)^2 products of matrices         winograd_tiles
//! ```
//!
//! Tiles lie in the lanes: sixteen neighbours are a group, up to eight groups a block, which is transformed, multiplied
//! and transformed back while it is in the second-level cache. Images stay row-major.

mod blocks;
mod drive;
mod geometry;
mod levels;
mod shape;
mod transform;

#[cfg(target_arch = "x86_64")]
mod avx512;

pub use drive::{WinogradDescriptor, winograd_input, winograd_tiles, winograd_weights};

use super::abi::Arguments;
use super::spec::ContractSpec;
use super::{Kernels, Level};
use blocks::Blocks;
use shape::shape_of;

/// Why a contraction is no Winograd convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WinogradError {
    /// Another element type than `f32`.
    #[error("winograd.K1: only f32 is transformed")]
    Element,
    /// More than one group.
    #[error("winograd.K2: a convolution in groups")]
    Groups,
    /// Another kernel than 3 x 3.
    #[error("winograd.K3: the kernel is not 3 x 3")]
    Taps,
    /// Another stride or dilation than 1.
    #[error("winograd.K4: stride or dilation is not 1")]
    Stride,
    /// No convolution of dense rows with an epilogue by channel.
    #[error("winograd.K5: not a convolution of row-major images with dense weights")]
    Form,
}

/// Size of the output tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WinogradTile {
    /// F(2 x 2, 3 x 3)
    Two,
    /// F(4 x 4, 3 x 3)
    Four,
}

/// A compiled Winograd convolution: descriptor, and the sizes its caller must provide.
#[derive(Debug)]
pub struct WinogradPlan {
    descriptor: Box<WinogradDescriptor>,
    kernel: String,
}

impl WinogradPlan {
    /// Compiles `spec`, which may be the convolution or its gradient by the input. If the weights' side of
    /// [`ContractSpec::packed`] is set, they are passed as [`Self::pack_weights`] writes them.
    ///
    /// # Errors
    /// [`WinogradError`] says what the spec is not.
    pub fn new(spec: &ContractSpec, tile: WinogradTile, kernels: &Kernels) -> Result<Self, WinogradError> {
        let shape = shape_of(spec)?;
        let m = if tile == WinogradTile::Two { 2 } else { 4 };
        let blocks = Blocks::new(&shape, m, kernels.f32);
        let descriptor = WinogradDescriptor {
            shape,
            blocks,
            table: kernels.f32,
            transforms: transforms(kernels.level),
            packed: if shape.weights_left { spec.packed.left } else { spec.packed.right },
            activation: shape.activation.code(),
        };
        let kernel = format!("winograd{m}-{}-{}x{}", kernels.f32.name, blocks.mr, blocks.nr);
        Ok(Self { descriptor: Box::new(descriptor), kernel })
    }

    /// The argument of the entry points; good while `self` lives.
    pub fn descriptor(&self) -> *const WinogradDescriptor {
        &raw const *self.descriptor
    }

    /// Whether the weights are the contraction's left operand.
    pub fn weights_left(&self) -> bool {
        self.descriptor.shape.weights_left
    }

    /// Tiles of `winograd_weights`; 0 if the weights are passed transformed.
    pub fn weight_tiles(&self) -> u64 {
        if self.descriptor.packed { 0 } else { self.descriptor.blocks.panels as u64 }
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

    /// Bytes of transformed weights and input, shared by all workers: `Arguments::partials`.
    pub fn partial_bytes(&self) -> usize {
        let b = &self.descriptor.blocks;
        let weights = if self.descriptor.packed { 0 } else { b.weights_len };
        let input = if b.shared_input { b.blocks * b.input_len } else { 0 };
        4 * (weights + input)
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

    /// Algorithm, level, element and register block, such as `winograd4-avx512-f32-13x32`.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// Transforms weights ahead of time.
    ///
    /// # Safety
    /// `from` is the operand's tensor; `to` holds [`Self::packed_bytes`] bytes, 64-byte aligned.
    pub unsafe fn pack_weights(&self, from: *const u8, to: *mut u8) {
        // SAFETY: passed on to the caller.
        unsafe { drive::pack(&self.descriptor, from.cast(), to.cast()) }
    }

    /// Runs all tiles on this thread.
    ///
    /// # Safety
    /// The contract of the entry points, with the buffers in `arguments`.
    pub unsafe fn run(&self, arguments: &Arguments) {
        // SAFETY: passed on to the caller.
        unsafe {
            winograd_weights(self.descriptor(), arguments, 0, self.weight_tiles());
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
