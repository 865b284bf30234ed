//! Gather tables: what an affine read means for packing, worked out once per contraction.

use std::collections::BTreeMap;

use super::abi::{GROUP, Segment};
use super::period::{self, Period};
use super::spec::{AffineRead, ContractError};

/// The loop dimensions an operand sees, and their numbers.
#[derive(Clone)]
pub(crate) struct Read {
    pub(crate) batch: Vec<usize>,
    pub(crate) free: Vec<usize>,
    pub(crate) free_first: usize,
    pub(crate) k: Vec<usize>,
    pub(crate) k_first: usize,
}

impl Read {
    /// Extent of a loop dimension that the operand sees.
    pub(crate) fn extent(&self, index: usize) -> Option<usize> {
        let inner = |extents: &[usize], first: usize| extents.get(index.checked_sub(first)?).copied();
        let outer = self.batch.get(index).copied();
        outer.or_else(|| inner(&self.free, self.free_first)).or_else(|| inner(&self.k, self.k_first))
    }
}

/// Owner of everything an `Operand` points to; fields as there.
#[derive(Debug)]
pub(crate) struct GatherTables {
    pub(crate) batch: Vec<i64>,
    pub(crate) free: Vec<i32>,
    pub(crate) k: Vec<i32>,
    /// Lengths of the two indices, of which the tables have a period each.
    pub(crate) free_len: usize,
    pub(crate) k_len: usize,
    pub(crate) free_period: Period,
    pub(crate) k_period: Period,
    pub(crate) lanes_along_k: bool,
    pub(crate) checked: bool,
    pub(crate) packed: bool,
    pub(crate) width: usize,
    pub(crate) group_start: Vec<u32>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) class: Vec<u32>,
    pub(crate) masks: Vec<u16>,
    pub(crate) mask_stride: usize,
    pub(crate) classes: usize,
    pub(crate) packed_batch: Vec<u32>,
}

/// Where the output goes.
#[derive(Debug)]
pub(crate) struct OutTables {
    pub(crate) batch: Vec<i64>,
    pub(crate) m: Vec<i32>,
    pub(crate) m_period: Period,
    pub(crate) n_period: Period,
    pub(crate) group_start: Vec<u32>,
    pub(crate) segments: Vec<Segment>,
}

/// Larger mask tables than this (in groups of lanes times classes) are not worth their memory.
const MOST_MASKS: usize = 1 << 24;

/// One checked dimension, split over the two indices: the element exists where the remainders agree and
/// `free + k` is in `0..extent`.
struct Check {
    free: Vec<(i64, i64)>,
    k: Vec<(i64, i64)>,
    extent: i64,
}

impl Check {
    fn inside(&self, free: usize, k: usize) -> bool {
        let ((f, rf), (k, rk)) = (self.free[free], self.k[k]);
        rf == rk && (0..self.extent).contains(&(f + k))
    }
}

