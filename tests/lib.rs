//! Shared pieces of the test suites: executors that run one graph on the same inputs, cases and random programs for them
//! to run, and comparison.

pub mod cases;
pub mod compare;
pub mod executors;
pub mod generate;
pub mod numbers;
