//! Shared pieces of the test suites: executors that run one graph on the same inputs, fixtures, and snapshots.

pub mod executors;
pub mod training;
pub mod fixtures;
pub mod snapshots;
