//! Shared pieces of the test suites: executors that run one graph on the same inputs, and comparison.

pub mod executors;
