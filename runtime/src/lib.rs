//! The machine room of Kiln: it only computes.

pub mod kernels;
