//! Pass `autodiff`: expands `gradient` nodes into ordinary nodes.
//!
//! Only the reverse walk and the accumulation live here; the rules live with the ops. The result is ordinary IR, so a
//! gradient of a gradient is two `gradient` nodes, expanded in program order. Behind them a `detach` has nothing left to
//! hold back, and goes.
//!
//! ```text
//! graph @f(%x: f32[2]) {
//!   %square: f32[2] = square %x
//!   %loss: f32[] = reduce_sum %square {dims = [0]}
//!   %dx: f32[2] = gradient %loss, %x
//!   return %dx
//! }
//! ```
//! becomes
//! ```text
//! graph @f(%x: f32[2]) {
//!   %square: f32[2] = square %x
//!   %loss: f32[] = reduce_sum %square {dims = [0]}
//!   %const: f32[] = const {value = 1.0}
//!   %d.loss.broadcast: f32[2] = broadcast %const {dims = []}
//!   %d.square.const: f32[2] = const {value = 2.0}
//!   %d.square.mul: f32[2] = mul %d.square.const, %d.loss.broadcast
//!   %dx: f32[2] = mul %d.square.mul, %x
//!   return %dx
//! }
//! ```

use std::collections::HashMap;

use kiln_ir::body::Body;
use kiln_ir::builder::{GraphBuilder, Tensor};
use kiln_ir::graph::{Graph, Node, Provenance, Value, ValueMap};
use kiln_ir::op::{Elementwise, Gradient, Op, Vjp};
use kiln_ir::types::Name;
use kiln_ir::{Diagnostic, Module};

use crate::loops::build::body_of;
use crate::pass::{Changed, Pass, Remarks, each_graph, inline};

/// The pass.
#[derive(Debug)]
pub struct Autodiff;

impl Pass for Autodiff {
    fn name(&self) -> &'static str {
        "autodiff"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, remarks, |graph, remarks| {
            let gradients = graph.nodes().filter(|(_, data)| matches!(data.op, Op::GradientOf(_))).count();
            let detached = graph.nodes().filter(|(_, data)| is_detach(&data.op)).count();
            remarks.rewrote(gradients + detached);
            let expanded = if gradients > 0 { Some(expand(graph)?) } else { None };
            if detached == 0 {
                return Ok(expanded);
            }
            Ok(Some(without_detach(expanded.as_ref().unwrap_or(graph))))
        })
    }
}

fn is_detach(op: &Op) -> bool {
    matches!(op, Op::Elementwise(Elementwise::Detach))
}

fn without_detach(graph: &Graph) -> Graph {
    let mut next = graph.successor();
    let mut map = ValueMap::params(graph);
    for (_, data) in graph.nodes() {
        if is_detach(&data.op) {
            map.set(data.results[0], map.get(data.operands[0]));
        } else {
            next.push_copy(graph, data, &mut map);
        }
    }
    next.finish_copy(graph, &map);
    next
}

fn expand(graph: &Graph) -> Result<Graph, Vec<Diagnostic>> {
    let builder = GraphBuilder::over(graph.successor());
    let mut map = ValueMap::params(graph);
    let mut missing = Vec::new();
    for (_, data) in graph.nodes() {
        if !matches!(data.op, Op::GradientOf(_)) {
            builder.with_graph_mut(|g| g.push_copy(graph, data, &mut map));
            continue;
        }
        let operands: Vec<Value> = data.operands.iter().map(|&v| map.get(v)).collect();
        let values = builder.with_graph(Graph::value_count);
        let mut walk =
            Walk { builder: builder.clone(), cotangents: HashMap::new(), active: Vec::new(), missing: Vec::new() };
        let gradients = walk.gradients(operands[0], &operands[1..], &data.provenance);
        missing.extend(walk.missing);
        for (&result, gradient) in data.results.iter().zip(&gradients) {
            // What takes a value's place takes its name.
            if gradient.value().index() >= values {
                builder.rename(gradient, graph.value_name(result));
            }
        }
        data.results.iter().zip(gradients).for_each(|(&old, new)| map.set(old, new.value()));
    }
    builder.with_graph_mut(|g| g.finish_copy(graph, &map));
    if missing.is_empty() { builder.finish() } else { Err(missing) }
}

/// One reverse walk.
struct Walk {
    builder: GraphBuilder,
    cotangents: HashMap<Value, Tensor>,
    /// Whether a value depends on what is differentiated for.
    active: Vec<bool>,
    missing: Vec<Diagnostic>,
}

