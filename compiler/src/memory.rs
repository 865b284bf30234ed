//! The memory plan.
pub mod check;
pub mod csv;
pub mod problem;
pub mod solver;

pub use problem::{ALIGNMENT, Buffer, Fault, Problem, Storage};
pub use solver::{Options, Plan, plan};
