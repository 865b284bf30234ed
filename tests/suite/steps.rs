//! Several steps of a batch in one graph, against their formulas: which values of the parameters a step reads, and through
//! which of them its gradient flows.

use kiln_ir::reference::Array;
use kiln_ir::scalar::Number;
use kiln_ir::types::{Bindings, Name};
use kiln_ir::{Module, TensorType, script};
use kiln_tests::executors::{Executor, Outcome};

const X: [f64; 4] = [0.5, -1.0, 2.0, 1.5];
const Y: [f64; 4] = [1.0, 0.5, -0.5, 2.0];

/// Three steps on the same parameter: a critic that trains twice for every other step.
const CRITICS: &str = "\
model @m(%x: f32[batch, 1], %y: f32[batch, 1]) {
  %a = dense %x {units = 1, bias = false, name = a}
  %loss = mse %a, %y
  %half = mul %loss, 0.5
  loss %loss
  loss %half
}

train {
  data = \"d.npz\",
  optimizer = sgd {rate = 0.1},
  steps = [critic1 {loss = loss}, critic2 {loss = loss}, other {loss = half}],
}
";

/// The first step changes `d` by what `g` makes, the second one `g` by how `d` judges it.
const ADVERSARIES: &str = "\
model @m(%x: f32[batch, 1], %y: f32[batch, 1]) {
  %fake = dense %x {units = 1, bias = false, name = g}
  %judged = dense %fake {units = 1, bias = false, name = d}
  %found = mse %judged, %y
  %fooled = reduce_mean %judged
  loss %found
  loss %fooled
}

train {
  data = \"d.npz\",
  optimizer = sgd {rate = 0.1},
  steps = [judge {loss = found, trains = d}, maker {loss = fooled, trains = g}],
}
";

fn module(text: &str) -> Module {
    let bindings = Bindings::from([("batch".into(), X.len())]);
    let mut module = script::load("steps.kiln", text, &bindings).unwrap().bind(&bindings).unwrap();
    module.keep_graphs(&["step0".into()]);
    module
}

fn array(ty: &TensorType, numbers: &[f64]) -> Array {
    Array::from_numbers(ty.clone(), |i| numbers.get(i).map(|n| Number::Float(*n))).unwrap()
}

/// What every compiled executor makes of a batch, from these weights.
fn outcomes(text: &str, weights: &[(&str, f64)]) -> Vec<Outcome> {
    let module = module(text);
    let weight = |&(name, value): &(&str, f64)| (Name::from(name), array(&module.states[name].ty, &[value]));
    let states: Vec<(Name, Array)> = weights.iter().map(weight).collect();
    let graph = module.graph("step0").unwrap();
    let inputs: Vec<Array> =
        graph.params().iter().zip([X, Y]).map(|(param, numbers)| array(graph.ty(param.value), &numbers)).collect();
    let run = |executor: Executor| executor.run_module(&module, "step0", &inputs, &states).unwrap();
    Executor::compiled().into_iter().map(run).collect()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
    assert!(found.iter().zip(expected).all(close), "{found:?}, not {expected:?}");
}

fn returned(outcome: &Outcome) -> Vec<f64> {
    outcome.returns.iter().map(|array| array.to_f64()[0]).collect()
}

fn updated(outcome: &Outcome, state: &str) -> f64 {
    outcome.updates.iter().find(|(name, _)| &**name == state).unwrap().1.to_f64()[0]
}

fn mean(term: impl Fn(f64, f64) -> f64) -> f64 {
    X.iter().zip(Y).map(|(&x, y)| term(x, y)).sum::<f64>() / X.len() as f64
}

#[test]
fn a_step_goes_on_from_what_the_one_before_it_has_left() {
    let loss = |w: f64| mean(|x, y| (w * x - y).powi(2));
    let slope = |w: f64| mean(|x, y| 2.0 * (w * x - y) * x);
    let first = 0.7;
    let second = first - 0.1 * slope(first);
    let third = second - 0.1 * slope(second);
    let last = third - 0.1 * 0.5 * slope(third);
    for outcome in outcomes(CRITICS, &[("a.weight", first)]) {
        assert_close(&returned(&outcome), &[loss(first), loss(second), 0.5 * loss(third)]);
        assert_close(&[updated(&outcome, "a.weight")], &[last]);
    }
}

#[test]
fn no_gradient_flows_into_the_step_before() {
    let (g, d) = (0.8, -0.6);
    let judge = d - 0.1 * mean(|x, y| 2.0 * (d * g * x - y) * g * x);
    // `judge` is a function of `g` too; to the second step it is a number.
    let maker = g - 0.1 * mean(|x, _| judge * x);
    for outcome in outcomes(ADVERSARIES, &[("g.weight", g), ("d.weight", d)]) {
        assert_close(&returned(&outcome), &[mean(|x, y| (d * g * x - y).powi(2)), mean(|x, _| judge * g * x)]);
        assert_close(&[updated(&outcome, "d.weight"), updated(&outcome, "g.weight")], &[judge, maker]);
    }
}
