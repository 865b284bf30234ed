//! Growing groups in program order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use kiln_ir::body::{Body, IndexExpr};
use kiln_ir::graph::{Node, NodeData, Value};
use kiln_ir::op::Op;
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use smallvec::SmallVec;

use super::Verdict;
use super::order::Order;
use super::region::{self, Facts, is_leaf};
use crate::loops::build::contract::is_movement;
use crate::loops::build::{Declined, is_expensive};
use crate::pass::{Remark, Remarks};

/// Members of one kernel at most: keeps the search for a form linear in the graph.
const MOST_MEMBERS: usize = 64;

/// A partition of the nodes into kernels.
#[derive(Debug)]
pub(super) struct Groups {
    /// Group of each node.
    of: Vec<usize>,
    /// Members of each group in program order; empty if it was merged into another.
    members: Vec<Vec<Node>>,
    order: Order,
    /// For each node the values that it reads, looking through leaves that are copied to it, and who defines them.
    reads: Vec<SmallVec<[(Value, Node); 4]>>,
}

/// What a node is to this pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Copied to its readers.
    Leaf,
    /// No computation: states, tables of constants, views.
    Alone,
    /// Has no body of one map, so it joins nobody.
    Opaque,
    Scatter,
    Contraction,
    Map,
}

fn kind_of(facts: &Facts<'_>, node: Node, data: &NodeData) -> Kind {
    if is_leaf(data) {
        return Kind::Leaf;
    }
    if matches!(data.op, Op::State(_) | Op::Const(_) | Op::Reshape(_) | Op::Relayout(_) | Op::Fused(_)) {
        return Kind::Alone;
    }
    match facts.body(node) {
        Body::Scatter(_) => Kind::Scatter,
        Body::Map(_) if facts.reads_memory(node) => Kind::Contraction,
        Body::Map(_) => Kind::Map,
        _ => Kind::Opaque,
    }
}

impl Groups {
    /// Forms the groups of a graph.
    pub(super) fn form(facts: &Facts<'_>, remarks: &mut Remarks) -> Groups {
        let graph = facts.graph;
        let kinds: Vec<Kind> = graph.nodes().map(|(node, data)| kind_of(facts, node, data)).collect();
        let mut groups = Groups {
            of: (0..kinds.len()).collect(),
            members: graph.nodes().map(|(node, _)| vec![node]).collect(),
            order: Order::new(kinds.len()),
            reads: graph.nodes().map(|(node, _)| producers(facts, node)).collect(),
        };
        for (node, data) in graph.nodes() {
            if matches!(kinds[node.index()], Kind::Leaf | Kind::Alone) {
                continue;
            }
            for (value, producer) in groups.reads[node.index()].clone() {
                if kinds[producer.index()] == Kind::Alone || groups.of[producer.index()] == groups.of[node.index()] {
                    continue;
                }
                let verdict = groups.join(facts, &kinds, (value, producer), node);
                remarks.push(Remark {
                    pass: "fuse",
                    graph: graph.name().into(),
                    value: graph.value_name(data.results[0]).clone(),
                    code: verdict.code(),
                    message: format!("with %{}: {}", graph.value_name(value), verdict.text()),
                });
            }
        }
        groups
    }

    /// Merges the group that defines `value` with the group of `node`, if the union is one kernel.
    fn join(&mut self, facts: &Facts<'_>, kinds: &[Kind], (value, producer): (Value, Node), node: Node) -> Verdict {
        let (from, to) = (self.of[producer.index()], self.of[node.index()]);
        let mut union: Vec<Node> = self.members[from].iter().chain(&self.members[to]).copied().collect();
        union.sort_unstable();
        let has = |kind| union.iter().any(|n| kinds[n.index()] == kind);
        let declined = if has(Kind::Opaque) {
            Some(Verdict::Form(Declined::Body))
        } else if kinds[node.index()] == Kind::Contraction && !self.only_moves(facts, from) {
            Some(Verdict::ContractionOperand)
        } else if has(Kind::Scatter) {
            Some(Verdict::Scatter)
        } else if union.len() > MOST_MEMBERS {
            Some(Verdict::Size)
        } else if repeats_expensive(facts, value, node, &self.members[from]) {
            Some(Verdict::Recompute)
        } else {
            None
        };
        if let Some(declined) = declined {
            return declined;
        }
        let Some(before) = self.between(from, to) else { return Verdict::Cycle };
        if self.pulls_up(facts, kinds, from, to, &union) {
            return Verdict::Early;
        }
        let verdict = region::of(facts, &union).verdict(facts);
        if verdict == Verdict::Fused {
            union.iter().for_each(|n| self.of[n.index()] = from);
            self.members[to].clear();
            self.members[from] = union;
            self.order.merge(from, to, before);
        }
        verdict
    }

    /// Groups that have to run between two, unless they make a cycle of the union.
    fn between(&mut self, from: usize, to: usize) -> Option<Vec<usize>> {
        let Groups { order, of, members, reads } = self;
        order.between(from, to, |group, needed| {
            let producers = members[group].iter().flat_map(|node| &reads[node.index()]).map(|(_, node)| node);
            producers.map(|node| of[node.index()]).filter(|other| *other != group).for_each(needed);
        })
    }

