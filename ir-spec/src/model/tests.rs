#![allow(clippy::unwrap_used, reason = "tests may panic")]
//! Trainings of several steps: what each graph computes, reads and writes.

use super::*;
use crate::graph::Graph;
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
    let (first, second) = (module.graph("step0").unwrap(), module.graph("step1").unwrap());
    let trained = |graph: &Graph, role: Role| {
        let names = written(graph).into_iter().filter(|name| module.states[name.as_str()].role == role);
        names.collect::<Vec<_>>()
    };
    let weights =
        ["dense1.weight", "dense1.bias", "batch_norm1.scale", "batch_norm1.offset", "dense2.weight", "dense2.bias"];
    assert_eq!(trained(first, Role::Param), weights.map(|name| format!("d.{name}")));
    assert_eq!(trained(second, Role::Param), weights.map(|name| format!("g.{name}")));
    // Counters and moments of its own, the latter those of its optimizer.
    assert_eq!(trained(first, Role::Counter), ["discriminator.step"]);
    assert!(trained(first, Role::Moment).iter().all(|name| name.starts_with("discriminator.adam.")));
    assert!(trained(second, Role::Moment).iter().all(|name| name.starts_with("generator.momentum.m.g.")));
    assert_eq!((trained(first, Role::Moment).len(), trained(second, Role::Moment).len()), (12, 6));
}

#[test]
fn draws_are_counted_once_a_batch_by_its_last_step() {
    let module = gan();
    assert!(!written(module.graph("step0").unwrap()).contains(&"rng".to_owned()));
    assert!(written(module.graph("step1").unwrap()).contains(&"rng".to_owned()));
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
    let (first, second) = (module.graph("step0").unwrap(), module.graph("step1").unwrap());
    let statistics = |graph: &Graph| {
        let names = written(graph).into_iter().filter(|name| name.ends_with(".mean") || name.ends_with(".variance"));
        names.collect::<Vec<_>>()
    };
    // The generator is applied once, and the first step needs it; the discriminator's third use is the second step's.
    let both = ["g.batch_norm1.mean", "g.batch_norm1.variance", "d.batch_norm1.mean", "d.batch_norm1.variance"];
    assert_eq!(statistics(first), both);
    assert_eq!(statistics(second), both[2..]);

    // The running mean of the second use is what the first use leaves; of the second that is what is written.
    let norms = |graph: &Graph| {
        let norms = graph.nodes().filter(|(_, data)| matches!(data.op, Op::BatchNorm(_)));
        norms.map(|(_, data)| data.clone()).collect::<Vec<_>>()
    };
    let [generator, real, fake] = norms(first).try_into().unwrap();
    assert_eq!(first.read_state_name(generator.operands[3]).unwrap().as_ref(), "g.batch_norm1.mean");
    assert_eq!(first.read_state_name(real.operands[3]).unwrap().as_ref(), "d.batch_norm1.mean");
    assert_eq!(fake.operands[3..], real.results[1..]);
    let update = first.updates().iter().find(|update| &*update.state == "d.batch_norm1.mean").unwrap();
    assert_eq!(update.value, fake.results[1]);
    let judged = norms(second).pop().unwrap();
    assert_eq!(second.read_state_name(judged.operands[3]).unwrap().as_ref(), "d.batch_norm1.mean");
    // Without training every use reads the state.
    let eval = module.graph("eval").unwrap();
    assert!(norms(eval).iter().all(|norm| eval.read_state_name(norm.operands[3]).is_some()));
}

#[test]
fn a_step_computes_what_its_loss_needs() {
    let module = gan();
    let (first, second) = (module.graph("step0").unwrap(), module.graph("step1").unwrap());
    // Two uses of two dense layers and one of two, and the same for the second with one use.
    assert_eq!((count(first, "dot"), count(second, "dot")), (6, 4));
    assert_eq!(returned(first), ["d_loss", "found"]);
    assert_eq!(returned(second), ["g_loss", "fooled"]);
    assert_eq!(returned(module.graph("eval").unwrap()), ["d_loss", "g_loss", "fooled", "found"]);
    assert_eq!(module.recipe.as_ref().unwrap().get("step").unwrap().to_string(), "[@step0, @step1]");
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
    for name in ["step0", "step1", "eval"] {
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
