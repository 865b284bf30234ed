//! The table of integer semantics, and conversions; five elements, so that lanes and single elements both run.

use super::*;

/// Every pair, four times in lanes and once alone, must give what the function of single numbers gives.
fn table<T: Element>(values: &[T], function: BinaryFn, want: impl Fn(T, T) -> T) {
    for a in values {
        for b in values {
            let got: Vec<T> = binary(&[(*a, *b); 5], |n, x| n.binary(function, x[0], x[1]));
            assert_eq!(got, [want(*a, *b); 5], "{function:?} {a:?} {b:?} of {}", T::DTYPE);
        }
    }
}

macro_rules! integer_table {
    ($name:ident, $ty:ty) => {
        #[test]
        fn $name() {
            const BITS: u32 = <$ty>::BITS;
            let values = [0, 1, 2, 7, <$ty>::MAX, <$ty>::MIN, (0 as $ty).wrapping_sub(1), (0 as $ty).wrapping_sub(7)];
            let all: $ty = !0;
            table::<$ty>(&values, BinaryFn::Add, |a, b| a.wrapping_add(b));
            table::<$ty>(&values, BinaryFn::Sub, |a, b| a.wrapping_sub(b));
            table::<$ty>(&values, BinaryFn::Mul, |a, b| a.wrapping_mul(b));
            table::<$ty>(&values, BinaryFn::Div, |a, b| if b == 0 { all } else { a.wrapping_div(b) });
            table::<$ty>(&values, BinaryFn::Rem, |a, b| if b == 0 { a } else { a.wrapping_rem(b) });
            table::<$ty>(&values, BinaryFn::Max, |a, b| a.max(b));
            table::<$ty>(&values, BinaryFn::Min, |a, b| a.min(b));
            table::<$ty>(&values, BinaryFn::Xor, |a, b| a ^ b);
            table::<$ty>(&values, BinaryFn::Shl, |a, b| a.wrapping_shl((b as u64 % u64::from(BITS)) as u32));
            table::<$ty>(&values, BinaryFn::Shr, |a, b| a.wrapping_shr((b as u64 % u64::from(BITS)) as u32));
            for value in values {
                let shifted: Vec<$ty> =
                    unary(&[value; 5], |n, x| n.binary(BinaryFn::Shr, x[0], n.literal(3i64, <$ty>::DTYPE)));
                assert_eq!(shifted, [value.wrapping_shr(3); 5]);
                let negated: Vec<$ty> = unary(&[value; 5], |n, x| n.unary(UnaryFn::Neg, x[0]));
                assert_eq!(negated, [value.wrapping_neg(); 5]);
                let less: Vec<u8> = binary(&[(value, 1); 5], |n, x| n.cast(n.compare(CompareFn::Lt, x[0], x[1]), U8));
                assert_eq!(less, [u8::from(value < 1); 5]);
            }
        }
    };
}

integer_table!(integers_i8, i8);
integer_table!(integers_u8, u8);
integer_table!(integers_i32, i32);
integer_table!(integers_u32, u32);
integer_table!(integers_i64, i64);

#[test]
fn signs_and_magnitudes() {
    let sign: Vec<i32> = unary(&[-5, 0, 7, i32::MIN, 1], |n, x| n.unary(UnaryFn::Sign, x[0]));
    assert_eq!(sign, [-1, 0, 1, -1, 1]);
    let sign: Vec<u8> = unary(&[0u8, 1, 255, 0, 200], |n, x| n.unary(UnaryFn::Sign, x[0]));
    assert_eq!(sign, [0, 1, 1, 0, 1]);
    let abs: Vec<i8> = unary(&[-5i8, 0, 7, i8::MIN, -128], |n, x| n.unary(UnaryFn::Abs, x[0]));
    assert_eq!(abs, [5, 0, 7, i8::MIN, i8::MIN]);
}

fn cast<A: Element, B: Element>(values: &[A]) -> Vec<B> {
    // Once all in lanes and single elements, once reversed: every value is in both.
    let mut doubled = values.to_vec();
    doubled.extend(values.iter().rev());
    doubled.push(values[0]);
    let got: Vec<B> = unary(&doubled, |n, x| n.cast(x[0], B::DTYPE));
    let (front, back) = got.split_at(values.len());
    let mut back = back[..values.len()].to_vec();
    back.reverse();
    assert_eq!(front, back, "{} to {}", A::DTYPE, B::DTYPE);
    front.to_vec()
}

