//! Shared pieces of the test suites: executors that run one graph on the same inputs, cases, fixtures and random
//! programs for them to run, comparison, and snapshots.

pub mod cases;
pub mod compare;
pub mod executors;
pub mod fixtures;
pub mod generate;
pub mod numbers;
pub mod snapshots;
pub mod training;
