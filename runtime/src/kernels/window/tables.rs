//! The window kernels of one level.

use super::depthwise_plane::PlaneFn;
use crate::kernels::abi::ActivateFn;

/// Function pointers of one level; vectors have `lanes` elements of `f32`.
#[derive(Debug)]
pub(crate) struct WindowTable {
    pub(crate) name: &'static str,
    pub(crate) lanes: usize,
    /// Depthwise convolution by 3 x 3, strides 1 and 2.
    pub(crate) depthwise3: [PlaneFn; 2],
    /// By any kernel, stride 1 and 2 along rows.
    pub(crate) depthwise: [PlaneFn; 2],
    pub(crate) activate: ActivateFn<f32>,
}

/// The table of a level, whose vector type, most rows per register block and features are given.
macro_rules! window_table {
    ($name:literal, $vector:ty, $rows:literal $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn depthwise3<const STRIDE: usize>(call: &crate::kernels::window::PlaneCall<'_>) {
            crate::kernels::window::plane::<$vector, 3, STRIDE, $rows>(call);
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn depthwise<const STRIDE: usize>(call: &crate::kernels::window::PlaneCall<'_>) {
            crate::kernels::window::plane::<$vector, 0, STRIDE, $rows>(call);
        }
        pub(crate) static WINDOW: crate::kernels::window::WindowTable = crate::kernels::window::WindowTable {
            name: $name,
            lanes: <$vector as crate::kernels::simd::Simd>::LANES,
            depthwise3: [depthwise3::<1>, depthwise3::<2>],
            depthwise: [depthwise::<1>, depthwise::<2>],
            activate,
        };
    };
}
pub(crate) use window_table;
