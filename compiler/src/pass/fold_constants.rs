//! Pass `fold_constants`: computes what depends on constants only.
//!
//! ```text
//! graph @f(%x: f32[4]) {
//!   %a: f32[4] = const {value = 2.0}
//!   %b: f32[4] = mul %a, %a
//!   %y: f32[4] = add %x, %b
//!   return %y
//! }
//! ```
//! becomes
//! ```text
//! graph @f(%x: f32[4]) {
//!   %a: f32[4] = const {value = 2.0}
//!   %b: f32[4] = const {value = 4.0}
//!   %y: f32[4] = add %x, %b
//!   return %y
//! }
//! ```
//! The reference evaluator computes, so the folder cannot disagree with it. Results stay small: a constant that is one
//! number stays one number whatever its shape, and tables above [`MOST_ELEMENTS`] are left to run time.

use std::sync::Arc;

use kiln_ir::attribute::Literal;
use kiln_ir::body::Body;
use kiln_ir::graph::{Graph, NodeData, Value, ValueMap};
use kiln_ir::op::{self, Op};
use kiln_ir::reference::{Array, Data, Evaluator};
use kiln_ir::scalar::Number;
use kiln_ir::types::TensorType;
use kiln_ir::{Diagnostic, Module};

use super::{Changed, Pass, Remarks, each_graph};
use crate::loops::build::body_of;

/// Largest table that folding may make.
pub const MOST_ELEMENTS: usize = 1024;
/// Most loop iterations that folding one node may take.
const MOST_WORK: usize = 65536;

/// The pass.
#[derive(Debug)]
pub struct FoldConstants;

impl Pass for FoldConstants {
    fn name(&self) -> &'static str {
        "fold_constants"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, remarks, |graph, remarks| Ok(fold(graph, remarks)))
    }
}

fn fold(graph: &Graph, remarks: &mut Remarks) -> Option<Graph> {
    let mut next = graph.successor();
    let mut map = ValueMap::params(graph);
    let mut changed = false;
    for (_, data) in graph.nodes() {
        let operands: Vec<Value> = data.operands.iter().map(|&v| map.get(v)).collect();
        match folded(graph, &next, data, &operands) {
            Some(value) => {
                let old = data.results[0];
                let ty = graph.ty(old).clone();
                let op = op::Const { ty: ty.clone(), value };
                let name = graph.value_name(old).clone();
                let node = next.push(op.into(), [], [(name, ty)], Vec::new(), data.provenance.clone());
                map.set(old, next.node(node).results[0]);
                changed = true;
                remarks.rewrote(1);
            }
            None => {
                next.push_copy(graph, data, &mut map);
            }
        }
    }
    if !changed {
        return None;
    }
    next.finish_copy(graph, &map);
    Some(next)
}

fn folded(graph: &Graph, next: &Graph, data: &NodeData, operands: &[Value]) -> Option<Literal> {
    if data.results.len() != 1 || operands.is_empty() || !data.regions.is_empty() {
        return None;
    }
    let constants: Vec<&op::Const> = operands.iter().map(|&v| constant(next, v)).collect::<Option<_>>()?;
    let Body::Map(map) = body_of(graph, data) else { return None };
    let splats: Option<Vec<Number>> = constants
        .iter()
        .map(|c| match c.value {
            Literal::Splat(number) => Some(number),
            Literal::Dense(_) => None,
        })
        .collect();
    let whole = map.reads.iter().all(|read| read.outside.is_none());
    let uniform = map.reduce.is_empty() && whole && !mentions_position(&map);
    match splats {
        // One number in, one number out: computed on a single element.
        Some(numbers) if uniform => {
            let reads: Vec<Number> = map.reads.iter().map(|read| numbers[read.operand]).collect();
            Some(Literal::Splat(Evaluator::native().expr(&map.exprs[0], &reads, &[])))
        }
        _ => {
            let elements = map.parallel.iter().product::<usize>();
            let work = map.extents().iter().product::<usize>();
            if elements > MOST_ELEMENTS || work > MOST_WORK {
                return None;
            }
            evaluate(graph, data, &constants)
        }
    }
}

fn constant(graph: &Graph, value: Value) -> Option<&op::Const> {
    match &graph.producer(value)?.1.op {
        Op::Const(constant) => Some(constant),
        _ => None,
    }
}

fn mentions_position(map: &kiln_ir::body::Map) -> bool {
    use kiln_ir::scalar::{ScalarExpr, ScalarNode};
    fn mentions(expr: &ScalarExpr) -> bool {
        matches!(expr.node(), ScalarNode::Index(_) | ScalarNode::Philox { .. }) || expr.children().any(mentions)
    }
    map.exprs.iter().any(mentions)
}

/// Runs one node on its constants.
fn evaluate(graph: &Graph, data: &NodeData, constants: &[&op::Const]) -> Option<Literal> {
    let mut one = Graph::new("fold");
    let inputs: Vec<Value> =
        constants.iter().enumerate().map(|(i, c)| one.add_param(format!("c{i}"), c.ty.clone(), None)).collect();
    let ty: TensorType = graph.ty(data.results[0]).clone();
    let node = one.push(data.op.clone(), inputs, [("y".into(), ty.clone())], Vec::new(), data.provenance.clone());
    let result = one.node(node).results[0];
    one.set_returns([result]);
    let arrays: Vec<Array> = constants.iter().map(|c| array(c)).collect::<Option<_>>()?;
    let outcome = Evaluator::native().evaluate(&one, &arrays, &|_| None).ok()?;
    let numbers: Vec<Number> = match &outcome.returns.first()?.data {
        Data::Float(values) => values.iter().map(|&v| Number::Float(v)).collect(),
        Data::Int(values) => values.iter().map(|&v| Number::Int(v)).collect(),
    };
    let first = *numbers.first()?;
    if numbers.iter().all(|n| *n == first) {
        Some(Literal::Splat(first))
    } else {
        Some(Literal::Dense(Arc::from(numbers)))
    }
}

fn array(constant: &op::Const) -> Option<Array> {
    Array::from_numbers(constant.ty.clone(), |position| constant.value.at(position))
}
