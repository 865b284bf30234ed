#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "conversions of strips behind pointers; callers promise that they hold the elements"
)]
//! `bf16` and `f16` to `f32` and back: to the nearest, ties to even, denormal numbers included.
//!
//! Selections instead of branches, so that LLVM makes vectors of the loops.

/// Strips of one half type. Each has a length, and may be called with the instructions of its level only.
pub(crate) struct Half<T: 'static> {
    /// `to = from`
    pub(crate) widen: unsafe fn(from: *const u16, to: *mut T, len: usize),
    /// `to = from`, rounded.
    pub(crate) narrow: unsafe fn(from: *const T, to: *mut u16, len: usize),
}

#[inline(always)]
pub(crate) fn bf16_to_f32(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// Rounds by adding just under half of the last place, or just half where that is odd.
#[inline(always)]
pub(crate) fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    (if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { rounded }) as u16
}

/// The exponent is brought to its place by a product, which is exact.
#[inline(always)]
pub(crate) fn f16_to_f32(x: u16) -> f32 {
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    let size = (u32::from(x) & 0x7fff) << 13;
    let scaled = (f32::from_bits(size) * SCALE).to_bits();
    let size = if size > 0x0f7f_ffff { size | 0x7f80_0000 } else { scaled };
    f32::from_bits(size | (u32::from(x) & 0x8000) << 16)
}

/// Numbers below the least normal one are rounded by an addition to 0.5, whose last place is theirs.
#[inline(always)]
pub(crate) fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let size = bits & 0x7fff_ffff;
    // 0xfff less the difference of the exponents' biases.
    let normal = size.wrapping_sub(0x3800_0000 - 0xfff).wrapping_add(size >> 13 & 1) >> 13;
    let normal = if normal > 0x7c00 { 0x7c00 } else { normal };
    let denormal = (f32::from_bits(size) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let finite = if size > 0x387f_ffff { normal } else { denormal };
    let rounded = if size > 0x7f80_0000 { 0x7e00 } else { finite };
    (rounded | bits >> 16 & 0x8000) as u16
}

/// The strips of one level.
macro_rules! halves {
    ($($features:literal)?) => {
        /// `bf16` and `f16`.
        pub(crate) static HALVES: [crate::kernels::half::Half<f32>; 2] = {
            use crate::kernels::half::{Half, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
            $(#[target_feature(enable = $features)])?
            unsafe fn widen_bf16(from: *const u16, to: *mut f32, len: usize) {
                for i in 0..len {
                    *to.add(i) = bf16_to_f32(*from.add(i));
                }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn narrow_bf16(from: *const f32, to: *mut u16, len: usize) {
                for i in 0..len {
                    *to.add(i) = f32_to_bf16(*from.add(i));
                }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn widen_f16(from: *const u16, to: *mut f32, len: usize) {
                for i in 0..len {
                    *to.add(i) = f16_to_f32(*from.add(i));
                }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn narrow_f16(from: *const f32, to: *mut u16, len: usize) {
                for i in 0..len {
                    *to.add(i) = f32_to_f16(*from.add(i));
                }
            }
            [
                Half { widen: widen_bf16, narrow: narrow_bf16 },
                Half { widen: widen_f16, narrow: narrow_f16 },
            ]
        };
    };
}
pub(crate) use halves;
