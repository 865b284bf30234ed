#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "intrinsics; every function here is reached only through a table whose instructions the processor has"
)]
//! Register blocks of AVX-512 whose lanes hold several terms of the sum: pairs of `bf16` (AVX512_BF16), pairs of `i16`
//! (AVX-512BW), four bytes (AVX512_VNNI), or one `i32`.
//!
//! `vdpbf16ps` rounds to the nearest after each of its two products, takes denormal operands for 0 and gives 0 for denormal
//! results, whatever the modes of the thread. So a sum of `k` terms differs from the exact one by at most
//! `k 2^-24` of the sum of the terms' sizes, as with multiply-adds of `f32`, and by another `k 2^-126`.
//!
//! `vpdpbusd` multiplies bytes without sign by bytes with sign. Where rows have a sign too, 128 is added to their terms and
//! 128 times the sum of the columns' terms taken from the total. Sums of integers are exact modulo 2^32, in any order.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::abi::{PackCall, Shape, Table, TileCall, blocks};
use super::avx512::F32x16;
use super::convert::{Bf16Pair, I8Pair, Quad, RoundedPair, U8Pair, pack_joined, pack_joined_from, pack_words_of};
use super::pack_avx512;
use super::simd::Simd;
use super::spec::Element;
use super::store::transpose;
use super::tile::tile;

/// Sums of `f32`; operands are pairs of `bf16`.
#[derive(Clone, Copy)]
struct Bf16x32(F32x16);

/// The methods that are those of another register.
macro_rules! as_inner {
    ($inner:ty) => {
        type Elem = f32;
        const LANES: usize = <$inner>::LANES;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            Self(<$inner>::splat(value))
        }
        #[inline(always)]
        unsafe fn load(at: *const f32) -> Self {
            Self(<$inner>::load(at))
        }
        #[inline(always)]
        unsafe fn store(self, at: *mut f32) {
            self.0.store(at);
        }
        #[inline(always)]
        unsafe fn load_mask(at: *const f32, mask: u16) -> Self {
            Self(<$inner>::load_mask(at, mask))
        }
        #[inline(always)]
        unsafe fn store_mask(self, at: *mut f32, mask: u16) {
            self.0.store_mask(at, mask);
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(self.0.add(other.0))
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            Self(self.0.mul(other.0))
        }
        #[inline(always)]
        unsafe fn max_or_other(self, other: Self) -> Self {
            Self(self.0.max_or_other(other.0))
        }
        #[inline(always)]
        unsafe fn min_or_other(self, other: Self) -> Self {
            Self(self.0.min_or_other(other.0))
        }
        #[inline(always)]
        unsafe fn leaky(self, alpha: Self) -> Self {
            Self(self.0.leaky(alpha.0))
        }
    };
}

impl Simd for Bf16x32 {
    as_inner!(F32x16);

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        let (a, b) = (transmute::<__m512, __m512bh>(self.0.0), transmute::<__m512, __m512bh>(factor.0.0));
        Self(F32x16(_mm512_dpbf16_ps(addend.0.0, a, b)))
    }
}

/// What lanes of integers hold: one `i32`.
pub(super) const WORDS: u8 = 0;
/// Two `i16`.
pub(super) const PAIRS: u8 = 1;
/// Four bytes, those of the rows without sign.
pub(super) const UNSIGNED: u8 = 2;
/// Four bytes with sign.
pub(super) const SIGNED: u8 = 3;

/// Sums of `i32`; operands are as `KIND` says.
#[derive(Clone, Copy)]
struct I32x16<const KIND: u8>(__m512i);

