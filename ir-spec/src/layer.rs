//! The closed table of layers: sugar that creates states and expands through the builder.
//!
//! One line in [`layers!`](self) and one `impl LayerSpec` in `layer/<family>.rs` make a layer, for scripts and for
//! Rust alike: a script line `conv %x {filters = 32, kernel = 3}` and `x.layer(Conv::new(32, 3))` run the same code.
//! No layer reaches a graph: what is printed and optimised are ops.

use std::panic::Location as CallSite;

use crate::attribute::{AttrValue, Attribute};
use crate::builder::{GraphBuilder, Tensor};
use crate::diagnostic::Diagnostic;
use crate::graph::Value;
use crate::module::{Initializer, Role, State};
use crate::types::{DType, Name, Shape, TensorType};

mod attention;
mod attribute;
mod conv_transpose;
mod dense;
mod methods;
mod normalization;
mod readout;
mod recurrent;
mod window;

pub use attribute::{Activation, Init, LayerAttribute, Padding, Spatial};
pub(crate) use normalization::draw_counter;

/// How a layer becomes ops.
pub trait LayerSpec {
    /// Appends the layer's ops and states, and returns its result.
    fn expand(&self, call: &Call) -> Tensor;
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct LayerEntry {
    /// Text name.
    pub mnemonic: &'static str,
    /// Documentation, the first line is the sentence of the spec.
    pub doc: &'static str,
    /// Operand names.
    pub operands: &'static [&'static str],
    /// Attributes in order.
    pub attributes: &'static [LayerAttr],
}

/// One attribute of a row.
#[derive(Clone, Copy, Debug)]
pub struct LayerAttr {
    /// Name.
    pub name: &'static str,
    /// Kind, as messages say it.
    pub kind: &'static str,
    /// Default as the script writes it; `None` if the attribute must be given.
    pub default: Option<&'static str>,
    /// Words that the attribute accepts, for did-you-mean.
    pub words: fn() -> Vec<&'static str>,
}

/// Why attributes do not make a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerError {
    /// No layer of this name.
    Unknown,
    /// An attribute without default is absent.
    Missing(&'static str),
    /// The layer has no attribute of this name.
    Unexpected(Name),
    /// The value is of another kind.
    WrongKind(&'static str),
}

/// `mnemonic Struct (operands) { required: Type, ...; optional: Type = default => "as the script writes it", ... }`.
macro_rules! layers {
    ($(
        $(#[doc = $doc:literal])+
        $mnemonic:ident $layer:ident ($($operand:literal),*)
        { $($required:ident: $rty:ty),*; $($attr:ident: $ty:ty = $default:expr => $text:literal),* $(,)? };
    )*) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Debug, PartialEq)]
            #[allow(missing_docs, reason = "attributes are documented with the layer, in the table and in SPEC.md")]
            pub struct $layer { $(pub $required: $rty,)* $(pub $attr: $ty,)* }

            #[allow(clippy::new_without_default, reason = "a layer without required attributes is still called for")]
            impl $layer {
                /// The layer with its required attributes; the others have their defaults.
                pub fn new($($required: impl Into<$rty>),*) -> $layer {
                    $layer { $($required: $required.into(),)* $($attr: $default,)* }
                }

                $(
                    #[doc = concat!("Sets `", stringify!($attr), "`; the default is `", $text, "`.")]
                    pub fn $attr(mut self, $attr: impl Into<$ty>) -> $layer {
                        self.$attr = $attr.into();
                        self
                    }
                )*
            }
        )*

        /// One layer with its attributes.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Layer {
            $($(#[doc = $doc])+ $layer($layer),)*
        }

        $(impl From<$layer> for Layer { fn from(layer: $layer) -> Layer { Layer::$layer(layer) } })*

        /// Every layer, in the order of the spec.
        pub static TABLE: &[LayerEntry] = &[$(LayerEntry {
            mnemonic: stringify!($mnemonic),
            doc: concat!($($doc, "\n"),+),
            operands: &[$($operand),*],
            attributes: &[
                $(LayerAttr {
                    name: stringify!($required),
                    kind: <$rty as Attribute>::KIND,
                    default: None,
                    words: <$rty as LayerAttribute>::words,
                },)*
                $(LayerAttr {
                    name: stringify!($attr),
                    kind: <$ty as Attribute>::KIND,
                    default: Some($text),
                    words: <$ty as LayerAttribute>::words,
                },)*
            ],
        }),*];

        impl Layer {
            /// The layer of a text name with its attributes.
            ///
            /// # Errors
            /// Everything that is absent, unknown or of the wrong kind.
            pub fn parse(mnemonic: &str, attrs: &[(Name, AttrValue)]) -> Result<Layer, Vec<LayerError>> {
                match mnemonic {
                    $(stringify!($mnemonic) => {
                        #[allow(unused_mut, reason = "a layer without attributes")]
                        let mut fields = Fields::new(attrs, &[$(stringify!($required),)* $(stringify!($attr),)*]);
                        $(let $required: Option<$rty> = fields.required(stringify!($required));)*
                        $(let $attr: Option<$ty> = fields.optional(stringify!($attr), || $default);)*
                        match ($($required,)* $($attr,)*) {
                            #[allow(unused_parens, reason = "one attribute or none")]
                            ($(Some($required),)* $(Some($attr),)*) if fields.errors.is_empty() => {
                                Ok(Layer::$layer($layer { $($required,)* $($attr,)* }))
                            }
                            #[allow(unreachable_patterns, reason = "a layer without attributes")]
                            _ => Err(fields.errors),
                        }
                    })*
                    _ => Err(vec![LayerError::Unknown]),
                }
            }

            fn spec(&self) -> &dyn LayerSpec {
                match self { $(Layer::$layer(layer) => layer),* }
            }

            /// The layer's row.
            pub fn entry(&self) -> &'static LayerEntry {
                let mnemonic = match self { $(Layer::$layer(_) => stringify!($mnemonic)),* };
                entry(mnemonic).unwrap_or(&TABLE[0])
            }
        }
    };
}

