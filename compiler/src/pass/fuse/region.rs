//! The region of a set of nodes: what they read becomes a parameter, what others read becomes a result.

use std::collections::{HashMap, HashSet};

use kiln_ir::attribute::Literal;
use kiln_ir::body::{Body, Map};
use kiln_ir::graph::{Graph, Node, NodeData, Value};
use kiln_ir::op::Op;
use smallvec::SmallVec;

use crate::loops::build::body_of;
use crate::loops::build::contract::{contract_form, is_contraction_body};
use crate::loops::build::depthwise::depthwise_form;
use crate::loops::build::pool::{is_pool_body, pool_form};
use crate::loops::build::{Declined, row_program};

use super::Verdict;

/// What this pass asks of a graph again and again: computed once, so that growing groups stays linear.
pub(super) struct Facts<'a> {
    /// The graph.
    pub(super) graph: &'a Graph,
    /// Nodes that read each value.
    pub(super) users: Vec<SmallVec<[Node; 2]>>,
    /// Whether a value is a result of the graph.
    is_root: Vec<bool>,
    bodies: Vec<Body>,
    contraction: Vec<bool>,
    pool: Vec<bool>,
}

impl<'a> Facts<'a> {
    /// Of a graph.
    pub(super) fn new(graph: &'a Graph) -> Facts<'a> {
        let mut is_root = vec![false; graph.value_count()];
        graph.roots().for_each(|v| is_root[v.index()] = true);
        let bodies: Vec<Body> = graph.nodes().map(|(_, data)| body_of(graph, data)).collect();
        let contraction =
            graph.nodes().zip(&bodies).map(|((_, data), body)| is_contraction_body(graph, data, body)).collect();
        let pool = graph.nodes().zip(&bodies).map(|((_, data), body)| is_pool_body(graph, data, body)).collect();
        Facts { graph, users: graph.users(), is_root, bodies, contraction, pool }
    }

    /// Meaning of a node.
    pub(super) fn body(&self, node: Node) -> &Body {
        &self.bodies[node.index()]
    }

    /// Whether a node is the root of a micro-kernel, whose operands must lie in memory: a contraction or a pool.
    pub(super) fn reads_memory(&self, node: Node) -> bool {
        self.contraction[node.index()] || self.pool[node.index()]
    }
}

/// A kernel in the making.
pub(super) struct Kernel {
    /// Its region.
    pub(super) region: Graph,
    /// Nodes of the graph that the region's are copies of, in their order.
    nodes: Vec<Node>,
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

