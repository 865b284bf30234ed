//! Pass `eliminate_dead`: drops nodes that no result or update depends on.
//!
//! ```text
//! graph @f(%x: f32[2]) {
//!   %a: f32[2] = relu %x
//!   %b: f32[2] = exp %x
//!   return %a
//! }
//! ```
//! becomes
//! ```text
//! graph @f(%x: f32[2]) {
//!   %a: f32[2] = relu %x
//!   return %a
//! }
//! ```

use kiln_ir::graph::{Graph, ValueMap};
use kiln_ir::{Diagnostic, Module};

use super::{Changed, Pass, Remarks, each_graph};

/// The pass.
#[derive(Debug)]
pub struct EliminateDead;

impl Pass for EliminateDead {
    fn name(&self) -> &'static str {
        "eliminate_dead"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, remarks, |graph, remarks| {
            let next = eliminate(graph);
            remarks.rewrote(next.as_ref().map_or(0, |next| graph.nodes().len() - next.nodes().len()));
            Ok(next)
        })
    }
}

/// The graph without dead nodes, if there are any.
pub fn eliminate(graph: &Graph) -> Option<Graph> {
    let mut live = vec![false; graph.value_count()];
    graph.roots().for_each(|v| live[v.index()] = true);
    let nodes: Vec<_> = graph.nodes().collect();
    let mut kept = 0;
    for (_, data) in nodes.iter().rev() {
        if data.results.iter().any(|v| live[v.index()]) {
            data.operands.iter().for_each(|v| live[v.index()] = true);
            kept += 1;
        }
    }
    if kept == nodes.len() {
        return None;
    }
    let mut next = graph.successor();
    let mut map = ValueMap::params(graph);
    for (_, data) in nodes {
        if data.results.iter().any(|v| live[v.index()]) {
            next.push_copy(graph, data, &mut map);
        }
    }
    next.finish_copy(graph, &map);
    Some(next)
}
