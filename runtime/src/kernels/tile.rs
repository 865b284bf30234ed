#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "inner loops over raw panels; the contract is TileCall's, stated once on `tile`"
)]
#![allow(clippy::needless_range_loop, reason = "rows and vectors number registers and addresses alike")]
//! The micro-kernel: one `R x nr` block of the output, accumulated in registers.

use super::abi::{GROUP, Panel, TileCall};
use super::simd::{Lane, Simd, prefetch, prefetch_write};
use super::store::{columns_are_runs, end};

/// Runs one call with `R` rows and `V` vectors of columns.
///
/// # Safety
/// The processor has the instructions of `S`; `a` and `b` hold `k` steps of `R` and `V * LANES` elements; `partial`
/// holds `R` rows (when `load` or not `last`); the output, residual and epilogue pointers are good for `R` rows and
/// `columns` columns (when `last`).
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const R: usize, const V: usize>(call: &TileCall<S::Elem>) {
    let (mut acc, lines) = begin::<S, R, V>(call);
    if call.ahead.iter().any(|stream| stream.step > 0) {
        products::<S, R, V, true, false>(&mut acc, call, lines);
    } else {
        products::<S, R, V, false, false>(&mut acc, call, lines);
    }
    end::<S, R, V>(&mut acc, call);
}

/// As [`tile`], with rows that run along the sum, `a_row` elements apart, as those of a matrix do. A function by itself: the
/// compiler keeps no block in registers where this loop is one of three. The addresses of more than eleven rows take those of
/// others: 13 x 32 falls to a seventh of its speed.
///
/// # Safety
/// As [`tile`], but `a` holds `R` such rows of `k` terms.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "the shapes of other processors pack their rows"))]
#[inline(always)]
pub(crate) unsafe fn tile_in_place<S: Simd, const R: usize, const V: usize>(call: &TileCall<S::Elem>) {
    let (mut acc, lines) = begin::<S, R, V>(call);
    // One row waits for its columns alone, in runs that the processor foresees.
    if R == 1 {
        products::<S, R, V, false, true>(&mut acc, call, lines);
    } else {
        products::<S, R, V, true, true>(&mut acc, call, lines);
    }
    end::<S, R, V>(&mut acc, call);
}

/// The sums that a block begins with, and the vectors of the output whose lines it asks for.
#[inline(always)]
unsafe fn begin<S: Simd, const R: usize, const V: usize>(call: &TileCall<S::Elem>) -> ([[S; V]; R], usize) {
    let zero = S::splat(S::Elem::ZERO);
    let mut acc = [[zero; V]; R];
    if call.load {
        for r in 0..R {
            for v in 0..V {
                acc[r][v] = S::load(call.partial.add(r * call.partial_stride + v * S::LANES));
            }
        }
    }
    let one_run_each = call.last && call.half.is_none() && columns_are_runs::<S, V>(call);
    let lines = if one_run_each && call.k >= UNROLL * R * V { R * V } else { 0 };
    (acc, lines)
}

/// Asks for where vector `number` of the block will be stored: rows of a matrix lie as far apart as it is wide, which
/// no processor foresees, and a store that has to wait for its line holds up those behind it.
#[inline(always)]
unsafe fn ask_to_write<S: Simd, const V: usize>(call: &TileCall<S::Elem>, number: usize) {
    let (row, lane) = (number / V, number % V * S::LANES);
    if lane < call.columns {
        let run = *call.segments.add(*call.group_start.add(lane / GROUP) as usize);
        let at = *call.rows.add(row) as isize + run.offset as isize + (lane % GROUP) as isize;
        prefetch_write(call.out.wrapping_offset(at));
    }
}

/// Steps in one turn of the loop.
const UNROLL: usize = 4;

/// Independent sums of each element of a block of few registers, which would wait for one addition after the other; as many
/// as sixteen registers hold.
pub(crate) const fn chains(rows: usize, vectors: usize) -> usize {
    match rows * vectors {
        0..=3 => 4,
        4..=6 => 2,
        _ => 1,
    }
}

