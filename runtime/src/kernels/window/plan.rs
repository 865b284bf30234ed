//! A compiled window kernel of any kind.

use super::depthwise::DepthwisePlan;
use super::depthwise_grad::DepthwiseGradPlan;
use super::pool::PoolPlan;
use super::pool_grad::PoolGradPlan;

/// The plan behind one launch.
#[derive(Debug)]
pub enum WindowPlan {
    /// For `depthwise_tiles`.
    Depthwise(DepthwisePlan),
    /// For `depthwise_grad_tiles`.
    DepthwiseGrad(DepthwiseGradPlan),
    /// For `pool_tiles`.
    Pool(PoolPlan),
    /// For `pool_grad_tiles`.
    PoolGrad(PoolGradPlan),
}

impl WindowPlan {
    /// Address of the descriptor that the entry point takes; valid as long as the plan lives, wherever it is moved.
    pub fn descriptor(&self) -> usize {
        match self {
            Self::Depthwise(plan) => plan.descriptor().expose_provenance(),
            Self::DepthwiseGrad(plan) => plan.descriptor().expose_provenance(),
            Self::Pool(plan) => plan.descriptor().expose_provenance(),
            Self::PoolGrad(plan) => plan.descriptor().expose_provenance(),
        }
    }

    /// Count of tiles, which are independent.
    pub fn tiles(&self) -> u64 {
        match self {
            Self::Depthwise(plan) => plan.tiles(),
            Self::DepthwiseGrad(plan) => plan.tiles(),
            Self::Pool(plan) => plan.tiles(),
            Self::PoolGrad(plan) => plan.tiles(),
        }
    }

    /// Planes of one tile.
    pub fn planes_per_tile(&self) -> usize {
        match self {
            Self::Depthwise(plan) => plan.planes_per_tile(),
            Self::DepthwiseGrad(plan) => plan.planes_per_tile(),
            Self::Pool(plan) => plan.planes_per_tile(),
            Self::PoolGrad(plan) => plan.planes_per_tile(),
        }
    }

    /// Cuts the planes into about so many tiles, which changes no bit.
    pub fn cut(&mut self, tiles: u64) {
        match self {
            Self::Depthwise(plan) => plan.cut(tiles),
            Self::DepthwiseGrad(plan) => plan.cut(tiles),
            Self::Pool(plan) => plan.cut(tiles),
            Self::PoolGrad(plan) => plan.cut(tiles),
        }
    }

    /// What it computes: equal texts, equal kernels.
    pub fn spec(&self) -> String {
        match self {
            Self::Depthwise(plan) => plan.spec(),
            Self::DepthwiseGrad(plan) => plan.spec(),
            Self::Pool(plan) => plan.spec(),
            Self::PoolGrad(plan) => plan.spec(),
        }
    }

    /// Level, op, window and stride, such as `avx512-depthwise-3x3-s1`.
    pub fn kernel(&self) -> &str {
        match self {
            Self::Depthwise(plan) => plan.kernel(),
            Self::DepthwiseGrad(plan) => plan.kernel(),
            Self::Pool(plan) => plan.kernel(),
            Self::PoolGrad(plan) => plan.kernel(),
        }
    }
}

/// What every plan over whole planes answers alike; its `descriptor` has a `tile` and the `planes` of a `spec`.
macro_rules! queries {
    ($descriptor:ty) => {
        /// What the entry point takes; valid as long as the plan lives, wherever the plan is moved.
        pub fn descriptor(&self) -> *const $descriptor {
            std::ptr::from_ref(&*self.descriptor)
        }

        /// Count of tiles of the launch; tiles are independent.
        pub fn tiles(&self) -> u64 {
            self.descriptor.spec.planes.div_ceil(self.descriptor.tile) as u64
        }

        /// Planes of one tile.
        pub fn planes_per_tile(&self) -> usize {
            self.descriptor.tile.min(self.descriptor.spec.planes)
        }

        /// Cuts the planes into about so many tiles.
        pub fn cut(&mut self, tiles: u64) {
            self.descriptor.tile = self.descriptor.spec.planes.div_ceil(tiles.max(1) as usize).max(1);
        }

        /// What it computes, as text.
        pub fn spec(&self) -> String {
            format!("{:?}", self.descriptor.spec)
        }

        /// Level, op, window and stride, such as `avx512-max-pool-3x3-s2`.
        pub fn kernel(&self) -> &str {
            &self.kernel
        }
    };
}
pub(crate) use queries;
