#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "the end of inner loops over raw panels; the contract is TileCall's, stated once on `tile`"
)]
#![allow(clippy::needless_range_loop, reason = "rows and vectors number registers and addresses alike")]
//! What becomes of the sums of a register block: the epilogue, and stores to wherever the output's rows and columns lie.

use std::mem::MaybeUninit;

use super::abi::{GROUP, Segment, TileCall};
use super::half::Half;
use super::math::{CLAMP, LEAKY_RELU, RELU, clamp};
use super::simd::{Lane, Real, Simd};

/// Largest block any shape has, in elements: bounds the spill buffer of [`finish`].
const MAX_BLOCK: usize = 14 * 32;
/// Largest width of the shapes that may store anything but runs.
pub(super) const MAX_WIDTH: usize = 48;

/// What becomes of sums: partial ones wait, others go through the epilogue and are stored.
///
/// # Safety
/// As [`super::tile::tile`], but for `a` and `b`.
#[inline(always)]
pub(super) unsafe fn end<S: Simd, const R: usize, const V: usize>(acc: &mut [[S; V]; R], call: &TileCall<S::Elem>) {
    if !call.last {
        for r in 0..R {
            for v in 0..V {
                acc[r][v].store(call.partial.add(r * call.partial_stride + v * S::LANES));
            }
        }
        return;
    }
    scale_and_shift::<S, R, V>(acc, call);
    if let Some(half) = call.half {
        let mut block = MaybeUninit::<[S::Elem; MAX_BLOCK]>::uninit();
        let block = block.as_mut_ptr().cast::<S::Elem>();
        spill::<S, R, V>(acc, block);
        return finish(block, R, V * S::LANES, call, half);
    }
    if columns_are_runs::<S, V>(call) {
        store_runs::<S, R, V>(acc, call);
    } else {
        // Not cleared: that would be as many stores again.
        let mut block = MaybeUninit::<[S::Elem; MAX_BLOCK]>::uninit();
        let block = block.as_mut_ptr().cast::<S::Elem>();
        spill::<S, R, V>(acc, block);
        if R <= S::LANES && call.activation <= CLAMP && rows_follow(call, R) && columns_are_apart(call) {
            store_turned::<S, R, V>(block, call);
        } else {
            finish(block, R, V * S::LANES, call, &Same);
        }
    }
}

/// Lane mask of vector `v` (of `lanes` lanes) when the first `columns` columns are valid.
#[inline(always)]
fn lane_mask(columns: usize, v: usize, lanes: usize) -> u16 {
    let left = columns.saturating_sub(v * lanes).min(lanes);
    ((1u32 << left) - 1) as u16
}

/// Whether every group of columns is one run in memory.
#[inline(always)]
pub(super) unsafe fn columns_are_runs<S: Simd, const V: usize>(call: &TileCall<S::Elem>) -> bool {
    let mut one_run_each = true;
    for g in 0..(V * S::LANES).div_ceil(GROUP) {
        one_run_each &= *call.group_start.add(g + 1) - *call.group_start.add(g) <= 1 || g * GROUP >= call.columns;
    }
    one_run_each
}

/// Whether `rows` rows are one run in memory.
#[inline(always)]
unsafe fn rows_follow<T>(call: &TileCall<T>, rows: usize) -> bool {
    (1..rows).all(|r| {
        // SAFETY: the call has these rows.
        unsafe { *call.rows.add(r) == *call.rows.add(r - 1) + 1 }
    })
}

/// Whether every column is a run of its own.
#[inline(always)]
unsafe fn columns_are_apart<T>(call: &TileCall<T>) -> bool {
    let groups = call.columns.div_ceil(GROUP);
    (*call.group_start.add(groups) - *call.group_start) as usize == call.columns
}

