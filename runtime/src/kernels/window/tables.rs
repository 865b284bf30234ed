//! The window kernels of one level.

use super::dense::Dense;
use super::depthwise_block::{BlockSet, PlaneCall};
use super::depthwise_grad_filter::FilterFn;
use super::flat::Flat;
use super::pool_grad_plane::PoolGradFn;
use super::pool_plane::PoolFn;
use crate::kernels::abi::ActivateFn;

/// Function pointers of one level; vectors have `lanes` elements of `f32`.
#[derive(Debug)]
pub(crate) struct WindowTable {
    pub(crate) name: &'static str,
    pub(crate) lanes: usize,
    /// Depthwise convolution by 3 x 3, strides 1 and 2; most rows first.
    pub(crate) depthwise3: [[BlockSet; 3]; 2],
    /// By 5 x 5, likewise.
    pub(crate) depthwise5: [[BlockSet; 3]; 2],
    /// By any kernel, stride 1 and 2 along rows; most rows first, then one.
    pub(crate) depthwise: [[BlockSet; 2]; 2],
    /// Where outputs lie as inputs do: by 3 x 3, and by 3, 5 and 7 columns.
    pub(crate) depthwise_dense: [DenseFn; 4],
    /// By vectors of several rows, any kernel.
    pub(crate) depthwise_flat: unsafe fn(&PlaneCall<'_>, &Flat),
    /// Gradient of the filters, by 3, 5 and 7 columns, strides 1 and 2.
    pub(crate) depthwise_grad: [[FilterFn; 2]; 3],
    /// By any kernel.
    pub(crate) depthwise_grad_any: [FilterFn; 2],
    /// By op (maximum, with place, sum) and window: 2 x 2 by 2, 3 x 3 by 2 and by 1, any by 1 and by 2 along rows.
    pub(crate) pool: [[PoolFn; 5]; 3],
    /// By op, for vectors of several rows and any window.
    pub(crate) pool_flat: [PoolFn; 3],
    /// By op, for windows of 2 x 2 by 2 that cover their planes.
    pub(crate) pool_halved: [PoolFn; 3],
    /// Whole, by places and by weights; stride 1 and 2 along rows.
    pub(crate) pool_grad: [[PoolGradFn; 2]; 3],
    /// Whole and by places, for windows of 2 x 2 by 2 that cover their planes.
    pub(crate) pool_grad_halved: [PoolGradFn; 2],
    pub(crate) activate: ActivateFn<f32>,
}

/// A plane of a [`Dense`].
pub(crate) type DenseFn = unsafe fn(&PlaneCall<'_>, &Dense);

/// The table of a level, whose vector type, most rows per register block (at stride 1 and otherwise, where more loads
/// are in flight) and features are given.
macro_rules! window_table {
    ($name:literal, $vector:ty, $rows:literal, $few:literal $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn depthwise<const K: usize, const STRIDE: usize, const R: usize, const EDGE: u8, const MASKED: bool>(
            call: &crate::kernels::window::PlaneCall<'_>,
            block: &crate::kernels::window::Block,
        ) {
            crate::kernels::window::block::<$vector, K, STRIDE, R, EDGE, MASKED>(call, block);
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn depthwise_dense<const ROWS: usize, const K: usize, const N: usize>(
            call: &crate::kernels::window::PlaneCall<'_>,
            dense: &crate::kernels::window::Dense,
        ) {
            crate::kernels::window::depthwise_dense::<$vector, ROWS, K, N>(call, dense);
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn depthwise_flat(
            call: &crate::kernels::window::PlaneCall<'_>,
            flat: &crate::kernels::window::Flat,
        ) {
            crate::kernels::window::depthwise_flat::<$vector>(call, flat);
        }
        const fn depthwise_3<const STRIDE: usize, const R: usize>() -> crate::kernels::window::BlockSet {
            use crate::kernels::window::{BlockSet, FIRST, LAST};
            BlockSet {
                rows: R,
                outside: 1,
                run: [
                    depthwise::<3, STRIDE, R, 0, false>,
                    depthwise::<3, STRIDE, R, 0, true>,
                    depthwise::<3, STRIDE, R, FIRST, true>,
                    depthwise::<3, STRIDE, R, LAST, true>,
                    depthwise::<3, STRIDE, R, { FIRST | LAST }, true>,
                ],
            }
        }
        const fn depthwise_5<const STRIDE: usize, const R: usize>() -> crate::kernels::window::BlockSet {
            use crate::kernels::window::ANY;
            let border = depthwise::<5, STRIDE, R, ANY, true>;
            let (inside, masked) = (depthwise::<5, STRIDE, R, 0, false>, depthwise::<5, STRIDE, R, 0, true>);
            crate::kernels::window::BlockSet { rows: R, outside: 4, run: [inside, masked, border, border, border] }
        }
        const fn depthwise_any<const STRIDE: usize, const R: usize>() -> crate::kernels::window::BlockSet {
            let masked = depthwise::<0, STRIDE, R, 0, true>;
            crate::kernels::window::BlockSet {
                rows: R,
                outside: 1,
                run: [depthwise::<0, STRIDE, R, 0, false>, masked, masked, masked, masked],
            }
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn depthwise_grad<const KR: usize, const KC: usize, const STRIDE: usize, const R: usize>(
            call: &crate::kernels::window::FilterCall<'_>,
        ) {
            crate::kernels::window::filters::<$vector, KR, KC, STRIDE, R>(call);
        }
        /// Whether there are 32 registers for 5 x 5 sums.
        const MANY: bool = <$vector as crate::kernels::simd::Simd>::LANES == 16;
        const FIVE: usize = if MANY { 5 } else { 2 };
        const SEVEN: usize = if MANY { 3 } else { 1 };
        const BLOCK: usize = if MANY { 2 } else { 1 };
        $(#[target_feature(enable = $feature)])?
        unsafe fn pool<const OP: u32, const K: usize, const STRIDE: usize>(
            call: &crate::kernels::window::PoolCall<'_>,
        ) {
            crate::kernels::window::pool_plane::<$vector, OP, K, STRIDE>(call);
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn pool_flat<const OP: u32>(call: &crate::kernels::window::PoolCall<'_>) {
            crate::kernels::window::pool_flat::<$vector, OP>(call);
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn pool_halved<const OP: u32>(call: &crate::kernels::window::PoolCall<'_>) {
            crate::kernels::window::pool_halved::<$vector, OP>(call);
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn pool_grad_halved<const SHARE: u8>(call: &crate::kernels::window::PoolGradCall<'_>) {
            crate::kernels::window::pool_grad_halved::<$vector, SHARE>(call);
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn pool_grad<const SHARE: u8, const STRIDE: usize>(
            call: &crate::kernels::window::PoolGradCall<'_>,
        ) {
            crate::kernels::window::pool_grad_plane::<$vector, SHARE, STRIDE>(call);
        }
        pub(crate) static WINDOW: crate::kernels::window::WindowTable = crate::kernels::window::WindowTable {
            name: $name,
            lanes: <$vector as crate::kernels::simd::Simd>::LANES,
            depthwise3: [
                [depthwise_3::<1, $rows>(), depthwise_3::<1, 2>(), depthwise_3::<1, 1>()],
                [depthwise_3::<2, $few>(), depthwise_3::<2, 2>(), depthwise_3::<2, 1>()],
            ],
            depthwise5: [
                [depthwise_5::<1, $few>(), depthwise_5::<1, 2>(), depthwise_5::<1, 1>()],
                [depthwise_5::<2, $few>(), depthwise_5::<2, 2>(), depthwise_5::<2, 1>()],
            ],
            depthwise: [
                [depthwise_any::<1, $few>(), depthwise_any::<1, 1>()],
                [depthwise_any::<2, $few>(), depthwise_any::<2, 1>()],
            ],
            depthwise_dense: [
                depthwise_dense::<3, 3, { 2 * BLOCK }>,
                depthwise_dense::<0, 3, { 2 * BLOCK }>,
                depthwise_dense::<0, 5, BLOCK>,
                depthwise_dense::<0, 7, BLOCK>,
            ],
            depthwise_flat,
            depthwise_grad: [
                [depthwise_grad::<3, 3, 1, $few>, depthwise_grad::<3, 3, 2, $few>],
                [depthwise_grad::<FIVE, 5, 1, BLOCK>, depthwise_grad::<FIVE, 5, 2, BLOCK>],
                [depthwise_grad::<SEVEN, 7, 1, BLOCK>, depthwise_grad::<SEVEN, 7, 2, BLOCK>],
            ],
            depthwise_grad_any: [depthwise_grad::<0, 0, 1, 1>, depthwise_grad::<0, 0, 2, 1>],
            pool: [
                [pool::<0, 2, 2>, pool::<0, 3, 2>, pool::<0, 3, 1>, pool::<0, 0, 1>, pool::<0, 0, 2>],
                [pool::<1, 2, 2>, pool::<1, 3, 2>, pool::<1, 3, 1>, pool::<1, 0, 1>, pool::<1, 0, 2>],
                [pool::<2, 2, 2>, pool::<2, 3, 2>, pool::<2, 3, 1>, pool::<2, 0, 1>, pool::<2, 0, 2>],
            ],
            pool_flat: [pool_flat::<0>, pool_flat::<1>, pool_flat::<2>],
            pool_halved: [pool_halved::<0>, pool_halved::<1>, pool_halved::<2>],
            pool_grad_halved: [
                pool_grad_halved::<{ crate::kernels::window::WHOLE }>,
                pool_grad_halved::<{ crate::kernels::window::CHOSEN }>,
            ],
            pool_grad: {
                use crate::kernels::window::{CHOSEN, WEIGHTED, WHOLE};
                [
                    [pool_grad::<WHOLE, 1>, pool_grad::<WHOLE, 2>],
                    [pool_grad::<CHOSEN, 1>, pool_grad::<CHOSEN, 2>],
                    [pool_grad::<WEIGHTED, 1>, pool_grad::<WEIGHTED, 2>],
                ]
            },
            activate,
        };
    };
}
pub(crate) use window_table;
