//! What a contraction is, as its callers say it: extents, affine reads, epilogue.

use std::hash::{Hash, Hasher};

/// `out[g, m, n] = epilogue(sum over k of left[g, m, k] * right[g, k, n])`, each index being a tuple.
///
/// Loop dimensions are numbered through `batch`, `m`, `n`, `k` in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ContractSpec {
    /// Type in which products are summed and the epilogue computes: `f32`, `f64` or `i32`.
    pub element: Element,
    /// Tensors of other types.
    pub stored: Stored,
    /// Whether operands in `f32` may be rounded to `bf16` where that is faster.
    pub rounds_operands: bool,
    /// Extents of the dimensions that both operands and the output have.
    pub batch: Vec<usize>,
    /// Extents of the dimensions of the left operand and the output.
    pub m: Vec<usize>,
    /// Extents of the dimensions of the right operand and the output.
    pub n: Vec<usize>,
    /// Extents of the summed dimensions.
    pub k: Vec<usize>,
    /// How the left operand is read; it may not use n dimensions.
    pub left: AffineRead,
    /// How the right operand is read; it may not use m dimensions.
    pub right: AffineRead,
    /// Element stride of the output for each of the batch, m and n dimensions.
    pub out_strides: Vec<i64>,
    /// Element offset of the first output.
    pub out_offset: i64,
    /// What is done to a sum before it is stored.
    pub epilogue: Epilogue,
    /// Operands that the caller passes as panels written by `pack_operand`.
    pub packed: Packed,
    /// Whether tiles may share panels of the operand that several of them would pack, in memory that the plan asks for.
    pub shares_panels: bool,
    /// Whether the weights are still in the caches from the run before, as those of a small network are.
    pub near: bool,
}

/// Element type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Element {
    /// `f32`
    #[default]
    F32,
    /// `f64`
    F64,
    /// `bf16`, summed in `f32`.
    Bf16,
    /// `f16`, summed in `f32`.
    F16,
    /// `i8`, summed in `i32`.
    I8,
    /// `u8`, summed in `i32`.
    U8,
    /// `i32`
    I32,
}

impl Element {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Element::F64 => 8,
            Element::F32 | Element::I32 => 4,
            Element::Bf16 | Element::F16 => 2,
            Element::I8 | Element::U8 => 1,
        }
    }
}

/// Element types in memory; `None` is the type of the sums. Operands of a contraction in `f32` may be `bf16` or `f16`, as
/// may its output together with the vectors and the residual of the epilogue; those of one in `i32` may be `i8` or `u8`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stored {
    /// Left operand.
    pub left: Option<Element>,
    /// Right operand.
    pub right: Option<Element>,
    /// Output, bias, scale and residual.
    pub out: Option<Element>,
}

impl ContractSpec {
    /// Type of an operand's elements.
    pub fn operand(&self, side: Side) -> Element {
        let stored = match side {
            Side::Left => self.stored.left,
            Side::Right => self.stored.right,
        };
        stored.unwrap_or(self.element)
    }

    /// Type of the output's elements.
    pub fn output(&self) -> Element {
        self.stored.out.unwrap_or(self.element)
    }
}

/// Reads one element per loop point: one [`AffineDim`] per operand dimension.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AffineRead {
    /// Operand dimensions, any order.
    pub dims: Vec<AffineDim>,
}

/// Index of one operand dimension: `(sum of coefficient * loop index + offset) / divisor`. The read is 0 unless the
/// division is exact and the index is in `0..extent`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AffineDim {
    /// `(loop dimension, coefficient)`
    pub terms: Vec<(usize, i64)>,
    /// Added to the sum.
    pub offset: i64,
    /// At least 1.
    pub divisor: i64,
    /// Extent of the operand dimension.
    pub extent: usize,
    /// Elements between neighbours of this dimension.
    pub stride: i64,
}

/// Which operands are prepacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Packed {
    /// The left one.
    pub left: bool,
    /// The right one.
    pub right: bool,
}

