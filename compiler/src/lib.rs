//! The decisions of Kiln: passes, autodiff, memory plan, loops and code.

pub mod autodiff;
pub mod codegen;
pub mod compile;
pub mod explain;
pub mod loops;
pub mod lower;
pub mod memory;
pub mod pass;
pub mod pipeline;
pub mod placement;
pub mod rewrite;
pub mod schedule;
pub mod testing;
pub mod training;

pub use compile::{CompileError, Compiled, Options, Program, compile};
pub use training::{Trained, TrainingError, train};
