//! The verifier: what holds for every module that a pass sees and leaves.
//!
//! - V1: after binding, every extent is a number (asked for with `Bound::Yes`).
//! - V2: a node reads values that are defined before it in its graph.
//! - V3: a node has as many operands and results as its row in the op table says.
//! - V4: results have the element type and the shape that `infer` gives; a violated constraint of the op is reported
//!   under its own label. Layouts are free: they are no part of the meaning.
//! - V5: a `state` node and an `update` name a state of the module, with its element type and shape.
//! - V6: a graph updates a state at most once.
//! - V7: `fused` has one region, every other op none; the parameters of the region have the types of the operands and it
//!   yields the types of the results. A region is isolated: it reads and updates no state and holds no region.
//! - V8: what a graph returns and stores is defined in it.
//! - V9: the values of a graph have different names, a graph is listed under its own name, no name is empty.
//! - V10: `below` stands on integer parameters only, with a bound above 0.
//! - V11: the table of values agrees with the nodes: every result points back to its node and place.
//! - V12: no value and no state is larger than 2^40 bytes, with names that are not bound counted as 1.
//!
//! All findings come at once. The work is linear in the size of the module.

use std::collections::HashSet;

use indexmap::IndexMap;

use crate::builder::diagnose;
use crate::diagnostic::Diagnostic;
use crate::graph::{Def, Graph, Node, NodeData, Value};
use crate::module::{Module, State};
use crate::op::{Op, Types};
use crate::types::{Name, TensorType};

/// Whether every extent has to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Before binding: extents may be polynomials over names.
    No,
    /// After binding: V1 holds.
    Yes,
}

/// All violated invariants of `module`, in program order; empty if it is sound.
pub fn verify(module: &Module, bound: Bound) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for (name, state) in &module.states {
        if let Some(problem) = unbound(&state.ty, bound) {
            let message = format!("state `@{name}`: {problem}");
            findings.push(Diagnostic::error("V1", message).at(state.source.clone()));
        }
        if let Some(fault) = state.ty.size_fault() {
            findings.push(Diagnostic::error("V12", format!("state `@{name}`: {fault}")).at(state.source.clone()));
        }
        if name.is_empty() {
            findings.push(Diagnostic::error("V9", "a state has an empty name").at(state.source.clone()));
        }
    }
    for (name, graph) in &module.graphs {
        if **name != *graph.name() || name.is_empty() {
            let message = format!("graph `@{}` is listed as `@{name}`", graph.name());
            findings.push(Diagnostic::error("V9", message));
        }
        findings.extend(verify_graph(graph, &module.states, bound));
    }
    findings
}

/// All violated invariants of one graph over `states`.
pub fn verify_graph(graph: &Graph, states: &IndexMap<Name, State>, bound: Bound) -> Vec<Diagnostic> {
    let mut sweep = Sweep { graph, states, bound, region: false, findings: Vec::new() };
    sweep.run();
    sweep.findings
}

/// One pass over one graph.
struct Sweep<'a> {
    graph: &'a Graph,
    states: &'a IndexMap<Name, State>,
    bound: Bound,
    region: bool,
    findings: Vec<Diagnostic>,
}