/// The end of a block whose rows are one run in memory and whose columns are scattered, as pixels by channels are: turned,
/// then one vector for each column.
#[inline(always)]
unsafe fn store_turned<S: Simd, const R: usize, const V: usize>(block: *const S::Elem, call: &TileCall<S::Elem>) {
    let mut turned = MaybeUninit::<[S::Elem; MAX_WIDTH * GROUP]>::uninit();
    let turned = turned.as_mut_ptr().cast::<S::Elem>();
    (call.transpose)(R, V * S::LANES, block, turned);
    let exist = ((1u32 << R) - 1) as u16;
    let (zero, alpha) = (S::splat(S::Elem::ZERO), [S::splat(call.alpha[0]), S::splat(call.alpha[1])]);
    let row = *call.rows as isize;
    for column in 0..call.columns {
        let run = call.segments.add((*call.group_start) as usize + column);
        let at = row + (*run).start();
        let mut x = S::load(turned.add(column * GROUP));
        if !call.residual.is_null() {
            x = x.add(S::load_mask(call.residual.wrapping_offset(at), exist));
        }
        x = match call.activation {
            RELU => zero.max_or_other(x),
            LEAKY_RELU => x.leaky(alpha[0]),
            CLAMP => clamp(x, alpha[0], alpha[1]),
            _ => x,
        };
        x.store_mask(call.out.wrapping_offset(at), exist);
    }
}

/// Writes a block `[R][V * LANES]`.
#[inline(always)]
unsafe fn spill<S: Simd, const R: usize, const V: usize>(acc: &[[S; V]; R], block: *mut S::Elem) {
    for r in 0..R {
        for v in 0..V {
            acc[r][v].store(block.add((r * V + v) * S::LANES));
        }
    }
}

/// `(acc + bias) * scale`
#[inline(always)]
unsafe fn scale_and_shift<S: Simd, const R: usize, const V: usize>(acc: &mut [[S; V]; R], call: &TileCall<S::Elem>) {
    if !call.bias_m.is_null() {
        for r in 0..R {
            let bias = S::splat(*call.bias_m.add(r));
            for v in 0..V {
                acc[r][v] = acc[r][v].add(bias);
            }
        }
    }
    if !call.bias_n.is_null() {
        for v in 0..V {
            let mask = lane_mask(call.columns, v, S::LANES);
            let bias = S::load_mask(call.bias_n.wrapping_add(v * S::LANES), mask);
            for r in 0..R {
                acc[r][v] = acc[r][v].add(bias);
            }
        }
    }
    if !call.scale_m.is_null() {
        for r in 0..R {
            let scale = S::splat(*call.scale_m.add(r));
            for v in 0..V {
                acc[r][v] = acc[r][v].mul(scale);
            }
        }
    }
    if !call.scale_n.is_null() {
        for v in 0..V {
            let mask = lane_mask(call.columns, v, S::LANES);
            let scale = S::load_mask(call.scale_n.wrapping_add(v * S::LANES), mask);
            for r in 0..R {
                acc[r][v] = acc[r][v].mul(scale);
            }
        }
    }
}

/// The common end: every group of columns is one run in memory.
#[inline(always)]
unsafe fn store_runs<S: Simd, const R: usize, const V: usize>(acc: &mut [[S; V]; R], call: &TileCall<S::Elem>) {
    let full = ((1u32 << S::LANES) - 1) as u16;
    let mut offset = [0isize; V];
    let mut mask = [0u16; V];
    let mut all_full = true;
    for v in 0..V {
        let lane = v * S::LANES;
        if lane < call.columns {
            let run = *call.segments.add(*call.group_start.add(lane / GROUP) as usize);
            offset[v] = run.offset as isize + (lane % GROUP) as isize;
            mask[v] = (run.mask >> (lane % GROUP)) & full;
        }
        all_full &= mask[v] == full;
    }
    if !call.residual.is_null() {
        for r in 0..R {
            let row = call.residual.wrapping_offset(*call.rows.add(r) as isize);
            for v in 0..V {
                acc[r][v] = acc[r][v].add(S::load_mask(row.wrapping_offset(offset[v]), mask[v]));
            }
        }
    }
    match call.activation {
        RELU => {
            let zero = S::splat(S::Elem::ZERO);
            for r in 0..R {
                for v in 0..V {
                    acc[r][v] = zero.max_or_other(acc[r][v]);
                }
            }
        }
        LEAKY_RELU => {
            let alpha = S::splat(call.alpha[0]);
            for r in 0..R {
                for v in 0..V {
                    acc[r][v] = acc[r][v].leaky(alpha);
                }
            }
        }
        CLAMP => {
            // No closure: a call would spill the block.
            let (low, high) = (S::splat(call.alpha[0]), S::splat(call.alpha[1]));
            for r in 0..R {
                for v in 0..V {
                    acc[r][v] = clamp(acc[r][v], low, high);
                }
            }
        }
        0 => {}
        // The others need registers of their own.
        _ => {
            let mut block = MaybeUninit::<[S::Elem; MAX_BLOCK]>::uninit();
            let block = block.as_mut_ptr().cast::<S::Elem>();
            spill::<S, R, V>(acc, block);
            (call.activate)(call.activation, call.alpha, block, R * V * S::LANES);
            for r in 0..R {
                for v in 0..V {
                    acc[r][v] = S::load(block.add((r * V + v) * S::LANES));
                }
            }
        }
    }
    if all_full {
        for r in 0..R {
            let row = call.out.wrapping_offset(*call.rows.add(r) as isize);
            for v in 0..V {
                acc[r][v].store(row.wrapping_offset(offset[v]));
            }
        }
    } else {
        for r in 0..R {
            let row = call.out.wrapping_offset(*call.rows.add(r) as isize);
            for v in 0..V {
                acc[r][v].store_mask(row.wrapping_offset(offset[v]), mask[v]);
            }
        }
    }
}

