//! Graph: a pure SSA function, and the only code that changes one.
//!
//! Nodes lie in program order, operands before users, so every sweep is a loop over a vector. Passes do not edit in
//! place: they read one graph and write the next ([`Graph::successor`]), which keeps every pass linear and every name
//! as it was.

use std::collections::HashSet;

use smallvec::SmallVec;

use crate::op::Op;
use crate::types::{Name, TensorType};

/// An SSA value of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(u32);

/// A node of one graph; its number is its place in program order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node(u32);

impl Value {
    /// Stands for a value that could not be made; only the builder sees it, after its first fault.
    pub const INVALID: Value = Value(u32::MAX);

    /// Dense number, for tables beside the graph.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Node {
    /// Place in program order.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Values of one node.
pub type Values = SmallVec<[Value; 3]>;

/// What a node holds.
#[derive(Clone, Debug)]
pub struct NodeData {
    /// What it computes.
    pub op: Op,
    /// What it reads, in the op's order.
    pub operands: Values,
    /// What it defines, in the op's order.
    pub results: Values,
    /// Nested graphs, isolated from above: `fused` has one.
    pub regions: Vec<Graph>,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// What a value holds.
#[derive(Clone, Debug)]
pub struct ValueData {
    /// Unique in its graph.
    pub name: Name,
    /// Its type.
    pub ty: TensorType,
    /// Where it is defined.
    pub def: Def,
}

/// Definition of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Def {
    /// Parameter of the graph.
    Param(usize),
    /// Result of a node.
    Result(Node, usize),
}

/// Origin of a node; not part of equality.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    /// Line of the script or of the Rust source.
    pub source: Option<Location>,
    /// What derived it, for nodes that no line names: `grad(%x, 0)`, `fold_batch_norm`.
    pub derived: Option<Name>,
}

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// File name as given.
    pub file: Name,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl std::fmt::Display for Provenance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.source, &self.derived) {
            (Some(source), Some(derived)) => write!(f, "@{}:{} @{derived}", source.file, source.line),
            (Some(source), None) => write!(f, "@{}:{}", source.file, source.line),
            (None, Some(derived)) => write!(f, "@{derived}"),
            (None, None) => Ok(()),
        }
    }
}

/// A pure function over tensors. Writes to states appear only at its end, as updates.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    name: Option<Name>,
    params: Vec<Param>,
    nodes: Vec<NodeData>,
    values: Vec<ValueData>,
    returns: Vec<Value>,
    updates: Vec<Update>,
    names: HashSet<Name>,
}

/// A parameter of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// The value it defines.
    pub value: Value,
    /// `below N`: every element is in `0..N`, checked once per batch.
    pub below: Option<u64>,
}

