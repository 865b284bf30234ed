//! Steps: what each of them computes, its gradient, optimizer and updates, all of them as one graph.
//!
//! A batch is one evaluation of the model in several steps. Each computes what its loss needs with the states as the
//! step before left them, and takes from the steps before what that does not change: a generator's images, which the
//! discriminator's step has judged, are there when the generator's step begins. Where a step reads a state that
//! another one has changed, it reads the changed value behind a `detach`: to its gradient, parameters are numbers, however
//! they came to be. An application of `batch_norm` moves the running statistics once a batch, in the first step that
//! needs it, and in the order of the text; the draws of `@rng` are the same in all steps of a batch.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::assemble::Root;
use super::extract::{Copy, Report, needed, report_all};
use super::training::{Step, Train};
use crate::builder::{GraphBuilder, Tensor};
use crate::diagnostic::Diagnostic;
use crate::graph::{Graph, Location, Provenance, Update, Value};
use crate::module::{Initializer, Module, Role, State};
use crate::op::{self, Elementwise, Op};
use crate::text::suggest::did_you_mean;
use crate::types::{DType, Name, TensorType};

/// The state of which every draw of random numbers is a function.
const DRAWS: &str = "rng";

/// One step before it is a graph.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    step: &'a Step,
    /// The loss, then metrics.
    roots: Vec<&'a Root>,
    /// Which values of the forward they need, by index.
    cone: Vec<bool>,
    /// Next values of statistics that this step writes, in order; several of one state follow each other.
    updates: Vec<Update>,
    /// Whether it adds 1 to [`DRAWS`].
    draws: bool,
}

impl Plan<'_> {
    fn needs(&self, value: Value) -> bool {
        self.cone.get(value.index()).is_some_and(|needed| *needed)
    }
}

