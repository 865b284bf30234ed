//! Passes: each reads a verified module and leaves one.

use std::fmt;

use kiln_ir::graph::{Graph, Provenance, Value, ValueMap};
use kiln_ir::types::Name;
use kiln_ir::{Diagnostic, Module, builder::GraphBuilder};

pub mod canonicalize;
pub mod crop;
pub mod decompose;
pub mod eliminate_common;
pub mod eliminate_dead;
pub mod fold_batch_norm;
pub mod fold_constants;
pub mod fuse;
pub mod hoist;
pub mod join_slices;
pub mod optimizer;
pub mod rematerialize;
pub mod specialize;

/// Whether a pass changed the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The module is as it was.
    No,
    /// Something is different.
    Yes,
}

impl Changed {
    /// `Yes` if either is.
    pub fn or(self, other: Changed) -> Changed {
        if self == Changed::Yes { self } else { other }
    }
}

/// A sweep over the module.
pub trait Pass {
    /// Its name in pipelines, dumps and remarks.
    fn name(&self) -> &'static str;

    /// Changes the module and says why and why not.
    ///
    /// # Errors
    /// What in the *program* makes the pass impossible (a missing gradient), all of it at once.
    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>>;

    /// Whether every graph has the same results afterwards; false for a pass that gives ops their meaning.
    fn keeps_results(&self) -> bool {
        true
    }
}

/// What passes have to say about their decisions.
#[derive(Debug, Default)]
pub struct Remarks {
    list: Vec<Remark>,
    rewrites: usize,
}

/// One decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Remark {
    /// Pass that made it.
    pub pass: &'static str,
    /// Graph it is about.
    pub graph: Name,
    /// Value it is about.
    pub value: Name,
    /// Code from the pass's closed set: `fused`, `convexity`, `multiple_uses`.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Remarks {
    /// Adds a remark.
    pub fn push(&mut self, remark: Remark) {
        self.list.push(remark);
    }

    /// Counts `count` rewrites: nodes replaced, dropped, merged, moved or grouped, as the pass sees it.
    pub fn rewrote(&mut self, count: usize) {
        self.rewrites += count;
    }

    /// How much was rewritten.
    pub fn rewrites(&self) -> usize {
        self.rewrites
    }

    /// All remarks in order.
    pub fn list(&self) -> &[Remark] {
        &self.list
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: @{} %{} [{}] {}", self.pass, self.graph, self.value, self.code, self.message)
    }
}

/// Rewrites every graph of the module by `rewrite`, which returns the successor if it differs.
pub fn each_graph(
    module: &mut Module,
    remarks: &mut Remarks,
    mut rewrite: impl FnMut(&Graph, &mut Remarks) -> Result<Option<Graph>, Vec<Diagnostic>>,
) -> Result<Changed, Vec<Diagnostic>> {
    let mut changed = Changed::No;
    let mut faults = Vec::new();
    for graph in module.graphs.values_mut() {
        match rewrite(graph, remarks) {
            Ok(Some(next)) => {
                *graph = next;
                changed = Changed::Yes;
            }
            Ok(None) => {}
            Err(found) => faults.extend(found),
        }
    }
    if faults.is_empty() { Ok(changed) } else { Err(faults) }
}

/// Appends the nodes of a composite to the graph under construction: parameters become `operands`, inner names are
/// prefixed by `names[0]`, results are called `names`. Returns the values of the results.
pub fn inline(
    builder: &GraphBuilder,
    composite: &Graph,
    operands: &[Value],
    names: &[Name],
    from: &Provenance,
) -> Vec<Value> {
    let prefix = names.first().map(|name| &**name).unwrap_or_default();
    let name = |value: Value| match composite.returns().iter().position(|&r| r == value) {
        Some(result) if result < names.len() => names[result].clone(),
        _ => Name::from(format!("{prefix}.{}", composite.value_name(value))),
    };
    builder.with_graph_mut(|graph| {
        let mut map = ValueMap::empty(composite);
        for (param, &operand) in composite.params().iter().zip(operands) {
            map.set(param.value, operand);
        }
        for (_, data) in composite.nodes() {
            let operands: Vec<Value> = data.operands.iter().map(|&v| map.get(v)).collect();
            let results: Vec<(Name, _)> = data.results.iter().map(|&v| (name(v), composite.ty(v).clone())).collect();
            let node = graph.push(data.op.clone(), operands, results, data.regions.clone(), from.clone());
            let new = graph.node(node).results.clone();
            data.results.iter().zip(new).for_each(|(&old, new)| map.set(old, new));
        }
        composite.returns().iter().map(|&v| map.get(v)).collect()
    })
}