impl GatherTables {
    /// `width` free indices make a panel. Tables are of one period each if panels are `native`: packers that convert count
    /// in other elements and steps than panels.
    pub(crate) fn new(read: &AffineRead, dims: &Read, width: usize, native: bool) -> Result<Self, ContractError> {
        let [free_len, k_len] = [&dims.free, &dims.k].map(|e| e.iter().product::<usize>());
        let mut dims = dims.clone();
        let shortened = |extents: &mut Vec<usize>, first, width| {
            if native { shorten(read, extents, first, width) } else { 0 }
        };
        let free_stride = shortened(&mut dims.free, dims.free_first, width);
        let k_stride = shortened(&mut dims.k, dims.k_first, GROUP);
        let lengths = [&dims.batch, &dims.free, &dims.k].map(|e| e.iter().product::<usize>());
        let mut batch = vec![0i64; lengths[0]];
        let mut free = vec![0i64; lengths[1]];
        let mut k = vec![0i64; lengths[2]];
        let mut checks = Vec::new();
        for dim in &read.dims {
            if dim.divisor < 1 {
                return Err(ContractError::BadDivisor);
            }
            let mut coefficients = [vec![0; dims.batch.len()], vec![0; dims.free.len()], vec![0; dims.k.len()]];
            for &(index, coefficient) in &dim.terms {
                let (part, at) = if index < dims.batch.len() {
                    (0, index)
                } else if (dims.free_first..dims.free_first + dims.free.len()).contains(&index) {
                    (1, index - dims.free_first)
                } else if (dims.k_first..dims.k_first + dims.k.len()).contains(&index) {
                    (2, index - dims.k_first)
                } else {
                    return Err(ContractError::WrongDimension);
                };
                coefficients[part][at] += coefficient;
            }
            let in_batch = sums(&dims.batch, &coefficients[0], 0);
            let in_free = sums(&dims.free, &coefficients[1], dim.offset);
            let in_k = sums(&dims.k, &coefficients[2], 0);
            // (f + k) / s splits into floor(f / s) + ceil(k / s) exactly where the division is exact, that is, where
            // f's distance above its multiple of s equals k's distance below.
            let s = dim.divisor;
            let free_parts: Vec<(i64, i64)> = in_free.iter().map(|x| (x.div_euclid(s), x.rem_euclid(s))).collect();
            let k_parts: Vec<(i64, i64)> = in_k.iter().map(|x| (-(-x).div_euclid(s), (-x).rem_euclid(s))).collect();
            let moves = in_batch.iter().any(|x| *x != 0);
            if moves && in_batch.iter().any(|x| x % s != 0) {
                return Err(ContractError::CheckedBatch);
            }
            for (sum, part) in batch.iter_mut().zip(&in_batch) {
                *sum += part / s * dim.stride;
            }
            for (sum, part) in free.iter_mut().zip(&free_parts) {
                *sum += part.0 * dim.stride;
            }
            for (sum, part) in k.iter_mut().zip(&k_parts) {
                *sum += part.0 * dim.stride;
            }
            let extent = dim.extent as i64;
            if can_be_outside(&in_batch, s, &free_parts, &k_parts, extent) {
                if moves {
                    return Err(ContractError::CheckedBatch);
                }
                checks.push(Check { free: free_parts, k: k_parts, extent });
            }
        }
        let free = narrow(&free)?;
        let k = narrow(&k)?;
        let along_free = Groups::new(&free, width, 2);
        let along_k = Groups::new(&k, k.len().next_multiple_of(GROUP).max(GROUP), 2);
        let lanes_along_k = prefer_k(&along_free, &along_k, &checks);
        let groups = if lanes_along_k { along_k } else { along_free };

        let mut tables = Self {
            packed_batch: copies(&batch),
            batch,
            free_len,
            k_len,
            free_period: Period { len: lengths[1], stride: free_stride },
            k_period: Period { len: lengths[2], stride: k_stride },
            free,
            k,
            lanes_along_k,
            checked: !checks.is_empty(),
            packed: false,
            width,
            group_start: groups.start,
            segments: groups.segments,
            class: Vec::new(),
            masks: Vec::new(),
            mask_stride: 0,
            classes: 0,
        };
        if !checks.is_empty() {
            tables.add_masks(&checks)?;
        }
        Ok(tables)
    }

    /// Fills `class` and `masks`.
    fn add_masks(&mut self, checks: &[Check]) -> Result<(), ContractError> {
        let steps = if self.lanes_along_k { self.free.len() } else { self.k.len() };
        let lanes = if self.lanes_along_k { self.k.len() } else { self.free.len() };
        let width = if self.lanes_along_k { lanes.max(1) } else { self.width };
        self.mask_stride = self.group_start.len() - 1;
        let (class, members) = classes(checks, steps, self.lanes_along_k);
        if members.len().saturating_mul(self.mask_stride) > MOST_MASKS {
            return Err(ContractError::TooLarge);
        }
        self.masks = vec![0; members.len() * self.mask_stride];
        let groups_per_panel = width.div_ceil(GROUP);
        for (row, &step) in self.masks.chunks_exact_mut(self.mask_stride.max(1)).zip(&members) {
            for lane in 0..lanes {
                let inside = checks
                    .iter()
                    .all(|check| if self.lanes_along_k { check.inside(step, lane) } else { check.inside(lane, step) });
                if inside {
                    let (panel, within) = (lane / width, lane % width);
                    row[panel * groups_per_panel + within / GROUP] |= 1 << (within % GROUP);
                }
            }
        }
        self.class = class;
        self.classes = members.len();
        Ok(())
    }