    /// What its root is.
    pub(super) fn kind(&self, facts: &Facts<'_>) -> &'static str {
        match self.nodes.iter().find(|&&node| facts.reads_memory(node)) {
            Some(node) if facts.pool[node.index()] => "window",
            Some(_) => "contraction",
            None => "map",
        }
    }

    /// Whether it is one kernel.
    pub(super) fn verdict(&self, facts: &Facts<'_>) -> Verdict {
        let form = match self.kind(facts) {
            "map" => return self.row_verdict(facts),
            "window" => pool_form(&self.region).map(|form| form.map(drop)),
            _ => match contract_form(&self.region) {
                Some(Ok(_)) => return Verdict::Fused,
                other => match depthwise_form(&self.region) {
                    Some(form) => Some(form.map(drop)),
                    None => other.map(|form| form.map(drop)),
                },
            },
        };
        match form {
            Some(Ok(())) => self.row_verdict(facts),
            Some(Err(reason)) => Verdict::Epilogue(reason),
            None => Verdict::Epilogue("the root has no micro-kernel"),
        }
    }

    /// Whether it is one nest, which also runs where there are no micro-kernels.
    fn row_verdict(&self, facts: &Facts<'_>) -> Verdict {
        let map = |&node: &Node| match facts.body(node) {
            Body::Map(map) => Ok(map),
            _ => Err(Declined::Body),
        };
        let maps: Result<Vec<&Map>, Declined> = self.nodes.iter().map(map).collect();
        maps.and_then(|maps| row_program(&self.region, &maps)).map_or_else(Verdict::Form, |()| Verdict::Fused)
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
pub(super) fn materialized(facts: &Facts<'_>) -> Vec<bool> {
    let graph = facts.graph;
    let mut wanted = vec![false; graph.nodes().len()];
    let mut value_wanted = vec![false; graph.value_count()];
    graph.roots().for_each(|v| value_wanted[v.index()] = true);
    let nodes: Vec<_> = graph.nodes().collect();
    for (node, data) in nodes.into_iter().rev() {
        let leaf = is_leaf(data);
        let own = data.results.iter().any(|v| value_wanted[v.index()]);
        wanted[node.index()] = own;
        if leaf && own || !leaf && (facts.reads_memory(node) || is_view(data)) {
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
pub(super) fn of(facts: &Facts<'_>, members: &[Node]) -> Kernel {
    let graph = facts.graph;
    let inside: HashSet<Node> = members.iter().copied().collect();
    let mut nodes: Vec<Node> = Vec::new();
    let mut seen: HashSet<Node> = HashSet::new();
    for &member in members {
        collect(facts, member, &inside, &mut seen, &mut nodes);
    }
    let mut region = Graph::default();
    let mut map: HashMap<Value, Value> = HashMap::new();
    let mut operands = Vec::new();
    for &node in &nodes {
        for &operand in &graph.node(node).operands {
            let outside = graph.producer(operand).is_none_or(|(p, _)| !seen.contains(&p));
            if outside && !map.contains_key(&operand) {
                let data = graph.value(operand);
                map.insert(operand, region.add_param(data.name.clone(), data.ty.clone(), None));
                operands.push(operand);
            }
        }
    }
    for &node in &nodes {
        let data = graph.node(node);
        let results = data.results.iter().map(|&v| (graph.value_name(v).clone(), graph.ty(v).clone()));
        let results: SmallVec<[_; 3]> = results.collect();
        let reads: SmallVec<[Value; 3]> = data.operands.iter().map(|v| map[v]).collect();
        let copy = region.push(data.op.clone(), reads, results, data.regions.clone(), data.provenance.clone());
        map.extend(data.results.iter().copied().zip(region.node(copy).results.iter().copied()));
    }
    let results: Vec<Value> = members
        .iter()
        .flat_map(|&m| graph.node(m).results.iter().copied())
        .filter(|&v| is_read_outside(facts, v, &inside))
        .collect();
    region.set_returns(results.iter().map(|v| map[v]));
    Kernel { region, nodes, operands, results }
}

/// Depth-first over leaves that a member reads, then the member. A contraction reads its operands from memory.
fn collect(facts: &Facts<'_>, node: Node, inside: &HashSet<Node>, seen: &mut HashSet<Node>, nodes: &mut Vec<Node>) {
    if !seen.insert(node) {
        return;
    }
    if !facts.reads_memory(node) {
        for &operand in &facts.graph.node(node).operands {
            if let Some((producer, producer_data)) = facts.graph.producer(operand)
                && is_leaf(producer_data)
                && !inside.contains(&producer)
            {
                collect(facts, producer, inside, seen, nodes);
            }
        }
    }
    nodes.push(node);
}

/// Whether a value leaves a set of nodes: a result of the graph, or read by a node that is no member, directly or
/// through leaves.
fn is_read_outside(facts: &Facts<'_>, value: Value, inside: &HashSet<Node>) -> bool {
    facts.is_root[value.index()]
        || facts.users[value.index()].iter().any(|user| {
            let data = facts.graph.node(*user);
            if inside.contains(user) {
                false
            } else if is_leaf(data) {
                data.results.iter().any(|&r| is_read_outside(facts, r, inside))
            } else {
                true
            }
        })
}
