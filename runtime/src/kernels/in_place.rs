//! Column panels that need no packing: where the free indices of an operand are runs in memory and its steps equally far
//! apart, as pixels and channels of a 1 x 1 convolution's image are, a register block reads them as they lie.
//!
//! ```text
//! element (i, k) = first + i + step * k        for the panels that lie in one run
//! ```
//! A packed panel is read once and written once, then read by every row panel from consecutive lines. One in place is read
//! by every row panel from lines that lie `step` apart, which may meet in few sets of a cache, and of which there is one
//! more where vectors cross them.

use super::gather::Read;
use super::spec::{AffineDim, AffineRead};

/// Elements from one free index of an operand to the next where the sum runs through neighbours, as an inner product wants it:
/// `element (i, k) = first + step * i + k`.
pub(super) fn along_sum(read: &AffineRead, dims: &Read) -> Option<usize> {
    let whole = read.dims.iter().all(|dim| dim.divisor == 1 && is_inside(dim, dims));
    let (terms, distance) = progression(read, &dims.k, dims.k_first)?;
    let (run, step) = progression(read, &dims.free, dims.free_first)?;
    let [all, terms_all] = [&dims.free, &dims.k].map(|extents| extents.iter().product::<usize>());
    let even = (terms, run, distance) == (terms_all, all, 1) && step > 0;
    if whole && even { usize::try_from(step).ok() } else { None }
}

/// How an operand lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InPlace {
    /// Elements from step to step.
    pub(super) step: usize,
    /// Free indices that are neighbours in memory, at least; a multiple of them begins anew.
    run: usize,
}

impl InPlace {
    /// `None` where steps are not equally far apart, or elements outside the tensor are read.
    pub(super) fn of(read: &AffineRead, dims: &Read) -> Option<InPlace> {
        let whole = read.dims.iter().all(|dim| dim.divisor == 1 && is_inside(dim, dims));
        let (k_run, step) = progression(read, &dims.k, dims.k_first)?;
        let (run, distance) = progression(read, &dims.free, dims.free_first)?;
        let even = k_run == dims.k.iter().product::<usize>() && step > 0 && distance == 1;
        (whole && even).then_some(InPlace { step: usize::try_from(step).ok()?, run })
    }

    /// Estimated cycles for sixteen columns of one step, in panels of `nr` columns and `steps` steps that `panels` row panels
    /// read, if packing them takes `packing` cycles.
    pub(super) fn cost(&self, nr: usize, panels: usize, (steps, bytes): (usize, usize), packing: f64) -> f64 {
        // Of a row panel, measured on Zen 5: vectors that cross a line, lines from the third-level cache. Lines from the
        // second-level cache arrive in time.
        const CROSSED: f64 = 0.25;
        const FAR: f64 = 1.5;
        let crossed = if self.crosses(bytes) { CROSSED * panels as f64 } else { 0.0 };
        let lines = (nr * bytes).div_ceil(LINE) + usize::from(self.crosses(bytes));
        let far = if spreads(self.step * bytes, steps, lines) { 0.0 } else { FAR * (panels - 1) as f64 };
        // Panels that begin in one run and end in another one are packed.
        let cut = if self.run.is_multiple_of(nr) { 0.0 } else { (nr as f64 / self.run as f64).min(1.0) };
        (crossed + far) * (1.0 - cut) + packing * cut
    }

    /// Estimated cycles in which one step of `n` columns arrives from the third-level cache, in panels of `nr`: the longer the
    /// run, the faster. Measured on Zen 5 with steps of 4 KiB, from 45 GB/s in panels of 128 bytes to 109 in those of 1024.
    pub(super) fn reading(&self, n: usize, nr: usize, bytes: usize) -> f64 {
        const RUN: f64 = 7.0;
        RUN * n.div_ceil(nr) as f64 + arrival(n, bytes)
    }

    fn crosses(&self, bytes: usize) -> bool {
        !(self.step * bytes).is_multiple_of(LINE) || !(self.run * bytes).is_multiple_of(LINE)
    }
}

/// Estimated cycles in which `n` elements arrive from the third-level cache in long runs.
pub(super) fn arrival(n: usize, bytes: usize) -> f64 {
    const ARRIVES: f64 = 2.0;
    ARRIVES * (n * bytes) as f64 / LINE as f64
}

/// Bytes of a line.
const LINE: usize = 64;

/// Whether every index that the loops form lies in `0..extent`.
fn is_inside(dim: &AffineDim, dims: &Read) -> bool {
    let (mut low, mut high) = (dim.offset, dim.offset);
    for &(index, coefficient) in &dim.terms {
        let Some(extent) = dims.extent(index) else { return false };
        let far = coefficient * (extent as i64 - 1);
        (low, high) = (low + far.min(0), high + far.max(0));
    }
    low >= 0 && high < dim.extent as i64
}

