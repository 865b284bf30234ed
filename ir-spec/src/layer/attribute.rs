//! Kinds of attributes that only layers have.

use smallvec::SmallVec;

use crate::attribute::{AttrValue, Attribute, Ints};
use crate::module::Initializer;
use crate::op::{self, Elementwise, Op};
use crate::types::Name;

/// An attribute of a layer: knows the words it accepts.
pub trait LayerAttribute: Attribute {
    /// Words, for did-you-mean.
    fn words() -> Vec<&'static str> {
        Vec::new()
    }
}

impl LayerAttribute for i64 {}
impl LayerAttribute for f64 {}
impl LayerAttribute for bool {
    fn words() -> Vec<&'static str> {
        vec!["true", "false"]
    }
}

/// A size per spatial dimension, or one for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spatial(Ints);

impl Spatial {
    /// One size for all dimensions.
    pub fn all(size: i64) -> Spatial {
        Spatial(smallvec::smallvec![size])
    }

    /// No size: the layer says what that means.
    pub fn unset() -> Spatial {
        Spatial(SmallVec::new())
    }

    /// Whether no size was given.
    pub fn is_unset(&self) -> bool {
        self.0.is_empty()
    }

    /// The size of each of `rank` dimensions; `None` if another number of sizes was given.
    pub fn sizes(&self, rank: usize) -> Option<Ints> {
        match self.0.as_slice() {
            [size] => Some(SmallVec::from_elem(*size, rank)),
            sizes if sizes.len() == rank => Some(self.0.clone()),
            _ => None,
        }
    }
}

impl From<i32> for Spatial {
    fn from(size: i32) -> Spatial {
        Spatial::all(size.into())
    }
}

impl From<i64> for Spatial {
    fn from(size: i64) -> Spatial {
        Spatial::all(size)
    }
}

impl<const N: usize> From<[i64; N]> for Spatial {
    fn from(sizes: [i64; N]) -> Spatial {
        Spatial(sizes.into_iter().collect())
    }
}

impl Attribute for Spatial {
    const KIND: &'static str = "an integer, or a list with one per spatial dimension";
    fn to_value(&self) -> AttrValue {
        match self.0.as_slice() {
            [size] => AttrValue::Int(*size),
            _ => self.0.to_value(),
        }
    }
    fn from_value(value: &AttrValue) -> Option<Spatial> {
        match value {
            AttrValue::Int(size) => Some(Spatial::all(*size)),
            AttrValue::List(items) if items.is_empty() => None,
            value => Ints::from_value(value).map(Spatial),
        }
    }
}

impl LayerAttribute for Spatial {}

/// Elements added around the spatial dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Padding {
    /// None: windows lie inside.
    Valid,
    /// The result has `ceil(extent / stride)` elements; what is odd goes to the end, as in Keras and TensorFlow.
    Same,
    /// As given: one number for all ends, or `[before, after]` per dimension in order.
    Explicit(Ints),
}

impl From<i32> for Padding {
    fn from(size: i32) -> Padding {
        Padding::Explicit(smallvec::smallvec![size.into()])
    }
}

impl Attribute for Padding {
    const KIND: &'static str =
        "valid, same, an integer, or one list with before and after of each spatial dimension, [0, 0, 1, 1]";
    fn to_value(&self) -> AttrValue {
        match self {
            Padding::Valid => AttrValue::Word("valid".into()),
            Padding::Same => AttrValue::Word("same".into()),
            Padding::Explicit(ints) => ints.to_value(),
        }
    }
    fn from_value(value: &AttrValue) -> Option<Padding> {
        match value {
            AttrValue::Word(word) => match &**word {
                "valid" => Some(Padding::Valid),
                "same" => Some(Padding::Same),
                _ => None,
            },
            AttrValue::Int(size) => Some(Padding::Explicit(smallvec::smallvec![*size])),
            value => Ints::from_value(value).map(Padding::Explicit),
        }
    }
}

impl LayerAttribute for Padding {
    fn words() -> Vec<&'static str> {
        vec!["valid", "same"]
    }
}

/// An op of one operand that follows a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Activation(Option<Op>);

impl Activation {
    /// Nothing follows.
    pub fn none() -> Activation {
        Activation(None)
    }

    /// The op that follows.
    pub fn op(&self) -> Option<&Op> {
        self.0.as_ref()
    }

    fn parse(word: &str) -> Option<Activation> {
        if word == "none" {
            return Some(Activation(None));
        }
        let entry = op::entry(word)?;
        let fits = entry.operands.len() == 1 && entry.results.len() == 1 && !entry.typed && entry.takes(1);
        let required = entry.attributes.iter().any(|a| a.default.is_none());
        if !fits || required || entry.operands[0].ends_with("...") {
            return None;
        }
        Op::parse(word, None, &[]).ok().map(|op| Activation(Some(op)))
    }
}

impl From<Elementwise> for Activation {
    fn from(op: Elementwise) -> Activation {
        Activation(Some(Op::Elementwise(op)))
    }
}

