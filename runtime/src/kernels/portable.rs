#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "implements the unsafe trait methods of `simd.rs`; pointers are the caller's promise there"
)]
//! The level every processor has: arrays that LLVM turns into the baseline's vectors.

use super::abi::{PackCall, Shape, Table, TileCall};
use super::convert::pack_words_of;
use super::inner::{COLUMNS, inner};
use super::math;
use super::pack;
use super::simd::{Real, Simd, SimdMath, SimdWindow};
use super::store::transpose;
use super::tile::tile;

/// Eight lanes as an array.
#[derive(Clone, Copy)]
pub(crate) struct Array<T>([T; 8]);

impl<T: Real> Array<T> {
    #[inline(always)]
    fn map2(self, other: Self, f: impl Fn(T, T) -> T) -> Self {
        let mut out = self.0;
        for (x, y) in out.iter_mut().zip(other.0) {
            *x = f(*x, y);
        }
        Self(out)
    }
}

impl<T: Real> Simd for Array<T> {
    type Elem = T;
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn splat(value: T) -> Self {
        Self([value; 8])
    }
    #[inline(always)]
    unsafe fn load(at: *const T) -> Self {
        Self(at.cast::<[T; 8]>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut T) {
        at.cast::<[T; 8]>().write_unaligned(self.0);
    }
    #[inline(always)]
    unsafe fn load_mask(at: *const T, mask: u16) -> Self {
        let mut out = [T::ZERO; 8];
        for (lane, x) in out.iter_mut().enumerate() {
            if mask >> lane & 1 == 1 {
                *x = *at.wrapping_add(lane);
            }
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn store_mask(self, at: *mut T, mask: u16) {
        for (lane, x) in self.0.into_iter().enumerate() {
            if mask >> lane & 1 == 1 {
                *at.wrapping_add(lane) = x;
            }
        }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        let mut out = addend.0;
        for (lane, x) in out.iter_mut().enumerate() {
            *x = (*x).add(self.0[lane].mul(factor.0[lane]));
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.map2(other, T::add)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.map2(other, T::mul)
    }
    #[inline(always)]
    unsafe fn max_or_other(self, other: Self) -> Self {
        self.map2(other, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    unsafe fn min_or_other(self, other: Self) -> Self {
        self.map2(other, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    unsafe fn leaky(self, alpha: Self) -> Self {
        self.map2(alpha, |x, slope| if x > T::ZERO { x } else { x.mul(slope) })
    }
}

impl SimdMath for Array<f32> {
    type Mask = [bool; 8];
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.map2(other, |x, y| x - y)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.map2(other, |x, y| x / y)
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // Adding 1.5 * 2^23 leaves no fraction bits; good for |x| < 2^22, which the callers clamp to.
        const MAGIC: f32 = 12_582_912.0;
        self.map2(self, |x, _| (x + MAGIC) - MAGIC)
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // 2^23 + 127 + n: the low mantissa bits are the biased exponent.
        self.map2(self, |x, _| f32::from_bits((x + 8_388_735.0).to_bits() << 23))
    }
    #[inline(always)]
    unsafe fn exponent(self) -> Self {
        self.map2(self, |x, _| (x.to_bits() >> 23) as i32 as f32)
    }
    #[inline(always)]
    unsafe fn and_bits(self, bits: u32) -> Self {
        self.map2(self, |x, _| f32::from_bits(x.to_bits() & bits))
    }
    #[inline(always)]
    unsafe fn or_bits(self, bits: u32) -> Self {
        self.map2(self, |x, _| f32::from_bits(x.to_bits() | bits))
    }
    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        self.map2(other, |x, y| f32::from_bits(x.to_bits() | y.to_bits()))
    }
    #[inline(always)]
    unsafe fn less(self, other: Self) -> [bool; 8] {
        std::array::from_fn(|i| self.0[i] < other.0[i])
    }
    #[inline(always)]
    unsafe fn is_nan(self) -> [bool; 8] {
        self.0.map(f32::is_nan)
    }
    #[inline(always)]
    unsafe fn select(mask: [bool; 8], yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|i| if mask[i] { yes.0[i] } else { no.0[i] }))
    }
}

impl SimdWindow for Array<f32> {
    #[inline(always)]
    unsafe fn deinterleave(self, next: Self) -> (Self, Self) {
        let at = |i: usize| if i < 8 { self.0[i] } else { next.0[i - 8] };
        (Self(std::array::from_fn(|i| at(2 * i))), Self(std::array::from_fn(|i| at(2 * i + 1))))
    }
    #[inline(always)]
    unsafe fn interleave(self, next: Self) -> (Self, Self) {
        let at = |i: usize| if i.is_multiple_of(2) { self.0[i / 2] } else { next.0[i / 2] };
        (Self(std::array::from_fn(at)), Self(std::array::from_fn(|i| at(8 + i))))
    }
    #[inline(always)]
    unsafe fn splice(self, next: Self, first: usize) -> Self {
        Self(std::array::from_fn(|i| if i + first < 8 { self.0[i + first] } else { next.0[i + first - 8] }))
    }
    #[inline(always)]
    unsafe fn load_mask_or(at: *const f32, mask: u16, other: Self) -> Self {
        let mut out = other.0;
        for (lane, x) in out.iter_mut().enumerate() {
            if mask >> lane & 1 == 1 {
                *x = *at.wrapping_add(lane);
            }
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn pick(self, next: Self, lanes: *const i32) -> Self {
        let at = |i: usize| if i < 8 { self.0[i] } else { next.0[i - 8] };
        Self(std::array::from_fn(|i| at(*lanes.add(i) as usize)))
    }
    #[inline(always)]
    unsafe fn blend(mask: u16, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|i| if mask >> i & 1 == 1 { yes.0[i] } else { no.0[i] }))
    }
    #[inline(always)]
    unsafe fn all() -> [bool; 8] {
        [true; 8]
    }
    #[inline(always)]
    unsafe fn is_number(self, mask: [bool; 8]) -> [bool; 8] {
        std::array::from_fn(|i| mask[i] && !self.0[i].is_nan())
    }
    #[inline(always)]
    unsafe fn wins(self, best: Self, mask: [bool; 8]) -> [bool; 8] {
        std::array::from_fn(|i| mask[i] && (self.0[i] > best.0[i] || self.0[i].is_nan() || best.0[i].is_nan()))
    }
    #[inline(always)]
    unsafe fn same_bits(self, other: Self) -> [bool; 8] {
        std::array::from_fn(|i| self.0[i].to_bits() == other.0[i].to_bits())
    }
}

unsafe fn rows<T: Real, const R: usize>(call: &TileCall<T>) {
    tile::<Array<T>, R, 1>(call);
}

unsafe fn inner_rows<T: Real, const R: usize>(call: &TileCall<T>) {
    inner::<Array<T>, R, 2, 2>(call);
}

unsafe fn pack_panel<T: Real>(call: &PackCall<'_, T>) {
    pack::pack(call);
}

unsafe fn activate(code: u32, alpha: [f32; 2], data: *mut f32, len: usize) {
    math::activate::<Array<f32>>(code, alpha, data, len);
}

/// Single precision: 4 x 8 fills the sixteen 128-bit registers of the x86-64 baseline.
pub(crate) static F32: Table<f32> = Table {
    name: "portable-f32",
    terms: 1,
    shapes: &[
        Shape {
            inner: false,
            in_place: &[],
            nr: 8,
            vectors: 1,
            rows: &[rows::<f32, 1>, rows::<f32, 2>, rows::<f32, 3>, rows::<f32, 4>],
        },
        Shape {
            inner: true,
            in_place: &[],
            nr: COLUMNS,
            vectors: 2,
            rows: &[inner_rows::<f32, 1>, inner_rows::<f32, 2>],
        },
    ],
    pack: pack_panel::<f32>,
    convert: convert_f32,
    activate,
    transpose,
};

/// Double precision.
pub(crate) static F64: Table<f64> = Table {
    name: "portable-f64",
    terms: 1,
    shapes: &[
        Shape { inner: false, in_place: &[], nr: 8, vectors: 1, rows: &[rows::<f64, 1>, rows::<f64, 2>] },
        Shape {
            inner: true,
            in_place: &[],
            nr: COLUMNS,
            vectors: 2,
            rows: &[inner_rows::<f64, 1>, inner_rows::<f64, 2>],
        },
    ],
    pack: pack_panel::<f64>,
    convert: pack_panel::<f64>,
    activate: math::activate_f64,
    transpose,
};

unsafe fn convert_i32(call: &PackCall<'_, i32>) {
    pack_words_of(call);
}

/// Sums of words, or of bytes as words: exact, as at every level.
pub(crate) static I32: Table<i32> = Table {
    name: "portable-i32",
    terms: 1,
    shapes: &[Shape {
        inner: false,
        in_place: &[],
        nr: 8,
        vectors: 1,
        rows: &[rows::<i32, 1>, rows::<i32, 2>, rows::<i32, 3>, rows::<i32, 4>],
    }],
    pack: pack_panel::<i32>,
    convert: convert_i32,
    activate: math::activate_i32,
    transpose,
};

super::convert::converters!();

super::half::halves!();

math::strips!(Array<f32>);

super::window::window_table!("portable", Array<f32>, 2, 2);
