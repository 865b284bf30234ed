#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "intrinsics; NEON is part of every aarch64 processor that std supports"
)]
//! NEON on aarch64: 128-bit vectors, 32 registers.

use std::arch::aarch64::*;

use super::abi::{PackCall, Shape, Table, TileCall};
use super::inner::{COLUMNS, inner};
use super::math;
use super::simd::{Simd, SimdMath, SimdWindow};
use super::store::transpose;
use super::tile::tile;

#[derive(Clone, Copy)]
pub(crate) struct F32x4(float32x4_t);

impl Simd for F32x4 {
    type Elem = f32;
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(vdupq_n_f32(value))
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        Self(vld1q_f32(at))
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        vst1q_f32(at, self.0);
    }
    #[inline(always)]
    unsafe fn load_mask(at: *const f32, mask: u16) -> Self {
        let mut lanes = [0.0f32; 4];
        for (lane, x) in lanes.iter_mut().enumerate() {
            if mask >> lane & 1 == 1 {
                *x = *at.wrapping_add(lane);
            }
        }
        Self(vld1q_f32(lanes.as_ptr()))
    }
    #[inline(always)]
    unsafe fn store_mask(self, at: *mut f32, mask: u16) {
        let mut lanes = [0.0f32; 4];
        vst1q_f32(lanes.as_mut_ptr(), self.0);
        for (lane, x) in lanes.into_iter().enumerate() {
            if mask >> lane & 1 == 1 {
                *at.wrapping_add(lane) = x;
            }
        }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(vfmaq_f32(addend.0, self.0, factor.0))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(vaddq_f32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(vmulq_f32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max_or_other(self, other: Self) -> Self {
        // vmaxq propagates NaN from either side; the trait asks for the second operand.
        Self(vbslq_f32(vcgtq_f32(self.0, other.0), self.0, other.0))
    }
    #[inline(always)]
    unsafe fn min_or_other(self, other: Self) -> Self {
        Self(vbslq_f32(vcltq_f32(self.0, other.0), self.0, other.0))
    }
    #[inline(always)]
    unsafe fn leaky(self, alpha: Self) -> Self {
        Self(vbslq_f32(vcgtzq_f32(self.0), self.0, vmulq_f32(self.0, alpha.0)))
    }
}

impl SimdMath for F32x4 {
    type Mask = uint32x4_t;
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(vsubq_f32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(vdivq_f32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(vrndnq_f32(self.0))
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        let biased = vaddq_s32(vcvtnq_s32_f32(self.0), vdupq_n_s32(127));
        Self(vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased)))
    }
    #[inline(always)]
    unsafe fn exponent(self) -> Self {
        Self(vcvtq_f32_u32(vshrq_n_u32::<23>(vreinterpretq_u32_f32(self.0))))
    }
    #[inline(always)]
    unsafe fn and_bits(self, bits: u32) -> Self {
        Self(vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(self.0), vdupq_n_u32(bits))))
    }
    #[inline(always)]
    unsafe fn or_bits(self, bits: u32) -> Self {
        Self(vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(self.0), vdupq_n_u32(bits))))
    }
    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        let bits = vorrq_u32(vreinterpretq_u32_f32(self.0), vreinterpretq_u32_f32(other.0));
        Self(vreinterpretq_f32_u32(bits))
    }
    #[inline(always)]
    unsafe fn less(self, other: Self) -> uint32x4_t {
        vcltq_f32(self.0, other.0)
    }
    #[inline(always)]
    unsafe fn is_nan(self) -> uint32x4_t {
        vmvnq_u32(vceqq_f32(self.0, self.0))
    }
    #[inline(always)]
    unsafe fn select(mask: uint32x4_t, yes: Self, no: Self) -> Self {
        Self(vbslq_f32(mask, yes.0, no.0))
    }
}

