//! First and second gradients of every op against central differences in binary64, and compiled against the reference.
//!
//! Every case of `tests/cases` becomes a scalar `loss = sum of weight * result` over its float results, then the
//! gradients of the loss by its float inputs, then a scalar `directed = sum of direction * gradient` and its gradients.
//! Both `gradient` nodes stand in one graph, so that the second one goes through what the first one became.

use std::collections::BTreeSet;

use kiln_ir::builder::{GraphBuilder, Tensor};
use kiln_ir::reference::{Array, Data};
use kiln_ir::scalar::Number;
use kiln_ir::types::{DType, TensorType};
use kiln_ir::{Graph, Module, op};
use kiln_rt::kernels::{Level, detect};
use kiln_tests::cases::{self, Case};
use kiln_tests::compare::{self, Tolerance};
use kiln_tests::executors::{Executor, differentiated, run_program};

const SEED: u64 = 3;
/// Half the distance of the two points of a difference.
const STEP: f64 = 1e-4;
/// Of a derivative, or of 1 if that is larger: the error of a difference is some third derivative times `STEP^2`.
const TOLERANCE: f64 = 2e-5;
/// Elements of an input that are moved, at most.
const MOST_MOVED: usize = 6;

/// Ops that the autodiff pass refuses, as their definitions say.
const REFUSED: [&str; 10] = ["adam", "adamw", "ceil", "floor", "momentum", "rem", "rmsprop", "round", "sgd", "sign"];
/// Ops whose gradient is not their derivative, by definition.
const HELD_BACK: [&str; 1] = ["detach"];
/// Ops without float operands or without float results: the chain ends there.
const DISCRETE: [&str; 16] = [
    "reduce_and",
    "reduce_or",
    "cosine_rate",
    "rng_normal",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "not",
    "and",
    "or",
    "xor",
    "shl",
    "shr",
];

/// A scalar of a case that is differentiated.
struct Problem {
    name: String,
    /// 1, or 2 for the gradient of a gradient.
    order: usize,
    /// Returns the scalar.
    scalar: Graph,
    /// Returns its gradients by the float inputs of the case.
    gradients: Graph,
    /// Inputs of the case, then weights and directions.
    inputs: Vec<Array>,
    /// Which of them the scalar is differentiated by.
    by: Vec<usize>,
}

/// A number for each result and position, no two alike.
fn weights(ty: &TensorType, result: usize) -> Array {
    let number = |position: usize| Some(Number::Float(0.7 + ((position * 37 + result * 11) % 23) as f64 / 9.0));
    Array::from_numbers(ty.clone(), number).unwrap()
}

/// `sum of weight * tensor` over the float tensors; the weights become further inputs.
fn weighted_sum(builder: &GraphBuilder, tensors: &[Tensor], name: &str, inputs: &mut Vec<Array>) -> Option<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (number, tensor) in tensors.iter().enumerate().filter(|(_, t)| t.dtype().is_float()) {
        let weight = builder.param(&format!("{name}{number}"), tensor.ty(), None);
        inputs.push(weights(&tensor.ty(), number));
        let dims: Vec<usize> = (0..tensor.rank()).collect();
        let part = (tensor * &weight).sum(&dims).cast(DType::F64);
        sum = Some(sum.map_or(part.clone(), |sum| &sum + &part));
    }
    sum
}

fn gradients(builder: &GraphBuilder, scalar: &Tensor, by: &[Tensor]) -> Vec<Tensor> {
    let operands: Vec<&Tensor> = std::iter::once(scalar).chain(by).collect();
    builder.apply_all(op::GradientOf {}, &operands, &[]).to_vec()
}

fn returning(builder: &GraphBuilder, tensors: &[Tensor], name: &str) -> Graph {
    builder.returns(&tensors.iter().collect::<Vec<_>>());
    builder.with_graph(Graph::clone).renamed(name)
}

