#![allow(clippy::unwrap_used, reason = "tests may panic")]
//! Trainings of several steps: what each graph computes, reads and writes.

use super::*;
use crate::graph::{Graph, Value};
use crate::op::Op;
use crate::{Module, Role, script, text};

const GAN: &str = "\
block generator(%z) {
  %h = dense %z {units = 8}
  %h = batch_norm %h
  %x = dense %h {units = 4}
  yield %x
}

block discriminator(%x) {
  %h = dense %x {units = 6}
  %h = batch_norm %h
  %h = dropout %h {rate = 0.5}
  %y = dense %h {units = 1}
  yield %y
}

model @gan(%x: f32[batch, 4]) {
  %z: f32[batch, 3] = rng_normal
  %fake = generator %z {name = g}
  %real_logit = discriminator %x {name = d}
  %fake_logit = discriminator %fake {share = d}
  %one: f32[batch, 1] = const {value = 1.0}
  %zero: f32[batch, 1] = const {value = 0.0}
  %real_loss = bce_with_logits %real_logit, %one
  %fake_loss = bce_with_logits %fake_logit, %zero
  %d_loss = add %real_loss, %fake_loss
  %judged = discriminator %fake {share = d}
  %g_loss = bce_with_logits %judged, %one
  %fooled = binary_accuracy %judged, %one
  %found = binary_accuracy %real_logit, %one
  predict %fake
  loss %d_loss
  loss %g_loss
  metric %fooled
  metric %found
}

train {
  data = \"d.npz\",
  batch = 8,
  steps = [
    discriminator {loss = d_loss, trains = d, optimizer = adam},
    generator {loss = g_loss, trains = [g], optimizer = momentum {rate = 0.1}, clip = 1.0},
  ],
}
";

fn gan() -> Module {
    script::load("gan.kiln", GAN, &Bindings::from([("batch".into(), 8)])).unwrap()
}

/// Names of the states that a graph writes, in order.
fn written(graph: &Graph) -> Vec<String> {
    graph.updates().iter().map(|update| update.state.to_string()).collect()
}

fn returned(graph: &Graph) -> Vec<String> {
    graph.returns().iter().map(|value| graph.value_name(*value).to_string()).collect()
}

fn count(graph: &Graph, mnemonic: &str) -> usize {
    graph.nodes().filter(|(_, data)| data.op.mnemonic() == mnemonic).count()
}

#[test]
fn a_step_writes_what_it_trains_and_nothing_else() {
    let module = gan();
    let graph = module.graph("step0").unwrap();
    let trained = |role: Role| {
        let names = written(graph).into_iter().filter(|name| module.states[name.as_str()].role == role);
        names.collect::<Vec<_>>()
    };
    let weights =
        ["dense1.weight", "dense1.bias", "batch_norm1.scale", "batch_norm1.offset", "dense2.weight", "dense2.bias"];
    let of = |instance: &str| weights.map(|name| format!("{instance}.{name}"));
    assert_eq!(trained(Role::Param), [of("d"), of("g")].concat());
    // Counters and moments of its own, the latter those of its optimizer. What is drawn is counted once a batch.
    assert_eq!(trained(Role::Counter), ["discriminator.step", "generator.step", "rng"]);
    let moments = trained(Role::Moment);
    assert!(moments[..12].iter().all(|name| name.starts_with("discriminator.adam.")), "{moments:?}");
    assert!(moments[12..].iter().all(|name| name.starts_with("generator.momentum.m.g.")), "{moments:?}");
    assert_eq!(moments.len(), 12 + 6);
}

#[test]
fn each_application_has_a_random_stream_of_its_own() {
    let module = gan();
    let eval = module.graph("eval").unwrap();
    let streams = eval.nodes().filter_map(|(_, data)| match &data.op {
        Op::Dropout(dropout) => Some(dropout.stream.to_string()),
        _ => None,
    });
    assert_eq!(streams.collect::<Vec<_>>(), ["d.dropout1", "d.dropout1.2", "d.dropout1.3"]);
}

