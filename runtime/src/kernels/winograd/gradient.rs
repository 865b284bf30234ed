#![allow(unsafe_code, reason = "`run` calls entry points")]
//! The gradient by the weights of a convolution, by the transposed algorithm: where the convolution is
//! `y = A^T ((G w G^T) (B^T x B)) A` for each tile, its derivative by `w` is
//!
//! ```text
//! V = B^T x B       for each channel and tile of x         winograd_gradient_input, or within the tiles
//! W = A dy A^T      for each output and tile of dy         likewise
//! dw = G^T (sum over tiles of W V) G                       winograd_gradient_tiles
//! ```
//!
//! and costs as few products: `(m + r - 1)^2` instead of `m^2 r^2` for a tile of `m x m` elements of `dy`. The products sum
//! over tiles, so channels lie in the lanes. Long sums are split at fixed tiles; partial gradients are added in the order
//! of their numbers (`winograd_gradient_sum`).

mod cut;
mod drive;
mod shape;
pub(super) mod transform;

pub use drive::{WinogradGradientDescriptor, winograd_gradient_input, winograd_gradient_sum, winograd_gradient_tiles};

use super::super::abi::Arguments;
use super::super::spec::ContractSpec;
use super::super::{Kernels, Level};
use super::algorithm::Algorithm;
use super::{WinogradError, WinogradEstimate, WinogradTile};
pub(super) use cut::Cut;
use shape::GradientShape;
pub(super) use shape::gradient_shape;
use transform::GradientTransforms;

/// A compiled gradient by the weights: descriptor, and the sizes its caller must provide.
#[derive(Debug)]
pub struct WinogradGradientPlan {
    descriptor: Box<WinogradGradientDescriptor>,
    kernel: String,
    multiply_adds: u64,
}

/// How an algorithm cuts a gradient.
pub(super) fn cut(shape: &GradientShape, algorithm: Algorithm, kernels: &Kernels) -> Cut {
    Cut::new(shape, algorithm, kernels.f32, transforms(kernels.level).rows)
}

impl WinogradGradientPlan {
    /// Compiles `spec`.
    ///
    /// # Errors
    /// [`WinogradError`] says what the spec is not.
    pub fn new(spec: &ContractSpec, tile: WinogradTile, kernels: &Kernels) -> Result<Self, WinogradError> {
        let shape = gradient_shape(spec)?;
        let algorithm = Algorithm::of(tile, shape.taps).ok_or(WinogradError::Taps)?;
        let cut = cut(&shape, algorithm, kernels);
        let kernel = format!("winograd-{algorithm}-grad-{}-{}x{}", kernels.f32.name, cut.mr, cut.nr);
        let transforms = transforms(kernels.level);
        let descriptor = Box::new(WinogradGradientDescriptor { shape, cut, table: kernels.f32, transforms });
        let multiply_adds = [&spec.batch, &spec.m, &spec.n, &spec.k].into_iter().flatten().map(|&e| e as u64).product();
        Ok(Self { descriptor, kernel, multiply_adds })
    }

    /// The faster tile, if either is faster than summing directly and the sum is long.
    ///
    /// A tap that meets only zeros (borders, channels that a relu cut off) has a gradient of exactly zero in a direct sum, and
    /// of the size of rounding here; Adam divides by that size, and makes whole steps of it. Over many positions no tap
    /// meets only zeros.
    ///
    /// # Errors
    /// [`WinogradError`], or the estimates if the direct sum is faster.
    pub fn choose(spec: &ContractSpec, kernels: &Kernels) -> Result<Self, WinogradError> {
        let estimate = WinogradEstimate::of_gradient(spec, kernels)?;
        let tile = estimate.best().ok_or(WinogradError::Slower(estimate))?;
        Self::long(spec, tile, kernels)
    }

    /// As [`WinogradGradientPlan::new`], for a sum that is long.
    ///
    /// # Errors
    /// [`WinogradError`], [`WinogradError::Few`] among them.
    pub fn long(spec: &ContractSpec, tile: WinogradTile, kernels: &Kernels) -> Result<Self, WinogradError> {
        const FEW: usize = 1024;
        let positions = spec.k.iter().product();
        if positions < FEW { Err(WinogradError::Few(positions)) } else { Self::new(spec, tile, kernels) }
    }

