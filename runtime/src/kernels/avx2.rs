#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "intrinsics; every function here is reached only through the table of a level the processor has"
)]
//! AVX2 with FMA.

use std::arch::x86_64::*;

use super::abi::{PackCall, Shape, Table, TileCall, blocks};
use super::inner::{COLUMNS, inner};
use super::math;
use super::simd::{Simd, SimdMath, SimdWindow};
use super::store::transpose;
use super::tile::{tile, tile_in_place};

#[derive(Clone, Copy)]
pub(crate) struct F32x8(pub(super) __m256);
#[derive(Clone, Copy)]
pub(crate) struct F64x4(__m256d);

/// The low eight bits of `mask` as lane masks.
#[inline(always)]
pub(crate) unsafe fn lanes32(mask: u16) -> __m256i {
    let bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(i32::from(mask)), bit), bit)
}

/// The low four bits of `mask` as lane masks.
#[inline(always)]
unsafe fn lanes64(mask: u16) -> __m256i {
    let bit = _mm256_setr_epi64x(1, 2, 4, 8);
    _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(i64::from(mask)), bit), bit)
}

impl Simd for F32x8 {
    type Elem = f32;
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(_mm256_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        Self(_mm256_loadu_ps(at))
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        _mm256_storeu_ps(at, self.0);
    }
    #[inline(always)]
    unsafe fn load_mask(at: *const f32, mask: u16) -> Self {
        Self(_mm256_maskload_ps(at, lanes32(mask)))
    }
    #[inline(always)]
    unsafe fn store_mask(self, at: *mut f32, mask: u16) {
        _mm256_maskstore_ps(at, lanes32(mask), self.0);
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(_mm256_fmadd_ps(self.0, factor.0, addend.0))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm256_add_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm256_mul_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max_or_other(self, other: Self) -> Self {
        Self(_mm256_max_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn min_or_other(self, other: Self) -> Self {
        Self(_mm256_min_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn total(self) -> f32 {
        let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
    #[inline(always)]
    unsafe fn leaky(self, alpha: Self) -> Self {
        let positive = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, _mm256_setzero_ps());
        Self(_mm256_blendv_ps(_mm256_mul_ps(self.0, alpha.0), self.0, positive))
    }
}

impl SimdMath for F32x8 {
    type Mask = __m256;
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(_mm256_sub_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(_mm256_div_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0))
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        let biased = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
        Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
    }
    #[inline(always)]
    unsafe fn exponent(self) -> Self {
        Self(_mm256_cvtepi32_ps(_mm256_srli_epi32::<23>(_mm256_castps_si256(self.0))))
    }
    #[inline(always)]
    unsafe fn and_bits(self, bits: u32) -> Self {
        Self(_mm256_and_ps(self.0, _mm256_set1_ps(f32::from_bits(bits))))
    }
    #[inline(always)]
    unsafe fn or_bits(self, bits: u32) -> Self {
        Self(_mm256_or_ps(self.0, _mm256_set1_ps(f32::from_bits(bits))))
    }
    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        Self(_mm256_or_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn less(self, other: Self) -> __m256 {
        _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0)
    }
    #[inline(always)]
    unsafe fn is_nan(self) -> __m256 {
        _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0)
    }
    #[inline(always)]
    unsafe fn select(mask: __m256, yes: Self, no: Self) -> Self {
        Self(_mm256_blendv_ps(no.0, yes.0, mask))
    }
}

impl SimdWindow for F32x8 {
    #[inline(always)]
    unsafe fn deinterleave(self, next: Self) -> (Self, Self) {
        // The 128-bit halves keep their order within a shuffle; the quarters are put right after it.
        let order = |x: __m256| {
            // SAFETY: the level's instructions, as for every method.
            unsafe { _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(x))) }
        };
        let (a, b) = (self.0, next.0);
        (Self(order(_mm256_shuffle_ps::<0b10_00_10_00>(a, b))), Self(order(_mm256_shuffle_ps::<0b11_01_11_01>(a, b))))
    }
    #[inline(always)]
    unsafe fn interleave(self, next: Self) -> (Self, Self) {
        let (low, high) = (_mm256_unpacklo_ps(self.0, next.0), _mm256_unpackhi_ps(self.0, next.0));
        (Self(_mm256_permute2f128_ps::<0x20>(low, high)), Self(_mm256_permute2f128_ps::<0x31>(low, high)))
    }
    #[inline(always)]
    unsafe fn splice(self, next: Self, first: usize) -> Self {
        // Upper half of `self` and lower half of `next`; shifts are within halves.
        let middle = _mm256_castps_si256(_mm256_permute2f128_ps::<0x21>(self.0, next.0));
        let (this, next) = (_mm256_castps_si256(self.0), _mm256_castps_si256(next.0));
        Self(_mm256_castsi256_ps(match first {
            0 => this,
            1 => _mm256_alignr_epi8::<4>(middle, this),
            2 => _mm256_alignr_epi8::<8>(middle, this),
            3 => _mm256_alignr_epi8::<12>(middle, this),
            4 => middle,
            5 => _mm256_alignr_epi8::<4>(next, middle),
            6 => _mm256_alignr_epi8::<8>(next, middle),
            _ => _mm256_alignr_epi8::<12>(next, middle),
        }))
    }
    #[inline(always)]
    unsafe fn load_mask_or(at: *const f32, mask: u16, other: Self) -> Self {
        let lanes = lanes32(mask);
        Self(_mm256_blendv_ps(other.0, _mm256_maskload_ps(at, lanes), _mm256_castsi256_ps(lanes)))
    }
    #[inline(always)]
    unsafe fn pick(self, next: Self, lanes: *const i32) -> Self {
        // Bit 3 of a number, the choice between the two, becomes the sign that a blend looks at.
        let lanes = _mm256_loadu_si256(lanes.cast());
        let (a, b) = (_mm256_permutevar8x32_ps(self.0, lanes), _mm256_permutevar8x32_ps(next.0, lanes));
        Self(_mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(lanes))))
    }
    #[inline(always)]
    unsafe fn blend(mask: u16, yes: Self, no: Self) -> Self {
        Self(_mm256_blendv_ps(no.0, yes.0, _mm256_castsi256_ps(lanes32(mask))))
    }
    #[inline(always)]
    unsafe fn all() -> __m256 {
        _mm256_castsi256_ps(_mm256_set1_epi32(-1))
    }
    #[inline(always)]
    unsafe fn is_number(self, mask: __m256) -> __m256 {
        _mm256_and_ps(mask, _mm256_cmp_ps::<_CMP_ORD_Q>(self.0, self.0))
    }
    #[inline(always)]
    unsafe fn wins(self, best: Self, mask: __m256) -> __m256 {
        _mm256_and_ps(mask, _mm256_cmp_ps::<_CMP_NLE_UQ>(self.0, best.0))
    }
    #[inline(always)]
    unsafe fn same_bits(self, other: Self) -> __m256 {
        _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_castps_si256(self.0), _mm256_castps_si256(other.0)))
    }
}

