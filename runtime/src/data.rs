//! Data sets: reading arrays, converting them, splitting and batching.

pub mod convert;
pub mod range;