impl Packed {
    /// Whether the operand is.
    pub fn side(self, side: Side) -> bool {
        match side {
            Side::Left => self.left,
            Side::Right => self.right,
        }
    }
}

/// One of the operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The left one, code 0 of `pack_operand`.
    Left,
    /// The right one, code 1 of `pack_operand`.
    Right,
}

impl Side {
    /// How `pack_operand` knows it.
    pub fn code(self) -> u64 {
        match self {
            Side::Left => 0,
            Side::Right => 1,
        }
    }
}

/// Applied in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epilogue {
    /// Adds a vector.
    pub bias: Option<Along>,
    /// Multiplies by a vector.
    pub scale: Option<Along>,
    /// Adds a tensor addressed as the output.
    pub residual: bool,
    /// Last.
    pub activation: Activation,
}

/// The index that a bias or scale vector has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Along {
    /// One value for each flat m index, contiguous.
    M,
    /// One value for each flat n index, contiguous.
    N,
}

/// The closed set of activations. `NaN` gives `NaN` in each.
#[derive(Clone, Copy, Debug, Default)]
pub enum Activation {
    /// Identity.
    #[default]
    None,
    /// `max(x, 0)`
    Relu,
    /// `x` above 0, else this slope times `x`.
    LeakyRelu(f64),
    /// GELU by the tanh formula.
    GeluTanh,
    /// GELU by erf.
    GeluErf,
    /// `x / (1 + e^-x)`
    Silu,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `min(max(x + 3, 0), 6) / 6`
    HardSigmoid,
    /// `x` times that.
    HardSwish,
    /// `min(max(x, low), high)`
    Clamp {
        /// Smallest result.
        low: f64,
        /// Largest result, at least `low`.
        high: f64,
    },
}

/// Equality of bits, so that a spec can be a key: a plan belongs to one.
impl PartialEq for Activation {
    fn eq(&self, other: &Activation) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for Activation {}

impl Hash for Activation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits().hash(state);
    }
}

impl Activation {
    fn bits(self) -> (u32, [u64; 2]) {
        let (code, constants) = self.code();
        (code, constants.map(f64::to_bits))
    }

    /// Code of the kernels, and its constants: a slope, or two bounds.
    pub(crate) fn code(self) -> (u32, [f64; 2]) {
        match self {
            Self::None => (0, [0.0; 2]),
            Self::Relu => (super::math::RELU, [0.0; 2]),
            Self::LeakyRelu(alpha) => (super::math::LEAKY_RELU, [alpha, 0.0]),
            Self::GeluTanh => (super::math::GELU_TANH, [0.0; 2]),
            Self::GeluErf => (super::math::GELU_ERF, [0.0; 2]),
            Self::Silu => (super::math::SILU, [0.0; 2]),
            Self::Sigmoid => (super::math::SIGMOID, [0.0; 2]),
            Self::Tanh => (super::math::TANH, [0.0; 2]),
            Self::HardSigmoid => (super::math::HARD_SIGMOID, [0.0; 2]),
            Self::HardSwish => (super::math::HARD_SWISH, [0.0; 2]),
            Self::Clamp { low, high } => (super::math::CLAMP, [low, high]),
        }
    }
}

/// Why a contraction has no micro-kernel; the caller falls back to JITed loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// A loop dimension number, or a count of strides, does not fit the extents.
    #[error("contract.K1: a read or the output names a loop dimension that it cannot have")]
    WrongDimension,
    /// A divisor below 1.
    #[error("contract.K2: a divisor is below 1")]
    BadDivisor,
    /// Tables hold 32-bit element offsets.
    #[error("contract.K3: a tensor spans 2^31 elements or more")]
    TooLarge,
    /// A batch index decides whether an element lies outside.
    #[error("contract.K4: a batch dimension moves an operand dimension that needs a bounds check")]
    CheckedBatch,
    /// No kernel converts between these types.
    #[error("contract.K6: operands or an output of types that are not summed in this type")]
    WrongElement,
    /// An extent is 0.
    #[error("contract.K5: an output without elements")]
    Empty,
}
