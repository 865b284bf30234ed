#![allow(
    unsafe_code,
    reason = "the descriptor holds pointers into tables that the plan owns; the entry point is called"
)]
//! Depthwise convolutions: each output plane is the convolution of one input plane with one small filter.
//!
//! Backward-data at stride 1 is the same with the filter turned by half a circle ([`DepthwiseSpec::flipped`]).

use std::ptr::null;

use super::axis::{Axis, WindowError, check_planes, describe, tile_planes};
use super::dense::Dense;
use super::depthwise_block::PlaneCall;
use super::depthwise_plane::{Block, blocks};
use super::flat::Flat;
use super::tables::WindowTable;
use crate::kernels::math::CLAMP;
use crate::kernels::{Activation, Kernels};

/// `out[p, y, x] = epilogue(sum over i, j of in[p / multiplier, rows(y, i), columns(x, j)] * w[p % filters, i, j])`, f32.
#[derive(Clone, Debug)]
pub struct DepthwiseSpec {
    /// Planes of the output: batch times output channels.
    pub planes: usize,
    /// Output channels.
    pub filters: usize,
    /// Output channels per input channel, at least 1.
    pub multiplier: usize,
    /// From one row to the next.
    pub rows: Axis,
    /// Along a row.
    pub columns: Axis,
    /// Whether `w` is read backwards along rows and columns.
    pub flipped: [bool; 2],
    /// What is done to a sum before it is stored.
    pub epilogue: DepthwiseEpilogue,
}

/// Applied in the order of the fields; vectors have one element for each filter.
#[derive(Clone, Copy, Debug, Default)]
pub struct DepthwiseEpilogue {
    /// Adds a vector.
    pub bias: bool,
    /// Multiplies by a vector.
    pub scale: bool,
    /// Adds a tensor of the output's shape, with which the output may be identical.
    pub residual: bool,
    /// Last.
    pub activation: Activation,
}

/// A compiled depthwise convolution.
#[derive(Debug)]
pub struct DepthwisePlan {
    descriptor: Box<DepthwiseDescriptor>,
    kernel: String,
}

/// What the entry point takes; opaque to callers.
#[derive(Debug)]
pub struct DepthwiseDescriptor {
    pub(super) spec: DepthwiseSpec,
    pub(super) table: &'static WindowTable,
    /// Planes of one tile.
    tile: usize,
    /// `[vectors of a row][columns of the window]`
    pub(super) masks: Vec<[u16; 2]>,
    /// Elements from the start of a filter to its first tap, and between taps of neighbouring rows and columns.
    first_tap: isize,
    pub(super) tap_steps: [isize; 2],
    /// Of every plane, unless vectors hold outputs of several rows.
    blocks: Vec<Block>,
    flat: Option<Flat>,
    /// Of planes whose outputs lie as their inputs do.
    dense: Option<Dense>,
    pub(super) activation: (u32, [f32; 2]),
}

impl DepthwisePlan {
    /// Compiles `spec` for the kernels of one level.
    ///
    /// # Errors
    /// [`WindowError`] when there is no kernel.
    pub fn new(spec: &DepthwiseSpec, kernels: &Kernels) -> Result<Self, WindowError> {
        let (rows, columns) = (spec.rows, spec.columns);
        check_planes(spec.planes, &rows, &columns)?;
        if spec.filters == 0 || spec.multiplier == 0 {
            return Err(WindowError::Empty);
        }
        let table = kernels.window;
        let flat = flat(&rows, &columns, table.lanes);
        if columns.stride > 2 && flat.is_none() {
            return Err(WindowError::Stride);
        }
        let (masks, full) = if flat.is_some() { (vec![], vec![]) } else { columns.masks(table.lanes) };
        let dense = dense(&rows, &columns, table);
        let work = rows.output * columns.output * rows.kernel * columns.kernel;
        let (code, alpha) = spec.epilogue.activation.code();
        let step = |d: usize, step: usize| if spec.flipped[d] { -(step as isize) } else { step as isize };
        let last = |d: usize, axis: &Axis, step: usize| if spec.flipped[d] { (axis.kernel - 1) * step } else { 0 };
        Ok(Self {
            kernel: format!("{}-depthwise-{}", table.name, describe(&rows, &columns)),
            descriptor: Box::new(DepthwiseDescriptor {
                spec: spec.clone(),
                table,
                tile: tile_planes(spec.planes, work),
                first_tap: (last(0, &rows, columns.kernel) + last(1, &columns, 1)) as isize,
                tap_steps: [step(0, columns.kernel), step(1, 1)],
                flat,
                blocks: if dense.is_some() { vec![] } else { blocks(table, &rows, &columns, &full) },
                dense,
                masks,
                activation: (code, alpha.map(|a| a as f32)),
            }),
        })
    }

