//! One spatial axis of a window, and which lanes of its vectors lie inside the plane.

use std::ops::Range;

/// Output `o` reads input `o * stride + k + offset` for `k` in `0..kernel`; what lies outside `0..input` is padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Extent of the input.
    pub input: usize,
    /// Extent of the output.
    pub output: usize,
    /// Extent of the window.
    pub kernel: usize,
    /// Distance of windows, at least 1.
    pub stride: usize,
    /// Position of the first window: minus the padding before.
    pub offset: i64,
}

/// Why a window has no kernel; the caller falls back to JITed loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Vectors take every element or every other one; where they take others, tables say which, as far as these go.
    #[error("window.K1: a stride along rows above 2, of a gradient or with tables that are too large")]
    Stride,
    /// An extent is 0.
    #[error("window.K2: an output or a window without elements")]
    Empty,
    /// Offsets within a plane are 32-bit.
    #[error("window.K3: a plane of 2^31 elements or more")]
    TooLarge,
}

impl Axis {
    /// Whether an axis is within what the kernels address.
    pub(super) fn check(&self) -> Result<(), WindowError> {
        if self.input == 0 || self.output == 0 || self.kernel == 0 || self.stride == 0 {
            return Err(WindowError::Empty);
        }
        let largest = [self.input, self.output, self.kernel, self.stride].into_iter().max().unwrap_or(0);
        let last = (self.output as i64).saturating_mul(self.stride as i64).saturating_add(self.kernel as i64);
        let within = |position: i64| position.unsigned_abs() < i32::MAX as u64;
        let fits = largest < i32::MAX as usize && within(self.offset) && within(last) && within(last + self.offset);
        if fits { Ok(()) } else { Err(WindowError::TooLarge) }
    }

    /// The outputs whose windows lie inside as a whole.
    pub(super) fn whole_windows(&self) -> Range<usize> {
        let stride = self.stride as i64;
        let first = (-self.offset).max(0) as usize;
        let last = self.input as i64 - self.kernel as i64 - self.offset;
        let end = if last < 0 { 0 } else { self.output.min((last / stride) as usize + 1) };
        first.div_ceil(self.stride).min(end)..end
    }

    /// For each vector of `lanes` outputs and each `k`: which elements of the `stride` vectors read from `k` on lie
    /// inside and meet an output that exists; and for each vector whether all do.
    pub(super) fn masks(&self, lanes: usize) -> (Vec<[u16; 2]>, Vec<bool>) {
        let vectors = self.output.div_ceil(lanes);
        let mut masks = Vec::with_capacity(vectors * self.kernel);
        let mut full = Vec::with_capacity(vectors);
        for vector in 0..vectors {
            let mut all = (vector + 1) * lanes <= self.output;
            for k in 0..self.kernel {
                let first = (vector * lanes * self.stride + k) as i64 + self.offset;
                let mut mask = [0u16; 2];
                for (half, bits) in mask.iter_mut().enumerate().take(self.stride) {
                    let wanted = |lane: &usize| {
                        let element = half * lanes + lane;
                        let inside = (0..self.input as i64).contains(&(first + element as i64));
                        inside && vector * lanes + element / self.stride < self.output
                    };
                    *bits = (0..lanes).filter(wanted).fold(0, |bits, lane| bits | 1 << lane);
                    all &= u32::from(*bits) == (1u32 << lanes) - 1;
                }
                masks.push(mask);
            }
            full.push(all);
        }
        (masks, full)
    }
}

/// Multiply-adds of one tile, about: some microseconds, so that launching costs nothing next to it.
const TILE_WORK: usize = 100_000;
/// Tiles at most: enough for every thread to have its share.
const MOST_TILES: usize = 64;

/// Planes of one tile, if one takes as long as `work` multiply-adds. Tiles are a power of two and equal as far as planes
/// divide, so that any usual number of threads has equal shares: three tiles on two threads take as long as four.
pub(super) fn tile_planes(planes: usize, work: usize) -> usize {
    let tiles = planes.saturating_mul(work) / TILE_WORK;
    planes.div_ceil(tiles.clamp(1, MOST_TILES).next_power_of_two()).max(1)
}

/// Whether planes with these axes are within what the kernels address.
pub(super) fn check_planes(planes: usize, rows: &Axis, columns: &Axis) -> Result<(), WindowError> {
    rows.check()?;
    columns.check()?;
    let small = |a: usize, b: usize| a.checked_mul(b).is_some_and(|n| n < i32::MAX as usize);
    let pairs = [(rows.input, columns.input), (rows.output, columns.output), (rows.kernel, columns.kernel)];
    match planes {
        0 => Err(WindowError::Empty),
        _ if pairs.iter().all(|&(a, b)| small(a, b)) => Ok(()),
        _ => Err(WindowError::TooLarge),
    }
}

/// Window and stride, such as `3x3-s2`.
pub(super) fn describe(rows: &Axis, columns: &Axis) -> String {
    let size = format!("{}x{}", rows.kernel, columns.kernel);
    if rows.stride == columns.stride {
        format!("{size}-s{}", rows.stride)
    } else {
        format!("{size}-s{}x{}", rows.stride, columns.stride)
    }
}
