//! Kernels of windows over planes: depthwise convolutions, whose channels are independent, and pools.
//!
//! A tensor `[N, C, H, W]` is `N * C` planes. Vectors run along an output row; where a window meets the border of its
//! plane, loads are masked. A tile of a launch is a few whole planes, so that no two tiles share a sum.

mod axis;
mod depthwise;
mod depthwise_plane;
mod tables;

pub use axis::{Axis, WindowError};
pub use depthwise::{DepthwiseDescriptor, DepthwiseEpilogue, DepthwisePlan, DepthwiseSpec, depthwise_tiles};
pub(crate) use depthwise_plane::{PlaneCall, plane};
pub(crate) use tables::{WindowTable, window_table};