    /// How many distinct packed copies the batches need.
    pub(crate) fn packed_copies(&self) -> usize {
        self.packed_batch.iter().max().map_or(0, |last| *last as usize + 1)
    }

    /// Whether panels of the whole operand are hardly larger than the operand. Those of a convolution's image hold every
    /// element once for each tap.
    pub(crate) fn is_dense(&self, read: &AffineRead) -> bool {
        let elements: usize = read.dims.iter().map(|dim| dim.extent).product();
        let panels = self.packed_copies() * self.free_len * self.k_len;
        !self.checked && panels <= elements + elements / 4
    }

    /// Elements from step to step where every panel is a run inside the tensor and steps are equally far apart; else 0.
    pub(crate) fn step_of_runs(&self) -> usize {
        let one_run = |group: &[u32]| group[1] - group[0] <= 1;
        let distance = |pair: &[i32]| i64::from(pair[1]) - i64::from(pair[0]);
        let step = self.k.windows(2).next().map_or(0, distance);
        let even = self.k.windows(2).all(|pair| distance(pair) == step);
        let straight = !self.lanes_along_k && !self.checked && self.group_start.windows(2).all(one_run);
        // A step back wraps around, as the addition of it does.
        if straight && even { step as usize } else { 0 }
    }

    /// Runs in a group of lanes, on average: loads that fill one register.
    pub(crate) fn runs_per_group(&self) -> f64 {
        let groups = self.group_start.windows(2).filter(|group| group[0] != group[1]).count();
        self.segments.len() as f64 / groups.max(1) as f64
    }

    /// How packing reads this operand.
    pub(crate) fn describe(&self) -> String {
        let lanes = if self.lanes_along_k { self.k.len() } else { self.free.len() };
        let run = lanes as f64 / self.segments.len().max(1) as f64;
        let how = if self.lanes_along_k { "transpose" } else { "copy" };
        let checked = if self.checked { ", checked" } else { "" };
        let step = self.segments.iter().map(|run| run.step).max().unwrap_or(1);
        let step = if step > 1 { ", step 2" } else { "" };
        format!("{how} runs of {run:.1}{step}{checked}")
    }
}

impl OutTables {
    pub(crate) fn new(
        batch: Vec<i32>,
        first: i64,
        (m, mr): (&OutAxis<'_>, usize),
        (n, nr): (&OutAxis<'_>, usize),
    ) -> Result<Self, ContractError> {
        let (m, m_period) = m.table(mr)?;
        let (n, n_period) = n.table(nr)?;
        let groups = Groups::new(&n, nr, 1);
        Ok(Self {
            batch: batch.into_iter().map(|offset| first + i64::from(offset)).collect(),
            m,
            m_period,
            n_period,
            group_start: groups.start,
            segments: groups.segments,
        })
    }
}

/// Row or column index of an output: its loop dimensions and their strides.
pub(crate) struct OutAxis<'a> {
    extents: &'a [usize],
    strides: &'a [i64],
    /// Length of the index.
    pub(crate) len: usize,
    /// Neighbours in the index that are none in memory.
    pub(crate) breaks: usize,
}

impl<'a> OutAxis<'a> {
    pub(crate) fn new(extents: &'a [usize], strides: &'a [i64]) -> Result<Self, ContractError> {
        // All of the tensor must be in reach, not the part in the tables alone.
        let span = extents
            .iter()
            .zip(strides)
            .try_fold(0i64, |span, (&extent, stride)| span.checked_add(stride.abs().checked_mul(extent as i64 - 1)?));
        narrow(&[span.ok_or(ContractError::TooLarge)?])?;
        // Breaks in an inner dimension repeat with each step of the outer ones.
        let (mut len, mut breaks, mut last) = (1, 0, 0);
        for (&extent, &stride) in extents.iter().zip(strides).rev() {
            let between = if stride == last + 1 { 0 } else { extent.saturating_sub(1) };
            breaks = breaks * extent + between;
            last += stride * (extent as i64 - 1);
            len *= extent;
        }
        Ok(Self { extents, strides, len, breaks })
    }