impl From<Op> for Activation {
    fn from(op: Op) -> Activation {
        Activation(Some(op))
    }
}

impl Attribute for Activation {
    const KIND: &'static str = "an op of one operand, such as relu, or none";
    fn to_value(&self) -> AttrValue {
        AttrValue::Word(self.0.as_ref().map_or("none", Op::mnemonic).into())
    }
    fn from_value(value: &AttrValue) -> Option<Activation> {
        match value {
            AttrValue::Word(word) => Activation::parse(word),
            _ => None,
        }
    }
}

impl LayerAttribute for Activation {
    fn words() -> Vec<&'static str> {
        let all = op::table().map(|entry| entry.mnemonic).filter(|word| Activation::parse(word).is_some());
        all.chain(["none"]).collect()
    }
}

/// How a layer's weight starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform within `sqrt(6 / (fan_in + fan_out))`.
    Glorot,
    /// Normal with deviation `sqrt(2 / fan_in)`.
    He,
    /// Uniform within `sqrt(1 / fan_in)`, the bias too.
    FanIn,
    /// Normal with mean and deviation.
    Normal(f64, f64),
    /// Uniform in `[low, high)`.
    Uniform(f64, f64),
    /// Every element.
    Constant(f64),
}

/// Words of [`Init`] with their parameters and defaults; the deviations and bounds are Keras's.
const INITS: [(&str, &[(&str, f64)]); 8] = [
    ("glorot", &[]),
    ("he", &[]),
    ("fan_in", &[]),
    ("normal", &[("mean", 0.0), ("deviation", 0.05)]),
    ("uniform", &[("low", -0.05), ("high", 0.05)]),
    ("constant", &[("value", 0.0)]),
    ("zeros", &[]),
    ("ones", &[]),
];

impl Init {
    /// The initialiser of a weight with `fan_in` inputs per output.
    pub fn weight(self, fan_in: u64) -> Initializer {
        match self {
            Init::Glorot => Initializer::Glorot,
            Init::He => Initializer::He,
            Init::FanIn => Initializer::FanIn(fan_in),
            Init::Normal(mean, deviation) => Initializer::Normal { mean, deviation },
            Init::Uniform(low, high) => Initializer::Uniform { low, high },
            Init::Constant(value) => Initializer::Constant(value),
        }
    }

    /// The initialiser of the bias beside it.
    pub fn bias(self, fan_in: u64) -> Initializer {
        match self {
            Init::FanIn => Initializer::FanIn(fan_in),
            _ => Initializer::Constant(0.0),
        }
    }

    fn parse(word: &str, given: &[(&str, f64)]) -> Option<Init> {
        let (_, known) = INITS.iter().find(|(name, _)| *name == word)?;
        if given.iter().any(|(key, _)| !known.iter().any(|(name, _)| name == key)) {
            return None;
        }
        let value = |i: usize| {
            let (name, default) = known.get(i).copied().unwrap_or(("", 0.0));
            given.iter().find(|(key, _)| *key == name).map_or(default, |(_, value)| *value)
        };
        Some(match word {
            "glorot" => Init::Glorot,
            "he" => Init::He,
            "fan_in" => Init::FanIn,
            "normal" => Init::Normal(value(0), value(1)),
            "uniform" => Init::Uniform(value(0), value(1)),
            "ones" => Init::Constant(1.0),
            _ => Init::Constant(value(0)),
        })
    }
}

/// `word`, or the record `word {key = value}`.
impl Attribute for Init {
    const KIND: &'static str = "an initialiser: glorot, he, fan_in, zeros, ones, normal {mean, deviation}, \
                                uniform {low, high} or constant {value}";
    fn to_value(&self) -> AttrValue {
        let (word, parameters): (&str, Vec<f64>) = match *self {
            Init::Glorot => ("glorot", vec![]),
            Init::He => ("he", vec![]),
            Init::FanIn => ("fan_in", vec![]),
            Init::Normal(mean, deviation) => ("normal", vec![mean, deviation]),
            Init::Uniform(low, high) => ("uniform", vec![low, high]),
            Init::Constant(value) => ("constant", vec![value]),
        };
        let names = INITS.iter().find(|(name, _)| *name == word).map_or(&[][..], |(_, known)| known);
        let pairs = names.iter().zip(parameters).map(|((name, _), value)| (Name::from(*name), AttrValue::Float(value)));
        match names {
            [] => AttrValue::Word(word.into()),
            _ => AttrValue::Record(word.into(), pairs.collect()),
        }
    }
    fn from_value(value: &AttrValue) -> Option<Init> {
        match value {
            AttrValue::Word(word) => Init::parse(word, &[]),
            AttrValue::Record(word, fields) => {
                let given = fields.iter().map(|(key, value)| Some((&**key, f64::from_value(value)?)));
                Init::parse(word, &given.collect::<Option<Vec<_>>>()?)
            }
            _ => None,
        }
    }
}

impl LayerAttribute for Init {
    fn words() -> Vec<&'static str> {
        INITS.iter().map(|(name, _)| *name).collect()
    }
}
