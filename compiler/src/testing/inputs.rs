//! Random inputs and states, the same for every run.

use kiln_ir::module::{Role, stream};
use kiln_ir::reference::Array;
use kiln_ir::scalar::Number;
use kiln_ir::types::{DType, TensorType};
use kiln_ir::{Graph, Module};

/// Where numbers are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draw {
    /// Floats in -2..2, integers in -4..4.
    Signed,
    /// Floats in 0.25..2, integers 0 and 1: in the domain of `log` and `sqrt`, and of small tables.
    Positive,
    /// What breaks identities of algebra: signed zeros, infinities, NaN, the ends of the ranges.
    Special,
}

impl Draw {
    pub(super) const ALL: [Draw; 3] = [Draw::Signed, Draw::Positive, Draw::Special];
}

const SPECIAL_FLOATS: [f64; 10] =
    [0.0, -0.0, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e-40, 3.0e38, -0.5];

/// The arrays of a graph's parameters.
pub(super) fn params(graph: &Graph, draw: Draw, seed: u64) -> Vec<Array> {
    let param = |param: &kiln_ir::graph::Param| {
        let key = seed ^ stream(graph.value_name(param.value));
        array(graph.ty(param.value), draw, param.below, key)
    };
    graph.params().iter().map(param).collect()
}

/// The array of a state; `None` if it is not declared. Statistics and moments are positive: variances are among them.
pub(super) fn state(module: &Module, name: &str, draw: Draw, seed: u64) -> Option<Array> {
    let state = module.states.get(name)?;
    let positive = matches!(state.role, Role::Statistic | Role::Moment | Role::Counter);
    let draw = if positive { Draw::Positive } else { draw };
    Some(array(&state.ty, draw, None, seed ^ stream(name)))
}

fn array(ty: &TensorType, draw: Draw, below: Option<u64>, seed: u64) -> Array {
    let mut bits = SplitMix(seed);
    let number = |_| {
        let random = bits.next();
        Some(if ty.dtype.is_float() {
            Number::Float(float(draw, random))
        } else {
            Number::Int(integer(ty.dtype, draw, below, random))
        })
    };
    Array::from_numbers(ty.clone(), number).unwrap_or_else(|| unreachable!("every position has a number"))
}

/// 24 random bits, so that the number is a value of f32 and its sums and products round.
fn float(draw: Draw, random: u64) -> f64 {
    let unit = (random >> 40) as f64 / f64::from(1 << 24);
    match draw {
        Draw::Signed => 4.0 * unit - 2.0,
        Draw::Positive => 0.25 + 1.75 * unit,
        Draw::Special => SPECIAL_FLOATS[(random % SPECIAL_FLOATS.len() as u64) as usize],
    }
}

fn integer(dtype: DType, draw: Draw, below: Option<u64>, random: u64) -> i64 {
    if dtype == DType::Bool {
        return (random & 1) as i64;
    }
    if let Some(below) = below {
        return (random % below.max(1)) as i64;
    }
    let (low, high) = range(dtype);
    match draw {
        Draw::Signed => ((random % 9) as i64 - 4).clamp(low, high),
        Draw::Positive => (random % 2) as i64,
        Draw::Special => [low, high, 0, 1, (-1).clamp(low, high)][(random % 5) as usize],
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

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