/// Where the rows of a block are.
#[derive(Clone, Copy)]
struct Rows<T> {
    /// The next step of a panel; or of every third row, from which addressing modes reach the two after it.
    at: [*const T; MOST_ROWS.div_ceil(3)],
    /// Elements from row to row of rows as they lie.
    apart: usize,
}

/// Most rows of any block.
const MOST_ROWS: usize = 14;

impl<T: Copy> Rows<T> {
    #[inline(always)]
    fn new(call: &TileCall<T>) -> Self {
        let mut at = [call.a; MOST_ROWS.div_ceil(3)];
        for third in 0..at.len() {
            at[third] = call.a.wrapping_add(3 * third * call.a_row);
        }
        Self { at, apart: call.a_row }
    }

    /// Element of row `r` of `R` in the step after `steps` others.
    #[inline(always)]
    unsafe fn element<const R: usize, const LIE: bool>(&self, r: usize, steps: usize) -> T {
        if LIE { *self.at[r / 3].wrapping_add(r % 3 * self.apart + steps) } else { *self.at[0].add(steps * R + r) }
    }

    #[inline(always)]
    fn advance<const R: usize, const LIE: bool>(&mut self, steps: usize) {
        if LIE {
            for at in &mut self.at {
                *at = at.wrapping_add(steps);
            }
        } else {
            self.at[0] = self.at[0].wrapping_add(steps * R);
        }
    }
}

/// Adds the products of all steps, and asks for the lines of `lines` vectors of the output, one before each of the last turns
/// of the loop. Short sums notice the prefetches (5 % at 16 steps), so that blocks without any have a loop of their own.
#[inline(always)]
unsafe fn products<S: Simd, const R: usize, const V: usize, const AHEAD: bool, const LIE: bool>(
    acc: &mut [[S; V]; R],
    call: &TileCall<S::Elem>,
    lines: usize,
) {
    let (mut a, Panel { at: mut b, step: columns_step }, mut ahead) = (Rows::new(call), call.b, call.ahead);
    // The first chain continues `acc`, the others begin at zero and are added at the end.
    let mut others = [[[S::splat(S::Elem::ZERO); V]; R]; UNROLL - 1];
    let mut offsets = [S::splat(S::Elem::ZERO); V];
    for left in (0..call.k / UNROLL).rev() {
        if left < lines {
            ask_to_write::<S, V>(call, left);
        }
        for u in 0..UNROLL {
            if AHEAD {
                // Rows in place are none that the processor would not foresee.
                for stream in &mut ahead[usize::from(LIE)..] {
                    prefetch(stream.at);
                    stream.at = stream.at.wrapping_add(stream.step);
                }
            }
            let sums = match u % chains(R, V) {
                0 => &mut *acc,
                chain => &mut others[chain - 1],
            };
            step::<S, R, V, LIE>(sums, &mut offsets, &a, u, b);
            b = b.wrapping_add(columns_step);
        }
        a.advance::<R, LIE>(UNROLL);
    }
    for _ in 0..call.k % UNROLL {
        step::<S, R, V, LIE>(acc, &mut offsets, &a, 0, b);
        a.advance::<R, LIE>(1);
        b = b.wrapping_add(columns_step);
    }
    for chain in 1..chains(R, V) {
        for r in 0..R {
            for v in 0..V {
                acc[r][v] = acc[r][v].add(others[chain - 1][r][v]);
            }
        }
    }
    if S::CENTRED {
        for r in 0..R {
            for v in 0..V {
                acc[r][v] = acc[r][v].less_centre(offsets[v]);
            }
        }
    }
}

#[inline(always)]
unsafe fn step<S: Simd, const R: usize, const V: usize, const LIE: bool>(
    acc: &mut [[S; V]; R],
    offsets: &mut [S; V],
    a: &Rows<S::Elem>,
    steps: usize,
    b: *const S::Elem,
) {
    let mut columns = [S::splat(S::Elem::ZERO); V];
    for v in 0..V {
        columns[v] = S::load(b.add(v * S::LANES));
        if S::CENTRED {
            offsets[v] = offsets[v].centre(columns[v]);
        }
    }
    for r in 0..R {
        let row = S::row(a.element::<R, LIE>(r, steps));
        for v in 0..V {
            acc[r][v] = row.mul_add(columns[v], acc[r][v]);
        }
    }
}
