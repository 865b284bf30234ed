//! From one forward graph to the module: `@predict`, `@eval`, `@step0` and its like, and the recipe.
//!
//! The forward is built once; each graph is a copy of what its results need. Front ends differ in how they build it
//! and in nothing after that.

use std::collections::{BTreeMap, BTreeSet};

use super::foreign::{self, ForeignWeight};
use super::step::{plan, step_graph};
use super::training::Train;
use crate::attribute::AttrValue;
use crate::builder::GraphBuilder;
use crate::diagnostic::Diagnostic;
use crate::graph::{Def, Graph, Location, Provenance, Update, Value, ValueMap};
use crate::module::{Module, Recipe};
use crate::op::{self, Op};
use crate::types::{Name, TensorType};

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
        module.add_graph(extract(&forward, "predict", &[root], &Copied::default()).0);
    }
    if !losses.is_empty() {
        let copied = Copied { reported: true, ..Copied::default() };
        module.add_graph(extract(&forward, "eval", &reported, &copied).0);
    }
    if let Some(train) = &training {
        let steps = add_steps(&forward, &losses, &metrics, &pending, train, &mut module)?;
        recipe.entries.insert("step".into(), steps);
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

/// Adds `@step0`, `@step1`, ... and gives their names as the recipe has them.
fn add_steps(
    forward: &Graph,
    losses: &[Root],
    metrics: &[Root],
    pending: &[Update],
    train: &Train,
    module: &mut Module,
) -> Result<AttrValue, Vec<Diagnostic>> {
    let plans = plan(forward, losses, metrics, pending, train)?;
    let mut names = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        let name = format!("step{number}");
        let copied = Copied { reported: true, relays: plan.relays() };
        let (graph, map) = extract(forward, &name, &plan.roots, &copied);
        let graph = step_graph(graph, &map, plan, module)?;
        module.add_graph(graph);
        names.push(global(&name));
    }
    Ok(match <[AttrValue; 1]>::try_from(names) {
        Ok([only]) => only,
        Err(names) => AttrValue::List(names),
    })
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

/// What a copy has beyond the nodes that its roots need.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Its roots are reported, each under its own name, and it has every parameter.
    pub(super) reported: bool,
    /// Nodes that read a state as an earlier node leaves it: by the node's result, the state and that node's result.
    pub(super) relays: BTreeMap<Value, (Name, Value)>,
}

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

/// A copy of what `roots` need, returning them.
pub(super) fn extract(forward: &Graph, name: &str, roots: &[&Root], copied: &Copied) -> (Graph, ValueMap) {
    let live = needed(forward, roots.iter().map(|root| root.value));
    let nodes: Vec<_> = forward.nodes().map(|(_, data)| data).collect();
    let rename = copied.reported;

    // Names by which roots are returned; a value has the first, and no other value has any of them.
    let mut given: BTreeMap<Value, &Name> = BTreeMap::new();
    let reserved: BTreeSet<&Name> = if rename { roots.iter().map(|r| &r.name).collect() } else { BTreeSet::new() };
    for root in roots.iter().filter(|_| rename) {
        if let Def::Result(node, _) = forward.value(root.value).def
            && !matches!(forward.node(node).op, Op::State(_))
        {
            given.entry(root.value).or_insert(&root.name);
        }
    }

    let mut graph = Graph::new(name);
    let mut map = ValueMap::empty(forward);
    for param in forward.params() {
        if copied.reported || live[param.value.index()] {
            let data = forward.value(param.value);
            map.set(param.value, graph.add_param(data.name.clone(), data.ty.clone(), param.below));
        }
    }
    for data in nodes {
        if !data.results.iter().any(|v| live[v.index()]) {
            continue;
        }
        let results: Vec<(Name, TensorType)> = data
            .results
            .iter()
            .map(|v| {
                let own = forward.value_name(*v);
                let name = match given.get(v) {
                    Some(name) => (*name).clone(),
                    None if reserved.contains(own) => format!("{own}.value").into(),
                    None => own.clone(),
                };
                (name, forward.ty(*v).clone())
            })
            .collect();
        let relayed = |v: Value| {
            let relay =
                |result| copied.relays.get(result).filter(|(state, _)| forward.read_state_name(v) == Some(state));
            data.results.iter().find_map(relay).map_or(v, |(_, left)| *left)
        };
        let operands: Vec<Value> = data.operands.iter().map(|&v| map.get(relayed(v))).collect();
        let node = graph.push(data.op.clone(), operands, results, data.regions.clone(), data.provenance.clone());
        for (&old, &new) in data.results.iter().zip(&graph.node(node).results.clone()) {
            map.set(old, new);
        }
    }
    let returns = roots.iter().map(|root| {
        let value = map.get(root.value);
        if !rename || graph.value_name(value) == &root.name {
            return value;
        }
        // A parameter, a state or a value reported twice: its second name needs a value.
        let ty = graph.ty(value).clone();
        let provenance = Provenance { source: root.at.clone(), derived: None };
        let copy =
            graph.push(op::Reshape { ty: ty.clone() }.into(), [value], [(root.name.clone(), ty)], vec![], provenance);
        graph.node(copy).results[0]
    });
    let returns: Vec<Value> = returns.collect();
    graph.set_returns(returns);
    (graph, map)
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
