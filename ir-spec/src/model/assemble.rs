//! From one forward graph to the module: `@predict`, `@eval`, `@step0` and the recipe.
//!
//! The forward is built once; each graph is a copy of what its results need. Front ends differ in how they build it
//! and in nothing after that.

use std::collections::BTreeSet;

use super::extract;
use super::foreign::{self, ForeignWeight};
use super::step::{plan, reported_losses, step_graph};
use super::training::Train;
use crate::attribute::AttrValue;
use crate::builder::GraphBuilder;
use crate::diagnostic::Diagnostic;
use crate::graph::{Graph, Location, Value};
use crate::module::{Module, Recipe};
use crate::op::Op;
use crate::types::Name;

/// A value that leaves the model.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) name: Name,
    pub(crate) value: Value,
    pub(crate) at: Option<Location>,
}

/// What a front end gathers.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) builder: GraphBuilder,
    pub(crate) predict: Option<Root>,
    /// In the order of the text, under different names.
    pub(crate) losses: Vec<Root>,
    pub(crate) metrics: Vec<Root>,
    pub(crate) training: Option<Train>,
    pub(crate) weights: Vec<ForeignWeight>,
}

/// The module of a program, or everything that is wrong with it.
pub(crate) fn assemble(program: Program) -> Result<Module, Vec<Diagnostic>> {
    let Program { builder, predict, losses, metrics, training, weights } = program;
    let (states, pending) = (builder.states(), builder.pending_updates());
    let mut faults = Vec::new();
    let forward = builder.finish()?;
    let reported: Vec<&Root> = losses.iter().chain(&metrics).collect();
    check_reported(&forward, &reported, &mut faults);
    if predict.is_none() && losses.is_empty() {
        faults.push(
            Diagnostic::error("model.C2", "the model has no result")
                .help("say what it computes: `predict %y`, and to train it `loss cross_entropy %y, %label`"),
        );
    }
    if let (Some(train), true) = (&training, losses.is_empty()) {
        let fault = Diagnostic::error("model.C3", "there is nothing to train: the model has no `loss`");
        faults.push(fault.at(train.at.clone()).help("add a statement such as `loss cross_entropy %logits, %label`"));
    }
    if !faults.is_empty() {
        return Err(faults);
    }

    let mut module = Module { states, ..Module::default() };
    let mut recipe = Recipe::default();
    if let Some(root) = &predict {
        module.add_graph(extract::of_value(&forward, "predict", root));
    }
    if !losses.is_empty() {
        module.add_graph(extract::reporting(&forward, "eval", &reported));
    }
    if let Some(train) = &training {
        let plans = plan(&forward, &losses, &metrics, &pending, train)?;
        let graph = step_graph(&forward, &plans, &mut module)?;
        recipe.entries.insert("step".into(), global(graph.name()));
        module.add_graph(graph);
        if plans.len() > 1 {
            let losses = reported_losses(&plans).into_iter().map(AttrValue::Text).collect();
            recipe.entries.insert("losses".into(), AttrValue::List(losses));
        }
        recipe.entries.insert("eval".into(), global("eval"));
        if predict.is_some() {
            recipe.entries.insert("predict".into(), global("predict"));
        }
        recipe.entries.extend(train.entries.clone());
    }
    keep_read_states(&mut module);
    if !weights.is_empty() {
        let states: Vec<&Name> = module.states.keys().collect();
        let weights = foreign::resolve(&weights, &states)?;
        recipe.entries.insert("weights".into(), AttrValue::Record("".into(), weights));
    }
    if !recipe.entries.is_empty() {
        module.recipe = Some(recipe);
    }
    Ok(module)
}

/// `@name` as a value of the recipe.
fn global(name: &str) -> AttrValue {
    AttrValue::Word(format!("@{name}").into())
}

/// Loss and metrics are float scalars, each under a name of its own.
fn check_reported(forward: &Graph, reported: &[&Root], faults: &mut Vec<Diagnostic>) {
    let mut names = BTreeSet::new();
    for root in reported {
        faults.extend(not_reportable(forward, root));
        if !names.insert(&root.name) {
            let fault = Diagnostic::error("model.C5", format!("`{}` is reported twice", root.name));
            faults.push(fault.at(root.at.clone()).help("give one of the values another name first"));
        }
    }
}

/// Why a value cannot be a loss or a metric.
pub(crate) fn not_reportable(forward: &Graph, root: &Root) -> Option<Diagnostic> {
    let ty = forward.ty(root.value);
    if ty.rank() == 0 && ty.dtype.is_float() {
        return None;
    }
    let name = forward.value_name(root.value);
    let message = format!("`{}` must be a float scalar, the mean over the batch; %{name} is {ty}", root.name);
    Some(Diagnostic::error("model.C4", message).at(root.at.clone()).help("take the mean: `reduce_mean %x`"))
}

/// A layer whose result nobody uses leaves no state behind.
fn keep_read_states(module: &mut Module) {
    let mut read = BTreeSet::new();
    for graph in module.graphs.values() {
        for (_, data) in graph.nodes() {
            if let Op::State(op) = &data.op {
                read.insert(op.name.clone());
            }
        }
    }
    module.states.retain(|name, _| read.contains(name));
}
