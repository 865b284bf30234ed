//! Attributes: compile-time parameters of ops, as Rust types and as text values.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::scalar::Number;
use crate::types::{Bindings, DType, Dim, Name};

/// An attribute as the text form has it.
#[derive(Clone, Debug, PartialEq)]
pub enum AttrValue {
    /// `3`, `-1`.
    Int(i64),
    /// `0.5`, `1e-3`, `inf`, `nan`.
    Float(f64),
    /// `true`, `false`.
    Bool(bool),
    /// An extent that depends on names: `batch*4`.
    Dim(Dim),
    /// A bare word: `same`, `f32`.
    Word(Name),
    /// `"text"`.
    Text(Name),
    /// `[a, b]`.
    List(Vec<AttrValue>),
    /// `adam {rate = 0.001}`; the word is empty for a bare `{...}`. Recipes have them, ops do not.
    Record(Name, Vec<(Name, AttrValue)>),
}

impl fmt::Display for AttrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttrValue::Int(value) => write!(f, "{value}"),
            AttrValue::Float(value) => write_float(f, *value),
            AttrValue::Bool(value) => write!(f, "{value}"),
            AttrValue::Dim(dim) => write!(f, "{dim}"),
            AttrValue::Word(word) => f.write_str(word),
            AttrValue::Text(text) => write!(f, "\"{}\"", text.escape_debug()),
            AttrValue::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{item}")?;
                }
                f.write_str("]")
            }
            AttrValue::Record(word, fields) => {
                write!(f, "{word}{}{{", if word.is_empty() { "" } else { " " })?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name} = {value}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// Shortest decimal that reads back as the same value, always recognisable as a float.
pub fn write_float(f: &mut dyn fmt::Write, value: f64) -> fmt::Result {
    if value.is_nan() {
        f.write_str("nan")
    } else if value.is_infinite() {
        f.write_str(if value > 0.0 { "inf" } else { "-inf" })
    } else if value != 0.0 && !(1e-5..1e16).contains(&value.abs()) {
        write!(f, "{value:e}")
    } else {
        write!(f, "{value:?}")
    }
}

/// A Rust type that can stand in an op's attribute list.
pub trait Attribute: Sized + Clone {
    /// What messages call it: `a list of integers`.
    const KIND: &'static str;

    /// Its text value.
    fn to_value(&self) -> AttrValue;

    /// Inverse of [`Attribute::to_value`]; `None` if the value is of another kind.
    fn from_value(value: &AttrValue) -> Option<Self>;

    /// With dimension names bound.
    fn bind(&self, _: &Bindings) -> Self {
        self.clone()
    }
}

/// A short list of integers.
pub type Ints = SmallVec<[i64; 4]>;

impl Attribute for i64 {
    const KIND: &'static str = "an integer";
    fn to_value(&self) -> AttrValue {
        AttrValue::Int(*self)
    }
    fn from_value(value: &AttrValue) -> Option<i64> {
        match value {
            AttrValue::Int(value) => Some(*value),
            _ => None,
        }
    }
}

impl Attribute for f64 {
    const KIND: &'static str = "a number";
    fn to_value(&self) -> AttrValue {
        AttrValue::Float(*self)
    }
    fn from_value(value: &AttrValue) -> Option<f64> {
        match value {
            AttrValue::Float(value) => Some(*value),
            AttrValue::Int(value) => Some(*value as f64),
            _ => None,
        }
    }
}

impl Attribute for bool {
    const KIND: &'static str = "true or false";
    fn to_value(&self) -> AttrValue {
        AttrValue::Bool(*self)
    }
    fn from_value(value: &AttrValue) -> Option<bool> {
        match value {
            AttrValue::Bool(value) => Some(*value),
            _ => None,
        }
    }
}

impl Attribute for Ints {
    const KIND: &'static str = "a list of integers";
    fn to_value(&self) -> AttrValue {
        AttrValue::List(self.iter().map(|&i| AttrValue::Int(i)).collect())
    }
    fn from_value(value: &AttrValue) -> Option<Ints> {
        match value {
            AttrValue::List(items) => items.iter().map(i64::from_value).collect(),
            _ => None,
        }
    }
}

impl Attribute for Name {
    const KIND: &'static str = "a word";
    fn to_value(&self) -> AttrValue {
        AttrValue::Text(self.clone())
    }
    fn from_value(value: &AttrValue) -> Option<Name> {
        match value {
            AttrValue::Word(name) | AttrValue::Text(name) => Some(name.clone()),
            _ => None,
        }
    }
}

impl Attribute for DType {
    const KIND: &'static str = "an element type";
    fn to_value(&self) -> AttrValue {
        AttrValue::Word(self.name().into())
    }
    fn from_value(value: &AttrValue) -> Option<DType> {
        match value {
            AttrValue::Word(name) => DType::parse(name),
            _ => None,
        }
    }
}

impl Attribute for Dim {
    const KIND: &'static str = "an extent";
    fn to_value(&self) -> AttrValue {
        match self.known() {
            Some(extent) => AttrValue::Int(i64::try_from(extent).unwrap_or(i64::MAX)),
            None => AttrValue::Dim(self.clone()),
        }
    }
    fn from_value(value: &AttrValue) -> Option<Dim> {
        match value {
            AttrValue::Int(value) => usize::try_from(*value).ok().map(Dim::from),
            AttrValue::Dim(dim) => Some(dim.clone()),
            AttrValue::Word(name) => Some(Dim::named(name.clone())),
            _ => None,
        }
    }
    fn bind(&self, bindings: &Bindings) -> Dim {
        Dim::bind(self, bindings)
    }
}

/// A short list of extents.
pub type Dims = SmallVec<[Dim; 4]>;

impl Attribute for Dims {
    const KIND: &'static str = "a list of extents";
    fn to_value(&self) -> AttrValue {
        AttrValue::List(self.iter().map(Dim::to_value).collect())
    }
    fn from_value(value: &AttrValue) -> Option<Dims> {
        match value {
            AttrValue::List(items) => items.iter().map(Dim::from_value).collect(),
            _ => None,
        }
    }
    fn bind(&self, bindings: &Bindings) -> Dims {
        self.iter().map(|dim| dim.bind(bindings)).collect()
    }
}

/// Elements of a constant: one for all, or one per element in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// Every element.
    Splat(Number),
    /// Element by element.
    Dense(Arc<[Number]>),
}

impl Literal {
    /// Element at a linear position.
    pub fn at(&self, position: usize) -> Option<Number> {
        match self {
            Literal::Splat(number) => Some(*number),
            Literal::Dense(numbers) => numbers.get(position).copied(),
        }
    }
}

impl Attribute for Literal {
    const KIND: &'static str = "a number or a list of numbers";
    fn to_value(&self) -> AttrValue {
        let number = |n: &Number| match n {
            Number::Float(value) => AttrValue::Float(*value),
            Number::Int(value) => AttrValue::Int(*value),
        };
        match self {
            Literal::Splat(n) => number(n),
            Literal::Dense(numbers) => AttrValue::List(numbers.iter().map(number).collect()),
        }
    }
    fn from_value(value: &AttrValue) -> Option<Literal> {
        let number = |value: &AttrValue| match value {
            AttrValue::Int(value) => Some(Number::Int(*value)),
            AttrValue::Float(value) => Some(Number::Float(*value)),
            AttrValue::Bool(value) => Some(Number::Int((*value).into())),
            _ => None,
        };
        match value {
            AttrValue::List(items) => items.iter().map(number).collect::<Option<_>>().map(Literal::Dense),
            value => number(value).map(Literal::Splat),
        }
    }
}
