//! Windows over the spatial dimensions of `x: [N, C, spatial...]`.

mod geometry;
mod max_pool;
mod pool;

pub(crate) use geometry::{Geometry, LARGEST};
