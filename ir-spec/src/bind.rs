//! Binding of dimension names: every node is inferred again with numbers in place of names.

use crate::builder::diagnose;
use crate::diagnostic::Diagnostic;
use crate::graph::{Graph, Location, NodeData, Provenance, Value, ValueMap};
use crate::module::Module;
use crate::op::{Op, Types};
use crate::types::{Bindings, DimError, Name, Shape, TensorType};

impl Module {
    /// The module with dimension names replaced by `bindings`, each bound extent keeping its name as label. Names
    /// without a binding stay; a second call can bind them.
    ///
    /// # Errors
    /// Every constraint that the bound extents violate, under its own label, and extents that come out negative
    /// (`dim.size`).
    pub fn bind(&self, bindings: &Bindings) -> Result<Module, Vec<Diagnostic>> {
        let mut binder = Binder { bindings, errors: Vec::new() };
        let mut module = Module { recipe: self.recipe.clone(), ..Module::default() };
        for (name, state) in &self.states {
            let ty = binder.ty(&state.ty, &format!("state @{name}"), state.source.as_ref());
            module.states.insert(name.clone(), crate::module::State { ty, ..state.clone() });
        }
        for (name, graph) in &self.graphs {
            let bound = binder.graph(graph, Graph::new(name.clone()));
            module.graphs.insert(name.clone(), bound);
        }
        if binder.errors.is_empty() { Ok(module) } else { Err(binder.errors) }
    }
}

struct Binder<'a> {
    bindings: &'a Bindings,
    errors: Vec<Diagnostic>,
}

impl Binder<'_> {
    fn graph(&mut self, source: &Graph, mut target: Graph) -> Graph {
        let mut map = ValueMap::empty(source);
        for param in source.params() {
            let data = source.value(param.value);
            let ty = self.ty(&data.ty, &format!("%{}", data.name), None);
            map.set(param.value, target.add_param(data.name.clone(), ty, param.below));
        }
        for (_, node) in source.nodes() {
            self.node(source, node, &mut target, &mut map);
        }
        // After an error some values have no successor; the graph is dropped then.
        let roots: Option<Vec<Value>> = source.roots().map(|value| map.try_get(value)).collect();
        if roots.is_some() {
            target.finish_copy(source, &map);
        }
        target
    }

    /// Appends the bound node; leaves its results out if an operand is missing or a constraint is violated.
    fn node(&mut self, source: &Graph, node: &NodeData, target: &mut Graph, map: &mut ValueMap) {
        let operands: Option<Vec<Value>> = node.operands.iter().map(|&value| map.try_get(value)).collect();
        let Some(operands) = operands else { return };
        let op = node.op.bind(self.bindings);
        let regions: Vec<Graph> = node.regions.iter().map(|region| self.region(region)).collect();
        let before = self.errors.len();
        let expected: Types = node.results.iter().map(|&value| self.result_type(source, value, node)).collect();
        if self.errors.len() > before {
            return;
        }
        let Some(inferred) = self.infer(&op, target, &operands, &regions, &node.provenance) else { return };
        let results = node.results.iter().zip(expected.into_iter().zip(inferred));
        let results: Vec<(Name, TensorType)> = results
            .map(|(&value, (expected, inferred))| (source.value_name(value).clone(), keep_labels(expected, inferred)))
            .collect();
        let new = target.push(op, operands, results, regions, node.provenance.clone());
        for (&old, &value) in node.results.iter().zip(&target.node(new).results) {
            map.set(old, value);
        }
    }

    fn region(&mut self, region: &Graph) -> Graph {
        let empty = if region.name().is_empty() { Graph::default() } else { Graph::new(region.name()) };
        self.graph(region, empty)
    }

    fn infer(
        &mut self,
        op: &Op,
        graph: &Graph,
        operands: &[Value],
        regions: &[Graph],
        provenance: &Provenance,
    ) -> Option<Types> {
        if let [region] = regions {
            return Some(region.returns().iter().map(|&value| region.ty(value).clone()).collect());
        }
        match op.spec().infer(&graph.types(operands)) {
            Ok(types) => Some(types),
            Err(faults) => {
                self.errors.extend(faults.into_iter().map(|fault| diagnose(graph, fault, operands, provenance)));
                None
            }
        }
    }

    fn result_type(&mut self, graph: &Graph, value: Value, node: &NodeData) -> TensorType {
        let data = graph.value(value);
        self.ty(&data.ty, &format!("%{}", data.name), node.provenance.source.as_ref())
    }

    fn ty(&mut self, ty: &TensorType, what: &str, at: Option<&Location>) -> TensorType {
        let dims: Result<Vec<_>, DimError> = ty.shape.dims().iter().map(|dim| dim.try_bind(self.bindings)).collect();
        let shape: Shape = match dims {
            Ok(dims) => dims.into_iter().collect(),
            Err(error) => {
                let given: Vec<String> =
                    self.bindings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
                let diagnostic = Diagnostic::error("dim.size", format!("{what}: {ty} has no size: {error}"));
                self.errors.push(diagnostic.at(at.cloned()).note(format!("bound: {}", given.join(", "))));
                ty.shape.bind(self.bindings)
            }
        };
        TensorType { shape, ..ty.clone() }
    }
}

/// The inferred type, with the labels of the bound type where both agree, as they do unless a rounding depends on the
/// binding. The layout is the value's own.
fn keep_labels(bound: TensorType, inferred: TensorType) -> TensorType {
    let shape = if bound.shape == inferred.shape { bound.shape } else { inferred.shape };
    TensorType { dtype: inferred.dtype, shape, layout: bound.layout }
}
