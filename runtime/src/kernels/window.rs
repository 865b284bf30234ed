//! Kernels of windows over planes: depthwise convolutions, whose channels are independent, and pools.
//!
//! A tensor `[N, C, H, W]` is `N * C` planes. Vectors run along an output row; where a window meets the border of its
//! plane, loads are masked. A tile of a launch is a few whole planes, so that no two tiles share a sum.

mod axis;
mod dense;
mod depthwise;
mod depthwise_block;
mod depthwise_dense;
mod depthwise_grad;
mod depthwise_grad_filter;
mod depthwise_plane;
mod flat;
mod flat_lanes;
mod lanes;
mod plan;
mod pool;
mod pool_flat;
mod pool_grad;
mod pool_grad_plane;
mod pool_halved;
mod pool_plane;
mod tables;

pub use axis::{Axis, WindowError};
pub(crate) use dense::Dense;
pub use depthwise::{DepthwiseDescriptor, DepthwiseEpilogue, DepthwisePlan, DepthwiseSpec, depthwise_tiles};
pub(crate) use depthwise_block::{ANY, BlockSet, FIRST, LAST, PlaneCall, block, depthwise_flat};
pub(crate) use depthwise_dense::depthwise_dense;
pub use depthwise_grad::{DepthwiseGradDescriptor, DepthwiseGradPlan, DepthwiseGradSpec, depthwise_grad_tiles};
pub(crate) use depthwise_grad_filter::{FilterCall, filters};
pub(crate) use depthwise_plane::Block;
pub(crate) use flat::Flat;
pub use plan::WindowPlan;
pub use pool::{PoolDescriptor, PoolPlan, PoolReduce, PoolSpec, pool_tiles};
pub(crate) use pool_flat::pool_flat;
pub use pool_grad::{PoolGradDescriptor, PoolGradPlan, PoolGradSpec, Share, pool_grad_tiles};
pub(crate) use pool_grad_plane::{CHOSEN, PoolGradCall, WEIGHTED, WHOLE, pool_grad_plane};
pub(crate) use pool_halved::{pool_grad_halved, pool_halved};
pub(crate) use pool_plane::{PoolCall, pool_plane};
pub(crate) use tables::{WindowTable, window_table};
