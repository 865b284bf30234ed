#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "packs through gather tables and joins rows of raw elements; the contract is PackCall's, stated in `pack.rs`"
)]
#![allow(clippy::needless_range_loop, reason = "lanes and terms number several arrays alike")]
#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "other processors have no blocks of joined terms yet")
)]
//! Packing of operands whose elements are not what panels hold: narrow elements become wide ones, or several terms of the
//! sum one element.
//!
//! A few steps are packed as they are into a panel on the stack, then joined row by row: one mechanism for every type and
//! level, whatever the operand's storage. Rows that lie in the operand as they are wanted are joined from there.

use std::mem::MaybeUninit;

use super::abi::{GROUP, PackCall, PackFn};
use super::half::{bf16_to_f32, f16_to_f32, f32_to_bf16};
use super::pack::pack;
use super::simd::{Lane, prefetch_near};
use super::spec::Element;

/// Terms that are joined at a time: whole groups, as packing along k reads them.
const CHUNK: usize = 2 * GROUP;
/// Largest width of a panel.
const MAX_WIDTH: usize = 48;

/// How elements become those of a panel.
pub(crate) trait Join {
    /// An element of the operand.
    type Raw: Lane;
    /// An element of a panel.
    type Unit: Lane;
    /// Raw elements in one unit, at most four.
    const TERMS: usize;
    /// The unit of `TERMS` elements; the others do not matter.
    fn unit(terms: [Self::Raw; 4]) -> Self::Unit;
}

/// As [`pack`], for `k0..k1` in units.
///
/// # Safety
/// As [`pack`]; `from` points to raw elements.
#[inline(always)]
pub(crate) unsafe fn pack_joined<J: Join>(call: &PackCall<'_, J::Unit>) {
    pack_joined_from::<J>(call, pack::<J::Raw>);
}

/// As [`pack_joined`], with a packer of the raw elements.
///
/// # Safety
/// As [`pack_joined`].
#[inline(always)]
pub(crate) unsafe fn pack_joined_from<J: Join>(call: &PackCall<'_, J::Unit>, pack: PackFn<J::Raw>) {
    let dense = dense_run(call);
    let mut raw = MaybeUninit::<[J::Raw; CHUNK * MAX_WIDTH]>::uninit();
    let raw = raw.as_mut_ptr().cast::<J::Raw>();
    let (op, stride) = (call.operand, call.stride);
    for first in (call.k0..call.k1).step_by(CHUNK / J::TERMS) {
        let last = call.k1.min(first + CHUNK / J::TERMS);
        let (k0, wanted) = (first * J::TERMS, last * J::TERMS);
        let k1 = wanted.min(op.k_len);
        let row = match dense {
            Some(start) if k1 == wanted => {
                let from = call.from.cast::<J::Raw>().wrapping_offset(start);
                Rows::Operand { from, k: op.k.add(k0), last: k1 - k0 - 1 }
            }
            _ => {
                let from = call.from.cast();
                pack(&PackCall { operand: op, from, panel: call.panel, valid: call.valid, stride, k0, k1, to: raw });
                // The last unit may have fewer terms.
                for i in (k1 - k0) * stride..(wanted - k0) * stride {
                    *raw.add(i) = J::Raw::ZERO;
                }
                Rows::Packed { raw, stride }
            }
        };
        for step in first..last {
            join_row::<J>(&row, (step - first) * J::TERMS, stride, call.to.add((step - call.k0) * stride));
        }
    }
}

/// Where the panel begins in each step if it is one run of full groups inside the tensor.
#[inline(always)]
unsafe fn dense_run<T>(call: &PackCall<'_, T>) -> Option<isize> {
    let op = call.operand;
    if op.lanes_along_k || op.checked || call.valid != call.stride || !call.stride.is_multiple_of(GROUP) {
        return None;
    }
    let first = call.panel * op.groups_per_panel;
    let run = |g: usize| *op.segments.add(*op.group_start.add(first + g) as usize);
    let start = run(0).offset;
    let follows = |g: usize| {
        let run = run(g);
        run.mask == u16::MAX && run.step == 1 && run.offset == start + (g * GROUP) as i32
    };
    (0..call.stride / GROUP).all(follows).then_some(start as isize)
}

/// Rows of raw elements.
enum Rows<R> {
    /// One behind the other.
    Packed { raw: *const R, stride: usize },
    /// Those of the operand; `last` is the last that may be asked for.
    Operand { from: *const R, k: *const i32, last: usize },
}

