//! Half types: every number of them, and every place where rounding changes its mind.

use super::*;

/// Bits of a `bf16`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bf16(u16);
/// Bits of an `f16`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct F16(u16);

macro_rules! halves {
    ($($ty:ident),*) => {
        $(impl Element for $ty {
            const DTYPE: DType = DType::$ty;
            fn to_bytes(self) -> [u8; 8] {
                self.0.to_bytes()
            }
            fn from_bytes(bytes: &[u8]) -> $ty {
                $ty(u16::from_bytes(bytes))
            }
        })*
    };
}

impl Element for u16 {
    const DTYPE: DType = DType::Bf16;
    fn to_bytes(self) -> [u8; 8] {
        u64::from(self).to_le_bytes()
    }
    fn from_bytes(bytes: &[u8]) -> u16 {
        u16::from_le_bytes(bytes.try_into().unwrap())
    }
}

halves!(Bf16, F16);

/// Sign, exponent and fraction as IEEE 754 defines them, with `fraction` bits and the bias that belongs to the rest.
fn number(bits: u16, fraction: u32) -> f64 {
    let exponents = 15 - fraction;
    let bias = (1 << (exponents - 1)) - 1;
    let exponent = i32::from(bits >> fraction & ((1 << exponents) - 1));
    let part = f64::from(bits & ((1 << fraction) - 1)) / f64::from(1 << fraction);
    let size = match exponent {
        0 => part * 2f64.powi(1 - bias),
        e if e == (1 << exponents) - 1 => {
            if part == 0.0 {
                f64::INFINITY
            } else {
                f64::NAN
            }
        }
        e => (1.0 + part) * 2f64.powi(e - bias),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// With 512 bits where the machine has them, and without.
fn both<A: Element, B: Element>(values: &[A]) -> [Vec<B>; 2] {
    let nest = map(&[A::DTYPE], B::DTYPE, values.len(), |n, x| n.cast(x[0], B::DTYPE));
    let codes = [compile(&nest).unwrap(), compile_narrow(&nest)];
    codes.map(|code| {
        let (mut x, mut y) = (Bytes::of(values), Bytes::zeros(values.len() * B::DTYPE.bytes()));
        let pointers = [x.raw().as_mut_ptr(), y.raw().as_mut_ptr()];
        // SAFETY: both buffers have the nest's elements.
        unsafe { code.invoke(0, &pointers, &[], 0..nest.tiles) }.unwrap();
        y.get()
    })
}

fn all_become_f32<T: Element>(make: fn(u16) -> T, fraction: u32) {
    let bits: Vec<u16> = (0..=u16::MAX).collect();
    let halves: Vec<T> = bits.iter().map(|&bits| make(bits)).collect();
    for got in both::<T, f32>(&halves) {
        for (&bits, got) in bits.iter().zip(got) {
            let want = number(bits, fraction);
            assert!(f64::from(got) == want || got.is_nan() && want.is_nan(), "{bits:#06x}: {got}, not {want}");
            assert_eq!(got.is_sign_negative(), bits >> 15 == 1, "{bits:#06x}");
        }
    }
}

#[test]
fn every_half_becomes_its_f32() {
    all_become_f32(Bf16, 7);
    all_become_f32(F16, 10);
}

/// Each number itself, the middle between it and the next, which goes to the even one, and the neighbours of the middle.
fn rounds<T: Element>(make: fn(u16) -> T, fraction: u32, infinity: u16) {
    let mut cases: Vec<(f32, u16)> = Vec::new();
    for bits in 0..infinity {
        // The successor of the largest number, as if exponents went on.
        let next = if bits + 1 == infinity {
            2.0 * number(bits, fraction) - number(bits - 1, fraction)
        } else {
            number(bits + 1, fraction)
        };
        let middle = ((number(bits, fraction) + next) / 2.0) as f32;
        cases.push((number(bits, fraction) as f32, bits));
        // Below the least `bf16` the middle is an f32 still.
        cases.push((middle, bits + (bits & 1)));
        cases.push((f32::from_bits(middle.to_bits() - 1), bits));
        cases.push((f32::from_bits(middle.to_bits() + 1), bits + 1));
    }
    cases.push((f32::INFINITY, infinity));
    cases.push((f32::MAX, infinity));
    let negative: Vec<(f32, u16)> = cases.iter().map(|(x, bits)| (-x, bits | 0x8000)).collect();
    cases.extend(negative);
    let values: Vec<f32> = cases.iter().map(|case| case.0).collect();
    for got in both::<f32, T>(&values) {
        for ((x, want), got) in cases.iter().zip(got) {
            assert_eq!(got, make(*want), "{x:e}");
        }
    }
    for got in both::<f32, T>(&[f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001)]) {
        let wide = both::<T, f32>(&got);
        assert!(wide.iter().flatten().all(|x| x.is_nan()), "{got:?}");
    }
}

#[test]
fn f32_rounds_to_the_nearest_half_ties_to_even() {
    rounds(Bf16, 7, 0x7f80);
    rounds(F16, 10, 0x7c00);
}

#[test]
fn halves_are_moved_with_their_bits() {
    let bits: Vec<Bf16> = (0..=u16::MAX).map(Bf16).collect();
    for got in both::<Bf16, Bf16>(&bits) {
        assert_eq!(got, bits);
    }
}
