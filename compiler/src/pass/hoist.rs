//! Pass `hoist`: what an inference graph computes from states and constants alone moves to the graph `@prepare`.
//!
//! ```text
//! state @w: f32[2] = param glorot
//!
//! graph @predict(%x: f32[2]) {
//!   %w: f32[2] = state @w
//!   %e: f32[2] = exp %w
//!   %y: f32[2] = mul %x, %e
//!   return %y
//! }
//! ```
//! becomes
//! ```text
//! state @w: f32[2] = param glorot
//! state @prepared.predict.e: f32[2] = derived constant {value = 0.0}
//!
//! graph @predict(%x: f32[2]) {
//!   %e: f32[2] = state @prepared.predict.e
//!   %y: f32[2] = mul %x, %e
//!   return %y
//! }
//!
//! graph @prepare() {
//!   %w: f32[2] = state @w
//!   %e: f32[2] = exp %w
//!   return update @prepared.predict.e = %e
//! }
//! ```
//! `@prepare` is compiled like any other graph and runs whenever weights have changed. Graphs that update states are
//! left alone: their states change under them.

use kiln_ir::graph::{Graph, NodeData, Value, ValueMap};
use kiln_ir::module::{Initializer, Role, State};
use kiln_ir::op::{self, Op};
use kiln_ir::types::Name;
use kiln_ir::{Diagnostic, Module};

use super::eliminate_dead::eliminate;
use super::{Changed, Pass, Remarks};

/// Name of the graph.
pub const PREPARE: &str = "prepare";
/// What names of prepared states begin with.
pub const PREPARED: &str = "prepared.";

/// The pass.
#[derive(Debug)]
pub struct Hoist;

impl Pass for Hoist {
    fn name(&self) -> &'static str {
        "hoist"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        let mut prepare = module.graphs.get(PREPARE).cloned().unwrap_or_else(|| Graph::new(PREPARE));
        let mut changed = Changed::No;
        let Module { states, graphs, .. } = module;
        for (name, graph) in graphs.iter_mut() {
            if &**name == PREPARE || !graph.updates().is_empty() {
                continue;
            }
            let Some(hoisted) = hoist(graph, &mut prepare) else { continue };
            remarks.rewrote(hoisted.states.len());
            for (state, ty) in hoisted.states {
                let init = Initializer::Constant(0.0);
                states.insert(state, State { ty, role: Role::Derived, init, source: None });
            }
            *graph = hoisted.graph;
            changed = Changed::Yes;
        }
        if changed == Changed::Yes {
            module.add_graph(prepare);
        }
        Ok(changed)
    }
}

struct Hoisted {
    graph: Graph,
    states: Vec<(Name, kiln_ir::TensorType)>,
}

/// Whether a node is worth a state: it computes something that a read would not give for free.
fn computes(graph: &Graph, data: &NodeData) -> bool {
    let widens = || graph.ty(data.operands[0]).dtype.is_read_as(graph.ty(data.results[0]).dtype);
    if matches!(data.op, Op::Cast(_)) && widens() {
        return false;
    }
    !matches!(data.op, Op::State(_) | Op::Const(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Iota(_) | Op::Relayout(_))
}

fn hoist(graph: &Graph, prepare: &mut Graph) -> Option<Hoisted> {
    let mut fixed = vec![false; graph.value_count()];
    let mut reads_state = vec![false; graph.value_count()];
    for (_, data) in graph.nodes() {
        let source = matches!(data.op, Op::State(_) | Op::Const(_) | Op::Iota(_));
        let all = source || (!data.operands.is_empty() && data.operands.iter().all(|v| fixed[v.index()]));
        let any = matches!(data.op, Op::State(_)) || data.operands.iter().any(|v| reads_state[v.index()]);
        for v in &data.results {
            fixed[v.index()] = all;
            reads_state[v.index()] = any;
        }
    }
    let frontier: Vec<Value> = frontier(graph, &fixed, &reads_state);
    if frontier.is_empty() {
        return None;
    }
    let mut map = ValueMap::empty(graph);
    for (_, data) in graph.nodes().filter(|(_, data)| data.results.iter().all(|v| fixed[v.index()])) {
        prepare.push_copy(graph, data, &mut map);
    }
    let mut next = graph.successor();
    let mut own = ValueMap::params(graph);
    let mut states = Vec::new();
    for &value in &frontier {
        let name = Name::from(format!("{PREPARED}{}.{}", graph.name(), graph.value_name(value)));
        let ty = graph.ty(value).clone();
        prepare.add_update(name.clone(), map.get(value));
        let op = op::State { ty: ty.clone(), name: name.clone() };
        let provenance = graph.producer(value).map(|(_, data)| data.provenance.clone()).unwrap_or_default();
        let node = next.push(op.into(), [], [(graph.value_name(value).clone(), ty.clone())], Vec::new(), provenance);
        own.set(value, next.node(node).results[0]);
        states.push((name, ty));
    }
    for (_, data) in graph.nodes() {
        let done = data.results.iter().all(|v| own.try_get(*v).is_some());
        let ready = data.operands.iter().all(|v| own.try_get(*v).is_some());
        if !done && ready {
            next.push_copy(graph, data, &mut own);
        }
    }
    next.finish_copy(graph, &own);
    *prepare = eliminate(prepare).unwrap_or_else(|| prepare.clone());
    Some(Hoisted { graph: eliminate(&next).unwrap_or(next), states })
}

/// Computed values that depend on states only and that something else reads.
fn frontier(graph: &Graph, fixed: &[bool], reads_state: &[bool]) -> Vec<Value> {
    let users = graph.users();
    let roots: Vec<Value> = graph.roots().collect();
    let wanted = |v: &Value| {
        let computed = graph.producer(*v).is_some_and(|(_, data)| computes(graph, data));
        let leaves = roots.contains(v)
            || users[v.index()].iter().any(|user| {
                let data = graph.node(*user);
                data.results.iter().any(|r| !fixed[r.index()]) || !computes(graph, data)
            });
        fixed[v.index()] && reads_state[v.index()] && computed && leaves
    };
    graph.values().filter(wanted).collect()
}
