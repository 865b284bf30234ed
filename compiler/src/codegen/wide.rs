//! Wide loops: the bodies of loops in lanes at 512 bit, where Cranelift stops at 128.
//!
//! A loop whose body is a list of vector operations becomes a [`tape::Tape`], a function of its own behind the code of
//! its kernel, which calls it. [`allocate`] finds registers in one pass, without spilling: a body that does not fit stays
//! with Cranelift. [`assemble`] writes the instructions. The bytes have no relocations.

mod allocate;
mod assemble;
mod body;
mod encode;
mod instructions;
mod math;
mod op;
pub(super) mod tape;
#[cfg(test)]
mod tests;

pub(super) use assemble::{LANES, WideCode, assemble};
pub(super) use encode::MaskOp;