impl<const KIND: u8> Simd for I32x16<KIND> {
    type Elem = i32;
    const LANES: usize = 16;
    const CENTRED: bool = KIND == SIGNED;
    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        Self(_mm512_set1_epi32(value))
    }
    #[inline(always)]
    unsafe fn load(at: *const i32) -> Self {
        Self(_mm512_loadu_epi32(at))
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut i32) {
        _mm512_storeu_epi32(at, self.0);
    }
    #[inline(always)]
    unsafe fn load_mask(at: *const i32, mask: u16) -> Self {
        Self(_mm512_maskz_loadu_epi32(mask, at))
    }
    #[inline(always)]
    unsafe fn store_mask(self, at: *mut i32, mask: u16) {
        _mm512_mask_storeu_epi32(at, mask, self.0);
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(match KIND {
            WORDS => _mm512_add_epi32(addend.0, _mm512_mullo_epi32(self.0, factor.0)),
            PAIRS => _mm512_add_epi32(addend.0, _mm512_madd_epi16(self.0, factor.0)),
            _ => _mm512_dpbusd_epi32(addend.0, self.0, factor.0),
        })
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm512_add_epi32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm512_mullo_epi32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max_or_other(self, other: Self) -> Self {
        Self(_mm512_max_epi32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn min_or_other(self, other: Self) -> Self {
        Self(_mm512_min_epi32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn leaky(self, alpha: Self) -> Self {
        let positive = _mm512_cmpgt_epi32_mask(self.0, _mm512_setzero_si512());
        Self(_mm512_mask_mov_epi32(_mm512_mullo_epi32(self.0, alpha.0), positive, self.0))
    }
    #[inline(always)]
    unsafe fn row(value: i32) -> Self {
        let row = Self::splat(value);
        if KIND == SIGNED { Self(_mm512_xor_si512(row.0, offset())) } else { row }
    }
    #[inline(always)]
    unsafe fn centre(self, columns: Self) -> Self {
        Self(_mm512_dpbusd_epi32(self.0, offset(), columns.0))
    }
    #[inline(always)]
    unsafe fn less_centre(self, offsets: Self) -> Self {
        Self(_mm512_sub_epi32(self.0, offsets.0))
    }
}

/// 128 in every byte: added to a byte with sign, or its sign bit changed, it gives one without.
#[inline(always)]
unsafe fn offset() -> __m512i {
    _mm512_set1_epi8(-128)
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma,avx512bf16")]
unsafe fn bf16_rows<const R: usize, const V: usize>(call: &TileCall<f32>) {
    tile::<Bf16x32, R, V>(call);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn word_rows<const R: usize>(call: &TileCall<i32>) {
    tile::<I32x16<WORDS>, R, 2>(call);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn pair_rows<const R: usize>(call: &TileCall<i32>) {
    tile::<I32x16<PAIRS>, R, 2>(call);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma,avx512vnni")]
unsafe fn unsigned_rows<const R: usize>(call: &TileCall<i32>) {
    tile::<I32x16<UNSIGNED>, R, 2>(call);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma,avx512vnni")]
unsafe fn signed_rows<const R: usize>(call: &TileCall<i32>) {
    tile::<I32x16<SIGNED>, R, 2>(call);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn convert_bf16_pairs(call: &PackCall<'_, f32>) {
    match call.operand.element {
        Element::F32 => pack_joined_from::<RoundedPair>(call, pack_avx512::pack_f32),
        _ => pack_joined::<Bf16Pair>(call),
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn convert_words(call: &PackCall<'_, i32>) {
    pack_words_of(call);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn convert_i16_pairs(call: &PackCall<'_, i32>) {
    match call.operand.element {
        Element::I8 => pack_joined::<I8Pair>(call),
        _ => pack_joined::<U8Pair>(call),
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn convert_quads(call: &PackCall<'_, i32>) {
    pack_joined::<Quad>(call);
}

/// Words of 32 bit, whatever they hold.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
unsafe fn pack_words(call: &PackCall<'_, i32>) {
    let &PackCall { operand, from, panel, valid, stride, k0, k1, to } = call;
    pack_avx512::pack_f32(&PackCall { operand, from: from.cast(), panel, valid, stride, k0, k1, to: to.cast() });
}

macro_rules! twelve {
    ($f:ident) => {
        &[$f::<1>, $f::<2>, $f::<3>, $f::<4>, $f::<5>, $f::<6>, $f::<7>, $f::<8>, $f::<9>, $f::<10>, $f::<11>, $f::<12>]
    };
}

/// 14 x 32 as in single precision, 14 x 16 for few columns.
pub(super) static BF16: Table<f32> = Table {
    name: "avx512-bf16",
    terms: 2,
    shapes: &[
        Shape {
            inner: false,
            in_place: &[],
            nr: 32,
            vectors: 2,
            rows: blocks!(bf16_rows, 2; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        },
        Shape {
            inner: false,
            in_place: &[],
            nr: 16,
            vectors: 1,
            rows: blocks!(bf16_rows, 1; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        },
    ],
    pack: pack_avx512::pack_f32,
    convert: convert_bf16_pairs,
    activate: super::avx512::activate,
    transpose: pack_avx512::transpose_block,
};

/// A table of sums in `i32`.
macro_rules! integers {
    ($name:ident, $text:literal, $terms:literal, $rows:ident, $convert:ident) => {
        pub(super) static $name: Table<i32> = Table {
            name: $text,
            terms: $terms,
            shapes: &[Shape { inner: false, in_place: &[], nr: 32, vectors: 2, rows: twelve!($rows) }],
            pack: pack_words,
            convert: $convert,
            activate: super::math::activate_i32,
            transpose,
        };
    };
}
// 12 x 32: blocks of bytes with sign take two more registers for the offset.
integers!(I32_WORDS, "avx512-i32", 1, word_rows, convert_words);
integers!(I16_PAIRS, "avx512-i16", 2, pair_rows, convert_i16_pairs);
integers!(U8_QUADS, "avx512-u8", 4, unsigned_rows, convert_quads);
integers!(I8_QUADS, "avx512-i8", 4, signed_rows, convert_quads);