/// How many neighbours of a flattened index are equally far apart, and how far: of its innermost dimensions. `None` if the
/// index is empty; a distance of 1 if there is but one.
fn progression(read: &AffineRead, extents: &[usize], first: usize) -> Option<(usize, i64)> {
    let stride = |index: usize| {
        let terms = read.dims.iter().flat_map(|dim| dim.terms.iter().map(move |term| (term, dim.stride)));
        terms.filter(|((at, _), _)| *at == index).map(|((_, coefficient), stride)| coefficient * stride).sum::<i64>()
    };
    if extents.contains(&0) {
        return None;
    }
    let mut found: Option<(usize, i64)> = None;
    for (at, &extent) in extents.iter().enumerate().rev().filter(|(_, extent)| **extent > 1) {
        found = match found {
            None => Some((extent, stride(first + at))),
            Some((len, step)) if stride(first + at) == step * len as i64 => Some((len * extent, step)),
            Some(_) => break,
        };
    }
    Some(found.unwrap_or((1, 1)))
}

/// Whether `rows` lines, `step` bytes apart, leave room for others in each set of a first-level cache, of which some have eight
/// ways.
pub(super) fn few_meet(step: usize, rows: usize) -> bool {
    const SETS: usize = 64;
    const WAYS: usize = 6;
    let mut uses = [0; SETS];
    (0..rows).for_each(|row| uses[row * step / LINE % SETS] += 1);
    uses.iter().all(|uses| *uses <= WAYS)
}

/// Whether `steps` steps of so many `lines`, `step` bytes apart, fit a second-level cache of 1 MiB: steps a large power of
/// two apart meet in few sets, and throw each other out before the next row panel reads them.
fn spreads(step: usize, steps: usize, lines: usize) -> bool {
    const SETS: usize = 1024;
    const WAYS: u32 = 16;
    let mut uses = [0_u32; SETS];
    for k in 0..steps {
        (0..lines).for_each(|line| uses[(k * step / LINE + line) % SETS] += 1);
    }
    uses.iter().all(|uses| *uses <= WAYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dim(terms: &[(usize, i64)], offset: i64, extent: usize, stride: i64) -> AffineDim {
        AffineDim { terms: terms.to_vec(), offset, divisor: 1, extent, stride }
    }

    /// Two images of 6 channels as a convolution with `taps` squared reads them: loops b y x | c i j, `height` by 10 pixels.
    fn image(height: usize, taps: usize, padding: i64) -> Option<InPlace> {
        let inside = [height + taps - 1, 10 + taps - 1].map(|extent| extent - 2 * padding as usize);
        let plane = (inside[0] * inside[1]) as i64;
        let read = AffineRead {
            dims: vec![
                dim(&[(0, 1)], 0, 2, 6 * plane),
                dim(&[(3, 1)], 0, 6, plane),
                dim(&[(1, 1), (4, 1)], -padding, inside[0], inside[1] as i64),
                dim(&[(2, 1), (5, 1)], -padding, inside[1], 1),
            ],
        };
        let free = vec![2, height, 10];
        InPlace::of(&read, &Read { batch: vec![], free, free_first: 0, k: vec![6, taps, taps], k_first: 3 })
    }

    #[test]
    fn pixels_of_one_tap_lie_in_runs_of_an_image() {
        assert_eq!(image(7, 1, 0), Some(InPlace { step: 70, run: 70 }));
        // Taps are not as far apart as channels, and with padding some pixels are not there.
        assert_eq!((image(7, 3, 0), image(7, 3, 1)), (None, None));
    }

    #[test]
    fn sums_run_along_rows_that_are_equally_far_apart() {
        // Loops i j | k of rows of `width`, of which `terms` are summed, `k` elements apart.
        let of = |width: i64, terms: usize, k: i64, outer: i64| {
            let dims = vec![dim(&[(0, 1)], 0, 3, outer), dim(&[(1, 1)], 0, 4, width), dim(&[(2, 1)], 0, terms, k)];
            let free = vec![3, 4];
            along_sum(&AffineRead { dims }, &Read { batch: vec![], free, free_first: 0, k: vec![terms], k_first: 2 })
        };
        assert_eq!([of(10, 10, 1, 40), of(16, 10, 1, 64)], [Some(10), Some(16)]);
        assert_eq!([of(10, 10, 2, 40), of(10, 10, 1, 50), of(-10, 10, 1, -40)], [None; 3]);
    }

    #[test]
    fn steps_that_meet_in_few_sets_cost_more_for_each_row_panel() {
        let cost = |step: usize, panels: usize| InPlace { step, run: 1024 }.cost(32, panels, (512, 4), 5.0);
        // 512 steps of 4 KiB are in 16 sets of 16 lines, of 2 KiB in 32.
        assert_eq!([cost(1024, 1), cost(1024, 3), cost(512, 3)], [0.0, 3.0, 0.0]);
    }

    #[test]
    fn vectors_cross_lines_unless_steps_and_runs_are_whole_ones() {
        let cost = |step: usize, run: usize, panels: usize| InPlace { step, run }.cost(16, panels, (8, 4), 5.0);
        assert_eq!([cost(64, 64, 1), cost(64, 64, 9)], [0.0, 0.0]);
        assert!(0.0 < cost(196, 208, 1) && cost(196, 208, 1) < cost(196, 208, 2));
    }

    #[test]
    fn panels_that_leave_their_run_are_packed() {
        let of = |run: usize| InPlace { step: 4096, run }.cost(32, 1, (8, 4), 5.0);
        assert_eq!((of(64), of(16)), (0.0, 5.0));
        assert!((of(96 + 16) - 5.0 * 32.0 / 112.0).abs() < 1e-9);
    }
}
