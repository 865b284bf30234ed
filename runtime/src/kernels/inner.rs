#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "inner loops over raw operands; the contract is TileCall's, stated once on `inner`"
)]
#![allow(clippy::needless_range_loop, reason = "rows and columns number registers and addresses alike")]
//! Inner products: register blocks whose lanes are terms of the sum, for operands that both run along it, as the weights
//! `[n, k]` of a dense layer do, or a matrix that meets a vector. Nothing is packed or turned; each row and column is read as
//! it lies, and the lanes are added at the end.
//!
//! With few rows the columns' arrival is what takes time. Measured on Zen 5, 1024 x 1024 from the third-level cache: four
//! columns side by side, two registers of each in a turn, 103 GB/s; sixteen 90, for streams that the processor foresees are few;
//! cut into blocks of 512 and 256 terms 93 and 85. From memory likewise: 50, 37, and 37 and 32.

use super::abi::{GROUP, TileCall};
use super::simd::{Lane, Simd};
use super::store::end;

/// Columns of a block: a group, so that `V` registers hold a row of sums.
pub(crate) const COLUMNS: usize = GROUP;

/// Runs one call with `R` rows and `V * LANES = COLUMNS` columns, of which `C` are summed side by side.
///
/// # Safety
/// As [`super::tile::tile`], but `a` holds `R` rows of `k` terms, `a_row` elements apart, and `b` as many terms of each of
/// `columns` columns, `b.step` elements apart.
#[inline(always)]
pub(crate) unsafe fn inner<S: Simd, const R: usize, const C: usize, const V: usize>(call: &TileCall<S::Elem>) {
    let mut sums = [[S::Elem::ZERO; COLUMNS]; R];
    // A row of sums without columns is empty: there is no column to repeat.
    let last = call.columns.saturating_sub(1);
    for first in (0..call.columns).step_by(C) {
        // Beyond the last column it is summed again.
        let mut columns = [call.b.at; C];
        for c in 0..C {
            columns[c] = call.b.at.wrapping_add((first + c).min(last) * call.b.step);
        }
        let acc = products::<S, R, C>(call, columns);
        for r in 0..R {
            for c in 0..C {
                sums[r][first + c] = acc[r][c].total();
            }
        }
    }
    let mut acc = [[S::splat(S::Elem::ZERO); V]; R];
    for r in 0..R {
        for v in 0..V {
            acc[r][v] = S::load(sums[r].as_ptr().add(v * S::LANES));
            if call.load {
                acc[r][v] = S::load(call.partial.add(r * call.partial_stride + v * S::LANES)).add(acc[r][v]);
            }
        }
    }
    end::<S, R, V>(&mut acc, call);
}

/// Registers of a column in one turn of the loop.
const UNROLL: usize = 2;

/// Lanes of the sums of all rows by `C` columns.
#[inline(always)]
unsafe fn products<S: Simd, const R: usize, const C: usize>(
    call: &TileCall<S::Elem>,
    columns: [*const S::Elem; C],
) -> [[S; C]; R] {
    let mut acc = [[S::splat(S::Elem::ZERO); C]; R];
    let mut k = 0;
    while k + UNROLL * S::LANES <= call.k {
        for u in 0..UNROLL {
            step::<S, R, C>(&mut acc, call, &columns, k + u * S::LANES, None);
        }
        k += UNROLL * S::LANES;
    }
    while k < call.k {
        let exist = ((1u32 << (call.k - k).min(S::LANES)) - 1) as u16;
        step::<S, R, C>(&mut acc, call, &columns, k, Some(exist));
        k += S::LANES;
    }
    acc
}

/// Adds the products of a register of terms from `k` on, of which those in the mask exist.
#[inline(always)]
unsafe fn step<S: Simd, const R: usize, const C: usize>(
    acc: &mut [[S; C]; R],
    call: &TileCall<S::Elem>,
    columns: &[*const S::Elem; C],
    k: usize,
    exist: Option<u16>,
) {
    let mut terms = [S::splat(S::Elem::ZERO); C];
    for c in 0..C {
        terms[c] = load(columns[c].wrapping_add(k), exist);
    }
    for r in 0..R {
        let row: S = load(call.a.wrapping_add(r * call.a_row + k), exist);
        for c in 0..C {
            acc[r][c] = row.mul_add(terms[c], acc[r][c]);
        }
    }
}

#[inline(always)]
unsafe fn load<S: Simd>(at: *const S::Elem, exist: Option<u16>) -> S {
    match exist {
        None => S::load(at),
        Some(mask) => S::load_mask(at, mask),
    }
}
