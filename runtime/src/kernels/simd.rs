#![allow(unsafe_code, reason = "declares the unsafe vector operations; implementations state theirs")]
//! The vector operations micro-kernels and strip functions are written in, once for every instruction set.
//!
//! Every method is `unsafe` for one reason: the processor must have the instructions of the implementing type, and
//! pointers must be good for the lanes touched. `#[inline(always)]` lets each body end up inside a
//! `#[target_feature]` function, where it becomes single instructions.

use super::abi::GROUP;

/// What packing moves.
pub(crate) trait Lane: Copy {
    const ZERO: Self;
}

macro_rules! lane {
    ($($t:ty: $zero:literal),*) => {
        $(impl Lane for $t {
            const ZERO: Self = $zero;
        })*
    };
}
lane!(f32: 0.0, f64: 0.0, i32: 0, u16: 0, u8: 0);

/// An element of the accumulators: `f32`, `f64` or `i32`.
pub(crate) trait Real: Lane + PartialOrd + Send + Sync + 'static {
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn from_f64(value: f64) -> Self;
}

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self * other
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $t
            }
        }
    };
}
real!(f32);
real!(f64);

/// Integers wrap.
impl Real for i32 {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.wrapping_mul(other)
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as i32
    }
}

macro_rules! prefetch {
    ($(#[$doc:meta])* $name:ident, $hint:ident) => {
        $(#[$doc])*
        ///
        /// Any address will do: a prefetch never faults.
        #[inline(always)]
        pub(crate) fn $name<T>(at: *const T) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the instruction is part of every x86-64 processor and reads nothing that the program sees.
            unsafe {
                use std::arch::x86_64::{$hint, _mm_prefetch};
                _mm_prefetch::<$hint>(at.cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = at;
        }
    };
}
prefetch! {
    /// Asks for the line of `at` in the second-level cache.
    prefetch, _MM_HINT_T1
}
prefetch! {
    /// Asks for the line of `at` in the first-level cache.
    prefetch_near, _MM_HINT_T0
}
prefetch! {
    /// Asks for the line of `at` in the first-level cache, to be written.
    prefetch_write, _MM_HINT_ET0
}

/// One vector register.
///
/// A lane of the operands may hold several terms of the sum, packed into the bits of an element: `mul_add` then adds
/// their products.
pub(crate) trait Simd: Copy {
    type Elem: Real;
    const LANES: usize;
    unsafe fn splat(value: Self::Elem) -> Self;
    unsafe fn load(at: *const Self::Elem) -> Self;
    unsafe fn store(self, at: *mut Self::Elem);
    /// Lanes whose bit in `mask` is clear are zero and their memory is not read.
    unsafe fn load_mask(at: *const Self::Elem, mask: u16) -> Self;
    /// Lanes whose bit in `mask` is clear keep their memory.
    unsafe fn store_mask(self, at: *mut Self::Elem, mask: u16);
    /// `self * factor + addend`, fused where the instruction set can.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self > other ? self : other`: the second operand wins when either is NaN.
    unsafe fn max_or_other(self, other: Self) -> Self;
    /// `self < other ? self : other`: the second operand wins when either is NaN.
    unsafe fn min_or_other(self, other: Self) -> Self;
    /// `self > 0 ? self : alpha * self`.
    unsafe fn leaky(self, alpha: Self) -> Self;
    /// The sum of all lanes, added in halves.
    #[inline(always)]
    unsafe fn total(self) -> Self::Elem {
        let mut lanes = [Self::Elem::ZERO; GROUP];
        // SAFETY: no register has more lanes than a group; the instructions are the caller's promise.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut half = Self::LANES / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] = lanes[lane].add(lanes[lane + half]);
            }
            half /= 2;
        }
        lanes[0]
    }
    /// An element of the rows in every lane.
    #[inline(always)]
    unsafe fn row(value: Self::Elem) -> Self {
        // SAFETY: the caller's promise is the callee's.
        unsafe { Self::splat(value) }
    }
    /// Whether `row` adds an offset to the terms, which `centre` accounts for.
    const CENTRED: bool = false;
    /// `self + ` what the offset adds to a sum for these columns.
    #[inline(always)]
    unsafe fn centre(self, _columns: Self) -> Self {
        self
    }
    /// `self - offsets`.
    #[inline(always)]
    unsafe fn less_centre(self, _offsets: Self) -> Self {
        self
    }
}

/// What the approximations of `math.rs` need beyond [`Simd`].
pub(crate) trait SimdMath: Simd<Elem = f32> {
    type Mask: Copy;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// Nearest integer, ties to even.
    unsafe fn round(self) -> Self;
    /// `2^self` for integral lanes in -126..=127.
    unsafe fn power_of_two(self) -> Self;
    /// `self * 2^n` for normal lanes and integral `n` in -151..=129, rounded once.
    #[inline(always)]
    unsafe fn scale(self, n: Self) -> Self {
        // Two steps, because 2^n itself leaves the range where the result is subnormal or just finite; the first is exact.
        // SAFETY: the caller's promise is the callee's.
        unsafe {
            let half = n.mul(Self::splat(0.5)).round();
            self.mul(half.power_of_two()).mul(n.sub(half).power_of_two())
        }
    }
    /// Biased exponent field as a number, 0..=255 (the sign bit must be clear).
    unsafe fn exponent(self) -> Self;
    unsafe fn and_bits(self, bits: u32) -> Self;
    unsafe fn or_bits(self, bits: u32) -> Self;
    /// Bitwise or of two registers.
    unsafe fn or(self, other: Self) -> Self;
    /// False where either is NaN.
    unsafe fn less(self, other: Self) -> Self::Mask;
    unsafe fn is_nan(self) -> Self::Mask;
    unsafe fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
}

/// What windows over planes need beyond [`SimdMath`].
pub(crate) trait SimdWindow: SimdMath {
    /// Elements 0, 2, 4, ... and elements 1, 3, 5, ... of `self` followed by `next`.
    unsafe fn deinterleave(self, next: Self) -> (Self, Self);
    /// The two registers whose elements alternate between `self` and `next`: the inverse of `deinterleave`.
    unsafe fn interleave(self, next: Self) -> (Self, Self);
    /// Lanes from `first` on, a constant below `LANES`, of `self` followed by `next`.
    unsafe fn splice(self, next: Self, first: usize) -> Self;
    /// As `load_mask`, but lanes whose bit is clear are those of `other`.
    unsafe fn load_mask_or(at: *const f32, mask: u16, other: Self) -> Self;
    /// Lane `i` is element `lanes[i]`, below `2 * LANES`, of `self` followed by `next`; `lanes` points to `LANES` numbers.
    unsafe fn pick(self, next: Self, lanes: *const i32) -> Self;
    /// Lanes of `yes` whose bit in `mask` is set, the others of `no`.
    unsafe fn blend(mask: u16, yes: Self, no: Self) -> Self;
    /// Every lane.
    unsafe fn all() -> Self::Mask;
    /// Where `mask` holds and `self` is a number.
    unsafe fn is_number(self, mask: Self::Mask) -> Self::Mask;
    /// Where `mask` holds and `self` is larger than `best` or one of them is NaN.
    unsafe fn wins(self, best: Self, mask: Self::Mask) -> Self::Mask;
    /// Where the bits are equal.
    unsafe fn same_bits(self, other: Self) -> Self::Mask;
}
