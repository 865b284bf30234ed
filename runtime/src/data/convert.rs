//! Conversion between element types, by value.

use kiln_ir::DType;

use crate::tensor::Tensor;

/// Where a value has no counterpart in the wanted type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotRepresentable {
    /// Linear position of the element.
    pub position: usize,
    /// Its value.
    pub value: f64,
}

/// One element as the nearest `f64`; `None` if `bytes` is not one element.
pub fn decode(dtype: DType, bytes: &[u8]) -> Option<f64> {
    Some(match dtype {
        DType::F32 => f32::from_ne_bytes(bytes.try_into().ok()?).into(),
        DType::F64 => f64::from_ne_bytes(bytes.try_into().ok()?),
        DType::Bf16 => f32::from_bits(u32::from(u16::from_ne_bytes(bytes.try_into().ok()?)) << 16).into(),
        DType::F16 => half_to_f64(u16::from_ne_bytes(bytes.try_into().ok()?)),
        DType::I8 => i8::from_ne_bytes(bytes.try_into().ok()?).into(),
        DType::U8 | DType::Bool => u8::from_ne_bytes(bytes.try_into().ok()?).into(),
        DType::I32 => i32::from_ne_bytes(bytes.try_into().ok()?).into(),
        DType::U32 => u32::from_ne_bytes(bytes.try_into().ok()?).into(),
        DType::I64 => i64::from_ne_bytes(bytes.try_into().ok()?) as f64,
    })
}

/// One integer or boolean element, exactly; `None` for a float type or if `bytes` is not one element.
pub fn decode_integer(dtype: DType, bytes: &[u8]) -> Option<i64> {
    match dtype {
        DType::I64 => Some(i64::from_ne_bytes(bytes.try_into().ok()?)),
        dtype if dtype.is_float() => None,
        dtype => decode(dtype, bytes).map(|value| value as i64),
    }
}

/// IEEE binary16 to `f64`, exact.
fn half_to_f64(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10) & 31, f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2.0_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1024.0 + fraction) * 2.0_f64.powi(exponent - 25),
    }
}

/// `f32` to IEEE binary16, to nearest, ties to even.
fn f32_to_half(value: f32) -> u16 {
    let sign = ((value.to_bits() >> 16) & 0x8000) as u16;
    let magnitude = f64::from(value.abs());
    if value.is_nan() {
        return sign | 0x7e00;
    }
    if magnitude < 2.0_f64.powi(-14) {
        return sign | (magnitude * 2.0_f64.powi(24)).round_ties_even() as u16;
    }
    if magnitude >= 65520.0 {
        return sign | 0x7c00;
    }
    let exponent = (value.to_bits() >> 23 & 0xff) as i32 - 127;
    let fraction = (magnitude * 2.0_f64.powi(10 - exponent)).round_ties_even() as u16;
    // A fraction of 2048 carries into the exponent, which is what rounding up to the next power of two means.
    sign | ((((exponent + 14) as u16) << 10) + fraction)
}

/// `f32` to the upper half of its bits, to nearest, ties to even.
fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Stores a number as an element of `out`'s length: the nearest float, or truncated for other types.
pub fn encode_float(dtype: DType, value: f64, out: &mut [u8]) {
    match dtype {
        DType::F32 => out.copy_from_slice(&(value as f32).to_ne_bytes()),
        DType::F64 => out.copy_from_slice(&value.to_ne_bytes()),
        DType::Bf16 => out.copy_from_slice(&f32_to_bf16(value as f32).to_ne_bytes()),
        DType::F16 => out.copy_from_slice(&f32_to_half(value as f32).to_ne_bytes()),
        _ => encode_integer(dtype, value as i64, out),
    }
}

/// Stores an integer as an element of `out`'s length: wrapped, `!= 0` for bool, or the nearest float.
pub fn encode_integer(dtype: DType, value: i64, out: &mut [u8]) {
    match dtype {
        DType::I8 | DType::U8 => out.copy_from_slice(&(value as u8).to_ne_bytes()),
        DType::Bool => out.copy_from_slice(&[u8::from(value != 0)]),
        DType::I32 | DType::U32 => out.copy_from_slice(&(value as u32).to_ne_bytes()),
        DType::I64 => out.copy_from_slice(&value.to_ne_bytes()),
        _ => encode_float(dtype, value as f64, out),
    }
}

/// Whether `value` is a value of the integer type or bool.
fn integer_fits(dtype: DType, value: i64) -> bool {
    match dtype {
        DType::I8 => i8::try_from(value).is_ok(),
        DType::U8 => u8::try_from(value).is_ok(),
        DType::I32 => i32::try_from(value).is_ok(),
        DType::U32 => u32::try_from(value).is_ok(),
        DType::Bool => value == 0 || value == 1,
        _ => true,
    }
}

