#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "packs through gather tables and joins rows of raw elements; the contract is PackCall's, stated in `pack.rs`"
)]
//! Packing of operands whose elements are not what panels hold: narrow elements become wide ones, or several terms of the
//! sum one element.
//!
//! A few steps are packed as they are into a panel on the stack, then joined row by row: one mechanism for every type and
//! level, whatever the operand's storage.

use std::mem::MaybeUninit;

use super::abi::{GROUP, PackCall};
use super::half::{bf16_to_f32, f16_to_f32};
use super::pack::pack;
use super::simd::Lane;
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
    type Unit;
    /// Raw elements in one unit.
    const TERMS: usize;
    /// Joins `TERMS` rows of `len`, one behind the other.
    unsafe fn row(raw: *const Self::Raw, len: usize, to: *mut Self::Unit);
}

/// As [`pack`], for `k0..k1` in units.
///
/// # Safety
/// As [`pack`]; `from` points to raw elements.
#[inline(always)]
pub(crate) unsafe fn pack_joined<J: Join>(call: &PackCall<'_, J::Unit>) {
    let mut raw = MaybeUninit::<[J::Raw; CHUNK * MAX_WIDTH]>::uninit();
    let raw = raw.as_mut_ptr().cast::<J::Raw>();
    let stride = call.stride;
    for first in (call.k0..call.k1).step_by(CHUNK / J::TERMS) {
        let last = call.k1.min(first + CHUNK / J::TERMS);
        let (k0, wanted) = (first * J::TERMS, last * J::TERMS);
        let k1 = wanted.min(call.operand.k_len);
        let from = call.from.cast();
        pack(&PackCall { operand: call.operand, from, panel: call.panel, valid: call.valid, stride, k0, k1, to: raw });
        // The last unit may have fewer terms.
        for i in (k1 - k0) * stride..(wanted - k0) * stride {
            *raw.add(i) = J::Raw::ZERO;
        }
        for step in first..last {
            let row = raw.add((step - first) * J::TERMS * stride);
            J::row(row, stride, call.to.add((step - call.k0) * stride));
        }
    }
}

macro_rules! join {
    ($(#[$doc:meta])* $name:ident: $terms:literal x $raw:ty => $unit:ty, |$rows:ident, $i:ident, $len:ident| $unit_of:expr) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl Join for $name {
            type Raw = $raw;
            type Unit = $unit;
            const TERMS: usize = $terms;
            #[inline(always)]
            unsafe fn row($rows: *const $raw, $len: usize, to: *mut $unit) {
                for $i in 0..$len {
                    *to.add($i) = $unit_of;
                }
            }
        }
    };
}

join! {
    /// `bf16` as `f32`.
    Bf16: 1 x u16 => f32, |rows, i, len| bf16_to_f32(*rows.add(i))
}
join! {
    /// `f16` as `f32`.
    F16: 1 x u16 => f32, |rows, i, len| f16_to_f32(*rows.add(i))
}
join! {
    /// Two `bf16` in the bits of one `f32`, the first in the low half.
    Bf16Pair: 2 x u16 => f32, |rows, i, len| {
        f32::from_bits(u32::from(*rows.add(i)) | u32::from(*rows.add(len + i)) << 16)
    }
}
join! {
    /// `i8` as `i32`.
    I8: 1 x u8 => i32, |rows, i, len| i32::from(*rows.add(i) as i8)
}
join! {
    /// `u8` as `i32`.
    U8: 1 x u8 => i32, |rows, i, len| i32::from(*rows.add(i))
}
join! {
    /// Two `i8` as `i16` in one `i32`.
    I8Pair: 2 x u8 => i32, |rows, i, len| {
        i32::from(*rows.add(i) as i8) & 0xffff | i32::from(*rows.add(len + i) as i8) << 16
    }
}
join! {
    /// Two `u8` as `i16` in one `i32`.
    U8Pair: 2 x u8 => i32, |rows, i, len| i32::from(*rows.add(i)) | i32::from(*rows.add(len + i)) << 16
}
join! {
    /// Four bytes in one `i32`.
    Quad: 4 x u8 => i32, |rows, i, len| {
        i32::from_le_bytes([*rows.add(i), *rows.add(len + i), *rows.add(2 * len + i), *rows.add(3 * len + i)])
    }
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
