//! Initial values of states, as a function of the state's name and the seed alone.
//!
//! Element `i` of a state is drawn with the counter `i` from the generator Philox4x32-10 keyed by the state's stream
//! and the seed: no value depends on the order of states or on who computes it.

use std::f64::consts::TAU;

use kiln_ir::module::stream;
use kiln_ir::{DType, Initializer, State};

use crate::arena::OutOfMemory;
use crate::data::convert::{encode_float, encode_integer};
use crate::executable::Binding;
use crate::philox::Philox;
use crate::tensor::Tensor;

/// The initial value of a state.
///
/// # Errors
/// [`OutOfMemory`].
pub fn initial(name: &str, state: &State, seed: u64) -> Result<Tensor, OutOfMemory> {
    let mut tensor = Tensor::zeros(state.ty.clone())?;
    let (fan_in, fan_out) = fans(&state.ty.extents());
    let philox = Philox::new(stream(name) ^ seed);
    match state.init {
        // Already there, and large states (moments) stay untouched until they are needed.
        Initializer::Constant(value) if value.to_bits() == 0 => {}
        Initializer::Constant(value) => fill(&mut tensor, |_| value),
        Initializer::Uniform { low, high } => fill(&mut tensor, |i| uniform(&philox, i, low, high)),
        Initializer::Normal { mean, deviation } => fill(&mut tensor, |i| mean + deviation * normal(&philox, i)),
        Initializer::Glorot => {
            let limit = (6.0 / (fan_in + fan_out)).sqrt();
            fill(&mut tensor, |i| uniform(&philox, i, -limit, limit));
        }
        Initializer::He => {
            let deviation = (2.0 / fan_in).sqrt();
            fill(&mut tensor, |i| deviation * normal(&philox, i));
        }
        Initializer::FanIn(fan) => {
            let limit = (1.0 / fan.max(1) as f64).sqrt();
            fill(&mut tensor, |i| uniform(&philox, i, -limit, limit));
        }
        Initializer::Seed => fill_exactly(&mut tensor, |_| (seed << 32).cast_signed()),
    }
    Ok(tensor)
}

/// A tensor to try a program with, by the input's name and a seed: floats are standard normal, booleans 0 or 1,
/// integers lie within the declared bound, or in `0..2` without one.
///
/// # Errors
/// [`OutOfMemory`].
pub fn random_input(binding: &Binding, seed: u64) -> Result<Tensor, OutOfMemory> {
    let mut tensor = Tensor::zeros(binding.ty.clone())?;
    let philox = Philox::new(stream(&binding.name) ^ seed);
    let dtype = tensor.dtype();
    if dtype.is_float() {
        fill(&mut tensor, |i| normal(&philox, i));
        return Ok(tensor);
    }
    let bound = binding.below.filter(|_| dtype != DType::Bool).unwrap_or(2);
    fill_exactly(&mut tensor, |i| philox.below(i, bound) as i64);
    Ok(tensor)
}

/// `(fan_in, fan_out)`, each at least 1: of a matrix `[in, out]`; of a filter `[O, C, kernel...]` with `k` kernel
/// positions `(C*k, O*k)`; of a vector `[n]`, and of a scalar, `(n, n)`, as Keras has it.
fn fans(extents: &[usize]) -> (f64, f64) {
    let (fan_in, fan_out) = match *extents {
        [] => (1, 1),
        [n] => (n, n),
        [inputs, outputs] => (inputs, outputs),
        [filters, channels, ref kernel @ ..] => {
            let positions: usize = kernel.iter().product();
            (channels * positions, filters * positions)
        }
    };
    (fan_in.max(1) as f64, fan_out.max(1) as f64)
}

fn fill(tensor: &mut Tensor, value: impl Fn(u64) -> f64) {
    let dtype = tensor.dtype();
    for (i, out) in (0..).zip(tensor.bytes_mut().chunks_exact_mut(dtype.bytes())) {
        encode_float(dtype, value(i), out);
    }
}

fn fill_exactly(tensor: &mut Tensor, value: impl Fn(u64) -> i64) {
    let dtype = tensor.dtype();
    for (i, out) in (0..).zip(tensor.bytes_mut().chunks_exact_mut(dtype.bytes())) {
        encode_integer(dtype, value(i), out);
    }
}

/// Uniform in `[low, high)`, from 32 random bits. Rounding to a narrow type may reach `high`.
fn uniform(philox: &Philox, i: u64, low: f64, high: f64) -> f64 {
    let [bits, ..] = philox.block(i);
    low + (high - low) * (f64::from(bits) / 4_294_967_296.0)
}