impl Sweep<'_> {
    fn run(&mut self) {
        self.params();
        self.names();
        let graph = self.graph;
        for (node, data) in graph.nodes() {
            self.node(node, data);
        }
        self.leaving();
    }

    fn report(&mut self, label: &str, message: String) {
        let place = if self.region { "a region".to_owned() } else { format!("graph `@{}`", self.graph.name()) };
        self.findings.push(Diagnostic::error(label, format!("{message}, in {place}")));
    }

    fn report_at(&mut self, label: &str, node: &NodeData, message: String) {
        let place = node.provenance.source.clone();
        let mut finding = Diagnostic::error(label, message).at(place);
        if let Some(derived) = &node.provenance.derived {
            finding = finding.note(format!("derived by {derived}"));
        }
        if !self.region {
            finding = finding.note(format!("in graph `@{}`", self.graph.name()));
        }
        self.findings.push(finding);
    }

    fn params(&mut self) {
        let graph = self.graph;
        for (i, param) in graph.params().iter().enumerate() {
            let known = param.value.index() < graph.value_count();
            if !known || graph.value(param.value).def != Def::Param(i) {
                self.report("V11", format!("parameter {i} is not a parameter in the table of values"));
                continue;
            }
            let data = graph.value(param.value);
            if let Some(problem) = unbound(&data.ty, self.bound) {
                self.report("V1", format!("parameter `%{}`: {problem}", data.name));
            }
            if let Some(fault) = data.ty.size_fault() {
                self.report("V12", format!("parameter `%{}`: {fault}", data.name));
            }
            match param.below {
                Some(_) if !data.ty.dtype.is_integer() => {
                    self.report("V10", format!("`below` on `%{}`, which is {}, no integer", data.name, data.ty));
                }
                Some(0) => self.report("V10", format!("`%{}` below 0 has no value", data.name)),
                _ => {}
            }
        }
    }

    fn names(&mut self) {
        let graph = self.graph;
        let mut seen: HashSet<&Name> = HashSet::with_capacity(graph.value_count());
        for value in graph.values() {
            let name = graph.value_name(value);
            if name.is_empty() {
                self.report("V9", "a value has an empty name".to_owned());
            } else if !seen.insert(name) {
                self.report("V9", format!("two values are named `%{name}`"));
            }
        }
    }

    fn node(&mut self, node: Node, data: &NodeData) {
        let graph = self.graph;
        let defined = data.operands.iter().all(|&operand| self.operand(node, data, operand));
        let results = self.results(node, data);
        for &result in data.results.iter().filter(|_| results) {
            if let Some(problem) = unbound(graph.ty(result), self.bound) {
                let message = format!("`%{}`: {problem}", graph.value_name(result));
                self.report_at("V1", data, message);
            }
            if let Some(fault) = graph.ty(result).size_fault() {
                self.report_at("V12", data, format!("`%{}`: {fault}", graph.value_name(result)));
            }
        }
        let entry = data.op.entry();
        let count = data.operands.len();
        let fits = entry.takes(count);
        if !fits {
            let wanted = entry.operands.join(", ");
            self.report_at("V3", data, format!("`{}` takes ({wanted}), not {count} operands", entry.mnemonic));
        }
        self.regions(data, defined && results);
        if let Op::State(state) = &data.op {
            self.state(data, &state.name, "reads", &state.ty);
        }
        if defined && results && fits && !matches!(data.op, Op::Fused(_)) {
            self.types(data);
        }
    }

    fn operand(&mut self, node: Node, data: &NodeData, operand: Value) -> bool {
        let mnemonic = data.op.mnemonic();
        if operand.index() >= self.graph.value_count() {
            self.report_at("V2", data, format!("`{mnemonic}` reads a value that the graph does not have"));
            return false;
        }
        match self.graph.value(operand).def {
            Def::Result(producer, _) if producer >= node => {
                let name = self.graph.value_name(operand);
                self.report_at("V2", data, format!("`{mnemonic}` reads `%{name}` before it is defined"));
                false
            }
            _ => true,
        }
    }

    fn results(&mut self, node: Node, data: &NodeData) -> bool {
        let graph = self.graph;
        let agrees = |(i, &result): (usize, &Value)| {
            result.index() < graph.value_count() && graph.value(result).def == Def::Result(node, i)
        };
        let all = data.results.iter().enumerate().all(agrees);
        if !all {
            let message = format!("the results of `{}` do not point back to it", data.op.mnemonic());
            self.report_at("V11", data, message);
        }
        all
    }

    fn types(&mut self, data: &NodeData) {
        let graph = self.graph;
        let inferred = match data.op.spec().infer(&graph.types(&data.operands)) {
            Ok(types) => types,
            Err(faults) => {
                let found = faults.into_iter().map(|f| diagnose(graph, f, &data.operands, &data.provenance));
                self.findings.extend(found);
                return;
            }
        };
        self.compare(data, &inferred);
    }

    fn compare(&mut self, data: &NodeData, inferred: &Types) {
        let mnemonic = data.op.mnemonic();
        if inferred.len() != data.results.len() {
            let message = format!("`{mnemonic}` has {} results, {} are named", inferred.len(), data.results.len());
            return self.report_at("V3", data, message);
        }
        for (&result, wanted) in data.results.iter().zip(inferred) {
            let value = self.graph.value(result);
            if !same(&value.ty, wanted) {
                let message = format!("`%{}` is declared {}, `{mnemonic}` gives {wanted}", value.name, value.ty);
                self.report_at("V4", data, message);
            }
        }
    }

    fn regions(&mut self, data: &NodeData, sound: bool) {
        let wanted = usize::from(matches!(data.op, Op::Fused(_)));
        if data.regions.len() != wanted {
            let message = format!("`{}` has {} regions, it takes {wanted}", data.op.mnemonic(), data.regions.len());
            self.report_at("V7", data, message);
        }
        if self.region && !data.regions.is_empty() {
            self.report_at("V7", data, "a region holds a region".to_owned());
            return;
        }
        for region in &data.regions {
            let mut inner = Sweep { graph: region, region: true, findings: Vec::new(), ..*self };
            inner.run();
            let comparable = sound && inner.findings.is_empty();
            self.findings.extend(inner.findings);
            if comparable {
                self.boundary(data, region);
            }
        }
    }

    /// Compares operands with parameters and results with yields.
    fn boundary(&mut self, data: &NodeData, region: &Graph) {
        let params: Vec<Value> = region.params().iter().map(|p| p.value).collect();
        let pairs = [
            ("operands", &data.operands[..], "parameters", &params[..]),
            ("results", &data.results[..], "yields", region.returns()),
        ];
        for (outer_name, outer, inner_name, inner) in pairs {
            if outer.len() != inner.len() {
                let (a, b) = (outer.len(), inner.len());
                self.report_at("V7", data, format!("{a} {outer_name}, but the region has {b} {inner_name}"));
                continue;
            }
            for (&a, &b) in outer.iter().zip(inner) {
                let (a, b) = (self.graph.value(a), region.value(b));
                if !same(&a.ty, &b.ty) {
                    let message = format!("`%{}` is {}, the region's `%{}` is {}", a.name, a.ty, b.name, b.ty);
                    self.report_at("V7", data, message);
                }
            }
        }
    }

    fn state(&mut self, data: &NodeData, name: &Name, verb: &str, ty: &TensorType) {
        if self.region {
            self.report_at("V7", data, format!("a region {verb} the state `@{name}`; it is isolated"));
            return;
        }
        if let Some(message) = self.state_problem(name, verb, ty) {
            self.report_at("V5", data, message);
        }
    }

    fn state_problem(&self, name: &Name, verb: &str, ty: &TensorType) -> Option<String> {
        match self.states.get(name) {
            None => Some(format!("the graph {verb} `@{name}`, the module has no such state")),
            Some(state) if !same(&state.ty, ty) => {
                Some(format!("the graph {verb} `@{name}` as {ty}, it is declared {}", state.ty))
            }
            Some(_) => None,
        }
    }

    /// Returns and updates.
    fn leaving(&mut self) {
        let graph = self.graph;
        for &value in graph.returns() {
            if value.index() >= graph.value_count() {
                self.report("V8", "a returned value is not defined".to_owned());
            }
        }
        let mut seen: HashSet<&Name> = HashSet::new();
        for update in graph.updates() {
            let name = &update.state;
            if self.region {
                self.report("V7", format!("an update of the state `@{name}`"));
            }
            if !seen.insert(name) {
                self.report("V6", format!("the state `@{name}` is updated twice"));
            }
            if update.value.index() >= graph.value_count() {
                self.report("V8", format!("the next value of `@{name}` is not defined"));
            } else if let Some(message) = self.state_problem(name, "updates", graph.ty(update.value)) {
                self.report("V5", message);
            }
        }
    }
}

