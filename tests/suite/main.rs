//! The suite: one binary, one module per concern.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

mod diagnostics;
mod docs;
mod element_types;
mod equivalence;
mod examples;
mod golden;
mod gradients;
mod kit;
mod memory;
mod metrics;
mod models;
mod passes;
mod spec;
#[cfg(target_os = "linux")]
mod steady;
mod steps;
mod tidy;
mod tuning;
mod winograd;
