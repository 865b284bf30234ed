#![allow(unsafe_code, clippy::unwrap_used, reason = "tests call the entry points and may panic")]
//! Every level against the definition: sums over loop points in f64.

mod apart;
mod cases;
mod choice;
mod contract;
mod depthwise;
mod few_rows;
mod in_place;
mod pool;
mod run;
mod shared;
mod strips;
mod tiling;
mod types;
mod winograd;
mod winograd_gradient;
mod winograd_line;