layers! {
    /// Fully connected: `x: [N, features]` or `[N, S, features]` times `weight: [features, units]`, plus `bias`.
    dense Dense("x") { units: i64;
        bias: bool = true => "true", activation: Activation = Activation::none() => "none", init: Init = Init::Glorot => "glorot" };
    /// Convolution of `x: [N, C, spatial...]` with `weight: [filters, C / groups, kernel...]`, plus `bias`.
    conv Conv("x") { filters: i64, kernel: Spatial;
        strides: Spatial = Spatial::all(1) => "1", padding: Padding = Padding::Valid => "valid",
        dilation: Spatial = Spatial::all(1) => "1", groups: i64 = 1 => "1", bias: bool = true => "true",
        activation: Activation = Activation::none() => "none", init: Init = Init::Glorot => "glorot" };
    /// Transposed convolution of `x: [N, C, spatial...]` with `weight: [C, filters / groups, kernel...]`, plus `bias`: what
    /// `conv` does to a gradient on its way back, so that strides make the extents larger.
    conv_transpose ConvTranspose("x") { filters: i64, kernel: Spatial;
        strides: Spatial = Spatial::all(1) => "1", padding: Padding = Padding::Valid => "valid",
        output_padding: Spatial = Spatial::all(0) => "0", dilation: Spatial = Spatial::all(1) => "1",
        groups: i64 = 1 => "1", bias: bool = true => "true", activation: Activation = Activation::none() => "none",
        init: Init = Init::Glorot => "glorot" };
    /// Lookup: row `index` of `weight: [vocabulary, units]` for `index: [I...]`, giving `[I..., units]`.
    embedding Embedding("index") { vocabulary: i64, units: i64; init: Init = Init::Uniform(-0.05, 0.05) => "uniform" };

    /// Largest element of each window of `x: [N, C, spatial...]`; `strides` are the window's size unless given.
    max_pool MaxPool("x") { size: Spatial;
        strides: Spatial = Spatial::unset() => "size", padding: Padding = Padding::Valid => "valid" };
    /// Mean of each window of `x: [N, C, spatial...]`, over the elements inside unless `count_outside`.
    avg_pool AvgPool("x") { size: Spatial;
        strides: Spatial = Spatial::unset() => "size", padding: Padding = Padding::Valid => "valid",
        count_outside: bool = false => "false" };
    /// Mean over the spatial dimensions: `[N, C, spatial...]` to `[N, C]`.
    global_avg_pool GlobalAvgPool("x") { ; };
    /// Largest over the spatial dimensions: `[N, C, spatial...]` to `[N, C]`.
    global_max_pool GlobalMaxPool("x") { ; };
    /// All dimensions but the first in one: `[N, D...]` to `[N, product of D]`.
    flatten Flatten("x") { ; };

    /// Attention of `q: [N, H, S, D]` to keys and values `[N, H, T, D]` with the usual scale, `D^-0.5`.
    attention Attention("q", "k", "v") { ; causal: bool = false => "false" };
    /// Attention of `x: [N, S, E]` to itself in `heads` heads: a dense layer `qkv`, whose columns are queries, keys and
    /// values, each by head; `attention`; a dense layer `out`.
    multi_head_attention MultiHeadAttention("x") { heads: i64;
        causal: bool = false => "false", bias: bool = true => "true", init: Init = Init::Glorot => "glorot" };
    /// `x: [N, S, E]` plus a learned vector per position: the first S rows of `weight: [length, E]`.
    position_embedding PositionEmbedding("x") { length: i64; init: Init = Init::Uniform(-0.05, 0.05) => "uniform" };

    /// Elman network over the S steps of `x: [N, S, F]`: `h = activation(x[t] weight_ih + bias_ih + h weight_hh + bias_hh)`, from
    /// 0 on. Gives the last state, `[N, units]`, or with `return_sequences` that of every step, `[N, S, units]`; goes from the
    /// last step to the first if `backwards`. The steps are written out, so their number must be known.
    rnn Rnn("x") { units: i64;
        return_sequences: bool = false => "false", backwards: bool = false => "false", bias: bool = true => "true",
        activation: Activation = crate::op::Elementwise::Tanh.into() => "tanh", init: Init = Init::FanIn => "fan_in" };
    /// Long short-term memory over `x: [N, S, F]`, as `rnn`. Columns of weights and biases are the gates `i`, `f`, `g`, `o`:
    /// `c = sigmoid(f) c + sigmoid(i) tanh(g)`, `h = sigmoid(o) tanh(c)`.
    lstm Lstm("x") { units: i64;
        return_sequences: bool = false => "false", backwards: bool = false => "false", bias: bool = true => "true",
        init: Init = Init::FanIn => "fan_in" };
    /// Gated recurrent unit over `x: [N, S, F]`, as `rnn`. Columns are the gates `r`, `z`, `n`, from the input `a` and from the
    /// state `b`: `n = tanh(a_n + sigmoid(a_r + b_r) b_n)`, `h = (1 - z) n + z h` with `z = sigmoid(a_z + b_z)`.
    gru Gru("x") { units: i64;
        return_sequences: bool = false => "false", backwards: bool = false => "false", bias: bool = true => "true",
        init: Init = Init::FanIn => "fan_in" };

    /// Normalises `x: [N, C, spatial...]` per channel; running `mean` and `variance` are updated by the training step.
    batch_norm BatchNorm("x") { ; epsilon: f64 = 1e-5 => "1e-5", momentum: f64 = 0.9 => "0.9" };
    /// Normalises over the last dimension, then `scale` and `offset`.
    layer_norm LayerNorm("x") { ; epsilon: f64 = 1e-5 => "1e-5" };
    /// In training, drops elements with probability `rate` and divides the others by `1 - rate`.
    dropout Dropout("x") { rate: f64; };

    /// Fraction of examples whose largest logit, `logits: [N..., K]`, stands at `label: [N...]`.
    accuracy Accuracy("logits", "label") { ; };
    /// Fraction of elements where `logits > 0` agrees with `target > 0.5`, both `[D...]`.
    binary_accuracy BinaryAccuracy("logits", "target") { ; };
}

