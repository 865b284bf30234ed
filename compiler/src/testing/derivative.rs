//! Values of programs that still have `gradient` nodes: the reference evaluator has none for them, central differences
//! have. A gradient of a gradient is a difference of differences.

use std::sync::Arc;

use kiln_ir::Graph;
use kiln_ir::attribute::Literal;
use kiln_ir::graph::{Node, Value, ValueMap};
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
    let mut next = graph.successor();
    let mut map = ValueMap::params(graph);
    for (node, data) in graph.nodes() {
        if !matches!(data.op, Op::GradientOf(_)) {
            next.push_copy(graph, data, &mut map);
            continue;
        }
        for (&result, &of) in data.results.iter().zip(&data.operands[1..]) {
            let numbers = gradient(graph, node, data.operands[0], of, inputs, states)?;
            let ty = graph.ty(result).clone();
            let value = Literal::Dense(Arc::from(numbers));
            let constant = op::Const { ty: ty.clone(), value };
            let name = graph.value_name(result).clone();
            let new = next.push(constant.into(), [], [(name, ty)], Vec::new(), data.provenance.clone());
            map.set(result, next.node(new).results[0]);
        }
    }
    next.finish_copy(graph, &map);
    Ok(next)
}

fn gradient(
    graph: &Graph,
    at: Node,
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

/// The nodes before `at`, with the value `of` moved by a further parameter, returning the loss.
fn shifted(graph: &Graph, at: Node, loss: Value, of: Value) -> Graph {
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
    for (_, data) in graph.nodes().take(at.index()) {
        next.push_copy(graph, data, &mut map);
        if data.results.contains(&of) {
            add(&mut next, &mut map);
        }
    }
    next.set_returns([map.get(loss)]);
    next
}