    /// One period of offsets, in whole panels of `width`.
    fn table(&self, width: usize) -> Result<(Vec<i32>, Period), ContractError> {
        let mut extents = self.extents.to_vec();
        let mut stride = 0;
        if let (Some(outer), Some(&step)) = (extents.first_mut(), self.strides.first()) {
            *outer = period::steps(self.extents, width);
            stride = *outer as isize * step as isize;
        }
        let offsets = offsets_of(&extents, self.strides)?;
        let len = offsets.len();
        Ok((offsets, Period { len, stride }))
    }
}

/// Leaves one period of an index: as many steps of its outermost dimension, number `first`, as make whole panels of
/// `width`. Returns the elements from period to period.
fn shorten(read: &AffineRead, extents: &mut [usize], first: usize, width: usize) -> isize {
    let steps = period::steps(extents, width);
    let Some(outer) = extents.first_mut() else { return 0 };
    let Some(stride) = period::stride_of(read, first, *outer) else { return 0 };
    *outer = steps;
    steps as isize * stride
}

/// Runs of consecutive offsets, cut into panels of `width` and groups of [`GROUP`].
struct Groups {
    start: Vec<u32>,
    segments: Vec<Segment>,
}

impl Groups {
    /// `longest_step` is 2 where the reader can take every other element, else 1.
    fn new(offsets: &[i32], width: usize, longest_step: i64) -> Self {
        let mut groups = Self { start: vec![0], segments: Vec::new() };
        for panel in offsets.chunks(width) {
            for group in panel.chunks(GROUP) {
                groups.push(group, longest_step);
            }
            // Every panel has as many groups, so that a group's number follows from its panel's.
            for _ in panel.len().div_ceil(GROUP)..width.div_ceil(GROUP) {
                groups.push(&[], 1);
            }
        }
        groups
    }

    fn push(&mut self, offsets: &[i32], longest_step: i64) {
        let mut rest = offsets;
        while let Some(&start) = rest.first() {
            let (step, len) = leading_run(rest, longest_step);
            let first = offsets.len() - rest.len();
            self.segments.push(Segment {
                offset: start.wrapping_sub(first as i32 * step as i32),
                mask: (((1u32 << len) - 1) << first) as u16,
                first: first as u8,
                len: len as u8,
                step: step as u32,
            });
            rest = &rest[len..];
        }
        self.start.push(self.segments.len() as u32);
    }

