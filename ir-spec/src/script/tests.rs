#![allow(clippy::unwrap_used, reason = "tests may panic")]

use super::*;
use crate::dims;
use crate::graph::Graph;
use crate::model::{Model, Optimizer};
use crate::module::{Initializer, Role};
use crate::op::Op;
use crate::text::{PrintOptions, parse_module, print};
use crate::types::DType;

const EXAMPLES: [(&str, &str); 5] = [
    ("digits_mlp.kiln", include_str!("../../../examples/digits_mlp.kiln")),
    ("digits_cnn.kiln", include_str!("../../../examples/digits_cnn.kiln")),
    ("cifar_cnn.kiln", include_str!("../../../examples/cifar_cnn.kiln")),
    ("resnet_block.kiln", include_str!("../../../examples/resnet_block.kiln")),
    ("text_classifier.kiln", include_str!("../../../examples/text_classifier.kiln")),
];

fn example(name: &str) -> Module {
    let (file, text) = EXAMPLES.iter().find(|(file, _)| *file == name).unwrap();
    load(file, text, &Bindings::new()).unwrap()
}

fn model(body: &str) -> Result<Module, Vec<Diagnostic>> {
    load("m.kiln", body, &Bindings::new())
}

/// `label line:column` of every finding.
fn findings(text: &str) -> Vec<String> {
    let place = |fault: &Diagnostic| {
        let at = fault.at.as_ref().unwrap();
        format!("{} {}:{}", fault.label, at.line, at.column)
    };
    model(text).unwrap_err().iter().map(place).collect()
}

fn mnemonics(graph: &Graph) -> Vec<&'static str> {
    graph.nodes().map(|(_, node)| node.op.mnemonic()).collect()
}

fn states(module: &Module, role: Role) -> Vec<String> {
    let of_role = module.states.iter().filter(|(_, state)| state.role == role);
    of_role.map(|(name, state)| format!("{name}: {}", state.ty)).collect()
}

#[test]
fn every_example_prints_as_graph_form_that_reads_back() {
    for (file, _) in EXAMPLES {
        let module = example(file);
        let text = print(&module, &PrintOptions::default());
        assert_eq!(parse_module(file, &text).unwrap(), module, "{file}");
        let names: Vec<&str> = module.graphs.keys().map(|name| &**name).collect();
        assert_eq!(names, ["predict", "eval", "step0"], "{file}");
    }
}

#[test]
fn every_example_has_its_graphs_in_order_of_the_recipe() {
    let recipe = example("digits_cnn.kiln").recipe.unwrap();
    let shown: Vec<String> = recipe.entries.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let wanted = [
        "step = @step0",
        "eval = @eval",
        "predict = @predict",
        "data = \"data/digits.npz\"",
        "batch = 32",
        "epochs = 30",
    ];
    assert_eq!(shown, wanted);
}

#[test]
fn the_cnn_has_the_parameters_of_keras() {
    // Keras's summary of the same model: 896 + 18496 + 23050 parameters.
    let module = example("cifar_cnn.kiln");
    let parameters = states(&module, Role::Param);
    assert_eq!(
        parameters,
        [
            "conv1.weight: f32[32, 3, 3, 3]",
            "conv1.bias: f32[32]",
            "conv2.weight: f32[64, 32, 3, 3]",
            "conv2.bias: f32[64]",
            "dense1.weight: f32[2304, 10]",
            "dense1.bias: f32[10]",
        ]
    );
    let count = module.states.values().filter(|state| state.role == Role::Param).map(|state| state.ty.elements());
    assert_eq!(count.sum::<usize>(), 896 + 18496 + 23050);
    assert_eq!(states(&module, Role::Moment).len(), 2 * 6);
    assert!(module.states.contains_key("adam.v.dense1.bias"));
    assert_eq!(module.states["conv1.weight"].init, Initializer::Glorot);
}