impl Simd for F64x4 {
    type Elem = f64;
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn splat(value: f64) -> Self {
        Self(_mm256_set1_pd(value))
    }
    #[inline(always)]
    unsafe fn load(at: *const f64) -> Self {
        Self(_mm256_loadu_pd(at))
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f64) {
        _mm256_storeu_pd(at, self.0);
    }
    #[inline(always)]
    unsafe fn load_mask(at: *const f64, mask: u16) -> Self {
        Self(_mm256_maskload_pd(at, lanes64(mask)))
    }
    #[inline(always)]
    unsafe fn store_mask(self, at: *mut f64, mask: u16) {
        _mm256_maskstore_pd(at, lanes64(mask), self.0);
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(_mm256_fmadd_pd(self.0, factor.0, addend.0))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm256_add_pd(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm256_mul_pd(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max_or_other(self, other: Self) -> Self {
        Self(_mm256_max_pd(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn min_or_other(self, other: Self) -> Self {
        Self(_mm256_min_pd(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn leaky(self, alpha: Self) -> Self {
        let positive = _mm256_cmp_pd::<_CMP_GT_OQ>(self.0, _mm256_setzero_pd());
        Self(_mm256_blendv_pd(_mm256_mul_pd(self.0, alpha.0), self.0, positive))
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn f32_rows<const R: usize, const V: usize>(call: &TileCall<f32>) {
    tile::<F32x8, R, V>(call);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn f32_in_place<const R: usize, const V: usize>(call: &TileCall<f32>) {
    tile_in_place::<F32x8, R, V>(call);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn f32_inner<const R: usize, const C: usize>(call: &TileCall<f32>) {
    inner::<F32x8, R, C, 2>(call);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn f64_inner<const R: usize, const C: usize>(call: &TileCall<f64>) {
    inner::<F64x4, R, C, 4>(call);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn f64_rows<const R: usize>(call: &TileCall<f64>) {
    tile::<F64x4, R, 2>(call);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn pack_f64(call: &PackCall<'_, f64>) {
    super::pack::pack(call);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn activate(code: u32, alpha: [f32; 2], data: *mut f32, len: usize) {
    math::activate::<F32x8>(code, alpha, data, len);
}

/// Single precision: 6 x 16 (12 accumulators of 16 registers), 6 x 8 for few columns; for few rows, whose columns are read
/// as they lie, 2 x 32 and 1 x 64.
pub(crate) static F32: Table<f32> = Table {
    name: "avx2-f32",
    terms: 1,
    shapes: &[
        Shape {
            inner: false,
            in_place: blocks!(f32_in_place, 2; 1 2 3 4 5 6),
            nr: 16,
            vectors: 2,
            rows: blocks!(f32_rows, 2; 1 2 3 4 5 6),
        },
        Shape {
            inner: false,
            in_place: blocks!(f32_in_place, 1; 1 2 3 4 5 6),
            nr: 8,
            vectors: 1,
            rows: blocks!(f32_rows, 1; 1 2 3 4 5 6),
        },
        Shape {
            inner: false,
            in_place: blocks!(f32_in_place, 4; 1 2),
            nr: 32,
            vectors: 4,
            rows: blocks!(f32_rows, 4; 1 2),
        },
        Shape { inner: false, in_place: &[f32_in_place::<1, 8>], nr: 64, vectors: 8, rows: &[f32_rows::<1, 8>] },
        Shape {
            inner: true,
            in_place: &[],
            nr: COLUMNS,
            vectors: 2,
            rows: &[f32_inner::<1, 4>, f32_inner::<2, 4>, f32_inner::<3, 2>, f32_inner::<4, 2>],
        },
    ],
    pack: super::pack_avx2::pack_f32,
    convert: convert_f32,
    activate,
    transpose,
};

/// Double precision: 6 x 8.
pub(crate) static F64: Table<f64> = Table {
    name: "avx2-f64",
    terms: 1,
    shapes: &[
        Shape { inner: false, in_place: &[], nr: 8, vectors: 2, rows: blocks!(f64_rows; 1 2 3 4 5 6) },
        Shape {
            inner: true,
            in_place: &[],
            nr: COLUMNS,
            vectors: 4,
            rows: &[f64_inner::<1, 4>, f64_inner::<2, 4>, f64_inner::<3, 2>, f64_inner::<4, 2>],
        },
    ],
    pack: pack_f64,
    convert: pack_f64,
    activate: math::activate_f64,
    transpose,
};

super::convert::converters!("avx2,fma");

super::half::halves!("avx2,fma");

math::strips!(F32x8, "avx2,fma");

super::window::window_table!("avx2", F32x8, 4, 2, "avx2,fma");
