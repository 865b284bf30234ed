//! Pass `eliminate_common`: one node for equal ops on equal operands.
//!
//! ```text
//! graph @f(%x: f32[2]) {
//!   %a: f32[2] = exp %x
//!   %b: f32[2] = exp %x
//!   %c: f32[2] = add %a, %b
//!   return %c
//! }
//! ```
//! becomes
//! ```text
//! graph @f(%x: f32[2]) {
//!   %a: f32[2] = exp %x
//!   %c: f32[2] = add %a, %a
//!   return %c
//! }
//! ```
//! Random ops differ by their stream, so none are merged that should differ.

use std::collections::HashMap;
use std::fmt::Write;

use kiln_ir::attribute::Literal;
use kiln_ir::graph::{Graph, NodeData, Value, ValueMap};
use kiln_ir::op::Op;
use kiln_ir::{Diagnostic, Module};

use super::{Changed, Pass, Remarks, each_graph};

/// The pass.
#[derive(Debug)]
pub struct EliminateCommon;

impl Pass for EliminateCommon {
    fn name(&self) -> &'static str {
        "eliminate_common"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, remarks, |graph, remarks| Ok(eliminate(graph, remarks)))
    }
}

fn eliminate(graph: &Graph, remarks: &mut Remarks) -> Option<Graph> {
    let mut next = graph.successor();
    let mut map = ValueMap::params(graph);
    let mut seen: HashMap<String, Vec<Value>> = HashMap::new();
    let mut merged = false;
    for (_, data) in graph.nodes() {
        let key = key(graph, data, &map);
        if let Some(results) = key.as_ref().and_then(|key| seen.get(key)) {
            data.results.iter().zip(results).for_each(|(&old, &new)| map.set(old, new));
            merged = true;
            remarks.rewrote(1);
            continue;
        }
        let node = next.push_copy(graph, data, &mut map);
        if let Some(key) = key {
            seen.insert(key, next.node(node).results.to_vec());
        }
    }
    next.finish_copy(graph, &map);
    merged.then_some(next)
}

/// What two equal nodes share; `None` for nodes that are never merged.
fn key(graph: &Graph, data: &NodeData, map: &ValueMap) -> Option<String> {
    let large = matches!(&data.op, Op::Const(c) if matches!(&c.value, Literal::Dense(numbers) if numbers.len() > 64));
    if !data.regions.is_empty() || large {
        return None;
    }
    let mut key = data.op.mnemonic().to_owned();
    for (_, value) in data.op.attributes() {
        let _ = write!(key, " {value}");
    }
    for &operand in &data.operands {
        let _ = write!(key, " %{}", map.get(operand).index());
    }
    for &result in &data.results {
        let _ = write!(key, " {}", graph.ty(result));
    }
    Some(key)
}