#[test]
fn each_graph_holds_what_its_results_need() {
    let module = example("cifar_cnn.kiln");
    let forward = ["state", "conv", "state", "broadcast", "add", "relu", "max_pool"];
    let predict = mnemonics(module.graph("predict").unwrap());
    assert_eq!(predict[..7], forward);
    assert_eq!(predict.last(), Some(&"softmax"));
    assert!(!predict.contains(&"cross_entropy"));
    assert_eq!(module.graph("predict").unwrap().params().len(), 1);

    let eval = module.graph("eval").unwrap();
    let names: Vec<&str> = eval.returns().iter().map(|&v| &**eval.value_name(v)).collect();
    assert_eq!(names, ["loss", "accuracy"]);
    assert!(!mnemonics(eval).contains(&"softmax"));

    let step = module.graph("step0").unwrap();
    let (_, gradient) = step.nodes().find(|(_, node)| matches!(node.op, Op::GradientOf(_))).unwrap();
    assert_eq!((gradient.operands.len(), gradient.results.len()), (7, 6));
    assert_eq!(mnemonics(step).iter().filter(|m| **m == "adam").count(), 6);
    assert_eq!(step.updates().len(), 3 * 6 + 1);
    assert_eq!(&*step.updates().last().unwrap().state, "step");
    assert!(eval.updates().is_empty());
}

#[test]
fn rust_and_script_make_the_same_module() {
    let model = Model::new("cifar");
    let x = model.input("x", DType::F32, dims!["batch", 3, 32, 32]);
    let label = model.labels("label", dims!["batch"], 10);
    let h = x.conv(32, 3).relu().max_pool(2);
    let h = h.conv(64, 3).relu().max_pool(2);
    let logits = h.flatten().dense(10);
    model.predict(&logits.softmax());
    model.loss(&logits.cross_entropy(&label));
    model.metric("accuracy", &logits.accuracy(&label));
    model.train(Train::new("data/cifar10.npz", Optimizer::adam(0.001)).batch(32).epochs(10));
    let rust = model.finish().unwrap();

    let script = example("cifar_cnn.kiln");
    assert_eq!(rust.states, script.states);
    assert_eq!(rust.recipe, script.recipe);
    for (name, graph) in &script.graphs {
        let other = rust.graph(name).unwrap();
        let nodes = |g: &Graph| -> Vec<_> { g.nodes().map(|(_, n)| (n.op.clone(), n.operands.clone())).collect() };
        assert_eq!(nodes(graph), nodes(other), "{name}");
        assert_eq!((graph.returns(), graph.updates()), (other.returns(), other.updates()), "{name}");
    }
}