/// `update @state = %value`.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Name of the state.
    pub state: Name,
    /// Its next value.
    pub value: Value,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<Name>) -> Graph {
        Graph { name: Some(name.into()), ..Graph::default() }
    }

    /// An empty graph with the name and the parameters of `self`: where a pass writes its result.
    pub fn successor(&self) -> Graph {
        let mut next = Graph { name: self.name.clone(), ..Graph::default() };
        for param in &self.params {
            let data = &self.values[param.value.index()];
            next.add_param(data.name.clone(), data.ty.clone(), param.below);
        }
        next
    }

    /// Name without `@`; empty for a region.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The graph under another name.
    pub fn renamed(mut self, name: impl Into<Name>) -> Graph {
        self.name = Some(name.into());
        self
    }

    /// Parameters in order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Nodes in program order.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (Node, &NodeData)> {
        self.nodes.iter().enumerate().map(|(i, data)| (Node(i as u32), data))
    }

    /// One node.
    pub fn node(&self, node: Node) -> &NodeData {
        &self.nodes[node.index()]
    }

    /// The node at a place in program order.
    pub fn node_at(&self, position: usize) -> Option<(Node, &NodeData)> {
        self.nodes.get(position).map(|data| (Node(position as u32), data))
    }

    /// Number of values, for tables indexed by [`Value::index`].
    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    /// Every value.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Value> + use<> {
        (0..self.values.len() as u32).map(Value)
    }

    /// One value.
    pub fn value(&self, value: Value) -> &ValueData {
        &self.values[value.index()]
    }

    /// Type of a value.
    pub fn ty(&self, value: Value) -> &TensorType {
        &self.values[value.index()].ty
    }

    /// Name of a value, without `%`.
    pub fn value_name(&self, value: Value) -> &Name {
        &self.values[value.index()].name
    }

    /// The node that defines `value`, unless it is a parameter.
    pub fn producer(&self, value: Value) -> Option<(Node, &NodeData)> {
        match self.values[value.index()].def {
            Def::Param(_) => None,
            Def::Result(node, _) => Some((node, &self.nodes[node.index()])),
        }
    }

    /// Types of several values.
    pub fn types(&self, values: &[Value]) -> SmallVec<[TensorType; 3]> {
        values.iter().map(|&v| self.ty(v).clone()).collect()
    }

    /// Results of the graph; what a region yields.
    pub fn returns(&self) -> &[Value] {
        &self.returns
    }

    /// State updates, in order.
    pub fn updates(&self) -> &[Update] {
        &self.updates
    }

    /// Every value that leaves the graph: returns and updates.
    pub fn roots(&self) -> impl Iterator<Item = Value> {
        self.returns.iter().copied().chain(self.updates.iter().map(|u| u.value))
    }

    /// Number of uses of each value by nodes, returns and updates.
    pub fn use_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.values.len()];
        let operands = self.nodes.iter().flat_map(|n| n.operands.iter().copied());
        operands.chain(self.roots()).for_each(|v| counts[v.index()] += 1);
        counts
    }

    /// For each value the nodes that read it, in program order, each once per use.
    pub fn users(&self) -> Vec<SmallVec<[Node; 2]>> {
        let mut users = vec![SmallVec::new(); self.values.len()];
        for (node, data) in self.nodes() {
            data.operands.iter().for_each(|v| users[v.index()].push(node));
        }
        users
    }

    /// Adds a parameter; the name is made unique.
    pub fn add_param(&mut self, name: impl Into<Name>, ty: TensorType, below: Option<u64>) -> Value {
        let value = self.add_value(name.into(), ty, Def::Param(self.params.len()));
        self.params.push(Param { value, below });
        value
    }

    /// Appends a node whose result types are known to be right. Names are made unique.
    pub fn push(
        &mut self,
        op: Op,
        operands: impl IntoIterator<Item = Value>,
        results: impl IntoIterator<Item = (Name, TensorType)>,
        regions: Vec<Graph>,
        provenance: Provenance,
    ) -> Node {
        let node = Node(self.nodes.len() as u32);
        let results = results
            .into_iter()
            .enumerate()
            .map(|(i, (name, ty))| self.add_value(name, ty, Def::Result(node, i)))
            .collect();
        self.nodes.push(NodeData { op, operands: operands.into_iter().collect(), results, regions, provenance });
        node
    }

    /// Appends a copy of `data`, a node of `source`, with its operands taken from `map`; records its results there.
    pub fn push_copy(&mut self, source: &Graph, data: &NodeData, map: &mut ValueMap) -> Node {
        let operands: Values = data.operands.iter().map(|&v| map.get(v)).collect();
        let results: SmallVec<[(Name, TensorType); 3]> =
            data.results.iter().map(|&v| (source.value_name(v).clone(), source.ty(v).clone())).collect();
        let node = self.push(data.op.clone(), operands, results, data.regions.clone(), data.provenance.clone());
        for (&old, &new) in data.results.iter().zip(&self.nodes[node.index()].results) {
            map.set(old, new);
        }
        node
    }

    /// Gives a value another name, made unique: front ends name what the author named. Passes rename nothing.
    pub fn rename_value(&mut self, value: Value, name: Name) {
        if self.values[value.index()].name == name {
            return;
        }
        let old = std::mem::replace(&mut self.values[value.index()].name, Name::from(""));
        self.names.remove(&old);
        self.values[value.index()].name = self.unique(name);
    }

    /// Name of the state whose value at the start of the run `value` is.
    pub fn read_state_name(&self, value: Value) -> Option<&Name> {
        match &self.producer(value)?.1.op {
            Op::State(read) => Some(&read.name),
            _ => None,
        }
    }

    /// Sets the results.
    pub fn set_returns(&mut self, returns: impl IntoIterator<Item = Value>) {
        self.returns = returns.into_iter().collect();
    }

    /// Adds a state update.
    pub fn add_update(&mut self, state: impl Into<Name>, value: Value) {
        self.updates.push(Update { state: state.into(), value });
    }

    /// Copies returns and updates of `source` through `map`.
    pub fn finish_copy(&mut self, source: &Graph, map: &ValueMap) {
        self.set_returns(source.returns.iter().map(|&v| map.get(v)));
        for update in &source.updates {
            self.add_update(update.state.clone(), map.get(update.value));
        }
    }

    fn add_value(&mut self, name: Name, ty: TensorType, def: Def) -> Value {
        let name = self.unique(name);
        let value = Value(self.values.len() as u32);
        self.values.push(ValueData { name, ty, def });
        value
    }

    /// `name`, or `name.N` with the smallest counter that is free.
    fn unique(&mut self, name: Name) -> Name {
        if self.names.insert(name.clone()) {
            return name;
        }
        // Counting on from the number of values keeps a long row of equal hints linear.
        let mut counter = if self.names.contains(&Name::from(format!("{name}.1"))) { self.values.len() } else { 1 };
        loop {
            let candidate = Name::from(format!("{name}.{counter}"));
            if self.names.insert(candidate.clone()) {
                return candidate;
            }
            counter += 1;
        }
    }
}

