#![allow(clippy::unwrap_used, reason = "tests may panic")]

use super::*;
use crate::dims;
use crate::model::{Model, Optimizer, Train};
use crate::module::Module;
use crate::script::load;
use crate::types::Bindings;

/// Type of the layer's result and of its states, in a script of one line.
fn expand(input: &str, line: &str) -> (String, Vec<String>) {
    let text = format!("model @m(%x: {input}, %y: i64[batch]) {{\n  predict {line}\n}}\n");
    let module = load("m.kiln", &text, &Bindings::new()).unwrap();
    let graph = module.graph("predict").unwrap();
    let states = module.states.iter().map(|(name, state)| format!("{name}: {}", state.ty)).collect();
    (graph.ty(graph.returns()[0]).to_string(), states)
}

#[test]
fn every_layer_has_the_shape_of_its_definition() {
    // Extents by the formulas of the field: floor((n + padding - window) / stride) + 1.
    let image = "f32[batch, 4, 9, 9]";
    let cases = [
        ("f32[batch, 5]", "dense %x {units = 3}", "f32[batch, 3]"),
        ("f32[batch, 7, 5]", "dense %x {units = 3, bias = false}", "f32[batch, 7, 3]"),
        (image, "conv %x {filters = 6, kernel = 3}", "f32[batch, 6, 7, 7]"),
        (image, "conv %x {filters = 6, kernel = [3, 1], strides = 2, padding = same}", "f32[batch, 6, 5, 5]"),
        (image, "conv %x {filters = 6, kernel = 3, dilation = 2, groups = 2, padding = 1}", "f32[batch, 6, 7, 7]"),
        ("f32[batch, 4, 9]", "conv %x {filters = 6, kernel = 3}", "f32[batch, 6, 7]"),
        // (n - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1, as in PyTorch.
        (image, "conv_transpose %x {filters = 6, kernel = 4, strides = 2, padding = 1}", "f32[batch, 6, 18, 18]"),
        (image, "conv_transpose %x {filters = 6, kernel = [3, 2], groups = 2, dilation = 2}", "f32[batch, 6, 13, 11]"),
        (
            image,
            "conv_transpose %x {filters = 6, kernel = 3, strides = [2, 3], padding = [1, 0, 0, 1], output_padding = 1}",
            "f32[batch, 6, 19, 27]",
        ),
        // n * stride, as in Keras, where the kernel is larger than the stride and where it is smaller.
        (image, "conv_transpose %x {filters = 6, kernel = 3, strides = 2, padding = same}", "f32[batch, 6, 18, 18]"),
        (image, "conv_transpose %x {filters = 6, kernel = 1, strides = 3, padding = same}", "f32[batch, 6, 27, 27]"),
        ("f32[batch, 100, 1, 1]", "conv_transpose %x {filters = 8, kernel = 4}", "f32[batch, 8, 4, 4]"),
        ("f32[batch, 4, n]", "conv_transpose %x {filters = 6, kernel = 3, strides = 2}", "f32[batch, 6, n*2 + 1]"),
        ("i64[batch, 8]", "embedding %x {vocabulary = 11, units = 3}", "f32[batch, 8, 3]"),
        (image, "max_pool %x {size = 2}", "f32[batch, 4, 4, 4]"),
        (image, "max_pool %x {size = 2, padding = same}", "f32[batch, 4, 5, 5]"),
        (image, "avg_pool %x {size = 3, strides = 1, padding = same}", "f32[batch, 4, 9, 9]"),
        (image, "global_avg_pool %x", "f32[batch, 4]"),
        (image, "global_max_pool %x", "f32[batch, 4]"),
        (image, "flatten %x", "f32[batch, 324]"),
        ("f32[batch, 2, 7, 5]", "attention %x, %x, %x {causal = true}", "f32[batch, 2, 7, 5]"),
        ("f32[batch, 7, 6]", "multi_head_attention %x {heads = 3}", "f32[batch, 7, 6]"),
        ("f32[batch, 7, 6]", "position_embedding %x {length = 9}", "f32[batch, 7, 6]"),
        ("f32[batch, s, 6]", "position_embedding %x {length = 9}", "f32[batch, s, 6]"),
        ("f32[batch, 7, 6]", "rnn %x {units = 3}", "f32[batch, 3]"),
        ("f32[batch, 7, 6]", "lstm %x {units = 3, backwards = true}", "f32[batch, 3]"),
        ("f32[batch, 7, 6]", "gru %x {units = 3, return_sequences = true}", "f32[batch, 7, 3]"),
        (image, "batch_norm %x", "f32[batch, 4, 9, 9]"),
        ("f32[batch, 5]", "batch_norm %x {momentum = 0.99}", "f32[batch, 5]"),
        ("f32[batch, 7, 5]", "layer_norm %x", "f32[batch, 7, 5]"),
        ("f32[batch, 5]", "dropout %x {rate = 0.5}", "f32[batch, 5]"),
        ("f32[batch, 5]", "accuracy %x, %y", "f32[]"),
        ("f32[batch, 5]", "binary_accuracy %x, %x", "f32[]"),
    ];
    for (input, line, wanted) in cases {
        assert_eq!(expand(input, line).0, wanted, "{line}");
    }
    for layer in TABLE {
        let used = cases.iter().any(|(_, line, _)| line.split(' ').next() == Some(layer.mnemonic));
        assert!(used, "`{}` has no case", layer.mnemonic);
    }
}