#[test]
fn the_introductory_cnn_fits_into_thirteen_lines() {
    let script = EXAMPLES.iter().find(|(file, _)| *file == "cifar_cnn.kiln").unwrap().1;
    assert!(script.lines().count() <= 13 && script.lines().all(|line| line.chars().count() <= 100));
    let rust = include_str!("../../../examples/cifar_cnn.rs");
    let body = rust.split("fn main() {\n").nth(1).unwrap().split("    match").next().unwrap();
    assert!(body.lines().count() <= 13 && body.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn states_are_named_after_blocks_and_layers() {
    let module = example("resnet_block.kiln");
    for name in [
        "convolution1.conv1.weight",
        "residual1.convolution2.batch_norm1.variance",
        "residual2.convolution1.conv1.weight",
        "downsample1.conv1.weight",
        "adam.m.residual1.convolution1.batch_norm1.scale",
    ] {
        assert!(module.states.contains_key(name), "{name}");
    }
    // 16 * 2 filters, from an attribute.
    assert_eq!(module.states["downsample1.convolution1.conv1.weight"].ty.to_string(), "f32[32, 16, 3, 3]");
    assert!(!module.states.contains_key("convolution1.conv1.bias"));
}

#[test]
fn the_step_updates_running_statistics_and_the_evaluation_does_not() {
    let module = example("resnet_block.kiln");
    let statistics = states(&module, Role::Statistic).len();
    assert_eq!(statistics, 2 * 7);
    let of_statistics =
        |g: &Graph| g.updates().iter().filter(|u| module.states[&u.state].role == Role::Statistic).count();
    assert_eq!(of_statistics(module.graph("step0").unwrap()), statistics);
    assert_eq!(of_statistics(module.graph("eval").unwrap()), 0);
    assert!(mnemonics(module.graph("step0").unwrap()).contains(&"cosine_rate"));
}

#[test]
fn random_ops_read_a_counter_that_the_step_advances() {
    let module = example("text_classifier.kiln");
    assert_eq!(module.states["rng"].role, Role::Counter);
    assert_eq!(module.states["rng"].init, Initializer::Seed);
    let step = module.graph("step0").unwrap();
    let updated: Vec<&str> = step.updates().iter().map(|u| &*u.state).collect();
    assert_eq!(updated[updated.len() - 2..], ["step", "rng"]);
    let dropout = step.nodes().find_map(|(_, node)| match &node.op {
        Op::Dropout(op) => Some(op.stream.clone()),
        _ => None,
    });
    assert_eq!(dropout.as_deref(), Some("dropout1"));
    assert_eq!(&*step.value(step.params()[0].value).name, "x");
    assert_eq!(step.params()[0].below, Some(160));
}

#[test]
fn nodes_know_their_line_and_the_use_of_their_block() {
    let module = example("resnet_block.kiln");
    let graph = module.graph("predict").unwrap();
    let second = graph.nodes().filter(|(_, node)| node.op.mnemonic() == "conv").nth(1).unwrap().1;
    // The first convolution of `residual`, which the model uses in line 31 and which uses `convolution` in line 9.
    assert_eq!(second.provenance.to_string(), "@resnet_block.kiln:3 @block(residual at 31, convolution at 9)");
}

#[test]
fn same_padding_puts_the_odd_element_at_the_end() {
    // TensorFlow, strides 2: extent 8, window 3 needs one element, extent 7 two, extent 5 with window 2 one.
    let padding = |extent: usize, kernel: usize| {
        let text = format!(
            "model @m(%x: f32[1, 1, {extent}]) {{\n  predict conv %x {{filters = 1, kernel = {kernel}, strides = 2, padding = same}}\n}}\n"
        );
        let module = model(&text).unwrap();
        let graph = module.graph("predict").unwrap();
        graph
            .nodes()
            .find_map(|(_, node)| if let Op::Conv(op) = &node.op { Some(op.padding.to_vec()) } else { None })
            .unwrap()
    };
    assert_eq!(padding(8, 3), [0, 1]);
    assert_eq!(padding(7, 3), [1, 1]);
    assert_eq!(padding(5, 2), [0, 1]);
    assert_eq!(padding(8, 1), [0, 0]);
}

#[test]
fn numbers_and_suffixes_repeat_to_the_other_operand() {
    let text = "state @w: f32[4] = param ones_like\n";
    assert!(model(text).is_err());
    let text = "\
state @w: f32[4] = param constant {value = 2}
model @m(%x: f32[batch, 4]) {
  %y = mul %x, @w
  %y = sub 1, %y
  %m = reduce_max %y {dims = -1}
  predict select %m, 1, 2
}
";
    assert_eq!(findings(text), ["select.C1 6:11"]);
    let module = model(&text.replace("select %m, 1, 2", "max %m, 0.5")).unwrap();
    let graph = module.graph("predict").unwrap();
    assert_eq!(mnemonics(graph), ["state", "broadcast", "mul", "const", "sub", "reduce_max", "const", "max"]);
    assert_eq!(graph.ty(graph.returns()[0]).to_string(), "f32[batch]");
    assert_eq!(module.states["w"].init, Initializer::Constant(2.0));
}

#[test]
fn a_name_is_an_op_where_all_its_operands_are_given() {
    let text = "\
state @w: f32[2, 1, 3, 3] = param he
model @m(%x: f32[batch, 1, 8, 8]) {
  %y = conv %x, @w {strides = [1, 1], padding = [0, 0, 0, 0], dilation = [1, 1]}
  %y, %place = max_pool %y {window = [2, 2], strides = [2, 2], padding = [0, 0, 0, 0]}
  predict %y
}
";
    let module = model(text).unwrap();
    assert_eq!(mnemonics(module.graph("predict").unwrap()), ["state", "conv", "max_pool"]);
}

#[test]
fn bound_names_are_numbers_with_a_label() {
    let text = "model @m(%x: f32[batch, hidden]) {\n  predict dense %x {units = hidden * 2}\n}\n";
    assert_eq!(findings(text), ["script.S5 2:29"]);
    let bindings = Bindings::from([("hidden".into(), 8)]);
    let module = load("m.kiln", text, &bindings).unwrap();
    assert_eq!(module.states["dense1.weight"].ty.to_string(), "f32[8, 16]");
    let graph = module.graph("predict").unwrap();
    let dims = graph.ty(graph.params()[0].value).shape.clone();
    assert_eq!(dims.dims()[1].label().map(|l| &**l), Some("hidden"));
    assert_eq!(dims.to_string(), "[batch, 8]");
}

#[test]
fn clipping_scales_every_gradient_by_one_factor() {
    let text = EXAMPLES[0].1.replace("epochs = 30", "epochs = 30, clip = 1.0");
    let module = load("m.kiln", &text, &Bindings::new()).unwrap();
    let names = mnemonics(module.graph("step0").unwrap());
    assert_eq!(names.iter().filter(|m| **m == "square").count(), 4);
    assert_eq!(names.iter().filter(|m| **m == "mul").count(), 4);
    assert_eq!(names.iter().filter(|m| **m == "sqrt").count(), 1);
}

#[test]
fn foreign_weight_names_are_kept_and_checked() {
    let text = "model @m(%x: f32[batch, 4]) {\n  predict dense %x {units = 2}\n}\n\nweights {dense1.weight = \"fc.weight\" transposed}\n";
    let module = model(text).unwrap();
    let shown = print(&module, &PrintOptions::default());
    assert!(shown.ends_with("weights {dense1.weight = \"fc.weight\" transposed}\n"), "{shown}");
    assert_eq!(findings(&text.replace("dense1.w", "dence1.w")), ["script.S13 5:10"]);
}

#[test]
fn a_pattern_of_foreign_names_stands_for_every_number() {
    let text = "\
block layer(%x) {
  %y = dense %x {units = 4, name = fc}
  yield %y
}
model @m(%x: f32[batch, 4]) {
  %h = layer %x
  %h = layer %h
  predict dense %h {units = 2, bias = false, name = head}
}
weights {
  \"layer{i}.fc.weight\" = \"net.{i - 1}.w\" transposed,
  \"layer{i}.fc.bias\" = \"net.{i + 8}.{i}\",
  head.weight = \"head.{i}\",
}
";
    let shown = print(&model(text).unwrap(), &PrintOptions::default());
    let wanted = "weights {
  layer1.fc.weight = \"net.0.w\" transposed,
  layer2.fc.weight = \"net.1.w\" transposed,
  layer1.fc.bias = \"net.9.1\",
  layer2.fc.bias = \"net.10.2\",
  head.weight = \"head.{i}\",
}
";
    assert!(shown.ends_with(wanted), "{shown}");
    for (old, new, found) in [
        ("layer{i}.fc.w", "layer{i}.fd.w", "script.S13 11:3"),
        ("layer{i}.fc.w", "layer{i.fc.w", "script.S5 11:3"),
        ("layer{i}.fc.w", "layer{i + 1}.fc.w", "script.S5 11:3"),
        ("net.{i - 1}", "net.{j}", "script.S5 11:3"),
        ("net.{i - 1}", "net.{i - 2}", "script.S5 11:3"),
        ("head.weight =", "layer1.fc.bias =", "script.S10 13:3"),
    ] {
        assert_eq!(findings(&text.replace(old, new)), [found], "{new}");
    }
}

