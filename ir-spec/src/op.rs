//! The closed table of ops.
//!
//! One line in [`ops!`](self) and one `impl OpSpec` in `op/<family>.rs` make an op. The table generates the enum, the
//! text of the attributes in both directions and [`STRUCTURED`]; the trait asks for types, meaning and gradient and has no
//! defaults, so the Rust compiler lists what a new op still lacks. Elementwise ops without attributes are two lines in
//! `op/elementwise.rs`.

use smallvec::SmallVec;

use crate::attribute::{AttrValue, Attribute, Dims, Ints, Literal};
use crate::body::Body;
use crate::builder::Tensor;
use crate::types::{Bindings, Name, TensorType};

pub mod attention;
pub mod contraction;
pub mod control;
pub mod creation;
mod dims;
pub mod elementwise;
mod half;
pub mod indexing;
pub mod loss;
pub mod movement;
pub mod normalization;
pub mod optimizer;
pub mod parametric;
pub mod reduction;
mod rules;
pub mod window;

pub use elementwise::Elementwise;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests;

/// Result types of one node.
pub type Types = SmallVec<[TensorType; 3]>;

/// A violated constraint of an op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Stable label, `conv.C3`, the same in SPEC.md, in the message and in the test's name.
    pub label: &'static str,
    /// What is wrong, with the extents at fault.
    pub message: String,
    /// What to change.
    pub help: Option<String>,
}

impl Fault {
    /// A fault without advice.
    pub fn new(label: &'static str, message: impl Into<String>) -> Fault {
        Fault { label, message: message.into(), help: None }
    }

    /// Adds advice.
    pub fn help(mut self, help: impl Into<String>) -> Fault {
        self.help = Some(help.into());
        self
    }
}

/// Checks constraints one by one and keeps every violation.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Records a fault unless `holds`; returns `holds`.
    pub fn require(&mut self, holds: bool, fault: impl FnOnce() -> Fault) -> bool {
        if !holds {
            self.0.push(fault());
        }
        holds
    }

    /// The types if nothing was recorded.
    pub fn finish(self, types: impl FnOnce() -> Types) -> Result<Types, Vec<Fault>> {
        if self.0.is_empty() { Ok(types()) } else { Err(self.0) }
    }

    /// `Err` if anything was recorded so far: what follows would read nonsense.
    pub fn check(&mut self) -> Result<(), Vec<Fault>> {
        if self.0.is_empty() { Ok(()) } else { Err(std::mem::take(&mut self.0)) }
    }
}

/// What every op answers. No defaults: a forgotten rule does not compile.
pub trait OpSpec {
    /// Result types from operand types. The number of operands has been checked against the table.
    ///
    /// # Errors
    /// All violated constraints, each under its label.
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>>;

    /// The meaning, for bound types that `infer` accepted.
    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body;

    /// Reverse-mode rule.
    fn vjp(&self, cx: &Vjp<'_>) -> Gradient;
}

/// What a reverse-mode rule sees. It builds ordinary nodes through the operands' builder.
#[derive(Debug)]
pub struct Vjp<'a> {
    /// Operands of the node.
    pub operands: &'a [Tensor],
    /// Results of the node.
    pub results: &'a [Tensor],
    /// Cotangent of each result; `None` where no loss depends on it.
    pub cotangents: &'a [Option<Tensor>],
}

/// Answer of a reverse-mode rule.
#[derive(Debug)]
pub enum Gradient {
    /// Cotangent per operand; `None` for operands that have none (indices, counters).
    Operands(Vec<Option<Tensor>>),
    /// Differentiate the decomposition.
    Decompose,
    /// Nothing flows back; the reason is listed in SPEC.md.
    NonDifferentiable(&'static str),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct OpEntry {
    /// Text name.
    pub mnemonic: &'static str,
    /// Documentation, the first line is the sentence of the spec.
    pub doc: &'static str,
    /// Operand names; a last name with `...` takes any number.
    pub operands: &'static [&'static str],
    /// Result names.
    pub results: &'static [&'static str],
    /// Whether the result type is declared on the definition line instead of inferred.
    pub typed: bool,
    /// Attributes: name, kind, default in the text form.
    pub attributes: &'static [AttrEntry],
}

