#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "intrinsics; every function here is reached only through the table of a level the processor has"
)]
//! AVX-512 (F, DQ, BW, VL) with FMA.

use std::arch::x86_64::*;

use super::abi::{PackCall, Shape, Table, TileCall, blocks};
use super::inner::{COLUMNS, inner};
use super::math;
use super::pack_avx512;
use super::simd::{Simd, SimdMath, SimdWindow};
use super::store::transpose;
use super::tile::{tile, tile_in_place};

#[derive(Clone, Copy)]
pub(crate) struct F32x16(pub(super) __m512);
#[derive(Clone, Copy)]
pub(crate) struct F64x8(__m512d);

impl Simd for F32x16 {
    type Elem = f32;
    const LANES: usize = 16;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(_mm512_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        Self(_mm512_loadu_ps(at))
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        _mm512_storeu_ps(at, self.0);
    }
    #[inline(always)]
    unsafe fn load_mask(at: *const f32, mask: u16) -> Self {
        Self(_mm512_maskz_loadu_ps(mask, at))
    }
    #[inline(always)]
    unsafe fn store_mask(self, at: *mut f32, mask: u16) {
        _mm512_mask_storeu_ps(at, mask, self.0);
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(_mm512_fmadd_ps(self.0, factor.0, addend.0))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm512_add_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm512_mul_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max_or_other(self, other: Self) -> Self {
        Self(_mm512_max_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn min_or_other(self, other: Self) -> Self {
        Self(_mm512_min_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn total(self) -> f32 {
        _mm512_reduce_add_ps(self.0)
    }
    #[inline(always)]
    unsafe fn leaky(self, alpha: Self) -> Self {
        let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_setzero_ps());
        Self(_mm512_mask_mov_ps(_mm512_mul_ps(self.0, alpha.0), positive, self.0))
    }
}

impl SimdMath for F32x16 {
    type Mask = __mmask16;
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(_mm512_sub_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(_mm512_div_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(_mm512_roundscale_ps::<8>(self.0))
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        let biased = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
        Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased)))
    }
    #[inline(always)]
    unsafe fn scale(self, n: Self) -> Self {
        Self(_mm512_scalef_ps(self.0, n.0))
    }
    #[inline(always)]
    unsafe fn exponent(self) -> Self {
        Self(_mm512_cvtepi32_ps(_mm512_srli_epi32::<23>(_mm512_castps_si512(self.0))))
    }
    #[inline(always)]
    unsafe fn and_bits(self, bits: u32) -> Self {
        Self(_mm512_and_ps(self.0, _mm512_set1_ps(f32::from_bits(bits))))
    }
    #[inline(always)]
    unsafe fn or_bits(self, bits: u32) -> Self {
        Self(_mm512_or_ps(self.0, _mm512_set1_ps(f32::from_bits(bits))))
    }
    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        Self(_mm512_or_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn less(self, other: Self) -> __mmask16 {
        _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0)
    }
    #[inline(always)]
    unsafe fn is_nan(self) -> __mmask16 {
        _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0)
    }
    #[inline(always)]
    unsafe fn select(mask: __mmask16, yes: Self, no: Self) -> Self {
        Self(_mm512_mask_mov_ps(no.0, mask, yes.0))
    }
}

impl SimdWindow for F32x16 {
    #[inline(always)]
    unsafe fn deinterleave(self, next: Self) -> (Self, Self) {
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        (Self(_mm512_permutex2var_ps(self.0, even, next.0)), Self(_mm512_permutex2var_ps(self.0, odd, next.0)))
    }
    #[inline(always)]
    unsafe fn interleave(self, next: Self) -> (Self, Self) {
        let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        (Self(_mm512_permutex2var_ps(self.0, low, next.0)), Self(_mm512_permutex2var_ps(self.0, high, next.0)))
    }
    #[inline(always)]
    unsafe fn splice(self, next: Self, first: usize) -> Self {
        let (this, next) = (_mm512_castps_si512(self.0), _mm512_castps_si512(next.0));
        Self(_mm512_castsi512_ps(match first {
            0 => this,
            1 => _mm512_alignr_epi32::<1>(next, this),
            2 => _mm512_alignr_epi32::<2>(next, this),
            3 => _mm512_alignr_epi32::<3>(next, this),
            4 => _mm512_alignr_epi32::<4>(next, this),
            5 => _mm512_alignr_epi32::<5>(next, this),
            6 => _mm512_alignr_epi32::<6>(next, this),
            7 => _mm512_alignr_epi32::<7>(next, this),
            8 => _mm512_alignr_epi32::<8>(next, this),
            9 => _mm512_alignr_epi32::<9>(next, this),
            10 => _mm512_alignr_epi32::<10>(next, this),
            11 => _mm512_alignr_epi32::<11>(next, this),
            12 => _mm512_alignr_epi32::<12>(next, this),
            13 => _mm512_alignr_epi32::<13>(next, this),
            14 => _mm512_alignr_epi32::<14>(next, this),
            _ => _mm512_alignr_epi32::<15>(next, this),
        }))
    }
    #[inline(always)]
    unsafe fn load_mask_or(at: *const f32, mask: u16, other: Self) -> Self {
        Self(_mm512_mask_loadu_ps(other.0, mask, at))
    }
    #[inline(always)]
    unsafe fn pick(self, next: Self, lanes: *const i32) -> Self {
        Self(_mm512_permutex2var_ps(self.0, _mm512_loadu_epi32(lanes), next.0))
    }
    #[inline(always)]
    unsafe fn blend(mask: u16, yes: Self, no: Self) -> Self {
        Self(_mm512_mask_blend_ps(mask, no.0, yes.0))
    }
    #[inline(always)]
    unsafe fn all() -> __mmask16 {
        !0
    }
    #[inline(always)]
    unsafe fn is_number(self, mask: __mmask16) -> __mmask16 {
        _mm512_mask_cmp_ps_mask::<_CMP_ORD_Q>(mask, self.0, self.0)
    }
    #[inline(always)]
    unsafe fn wins(self, best: Self, mask: __mmask16) -> __mmask16 {
        _mm512_mask_cmp_ps_mask::<_CMP_NLE_UQ>(mask, self.0, best.0)
    }
    #[inline(always)]
    unsafe fn same_bits(self, other: Self) -> __mmask16 {
        _mm512_cmpeq_epi32_mask(_mm512_castps_si512(self.0), _mm512_castps_si512(other.0))
    }
}

impl Simd for F64x8 {
    type Elem = f64;
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn splat(value: f64) -> Self {
        Self(_mm512_set1_pd(value))
    }
    #[inline(always)]
    unsafe fn load(at: *const f64) -> Self {
        Self(_mm512_loadu_pd(at))
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f64) {
        _mm512_storeu_pd(at, self.0);
    }
    #[inline(always)]
    unsafe fn load_mask(at: *const f64, mask: u16) -> Self {
        Self(_mm512_maskz_loadu_pd(mask as u8, at))
    }
    #[inline(always)]
    unsafe fn store_mask(self, at: *mut f64, mask: u16) {
        _mm512_mask_storeu_pd(at, mask as u8, self.0);
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(_mm512_fmadd_pd(self.0, factor.0, addend.0))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm512_add_pd(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm512_mul_pd(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max_or_other(self, other: Self) -> Self {
        Self(_mm512_max_pd(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn min_or_other(self, other: Self) -> Self {
        Self(_mm512_min_pd(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn leaky(self, alpha: Self) -> Self {
        let positive = _mm512_cmp_pd_mask::<_CMP_GT_OQ>(self.0, _mm512_setzero_pd());
        Self(_mm512_mask_mov_pd(_mm512_mul_pd(self.0, alpha.0), positive, self.0))
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn f32_rows<const R: usize, const V: usize>(call: &TileCall<f32>) {
    tile::<F32x16, R, V>(call);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn f32_in_place<const R: usize, const V: usize>(call: &TileCall<f32>) {
    tile_in_place::<F32x16, R, V>(call);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn f32_inner<const R: usize>(call: &TileCall<f32>) {
    inner::<F32x16, R, 4, 1>(call);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn f64_inner<const R: usize>(call: &TileCall<f64>) {
    inner::<F64x8, R, 4, 2>(call);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn f64_rows<const R: usize>(call: &TileCall<f64>) {
    tile::<F64x8, R, 2>(call);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn pack_f64(call: &PackCall<'_, f64>) {
    super::pack::pack(call);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
pub(super) unsafe fn activate(code: u32, alpha: [f32; 2], data: *mut f32, len: usize) {
    math::activate::<F32x16>(code, alpha, data, len);
}

/// Single precision: up to 14 x 32 (28 accumulators of 32 registers), 14 x 16 for few columns, 8 x 48; for few rows, whose
/// columns are read as they lie, 6 x 64, 4 x 96 and 1 x 256.
pub(crate) static F32: Table<f32> = Table {
    name: "avx512-f32",
    terms: 1,
    shapes: &[
        Shape {
            inner: false,
            in_place: blocks!(f32_in_place, 2; 1 2 3 4 5 6 7 8 9 10 11),
            nr: 32,
            vectors: 2,
            rows: blocks!(f32_rows, 2; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        },
        Shape {
            inner: false,
            in_place: blocks!(f32_in_place, 1; 1 2 3 4 5 6 7 8 9 10 11),
            nr: 16,
            vectors: 1,
            rows: blocks!(f32_rows, 1; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        },
        Shape {
            inner: false,
            in_place: blocks!(f32_in_place, 3; 1 2 3 4 5 6 7 8),
            nr: 48,
            vectors: 3,
            rows: blocks!(f32_rows, 3; 1 2 3 4 5 6 7 8),
        },
        Shape {
            inner: false,
            in_place: blocks!(f32_in_place, 4; 1 2 3 4 5 6),
            nr: 64,
            vectors: 4,
            rows: blocks!(f32_rows, 4; 1 2 3 4 5 6),
        },
        Shape {
            inner: false,
            in_place: blocks!(f32_in_place, 6; 1 2 3 4),
            nr: 96,
            vectors: 6,
            rows: blocks!(f32_rows, 6; 1 2 3 4),
        },
        Shape { inner: false, in_place: &[f32_in_place::<1, 16>], nr: 256, vectors: 16, rows: &[f32_rows::<1, 16>] },
        Shape { inner: true, in_place: &[], nr: COLUMNS, vectors: 1, rows: blocks!(f32_inner; 1 2 3 4 5 6) },
    ],
    pack: pack_avx512::pack_f32,
    convert: convert_f32,
    activate,
    transpose: pack_avx512::transpose_block,
};

/// Double precision: 14 x 16.
pub(crate) static F64: Table<f64> = Table {
    name: "avx512-f64",
    terms: 1,
    shapes: &[
        Shape {
            inner: false,
            in_place: &[],
            nr: 16,
            vectors: 2,
            rows: blocks!(f64_rows; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        },
        Shape { inner: true, in_place: &[], nr: COLUMNS, vectors: 2, rows: blocks!(f64_inner; 1 2 3 4 5 6) },
    ],
    pack: pack_f64,
    convert: pack_f64,
    activate: math::activate_f64,
    transpose,
};

super::convert::converters!("avx512f,avx512dq,avx512bw,avx512vl,fma");

super::half::halves!("avx512f,avx512dq,avx512bw,avx512vl,fma");

math::strips!(F32x16, "avx512f,avx512dq,avx512bw,avx512vl,fma");

super::window::window_table!("avx512", F32x16, 7, 4, "avx512f,avx512dq,avx512bw,avx512vl,fma");
