//! Growing groups in program order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use kiln_ir::body::{Body, IndexExpr};
use kiln_ir::graph::{Node, NodeData, Value};
use kiln_ir::op::Op;
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use super::Verdict;
use super::region::{self, Facts, is_leaf};
use crate::loops::build::contract::is_movement;
use crate::loops::build::{Declined, is_expensive};
use crate::pass::{Remark, Remarks};

/// Members of one kernel at most: keeps the search for a form linear in the graph.
const MOST_MEMBERS: usize = 64;
/// Kernels that the search for a cycle looks at, at most.
const MOST_VISITED: usize = 256;

/// A partition of the nodes into kernels.
#[derive(Debug)]
pub(super) struct Groups {
    /// Group of each node.
    of: Vec<usize>,
    /// Members of each group in program order; empty if it was merged into another.
    members: Vec<Vec<Node>>,
    /// For each group the last node of it and of all groups that have to run before it.
    latest: Vec<Node>,
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
            latest: graph.nodes().map(|(node, _)| node).collect(),
        };
        for (node, data) in graph.nodes() {
            if matches!(kinds[node.index()], Kind::Leaf | Kind::Alone) {
                continue;
            }
            for value in producers(facts, node) {
                let Some((producer, _)) = graph.producer(value) else { continue };
                if kinds[producer.index()] == Kind::Alone || groups.of[producer.index()] == groups.of[node.index()] {
                    continue;
                }
                let verdict = groups.join(facts, &kinds, value, node);
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
    fn join(&mut self, facts: &Facts<'_>, kinds: &[Kind], value: Value, node: Node) -> Verdict {
        let Some((producer, _)) = facts.graph.producer(value) else { return Verdict::Cycle };
        let (from, to) = (self.of[producer.index()], self.of[node.index()]);
        let mut union: Vec<Node> = self.members[from].iter().chain(&self.members[to]).copied().collect();
        union.sort_unstable();
        let has = |kind| union.iter().any(|n| kinds[n.index()] == kind);
        let verdict = if has(Kind::Opaque) {
            Verdict::Form(Declined::Body)
        } else if kinds[node.index()] == Kind::Contraction && !self.only_moves(facts, from) {
            Verdict::ContractionOperand
        } else if has(Kind::Scatter) {
            Verdict::Scatter
        } else if union.len() > MOST_MEMBERS {
            Verdict::Size
        } else if repeats_expensive(facts, value, node, &self.members[from]) {
            Verdict::Recompute
        } else if self.is_cyclic(facts, &union) {
            Verdict::Cycle
        } else if self.pulls_up(facts, kinds, from, to, &union) {
            Verdict::Early
        } else {
            region::of(facts, &union).verdict(facts)
        };
        if verdict == Verdict::Fused {
            union.iter().for_each(|n| self.of[n.index()] = from);
            self.members[to].clear();
            self.members[from] = union;
            self.latest[from] = self.latest[from].max(self.latest[to]);
            self.delay_users(facts, from);
        }
        verdict
    }

    /// Whether a group does nothing but move elements, which a contraction reads through.
    fn only_moves(&self, facts: &Facts<'_>, group: usize) -> bool {
        self.members[group].iter().all(|&node| matches!(facts.body(node), Body::Map(map) if is_movement(map)))
    }

    /// Notes in every group that reads `group`, directly or not, that it cannot run before it.
    fn delay_users(&mut self, facts: &Facts<'_>, group: usize) {
        let mut work = vec![group];
        while let Some(group) = work.pop() {
            let latest = self.latest[group];
            for &member in &self.members[group] {
                for &result in &facts.graph.node(member).results {
                    for user in &facts.users[result.index()] {
                        let user = self.of[user.index()];
                        if self.latest[user] < latest {
                            self.latest[user] = latest;
                            work.push(user);
                        }
                    }
                }
            }
        }
    }

    /// Whether a path leaves `union` and comes back.
    fn is_cyclic(&self, facts: &Facts<'_>, union: &[Node]) -> bool {
        let inside: HashSet<Node> = union.iter().copied().collect();
        let Some(first) = union.first() else { return false };
        let mut seen: HashSet<usize> = HashSet::new();
        let mut work: Vec<Node> = Vec::new();
        let outside = |node: Node, work: &mut Vec<Node>| {
            for value in producers(facts, node) {
                if let Some((producer, _)) = facts.graph.producer(value) {
                    work.push(producer);
                }
            }
        };
        for &node in union {
            let mut direct = Vec::new();
            outside(node, &mut direct);
            work.extend(direct.into_iter().filter(|p| !inside.contains(p)));
        }
        while let Some(node) = work.pop() {
            if inside.contains(&node) {
                return true;
            }
            let group = self.of[node.index()];
            // A group may lie before the union and yet wait for one that lies around it.
            if self.latest[group] < *first || !seen.insert(group) {
                continue;
            }
            if seen.len() > MOST_VISITED {
                return true;
            }
            self.members[group].iter().for_each(|&n| outside(n, &mut work));
        }
        false
    }

    /// Whether a contraction that the program has behind the first reader of `from` would have to run before it, because
    /// `to` needs it. So what a backward computes again, to keep less, is not computed in the forward and kept.
    fn pulls_up(&self, facts: &Facts<'_>, kinds: &[Kind], from: usize, to: usize, union: &[Node]) -> bool {
        let graph = facts.graph;
        let outside = |node: &Node| union.binary_search(node).is_err();
        let needed = self.members[to].iter().flat_map(|&node| producers(facts, node));
        let needed = needed.filter_map(|value| graph.producer(value)).map(|(node, _)| node);
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
            let read = if direct { data.operands.to_vec() } else { producers(facts, node) };
            for value in read {
                if let Some((producer, _)) = graph.producer(value) {
                    let other = self.of[producer.index()];
                    if other != own {
                        dag.update_edge(index[other], index[own], ());
                    }
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

/// Values that a node reads, looking through leaves that are copied to it.
fn producers(facts: &Facts<'_>, node: Node) -> Vec<Value> {
    let mut found = Vec::new();
    let through = !facts.reads_memory(node);
    let mut work: Vec<Value> = facts.graph.node(node).operands.iter().rev().copied().collect();
    while let Some(value) = work.pop() {
        match facts.graph.producer(value) {
            Some((_, leaf)) if through && is_leaf(leaf) => work.extend(&leaf.operands),
            Some(_) if !found.contains(&value) => found.push(value),
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