    /// Loads per element when these are the lanes; a group of many runs is gathered.
    fn cost(&self, lanes: usize) -> f64 {
        let loads = |group: &[u32]| {
            let runs = &self.segments[group[0] as usize..group[1] as usize];
            let loads: f64 = runs.iter().map(|run| if run.step == 1 { 1.0 } else { 2.3 }).sum();
            loads.min(12.0)
        };
        self.start.windows(2).map(loads).sum::<f64>() / lanes.max(1) as f64
    }
}

/// Step and length of the run that begins a group. Two elements two apart are not worth a strided load.
fn leading_run(offsets: &[i32], longest_step: i64) -> (i64, usize) {
    for step in 1..=longest_step {
        let follows = |pair: &&[i32]| i64::from(pair[1]) - i64::from(pair[0]) == step;
        let len = 1 + offsets.windows(2).take_while(follows).count();
        if len > step as usize {
            return (step, len);
        }
    }
    (1, 1)
}

/// Whether vectors along k are cheaper although they must be transposed.
fn prefer_k(free: &Groups, k: &Groups, checks: &[Check]) -> bool {
    let lanes = |groups: &Groups| groups.segments.iter().map(|s| s.len as usize).sum::<usize>();
    let (free_len, k_len) = (lanes(free), lanes(k));
    let cheaper = k.cost(k_len) + 0.12 < free.cost(free_len);
    // Classes are counted for the favourite only: telling thousands of steps apart takes longer than all else here.
    let too_many = |groups: &Groups, steps: usize, steps_are_free: bool| {
        !checks.is_empty()
            && classes(checks, steps, steps_are_free).1.len().saturating_mul(groups.start.len()) > MOST_MASKS
    };
    if cheaper { !too_many(k, free_len, true) } else { too_many(free, k_len, false) }
}

/// The class of every step and one member of each: steps that no check tells apart share a class.
fn classes(checks: &[Check], steps: usize, steps_are_free: bool) -> (Vec<u32>, Vec<usize>) {
    let mut known = BTreeMap::new();
    let mut members = Vec::new();
    let class = (0..steps)
        .map(|step| {
            let key: Vec<(i64, i64)> =
                checks.iter().map(|check| if steps_are_free { check.free[step] } else { check.k[step] }).collect();
            *known.entry(key).or_insert_with(|| {
                members.push(step);
                members.len() as u32 - 1
            })
        })
        .collect();
    (class, members)
}

fn can_be_outside(batch: &[i64], divisor: i64, free: &[(i64, i64)], k: &[(i64, i64)], extent: i64) -> bool {
    let bounds = |values: &mut dyn Iterator<Item = i64>| {
        values.fold(None, |range: Option<(i64, i64)>, x| {
            Some(range.map_or((x, x), |(low, high)| (low.min(x), high.max(x))))
        })
    };
    let quotients = [
        bounds(&mut batch.iter().map(|x| x / divisor)),
        bounds(&mut free.iter().map(|x| x.0)),
        bounds(&mut k.iter().map(|x| x.0)),
    ];
    let remainders = bounds(&mut free.iter().chain(k).map(|x| x.1));
    let [Some(b), Some(f), Some(k)] = quotients else {
        return false;
    };
    remainders.is_some_and(|(low, high)| low != high) || b.0 + f.0 + k.0 < 0 || b.1 + f.1 + k.1 >= extent
}

/// `start + sum of coefficient * index` for every point of a box, last dimension fastest.
fn sums(extents: &[usize], coefficients: &[i64], start: i64) -> Vec<i64> {
    let mut values = vec![start];
    for (&extent, &coefficient) in extents.iter().zip(coefficients) {
        values = values.iter().flat_map(|value| (0..extent as i64).map(move |i| value + i * coefficient)).collect();
    }
    values
}

/// Element offsets of a strided box.
pub(crate) fn offsets_of(extents: &[usize], strides: &[i64]) -> Result<Vec<i32>, ContractError> {
    narrow(&sums(extents, strides, 0))
}

fn narrow(offsets: &[i64]) -> Result<Vec<i32>, ContractError> {
    // The margin lets a group's lane 0 lie before its first run.
    let margin = i64::from(i32::MAX) - 64;
    offsets.iter().map(|x| if x.abs() < margin { Ok(*x as i32) } else { Err(ContractError::TooLarge) }).collect()
}

/// Numbers batches by what they read.
fn copies(batch: &[i64]) -> Vec<u32> {
    let mut known = BTreeMap::new();
    batch
        .iter()
        .map(|offset| {
            let next = known.len() as u32;
            *known.entry(*offset).or_insert(next)
        })
        .collect()
}
