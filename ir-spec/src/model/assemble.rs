//! From one forward graph to the module: `@predict`, `@eval`, `@step0` and the recipe.
//!
//! The forward is built once; each graph is a copy of what its results need. Front ends differ in how they build it
//! and in nothing after that.

use std::collections::{BTreeMap, BTreeSet};

use super::foreign::{self, ForeignWeight};
use super::training::Train;
use crate::attribute::AttrValue;
use crate::builder::{GraphBuilder, Tensor};
use crate::diagnostic::Diagnostic;
use crate::graph::{Def, Graph, Location, Provenance, Update, Value, ValueMap};
use crate::module::{Initializer, Module, Recipe, Role, State};
use crate::op::{self, Elementwise, Op};
use crate::types::{DType, Name, TensorType};

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
    pub(crate) loss: Option<Root>,
    pub(crate) metrics: Vec<Root>,
    pub(crate) training: Option<Train>,
    pub(crate) weights: Vec<ForeignWeight>,
}

/// The module of a program, or everything that is wrong with it.
pub(crate) fn assemble(program: Program) -> Result<Module, Vec<Diagnostic>> {
    let Program { builder, predict, loss, metrics, training, weights } = program;
    let (states, pending) = (builder.states(), builder.pending_updates());
    let mut faults = Vec::new();
    let forward = builder.finish()?;
    let reported: Vec<&Root> = loss.iter().chain(&metrics).collect();
    check_reported(&forward, &reported, &mut faults);
    if predict.is_none() && loss.is_none() {
        faults.push(
            Diagnostic::error("model.C2", "the model has no result")
                .help("say what it computes: `predict %y`, and to train it `loss cross_entropy %y, %label`"),
        );
    }
    if let (Some(train), None) = (&training, &loss) {
        let fault = Diagnostic::error("model.C3", "there is nothing to train: the model has no `loss`");
        faults.push(fault.at(train.at.clone()).help("add a statement such as `loss cross_entropy %logits, %label`"));
    }
    if !faults.is_empty() {
        return Err(faults);
    }

    let mut module = Module { states, ..Module::default() };
    let mut recipe = Recipe::default();
    if let Some(root) = &predict {
        module.add_graph(extract(&forward, "predict", &[root], Params::Used, false).0);
    }
    if loss.is_some() {
        module.add_graph(extract(&forward, "eval", &reported, Params::All, true).0);
    }
    if let Some(train) = &training {
        let (graph, map) = extract(&forward, "step0", &reported, Params::All, true);
        let step = step_graph(graph, &map, &pending, train, &mut module)?;
        module.add_graph(step);
        recipe.entries.insert("step".into(), global("step0"));
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

/// Which parameters a copy has.
#[derive(Clone, Copy, PartialEq)]
enum Params {
    All,
    Used,
}

/// A copy of what `roots` need, returning them; with `rename`, each under the root's name.
fn extract(forward: &Graph, name: &str, roots: &[&Root], params: Params, rename: bool) -> (Graph, ValueMap) {
    let mut live = vec![false; forward.value_count()];
    roots.iter().for_each(|root| live[root.value.index()] = true);
    let nodes: Vec<_> = forward.nodes().map(|(_, data)| data).collect();
    for data in nodes.iter().rev() {
        if data.results.iter().any(|v| live[v.index()]) {
            data.operands.iter().for_each(|v| live[v.index()] = true);
        }
    }

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
        if params == Params::All || live[param.value.index()] {
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
        let operands: Vec<Value> = data.operands.iter().map(|&v| map.get(v)).collect();
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

/// Gradient, optimizer and updates behind the forward.
fn step_graph(
    forward: Graph,
    map: &ValueMap,
    pending: &[Update],
    train: &Train,
    module: &mut Module,
) -> Result<Graph, Vec<Diagnostic>> {
    let returns = forward.returns().to_vec();
    let mut parameters: Vec<(Name, Value)> = Vec::new();
    let mut draws = None;
    for (_, data) in forward.nodes() {
        let Op::State(read) = &data.op else { continue };
        match module.states.get(&read.name).map(|state| state.role) {
            Some(Role::Param) => parameters.push((read.name.clone(), data.results[0])),
            Some(Role::Counter) if &*read.name == "rng" => draws = Some(data.results[0]),
            _ => {}
        }
    }
    if parameters.is_empty() {
        let fault = Diagnostic::error("model.C6", "there is nothing to train: the loss depends on no parameter");
        return Err(vec![fault.at(train.at.clone())]);
    }

    let builder = GraphBuilder::over(forward);
    builder.set_provenance(Some(Provenance { source: train.at.clone(), derived: Some("train".into()) }));
    let step = counter(&builder, module, "step", &train.at);
    let rate = rate(&builder, train, &step);
    let weights: Vec<Tensor> = parameters.iter().map(|(_, value)| builder.tensor(*value)).collect();
    let loss = builder.tensor(returns[0]);
    let operands: Vec<&Tensor> = std::iter::once(&loss).chain(&weights).collect();
    let names: Vec<String> = parameters.iter().map(|(name, _)| format!("grad.{name}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let gradients = builder.apply_all(op::GradientOf {}, &operands, &names);
    let gradients = clipped(&builder, train, gradients.to_vec());

    let mut updates: Vec<(Name, Tensor)> = Vec::new();
    for (((name, _), weight), gradient) in parameters.iter().zip(&weights).zip(&gradients) {
        updates.extend(optimize(&builder, train, module, name, [weight, gradient, &step, &rate]));
    }
    let increment = |value: &Tensor, name: &str| {
        let add = Op::Elementwise(Elementwise::Add);
        builder.apply_named(add, &[value, &value.full_like(1).named("one")], &format!("{name}.next"))
    };
    let statistics = pending.iter().filter_map(|u| Some((u.state.clone(), builder.tensor(map.try_get(u.value)?))));
    updates.extend(statistics);
    updates.push(("step".into(), increment(&step, "step")));
    if let Some(draws) = draws {
        updates.push(("rng".into(), increment(&builder.tensor(draws), "rng")));
    }
    for (state, value) in updates {
        builder.update(&state, &value);
    }
    builder.finish()
}

/// Reads a counter state, declaring it.
fn counter(builder: &GraphBuilder, module: &mut Module, name: &str, at: &Option<Location>) -> Tensor {
    let ty = TensorType::scalar(DType::I64);
    let state = State { ty: ty.clone(), role: Role::Counter, init: Initializer::Constant(0.0), source: at.clone() };
    module.states.insert(name.into(), state);
    builder.read_state(name, ty)
}

/// The learning rate: a constant, or by schedule.
fn rate(builder: &GraphBuilder, train: &Train, step: &Tensor) -> Tensor {
    let base = train.optimizer.rate;
    match train.cosine {
        Some((steps, floor)) => builder.apply_named(op::CosineRate { base, floor, steps }, &[step], "rate"),
        None => builder.full(base, &TensorType::scalar(DType::F32)).named("rate"),
    }
}

/// Scales all gradients by `min(1, bound / (norm + 1e-6))`, the norm being of all of them together
/// (Pascanu et al., ICML 2013; the small term is PyTorch's).
fn clipped(builder: &GraphBuilder, train: &Train, gradients: Vec<Tensor>) -> Vec<Tensor> {
    let Some(bound) = train.clip else { return gradients };
    let squares = gradients.iter().map(|g| g.square().sum(&(0..g.rank()).collect::<Vec<_>>()));
    let Some(total) = squares.reduce(|a, b| &a + &b) else { return gradients };
    let norm = total.sqrt();
    let ratio = bound / &(&norm + 1e-6);
    let scale = ratio.elementwise(Elementwise::Min, &[&ratio.full_like(1.0)]);
    builder.rename(&scale, "clip");
    gradients.iter().map(|g| g * &scale).collect()
}

/// The optimizer's op on one parameter: updates of the parameter and of its moments.
fn optimize(
    builder: &GraphBuilder,
    train: &Train,
    module: &mut Module,
    name: &Name,
    [weight, gradient, step, rate]: [&Tensor; 4],
) -> Vec<(Name, Tensor)> {
    let op = &train.optimizer.op;
    let entry = op.entry();
    let mut operands = Vec::new();
    let mut states: BTreeMap<&str, Name> = BTreeMap::from([("w", name.clone())]);
    for &operand in entry.operands {
        operands.push(match operand {
            "w" => weight.clone(),
            "g" => gradient.clone(),
            "step" => step.clone(),
            "rate" => rate.clone(),
            moment => {
                let state: Name = format!("{}.{moment}.{name}", entry.mnemonic).into();
                let init = Initializer::Constant(0.0);
                let declared = State { ty: weight.ty(), role: Role::Moment, init, source: train.at.clone() };
                module.states.insert(state.clone(), declared);
                states.insert(moment, state.clone());
                builder.read_state(&state, weight.ty())
            }
        });
    }
    let operands: Vec<&Tensor> = operands.iter().collect();
    let written: Vec<Name> = entry.results.iter().filter_map(|result| states.get(result).cloned()).collect();
    let names: Vec<String> = written.iter().map(|state| format!("{state}.next")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    written.iter().cloned().zip(builder.apply_all(op.clone(), &operands, &names)).collect()
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