fn same(a: &TensorType, b: &TensorType) -> bool {
    a.dtype == b.dtype && a.shape == b.shape
}

fn unbound(ty: &TensorType, bound: Bound) -> Option<String> {
    if bound == Bound::No {
        return None;
    }
    let name = ty.shape.dims().iter().find_map(|dim| dim.names().into_iter().next())?;
    Some(format!("{ty} depends on `{name}`, which is not bound; give it with --bind {name}=N"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;
    use crate::builder::GraphBuilder;
    use crate::graph::Provenance;
    use crate::module::{Initializer, Role};
    use crate::op;
    use crate::types::{DType, Dim, Shape};

    fn labels(module: &Module, bound: Bound) -> Vec<String> {
        verify(module, bound).into_iter().map(|d| d.label).collect()
    }

    fn with_state(ty: TensorType) -> Module {
        let mut module = Module::default();
        let state = State { ty, role: Role::Param, init: Initializer::Constant(0.0), source: None };
        module.states.insert("w".into(), state);
        module
    }

    fn vector() -> TensorType {
        TensorType::new(DType::F32, [4])
    }

    fn relu_graph() -> Graph {
        let mut graph = Graph::new("g");
        let x = graph.add_param("x", vector(), None);
        let relu = Op::Elementwise(crate::Elementwise::Relu);
        let node = graph.push(relu, [x], [("y".into(), vector())], Vec::new(), Provenance::default());
        let y = graph.node(node).results[0];
        graph.set_returns([y]);
        graph
    }

    #[test]
    fn a_built_graph_is_sound() {
        let builder = GraphBuilder::new("g");
        let x = builder.input("x", DType::F32, [2, 3]);
        let y = builder.apply(op::Softmax { dim: -1 }, &[&x]);
        builder.returns(&[&y]);
        let mut module = Module::default();
        module.add_graph(builder.finish().unwrap());
        assert!(labels(&module, Bound::Yes).is_empty());
    }

    #[test]
    fn v1_unbound_extents_are_found_only_when_binding_is_asked_for() {
        let mut module = Module::default();
        let mut graph = Graph::new("g");
        let shape: Shape = std::iter::once(Dim::named("batch")).collect();
        let x = graph.add_param("x", TensorType::new(DType::F32, shape), None);
        graph.set_returns([x]);
        module.add_graph(graph);
        assert!(labels(&module, Bound::No).is_empty());
        assert_eq!(labels(&module, Bound::Yes), ["V1"]);
    }

    #[test]
    fn v2_use_before_definition() {
        let mut module = Module::default();
        let mut graph = relu_graph();
        let later = Value::INVALID;
        let relu = Op::Elementwise(crate::Elementwise::Relu);
        graph.push(relu, [later], [("z".into(), vector())], Vec::new(), Provenance::default());
        module.add_graph(graph);
        assert_eq!(labels(&module, Bound::Yes), ["V2"]);
    }

    #[test]
    fn v3_operand_count_and_result_count() {
        let mut module = Module::default();
        let mut graph = relu_graph();
        let x = graph.params()[0].value;
        let relu = || Op::Elementwise(crate::Elementwise::Relu);
        graph.push(relu(), [x, x], [("z".into(), vector())], Vec::new(), Provenance::default());
        graph.push(relu(), [x], [], Vec::new(), Provenance::default());
        module.add_graph(graph);
        assert_eq!(labels(&module, Bound::Yes), ["V3", "V3"]);
    }

    #[test]
    fn v4_declared_type_differs_and_op_constraints_keep_their_labels() {
        let mut module = Module::default();
        let mut graph = relu_graph();
        let x = graph.params()[0].value;
        let relu = Op::Elementwise(crate::Elementwise::Relu);
        let wrong = TensorType::new(DType::F32, [5]);
        graph.push(relu, [x], [("z".into(), wrong)], Vec::new(), Provenance::default());
        graph.push(op::Softmax { dim: 3 }.into(), [x], [("s".into(), vector())], Vec::new(), Provenance::default());
        module.add_graph(graph);
        assert_eq!(labels(&module, Bound::Yes), ["V4", "softmax.C2"]);
    }

    #[test]
    fn v5_and_v6_states() {
        let mut module = with_state(TensorType::new(DType::F32, [3]));
        let mut graph = relu_graph();
        let x = graph.params()[0].value;
        let read = op::State { ty: vector(), name: "w".into() };
        graph.push(read.into(), [], [("w".into(), vector())], Vec::new(), Provenance::default());
        graph.add_update("none", x);
        graph.add_update("none", x);
        module.add_graph(graph);
        assert_eq!(labels(&module, Bound::Yes), ["V5", "V5", "V6", "V5"]);
    }

    #[test]
    fn v7_regions() {
        let region = relu_graph();
        let fused = |graph: &mut Graph, ty: TensorType, regions| {
            let x = graph.params()[0].value;
            let op = op::Fused { kind: "map".into() };
            graph.push(op.into(), [x], [("f".into(), ty)], regions, Provenance::default());
        };
        let verdict = |ty: TensorType, regions| {
            let mut module = Module::default();
            let mut graph = relu_graph();
            fused(&mut graph, ty, regions);
            module.add_graph(graph);
            labels(&module, Bound::Yes)
        };
        assert!(verdict(vector(), vec![region.clone()]).is_empty());
        assert_eq!(verdict(vector(), vec![]), ["V7"]);
        assert_eq!(verdict(TensorType::new(DType::F32, [5]), vec![region.clone()]), ["V7"]);
        let mut nested = region.clone();
        fused(&mut nested, vector(), vec![region.clone()]);
        assert_eq!(verdict(vector(), vec![nested]), ["V7"]);
        let mut storing = region;
        storing.add_update("w", storing.params()[0].value);
        assert!(verdict(vector(), vec![storing]).contains(&"V7".to_owned()));
    }

    #[test]
    fn v8_v9_v10() {
        let mut module = Module::default();
        let mut graph = relu_graph();
        graph.add_param("k", vector(), Some(3));
        graph.set_returns([Value::INVALID]);
        module.graphs.insert("other".into(), graph);
        assert_eq!(labels(&module, Bound::Yes), ["V9", "V10", "V8"]);
    }

    #[test]
    fn v12_sizes_that_no_machine_holds() {
        let verdict = |dtype, extents: &[usize]| {
            let mut module = with_state(TensorType::new(dtype, extents));
            let mut graph = Graph::new("g");
            graph.add_param("x", TensorType::new(dtype, extents), None);
            module.add_graph(graph);
            labels(&module, Bound::Yes)
        };
        assert!(verdict(DType::F32, &[1 << 38]).is_empty());
        assert_eq!(verdict(DType::F32, &[(1 << 38) + 1]), ["V12", "V12"]);
        assert_eq!(verdict(DType::U8, &[usize::MAX, usize::MAX, 4]), ["V12", "V12"]);
        // Strides count what is behind a dimension of no elements too.
        assert_eq!(verdict(DType::F32, &[0, usize::MAX]), ["V12", "V12"]);
    }
}