#[test]
fn statistics_are_moved_once_by_each_application_in_the_order_of_the_text() {
    let module = gan();
    let step = module.graph("step0").unwrap();
    let moved: Vec<_> =
        written(step).into_iter().filter(|name| name.ends_with(".mean") || name.ends_with(".variance")).collect();
    assert_eq!(moved, ["g.batch_norm1.mean", "g.batch_norm1.variance", "d.batch_norm1.mean", "d.batch_norm1.variance"]);

    // The generator is applied once; each use of the discriminator moves what the one before it leaves, the third one in
    // the second step. That is what is written.
    let norms = |graph: &Graph| {
        let norms = graph.nodes().filter(|(_, data)| matches!(data.op, Op::BatchNorm(_)));
        norms.map(|(_, data)| data.clone()).collect::<Vec<_>>()
    };
    let [generator, real, fake, judged] = norms(step).try_into().unwrap();
    assert_eq!(step.read_state_name(generator.operands[3]).unwrap().as_ref(), "g.batch_norm1.mean");
    assert_eq!(step.read_state_name(real.operands[3]).unwrap().as_ref(), "d.batch_norm1.mean");
    assert_eq!(fake.operands[3..], real.results[1..]);
    assert_eq!(judged.operands[3..], fake.results[1..]);
    assert_eq!(next(step, "g.batch_norm1.mean"), generator.results[1]);
    assert_eq!(next(step, "d.batch_norm1.mean"), judged.results[1]);
    // Without training every use reads the state.
    let eval = module.graph("eval").unwrap();
    assert!(norms(eval).iter().all(|norm| eval.read_state_name(norm.operands[3]).is_some()));
}

#[test]
fn a_step_computes_what_its_loss_needs_and_is_not_there() {
    let module = gan();
    let step = module.graph("step0").unwrap();
    // Two dense layers of the generator, and two of the discriminator three times.
    assert_eq!(count(step, "dot"), 8);
    assert_eq!(returned(step), ["d_loss", "found", "g_loss", "fooled"]);
    assert_eq!(returned(module.graph("eval").unwrap()), ["d_loss", "g_loss", "fooled", "found"]);
    let entry = |key: &str| module.recipe.as_ref().unwrap().get(key).unwrap().to_string();
    assert_eq!((entry("step"), entry("losses")), ("@step0".into(), "[\"d_loss\", \"g_loss\"]".into()));
}

#[test]
fn a_step_reads_what_another_has_changed_without_its_history() {
    let module = gan();
    let step = module.graph("step0").unwrap();
    let dots: Vec<_> = step.nodes().filter(|(_, data)| data.op.mnemonic() == "dot").map(|(_, data)| data).collect();
    let weight = |dot: usize| step.producer(dots[dot].operands[1]).unwrap().1;
    // The generator's two, those of the discriminator for both uses of its step, and then for the generator's.
    assert_eq!(step.read_state_name(dots[2].operands[1]).unwrap().as_ref(), "d.dense1.weight");
    assert_eq!(dots[4].operands[1], dots[2].operands[1]);
    assert_eq!(weight(6).op.mnemonic(), "detach");
    assert_eq!(weight(6).operands[..], [next(step, "d.dense1.weight")]);
    // What nothing reads any more is not handed over.
    assert_eq!(count(step, "detach"), 6);
}

/// Critics that train on one loss, in a model whose values have names that training gives too.
const CRITICS: &str = "\
model @m(%x: f32[batch, 4], %y: f32[batch, 1]) {
  %a = dense %x {units = 1, name = a}
  %loss = mse %a, %y
  %half = mul %loss, 0.5
  %rate = square %half
  loss %loss
  loss %half
  metric %rate
}

train {
  data = \"d.npz\",
  optimizer = sgd {rate = 0.1},
  steps = [first {loss = loss}, second {loss = loss}, third {loss = half}],
}
";

#[test]
fn what_is_returned_has_its_name_and_a_loss_of_several_steps_theirs() {
    let module = script::load("m.kiln", CRITICS, &Bindings::from([("batch".into(), 8)])).unwrap();
    let step = module.graph("step0").unwrap();
    assert_eq!(returned(step), ["first.loss", "second.loss", "half", "rate"]);
    let losses = module.recipe.as_ref().unwrap().get("losses").unwrap().to_string();
    assert_eq!(losses, "[\"first.loss\", \"second.loss\", \"half\"]");
    // One weight, changed three times and written once; what is made of it is computed with each of its values.
    assert_eq!(written(step).iter().filter(|name| *name == "a.weight").count(), 1);
    assert_eq!((count(step, "dot"), count(step, "sgd"), count(step, "detach")), (3, 6, 4));
    let last = step.producer(next(step, "a.weight")).unwrap().1;
    assert_eq!(step.producer(last.operands[0]).unwrap().1.op.mnemonic(), "detach");
}