#[test]
fn all_findings_come_in_one_run() {
    let text = "\
model @m(%x: f32[batch, 4], %label: i64[batch] below 3) {
  %a = dens %x {units = 3}
  %b = dense %x {unit = 3}
  %c = dense %x {units = 3, activation = rleu}
  %d = relu %y
  %e = add %x, %label
  %f, %g = relu %x
  loss relu %x
}
train {bach = 3, optimizer = adma, shuffle = ture}
";
    assert_eq!(
        findings(text),
        [
            "script.S2 2:8",
            "script.S4 3:8",
            "script.S3 3:18",
            "script.S5 4:42",
            "script.S1 5:13",
            "script.S14 6:8",
            "script.S7 7:7",
            "model.C4 8:8",
            "script.S3 10:8",
            "script.S2 10:30",
            "script.S5 10:46",
        ]
    );
    let help: Vec<Option<String>> = model(text).unwrap_err().into_iter().map(|fault| fault.help).collect();
    assert_eq!(help[0].as_deref(), Some("did you mean `dense`?"));
    assert_eq!(help[2].as_deref(), Some("did you mean `units`?"));
    assert_eq!(help[3].as_deref(), Some("did you mean `relu`?"));
    assert_eq!(help[8].as_deref(), Some("did you mean `batch`?"));
    assert_eq!(help[9].as_deref(), Some("did you mean `adam`?"));
    assert_eq!(help[10].as_deref(), Some("did you mean `true`?"));
}