/// The row of a text name.
pub fn entry(mnemonic: &str) -> Option<&'static LayerEntry> {
    TABLE.iter().find(|entry| entry.mnemonic == mnemonic)
}

impl Layer {
    /// Appends the layer; states are named after `name`, or after the layer and a counter.
    /// Faults are reported to the operands' builder, under `<layer>.L<n>`, since `<op>.C<n>` are those of the op.
    #[track_caller]
    pub fn apply(&self, builder: &GraphBuilder, operands: &[&Tensor], name: Option<&str>) -> Tensor {
        let invalid = builder.tensor(Value::INVALID);
        if operands.iter().any(|t| t.is_invalid()) {
            return invalid;
        }
        let entry = self.entry();
        builder.located(CallSite::caller(), || {
            if entry.operands.len() != operands.len() {
                let wanted = entry.operands.join(", ");
                let message = format!("`{}` takes ({wanted}), {} operands were given", entry.mnemonic, operands.len());
                builder.report(Diagnostic::error("V3", message));
                return invalid;
            }
            self.spec().expand(&Call {
                builder: builder.clone(),
                operands: operands.iter().map(|&t| t.clone()).collect(),
                kind: entry.mnemonic,
                name: name.map(Name::from),
            })
        })
    }

    /// Appends the layer with the states of the layer called `instance`, which stands before.
    /// `None` if there is no such layer.
    #[track_caller]
    pub fn apply_shared(&self, builder: &GraphBuilder, operands: &[&Tensor], instance: &str) -> Option<Tensor> {
        let caller = CallSite::caller();
        builder.located(caller, || builder.share(instance, || self.apply(builder, operands, Some(instance))))
    }
}