macro_rules! casts {
    ($from:ty: $values:expr => $($to:ty),*) => {
        $({
            let want: Vec<$to> = $values.iter().map(|value: &$from| *value as $to).collect();
            assert_eq!(cast::<$from, $to>(&$values), want, "{} to {}", stringify!($from), stringify!($to));
        })*
    };
}

#[test]
fn conversions() {
    // Rust's `as` is the rule: float to integer truncates and saturates, NaN becomes 0, integers wrap.
    casts!(f32: [0.0f32, -1.9, 2.5, 1e10, -1e10, 1e20, -1e20, f32::NAN, f32::INFINITY, 300.0, -200.0, 4e9]
        => i8, u8, i32, u32, i64);
    casts!(f32: [0.0f32, -1.9, 1e-40, f32::MAX, f32::NEG_INFINITY] => f64);
    casts!(f64: [0.0f64, -1.9, 1e-40, 0.1, 1e300, f64::NEG_INFINITY, 1e-50] => f32);
    casts!(f64: [0.0f64, -1.9, 2.5, 1e10, -1e10, 1e20, -1e20, f64::NAN, f64::INFINITY, 300.0, 4e9] => i8, u8, i32, u32, i64);
    casts!(i32: [0i32, -1, 127, 128, -129, 255, 256, i32::MIN, i32::MAX, 16_777_217] => i8, u8, u32, i64, f32, f64);
    casts!(u32: [0u32, 1, 255, 256, u32::MAX, 0x8000_0000, 16_777_217] => i8, u8, i32, i64, f32, f64);
    casts!(i64: [0i64, -1, 255, 1 << 40, i64::MIN, i64::MAX, (1 << 53) + 1] => i8, u8, i32, u32, f32, f64);
    casts!(i8: [0i8, -1, 127, -128, 5] => u8, i32, u32, i64, f32, f64);
    casts!(u8: [0u8, 1, 127, 128, 255] => i8, i32, u32, i64, f32, f64);
}

#[test]
fn conversions_by_way_of_bool() {
    let truth = |n: &NestBuilder, x: &[Expr]| n.cast(n.cast(x[0], Bool), I32);
    assert_eq!(unary::<f32, i32>(&[0.0, -0.0, f32::NAN, 0.5, -3.0], truth), [0, 0, 1, 1, 1]);
    assert_eq!(unary::<i64, i32>(&[0, 1 << 40, -1, 0, 7], truth), [0, 1, 1, 0, 1]);
    assert_eq!(unary::<u8, i32>(&[0, 255, 1, 0, 7], truth), [0, 1, 1, 0, 1]);
    let real = |n: &NestBuilder, x: &[Expr]| n.cast(n.cast(x[0], Bool), F64);
    assert_eq!(unary::<i32, f64>(&[0, 2, 0, -1, 0], real), [0.0, 1.0, 0.0, 1.0, 0.0]);
}

#[test]
fn masks_are_stored_as_bytes_and_read_again() {
    let xs = [-1.0f32, 2.0, 0.0, f32::NAN, 3.0, -4.0];
    let nest = map(&[F32], Bool, xs.len(), |n, x| n.compare(CompareFn::Gt, x[0], n.literal(0.0, F32)));
    let mut mask = Bytes::zeros(xs.len());
    run(&nest, &mut [&mut Bytes::of(&xs), &mut mask]);
    assert_eq!(mask.get::<u8>(), [0, 1, 0, 0, 1, 0]);

    let nest =
        map(&[Bool, F32], F32, xs.len(), |n, x| n.select(n.unary(UnaryFn::Not, x[0]), n.literal(-9.0, F32), x[1]));
    let mut y = Bytes::zeros(xs.len() * 4);
    run(&nest, &mut [&mut mask, &mut Bytes::of(&xs), &mut y]);
    assert_eq!(y.get::<f32>(), [-9.0, 2.0, -9.0, -9.0, 3.0, -9.0]);
}

#[test]
fn literals_of_every_type() {
    let values = unary::<f32, i8>(&[0.0; 5], |n, _| n.literal(Number::Int(-3), I8));
    assert_eq!(values, [-3; 5]);
    let values = unary::<f32, i64>(&[0.0; 5], |n, _| n.literal(Number::Int(i64::MIN), I64));
    assert_eq!(values, [i64::MIN; 5]);
    let values = unary::<f32, f64>(&[0.0; 5], |n, _| n.literal(0.1, F64));
    assert_eq!(values, [0.1; 5]);
}