impl<R> Rows<R> {
    #[inline(always)]
    unsafe fn get(&self, row: usize) -> *const R {
        match *self {
            Rows::Packed { raw, stride } => raw.add(row * stride),
            Rows::Operand { from, k, last } => {
                prefetch_near(from.wrapping_offset(*k.add((row + GROUP).min(last)) as isize));
                from.wrapping_offset(*k.add(row) as isize)
            }
        }
    }
}

/// Joins `TERMS` rows from `first` on; sixteen units at a time, as values, so that no store may change what is loaded.
#[inline(always)]
unsafe fn join_row<J: Join>(rows: &Rows<J::Raw>, first: usize, len: usize, to: *mut J::Unit) {
    let mut at = [rows.get(first); 4];
    for (term, at) in at.iter_mut().enumerate().take(J::TERMS).skip(1) {
        *at = rows.get(first + term);
    }
    let whole = len / GROUP * GROUP;
    for i in (0..whole).step_by(GROUP) {
        let mut terms = [[J::Raw::ZERO; GROUP]; 4];
        for term in 0..J::TERMS {
            terms[term] = at[term].add(i).cast::<[J::Raw; GROUP]>().read_unaligned();
        }
        let mut units = [J::Unit::ZERO; GROUP];
        for lane in 0..GROUP {
            units[lane] = J::unit([terms[0][lane], terms[1][lane], terms[2][lane], terms[3][lane]]);
        }
        to.add(i).cast::<[J::Unit; GROUP]>().write_unaligned(units);
    }
    for i in whole..len {
        *to.add(i) = J::unit(at.map(|at| {
            // SAFETY: rows have `len` elements; those that are no terms repeat the first.
            unsafe { *at.add(i) }
        }));
    }
}

macro_rules! join {
    ($(#[$doc:meta])* $name:ident: $terms:literal x $raw:ty => $unit:ty, |$of:ident| $unit_of:expr) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl Join for $name {
            type Raw = $raw;
            type Unit = $unit;
            const TERMS: usize = $terms;
            #[inline(always)]
            fn unit($of: [$raw; 4]) -> $unit {
                $unit_of
            }
        }
    };
}

join! {
    /// `bf16` as `f32`.
    Bf16: 1 x u16 => f32, |of| bf16_to_f32(of[0])
}
join! {
    /// `f16` as `f32`.
    F16: 1 x u16 => f32, |of| f16_to_f32(of[0])
}
join! {
    /// Two `bf16` in the bits of one `f32`, the first in the low half.
    Bf16Pair: 2 x u16 => f32, |of| f32::from_bits(u32::from(of[0]) | u32::from(of[1]) << 16)
}
join! {
    /// Two `f32`, rounded, as [`Bf16Pair`].
    RoundedPair: 2 x f32 => f32, |of| {
        f32::from_bits(u32::from(f32_to_bf16(of[0])) | u32::from(f32_to_bf16(of[1])) << 16)
    }
}
join! {
    /// `i8` as `i32`.
    I8: 1 x u8 => i32, |of| i32::from(of[0] as i8)
}
join! {
    /// `u8` as `i32`.
    U8: 1 x u8 => i32, |of| i32::from(of[0])
}
join! {
    /// Two `i8` as `i16` in one `i32`.
    I8Pair: 2 x u8 => i32, |of| i32::from(of[0] as i8) & 0xffff | i32::from(of[1] as i8) << 16
}
join! {
    /// Two `u8` as `i16` in one `i32`.
    U8Pair: 2 x u8 => i32, |of| i32::from(of[0]) | i32::from(of[1]) << 16
}
join! {
    /// Four bytes in one `i32`.
    Quad: 4 x u8 => i32, |of| i32::from_le_bytes(of)
}

/// Bytes as `i32`.
///
/// # Safety
/// As [`pack_joined`].
#[inline(always)]
pub(crate) unsafe fn pack_words_of(call: &PackCall<'_, i32>) {
    match call.operand.element {
        Element::I8 => pack_joined::<I8>(call),
        _ => pack_joined::<U8>(call),
    }
}

/// The packer of half types as `f32` of one level.
macro_rules! converters {
    ($($features:literal)?) => {
        $(#[target_feature(enable = $features)])?
        unsafe fn convert_f32(call: &PackCall<'_, f32>) {
            use crate::kernels::convert::{Bf16, F16, pack_joined};
            match call.operand.element {
                crate::kernels::Element::F16 => pack_joined::<F16>(call),
                _ => pack_joined::<Bf16>(call),
            }
        }
    };
}
pub(crate) use converters;