#[test]
fn blocks_see_their_operands_and_nothing_else() {
    let text = "\
block b(%x, n = 2) {
  %y = mul %x, n
  %y = add %y, %label
  yield %y
}
model @m(%x: f32[batch, 4], %label: f32[batch, 4]) {
  predict b %x
}
";
    assert_eq!(findings(text), ["script.S1 3:16"]);
    assert_eq!(model(text).unwrap_err()[0].notes, ["in block `b`, used in line 7"]);
    let missing = text.replace("n = 2", "n").replace("%label\n", "%x\n");
    assert_eq!(findings(&missing), ["script.S4 7:11"]);
    assert_eq!(findings(&missing.replace("b %x\n", "b %x, %x {m = 1, n = 2}\n")), ["script.S6 7:11", "script.S3 7:21"]);
}

#[test]
fn a_model_has_a_result() {
    assert_eq!(findings("model @m(%x: f32[4]) {\n  %y = relu %x\n}\n"), ["model.C2 1:7"]);
    let untrained = "model @m(%x: f32[4]) {\n  predict relu %x\n}\ntrain {optimizer = sgd}\n";
    assert_eq!(findings(untrained), ["model.C3 4:1"]);
}

#[test]
fn recursion_is_refused() {
    let text = "\
block a(%x) {
  %y = b %x
  yield %y
}
block b(%x) {
  %y = a %x
  yield %y
}
model @m(%x: f32[batch, 4]) {
  predict a %x
}
";
    assert_eq!(findings(text), ["script.S8 6:8"]);
    assert_eq!(model(text).unwrap_err()[0].message, "block `a` uses itself: a -> b -> a");
}

#[test]
fn exponential_blocks_stop_at_a_limit() {
    let mut text = "block b0(%x) {\n  %x = relu %x\n  yield %x\n}\n".to_owned();
    for i in 1..40 {
        let below = i - 1;
        text += &format!("block b{i}(%x) {{\n  %x = b{below} %x\n  %x = b{below} %x\n  yield %x\n}}\n");
    }
    text += "model @m(%x: f32[4]) {\n  predict b39 %x\n}\n";
    let faults = model(&text).unwrap_err();
    assert!(faults.iter().all(|fault| fault.label == "script.S8"), "{faults:?}");
}

#[test]
fn arithmetic_faults_are_findings() {
    let script = |units: &str| format!("model @m(%x: f32[batch, 4]) {{\n  predict dense %x {{units = {units}}}\n}}\n");
    assert_eq!(findings(&script("4 / 0")), ["script.S9 2:29"]);
    assert_eq!(findings(&script("9223372036854775807 * 2")), ["script.S9 2:29"]);
    assert_eq!(findings(&script("bacth * 2")), ["script.S9 2:29"]);
    assert_eq!(findings(&script("0 - 3")), ["dense.L3 2:11"]);
    assert_eq!(model(&script("7 / 2 * 3 - 10 % 4")).unwrap().states["dense1.weight"].ty.to_string(), "f32[4, 7]");
}