/// One attribute of a row.
#[derive(Clone, Copy, Debug)]
pub struct AttrEntry {
    /// Name.
    pub name: &'static str,
    /// Kind, as messages say it.
    pub kind: &'static str,
    /// Default, as Rust text; `None` if the attribute must be given.
    pub default: Option<&'static str>,
}

impl OpEntry {
    /// Whether `count` operands fit.
    pub fn takes(&self, count: usize) -> bool {
        match self.operands.split_last() {
            Some((last, rest)) if last.ends_with("...") => count >= rest.len(),
            _ => count == self.operands.len(),
        }
    }
}

/// Why text does not make an op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpError {
    /// No such mnemonic.
    Unknown,
    /// An attribute without default is absent.
    Missing(AttrName),
    /// The op has no attribute of this name.
    Unexpected(String),
    /// The value is of another kind.
    WrongKind(AttrName, &'static str),
}

/// Name of an attribute in the table.
pub type AttrName = &'static str;

/// `mnemonic Struct (operands) -> (results) { attribute: Type = default }`; `typed` marks ops whose result type is
/// declared on the definition line and kept in the field `ty`.
macro_rules! ops {
    ($(
        $(#[doc = $doc:literal])+
        $mnemonic:ident $op:ident ($($operand:literal),*) -> ($($result:literal),*)
        $({ $($attr:ident: $ty:ty $(= $default:expr)?),* $(,)? })? ;
    )*
    typed:
    $(
        $(#[doc = $tdoc:literal])+
        $tmnemonic:ident $top:ident ($($toperand:literal),*)
        $({ $($tattr:ident: $tty:ty $(= $tdefault:expr)?),* $(,)? })? ;
    )*) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Debug, PartialEq)]
            #[allow(missing_docs, reason = "attributes are documented with the op, in the table and in SPEC.md")]
            pub struct $op { $($(pub $attr: $ty),*)? }
        )*
        $(
            $(#[doc = $tdoc])+
            #[derive(Clone, Debug, PartialEq)]
            #[allow(missing_docs, reason = "attributes are documented with the op, in the table and in SPEC.md")]
            pub struct $top { pub ty: TensorType, $($(pub $tattr: $tty),*)? }
        )*

        /// One operation with its attributes.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            /// Elementwise op without attributes.
            Elementwise(Elementwise),
            $($(#[doc = $doc])+ $op($op),)*
            $($(#[doc = $tdoc])+ $top($top),)*
        }

        $(impl From<$op> for Op { fn from(op: $op) -> Op { Op::$op(op) } })*
        $(impl From<$top> for Op { fn from(op: $top) -> Op { Op::$top(op) } })*

        /// The structured ops, in the order of the spec; elementwise ops are in [`elementwise::TABLE`].
        pub static STRUCTURED: &[OpEntry] = &[
            $(OpEntry {
                mnemonic: stringify!($mnemonic),
                doc: concat!($($doc, "\n"),+),
                operands: &[$($operand),*],
                results: &[$($result),*],
                typed: false,
                attributes: &[$($(AttrEntry {
                    name: stringify!($attr), kind: <$ty as Attribute>::KIND, default: ops!(@text $($default)?),
                }),*)?],
            },)*
            $(OpEntry {
                mnemonic: stringify!($tmnemonic),
                doc: concat!($($tdoc, "\n"),+),
                operands: &[$($toperand),*],
                results: &["y"],
                typed: true,
                attributes: &[$($(AttrEntry {
                    name: stringify!($tattr), kind: <$tty as Attribute>::KIND, default: ops!(@text $($tdefault)?),
                }),*)?],
            },)*
        ];

        impl Op {
            /// The op's answers.
            pub fn spec(&self) -> &dyn OpSpec {
                match self {
                    Op::Elementwise(op) => op,
                    $(Op::$op(op) => op,)*
                    $(Op::$top(op) => op,)*
                }
            }

            /// Text name.
            pub fn mnemonic(&self) -> &'static str {
                match self {
                    Op::Elementwise(op) => op.entry().mnemonic,
                    $(Op::$op(_) => stringify!($mnemonic),)*
                    $(Op::$top(_) => stringify!($tmnemonic),)*
                }
            }

            /// Attributes in the table's order, without the declared type.
            pub fn attributes(&self) -> SmallVec<[(AttrName, AttrValue); 4]> {
                match self {
                    Op::Elementwise(_) => SmallVec::new(),
                    $(Op::$op(_op) => smallvec::smallvec![$($((stringify!($attr), _op.$attr.to_value())),*)?],)*
                    $(Op::$top(_op) => smallvec::smallvec![$($((stringify!($tattr), _op.$tattr.to_value())),*)?],)*
                }
            }

            /// The op of a text name with its attributes; `ty` is the declared type of a typed op.
            ///
            /// # Errors
            /// [`OpError`] names what is absent, unknown or of the wrong kind.
            pub fn parse(mnemonic: &str, ty: Option<&TensorType>, attrs: &[(Name, AttrValue)]) -> Result<Op, OpError> {
                match mnemonic {
                    $(stringify!($mnemonic) => {
                        let _fields = Fields::new(attrs, &[$($(stringify!($attr)),*)?])?;
                        Ok(Op::$op($op { $($($attr: _fields.get(stringify!($attr), ops!(@option $($default)?))?),*)? }))
                    })*
                    $(stringify!($tmnemonic) => {
                        let _fields = Fields::new(attrs, &[$($(stringify!($tattr)),*)?])?;
                        let ty = ty.cloned().ok_or(OpError::Missing("type"))?;
                        Ok(Op::$top($top {
                            ty, $($($tattr: _fields.get(stringify!($tattr), ops!(@option $($tdefault)?))?),*)?
                        }))
                    })*
                    _ => {
                        let op = Elementwise::parse(mnemonic).ok_or(OpError::Unknown)?;
                        Fields::new(attrs, &[])?;
                        Ok(Op::Elementwise(op))
                    }
                }
            }

            /// The op with dimension names bound in its attributes and its declared type.
            pub fn bind(&self, bindings: &Bindings) -> Op {
                match self {
                    Op::Elementwise(op) => Op::Elementwise(*op),
                    $(Op::$op(_op) => Op::$op($op { $($($attr: Attribute::bind(&_op.$attr, bindings)),*)? }),)*
                    $(Op::$top(op) => Op::$top($top {
                        ty: TensorType { shape: op.ty.shape.bind(bindings), ..op.ty.clone() },
                        $($($tattr: Attribute::bind(&op.$tattr, bindings)),*)?
                    }),)*
                }
            }
        }
    };
    (@option) => { None };
    (@option $default:expr) => { Some($default) };
    (@text) => { None };
    (@text $default:expr) => { Some(stringify!($default)) };
}

ops! {
    // Contractions.

    /// General contraction of two tensors.
    /// The result has the batch dimensions, then the free dimensions of `a`, then those of `b`.
    /// `batch` and `contract` give the dimensions of each operand, pair by pair.
    dot Dot("a", "b") -> ("y") { a_contract: Ints, b_contract: Ints, a_batch: Ints = Ints::new(), b_batch: Ints = Ints::new() };

    /// Convolution of `x: [N, C, spatial...]` with `w: [O, C / groups, kernel...]` to `[N, O, spatial...]`.
    /// `padding` is `[before, after]` per spatial dimension, in order.
    conv Conv("x", "w") -> ("y") { strides: Ints, padding: Ints, dilation: Ints, groups: i64 = 1 };

    // Windows over the spatial dimensions of x: [N, C, spatial...].

    /// Largest element of each window, and its place in the window (row-major); outside is -inf.
    max_pool MaxPool("x") -> ("y", "place") { window: Ints, strides: Ints, padding: Ints };
    /// The element of each window of `x` at a given `place`, as `max_pool` counts places; outside is 0.
    max_pool_take MaxPoolTake("x", "place") -> ("y") { window: Ints, strides: Ints, padding: Ints };
    /// Sum of each window; outside is 0.
    sum_pool SumPool("x") -> ("y") { window: Ints, strides: Ints, padding: Ints };
    /// Mean of each window; with `count_outside` the divisor is the window's size, else the elements inside.
    avg_pool AvgPool("x") -> ("y") { window: Ints, strides: Ints, padding: Ints, count_outside: bool = true };

    // Elementwise with attributes.

    /// `x` where positive, else `slope * x`.
    leaky_relu LeakyRelu("x") -> ("y") { slope: f64 = 0.01 };
    /// `x` where positive, else `alpha * (e^x - 1)`.
    elu Elu("x") -> ("y") { alpha: f64 = 1.0 };
    /// `min(max(x, low), high)`.
    clamp Clamp("x") -> ("y") { low: f64, high: f64 };

    // Movement.

    /// Permutes dimensions: dimension `i` of the result is dimension `permutation[i]` of `x`.
    transpose Transpose("x") -> ("y") { permutation: Ints };
    /// `x[start : stop : step]` per dimension, `0 <= start <= stop <= extent`, `step >= 1`.
    slice Slice("x") -> ("y") { start: Ints, stop: Dims, step: Ints };
    /// Adds `low` and `high` elements of `value` at the ends of each dimension.
    pad Pad("x") -> ("y") { low: Ints, high: Ints, value: f64 = 0.0 };
    /// Joins operands along `dim`.
    concat Concat("x...") -> ("y") { dim: i64 };
    /// Reverses the order along `dims`.
    reverse Reverse("x") -> ("y") { dims: Ints };

    // Reductions; `dims` are removed from the shape.

    /// Sum over `dims`.
    reduce_sum ReduceSum("x") -> ("y") { dims: Ints };
    /// Product over `dims`.
    reduce_prod ReduceProd("x") -> ("y") { dims: Ints };
    /// Largest over `dims`.
    reduce_max ReduceMax("x") -> ("y") { dims: Ints };
    /// Smallest over `dims`.
    reduce_min ReduceMin("x") -> ("y") { dims: Ints };
    /// Mean over `dims`.
    reduce_mean ReduceMean("x") -> ("y") { dims: Ints };
    /// Conjunction over `dims`.
    reduce_and ReduceAnd("x") -> ("y") { dims: Ints };
    /// Disjunction over `dims`.
    reduce_or ReduceOr("x") -> ("y") { dims: Ints };
    /// Largest along `dim` and the first index (i64) where it stands.
    arg_max ArgMax("x") -> ("y", "index") { dim: i64 };
    /// Smallest along `dim` and the first index (i64) where it stands.
    arg_min ArgMin("x") -> ("y", "index") { dim: i64 };

    // Indexing; indices out of range are run-time errors that name the line.

    /// Rows of `x: [V, rest...]` at `index: [I...]` (i32 or i64): `[I..., rest...]`.
    gather Gather("x", "index") -> ("y");
    /// `x: [V, rest...]` with `updates: [I..., rest...]` added to the rows at `index: [I...]`, in order.
    scatter_add ScatterAdd("x", "index", "updates") -> ("y");
    /// Picks `x[..., index[...]]` along the last dimension: `x: [I..., V]`, `index: [I...]` to `[I...]`.
    take_along TakeAlong("x", "index") -> ("y");

    // Softmax and normalisation.

    /// `e^x / sum e^x` along `dim`.
    softmax Softmax("x") -> ("y") { dim: i64 = -1 };
    /// `x - log sum e^x` along `dim`.
    log_softmax LogSoftmax("x") -> ("y") { dim: i64 = -1 };
    /// Normalises over the last dimension: `(x - mean) / sqrt(variance + epsilon) * scale + offset`.
    layer_norm LayerNorm("x", "scale", "offset") -> ("y") { epsilon: f64 = 1e-5 };
    /// Normalises `x: [N, C, spatial...]` per channel, by its own statistics in training, by `mean` and `variance` else.
    /// The second and third results are the next running statistics:
    /// `momentum * running + (1 - momentum) * batch`, the variance of the batch unbiased.
    batch_norm BatchNorm("x", "scale", "offset", "mean", "variance") -> ("y", "mean", "variance")
        { epsilon: f64 = 1e-5, momentum: f64 = 0.9 };
    /// `batch_norm` by given statistics: `specialize(inference)` makes it.
    batch_norm_inference BatchNormInference("x", "scale", "offset", "mean", "variance") -> ("y") { epsilon: f64 = 1e-5 };
    /// `batch_norm` by the batch's own statistics: `specialize(training)` makes it.
    batch_norm_training BatchNormTraining("x", "scale", "offset", "mean", "variance") -> ("y", "mean", "variance")
        { epsilon: f64 = 1e-5, momentum: f64 = 0.9 };
    /// In training, elements are 0 with probability `rate`, else divided by `1 - rate`; the identity in inference.
    dropout Dropout("x", "counter") -> ("y") { rate: f64 = 0.5, stream: Name };

    // Attention.

    /// Each query of `q: [N, H, S, D]` takes the mean of the values `v: [N, H, T, E]`, weighted by the softmax of
    /// `scale * q k'` over the keys `k: [N, H, T, D]`; with `causal`, over the keys up to its own place.
    /// `log_sum: [N, H, S]` is the logarithm of the softmax's denominator.
    attention Attention("q", "k", "v") -> ("y", "log_sum") { scale: f64, causal: bool = false };
    /// Gradient of `attention` with respect to `q`, `k` and `v`, from its results and `dy`.
    attention_grad AttentionGrad("q", "k", "v", "y", "log_sum", "dy") -> ("dq", "dk", "dv") { scale: f64, causal: bool = false };

    // Losses: the mean over all examples, a scalar.

    /// Cross-entropy of `logits: [N..., K]` with class indices `label: [N...]`.
    cross_entropy CrossEntropy("logits", "label") -> ("loss");
    /// Binary cross-entropy of `logits` with `target` in 0..1, both `[D...]`.
    bce_with_logits BceWithLogits("logits", "target") -> ("loss");
    /// Mean of `(x - target)^2`.
    mse Mse("x", "target") -> ("loss");

    // Optimizer updates; `step` counts from 0 and is the number of updates made so far.

    /// `w - lr * g`, or with momentum `m' = momentum * m + g`, `w - lr * m'` (or Nesterov's).
    sgd Sgd("w", "g", "rate") -> ("w") { weight_decay: f64 = 0.0 };
    /// SGD with momentum (Sutskever et al., ICML 2013, as PyTorch writes it).
    momentum Momentum("w", "g", "m", "rate") -> ("w", "m") { momentum: f64 = 0.9, nesterov: bool = false, weight_decay: f64 = 0.0 };
    /// Adam (Kingma and Ba, ICLR 2015), bias-corrected.
    adam Adam("w", "g", "m", "v", "step", "rate") -> ("w", "m", "v")
        { beta1: f64 = 0.9, beta2: f64 = 0.999, epsilon: f64 = 1e-8, weight_decay: f64 = 0.0 };
    /// AdamW (Loshchilov and Hutter, ICLR 2019): decay decoupled from the gradient.
    adamw AdamW("w", "g", "m", "v", "step", "rate") -> ("w", "m", "v")
        { beta1: f64 = 0.9, beta2: f64 = 0.999, epsilon: f64 = 1e-8, weight_decay: f64 = 0.01 };
    /// RMSprop (Tieleman and Hinton, 2012).
    rmsprop RmsProp("w", "g", "v", "rate") -> ("w", "v") { decay: f64 = 0.99, epsilon: f64 = 1e-8, weight_decay: f64 = 0.0 };
    /// Learning rate after `step` updates: from `base` down to `floor` along half a cosine of `steps` updates.
    cosine_rate CosineRate("step") -> ("rate") { base: f64, floor: f64 = 0.0, steps: i64 };

    // Control.

    /// Derivatives of a scalar `loss` with respect to the other operands; pass `autodiff` expands it.
    gradient GradientOf("loss", "x...") -> ("dx...");
    /// A group of nodes that becomes exactly one kernel; only pass `fuse` makes it.
    fused Fused("x...") -> ("y...") { kind: Name };

    typed:

    /// Value of a state at the start of the run.
    state State() { name: Name };
    /// A constant: one number for all elements, or all of them in row-major order.
    const Const() { value: Literal };
    /// Position along `dim`.
    iota Iota() { dim: i64 };
    /// Uniform numbers in `[0, 1)` for floats, random bits for u32, as the `counter`-th draw of `stream`.
    rng_uniform RngUniform("counter") { stream: Name };
    /// Normal numbers of mean 0 and variance 1 (Box and Muller, 1958).
    rng_normal RngNormal("counter") { stream: Name };
    /// The value in another element type.
    cast Cast("x");
    /// The same elements in row-major order under another shape.
    reshape Reshape("x");
    /// Dimension `i` of `x` becomes dimension `dims[i]`; extents of 1 and missing dimensions repeat.
    broadcast Broadcast("x") { dims: Ints };
    /// The identity in another layout.
    relayout Relayout("x");
    /// Gradient of `slice`, whose input shape is declared: `dy` at the sliced positions, 0 elsewhere.
    slice_grad SliceGrad("dy") { start: Ints, step: Ints };
    /// Gradient of `conv` with respect to `x`, whose shape is declared.
    conv_grad_input ConvGradInput("dy", "w") { strides: Ints, padding: Ints, dilation: Ints, groups: i64 = 1 };
    /// Gradient of `conv` with respect to `w`, whose shape is declared.
    conv_grad_filter ConvGradFilter("x", "dy") { strides: Ints, padding: Ints, dilation: Ints, groups: i64 = 1 };
    /// Gradient of `max_pool`, whose input shape is declared: each `dy` goes to the place that was largest.
    max_pool_grad MaxPoolGrad("dy", "place") { window: Ints, strides: Ints, padding: Ints };
    /// Transposed windowed sum: gradient of `sum_pool`, whose input shape is declared.
    sum_pool_grad SumPoolGrad("dy") { window: Ints, strides: Ints, padding: Ints };
}

/// Every op: structured ones in the order of the spec, then the elementwise ones.
pub fn table() -> impl Iterator<Item = &'static OpEntry> {
    STRUCTURED.iter().chain(elementwise::TABLE.iter().map(|row| &row.entry))
}

