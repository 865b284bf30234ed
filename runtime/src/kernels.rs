//! Micro-kernels: contractions with gathered operands, windows over planes ([`window`]), and elementary functions over
//! strips.
//!
//! Nothing here knows the IR: plain pointers, plain numbers. The compiler describes a contraction with a
//! [`ContractSpec`], gets a [`ContractPlan`], and emits calls of the entry points with the plan's descriptor:
//!
//! ```text
//! contract_begin (descriptor, arguments, 0, 1)           before the tiles, if plan.shares_panels()
//! contract_tiles (descriptor, arguments, begin, end)    any split of 0..plan.tiles() over workers
//! contract_reduce(descriptor, arguments, begin, end)    0..plan.reduce_tiles(), after all tiles
//! pack_operand   (descriptor, side, from, to, begin, end)  once, for an operand marked packed
//! window::*_tiles(descriptor, buffers..., begin, end)     0..plan.tiles()
//! exp, log, ...  (source, destination, length)          strips of f32, in place allowed
//! ```
//!
//! `arguments` points to an [`Arguments`]: the buffers, the partial sums (shared, `plan.partial_bytes()`) and this
//! worker's scratch (`plan.scratch_bytes()`), both 64-byte aligned. A tile is `mc x nc` outputs over one k split. Its
//! row operand is packed as one block of panels, its column operand panel by panel (by the first tile that needs a panel,
//! where several do and the spec allows them to share), and every panel pair goes through a register block `mr x nr`; on
//! the last k block the epilogue is applied in registers and the block stored. If `plan.reduce_tiles()` is 0 the tiles
//! write the output, else they write partial sums and the reduction does.
//!
//! # Contract of the entry points
//! The descriptor's plan is alive. Operands, output and epilogue vectors hold the elements that the spec addresses, and
//! the output overlaps nothing but the residual, with which it may be identical. No two threads run the same tile or
//! use the same scratch. `begin <= end <=` the count of tiles. The processor has the level's instructions, which
//! [`Kernels::for_level`] checks.
//!
//! # Advice to callers
//! - Give a worker consecutive tiles in one call: neighbours along n share the packed row operand.
//! - A stride in a backward pass is a division in a read: compile [`ContractSpec::phases`] instead of the spec itself.
//! - Tables hold one period of m, n and k: the outermost dimension of each, as the images of a batch are, may be large.
//! - Weights that do not change between runs are worth packing ahead ([`Packed`]), most of all for few rows.
//!
//! # Determinism
//! Blocks and splits follow from shapes and level alone, unless the caller hands in a choice of its own; each output
//! element is summed in one fixed order, whichever thread computes which tile. `SumOrder` is that order: choices that
//! keep it keep every bit.

use std::fmt;

mod abi;
mod apart;
mod choice;
mod contract;
mod convert;
mod drive;
pub mod entry;
mod estimate;
mod gather;
mod half;
mod in_place;
mod inner;
pub mod limits;
mod math;
mod pack;
mod period;
mod phases;
mod portable;
pub mod rational;
mod shared;
mod simd;
mod source;
mod spec;
mod store;
mod tile;
mod tiling;
pub mod window;
mod winograd;
mod work;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod dot_avx2;
#[cfg(target_arch = "x86_64")]
mod dot_avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod pack_avx2;
#[cfg(target_arch = "x86_64")]
mod pack_avx512;

#[cfg(test)]
mod tests;

pub use abi::{Arguments, Descriptor};
pub use choice::{ContractChoice, SumOrder};
pub use contract::ContractPlan;
pub use drive::{contract_begin, contract_reduce, contract_tiles, pack_operand};
pub use estimate::Estimate;
pub use spec::{
    Activation, AffineDim, AffineRead, Along, ContractError, ContractSpec, Element, Epilogue, Packed, Side, Stored,
};
pub use tiling::{Columns, Product, Tiling};
pub use winograd::{
    WinogradChoice, WinogradDescriptor, WinogradError, WinogradEstimate, WinogradGradientDescriptor,
    WinogradGradientPlan, WinogradOrder, WinogradPlan, WinogradTile, winograd_gradient_input, winograd_gradient_sum,
    winograd_gradient_tiles, winograd_input, winograd_pack, winograd_tiles,
};

