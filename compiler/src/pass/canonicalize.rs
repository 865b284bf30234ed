//! Pass `canonicalize`: one form for things that can be written in several ways, and nothing where nothing is done.
//!
//! ```text
//! %a: f32[2, 3] = transpose %x {permutation = [0, 1]}
//! %b: f32[6] = reshape %a
//! %c: f32[3, 2] = reshape %b
//! return %c
//! ```
//! becomes
//! ```text
//! %c: f32[3, 2] = reshape %x
//! return %c
//! ```
//! Every rule keeps the bits: `x * 1` is `x`, `x + 0` is not where `x` may be -0.

use kiln_ir::attribute::Literal;
use kiln_ir::graph::{Graph, NodeData, Value, ValueMap};
use kiln_ir::op::{Elementwise, Op};
use kiln_ir::{Diagnostic, Module};

use super::{Changed, Pass, Remarks, each_graph};

/// The pass.
#[derive(Debug)]
pub struct Canonicalize;

impl Pass for Canonicalize {
    fn name(&self) -> &'static str {
        "canonicalize"
    }

    fn run(&self, module: &mut Module, _: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, |graph| Ok(canonicalize(graph)))
    }
}

fn canonicalize(graph: &Graph) -> Option<Graph> {
    let mut next = graph.successor();
    let mut map = ValueMap::params(graph);
    let mut changed = false;
    for (_, data) in graph.nodes() {
        let operands: Vec<Value> = data.operands.iter().map(|&v| map.get(v)).collect();
        if let Some(same) = identity(graph, &next, data, &operands) {
            map.set(data.results[0], same);
            changed = true;
            continue;
        }
        // A reshape of a reshape reads the first one's operand.
        let inner = match &data.op {
            Op::Reshape(_) => next.producer(operands[0]).filter(|(_, p)| matches!(p.op, Op::Reshape(_))),
            _ => None,
        };
        let Some(source) = inner.map(|(_, p)| p.operands[0]) else {
            next.push_copy(graph, data, &mut map);
            continue;
        };
        changed = true;
        let result = (graph.value_name(data.results[0]).clone(), graph.ty(data.results[0]).clone());
        let node = next.push(data.op.clone(), [source], [result], Vec::new(), data.provenance.clone());
        map.set(data.results[0], next.node(node).results[0]);
    }
    if !changed {
        return None;
    }
    next.finish_copy(graph, &map);
    Some(next)
}

/// The operand that a node returns as it is.
fn identity(graph: &Graph, next: &Graph, data: &NodeData, operands: &[Value]) -> Option<Value> {
    let &first = operands.first()?;
    let same_type = next.ty(first) == graph.ty(*data.results.first()?);
    let ascending = |dims: &[i64]| dims.iter().enumerate().all(|(i, &d)| d == i as i64);
    let zero = |v: &[i64]| v.iter().all(|&x| x == 0);
    let holds = match &data.op {
        Op::Reshape(_) | Op::Cast(_) | Op::Relayout(_) => same_type,
        Op::Broadcast(op) => same_type && ascending(&op.dims),
        Op::Transpose(op) => ascending(&op.permutation),
        Op::Slice(op) => same_type && zero(&op.start) && op.step.iter().all(|&s| s == 1),
        Op::Pad(op) => zero(&op.low) && zero(&op.high),
        Op::Reverse(op) => op.dims.is_empty(),
        Op::Concat(_) => operands.len() == 1,
        Op::ReduceSum(op) => op.dims.is_empty(),
        Op::Elementwise(Elementwise::Mul | Elementwise::Div) => is_splat(next, operands[1], 1.0),
        _ => false,
    };
    if holds {
        return Some(first);
    }
    let one_first = matches!(data.op, Op::Elementwise(Elementwise::Mul)) && is_splat(next, first, 1.0);
    one_first.then(|| operands[1])
}

/// Whether every element is `number`.
fn is_splat(graph: &Graph, value: Value, number: f64) -> bool {
    match graph.producer(value).map(|(_, data)| &data.op) {
        Some(Op::Const(op)) => matches!(&op.value, Literal::Splat(n) if n.to_f64() == number),
        _ => false,
    }
}