/// How a strip of the block meets the output and what is addressed like it.
trait Output<T> {
    /// An element in memory.
    type Stored;
    /// `to += from`
    unsafe fn add(&self, from: *const Self::Stored, to: *mut T, len: usize);
    /// `to = from`
    unsafe fn store(&self, from: *const T, to: *mut Self::Stored, len: usize);
}

/// An output of the sums' type.
struct Same;

impl<T: Real> Output<T> for Same {
    type Stored = T;
    #[inline(always)]
    unsafe fn add(&self, from: *const T, to: *mut T, len: usize) {
        add_short(from, to, len);
    }
    #[inline(always)]
    unsafe fn store(&self, from: *const T, to: *mut T, len: usize) {
        copy_short(from, to, len);
    }
}

impl<T: Real> Output<T> for Half<T> {
    type Stored = u16;
    unsafe fn add(&self, from: *const u16, to: *mut T, len: usize) {
        let mut wide = [T::ZERO; GROUP];
        (self.widen)(from, wide.as_mut_ptr(), len);
        add_short(wide.as_ptr(), to, len);
    }
    unsafe fn store(&self, from: *const T, to: *mut u16, len: usize) {
        (self.narrow)(from, to, len);
    }
}

/// The general end, from a spilled block `[rows][width]`. Where columns are scattered in memory and rows are not, the
/// block is turned first, so that runs of rows are stored.
#[inline(never)]
unsafe fn finish<T: Real, O: Output<T>>(block: *mut T, rows: usize, width: usize, call: &TileCall<T>, output: &O) {
    let groups = call.columns.div_ceil(GROUP);
    let column_runs = *call.group_start.add(groups) - *call.group_start;
    let row_runs = (1..rows).filter(|&r| *call.rows.add(r) != *call.rows.add(r - 1) + 1).count() + 1;
    if call.columns / (column_runs as usize).max(1) < rows / row_runs && width <= MAX_WIDTH {
        let mut turned = [T::ZERO; MAX_WIDTH * GROUP];
        (call.transpose)(rows, width, block, turned.as_mut_ptr());
        finish_columns(turned.as_mut_ptr(), rows, width, call, output);
    } else {
        finish_rows(block, rows, width, call, output);
    }
}

/// Residual, activation and store of a block `[rows][width]`, by runs of columns.
unsafe fn finish_rows<T: Real, O: Output<T>>(block: *mut T, rows: usize, width: usize, call: &TileCall<T>, output: &O) {
    let groups = call.columns.div_ceil(GROUP);
    if call.columns < SHORT_RUN * (*call.group_start.add(groups) - *call.group_start) as usize {
        return finish_elements(block, rows, width, call, output);
    }
    if !call.residual.is_null() {
        let residual = call.residual.cast::<O::Stored>();
        for r in 0..rows {
            let row = residual.wrapping_offset(*call.rows.add(r) as isize);
            for_each_run(call, groups, |lane, run| {
                output.add(row.wrapping_offset(run.start()), block.add(r * width + lane), run.len as usize);
            });
        }
    }
    if call.activation != 0 {
        (call.activate)(call.activation, call.alpha, block, rows * width);
    }
    let out = call.out.cast::<O::Stored>();
    for r in 0..rows {
        let row = out.wrapping_offset(*call.rows.add(r) as isize);
        for_each_run(call, groups, |lane, run| {
            output.store(block.add(r * width + lane), row.wrapping_offset(run.start()), run.len as usize);
        });
    }
}

