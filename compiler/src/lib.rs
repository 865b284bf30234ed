//! The decisions of Kiln: passes, autodiff, memory plan, loops and code.

pub mod autodiff;
pub mod codegen;
pub mod loops;
pub mod memory;
pub mod pass;
