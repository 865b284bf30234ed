//! The region of a set of nodes: what they read becomes a parameter, what others read becomes a result.

use std::collections::HashSet;

use kiln_ir::attribute::Literal;
use kiln_ir::graph::{Graph, Node, NodeData, Value, ValueMap};
use kiln_ir::op::Op;

use crate::loops::build::contract::is_contraction;

/// A kernel in the making.
pub(super) struct Kernel {
    /// Its region.
    pub(super) region: Graph,
    /// Values of the graph that it reads, in the order of the region's parameters.
    pub(super) operands: Vec<Value>,
    /// Values of the graph that it defines, in the order of the region's results.
    pub(super) results: Vec<Value>,
}

impl Kernel {
    /// Whether it is one node without copied leaves.
    pub(super) fn is_single(&self) -> bool {
        self.region.nodes().len() == 1
    }

    /// Whether a contraction is its root.
    pub(super) fn is_contraction(&self) -> bool {
        self.region.nodes().any(|(_, data)| is_contraction(&self.region, data))
    }
}

/// Whether a node costs nothing where it is read and is copied to every reader.
pub(super) fn is_leaf(data: &NodeData) -> bool {
    match &data.op {
        Op::Const(constant) => matches!(constant.value, Literal::Splat(_)),
        Op::Iota(_) | Op::Broadcast(_) => true,
        _ => false,
    }
}

/// Leaves that must exist by themselves: somebody reads them from memory.
pub(super) fn materialized(graph: &Graph) -> Vec<bool> {
    let mut wanted = vec![false; graph.nodes().len()];
    let mut value_wanted = vec![false; graph.value_count()];
    graph.roots().for_each(|v| value_wanted[v.index()] = true);
    let nodes: Vec<_> = graph.nodes().collect();
    for (node, data) in nodes.into_iter().rev() {
        let leaf = is_leaf(data);
        let own = data.results.iter().any(|v| value_wanted[v.index()]);
        wanted[node.index()] = own;
        if leaf && own || !leaf && (reads_memory(graph, data) || is_view(data)) {
            data.operands.iter().for_each(|v| value_wanted[v.index()] = true);
        }
    }
    wanted
}

/// Whether a node is another name for its operand's memory.
pub(super) fn is_view(data: &NodeData) -> bool {
    matches!(data.op, Op::Reshape(_) | Op::Relayout(_))
}

/// The kernel of `members`, which are in program order.
pub(super) fn of(graph: &Graph, members: &[Node]) -> Kernel {
    with_uses(graph, members, &graph.users())
}

/// As [`of`], with the users of every value at hand.
pub(super) fn with_uses(graph: &Graph, members: &[Node], users: &[smallvec::SmallVec<[Node; 2]>]) -> Kernel {
    let inside: HashSet<Node> = members.iter().copied().collect();
    let mut nodes: Vec<Node> = Vec::new();
    let mut seen: HashSet<Node> = HashSet::new();
    for &member in members {
        collect(graph, member, &inside, &mut seen, &mut nodes);
    }
    let mut region = Graph::default();
    let mut map = ValueMap::empty(graph);
    let mut operands = Vec::new();
    for &node in &nodes {
        for &operand in &graph.node(node).operands {
            let outside = graph.producer(operand).is_none_or(|(p, _)| !seen.contains(&p));
            if outside && map.try_get(operand).is_none() {
                let data = graph.value(operand);
                map.set(operand, region.add_param(data.name.clone(), data.ty.clone(), None));
                operands.push(operand);
            }
        }
    }
    nodes.iter().for_each(|&node| {
        region.push_copy(graph, graph.node(node), &mut map);
    });
    let results: Vec<Value> = members
        .iter()
        .flat_map(|&m| graph.node(m).results.iter().copied())
        .filter(|&v| is_read_outside(graph, v, &inside, users))
        .collect();
    region.set_returns(results.iter().map(|&v| map.get(v)));
    Kernel { region, operands, results }
}

/// Depth-first over leaves that a member reads, then the member. A contraction reads its operands from memory.
fn collect(graph: &Graph, node: Node, inside: &HashSet<Node>, seen: &mut HashSet<Node>, nodes: &mut Vec<Node>) {
    if !seen.insert(node) {
        return;
    }
    let data = graph.node(node);
    if !reads_memory(graph, data) {
        for &operand in &data.operands {
            if let Some((producer, producer_data)) = graph.producer(operand) {
                if is_leaf(producer_data) && !inside.contains(&producer) {
                    collect(graph, producer, inside, seen, nodes);
                }
            }
        }
    }
    nodes.push(node);
}

/// Whether a node's operands must lie in memory.
pub(super) fn reads_memory(graph: &Graph, data: &NodeData) -> bool {
    is_contraction(graph, data)
}

/// Whether a value leaves a set of nodes: a result of the graph, or read by a node that is no member, directly or
/// through leaves.
fn is_read_outside(
    graph: &Graph,
    value: Value,
    inside: &HashSet<Node>,
    users: &[smallvec::SmallVec<[Node; 2]>],
) -> bool {
    if graph.roots().any(|v| v == value) {
        return true;
    }
    users[value.index()].iter().any(|user| {
        let data = graph.node(*user);
        if inside.contains(user) {
            false
        } else if is_leaf(data) {
            data.results.iter().any(|&r| is_read_outside(graph, r, inside, users))
        } else {
            true
        }
    })
}
