#![allow(unsafe_code, reason = "the entry point is called with raw tensors")]
//! Gradients of pools and of strided depthwise convolutions: each input element takes from the windows that it is in.

use super::axis::{Axis, WindowError, check_planes, describe, tile_planes};
use super::pool_halved;
use crate::kernels::Kernels;

/// `dx[p, rows(y, i), columns(x, j)] += share of dy[p, y, x]` for all `y, x, i, j` inside, by row-major `i, j`. Where a
/// gate is not above 0, `dx` is 0 (the gradient of a relu before the pool).
#[derive(Clone, Debug)]
pub struct PoolGradSpec {
    /// Planes: batch times channels.
    pub planes: usize,
    /// Of the pool: `dx` is its input, `dy` its output.
    pub rows: Axis,
    /// Likewise.
    pub columns: Axis,
    /// What an element takes of a window that it is in.
    pub share: Share,
    /// Whether there is a gate, of the shape of `dx`.
    pub gate: bool,
}

/// The share of `dy[p, y, x]` that element `i, j` of the window takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All of it: the gradient of a sum.
    Whole,
    /// All where `place[p, y, x] = i * columns.kernel + j`, else nothing: of a maximum.
    Chosen,
    /// `w[p % filters, i, j]` times it: of a depthwise convolution.
    Weighted {
        /// Channels.
        filters: usize,
    },
}

/// A compiled gradient.
#[derive(Debug)]
pub struct PoolGradPlan {
    descriptor: Box<PoolGradDescriptor>,
    kernel: String,
}

/// What the entry point takes; opaque to callers.
#[derive(Debug)]
pub struct PoolGradDescriptor {
    pub(super) spec: PoolGradSpec,
    plane: super::pool_grad_plane::PoolGradFn,
    /// Whether one call does all planes of a tile.
    halved: bool,
    tile: usize,
    /// For each row of `dx`: the first row of a window that it may be, and which window that is.
    pub(super) first: Vec<(usize, isize)>,
    /// For each phase: its first column of a window.
    pub(super) phases: [usize; 2],
    /// Element `l` of the phase of column `j` is in window `l + shifts[j]`.
    pub(super) shifts: Vec<isize>,
    /// `[vectors of a phase][columns of the window]`: which windows exist.
    pub(super) masks: Vec<u16>,
    /// `[vectors of a phase]`: whether all windows do, and all elements of all phases.
    pub(super) full: Vec<bool>,
}

impl PoolGradPlan {
    /// Compiles `spec` for the kernels of one level.
    ///
    /// # Errors
    /// [`WindowError`] when there is no kernel.
    pub fn new(spec: &PoolGradSpec, kernels: &Kernels) -> Result<Self, WindowError> {
        let (rows, columns) = (spec.rows, spec.columns);
        check_planes(spec.planes, &rows, &columns)?;
        if columns.stride > 2 {
            return Err(WindowError::Stride);
        }
        let table = kernels.window;
        let stride = columns.stride as i64;
        let phase = |j: usize| (j as i64 + columns.offset).rem_euclid(stride);
        let shift = |j: usize| ((phase(j) - j as i64 - columns.offset) / stride) as isize;
        let shifts: Vec<isize> = (0..columns.kernel).map(shift).collect();
        // Columns of a phase are `stride` apart.
        let phases = [0, 1].map(|wanted| (-columns.offset + wanted).rem_euclid(stride) as usize);
        let first = (0..rows.input).map(|y| {
            let from = y as i64 - rows.offset;
            let row = from.rem_euclid(rows.stride as i64);
            (row as usize, ((from - row) / rows.stride as i64) as isize)
        });
        let vectors = columns.input.div_ceil(columns.stride * table.lanes);
        let mut masks = Vec::with_capacity(vectors * shifts.len());
        let mut full = Vec::with_capacity(vectors);
        for vector in 0..vectors {
            let at = vector * table.lanes;
            let mut all = (at + table.lanes) * columns.stride <= columns.input;
            for shift in &shifts {
                let exists = |lane: &usize| {
                    let window = (at + lane) as isize + shift;
                    (0..columns.output as isize).contains(&window)
                };
                let mask: u16 = (0..table.lanes).filter(exists).fold(0, |bits, lane| bits | 1 << lane);
                all &= u32::from(mask) == (1u32 << table.lanes) - 1;
                masks.push(mask);
            }
            full.push(all);
        }
        let halved = match spec.share {
            Share::Weighted { .. } => None,
            Share::Whole => Some(table.pool_grad_halved[0]),
            Share::Chosen => Some(table.pool_grad_halved[1]),
        };
        let halved = halved.filter(|_| pool_halved::covers(&rows, &columns));
        let (name, functions) = match spec.share {
            Share::Whole => ("sum-pool-grad", &table.pool_grad[0]),
            Share::Chosen => ("max-pool-grad", &table.pool_grad[1]),
            Share::Weighted { filters: 0 } => return Err(WindowError::Empty),
            Share::Weighted { .. } => ("depthwise-spread", &table.pool_grad[2]),
        };
        Ok(Self {
            kernel: format!("{}-{name}-{}", table.name, describe(&rows, &columns)),
            descriptor: Box::new(PoolGradDescriptor {
                plane: halved.unwrap_or(functions[columns.stride - 1]),
                halved: halved.is_some(),
                tile: tile_planes(spec.planes, rows.input * columns.input * 8),
                spec: spec.clone(),
                first: first.collect(),
                phases,
                shifts,
                masks,
                full,
            }),
        })
    }

    super::plan::queries!(PoolGradDescriptor);
}

/// Tiles `begin..end` of a gradient. `place`, `gate` and `w` are read only if the spec has them.
///
/// # Safety
/// The descriptor's plan is alive and its level available; the tensors have the spec's shapes; `dx` overlaps none of
/// them; no other thread runs these tiles; `begin <= end <=` the tiles.
#[allow(clippy::too_many_arguments, reason = "a nest passes pointers one by one")]
pub unsafe extern "C" fn pool_grad_tiles(
    descriptor: *const PoolGradDescriptor,
    dy: *const f32,
    place: *const i32,
    gate: *const f32,
    w: *const f32,
    dx: *mut f32,
    begin: u64,
    end: u64,
) {
    // SAFETY: the plan is alive.
    let d = unsafe { &*descriptor };
    let spec = &d.spec;
    let (input, output) = (spec.rows.input * spec.columns.input, spec.rows.output * spec.columns.output);
    let (taps, filters) = match spec.share {
        Share::Weighted { filters } => (spec.rows.kernel * spec.columns.kernel, filters),
        _ => (0, 1),
    };
    let end = (end as usize * d.tile).min(spec.planes);
    let mut plane = begin as usize * d.tile;
    while plane < end {
        let planes = if d.halved { end - plane } else { 1 };
        let call = super::pool_grad_plane::PoolGradCall {
            d,
            planes,
            dy: dy.wrapping_add(plane * output),
            place: place.wrapping_add(plane * output).cast(),
            gate: gate.wrapping_add(plane * input),
            w: w.wrapping_add(plane % filters * taps),
            dx: dx.wrapping_add(plane * input),
        };
        // SAFETY: by the contract above all planes exist, and the level is available.
        unsafe { (d.plane)(&call) }
        plane += planes;
    }
}