/// What a graph writes into a state.
fn next(graph: &Graph, state: &str) -> Value {
    graph.updates().iter().find(|update| &*update.state == state).unwrap().value
}

#[test]
fn shared_states_are_declared_once_and_read_once() {
    let module = gan();
    let declared = module.states.iter().filter(|(name, _)| name.starts_with("d.")).count();
    assert_eq!(declared, 8);
    let step = module.graph("step0").unwrap();
    let reads = step.values().filter(|value| step.read_state_name(*value).is_some_and(|name| name.starts_with("d.")));
    assert_eq!(reads.count(), 8);
}

#[test]
fn a_module_of_several_steps_prints_and_parses() {
    let module = gan();
    for options in [text::PrintOptions { provenance: false }, text::PrintOptions { provenance: true }] {
        let printed = text::print(&module, &options);
        assert_eq!(text::parse_module("printed", &printed).unwrap(), module, "{printed}");
    }
}

#[test]
fn rust_and_script_make_the_same_steps() {
    let model = Model::new("gan").bind("batch", 8);
    let x = model.input("x", DType::F32, dims!["batch", 4]);
    let y = model.input("y", DType::F32, dims!["batch", 1]);
    let judge = |x: &Tensor| x.dense(5).batch_norm().dense(1);
    let real = model.scope("d", || judge(&x)).bce_with_logits(&y);
    let other = model.share("d1", || judge(&x.neg())).unwrap().mse(&y);
    model.loss_named("real", &real);
    model.loss_named("other", &other);
    let adam = || Optimizer::adam(0.001);
    let steps = [
        Step::new("a", adam()).loss("real").trains("d1.dense1").clip(1.0),
        Step::new("b", adam()).loss("other").trains("d1.dense2").trains("d1.batch_norm1"),
    ];
    model.train(Train::alternating("d.npz", steps));
    let built = model.finish().unwrap();

    let text = "\
block judge(%x) {
  %h = dense %x {units = 5}
  %h = batch_norm %h
  %h = dense %h {units = 1}
  yield %h
}

model @gan(%x: f32[batch, 4], %y: f32[batch, 1]) {
  %r = judge %x {name = d1}
  %real = bce_with_logits %r, %y
  %n = neg %x
  %o = judge %n {share = d1}
  %other = mse %o, %y
  loss %real
  loss %other
}

train {
  data = \"d.npz\",
  optimizer = adam,
  steps = [
    a {loss = real, trains = d1.dense1, clip = 1.0},
    b {loss = other, trains = [d1.dense2, d1.batch_norm1]},
  ],
}
";
    let script = script::load("gan.kiln", text, &Bindings::from([("batch".into(), 8)])).unwrap();
    assert_eq!(built.states, script.states);
    assert_eq!(built.recipe, script.recipe);
    for name in ["step0", "eval"] {
        let ops = |module: &Module| {
            let graph = module.graph(name).unwrap();
            let ops: Vec<String> = graph.nodes().map(|(_, data)| data.op.mnemonic().to_owned()).collect();
            (ops, written(graph), returned(graph))
        };
        assert_eq!(ops(&built), ops(&script), "@{name}");
    }
}

#[test]
fn what_is_shared_must_be_there() {
    let model = Model::new("m");
    let x = model.input("x", DType::F32, dims![2, 4]);
    assert!(model.share("d1", || x.dense(3)).is_none());
    model.predict(&x);
    let faults = model.finish().unwrap_err();
    assert_eq!(faults.iter().map(|fault| fault.label.as_str()).collect::<Vec<_>>(), ["model.C10"]);
}

#[test]
fn a_training_has_a_step() {
    let model = Model::new("m");
    let x = model.input("x", DType::F32, dims![2, 4]);
    model.loss(&x.dense(3).mean(&[0, 1]));
    model.train(Train::alternating("d.npz", []));
    let faults = model.finish().unwrap_err();
    assert_eq!(faults.iter().map(|fault| fault.label.as_str()).collect::<Vec<_>>(), ["model.C7"]);
}

#[test]
fn two_losses_ask_for_steps() {
    let text = GAN.split("train {").next().unwrap().to_owned() + "train {data = \"d.npz\", optimizer = adam}\n";
    let faults = script::load("gan.kiln", &text, &Bindings::new()).unwrap_err();
    assert_eq!(faults.iter().map(|fault| fault.label.as_str()).collect::<Vec<_>>(), ["model.C8"]);
}