#[test]
fn states_have_the_layer_s_name_or_the_given_one() {
    let dense = expand("f32[batch, 5]", "dense %x {units = 3}").1;
    assert_eq!(dense, ["dense1.weight: f32[5, 3]", "dense1.bias: f32[3]"]);
    let named = expand("f32[batch, 5]", "dense %x {units = 3, name = head}").1;
    assert_eq!(named, ["head.weight: f32[5, 3]", "head.bias: f32[3]"]);
    let transposed = expand("f32[batch, 4, 9]", "conv_transpose %x {filters = 6, kernel = 3, groups = 2}").1;
    assert_eq!(transposed, ["conv_transpose1.weight: f32[4, 3, 3]", "conv_transpose1.bias: f32[6]"]);
    let heads = expand("f32[batch, 7, 6]", "multi_head_attention %x {heads = 3, name = attention}").1;
    let wanted = ["qkv.weight: f32[6, 18]", "qkv.bias: f32[18]", "out.weight: f32[6, 6]", "out.bias: f32[6]"];
    assert_eq!(heads, wanted.map(|state| format!("attention.{state}")));
    let cell = expand("f32[batch, 7, 6]", "lstm %x {units = 3}").1;
    let wanted = ["weight_ih: f32[6, 12]", "weight_hh: f32[3, 12]", "bias_ih: f32[12]", "bias_hh: f32[12]"];
    assert_eq!(cell, wanted.map(|state| format!("lstm1.{state}")));
    let norm = expand("f32[batch, 5]", "batch_norm %x").1;
    let wanted = ["scale", "offset", "mean", "variance"].map(|part| format!("batch_norm1.{part}: f32[5]"));
    assert_eq!(norm, wanted);
}

#[test]
fn initialisers_are_chosen_by_word() {
    let init = |text: &str| {
        let line = format!(
            "model @m(%x: f32[1, 3, 8, 8]) {{\n  predict conv %x {{filters = 2, kernel = 5, init = {text}}}\n}}\n"
        );
        let module = load("m.kiln", &line, &Bindings::new()).unwrap();
        (module.states["conv1.weight"].init.clone(), module.states["conv1.bias"].init.clone())
    };
    let zero = Initializer::Constant(0.0);
    assert_eq!(init("he"), (Initializer::He, zero.clone()));
    assert_eq!(init("fan_in"), (Initializer::FanIn(75), Initializer::FanIn(75)));
    assert_eq!(init("ones"), (Initializer::Constant(1.0), zero.clone()));
    let normal = Initializer::Normal { mean: 0.0, deviation: 0.01 };
    assert_eq!(init("normal {deviation = 0.01}"), (normal, zero));
}