    /// Whether a group does nothing but move elements, which a contraction reads through.
    fn only_moves(&self, facts: &Facts<'_>, group: usize) -> bool {
        self.members[group].iter().all(|&node| matches!(facts.body(node), Body::Map(map) if is_movement(map)))
    }

    /// Whether a contraction that the program has behind the first reader of `from` would have to run before it, because
    /// `to` needs it. So what a backward computes again, to keep less, is not computed in the forward and kept.
    fn pulls_up(&self, facts: &Facts<'_>, kinds: &[Kind], from: usize, to: usize, union: &[Node]) -> bool {
        let graph = facts.graph;
        let outside = |node: &Node| union.binary_search(node).is_err();
        let needed = self.members[to].iter().flat_map(|node| &self.reads[node.index()]).map(|(_, node)| *node);
        let Some(last) = needed.filter(|n| outside(n) && kinds[n.index()] == Kind::Contraction).max() else {
            return false;
        };
        let results = self.members[from].iter().flat_map(|&node| &graph.node(node).results);
        let mut readers = results.flat_map(|result| &facts.users[result.index()]).filter(|n| outside(n));
        readers.any(|reader| *reader < last)
    }

    /// The kernels in an order in which operands come first; leaves are kernels of their own, dropped if unread.
    pub(super) fn ordered(&self, facts: &Facts<'_>) -> Vec<Vec<Node>> {
        let graph = facts.graph;
        let mut dag: DiGraph<usize, ()> = DiGraph::new();
        let mut index = vec![NodeIndex::default(); self.members.len()];
        for group in (0..self.members.len()).filter(|&g| !self.members[g].is_empty()) {
            index[group] = dag.add_node(group);
        }
        for (node, data) in graph.nodes() {
            let own = self.of[node.index()];
            // A leaf is copied to its readers: only those that read it from memory wait for it.
            let direct = is_leaf(data) || facts.reads_memory(node) || region::is_view(data);
            let operands = data.operands.iter().filter_map(|value| graph.producer(*value)).map(|(node, _)| node);
            let read: SmallVec<[Node; 4]> = match direct {
                true => operands.collect(),
                false => self.reads[node.index()].iter().map(|(_, node)| *node).collect(),
            };
            for producer in read {
                let other = self.of[producer.index()];
                if other != own {
                    dag.update_edge(index[other], index[own], ());
                }
            }
        }
        program_order(&dag, |group| self.members[group].first().copied())
            .into_iter()
            .map(|group| self.members[group].clone())
            .collect()
    }
}

/// A topological order that follows the program: of the groups that may run, the one that the program needs first, for
/// its own first member or for that of a group that waits for it. The last member says less: of a gradient in one kernel
/// with the update that it serves, it is at the end of the program, and everything else would run before it and be kept.
fn program_order(dag: &DiGraph<usize, ()>, first: impl Fn(usize) -> Option<Node>) -> Vec<usize> {
    let mut urgent: Vec<Option<Node>> = dag.node_indices().map(|i| first(dag[i])).collect();
    // Groups are merged only without a cycle; a defect there would show as kernels that are missing.
    let sorted = petgraph::algo::toposort(dag, None).unwrap_or_default();
    for i in sorted.into_iter().rev() {
        for user in dag.neighbors(i) {
            urgent[i.index()] = urgent[i.index()].min(urgent[user.index()]);
        }
    }
    let mut waiting: Vec<usize> =
        dag.node_indices().map(|i| dag.edges_directed(i, Direction::Incoming).count()).collect();
    let key = |i: NodeIndex| Reverse((urgent[i.index()], i));
    let free = dag.node_indices().filter(|i| waiting[i.index()] == 0);
    let mut ready: BinaryHeap<_> = free.map(key).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(Reverse((_, next))) = ready.pop() {
        order.push(dag[next]);
        for user in dag.neighbors(next) {
            waiting[user.index()] -= 1;
            if waiting[user.index()] == 0 {
                ready.push(key(user));
            }
        }
    }
    order
}

/// Values that a node reads, looking through leaves that are copied to it, with the nodes that define them.
fn producers(facts: &Facts<'_>, node: Node) -> SmallVec<[(Value, Node); 4]> {
    let mut found = SmallVec::new();
    let through = !facts.reads_memory(node);
    let mut work: Vec<Value> = facts.graph.node(node).operands.iter().rev().copied().collect();
    while let Some(value) = work.pop() {
        match facts.graph.producer(value) {
            Some((_, leaf)) if through && is_leaf(leaf) => work.extend(&leaf.operands),
            Some((producer, _)) if !found.contains(&(value, producer)) => found.push((value, producer)),
            _ => {}
        }
    }
    found
}

/// Whether `node` reads each element of `value` several times and the group computes something expensive for it.
fn repeats_expensive(facts: &Facts<'_>, value: Value, node: Node, group: &[Node]) -> bool {
    let Body::Map(map) = facts.body(node) else { return true };
    let elements: usize = map.extents().iter().product();
    let loads = map.reads.iter().any(|read| read.index.iter().any(|i| matches!(i, IndexExpr::Load { .. })));
    let read = facts.graph.node(node).operands.contains(&value);
    let repeated = read && (loads || elements > facts.graph.ty(value).elements());
    repeated
        && group
            .iter()
            .any(|&member| matches!(facts.body(member), Body::Map(map) if is_expensive(map) || !map.reduce.is_empty()))
}
