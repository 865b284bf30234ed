//! Pass `decompose`: replaces composites by the ops they are made of.
//!
//! ```text
//! graph @f(%x: f32[2, 3]) {
//!   %y: f32[2, 3] = softmax %x {dim = 1}
//!   return %y
//! }
//! ```
//! becomes
//! ```text
//! graph @f(%x: f32[2, 3]) {
//!   %y.reduce_max: f32[2] = reduce_max %x {dims = [1]}
//!   %y.broadcast: f32[2, 3] = broadcast %y.reduce_max {dims = [0]}
//!   %y.sub: f32[2, 3] = sub %x, %y.broadcast
//!   %y.exp: f32[2, 3] = exp %y.sub
//!   %y.reduce_sum: f32[2] = reduce_sum %y.exp {dims = [1]}
//!   %y.broadcast.1: f32[2, 3] = broadcast %y.reduce_sum {dims = [0]}
//!   %y: f32[2, 3] = div %y.exp, %y.broadcast.1
//!   return %y
//! }
//! ```

use kiln_ir::body::Body;
use kiln_ir::builder::GraphBuilder;
use kiln_ir::graph::{Graph, NodeData, Value, ValueMap};
use kiln_ir::op::Op;
use kiln_ir::types::Name;
use kiln_ir::{Diagnostic, Module};

use super::{Changed, Pass, Remarks, each_graph, inline};
use crate::loops::build::body_of;

/// The pass.
#[derive(Debug)]
pub struct Decompose;

impl Pass for Decompose {
    fn name(&self) -> &'static str {
        "decompose"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, remarks, |graph, remarks| inline_composites(graph, |_| true, remarks))
    }
}

/// Inlines composites for which `select` holds, until none is left.
pub(super) fn inline_composites(
    graph: &Graph,
    select: impl Fn(&Op) -> bool,
    remarks: &mut Remarks,
) -> Result<Option<Graph>, Vec<Diagnostic>> {
    let mut current: Option<Graph> = None;
    loop {
        let source = current.as_ref().unwrap_or(graph);
        match inline_once(source, &select, remarks)? {
            Some(next) => current = Some(next),
            None => return Ok(current),
        }
    }
}

fn inline_once(
    graph: &Graph,
    select: &impl Fn(&Op) -> bool,
    remarks: &mut Remarks,
) -> Result<Option<Graph>, Vec<Diagnostic>> {
    let composite = |data: &NodeData| match select(&data.op).then(|| body_of(graph, data)) {
        Some(Body::Composite(composite)) => Some(composite),
        _ => None,
    };
    let composites: Vec<Option<Box<Graph>>> = graph.nodes().map(|(_, data)| composite(data)).collect();
    if composites.iter().all(Option::is_none) {
        return Ok(None);
    }
    let builder = GraphBuilder::over(graph.successor());
    let mut map = ValueMap::params(graph);
    for ((_, data), composite) in graph.nodes().zip(composites) {
        let Some(composite) = composite else {
            builder.with_graph_mut(|g| g.push_copy(graph, data, &mut map));
            continue;
        };
        remarks.rewrote(1);
        let operands: Vec<Value> = data.operands.iter().map(|&v| map.get(v)).collect();
        let names: Vec<Name> = data.results.iter().map(|&v| graph.value_name(v).clone()).collect();
        let results = inline(&builder, &composite, &operands, &names, &data.provenance);
        data.results.iter().zip(results).for_each(|(&old, new)| map.set(old, new));
    }
    builder.with_graph_mut(|g| g.finish_copy(graph, &map));
    builder.finish().map(Some)
}
