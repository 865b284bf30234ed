#![allow(unsafe_code, reason = "the entry point is called with raw tensors")]
//! The gradient of a depthwise convolution's filters: sums over all positions of all planes of a filter.

use super::axis::{Axis, WindowError, check_planes, describe, tile_planes};
use super::tables::WindowTable;
use crate::kernels::Kernels;

/// `dw[f, i, j] = sum over p, y, x of dy[p, y, x] * in[p / multiplier, rows(y, i), columns(x, j)]` for the planes `p`
/// with `p % filters = f`, f32. Each element is summed in an order of its own: along the lanes of a plane, over the
/// planes, then over the lanes.
#[derive(Clone, Debug)]
pub struct DepthwiseGradSpec {
    /// Planes of `dy`: batch times output channels.
    pub planes: usize,
    /// Output channels.
    pub filters: usize,
    /// Output channels per input channel, at least 1.
    pub multiplier: usize,
    /// Of the convolution, from one row to the next.
    pub rows: Axis,
    /// Along a row.
    pub columns: Axis,
}

/// A compiled gradient.
#[derive(Debug)]
pub struct DepthwiseGradPlan {
    descriptor: Box<DepthwiseGradDescriptor>,
    kernel: String,
}

/// What the entry point takes; opaque to callers.
#[derive(Debug)]
pub struct DepthwiseGradDescriptor {
    pub(super) spec: DepthwiseGradSpec,
    filter: super::depthwise_grad_filter::FilterFn,
    /// Filters of one tile.
    tile: usize,
    /// `[vectors of a row][columns of the window]`
    pub(super) masks: Vec<[u16; 2]>,
    /// `[vectors of a row]`
    pub(super) full: Vec<bool>,
}

impl DepthwiseGradPlan {
    /// Compiles `spec` for the kernels of one level.
    ///
    /// # Errors
    /// [`WindowError`] when there is no kernel.
    pub fn new(spec: &DepthwiseGradSpec, kernels: &Kernels) -> Result<Self, WindowError> {
        let (rows, columns) = (spec.rows, spec.columns);
        check_planes(spec.planes, &rows, &columns)?;
        if spec.filters == 0 || spec.multiplier == 0 {
            return Err(WindowError::Empty);
        }
        if columns.stride > 2 {
            return Err(WindowError::Stride);
        }
        let table: &WindowTable = kernels.window;
        let three = (rows.kernel, columns.kernel) == (3, 3) && rows.stride == columns.stride;
        let functions = if three { &table.depthwise3_grad } else { &table.depthwise_grad };
        let (masks, full) = columns.masks(table.lanes);
        let work = spec.planes / spec.filters * rows.output * columns.output * rows.kernel * columns.kernel;
        Ok(Self {
            kernel: format!("{}-depthwise-grad-{}", table.name, describe(&rows, &columns)),
            descriptor: Box::new(DepthwiseGradDescriptor {
                spec: spec.clone(),
                filter: functions[columns.stride - 1],
                tile: tile_planes(spec.filters, work),
                masks,
                full,
            }),
        })
    }

    /// What the entry point takes; valid as long as the plan lives, wherever the plan is moved.
    pub fn descriptor(&self) -> *const DepthwiseGradDescriptor {
        std::ptr::from_ref(&*self.descriptor)
    }

    /// Count of tiles for [`depthwise_grad_tiles`]; tiles are independent.
    pub fn tiles(&self) -> u64 {
        self.descriptor.spec.filters.div_ceil(self.descriptor.tile) as u64
    }

    /// Planes of one tile.
    pub fn planes_per_tile(&self) -> usize {
        let spec = &self.descriptor.spec;
        self.descriptor.tile.min(spec.filters) * (spec.planes / spec.filters)
    }

    /// Cuts the filters into about so many tiles.
    pub fn cut(&mut self, tiles: u64) {
        self.descriptor.tile = self.descriptor.spec.filters.div_ceil(tiles.max(1) as usize).max(1);
    }

    /// What it computes, as text.
    pub fn spec(&self) -> String {
        format!("{:?}", self.descriptor.spec)
    }

    /// Level, op, kernel and stride, such as `avx512-depthwise-grad-3x3-s1`.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }
}

/// Tiles `begin..end` of a gradient.
///
/// # Safety
/// The descriptor's plan is alive and its level available; the tensors have the spec's shapes; `dw` overlaps none of
/// the others; no other thread runs these tiles; `begin <= end <=` the tiles.
pub unsafe extern "C" fn depthwise_grad_tiles(
    descriptor: *const DepthwiseGradDescriptor,
    x: *const f32,
    dy: *const f32,
    dw: *mut f32,
    begin: u64,
    end: u64,
) {
    // SAFETY: the plan is alive.
    let d = unsafe { &*descriptor };
    for filter in begin as usize * d.tile..(end as usize * d.tile).min(d.spec.filters) {
        let taps = d.spec.rows.kernel * d.spec.columns.kernel;
        let call = super::depthwise_grad_filter::FilterCall { d, filter, x, dy, dw: dw.wrapping_add(filter * taps) };
        // SAFETY: by the contract above all planes exist, and the level is available.
        unsafe { (d.filter)(&call) }
    }
}
