//! Pass `fuse`: forms groups of nodes that become one kernel each. Nothing else forms kernels.
//!
//! ```text
//! graph @f(%x: f32[2, 3], %y: f32[2, 3]) {
//!   %a: f32[2, 3] = exp %x
//!   %b: f32[2, 3] = add %a, %y
//!   return %b
//! }
//! ```
//! becomes
//! ```text
//! graph @f(%x: f32[2, 3], %y: f32[2, 3]) {
//!   %b: f32[2, 3] = fused %x, %y {kind = "map"} { (%x: f32[2, 3], %y: f32[2, 3]) ->
//!     %a: f32[2, 3] = exp %x
//!     %b: f32[2, 3] = add %a, %y
//!     yield %b
//!   }
//!   return %b
//! }
//! ```
//! Groups grow in program order: a node joins the groups of its producers, one after the other, if the union is one
//! kernel: a contraction or a pool with an epilogue that the micro-kernels have, or a row program. Constants, positions and
//! broadcasts cost nothing and are copied into every group that reads them. Every edge that was considered leaves a
//! remark with a code of [`Verdict`].

mod groups;
mod order;
mod region;

use kiln_ir::graph::{Graph, ValueMap};
use kiln_ir::op::{self, Op};
use kiln_ir::types::Name;
use kiln_ir::{Diagnostic, Module};

use super::{Changed, Pass, Remarks, each_graph};
use crate::loops::build::Declined;

use groups::Groups;
use region::Facts;

/// The pass.
#[derive(Debug)]
pub struct Fuse;

/// What became of a candidate edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Both ends are in one kernel.
    Fused,
    /// The union would have more members than a kernel may.
    Size,
    /// Another kernel would have to run in the middle of this one.
    Cycle,
    /// A contraction that the program has behind a reader of this kernel would have to run before it.
    Early,
    /// A contraction or a pool reads its operands from memory.
    ContractionOperand,
    /// The micro-kernels have no such epilogue; the text says which rule it breaks.
    Epilogue(&'static str),
    /// A scatter runs alone.
    Scatter,
    /// An expensive value would be computed once per reader.
    Recompute,
    /// The union is no row program.
    Form(Declined),
}

impl Verdict {
    /// Stable code.
    pub fn code(self) -> &'static str {
        match self {
            Verdict::Fused => "fused",
            Verdict::Size => "size",
            Verdict::Cycle => "cycle",
            Verdict::Early => "early",
            Verdict::ContractionOperand => "contraction_operand",
            Verdict::Epilogue(_) => "epilogue",
            Verdict::Scatter => "scatter",
            Verdict::Recompute => "recompute",
            Verdict::Form(Declined::Body) => "body",
            Verdict::Form(Declined::Reductions) => "reductions",
            Verdict::Form(Declined::Domain) => "domain",
            Verdict::Form(Declined::Row) => "row",
            Verdict::Form(Declined::Guard) => "guard",
        }
    }

    /// Every code, for the tests that want a fixture for each.
    pub const CODES: [&'static str; 13] = [
        "fused",
        "size",
        "cycle",
        "early",
        "contraction_operand",
        "epilogue",
        "scatter",
        "recompute",
        "body",
        "reductions",
        "domain",
        "row",
        "guard",
    ];

    fn text(self) -> String {
        match self {
            Verdict::Fused => "one kernel".into(),
            Verdict::Size => "the kernel would have too many members".into(),
            Verdict::Cycle => "another kernel has to run in between".into(),
            Verdict::Early => "a contraction further below would have to run before what reads this".into(),
            Verdict::ContractionOperand => "a micro-kernel reads its operands from memory".into(),
            Verdict::Epilogue(reason) => reason.into(),
            Verdict::Scatter => "a scatter runs alone".into(),
            Verdict::Recompute => "an expensive value would be computed once per reader".into(),
            Verdict::Form(declined) => declined.to_string(),
        }
    }
}

impl Pass for Fuse {
    fn name(&self) -> &'static str {
        "fuse"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, remarks, |graph, remarks| {
            if graph.nodes().any(|(_, data)| matches!(data.op, Op::Fused(_))) {
                return Ok(None);
            }
            let facts = Facts::new(graph);
            let groups = Groups::form(&facts, remarks);
            let next = rewrite(&facts, &groups);
            remarks.rewrote(next.nodes().filter(|(_, data)| matches!(data.op, Op::Fused(_))).count());
            Ok((next != *graph).then_some(next))
        })
    }
}

/// Writes groups of more than one node as `fused` nodes, in an order in which every kernel's operands come first.
fn rewrite(facts: &Facts<'_>, groups: &Groups) -> Graph {
    let graph = facts.graph;
    let mut next = graph.successor();
    let mut map = ValueMap::params(graph);
    let wanted = region::materialized(facts);
    for members in groups.ordered(facts) {
        if members.iter().all(|m| region::is_leaf(graph.node(*m)) && !wanted[m.index()]) {
            continue;
        }
        let kernel = region::of(facts, &members);
        if kernel.is_single() {
            for &member in &members {
                next.push_copy(graph, graph.node(member), &mut map);
            }
            continue;
        }
        let operands: Vec<_> = kernel.operands.iter().map(|&v| map.get(v)).collect();
        let results: Vec<(Name, _)> =
            kernel.results.iter().map(|&v| (graph.value_name(v).clone(), graph.ty(v).clone())).collect();
        let provenance = graph.node(members[members.len() - 1]).provenance.clone();
        let op = op::Fused { kind: kernel.kind(facts).into() };
        let node = next.push(op.into(), operands, results, vec![kernel.region], provenance);
        let new = next.node(node).results.clone();
        kernel.results.iter().zip(new).for_each(|(&old, new)| map.set(old, new));
    }
    next.finish_copy(graph, &map);
    super::eliminate_dead::eliminate(&next).unwrap_or(next)
}