/// The row of a text name.
pub fn entry(mnemonic: &str) -> Option<&'static OpEntry> {
    table().find(|entry| entry.mnemonic == mnemonic)
}

impl Op {
    /// The op's row.
    pub fn entry(&self) -> &'static OpEntry {
        match self {
            Op::Elementwise(op) => op.entry(),
            _ => {
                let mnemonic = self.mnemonic();
                let row = STRUCTURED.iter().find(|entry| entry.mnemonic == mnemonic);
                row.unwrap_or(&STRUCTURED[0])
            }
        }
    }
}

/// Attributes given in text, looked up by name.
struct Fields<'a>(&'a [(Name, AttrValue)]);

impl<'a> Fields<'a> {
    fn new(attrs: &'a [(Name, AttrValue)], known: &[&str]) -> Result<Fields<'a>, OpError> {
        match attrs.iter().find(|(name, _)| !known.contains(&&**name)) {
            Some((name, _)) => Err(OpError::Unexpected(name.to_string())),
            None => Ok(Fields(attrs)),
        }
    }

    fn get<T: Attribute>(&self, name: AttrName, default: Option<T>) -> Result<T, OpError> {
        match self.0.iter().find(|(n, _)| &**n == name) {
            Some((_, value)) => T::from_value(value).ok_or(OpError::WrongKind(name, T::KIND)),
            None => default.ok_or(OpError::Missing(name)),
        }
    }
}