/// Instruction sets, each containing those before it on its architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// No micro-kernels: JITed loops do everything.
    None,
    /// What LLVM makes of plain Rust for the baseline processor.
    Portable,
    /// 128-bit vectors of aarch64.
    Neon,
    /// 256-bit vectors with FMA.
    Avx2,
    /// 512-bit vectors (F, DQ, BW, VL) with FMA and BMI2.
    Avx512,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Self; 5] = [Self::None, Self::Portable, Self::Neon, Self::Avx2, Self::Avx512];

    /// The name used in `KILN_KERNELS`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The level with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Whether this processor can run the level.
    pub fn available(self) -> bool {
        match self {
            Self::None | Self::Portable => true,
            Self::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("bmi2")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The highest level of this processor.
pub fn detect() -> Level {
    let available = Level::ALL.into_iter().filter(|level| level.available());
    available.max().unwrap_or(Level::None)
}

/// `(source, destination, length)`: applies a function to `length` elements; source and destination are equal or disjoint.
pub type StripFn = unsafe extern "C" fn(*const f32, *mut f32, u64);

/// Elementary functions over strips of `f32`; errors are stated in `math.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Strips {
    /// `e^x`
    pub exp: StripFn,
    /// Natural logarithm.
    pub log: StripFn,
    /// Hyperbolic tangent.
    pub tanh: StripFn,
    /// Error function.
    pub erf: StripFn,
    /// `1 / (1 + e^-x)`
    pub sigmoid: StripFn,
}

/// The kernels of one level.
pub struct Kernels {
    /// Which.
    pub level: Level,
    /// Its strip functions.
    pub strips: &'static Strips,
    pub(crate) f32: &'static abi::Table<f32>,
    pub(crate) f64: &'static abi::Table<f64>,
    /// `bf16` and `f16`.
    pub(crate) half: &'static [half::Half<f32>; 2],
    pub(crate) window: &'static window::WindowTable,
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernels").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Kernels {
    /// The kernels of `level`, or of the highest level below it that the processor has; none for [`Level::None`].
    pub fn for_level(level: Level) -> Option<&'static Self> {
        let usable = Level::ALL.into_iter().filter(|l| *l <= level && l.available());
        match usable.max()? {
            Level::None => None,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Some(&AVX512),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Some(&AVX2),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => Some(&NEON),
            _ => Some(&PORTABLE),
        }
    }
}

/// Tables by operands' types, where the processor's instructions beyond those of the level choose.
impl Kernels {
    /// Blocks that sum in `f32`, for operands of these types; `rounds` if those in `f32` may be rounded to `bf16`.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(unused_variables, reason = "other processors have no blocks of bf16 yet")
    )]
    pub(crate) fn floats(&self, left: Element, right: Element, rounds: bool) -> Option<&'static abi::Table<f32>> {
        let all = |fits: &dyn Fn(Element) -> bool| fits(left) && fits(right);
        #[cfg(target_arch = "x86_64")]
        if all(&|e| e == Element::Bf16 || rounds && e == Element::F32)
            && self.level == Level::Avx512
            && is_x86_feature_detected!("avx512bf16")
        {
            return Some(&dot_avx512::BF16);
        }
        all(&|e| matches!(e, Element::F32 | Element::Bf16 | Element::F16)).then_some(self.f32)
    }

    /// Blocks that sum in `i32`, for operands of these types, and whether the right operand has to give the rows, if it
    /// matters.
    pub(crate) fn integers(&self, left: Element, right: Element) -> Option<(&'static abi::Table<i32>, Option<bool>)> {
        let integers = |e: &Element| matches!(e, Element::I8 | Element::U8 | Element::I32);
        if ![left, right].iter().all(integers) {
            return None;
        }
        // Instructions take bytes of rows without sign and bytes of columns with one; where no operand has one, pairs do.
        Some(match self.level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx2 => {
                let wide = self.level == Level::Avx512;
                let vnni =
                    if wide { is_x86_feature_detected!("avx512vnni") } else { is_x86_feature_detected!("avxvnni") };
                let pick = |wide_table, table| if wide { wide_table } else { table };
                match (left, right) {
                    (Element::I32, _) | (_, Element::I32) => (pick(&dot_avx512::I32_WORDS, &dot_avx2::I32_WORDS), None),
                    (Element::U8, Element::U8) => (pick(&dot_avx512::I16_PAIRS, &dot_avx2::I16_PAIRS), None),
                    _ if !vnni => (pick(&dot_avx512::I16_PAIRS, &dot_avx2::I16_PAIRS), None),
                    _ if left == right => (pick(&dot_avx512::I8_QUADS, &dot_avx2::I8_QUADS), None),
                    _ => (pick(&dot_avx512::U8_QUADS, &dot_avx2::U8_QUADS), Some(right == Element::U8)),
                }
            }
            _ => (&portable::I32, None),
        })
    }
}

static PORTABLE: Kernels = Kernels {
    level: Level::Portable,
    strips: &portable::STRIPS,
    f32: &portable::F32,
    f64: &portable::F64,
    half: &portable::HALVES,
    window: &portable::WINDOW,
};

#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = Kernels {
    level: Level::Avx2,
    strips: &avx2::STRIPS,
    f32: &avx2::F32,
    f64: &avx2::F64,
    half: &avx2::HALVES,
    window: &avx2::WINDOW,
};

#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = Kernels {
    level: Level::Avx512,
    strips: &avx512::STRIPS,
    f32: &avx512::F32,
    f64: &avx512::F64,
    half: &avx512::HALVES,
    window: &avx512::WINDOW,
};

#[cfg(target_arch = "aarch64")]
static NEON: Kernels = Kernels {
    level: Level::Neon,
    strips: &neon::STRIPS,
    f32: &neon::F32,
    f64: &portable::F64,
    half: &neon::HALVES,
    window: &neon::WINDOW,
};