#[test]
fn a_fault_of_the_rust_front_end_is_at_its_line() {
    let model = Model::new("m");
    let x = model.input("x", DType::F32, dims!["batch", 4, 4, 4]);
    let line = line!() + 1;
    let y = x.dense(3);
    model.predict(&y.relu());
    let faults = model.finish().unwrap_err();
    let at = faults[0].at.as_ref().unwrap();
    assert_eq!((faults.len(), &*faults[0].label, at.line), (1, "dense.L1", line));
    assert!(at.file.ends_with("tests.rs"));
}

/// Xorshift (Marsaglia, 2003): the same scripts on every run.
fn random(state: &mut u64, below: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state % below as u64) as usize
}

#[test]
fn mutated_scripts_are_findings_or_modules_that_read_back() {
    let odd =
        ["-1", "9223372036854775807", "nan", "%x", "@w", "batch", "[]", "{", "}", "\n", "relu", "state", "dim = -7"];
    let mut state = 88_172_645_463_325_252;
    for round in 0..600 {
        let (file, text) = EXAMPLES[round % EXAMPLES.len()];
        let mut tokens: Vec<&str> = text.split_inclusive([' ', ',', '\n', '{', '}', '(', ')']).collect();
        for _ in 0..=random(&mut state, 3) {
            let (i, j) = (random(&mut state, tokens.len()), random(&mut state, tokens.len()));
            match random(&mut state, 3) {
                0 => tokens[i] = tokens[j],
                1 => tokens.insert(i, odd[random(&mut state, odd.len())]),
                _ => drop(tokens.remove(i)),
            }
        }
        let text = tokens.concat();
        match load(file, &text, &Bindings::new()) {
            Ok(module) => {
                let printed = print(&module, &PrintOptions::default());
                assert_eq!(parse_module(file, &printed).unwrap(), module, "{text}");
            }
            Err(faults) => {
                assert!(!faults.is_empty() && faults.iter().all(|fault| fault.at.is_some()), "{text}\n{faults:?}")
            }
        }
    }
}

#[test]
fn steps_are_checked_where_they_are_written() {
    let text = |train: &str| {
        let head =
            "model @m(%x: f32[batch, 4], %y: f32[batch, 1]) {\n  %h = dense %x {units = 1}\n  loss mse %h, %y\n}\n";
        format!("{head}{train}")
    };
    assert!(model(&text("train {steps = [a {optimizer = adam}], clip = 1.0}")).is_ok());
    assert!(model(&text("train {steps = [a {trains = dense1}], optimizer = adam}")).is_ok());
    let with = |train: &str| findings(&text(train));
    assert_eq!(with("train {steps = [a {trains = dense1, loss = loss}]}"), ["script.S4 5:17"]);
    assert_eq!(with("train {steps = a, optimizer = adam}"), ["script.S5 5:16"]);
    assert_eq!(with("train {steps = [], optimizer = adam}"), ["script.S5 5:16"]);
    assert_eq!(with("train {steps = [a, {loss = b}], optimizer = adam}"), ["script.S5 5:17", "script.S5 5:20"]);
    assert_eq!(
        with("train {steps = [a {lose = b, loss = 3, trains = [1]}], optimizer = adam}"),
        ["script.S3 5:20", "script.S5 5:37", "script.S5 5:50",]
    );
    assert_eq!(
        with("train {steps = [a {clip = 0, clip = 1, optimizer = sgdd}]}"),
        ["script.S5 5:27", "script.S10 5:30", "script.S2 5:52",]
    );
}

#[test]
fn a_layer_shares_the_weights_of_another_use() {
    let text = "\
model @m(%x: f32[batch, 4]) {
  %a = dense %x {units = 4, name = tied}
  %b = dense %a {units = 4, share = tied, activation = relu}
  %c = dense %b {units = 4}
  predict %c
}
";
    let module = model(text).unwrap();
    assert_eq!(
        states(&module, Role::Param),
        ["tied.weight: f32[4, 4]", "tied.bias: f32[4]", "dense1.weight: f32[4, 4]", "dense1.bias: f32[4]"]
    );
    let twice = text.replace("share = tied", "name = tied");
    assert_eq!(findings(&twice), ["script.S10 3:36"]);
}