impl SimdWindow for F32x4 {
    #[inline(always)]
    unsafe fn deinterleave(self, next: Self) -> (Self, Self) {
        (Self(vuzp1q_f32(self.0, next.0)), Self(vuzp2q_f32(self.0, next.0)))
    }
    #[inline(always)]
    unsafe fn interleave(self, next: Self) -> (Self, Self) {
        (Self(vzip1q_f32(self.0, next.0)), Self(vzip2q_f32(self.0, next.0)))
    }
    #[inline(always)]
    unsafe fn splice(self, next: Self, first: usize) -> Self {
        Self(match first {
            0 => self.0,
            1 => vextq_f32::<1>(self.0, next.0),
            2 => vextq_f32::<2>(self.0, next.0),
            _ => vextq_f32::<3>(self.0, next.0),
        })
    }
    #[inline(always)]
    unsafe fn load_mask_or(at: *const f32, mask: u16, other: Self) -> Self {
        let mut lanes = [0.0f32; 4];
        vst1q_f32(lanes.as_mut_ptr(), other.0);
        for (lane, x) in lanes.iter_mut().enumerate() {
            if mask >> lane & 1 == 1 {
                *x = *at.wrapping_add(lane);
            }
        }
        Self(vld1q_f32(lanes.as_ptr()))
    }
    #[inline(always)]
    unsafe fn pick(self, next: Self, lanes: *const i32) -> Self {
        let mut both = [0.0f32; 8];
        vst1q_f32(both.as_mut_ptr(), self.0);
        vst1q_f32(both.as_mut_ptr().add(4), next.0);
        let picked: [f32; 4] = std::array::from_fn(|i| both[*lanes.add(i) as usize & 7]);
        Self(vld1q_f32(picked.as_ptr()))
    }
    #[inline(always)]
    unsafe fn blend(mask: u16, yes: Self, no: Self) -> Self {
        let lanes: [u32; 4] = std::array::from_fn(|i| 0u32.wrapping_sub(u32::from(mask >> i & 1)));
        Self(vbslq_f32(vld1q_u32(lanes.as_ptr()), yes.0, no.0))
    }
    #[inline(always)]
    unsafe fn all() -> uint32x4_t {
        vdupq_n_u32(!0)
    }
    #[inline(always)]
    unsafe fn is_number(self, mask: uint32x4_t) -> uint32x4_t {
        vandq_u32(mask, vceqq_f32(self.0, self.0))
    }
    #[inline(always)]
    unsafe fn wins(self, best: Self, mask: uint32x4_t) -> uint32x4_t {
        vbicq_u32(mask, vcleq_f32(self.0, best.0))
    }
    #[inline(always)]
    unsafe fn same_bits(self, other: Self) -> uint32x4_t {
        vceqq_u32(vreinterpretq_u32_f32(self.0), vreinterpretq_u32_f32(other.0))
    }
}

unsafe fn rows<const R: usize>(call: &TileCall<f32>) {
    tile::<F32x4, R, 4>(call);
}

unsafe fn inner_rows<const R: usize>(call: &TileCall<f32>) {
    inner::<F32x4, R, 4, 4>(call);
}

unsafe fn pack_f32(call: &PackCall<'_, f32>) {
    super::pack::pack(call);
}

unsafe fn activate(code: u32, alpha: [f32; 2], data: *mut f32, len: usize) {
    math::activate::<F32x4>(code, alpha, data, len);
}

/// Single precision: 6 x 16 (24 accumulators of 32 registers).
pub(crate) static F32: Table<f32> = Table {
    name: "neon-f32",
    terms: 1,
    shapes: &[
        Shape {
            inner: false,
            in_place: &[],
            nr: 16,
            vectors: 4,
            rows: &[rows::<1>, rows::<2>, rows::<3>, rows::<4>, rows::<5>, rows::<6>],
        },
        Shape {
            inner: true,
            in_place: &[],
            nr: COLUMNS,
            vectors: 4,
            rows: &[inner_rows::<1>, inner_rows::<2>, inner_rows::<3>, inner_rows::<4>],
        },
    ],
    pack: pack_f32,
    convert: convert_f32,
    activate,
    transpose: transpose,
};

super::convert::converters!();

super::half::halves!();

math::strips!(F32x4);

super::window::window_table!("neon", F32x4, 4, 4);
