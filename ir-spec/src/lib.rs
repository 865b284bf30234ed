//! The language of Kiln: what a program is and what it means.

#![forbid(unsafe_code)]

pub mod scalar;
pub mod types;

pub use types::{Bindings, DType, Dim, DimError, Extents, Layout, Name, Shape, TensorType};
