#![allow(unsafe_code, reason = "the entry point is called with raw tensors")]
//! Maxima and sums of windows.

use std::ops::Range;

use super::axis::{Axis, WindowError, check_planes, tile_planes};
use super::flat::Flat;
use super::pool_halved;
use super::tables::WindowTable;
use crate::kernels::{Activation, Kernels};

/// `out[p, y, x] = activation(scale * reduce over i, j of in[p, rows(y, i), columns(x, j)])`, f32; for a maximum
/// without the scale.
#[derive(Clone, Debug)]
pub struct PoolSpec {
    /// Planes: batch times channels.
    pub planes: usize,
    /// From one row to the next.
    pub rows: Axis,
    /// Along a row.
    pub columns: Axis,
    /// What is done to a window.
    pub reduce: PoolReduce,
    /// Last.
    pub activation: Activation,
}

/// What one window becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PoolReduce {
    /// The largest element, with padding as minus infinity. The first NaN wins.
    Max {
        /// Also gives the row-major position in the window where it occurs first, as i32.
        place: bool,
    },
    /// The sum in row-major order, with padding as zero, times a factor.
    Sum {
        /// 1 for a sum.
        scale: f64,
    },
}

/// A compiled pool.
#[derive(Debug)]
pub struct PoolPlan {
    descriptor: Box<PoolDescriptor>,
    kernel: String,
}

/// What the entry point takes; opaque to callers.
#[derive(Debug)]
pub struct PoolDescriptor {
    pub(super) spec: PoolSpec,
    pub(super) table: &'static WindowTable,
    plane: super::pool_plane::PoolFn,
    /// Whether one call does all planes of a tile.
    halved: bool,
    /// For a group of planes and for one, where vectors hold outputs of several rows.
    flat: Option<[Flat; 2]>,
    tile: usize,
    /// `[vectors of a row][columns of the window]`
    pub(super) masks: Vec<[u16; 2]>,
    /// `[vectors of a row]`
    pub(super) full: Vec<bool>,
    /// The first run of full vectors.
    pub(super) full_vectors: Range<usize>,
    /// Rows of windows of which all rows exist.
    pub(super) whole_rows: Range<usize>,
    pub(super) scale: f32,
    pub(super) activation: (u32, [f32; 2]),
}

impl PoolPlan {
    /// Compiles `spec` for the kernels of one level.
    ///
    /// # Errors
    /// [`WindowError`] when there is no kernel.
    pub fn new(spec: &PoolSpec, kernels: &Kernels) -> Result<Self, WindowError> {
        let (rows, columns) = (spec.rows, spec.columns);
        check_planes(spec.planes, &rows, &columns)?;
        let table = kernels.window;
        let (number, name, scale) = match spec.reduce {
            PoolReduce::Max { place: false } => (0, "max", 1.0),
            PoolReduce::Max { place: true } => (1, "argmax", 1.0),
            PoolReduce::Sum { scale } => (2, "sum", scale),
        };
        // Of rows of two windows, vectors of several rows hold more.
        let halved = columns.output > 2 && pool_halved::covers(&rows, &columns);
        let flat = if halved { None } else { flat(spec.planes, &rows, &columns, table.lanes) };
        if columns.stride > 2 && flat.is_none() {
            return Err(WindowError::Stride);
        }
        let shape = match (rows.kernel, columns.kernel, columns.stride) {
            (2, 2, 2) => 0,
            (3, 3, 2) => 1,
            (3, 3, 1) => 2,
            (_, _, 1) => 3,
            _ => 4,
        };
        let (masks, full) = if flat.is_some() { (vec![], vec![]) } else { columns.masks(table.lanes) };
        let (code, alpha) = spec.activation.code();
        let plane = match (halved, &flat) {
            (true, _) => table.pool_halved[number],
            (false, Some(_)) => table.pool_flat[number],
            (false, None) => table.pool[number][shape],
        };
        Ok(Self {
            kernel: format!("{}-{name}-pool-{}", table.name, super::axis::describe(&rows, &columns)),
            descriptor: Box::new(PoolDescriptor {
                spec: spec.clone(),
                table,
                plane,
                halved,
                flat,
                // A window is read once: elements, not operations, are what a tile takes its time for.
                tile: tile_planes(spec.planes, rows.input * columns.input * 8),
                masks,
                full_vectors: first_run(&full),
                full,
                whole_rows: rows.whole_windows(),
                scale: scale as f32,
                activation: (code, alpha.map(|a| a as f32)),
            }),
        })
    }

    super::plan::queries!(PoolDescriptor);
}

/// Vectors of several rows, if these are the only ones, or take fewer cycles than a vector for each row of a plane.
fn flat(planes: usize, rows: &Axis, columns: &Axis, lanes: usize) -> Option<[Flat; 2]> {
    let of = |planes: usize| Flat::new(rows, columns, lanes, planes);
    let one = of(1)?;
    let group = of(planes.min(lanes)).filter(|group| group.cost() < one.cost()).or_else(|| of(1))?;
    let vectors = (rows.output * columns.output.div_ceil(lanes)) as f64;
    let taps = (rows.kernel * columns.kernel) as f64;
    // Both costs are in proportion: at 8 x 8 (24 to 32) vectors of several rows win, at 13 x 13 (74 to 48) those of one.
    (columns.stride > 2 || group.cost() < 2.0 * taps * vectors).then_some([group, one])
}

/// Where the first run of `true` is.
fn first_run(full: &[bool]) -> Range<usize> {
    let begin = full.iter().take_while(|full| !**full).count();
    begin..begin + full.iter().skip(begin).take_while(|full| **full).count()
}

/// Tiles `begin..end` of a pool. `place` is written only if the spec asks for places.
///
/// # Safety
/// The descriptor's plan is alive and its level available; the tensors have the spec's shapes and overlap nowhere; no
/// other thread runs these tiles; `begin <= end <=` the tiles.
pub unsafe extern "C" fn pool_tiles(
    descriptor: *const PoolDescriptor,
    x: *const f32,
    out: *mut f32,
    place: *mut i32,
    begin: u64,
    end: u64,
) {
    // SAFETY: the plan is alive.
    let d = unsafe { &*descriptor };
    let spec = &d.spec;
    let (input, output) = (spec.rows.input * spec.columns.input, spec.rows.output * spec.columns.output);
    let mut plane = begin as usize * d.tile;
    let end = (end as usize * d.tile).min(spec.planes);
    while plane < end {
        let (flat, planes) = match &d.flat {
            Some([group, _]) if plane + group.planes <= end => (Some(group), group.planes),
            Some([_, one]) => (Some(one), 1),
            None => (None, if d.halved { end - plane } else { 1 }),
        };
        let call = super::pool_plane::PoolCall {
            d,
            flat,
            planes,
            x: x.wrapping_add(plane * input),
            out: out.wrapping_add(plane * output),
            place: place.wrapping_add(plane * output).cast(),
        };
        // SAFETY: by the contract above all planes exist, and the level is available.
        unsafe { (d.plane)(&call) }
        plane += planes;
    }
}
