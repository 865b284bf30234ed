#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "intrinsics; every function here is reached only through a table whose instructions the processor has"
)]
//! Register blocks of AVX2 for integers. Bytes are two terms of the sum in a lane, as `i16`, which `vpmaddwd` multiplies and
//! adds exactly.

use std::arch::x86_64::*;

use super::abi::{PackCall, Shape, Table, TileCall};
use super::convert::{I8Pair, U8Pair, pack_joined, pack_words_of};
use super::math;
use super::pack_avx2;
use super::simd::Simd;
use super::spec::Element;
use super::tile::{tile, transpose};

/// Sums of `i32`; operands are pairs of `i16`, or words.
#[derive(Clone, Copy)]
struct I32x8<const PAIRS: bool>(__m256i);

/// All bits of the lanes whose bit is set.
#[inline(always)]
unsafe fn lanes(mask: u16) -> __m256i {
    let bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(i32::from(mask)), bits), bits)
}

impl<const PAIRS: bool> Simd for I32x8<PAIRS> {
    type Elem = i32;
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        Self(_mm256_set1_epi32(value))
    }
    #[inline(always)]
    unsafe fn load(at: *const i32) -> Self {
        Self(_mm256_loadu_si256(at.cast()))
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut i32) {
        _mm256_storeu_si256(at.cast(), self.0);
    }
    #[inline(always)]
    unsafe fn load_mask(at: *const i32, mask: u16) -> Self {
        Self(_mm256_maskload_epi32(at, lanes(mask)))
    }
    #[inline(always)]
    unsafe fn store_mask(self, at: *mut i32, mask: u16) {
        _mm256_maskstore_epi32(at, lanes(mask), self.0);
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        let products = if PAIRS { _mm256_madd_epi16(self.0, factor.0) } else { _mm256_mullo_epi32(self.0, factor.0) };
        Self(_mm256_add_epi32(addend.0, products))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm256_add_epi32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm256_mullo_epi32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max_or_other(self, other: Self) -> Self {
        Self(_mm256_max_epi32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn min_or_other(self, other: Self) -> Self {
        Self(_mm256_min_epi32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn leaky(self, alpha: Self) -> Self {
        let positive = _mm256_cmpgt_epi32(self.0, _mm256_setzero_si256());
        Self(_mm256_blendv_epi8(_mm256_mullo_epi32(self.0, alpha.0), self.0, positive))
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn rows<const R: usize, const PAIRS: bool>(call: &TileCall<i32>) {
    tile::<I32x8<PAIRS>, R, 2>(call);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn convert_words(call: &PackCall<'_, i32>) {
    pack_words_of(call);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn convert_i16_pairs(call: &PackCall<'_, i32>) {
    match call.operand.element {
        Element::I8 => pack_joined::<I8Pair>(call),
        _ => pack_joined::<U8Pair>(call),
    }
}

/// Words of 32 bit, whatever they hold.
#[target_feature(enable = "avx2,fma")]
unsafe fn pack_words(call: &PackCall<'_, i32>) {
    let &PackCall { operand, from, panel, valid, stride, k0, k1, to } = call;
    pack_avx2::pack_f32(&PackCall { operand, from: from.cast(), panel, valid, stride, k0, k1, to: to.cast() });
}

/// 6 x 16, as in single precision.
macro_rules! integers {
    ($name:ident, $text:literal, $terms:literal, $pairs:literal, $convert:ident) => {
        pub(super) static $name: Table<i32> = Table {
            name: $text,
            terms: $terms,
            shapes: &[Shape {
                nr: 16,
                vectors: 2,
                rows: &[
                    rows::<1, $pairs>,
                    rows::<2, $pairs>,
                    rows::<3, $pairs>,
                    rows::<4, $pairs>,
                    rows::<5, $pairs>,
                    rows::<6, $pairs>,
                ],
            }],
            pack: pack_words,
            convert: $convert,
            activate: math::activate_i32,
            transpose,
        };
    };
}
integers!(I32_WORDS, "avx2-i32", 1, false, convert_words);
integers!(I16_PAIRS, "avx2-i16", 2, true, convert_i16_pairs);