/// Equality of programs: names, ops, types, results; not provenance.
impl PartialEq for Graph {
    fn eq(&self, other: &Graph) -> bool {
        let same_value = |(a, b): (&ValueData, &ValueData)| a.name == b.name && a.ty == b.ty && a.def == b.def;
        let same_node = |(a, b): (&NodeData, &NodeData)| {
            a.op == b.op && a.operands == b.operands && a.results == b.results && a.regions == b.regions
        };
        self.name == other.name
            && self.params == other.params
            && self.returns == other.returns
            && self.updates == other.updates
            && self.nodes.len() == other.nodes.len()
            && self.values.len() == other.values.len()
            && self.values.iter().zip(&other.values).all(same_value)
            && self.nodes.iter().zip(&other.nodes).all(same_node)
    }
}

/// From values of one graph to values of its successor.
#[derive(Clone, Debug, Default)]
pub struct ValueMap(Vec<Option<Value>>);

impl ValueMap {
    /// A map for `source` in which its parameters are those of its [`Graph::successor`], whose first values they are:
    /// a builder may have declared some of them after nodes.
    pub fn params(source: &Graph) -> ValueMap {
        let mut map = ValueMap(vec![None; source.value_count()]);
        for (number, param) in source.params().iter().enumerate() {
            map.set(param.value, Value(number as u32));
        }
        map
    }

    /// An empty map for `source`.
    pub fn empty(source: &Graph) -> ValueMap {
        ValueMap(vec![None; source.value_count()])
    }

    /// The successor's value.
    ///
    /// # Panics
    /// If the value has none yet: a pass visited nodes out of program order, which is a defect.
    #[track_caller]
    pub fn get(&self, value: Value) -> Value {
        match self.0.get(value.index()).copied().flatten() {
            Some(new) => new,
            None => panic!("value {value:?} has no successor"),
        }
    }

    /// The successor's value, if there is one.
    pub fn try_get(&self, value: Value) -> Option<Value> {
        self.0.get(value.index()).copied().flatten()
    }

    /// Records the successor of `old`.
    pub fn set(&mut self, old: Value, new: Value) {
        if self.0.len() <= old.index() {
            self.0.resize(old.index() + 1, None);
        }
        self.0[old.index()] = Some(new);
    }
}
