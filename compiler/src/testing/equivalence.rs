//! Whether two modules have the same results.

use std::collections::HashMap;
use std::fmt;

use kiln_ir::reference::{Array, Data, EvalError, Evaluator, Outcome};
use kiln_ir::types::Name;
use kiln_ir::{Graph, Module};

use super::derivative;
use super::inputs::{self, Draw};
use crate::pass::hoist::PREPARE;

/// Runs per kind of inputs.
const SEEDS: u64 = 2;
/// Largest difference of results in binary64, relative to the largest element: a constant that was folded in f32.
const TRUTH_TOLERANCE: f64 = 1e-6;
/// Largest error in the program's own types, relative to the largest element, whatever the error before.
const NATIVE_TOLERANCE: f64 = 1e-5;
/// How much larger the error may become.
const NATIVE_GROWTH: f64 = 8.0;
/// Largest difference to central differences.
const DERIVATIVE_TOLERANCE: f64 = 1e-4;
/// Below this, elements are small beside rounding.
const SMALLEST_SCALE: f64 = 1e-3;

/// How the results of two modules compare; the weakest of all runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Equivalence {
    /// Equal bits, also for infinities, NaN and signed zeros.
    Bits,
    /// Equal bits for finite numbers.
    FiniteBits,
    /// Equal up to rounding.
    Rounded,
    /// Gradients equal central differences.
    Derivative,
}

impl fmt::Display for Equivalence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Equivalence::Bits => "same bits",
            Equivalence::FiniteBits => "same bits for finite numbers",
            Equivalence::Rounded => "same up to rounding",
            Equivalence::Derivative => "gradients as by central differences",
        })
    }
}

/// Runs every graph of `before` and `after` in the reference evaluator on the same random inputs and states.
///
/// Floats are compared in binary64, and in the program's own types their error may not grow; integers are exact. Inputs
/// for which `before` has no value (an index out of range) are passed over. Gradients that are not expanded yet are
/// taken by central differences. States that `@prepare` derives are computed by it.
///
/// # Errors
/// The first difference, with graph, value, position and both numbers; or why nothing could be compared.
pub fn check_equivalent(before: &Module, after: &Module) -> Result<Equivalence, String> {
    let mut weakest = Equivalence::Bits;
    for (name, graph) in before.graphs.iter().filter(|(name, _)| &***name != PREPARE) {
        let other = after.graph(name).ok_or_else(|| format!("graph @{name} is gone"))?;
        check_signature(graph, other)?;
        let mut runs = 0;
        for draw in Draw::ALL {
            for seed in 1..=SEEDS {
                let pair = Pair { before: (before, graph), after: (after, other), draw, seed };
                if let Some(found) = pair.compare().map_err(|what| format!("@{name}, {draw:?} inputs: {what}"))? {
                    weakest = weakest.max(found);
                    runs += usize::from(draw != Draw::Special);
                }
            }
        }
        if runs == 0 {
            return Err(format!("@{name} has no value for any of the random inputs: declare `below` for its indices"));
        }
    }
    Ok(weakest)
}

/// Parameters, results and updates are part of the meaning.
fn check_signature(before: &Graph, after: &Graph) -> Result<(), String> {
    let params = |g: &Graph| -> Vec<_> { g.params().iter().map(|p| (g.value(p.value).ty.clone(), p.below)).collect() };
    let returns = |g: &Graph| -> Vec<_> { g.returns().iter().map(|&v| g.ty(v).clone()).collect() };
    let same = params(before) == params(after) && returns(before) == returns(after);
    if same { Ok(()) } else { Err(format!("@{}: parameters or results have other types", before.name())) }
}

/// One graph in two modules on one set of inputs.
struct Pair<'a> {
    before: (&'a Module, &'a Graph),
    after: (&'a Module, &'a Graph),
    draw: Draw,
    seed: u64,
}

