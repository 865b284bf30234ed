//! Inputs for the suites, the same for every run.

use kiln_ir::module::stream;
use kiln_ir::reference::Array;
use kiln_ir::scalar::Number;
use kiln_ir::types::{DType, TensorType};
use kiln_rt::data::convert;

/// Where the numbers of an input come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Draw {
    /// Floats in -2..2 of 24 bits, so that sums and products round; integers in -4..4, or in what `below` allows.
    Signed,
    /// Floats in 0.25..2, integers 1 to 3.
    Positive,
    /// Floats in -0.9..0.9, in which no power or sum of exponentials gets large; integers in -4..4.
    Small,
    /// NaN, infinities, zeros of both signs, the ends of the ranges.
    Special,
    /// These, over and over.
    List(Vec<Number>),
}

const SPECIAL_FLOATS: [f64; 20] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    1e-40,
    3.0e38,
    -3.0e38,
    -0.5,
    0.5,
    1.5,
    2.5,
    -2.5,
    88.0,
    -104.0,
    1e-20,
    16_777_217.0,
    -7.3,
];

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator of its own for each seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % (bound.max(1) as u64)) as usize
    }

    /// One of several.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// The array of a type; `key` names the input, so that inputs of one graph differ.
///
/// # Panics
/// If a list of numbers is empty.
pub fn draw(ty: &TensorType, draw: &Draw, below: Option<u64>, key: &str, seed: u64) -> Array {
    let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream(key));
    let number = |position| {
        Some(match draw {
            Draw::List(list) => list[position % list.len()],
            _ if ty.dtype.is_float() => Number::Float(float(ty.dtype, draw, &mut random)),
            _ => Number::Int(integer(ty.dtype, draw, below, &mut random)),
        })
    };
    Array::from_numbers(ty.clone(), number).unwrap_or_else(|| panic!("no numbers for {ty}"))
}

fn float(dtype: DType, draw: &Draw, random: &mut Random) -> f64 {
    let unit = (random.bits() >> 40) as f64 / f64::from(1 << 24);
    let number = match draw {
        Draw::Positive => 0.25 + 1.75 * unit,
        Draw::Small => 1.8 * unit - 0.9,
        Draw::Special => *random.pick(&SPECIAL_FLOATS),
        Draw::Signed | Draw::List(_) => 4.0 * unit - 2.0,
    };
    // What the type cannot hold would be an error of the input in binary64.
    match dtype {
        DType::F32 => f64::from(number as f32),
        DType::Bf16 | DType::F16 => {
            let mut bytes = [0; 2];
            convert::encode_float(dtype, number, &mut bytes);
            convert::decode(dtype, &bytes).unwrap_or(f64::NAN)
        }
        _ => number,
    }
}

fn integer(dtype: DType, draw: &Draw, below: Option<u64>, random: &mut Random) -> i64 {
    let (low, high) = range(dtype);
    match (draw, below) {
        _ if dtype == DType::Bool => random.below(2) as i64,
        (_, Some(below)) => random.below(below as usize) as i64,
        (Draw::Positive, None) => 1 + random.below(3) as i64,
        (Draw::Special, None) => {
            *random.pick(&[low, high, low + 1, high - 1, 0, 1, 2, 7, (-1).max(low), (-3).max(low), 40, 31])
        }
        _ => (random.below(9) as i64 - 4).max(low),
    }
}

fn range(dtype: DType) -> (i64, i64) {
    match dtype {
        DType::I8 => (i8::MIN.into(), i8::MAX.into()),
        DType::U8 => (0, u8::MAX.into()),
        DType::I32 => (i32::MIN.into(), i32::MAX.into()),
        DType::U32 => (0, u32::MAX.into()),
        _ => (i64::MIN, i64::MAX),
    }
}