/// The first and the second problem of a case; fewer if there is nothing to differentiate.
fn problems(case: &Case) -> Vec<Problem> {
    let graph = case.graph();
    let params: Vec<_> = graph.params().iter().map(|param| param.value).collect();
    let by: Vec<usize> = (0..params.len()).filter(|&p| graph.ty(params[p]).dtype.is_float()).collect();
    let builder = GraphBuilder::over(graph.clone());
    let operands: Vec<Tensor> = by.iter().map(|&p| builder.tensor(params[p])).collect();
    let results: Vec<Tensor> = graph.returns().iter().map(|&value| builder.tensor(value)).collect();
    let mut inputs = case.inputs(SEED);
    let mut problems = Vec::new();
    let mut current = results;
    for (order, name) in (1..).zip(["weight", "direction"]) {
        let Some(scalar) = weighted_sum(&builder, &current, name, &mut inputs).filter(|_| !by.is_empty()) else {
            break;
        };
        let name = format!("{}.order{order}", case.name);
        let value = returning(&builder, std::slice::from_ref(&scalar), &name);
        current = gradients(&builder, &scalar, &operands);
        let gradients = returning(&builder, &current, &name);
        problems.push(Problem { name, order, scalar: value, gradients, inputs: inputs.clone(), by: by.clone() });
    }
    problems
}

/// Names of the ops that the autodiff pass has no gradient of.
fn without_gradient(found: &[kiln_ir::Diagnostic]) -> Vec<String> {
    found.iter().filter_map(|d| d.message.split('`').nth(1)).map(str::to_owned).collect()
}

/// Holds the gradients against differences at a few elements of each input.
fn check(problem: &Problem, states: &[(kiln_ir::Name, Array)], expanded: (&Graph, &Graph)) -> Result<(), String> {
    let evaluate = |graph: &Graph, inputs: &[Array]| {
        let mut module = Module::default();
        module.add_graph(graph.clone());
        Executor::Truth.run_module(&module, graph.name(), inputs, states).map(|outcome| outcome.returns)
    };
    let (scalar, gradients) = expanded;
    let found = evaluate(gradients, &problem.inputs)?;
    for (&input, gradient) in problem.by.iter().zip(&found) {
        let ty = &problem.inputs[input].ty;
        if gradient.ty != *ty {
            return Err(format!("gradient by input {input} is {}, not {ty}", gradient.ty));
        }
        let elements = ty.elements();
        let stride = elements.div_ceil(MOST_MOVED).max(1);
        // An odd stride through a power of two meets every place of a row.
        for position in (0..elements).step_by(stride | 1) {
            let at = |delta: f64| {
                let mut moved = problem.inputs.clone();
                if let Data::Float(numbers) = &mut moved[input].data {
                    numbers[position] += delta;
                }
                Ok::<f64, String>(evaluate(scalar, &moved)?[0].to_f64()[0])
            };
            let expected = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
            let got = gradient.to_f64()[position];
            let close = (got - expected).abs() <= TOLERANCE * expected.abs().max(1.0);
            if !close {
                return Err(format!("input {input} at {position}: {got}, differences say {expected}"));
            }
        }
    }
    Ok(())
}

fn differentiable() -> Vec<Case> {
    let of = |case: &Case| case.name.split('.').next().is_some_and(|op| HELD_BACK.contains(&op));
    let shown = |case: &Case| case.gradient && case.error.is_none() && !case.is_special() && !of(case);
    cases::all().into_iter().filter(shown).collect()
}

