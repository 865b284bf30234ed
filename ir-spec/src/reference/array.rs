//! Values of the reference evaluator.

use crate::scalar::Number;
use crate::types::{DType, TensorType};

/// A tensor's elements in row-major order, whatever its layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its type, bound.
    pub ty: TensorType,
    /// Its elements.
    pub data: Data,
}

/// Elements: every float type in binary64, every integer type and bool (0 or 1) in i64.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Of a float type.
    Float(Vec<f64>),
    /// Of an integer type or bool.
    Int(Vec<i64>),
}

impl Data {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::Float(numbers) => numbers.len(),
            Data::Int(numbers) => numbers.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Array {
    /// An array; `None` if the number or the kind of the elements does not fit the type.
    pub fn new(ty: TensorType, data: Data) -> Option<Array> {
        let kind = matches!(data, Data::Float(_)) == ty.dtype.is_float();
        (kind && data.len() == ty.elements()).then_some(Array { ty, data })
    }

    /// An array of the numbers that `at` gives for each linear position; `None` as soon as one is missing.
    pub fn from_numbers(ty: TensorType, mut at: impl FnMut(usize) -> Option<Number>) -> Option<Array> {
        let positions = 0..ty.elements();
        let data = if ty.dtype.is_float() {
            Data::Float(positions.map(|p| Some(at(p)?.to_f64())).collect::<Option<_>>()?)
        } else {
            Data::Int(positions.map(|p| Some(at(p)?.to_i64())).collect::<Option<_>>()?)
        };
        Some(Array { ty, data })
    }

    /// An array of one number.
    pub fn scalar(dtype: DType, value: impl Into<Number>) -> Array {
        let value = value.into();
        let ty = TensorType::scalar(dtype);
        let data = if dtype.is_float() { Data::Float(vec![value.to_f64()]) } else { Data::Int(vec![value.to_i64()]) };
        Array { ty, data }
    }

    /// An f32 array; `None` if the number of elements does not fit.
    pub fn f32(extents: &[usize], values: &[f32]) -> Option<Array> {
        let data = Data::Float(values.iter().map(|&v| f64::from(v)).collect());
        Array::new(TensorType::new(DType::F32, extents), data)
    }

    /// An i64 array; `None` if the number of elements does not fit.
    pub fn i64(extents: &[usize], values: &[i64]) -> Option<Array> {
        Array::new(TensorType::new(DType::I64, extents), Data::Int(values.to_vec()))
    }

    /// Element at a linear position.
    pub fn at(&self, position: usize) -> Option<Number> {
        match &self.data {
            Data::Float(numbers) => numbers.get(position).map(|&n| Number::Float(n)),
            Data::Int(numbers) => numbers.get(position).map(|&n| Number::Int(n)),
        }
    }

    /// Elements as binary64, integers converted.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            Data::Float(numbers) => numbers.clone(),
            Data::Int(numbers) => numbers.iter().map(|&n| n as f64).collect(),
        }
    }

    /// Whether every element is finite.
    pub fn is_finite(&self) -> bool {
        match &self.data {
            Data::Float(numbers) => numbers.iter().all(|n| n.is_finite()),
            Data::Int(_) => true,
        }
    }
}