/// Standard normal by Box and Muller, from two words of 32 bits; the largest magnitude is 6.7.
fn normal(philox: &Philox, i: u64) -> f64 {
    let [radius, angle, ..] = philox.block(i);
    let radius = (-2.0 * ((f64::from(radius) + 0.5) / 4_294_967_296.0).ln()).sqrt();
    radius * (TAU * (f64::from(angle) / 4_294_967_296.0)).cos()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;
    use kiln_ir::{DType, Role, Shape, TensorType};

    fn draw(name: &str, shape: impl Into<Shape>, init: Initializer, seed: u64) -> Vec<f64> {
        let state = State { ty: TensorType::new(DType::F64, shape), role: Role::Param, init, source: None };
        initial(name, &state, seed).unwrap().as_slice::<f64>().unwrap().to_vec()
    }

    fn moments(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, variance.sqrt())
    }

    #[test]
    fn glorot_of_a_filter_has_its_limit_and_spread() {
        // [O, C, 3, 3]: fans 16*9 and 32*9, limit sqrt(6 / 432), deviation of a uniform = limit / sqrt(3).
        let values = draw("conv1.weight", [32, 16, 3, 3], Initializer::Glorot, 1);
        let limit = (6.0_f64 / 432.0).sqrt();
        let (mean, deviation) = moments(&values);
        assert!(values.iter().all(|v| v.abs() <= limit));
        assert!(values.iter().any(|v| v.abs() > 0.99 * limit));
        // Standard errors over 4608 draws are about 0.015 * limit / sqrt(3).
        assert!(mean.abs() < 0.04 * limit, "{mean}");
        assert!((deviation / limit - 1.0 / 3.0_f64.sqrt()).abs() < 0.02, "{deviation}");
    }

    #[test]
    fn he_of_a_matrix_has_its_deviation() {
        let values = draw("dense1.weight", [128, 64], Initializer::He, 7);
        let (mean, deviation) = moments(&values);
        assert!(mean.abs() < 0.006, "{mean}");
        assert!((deviation - (2.0_f64 / 128.0).sqrt()).abs() < 0.004, "{deviation}");
        let beyond = values.iter().filter(|v| v.abs() > 2.0 * deviation).count() as f64 / values.len() as f64;
        assert!((beyond - 0.0455).abs() < 0.01, "a normal has 4.55% beyond two deviations, here {beyond}");
    }

    #[test]
    fn the_other_initialisers_keep_their_word() {
        assert_eq!(draw("b", [3], Initializer::Constant(0.5), 0), [0.5; 3]);
        let limit = 1.0 / 5.0;
        assert!(draw("b", [1000], Initializer::FanIn(25), 0).iter().all(|v| v.abs() <= limit));
        let values = draw("u", [4000], Initializer::Uniform { low: 2.0, high: 6.0 }, 3);
        let (mean, _) = moments(&values);
        assert!((mean - 4.0).abs() < 0.08 && values.iter().all(|v| (2.0..6.0).contains(v)));
        let (mean, deviation) = moments(&draw("n", [4000], Initializer::Normal { mean: -1.0, deviation: 3.0 }, 3));
        assert!((mean + 1.0).abs() < 0.2 && (deviation - 3.0).abs() < 0.15);
    }

    #[test]
    fn names_and_seeds_separate_streams() {
        let of = |name, seed| draw(name, [4], Initializer::He, seed);
        assert_eq!(of("a", 1), of("a", 1));
        assert_ne!(of("a", 1), of("b", 1));
        assert_ne!(of("a", 1), of("a", 2));
    }

    #[test]
    fn random_inputs_keep_their_bound() {
        let ty = TensorType::new(DType::I32, [1000]);
        let binding = Binding { below: Some(7), ..Binding::new("label", ty) };
        let tensor = random_input(&binding, 3).unwrap();
        let values = tensor.as_slice::<i32>().unwrap();
        assert!((0..7).all(|value| values.contains(&value)) && values.iter().all(|value| (0..7).contains(value)));
        assert_eq!(tensor, random_input(&binding, 3).unwrap());
    }

    #[test]
    fn integers_start_at_their_constant() {
        let ty = TensorType::scalar(DType::I64);
        let state = State { ty, role: Role::Counter, init: Initializer::Constant(3.0), source: None };
        assert_eq!(initial("step", &state, 0).unwrap().as_slice::<i64>().unwrap(), [3]);
    }

    #[test]
    fn each_seed_has_draws_of_its_own() {
        let state =
            State { ty: TensorType::scalar(DType::I64), role: Role::Counter, init: Initializer::Seed, source: None };
        let begins = |seed| initial("rng", &state, seed).unwrap().as_slice::<i64>().unwrap()[0];
        assert_eq!((begins(0), begins(1), begins(5)), (0, 4_294_967_296, 21_474_836_480));
        // Exact where a float would not be: the largest seed of a recipe.
        assert_eq!(begins(u64::from(u32::MAX)), -4_294_967_296);
    }
}