/// Checks that every element of `tensor` has a counterpart in `to`: any number becomes the nearest float, integers
/// must be in range, floats that become integers must be whole.
///
/// # Errors
/// [`NotRepresentable`] for the first element that does not.
pub fn check(tensor: &Tensor, to: DType) -> Result<(), NotRepresentable> {
    let from = tensor.dtype();
    if from == to || to.is_float() {
        return Ok(());
    }
    for (position, bytes) in tensor.bytes().chunks_exact(from.bytes()).enumerate() {
        let value = decode(from, bytes).unwrap_or(f64::NAN);
        let whole = value.fract() == 0.0 && value.abs() < 9.2e18;
        let integer = decode_integer(from, bytes).or_else(|| whole.then_some(value as i64));
        if !integer.is_some_and(|integer| integer_fits(to, integer)) {
            return Err(NotRepresentable { position, value });
        }
    }
    Ok(())
}

/// Converts elements in memory order. Values that [`check`] refuses are wrapped or truncated.
pub fn convert(from: DType, source: &[u8], to: DType, target: &mut [u8]) {
    if from == to {
        target.copy_from_slice(source);
        return;
    }
    let pairs = source.chunks_exact(from.bytes()).zip(target.chunks_exact_mut(to.bytes()));
    match (from, to) {
        // Images: the pair that a fit loop converts in every step.
        (DType::U8, DType::F32) => {
            for (&byte, out) in source.iter().zip(target.chunks_exact_mut(4)) {
                out.copy_from_slice(&f32::from(byte).to_ne_bytes());
            }
        }
        (from, to) if from.is_float() || to.is_float() => {
            pairs.for_each(|(bytes, out)| encode_float(to, decode(from, bytes).unwrap_or(f64::NAN), out));
        }
        (from, to) => {
            pairs.for_each(|(bytes, out)| encode_integer(to, decode_integer(from, bytes).unwrap_or(0), out));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;
    use kiln_ir::TensorType;

    #[test]
    fn halves_have_known_bits() {
        // IEEE 754-2008, binary16: one, largest, smallest normal, smallest subnormal, third, infinity.
        let pairs = [
            (1.0_f32, 0x3c00),
            (65504.0, 0x7bff),
            (6.103_515_6e-5, 0x0400),
            (5.960_464_5e-8, 0x0001),
            (0.333_251_95, 0x3555),
            (f32::INFINITY, 0x7c00),
            (-2.0, 0xc000),
        ];
        for (value, bits) in pairs {
            assert_eq!(f32_to_half(value), bits, "{value}");
            assert_eq!(half_to_f64(bits) as f32, value);
        }
        // 2049 lies between 2048 and 2050: ties go to the even fraction; 65520 rounds to infinity.
        assert_eq!(half_to_f64(f32_to_half(2049.0)), 2048.0);
        assert_eq!(half_to_f64(f32_to_half(2051.0)), 2052.0);
        assert_eq!(f32_to_half(65520.0), 0x7c00);
        assert!(half_to_f64(f32_to_half(f32::NAN)).is_nan());
    }

    #[test]
    fn every_half_survives_the_round_trip() {
        for bits in 0..=u16::MAX {
            let value = half_to_f64(bits);
            if !value.is_nan() {
                assert_eq!(f32_to_half(value as f32), bits);
            }
        }
    }

    #[test]
    fn bf16_rounds_to_even() {
        assert_eq!(f32_to_bf16(1.0), 0x3f80);
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f81_8000)), 0x3f82);
    }

    #[test]
    fn images_become_floats_by_value() {
        let mut out = [0; 8];
        convert(DType::U8, &[0, 255], DType::F32, &mut out);
        assert_eq!(out, [0.0_f32.to_ne_bytes(), 255.0_f32.to_ne_bytes()].concat()[..]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let labels = Tensor::from_vec([3], vec![1_i64, 300, -1]).unwrap();
        assert_eq!(check(&labels, DType::U8), Err(NotRepresentable { position: 1, value: 300.0 }));
        assert_eq!(check(&labels, DType::I32), Ok(()));
        assert_eq!(check(&labels, DType::F32), Ok(()));
        let halves = Tensor::from_vec([2], vec![2.0_f64, 2.5]).unwrap();
        assert_eq!(check(&halves, DType::I64), Err(NotRepresentable { position: 1, value: 2.5 }));
    }

    #[test]
    fn large_integers_stay_exact() {
        let value = (1_i64 << 53) + 1;
        let mut out = [0; 8];
        convert(DType::I64, &value.to_ne_bytes(), DType::I64, &mut out);
        assert_eq!(decode_integer(DType::I64, &out), Some(value));
        let tensor = Tensor::zeros(TensorType::new(DType::Bool, [1])).unwrap();
        assert_eq!(check(&tensor, DType::I8), Ok(()));
    }
}
