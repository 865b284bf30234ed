//! Values of programs that still have `gradient` nodes: the reference evaluator has none for them, central differences
//! have. A gradient of a gradient is a difference of differences, and what `detach` holds back is a number in each of them.

use std::sync::Arc;

use kiln_ir::Graph;
use kiln_ir::attribute::Literal;
use kiln_ir::graph::{Value, ValueMap};
use kiln_ir::op::{self, Elementwise, Op};
use kiln_ir::reference::{Array, Data, EvalError, Evaluator, Outcome, States};
use kiln_ir::scalar::Number;

/// Half the distance of two evaluations: the error of a difference is its square, that of binary64 its inverse.
const STEP: f64 = 1e-4;

/// Whether the graph differentiates.
pub(super) fn differentiates(graph: &Graph) -> bool {
    graph.nodes().any(|(_, data)| matches!(data.op, Op::GradientOf(_)))
}

/// Results in binary64, gradients by central differences.
pub(super) fn evaluate(graph: &Graph, inputs: &[Array], states: States<'_>) -> Result<Outcome, EvalError> {
    if !differentiates(graph) {
        return Evaluator::wide().evaluate(graph, inputs, states);
    }
    Evaluator::wide().evaluate(&without_gradients(graph, inputs, states)?, inputs, states)
}

/// The graph with the gradients at `inputs` as constants.
fn without_gradients(graph: &Graph, inputs: &[Array], states: States<'_>) -> Result<Graph, EvalError> {
    let (mut next, mut map) = (graph.successor(), ValueMap::params(graph));
    // The same with its gradients, so that they can be differentiated; what is held back stays as it is at `inputs`.
    let (mut held, mut held_map) = (graph.successor(), ValueMap::params(graph));
    for (_, data) in graph.nodes() {
        match &data.op {
            Op::GradientOf(_) => {
                let (at, loss) = (held.nodes().len(), held_map.get(data.operands[0]));
                for (&result, &of) in data.results.iter().zip(&data.operands[1..]) {
                    let numbers = gradient(&held, at, loss, held_map.get(of), inputs, states)?;
                    constant(graph, result, numbers, &mut next, &mut map);
                }
                held.push_copy(graph, data, &mut held_map);
            }
            Op::Elementwise(Elementwise::Detach) => {
                next.set_returns([map.get(data.operands[0])]);
                let outcome = Evaluator::wide().evaluate(&next, inputs, states)?;
                let numbers = outcome.returns.first().map(numbers).unwrap_or_default();
                constant(graph, data.results[0], numbers.clone(), &mut next, &mut map);
                constant(graph, data.results[0], numbers, &mut held, &mut held_map);
            }
            _ => {
                next.push_copy(graph, data, &mut map);
                held.push_copy(graph, data, &mut held_map);
            }
        }
    }
    next.finish_copy(graph, &map);
    Ok(next)
}

/// Puts a constant into the place of `value` of `graph`.
fn constant(graph: &Graph, value: Value, numbers: Vec<Number>, next: &mut Graph, map: &mut ValueMap) {
    let (name, ty) = (graph.value_name(value).clone(), graph.ty(value).clone());
    let op = op::Const { ty: ty.clone(), value: Literal::Dense(Arc::from(numbers)) };
    let node = next.push(op.into(), [], [(name, ty)], Vec::new(), Default::default());
    map.set(value, next.node(node).results[0]);
}

fn numbers(array: &Array) -> Vec<Number> {
    (0..array.ty.elements()).filter_map(|position| array.at(position)).collect()
}

fn gradient(
    graph: &Graph,
    at: usize,
    loss: Value,
    of: Value,
    inputs: &[Array],
    states: States<'_>,
) -> Result<Vec<Number>, EvalError> {
    let shifted = shifted(graph, at, loss, of);
    let ty = graph.ty(of);
    let loss_at = |element: usize, step: f64| {
        let shift = |position| Some(Number::Float(if position == element { step } else { 0.0 }));
        let mut inputs = inputs.to_vec();
        inputs.extend(Array::from_numbers(ty.clone(), shift));
        let outcome = evaluate(&shifted, &inputs, states)?;
        Ok(match outcome.returns.first().map(|array| &array.data) {
            Some(Data::Float(numbers)) => numbers.iter().sum(),
            _ => f64::NAN,
        })
    };
    (0..ty.elements())
        .map(|element| Ok(Number::Float((loss_at(element, STEP)? - loss_at(element, -STEP)?) / (2.0 * STEP))))
        .collect()
}

/// The first `at` nodes, with the value `of` moved by a further parameter, returning the loss.
fn shifted(graph: &Graph, at: usize, loss: Value, of: Value) -> Graph {
    let mut next = graph.successor();
    let mut map = ValueMap::params(graph);
    let ty = graph.ty(of).clone();
    let shift = next.add_param("shift", ty.clone(), None);
    let add = |next: &mut Graph, map: &mut ValueMap| {
        let sum = [("shifted".into(), ty.clone())];
        let node =
            next.push(Op::Elementwise(Elementwise::Add), [map.get(of), shift], sum, Vec::new(), Default::default());
        map.set(of, next.node(node).results[0]);
    };
    if graph.producer(of).is_none() {
        add(&mut next, &mut map);
    }
    for (_, data) in graph.nodes().take(at) {
        next.push_copy(graph, data, &mut map);
        if data.results.contains(&of) {
            add(&mut next, &mut map);
        }
    }
    next.set_returns([map.get(loss)]);
    next
}