#[test]
fn gradients_are_differences() {
    let mut wrong = Vec::new();
    let mut refused = BTreeSet::new();
    let mut shown = BTreeSet::new();
    for case in differentiable() {
        for problem in problems(&case) {
            let expanded = [&problem.scalar, &problem.gradients].map(differentiated);
            let [scalar, gradients] = match expanded {
                [Ok(scalar), Ok(gradients)] => [scalar, gradients],
                [a, b] => {
                    let ops = [a, b].into_iter().filter_map(Result::err).flat_map(|e| without_gradient(&e));
                    // A gradient that has no gradient is a defect of the rule.
                    if problem.order == 1 {
                        refused.extend(ops);
                    } else {
                        wrong.push(format!("@{} has none: {:?}", problem.name, ops.collect::<Vec<_>>()));
                    }
                    break;
                }
            };
            if let Err(what) = check(&problem, &case.states(SEED), (&scalar, &gradients)) {
                wrong.push(format!("@{}: {what}", problem.name));
            }
            shown.extend(case.name.split('.').next().map(str::to_owned));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(refused, REFUSED.map(str::to_owned).into(), "ops that the autodiff pass refuses");
    let missing: Vec<&str> = op::table()
        .map(|entry| entry.mnemonic)
        .filter(|mnemonic| !shown.contains(*mnemonic))
        .filter(|mnemonic| ![&REFUSED[..], &DISCRETE, &HELD_BACK].concat().contains(mnemonic))
        .collect();
    assert!(missing.is_empty(), "ops whose gradient no case shows: {missing:?}");
}

/// Twice the error of a case, as a gradient is about as long as its graph, and twice again for cases of half types, each of
/// whose ops rounds.
fn gradient_tolerance(case: &Case) -> Tolerance {
    Tolerance::OfLargest(match case.tolerance {
        Tolerance::OfLargest(own) => (4.0 * own).max(2e-4),
        Tolerance::OfEach(_) => 2e-4,
    })
}

#[test]
fn compiled_gradients_are_those_of_the_reference() {
    let mut module = Module::default();
    let mut wanted = Vec::new();
    for case in differentiable() {
        for problem in problems(&case) {
            let Ok(expanded) = differentiated(&problem.gradients) else { break };
            let mut alone = Module::default();
            alone.add_graph(expanded);
            let want = Executor::Truth.run_module(&alone, &problem.name, &problem.inputs, &case.states(SEED)).unwrap();
            module.states.extend(case.module.states.clone());
            module.add_graph(problem.gradients.clone());
            wanted.push((problem, case.states(SEED), want, gradient_tolerance(&case)));
        }
    }
    let mut wrong = Vec::new();
    for executor in [Executor::Optimized(Level::None, 1), Executor::Optimized(detect(), 1)] {
        let program = executor.compile(&module).unwrap();
        for (problem, states, want, tolerance) in &wanted {
            let found = run_program(&program, 1, &problem.name, &problem.inputs, states);
            let same = found.and_then(|have| compare::same(want, &have, *tolerance));
            wrong.extend(same.err().map(|what| format!("@{} on {executor:?}: {what}", problem.name)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_detached_is_a_number_to_the_gradient() {
    let builder = GraphBuilder::new("held");
    let x = builder.input("x", DType::F64, [3]);
    // The gradient of the sum of `sin(x) * c` is `c cos(x)` where `c` is a number, and `c = x^2` here.
    let loss = (&x.sin() * &x.square().detach()).sum(&[0]);
    let slope = gradients(&builder, &loss, std::slice::from_ref(&x)).remove(0);
    // And that of the sum of the slopes goes through neither `c` nor what it was made of.
    let again = gradients(&builder, &slope.sum(&[0]), std::slice::from_ref(&x)).remove(0);
    let graph = differentiated(&returning(&builder, &[slope, again], "held")).unwrap();
    assert!(graph.nodes().all(|(_, data)| data.op.mnemonic() != "detach"));
    let points = [-1.5, 0.25, 2.0];
    let input = Array::from_numbers(TensorType::new(DType::F64, [3]), |i| Some(Number::Float(points[i]))).unwrap();
    for executor in Executor::compiled().into_iter().chain([Executor::Truth]) {
        let found = executor.run(&graph, std::slice::from_ref(&input)).unwrap();
        for (i, x) in points.into_iter().enumerate() {
            let expected = [x * x * f64::cos(x), -x * x * f64::sin(x)];
            let got = [found[0].to_f64()[i], found[1].to_f64()[i]];
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{executor:?} {got:?} {expected:?}");
        }
    }
}