/// Runs shorter than this cost more than their elements one by one, as every other column of a strided gradient.
const SHORT_RUN: usize = 4;

/// The same, element by element: where each column lies is the same for all rows.
unsafe fn finish_elements<T: Real, O: Output<T>>(
    block: *mut T,
    rows: usize,
    width: usize,
    call: &TileCall<T>,
    output: &O,
) {
    let (mut columns, mut count) = ([(0usize, 0isize); MAX_WIDTH], 0);
    for_each_run(call, call.columns.div_ceil(GROUP), |lane, run| {
        for i in 0..run.len as usize {
            columns[count] = (lane + i, run.start() + i as isize);
            count += 1;
        }
    });
    let columns = &columns[..count];
    if !call.residual.is_null() {
        for r in 0..rows {
            let from = call.residual.cast::<O::Stored>().wrapping_offset(*call.rows.add(r) as isize);
            for &(lane, at) in columns {
                output.add(from.wrapping_offset(at), block.add(r * width + lane), 1);
            }
        }
    }
    if call.activation != 0 {
        (call.activate)(call.activation, call.alpha, block, rows * width);
    }
    for r in 0..rows {
        let to = call.out.cast::<O::Stored>().wrapping_offset(*call.rows.add(r) as isize);
        for &(lane, at) in columns {
            output.store(block.add(r * width + lane), to.wrapping_offset(at), 1);
        }
    }
}

/// The same of a block `[width][GROUP]`, by runs of rows.
unsafe fn finish_columns<T: Real, O: Output<T>>(
    block: *mut T,
    rows: usize,
    width: usize,
    call: &TileCall<T>,
    output: &O,
) {
    let groups = call.columns.div_ceil(GROUP);
    let each = |tensor: *const O::Stored, body: &mut dyn FnMut(*mut T, *const O::Stored, usize)| {
        let mut row = 0;
        while row < rows {
            let offset = *call.rows.add(row);
            let follows = |r: &usize| *call.rows.add(*r) == offset + (*r - row) as i32;
            let end = row + (row..rows).take_while(follows).count();
            let start = tensor.wrapping_offset(offset as isize);
            for_each_run(call, groups, |lane, run| {
                for i in 0..run.len as usize {
                    let at = block.add((lane + i) * GROUP + row);
                    body(at, start.wrapping_offset(run.start()).wrapping_add(i), end - row);
                }
            });
            row = end;
        }
    };
    if !call.residual.is_null() {
        each(call.residual.cast(), &mut |at, from, len| output.add(from, at, len));
    }
    if call.activation != 0 {
        (call.activate)(call.activation, call.alpha, block, width * GROUP);
    }
    each(call.out.cast_const().cast(), &mut |at, to, len| output.store(at, to.cast_mut(), len));
}

/// A block `[rows][width]` to `[width][GROUP]`.
pub(crate) unsafe fn transpose<T: Real>(rows: usize, width: usize, from: *const T, to: *mut T) {
    for row in 0..rows {
        for column in 0..width {
            *to.add(column * GROUP + row) = *from.add(row * width + column);
        }
    }
}

/// Calls `body(lane, run)` for the runs of the first `groups` groups, `lane` being the run's first column.
#[inline(always)]
unsafe fn for_each_run<T>(call: &TileCall<T>, groups: usize, mut body: impl FnMut(usize, Segment)) {
    for g in 0..groups {
        for s in *call.group_start.add(g)..*call.group_start.add(g + 1) {
            let run = *call.segments.add(s as usize);
            body(g * GROUP + run.first as usize, run);
        }
    }
}

/// `to += from` for up to [`GROUP`] elements.
#[inline(always)]
unsafe fn add_short<T: Real>(from: *const T, to: *mut T, len: usize) {
    for i in 0..len {
        *to.add(i) = (*to.add(i)).add(*from.add(i));
    }
}

/// Copies up to [`GROUP`] elements without a call to `memcpy`.
#[inline(always)]
pub(crate) unsafe fn copy_short<T: Copy>(from: *const T, to: *mut T, len: usize) {
    let mut i = 0;
    while i + 4 <= len {
        to.add(i).cast::<[T; 4]>().write_unaligned(from.add(i).cast::<[T; 4]>().read_unaligned());
        i += 4;
    }
    while i < len {
        *to.add(i) = *from.add(i);
        i += 1;
    }
}