impl Pair<'_> {
    /// `None` if the graph has no value for these inputs.
    fn compare(&self) -> Result<Option<Equivalence>, String> {
        let derivative = [self.before.1, self.after.1].into_iter().any(derivative::differentiates);
        if derivative && self.draw == Draw::Special {
            return Ok(None);
        }
        let Ok(truth) = self.run(self.before, None) else { return Ok(None) };
        let run = |side, evaluator| self.run(side, evaluator).map_err(|error| format!("afterwards: {error}"));
        let tolerance = if derivative { DERIVATIVE_TOLERANCE } else { TRUTH_TOLERANCE };
        let finite = self.draw != Draw::Special;
        if finite {
            each(&truth, &run(self.after, None)?, |name, a, b| close(name, a, b, tolerance * scale(a)))?;
        }
        if derivative {
            return Ok(Some(Equivalence::Derivative));
        }
        let native = Some(Evaluator::native());
        let (old, new) = (run(self.before, native)?, run(self.after, native)?);
        if each(&old, &new, |_, a, b| if same_bits(a, b) { Ok(()) } else { Err(String::new()) }).is_ok() {
            return Ok(Some(Equivalence::Bits));
        }
        if !finite {
            // Without floats there is no rounding that could excuse a difference.
            let floats = self.before.1.values().any(|v| self.before.1.ty(v).dtype.is_float());
            return match floats {
                true => Ok(Some(Equivalence::FiniteBits)),
                false => each(&old, &new, |name, a, b| close(name, a, b, 0.0)).map(|()| None),
            };
        }
        let mut errors = HashMap::new();
        each(&truth, &old, |name, a, b| {
            errors.insert(name.to_owned(), largest_difference(a, b));
            Ok(())
        })?;
        each(&truth, &new, |name, a, b| {
            let before = errors.get(name).copied().unwrap_or(0.0);
            close(name, a, b, (NATIVE_GROWTH * before).max(NATIVE_TOLERANCE * scale(a)))
        })?;
        Ok(Some(Equivalence::Rounded))
    }

    /// Runs one side, `@prepare` first; without evaluator in binary64.
    fn run(&self, (module, graph): (&Module, &Graph), evaluator: Option<Evaluator>) -> Result<Outcome, EvalError> {
        let run = |graph: &Graph, inputs: &[Array], states: &dyn Fn(&str) -> Option<Array>| match &evaluator {
            Some(evaluator) => evaluator.evaluate(graph, inputs, states),
            None => derivative::evaluate(graph, inputs, states),
        };
        let given = |name: &str| inputs::state(module, name, self.draw, self.seed);
        let prepared: HashMap<Name, Array> = match module.graph(PREPARE) {
            Some(prepare) => run(prepare, &[], &given)?.updates.into_iter().collect(),
            None => HashMap::new(),
        };
        let states = |name: &str| prepared.get(name).cloned().or_else(|| given(name));
        run(graph, &inputs::params(graph, self.draw, self.seed), &states)
    }
}

/// Looks at every pair of results and of updates.
fn each(
    before: &Outcome,
    after: &Outcome,
    mut look: impl FnMut(&str, &Array, &Array) -> Result<(), String>,
) -> Result<(), String> {
    for (number, (a, b)) in before.returns.iter().zip(&after.returns).enumerate() {
        look(&format!("result {number}"), a, b)?;
    }
    if before.updates.len() != after.updates.len() {
        return Err(format!("{} updates become {}", before.updates.len(), after.updates.len()));
    }
    for (state, a) in &before.updates {
        let (_, b) = after.updates.iter().find(|(s, _)| s == state).ok_or(format!("update of @{state} is gone"))?;
        look(&format!("update of @{state}"), a, b)?;
    }
    Ok(())
}

fn close(name: &str, a: &Array, b: &Array, tolerance: f64) -> Result<(), String> {
    let tolerance = if a.ty.dtype.is_float() { tolerance } else { 0.0 };
    let fits = |(a, b): &(f64, f64)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance;
    match a.to_f64().into_iter().zip(b.to_f64()).enumerate().find(|(_, pair)| !fits(pair)) {
        Some((position, (a, b))) => Err(format!("{name}, element {position}: {a:?} becomes {b:?}")),
        None => Ok(()),
    }
}

fn same_bits(a: &Array, b: &Array) -> bool {
    let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    match (&a.data, &b.data) {
        (Data::Float(a), Data::Float(b)) => a.iter().zip(b).all(same),
        (a, b) => a == b,
    }
}

/// Largest finite element.
fn scale(array: &Array) -> f64 {
    array.to_f64().into_iter().filter(|v| v.is_finite()).fold(SMALLEST_SCALE, |m, v| m.max(v.abs()))
}

fn largest_difference(a: &Array, b: &Array) -> f64 {
    a.to_f64().into_iter().zip(b.to_f64()).map(|(a, b)| (a - b).abs()).filter(|d| d.is_finite()).fold(0.0, f64::max)
}