#[test]
fn attributes_survive_their_text() {
    let inits = [Init::Glorot, Init::FanIn, Init::Normal(0.0, 0.5), Init::Uniform(-1.0, 1.0), Init::Constant(3.0)];
    assert!(inits.iter().all(|init| Init::from_value(&init.to_value()) == Some(*init)));
    let paddings = [Padding::Valid, Padding::Same, Padding::Explicit(smallvec::smallvec![1, 2])];
    assert!(paddings.iter().all(|padding| Padding::from_value(&padding.to_value()).as_ref() == Some(padding)));
    assert_eq!(Activation::from_value(&AttrValue::Word("add".into())), None);
    assert_eq!(Activation::from_value(&AttrValue::Word("transpose".into())), None);
    assert!(Activation::words().contains(&"leaky_relu"));
}

#[test]
fn layers_over_sequences_say_what_they_need() {
    let labels = |input: &str, line: &str| {
        let text = format!("model @m(%x: {input}) {{\n  predict {line}\n}}\n");
        let faults = load("m.kiln", &text, &Bindings::new()).unwrap_err();
        faults.into_iter().map(|fault| fault.label.to_string()).collect::<Vec<_>>()
    };
    let tokens = "f32[batch, 7, 6]";
    assert_eq!(labels("f32[batch, 1, 7, e]", "attention %x, %x, %x"), ["attention.L1"]);
    assert_eq!(labels("f32[batch, 6]", "multi_head_attention %x {heads = 3}"), ["multi_head_attention.L1"]);
    assert_eq!(labels(tokens, "multi_head_attention %x {heads = 4}"), ["multi_head_attention.L2"]);
    assert_eq!(labels(tokens, "multi_head_attention %x {heads = 0}"), ["multi_head_attention.L2"]);
    assert_eq!(labels("f32[batch, 7, e]", "position_embedding %x {length = 9}"), ["position_embedding.L1"]);
    assert_eq!(labels(tokens, "position_embedding %x {length = 6}"), ["position_embedding.L2"]);
    for layer in ["rnn", "lstm", "gru"] {
        let line = |units: i64| format!("{layer} %x {{units = {units}}}");
        for input in ["f32[batch, 6]", "f32[batch, 7, e]", "f32[batch, s, 6]", "f32[batch, 0, 6]"] {
            assert_eq!(labels(input, &line(3)), [format!("{layer}.L1")], "{input}");
        }
        assert_eq!(labels(tokens, &line(0)), [format!("{layer}.L2")]);
    }
}

fn trained(optimizer: Optimizer) -> Module {
    let model = Model::new("m");
    let x = model.input("x", DType::F32, dims!["batch", 4]);
    let y = model.input("y", DType::F32, dims!["batch", 1]);
    model.loss(&model.scope("head", || x.layer(Dense::new(1).bias(false))).mse(&y));
    model.train(Train::with(optimizer).cosine(100, 0.0));
    model.finish().unwrap()
}

#[test]
fn each_optimizer_has_its_moments() {
    let cases = [
        (Optimizer::sgd(0.1), vec![]),
        (Optimizer::momentum(0.1), vec!["momentum.m"]),
        (Optimizer::adam(0.1), vec!["adam.m", "adam.v"]),
        (Optimizer::adamw(0.1), vec!["adamw.m", "adamw.v"]),
        (Optimizer::rmsprop(0.1), vec!["rmsprop.v"]),
    ];
    for (optimizer, moments) in cases {
        let module = trained(optimizer);
        let wanted: Vec<String> = moments.iter().map(|moment| format!("{moment}.head1.dense1.weight")).collect();
        let found = module.states.iter().filter(|(_, state)| state.role == Role::Moment);
        assert_eq!(found.map(|(name, _)| name.to_string()).collect::<Vec<_>>(), wanted);
        assert_eq!(module.graph("step0").unwrap().updates().len(), 2 + wanted.len());
    }
}

#[test]
fn states_beyond_any_memory_are_refused() {
    let text = "model @m(%x: f32[batch, 4]) {\n  predict dense %x {units = 9223372036854775807}\n}\n";
    let faults = load("m.kiln", text, &Bindings::new()).unwrap_err();
    assert_eq!(faults[0].label, "layer.L1");
    assert!(faults.iter().all(|fault| fault.label == "layer.L1"));
}
