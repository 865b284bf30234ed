//! Parts of the forward as graphs of their own: what some of its values need, copied.

use std::collections::{BTreeMap, BTreeSet};

use super::assemble::Root;
use crate::graph::{Def, Graph, Location, NodeData, Provenance, Value, ValueMap, Values};
use crate::op::{self, Op};
use crate::types::{Name, TensorType};

/// Which values are needed for `values`, by index.
pub(super) fn needed(graph: &Graph, values: impl IntoIterator<Item = Value>) -> Vec<bool> {
    let mut live = vec![false; graph.value_count()];
    let mark = |live: &mut Vec<bool>, value: Value| {
        if let Some(flag) = live.get_mut(value.index()) {
            *flag = true;
        }
    };
    values.into_iter().for_each(|value| mark(&mut live, value));
    let nodes: Vec<_> = graph.nodes().map(|(_, data)| data).collect();
    for data in nodes.iter().rev() {
        if data.results.iter().any(|v| live[v.index()]) {
            data.operands.iter().for_each(|&v| mark(&mut live, v));
        }
    }
    live
}

/// The graph of what `root` needs, returning it.
pub(super) fn of_value(forward: &Graph, name: &str, root: &Root) -> Graph {
    let live = needed(forward, [root.value]);
    let mut graph = Graph::new(name);
    let mut copy = Copy::new(forward, &mut graph, |value| live[value.index()]);
    copy.add(&mut graph, &live);
    graph.set_returns([copy.get(root.value)]);
    graph
}

/// The graph of what `roots` need, with every parameter, returning each under its name.
pub(super) fn reporting(forward: &Graph, name: &str, roots: &[&Root]) -> Graph {
    let mut graph = Graph::new(name);
    let mut copy = Copy::new(forward, &mut graph, |_| true);
    copy.add(&mut graph, &needed(forward, roots.iter().map(|root| root.value)));
    let report = |root: &&Root| Report { name: root.name.clone(), value: copy.get(root.value), at: root.at.clone() };
    let reports: Vec<Report> = roots.iter().map(report).collect();
    report_all(&mut graph, reports);
    graph
}

/// What stands for the values of a forward in a graph that grows by copies of its nodes.
///
/// Where states have other values for later copies, a node is copied once more if that changes what it reads; else the
/// copy that is there stands for it.
pub(super) struct Copy<'a> {
    forward: &'a Graph,
    /// The last copies, and values in the place of states that were read.
    map: ValueMap,
    first: ValueMap,
    /// Nodes that read a state as an earlier node leaves it: by the node's result, the state and that node's result.
    relays: BTreeMap<Value, (Name, Value)>,
}

impl<'a> Copy<'a> {
    /// Copies of nothing but parameters, which `graph` gets.
    pub(super) fn new(forward: &'a Graph, graph: &mut Graph, has: impl Fn(Value) -> bool) -> Copy<'a> {
        let mut map = ValueMap::empty(forward);
        for param in forward.params().iter().filter(|param| has(param.value)) {
            let data = forward.value(param.value);
            map.set(param.value, graph.add_param(data.name.clone(), data.ty.clone(), param.below));
        }
        Copy { forward, map, first: ValueMap::empty(forward), relays: BTreeMap::new() }
    }

    /// With relays, which read the first copies of the nodes before them.
    pub(super) fn with_relays(self, relays: BTreeMap<Value, (Name, Value)>) -> Copy<'a> {
        Copy { relays, ..self }
    }

    /// What stands for a value of the forward.
    pub(super) fn get(&self, value: Value) -> Value {
        self.map.get(value)
    }

    /// The first copy of a value, if there is any.
    pub(super) fn first(&self, value: Value) -> Option<Value> {
        self.first.try_get(value)
    }

    /// Lets `value` stand for a state that was read.
    pub(super) fn replace(&mut self, read: Value, value: Value) {
        self.map.set(read, value);
    }

    /// Adds what is `live`, as far as it is not there.
    pub(super) fn add(&mut self, graph: &mut Graph, live: &[bool]) {
        for (_, data) in self.forward.nodes() {
            if data.results.iter().any(|v| live[v.index()]) {
                self.node(graph, data);
            }
        }
    }

    fn node(&mut self, graph: &mut Graph, data: &NodeData) {
        let operands: Values = data.operands.iter().map(|&operand| self.operand(data, operand)).collect();
        let there = data.results.first().and_then(|&v| self.map.try_get(v));
        let there = there.and_then(|v| graph.producer(v)).map(|(_, copy)| &copy.operands);
        if there.is_some_and(|there| matches!(data.op, Op::State(_)) || *there == operands) {
            return;
        }
        let typed = |&v: &Value| (self.forward.value_name(v).clone(), self.forward.ty(v).clone());
        let results: Vec<(Name, TensorType)> = data.results.iter().map(typed).collect();
        let node = graph.push(data.op.clone(), operands, results, data.regions.clone(), data.provenance.clone());
        for (&old, &new) in data.results.iter().zip(&graph.node(node).results) {
            self.map.set(old, new);
            if self.first.try_get(old).is_none() {
                self.first.set(old, new);
            }
        }
    }

    fn operand(&self, data: &NodeData, operand: Value) -> Value {
        let read = self.forward.read_state_name(operand);
        let relay = |result| self.relays.get(result).filter(|(state, _)| read == Some(state));
        match data.results.iter().find_map(relay) {
            Some((_, left)) => self.first.get(*left),
            None => self.map.get(operand),
        }
    }
}

/// A value that a graph returns under a name.
pub(super) struct Report {
    pub(super) name: Name,
    pub(super) value: Value,
    pub(super) at: Option<Location>,
}

/// Makes `reports` the results of a graph, each under its name, which no other value keeps.
pub(super) fn report_all(graph: &mut Graph, reports: Vec<Report>) {
    let mut reported = BTreeSet::new();
    let mut returns = Vec::new();
    for Report { name, value, at } in reports {
        let named = match graph.value(value).def {
            Def::Param(_) => *graph.value_name(value) == name,
            Def::Result(..) => graph.read_state_name(value).is_none() && reported.insert(value),
        };
        // A parameter, a state or a value reported twice: its second name needs a value.
        let value = if named { value } else { again(graph, value, &name, at) };
        claim(graph, value, name);
        returns.push(value);
    }
    graph.set_returns(returns);
}

/// The same value once more.
fn again(graph: &mut Graph, value: Value, name: &Name, at: Option<Location>) -> Value {
    let ty = graph.ty(value).clone();
    let provenance = Provenance { source: at, derived: None };
    let op = op::Reshape { ty: ty.clone() };
    let copy = graph.push(op.into(), [value], [(name.clone(), ty)], vec![], provenance);
    graph.node(copy).results[0]
}

/// Gives `value` a name, and another name to the node's result that has it.
fn claim(graph: &mut Graph, value: Value, name: Name) {
    if *graph.value_name(value) == name {
        return;
    }
    let computed = |v: &Value| matches!(graph.value(*v).def, Def::Result(..));
    let holder = graph.values().find(|v| *graph.value_name(*v) == name).filter(computed);
    if let Some(holder) = holder {
        graph.rename_value(holder, format!("{name}.value").into());
    }
    graph.rename_value(value, name);
}