    super::plan::queries!(DepthwiseDescriptor);
}

/// Vectors of several rows where no others are: they load and add one tap after the other, so that a row's vector of five
/// outputs, whose rows share loads, takes less time than its share of them.
fn flat(rows: &Axis, columns: &Axis, lanes: usize) -> Option<Flat> {
    if columns.stride > 2 { Flat::new(rows, columns, lanes, 1) } else { None }
}

/// Vectors across rows where they take less time than a vector for each row. A step of either takes about as long, for
/// 3 columns; windows of more have fewer loads and shifts than taps.
fn dense(rows: &Axis, columns: &Axis, table: &WindowTable) -> Option<Dense> {
    let dense = Dense::new(rows, columns, table)?;
    let by_rows = (rows.output * columns.output.div_ceil(table.lanes)) as f64;
    (columns.kernel > 3 || 2.5 + 1.05 * (dense.vectors as f64) < by_rows).then_some(dense)
}

/// Tiles `begin..end` of a depthwise convolution. `bias`, `scale` and `residual` are not read where the spec has none.
///
/// # Safety
/// The descriptor's plan is alive and its level available; the tensors have the spec's shapes; `out` overlaps nothing
/// but `residual`, with which it may be identical; no other thread runs these tiles; `begin <= end <=` the tiles.
#[allow(clippy::too_many_arguments, reason = "a nest passes pointers one by one")]
pub unsafe extern "C" fn depthwise_tiles(
    descriptor: *const DepthwiseDescriptor,
    x: *const f32,
    w: *const f32,
    out: *mut f32,
    bias: *const f32,
    scale: *const f32,
    residual: *const f32,
    begin: u64,
    end: u64,
) {
    // SAFETY: the plan is alive.
    let d = unsafe { &*descriptor };
    let spec = &d.spec;
    let (input, output) = (spec.rows.input * spec.columns.input, spec.rows.output * spec.columns.output);
    let taps = spec.rows.kernel * spec.columns.kernel;
    let from = begin as usize * d.tile;
    let to = (end as usize * d.tile).min(spec.planes);
    for plane in from..to {
        let filter = plane % spec.filters;
        let of_filter = |used: bool, vector: *const f32| if used { vector.wrapping_add(filter) } else { null() };
        let call = PlaneCall {
            d,
            x: x.wrapping_add(plane / spec.multiplier * input),
            w: w.wrapping_add(filter * taps).wrapping_offset(d.first_tap),
            out: out.wrapping_add(plane * output),
            bias: of_filter(spec.epilogue.bias, bias),
            scale: of_filter(spec.epilogue.scale, scale),
            residual: if spec.epilogue.residual { residual.wrapping_add(plane * output) } else { null() },
        };
        if let Some(flat) = &d.flat {
            // SAFETY: as for blocks.
            unsafe { (d.table.depthwise_flat)(&call, flat) }
        }
        if let Some(dense) = &d.dense {
            // SAFETY: as for blocks.
            unsafe { (dense.run)(&call, dense) }
        }
        for block in &d.blocks {
            // SAFETY: by the contract above all planes exist, and the level is available.
            unsafe { (block.run)(&call, block) }
        }
        let (code, alpha) = d.activation;
        if code > CLAMP {
            // SAFETY: the plane of the output has been written.
            unsafe { (d.table.activate)(code, alpha, call.out, output) }
        }
    }
}