/// One use of a layer: what `expand` sees.
#[derive(Debug)]
pub struct Call {
    builder: GraphBuilder,
    operands: Vec<Tensor>,
    kind: &'static str,
    name: Option<Name>,
}

impl Call {
    /// Operand `i`; [`Layer::apply`] has counted them.
    fn operand(&self, i: usize) -> &Tensor {
        &self.operands[i]
    }

    /// This instance: named as given, or by the layer and a counter.
    fn instance(&self) -> Instance {
        let name = self.name.clone().unwrap_or_else(|| self.builder.next_instance(self.kind));
        Instance { builder: self.builder.clone(), path: self.builder.scoped(&name), name }
    }

    /// Reports a fault under `<layer>.<label>` and gives the value that keeps later calls quiet.
    fn fault(&self, label: &str, message: impl Into<String>, help: impl Into<String>) -> Tensor {
        let mut fault = Diagnostic::error(format!("{}.{label}", self.kind), message).help(help);
        for (name, operand) in entry(self.kind).map_or(&[][..], |e| e.operands).iter().zip(&self.operands) {
            fault = fault.note(format!("{name}: {}", operand.ty()));
        }
        self.builder.report(fault);
        self.builder.tensor(Value::INVALID)
    }
}

/// - layer.L1: a state has at most 2^40 bytes.
/// - layer.L2: what `share` names has the states that are asked for, of the same types.
///
/// A layer with states: what they and its values are named after.
struct Instance {
    builder: GraphBuilder,
    /// Within the current scope: `conv1`.
    name: Name,
    /// With the scope: `residual1.conv1`.
    path: Name,
}

impl Instance {
    /// Declares the state `path.name` of f32 and reads it.
    fn state(&self, name: &str, shape: impl Into<Shape>, role: Role, init: Initializer) -> Tensor {
        let ty = TensorType::new(DType::F32, shape);
        if let Some(fault) = ty.size_fault() {
            let message = format!("the state `{}` is too large: {fault}", self.value(name));
            self.builder.report(Diagnostic::error("layer.L1", message));
            return self.builder.tensor(Value::INVALID);
        }
        self.builder.scope(&self.name, || self.builder.new_state(name, State { ty, role, init, source: None }))
    }

    /// `path.part`, the name of a value.
    fn value(&self, part: &str) -> String {
        format!("{}.{part}", self.path)
    }
}

/// Attributes given in text, looked up by name; keeps every error.
struct Fields<'a> {
    attrs: &'a [(Name, AttrValue)],
    errors: Vec<LayerError>,
}

impl<'a> Fields<'a> {
    fn new(attrs: &'a [(Name, AttrValue)], known: &[&str]) -> Fields<'a> {
        let unknown = attrs.iter().filter(|(name, _)| !known.contains(&&**name));
        Fields { attrs, errors: unknown.map(|(name, _)| LayerError::Unexpected(name.clone())).collect() }
    }

    fn required<T: Attribute>(&mut self, name: &'static str) -> Option<T> {
        let found = self.find(name);
        if found.is_none() {
            self.errors.push(LayerError::Missing(name));
        }
        found?
    }

    fn optional<T: Attribute>(&mut self, name: &'static str, default: impl FnOnce() -> T) -> Option<T> {
        self.find(name).unwrap_or_else(|| Some(default()))
    }

    /// `None` if absent, `Some(None)` if of another kind.
    fn find<T: Attribute>(&mut self, name: &'static str) -> Option<Option<T>> {
        let (_, value) = self.attrs.iter().find(|(n, _)| &**n == name)?;
        let converted = T::from_value(value);
        if converted.is_none() {
            self.errors.push(LayerError::WrongKind(name));
        }
        Some(converted)
    }
}

#[cfg(test)]
mod tests;