/// Each update but the first of a state reads what the one before it leaves: by its value, the state and that.
fn relays(plans: &[Plan<'_>]) -> BTreeMap<Value, (Name, Value)> {
    let mut last: BTreeMap<Name, Value> = BTreeMap::new();
    let relay = |update: &Update| {
        let Update { state, value } = update;
        last.insert(state.clone(), *value).map(|left| (*value, (state.clone(), left)))
    };
    plans.iter().flat_map(|plan| &plan.updates).filter_map(relay).collect()
}

/// Names of the losses among what the steps return: a loss that several steps make small is called after each of them.
pub(super) fn reported_losses(plans: &[Plan<'_>]) -> Vec<Name> {
    plans.iter().flat_map(|plan| plan.roots.first().map(|root| reported_name(plans, plan, root))).collect()
}

fn reported_name(plans: &[Plan<'_>], plan: &Plan<'_>, root: &Root) -> Name {
    let times = plans.iter().flat_map(|plan| &plan.roots).filter(|other| other.name == root.name).count();
    if times > 1 { plan.step.state(&root.name) } else { root.name.clone() }
}

/// The steps of a training.
///
/// # Errors
/// Losses that are not there, steps of one name.
pub(super) fn plan<'a>(
    forward: &Graph,
    losses: &'a [Root],
    metrics: &'a [Root],
    pending: &[Update],
    train: &'a Train,
) -> Result<Vec<Plan<'a>>, Vec<Diagnostic>> {
    let mut faults = Vec::new();
    let mut plans: Vec<Plan<'a>> = Vec::new();
    if train.steps.is_empty() {
        let fault = Diagnostic::error("model.C7", "the training has no step").at(train.at.clone());
        faults.push(fault.help("give it one: `Step::new(\"main\", Optimizer::adam(0.001))`"));
    }
    for (i, step) in train.steps.iter().enumerate() {
        let mut before = train.steps.iter().take(i);
        if let Some(name) = step.name.as_ref().filter(|_| before.any(|other| other.name == step.name)) {
            let fault = Diagnostic::error("model.C7", format!("two steps are called `{name}`"));
            faults.push(fault.at(step.at.clone()).help("their counters and moments are named after them"));
        }
        match loss_of(step, losses) {
            Ok(loss) => {
                let cone = cone(forward, &[loss]);
                plans.push(Plan { step, roots: vec![loss], cone, updates: Vec::new(), draws: false });
            }
            Err(fault) => faults.push(*fault),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    for metric in metrics {
        let own = needed(forward, [metric.value]);
        let common = |plan: &Plan<'_>| own.iter().zip(&plan.cone).filter(|(own, other)| **own && **other).count();
        // The step that computes most of it anyway, the first of equals.
        let best = plans.iter().enumerate().max_by_key(|(i, plan)| (common(plan), std::cmp::Reverse(*i)));
        let best = best.map(|(i, _)| i).and_then(|i| plans.get_mut(i));
        best.into_iter().for_each(|plan| plan.roots.push(metric));
    }
    let mut written: BTreeSet<Value> = BTreeSet::new();
    for plan in &mut plans {
        plan.cone = cone(forward, &plan.roots);
        let runs = |value: Value| {
            let results = forward.producer(value).map(|(_, data)| data.results.as_slice()).unwrap_or_default();
            results.iter().any(|result| plan.needs(*result))
        };
        plan.updates = pending.iter().filter(|u| runs(u.value) && written.insert(u.value)).cloned().collect();
    }
    let drawn = forward.values().any(|value| {
        let draws = forward.read_state_name(value).is_some_and(|state| &**state == DRAWS);
        draws && plans.iter().any(|plan| plan.needs(value))
    });
    plans.last_mut().into_iter().for_each(|plan| plan.draws = drawn);
    Ok(plans)
}

fn cone(forward: &Graph, roots: &[&Root]) -> Vec<bool> {
    needed(forward, roots.iter().map(|root| root.value))
}

/// The loss of a step: the one it names, or the only one.
fn loss_of<'a>(step: &Step, losses: &'a [Root]) -> Result<&'a Root, Box<Diagnostic>> {
    let listed = losses.iter().map(|root| format!("`{}`", root.name)).collect::<Vec<_>>().join(", ");
    match (&step.loss, losses) {
        (None, [only]) => Ok(only),
        (None, _) => {
            let message = format!("the model has {} losses, and {} names none", losses.len(), step.title());
            let help = format!("add them up, or let each step of the training name one of {listed}: `steps = [...]`");
            Err(Box::new(Diagnostic::error("model.C8", message).at(step.at.clone()).help(help)))
        }
        (Some(name), _) => losses.iter().find(|root| root.name == *name).ok_or_else(|| {
            let near = did_you_mean(name, losses.iter().map(|root| &*root.name));
            let message = format!("{} has the loss `{name}`, which the model has not", step.title());
            let help = near.unwrap_or_else(|| format!("there are {listed}"));
            Box::new(Diagnostic::error("model.C8", message).at(step.at.clone()).help(help))
        }),
    }
}

/// Parameters that a step trains, with their reads.
fn parameters(forward: &Graph, plan: &Plan<'_>, module: &Module) -> Result<Vec<(Name, Value)>, Vec<Diagnostic>> {
    let step = plan.step;
    let mut all: Vec<(Name, Value)> = Vec::new();
    for value in forward.values().filter(|value| plan.needs(*value)) {
        let Some(name) = forward.read_state_name(value) else { continue };
        if module.states.get(name).is_some_and(|state| state.role == Role::Param) {
            all.push((name.clone(), value));
        }
    }
    if all.is_empty() {
        let fault = Diagnostic::error("model.C6", "there is nothing to train: the loss depends on no parameter");
        return Err(vec![fault.at(step.at.clone())]);
    }
    if step.trains.is_empty() {
        return Ok(all);
    }
    let within = |name: &Name, wanted: &Name| {
        name.strip_prefix(&**wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let missing = step.trains.iter().filter(|wanted| !all.iter().any(|(name, _)| within(name, wanted)));
    let faults: Vec<Diagnostic> = missing
        .map(|wanted| {
            let instances: BTreeSet<&str> = all.iter().filter_map(|(name, _)| name.split('.').next()).collect();
            let message = format!("{} trains `{wanted}`, on which its loss does not depend", step.title());
            let near = did_you_mean(wanted, instances.iter().copied());
            let list = instances.into_iter().collect::<Vec<_>>().join(", ");
            let help = near.unwrap_or_else(|| format!("it depends on parameters of {list}"));
            Diagnostic::error("model.C9", message).at(step.at.clone()).help(help)
        })
        .collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    all.retain(|(name, _)| step.trains.iter().any(|wanted| within(name, wanted)));
    Ok(all)
}

/// All steps, one behind the other. Each state is written once, as the last step that changes it leaves it.
///
/// # Errors
/// There is nothing to train.
pub(super) fn step_graph(forward: &Graph, plans: &[Plan<'_>], module: &mut Module) -> Result<Graph, Vec<Diagnostic>> {
    let mut graph = Graph::new("step0");
    let mut copy = Copy::new(forward, &mut graph, |_| true).with_relays(relays(plans));
    let builder = GraphBuilder::over(graph);
    let mut updates: IndexMap<Name, Tensor> = IndexMap::new();
    let mut reports = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        builder.with_graph_mut(|graph| copy.add(graph, &plan.cone));
        let report = |root: &&Root| {
            let (name, value) = (reported_name(plans, plan, root), copy.get(root.value));
            Report { name, value, at: root.at.clone() }
        };
        reports.extend(plan.roots.iter().map(report));
        let changed = changes(&builder, forward, &copy, plan, module)?;
        hand_over(&builder, forward, &mut copy, &changed, plans.get(number + 1..).unwrap_or_default(), module);
        updates.extend(changed);
    }
    builder.set_provenance(None);
    builder.with_graph_mut(|graph| report_all(graph, reports));
    for (state, value) in &updates {
        builder.update(state, value);
    }
    builder.finish()
}

/// Gradient and optimizer behind a step's part of the forward, and next values of what it changes.
fn changes(
    builder: &GraphBuilder,
    forward: &Graph,
    copy: &Copy<'_>,
    plan: &Plan<'_>,
    module: &mut Module,
) -> Result<Vec<(Name, Tensor)>, Vec<Diagnostic>> {
    let step = plan.step;
    let parameters = parameters(forward, plan, module)?;
    let derived = step.name.as_ref().map_or("train".into(), |name| format!("train({name})").into());
    builder.set_provenance(Some(Provenance { source: step.at.clone(), derived: Some(derived) }));
    let count = counter(builder, module, &step.state("step"), &step.at);
    let rate = rate(builder, step, &count);
    let weights: Vec<Tensor> = parameters.iter().map(|(_, value)| builder.tensor(copy.get(*value))).collect();
    let loss = plan.roots.first().map(|root| builder.tensor(copy.get(root.value)));
    let operands: Vec<&Tensor> = loss.iter().chain(&weights).collect();
    let names: Vec<String> = parameters.iter().map(|(name, _)| format!("grad.{name}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let gradients = builder.apply_all(op::GradientOf {}, &operands, &names);
    let gradients = clipped(builder, step, gradients.to_vec());

    let mut changed: Vec<(Name, Tensor)> = Vec::new();
    for (((name, _), weight), gradient) in parameters.iter().zip(&weights).zip(&gradients) {
        changed.extend(optimize(builder, step, module, name, [weight, gradient, &count, &rate]));
    }
    // Of several next values of one state the last holds the others.
    let statistics: BTreeMap<&Name, Value> =
        plan.updates.iter().filter_map(|u| Some((&u.state, copy.first(u.value)?))).collect();
    let in_order = module.states.keys().filter_map(|state| Some((state.clone(), *statistics.get(state)?)));
    changed.extend(in_order.map(|(state, value)| (state, builder.tensor(value))));
    changed.push((step.state("step"), incremented(builder, &count, &step.state("step"))));
    if plan.draws {
        changed.push((DRAWS.into(), incremented(builder, &draws(builder), DRAWS)));
    }
    Ok(changed)
}

/// Lets the steps `after` one read parameters as it has changed them. Statistics go from one application to the next.
fn hand_over(
    builder: &GraphBuilder,
    forward: &Graph,
    copy: &mut Copy<'_>,
    changed: &[(Name, Tensor)],
    after: &[Plan<'_>],
    module: &Module,
) {
    let parameter = |state: &Name| module.states.get(state).is_some_and(|state| state.role == Role::Param);
    let changed: BTreeMap<&Name, &Tensor> =
        changed.iter().filter(|(state, _)| parameter(state)).map(|(state, next)| (state, next)).collect();
    for read in forward.values().filter(|value| after.iter().any(|plan| plan.needs(*value))) {
        let Some(state) = forward.read_state_name(read) else { continue };
        if let Some(next) = changed.get(state) {
            let now = builder.apply_named(Op::Elementwise(Elementwise::Detach), &[next], &format!("{state}.now"));
            copy.replace(read, now.value());
        }
    }
}

fn incremented(builder: &GraphBuilder, value: &Tensor, name: &str) -> Tensor {
    let add = Op::Elementwise(Elementwise::Add);
    builder.apply_named(add, &[value, &value.full_like(1).named("one")], &format!("{name}.next"))
}

/// The read of the counter of draws, which another step may have.
fn draws(builder: &GraphBuilder) -> Tensor {
    let read = builder.with_graph(|graph| {
        graph.values().find(|value| graph.read_state_name(*value).is_some_and(|state| &**state == DRAWS))
    });
    read.map_or_else(|| builder.read_state(DRAWS, TensorType::scalar(DType::I64)), |read| builder.tensor(read))
}

/// Reads a counter state, declaring it.
fn counter(builder: &GraphBuilder, module: &mut Module, name: &str, at: &Option<Location>) -> Tensor {
    let ty = TensorType::scalar(DType::I64);
    let state = State { ty: ty.clone(), role: Role::Counter, init: Initializer::Constant(0.0), source: at.clone() };
    module.states.insert(name.into(), state);
    builder.read_state(name, ty)
}

/// The learning rate: a constant, or by schedule.
fn rate(builder: &GraphBuilder, step: &Step, count: &Tensor) -> Tensor {
    let base = step.optimizer.rate;
    match step.cosine {
        Some((steps, floor)) => builder.apply_named(op::CosineRate { base, floor, steps }, &[count], "rate"),
        None => builder.full(base, &TensorType::scalar(DType::F32)).named("rate"),
    }
}

/// Scales all gradients by `min(1, bound / (norm + 1e-6))`, the norm being of all of them together
/// (Pascanu et al., ICML 2013; the small term is PyTorch's).
fn clipped(builder: &GraphBuilder, step: &Step, gradients: Vec<Tensor>) -> Vec<Tensor> {
    let Some(bound) = step.clip else { return gradients };
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
    step: &Step,
    module: &mut Module,
    name: &Name,
    [weight, gradient, count, rate]: [&Tensor; 4],
) -> Vec<(Name, Tensor)> {
    let op = &step.optimizer.op;
    let entry = op.entry();
    let mut operands = Vec::new();
    let mut states: BTreeMap<&str, Name> = BTreeMap::from([("w", name.clone())]);
    for &operand in entry.operands {
        operands.push(match operand {
            "w" => weight.clone(),
            "g" => gradient.clone(),
            "step" => count.clone(),
            "rate" => rate.clone(),
            moment => {
                let state = step.state(&format!("{}.{moment}.{name}", entry.mnemonic));
                let init = Initializer::Constant(0.0);
                let declared = State { ty: weight.ty(), role: Role::Moment, init, source: step.at.clone() };
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