impl Walk {
    fn gradients(&mut self, loss: Value, wrt: &[Value], from: &Provenance) -> Vec<Tensor> {
        let nodes = self.node_count();
        self.active = vec![false; self.builder.with_graph(Graph::value_count)];
        wrt.iter().for_each(|v| self.active[v.index()] = true);
        self.mark_active(0, nodes);
        self.builder.set_provenance(Some(from.clone()));
        let seed = self.builder.tensor(loss).full_like(1.0);
        self.cotangents.insert(loss, seed);
        self.reverse(0, nodes);
        let zero = |v: &Value| self.builder.tensor(*v).full_like(0.0);
        let gradients = wrt.iter().map(|v| self.cotangents.get(v).cloned().unwrap_or_else(|| zero(v))).collect();
        self.builder.set_provenance(None);
        self.builder.set_prefix(None);
        gradients
    }

    fn node_count(&self) -> usize {
        self.builder.with_graph(|g| g.nodes().len())
    }

    /// Marks results of nodes `begin..end` that have an active operand. Nothing flows through integers and bools: the
    /// mask in the gradient of a maximum is a constant to the second gradient.
    fn mark_active(&mut self, begin: usize, end: usize) {
        let (builder, active) = (&self.builder, &mut self.active);
        builder.with_graph(|graph| {
            active.resize(graph.value_count(), false);
            for (_, data) in graph.nodes().skip(begin).take(end - begin) {
                let any = !is_detach(&data.op) && data.operands.iter().any(|v| active[v.index()]);
                let flows = |v: &&Value| any && graph.ty(**v).dtype.is_float();
                data.results.iter().filter(flows).for_each(|v| active[v.index()] = true);
            }
        });
    }

    /// Walks nodes `begin..end` backwards.
    fn reverse(&mut self, begin: usize, end: usize) {
        for position in (begin..end).rev() {
            let found = self.builder.with_graph(|graph| {
                let (node, data) = graph.node_at(position)?;
                let reached = data.results.iter().any(|v| self.cotangents.contains_key(v));
                let active = data.operands.iter().any(|v| self.active[v.index()]);
                (reached && active).then(|| (node, data.clone()))
            });
            if let Some((node, data)) = found {
                self.node(node, &data);
            }
        }
    }

    fn node(&mut self, node: Node, data: &kiln_ir::graph::NodeData) {
        let tensor = |&v: &Value| self.builder.tensor(v);
        let operands: Vec<Tensor> = data.operands.iter().map(tensor).collect();
        let results: Vec<Tensor> = data.results.iter().map(tensor).collect();
        let cotangents: Vec<Option<Tensor>> = data.results.iter().map(|v| self.cotangents.get(v).cloned()).collect();
        let result = self.builder.with_graph(|g| g.value_name(data.results[0]).clone());
        let derived = Name::from(format!("grad(%{result})"));
        self.builder
            .set_provenance(Some(Provenance { source: data.provenance.source.clone(), derived: Some(derived) }));
        // `%d.h.select` is made while the gradient passes through the node that defines `%h`.
        self.builder.set_prefix(Some(Name::from(format!("d.{result}"))));
        let cx = Vjp { operands: &operands, results: &results, cotangents: &cotangents };
        match data.op.spec().vjp(&cx) {
            Gradient::Operands(gradients) => {
                for (operand, gradient) in data.operands.iter().zip(gradients) {
                    if let (Some(gradient), true) = (gradient, self.active[operand.index()]) {
                        self.accumulate(*operand, gradient);
                    }
                }
            }
            Gradient::Decompose => self.through_decomposition(node, data, &result),
            Gradient::NonDifferentiable(reason) => {
                let message = format!("`{}` has no gradient: {reason}", data.op.mnemonic());
                self.missing.push(
                    Diagnostic::error("autodiff.A1", message)
                        .at(data.provenance.source.clone())
                        .note(format!("the loss depends on %{result}"))
                        .help("keep the op off the path from the parameters to the loss"),
                );
            }
        }
    }

    /// Emits the simpler graph beside the node and walks that instead.
    fn through_decomposition(&mut self, node: Node, data: &kiln_ir::graph::NodeData, name: &str) {
        let body = self.builder.with_graph(|g| body_of(g, g.node(node)));
        let composite = match body {
            Body::Composite(composite) => *composite,
            Body::Region => data.regions[0].clone(),
            _ => return,
        };
        let begin = self.node_count();
        let inner = inline(&self.builder, &composite, &data.operands, &[Name::from(name)], &data.provenance);
        let end = self.node_count();
        self.mark_active(begin, end);
        for (&outer, &inner) in data.results.iter().zip(&inner) {
            if let Some(cotangent) = self.cotangents.get(&outer).cloned() {
                // It may return an operand as it is, or one value twice.
                self.accumulate(inner, cotangent);
            }
        }
        self.reverse(begin, end);
    }

    fn accumulate(&mut self, value: Value, gradient: Tensor) {
        let sum = match self.cotangents.remove(&value) {
            Some(old) => &old + &gradient,
            None => gradient,
        };
        self.cotangents.insert(value, sum);
    }
}
