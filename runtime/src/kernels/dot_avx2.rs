#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "intrinsics; every function here is reached only through a table whose instructions the processor has"
)]
//! Register blocks of 256 bit for integers. Bytes are two terms of the sum in a lane, as `i16`, which `vpmaddwd` multiplies
//! and adds exactly; with AVX-VNNI four, as in `dot_avx512.rs`.

use std::arch::x86_64::*;

use super::abi::{PackCall, Shape, Table, TileCall};
use super::convert::{I8Pair, Quad, U8Pair, pack_joined, pack_words_of};
use super::dot_avx512::{PAIRS, SIGNED, UNSIGNED, WORDS};
use super::math;
use super::pack_avx2;
use super::simd::Simd;
use super::spec::Element;
use super::store::transpose;
use super::tile::tile;

/// Sums of `i32`; operands are as `KIND` says.
#[derive(Clone, Copy)]
struct I32x8<const KIND: u8>(__m256i);

/// 128 in every byte.
#[inline(always)]
unsafe fn offset() -> __m256i {
    _mm256_set1_epi8(-128)
}

/// All bits of the lanes whose bit is set.
#[inline(always)]
unsafe fn lanes(mask: u16) -> __m256i {
    let bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(i32::from(mask)), bits), bits)
}

impl<const KIND: u8> Simd for I32x8<KIND> {
    type Elem = i32;
    const LANES: usize = 8;
    const CENTRED: bool = KIND == SIGNED;
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
        Self(match KIND {
            WORDS => _mm256_add_epi32(addend.0, _mm256_mullo_epi32(self.0, factor.0)),
            PAIRS => _mm256_add_epi32(addend.0, _mm256_madd_epi16(self.0, factor.0)),
            _ => _mm256_dpbusd_avx_epi32(addend.0, self.0, factor.0),
        })
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
    #[inline(always)]
    unsafe fn row(value: i32) -> Self {
        let row = Self::splat(value);
        if KIND == SIGNED { Self(_mm256_xor_si256(row.0, offset())) } else { row }
    }
    #[inline(always)]
    unsafe fn centre(self, columns: Self) -> Self {
        Self(_mm256_dpbusd_avx_epi32(self.0, offset(), columns.0))
    }
    #[inline(always)]
    unsafe fn less_centre(self, offsets: Self) -> Self {
        Self(_mm256_sub_epi32(self.0, offsets.0))
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn rows<const R: usize, const KIND: u8>(call: &TileCall<i32>) {
    tile::<I32x8<KIND>, R, 2>(call);
}

#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn vnni_rows<const R: usize, const KIND: u8>(call: &TileCall<i32>) {
    tile::<I32x8<KIND>, R, 2>(call);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn convert_quads(call: &PackCall<'_, i32>) {
    pack_joined::<Quad>(call);
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

/// A table of sums in `i32`.
macro_rules! integers {
    ($name:ident, $text:literal, $terms:literal, $convert:ident, $($rows:expr),*) => {
        pub(super) static $name: Table<i32> = Table {
            name: $text,
            terms: $terms,
            shapes: &[Shape { inner: false, in_place: &[], nr: 16, vectors: 2, rows: &[$($rows),*] }],
            pack: pack_words,
            convert: $convert,
            activate: math::activate_i32,
            transpose,
        };
    };
}

macro_rules! up_to_six {
    ($name:ident, $text:literal, $terms:literal, $convert:ident, $f:ident, $kind:ident) => {
        integers!(
            $name,
            $text,
            $terms,
            $convert,
            $f::<1, $kind>,
            $f::<2, $kind>,
            $f::<3, $kind>,
            $f::<4, $kind>,
            $f::<5, $kind>,
            $f::<6, $kind>
        );
    };
}
// 6 x 16 as in single precision; blocks of bytes with sign keep the offset and its sums in three more registers.
up_to_six!(I32_WORDS, "avx2-i32", 1, convert_words, rows, WORDS);
up_to_six!(I16_PAIRS, "avx2-i16", 2, convert_i16_pairs, rows, PAIRS);
up_to_six!(U8_QUADS, "avx2-u8", 4, convert_quads, vnni_rows, UNSIGNED);
integers!(
    I8_QUADS,
    "avx2-i8",
    4,
    convert_quads,
    vnni_rows::<1, SIGNED>,
    vnni_rows::<2, SIGNED>,
    vnni_rows::<3, SIGNED>,
    vnni_rows::<4, SIGNED>,
    vnni_rows::<5, SIGNED>
);
