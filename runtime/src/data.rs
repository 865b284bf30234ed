//! Data sets: reading arrays, converting them, splitting and batching.

pub mod batches;
pub mod convert;
pub mod dataset;
mod error;
pub mod npy;
pub mod range;
pub(crate) mod transpose;

pub use batches::{Split, epoch_order};
pub use dataset::Dataset;
pub use error::DataError;