    /// Size of its tiles.
    pub fn tile(&self) -> WinogradTile {
        self.descriptor.cut.algorithm.tile()
    }

    /// What decides the bits: tile, strips of a chunk, chunks of a partial sum, rows and columns of the register block.
    pub fn order(&self) -> [usize; 5] {
        let cut = &self.descriptor.cut;
        [cut.algorithm.tile().size(), cut.chunk, cut.split_chunks, cut.mr, cut.nr]
    }

    /// Multiply-adds of the sums that it replaces.
    pub fn multiply_adds(&self) -> u64 {
        self.multiply_adds
    }

    /// The argument of the entry points; good while `self` lives.
    pub fn descriptor(&self) -> *const WinogradGradientDescriptor {
        &raw const *self.descriptor
    }

    /// Tiles of `winograd_gradient_input`, which run first; 0 if the others transform what they multiply.
    pub fn input_tiles(&self) -> u64 {
        let cut = &self.descriptor.cut;
        if cut.shared { (cut.chunks * (cut.output_groups + cut.channel_groups)) as u64 } else { 0 }
    }

    /// Tiles of `winograd_gradient_tiles`.
    pub fn tiles(&self) -> u64 {
        let cut = &self.descriptor.cut;
        let parts = cut.parts();
        (cut.splits * parts.0 * parts.1) as u64
    }

    /// Tiles of `winograd_gradient_sum`, which run last; 0 if the others store the gradient.
    pub fn sum_tiles(&self) -> u64 {
        let cut = &self.descriptor.cut;
        if cut.splits > 1 { cut.output_groups as u64 } else { 0 }
    }

    /// Bytes shared by all workers, `Arguments::partials`: transformed operands and partial gradients.
    pub fn partial_bytes(&self) -> usize {
        let cut = &self.descriptor.cut;
        let partials = if cut.splits > 1 { cut.splits * cut.partial_len() } else { 0 };
        4 * (cut.shared_len() + partials)
    }

    /// Bytes of scratch each worker needs.
    pub fn scratch_bytes(&self) -> usize {
        let cut = &self.descriptor.cut;
        let own = if cut.shared { 0 } else { cut.chunk_len() };
        4 * (cut.stage_len + own + cut.algorithm.positions() * cut.sums_position)
    }

    /// Algorithm, level, element and register block, such as `winograd-f4x3-grad-avx512-f32-8x32`.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// Tiles, chunks and splits of the sum, for humans.
    pub fn describe(&self) -> String {
        let cut = &self.descriptor.cut;
        let operands = if cut.shared { "for all first" } else { "by each tile" };
        format!(
            "sums over {} tiles of {} x {}, {} to a chunk, in {} splits; {} x {} weights a tile; transforms operands \
             {operands}",
            cut.tiles(),
            cut.algorithm.outputs().0,
            cut.algorithm.outputs().1,
            cut.chunk * cut.columns,
            cut.splits,
            16 * cut.output_part,
            16 * cut.channel_part,
        )
    }

    /// Runs everything on this thread.
    ///
    /// # Safety
    /// The contract of the entry points, with the buffers in `arguments`.
    pub unsafe fn run(&self, arguments: &Arguments) {
        // SAFETY: passed on to the caller.
        unsafe {
            winograd_gradient_input(self.descriptor(), arguments, 0, self.input_tiles());
            winograd_gradient_tiles(self.descriptor(), arguments, 0, self.tiles());
            winograd_gradient_sum(self.descriptor(), arguments, 0, self.sum_tiles());
        }
    }
}

/// The transforms of a level.
fn transforms(level: Level) -> &'static GradientTransforms {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => &super::avx512::GRADIENT,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => &super::levels::avx2::GRADIENT,
        #[cfg(target_arch = "aarch64")]
        Level::Neon => &super::levels::neon::GRADIENT,
        _ => &super::levels::portable::GRADIENT,
    }
}
