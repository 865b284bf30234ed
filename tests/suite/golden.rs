//! Numbers of another framework: `tests/golden/make.py` computes them with PyTorch and describes the files.

use std::path::{Path, PathBuf};

use kiln::pass::Pass;
use kiln_ir::diagnostic::render_all;
use kiln_ir::graph::Param;
use kiln_ir::reference::Array;
use kiln_ir::scalar::Number;
use kiln_ir::verify::{Bound, verify};
use kiln_ir::{Module, text};
use kiln_rt::data::{Dataset, Split};
use kiln_rt::kernels::{Level, detect};
use kiln_rt::weights::foreign_names;
use kiln_tests::executors::Executor;
use kiln_tests::training::{Training, elements};
use serde_json::Value;

/// Relative, of losses; of states and predictions relative to the largest of the tensor.
const TOLERANCE: f64 = 1e-5;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn json(name: &str) -> Value {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// What JSON has no number for is text: `"inf"`.
fn numbers(value: &Value) -> Vec<f64> {
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap());
    value.as_array().unwrap().iter().map(number).collect()
}

fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().filter(|value| value.is_finite()).fold(1e-3_f64, |most, value| most.max(value.abs()));
    for (position, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = found == expected
            || (found.is_nan() && expected.is_nan())
            || (found - expected).abs() <= TOLERANCE * largest;
        assert!(close, "{what}: {found} at {position}, PyTorch has {expected}");
    }
}

/// Twenty steps with Kiln follow twenty steps with PyTorch.
fn trajectory(name: &str) {
    let golden = json(&format!("{name}.json"));
    let text = std::fs::read_to_string(folder().join(format!("{name}.kiln"))).unwrap();
    let files = ["safetensors", "weights.npz"].map(|ending| folder().join(format!("{name}.{ending}")));
    let weights = files.iter().find(|file| file.exists()).unwrap();
    for (level, threads) in [(detect(), 2), (Level::None, 1)] {
        let training = Training { name: name.to_owned(), text: text.clone(), level, threads };
        let (recipe, options) = training.recipe().unwrap();
        let inputs = training.inputs("step0", options.batch).unwrap();
        let data = Dataset::open(&folder().join(training.data_path().unwrap()), &inputs).unwrap();
        let steps = golden["steps"].as_u64().unwrap();
        let (session, report) = training.train(&data, Some(weights), steps).unwrap();

        assert_eq!(report.losses().len() as u64, steps);
        for (step, (found, expected)) in report.losses().iter().zip(numbers(&golden["losses"])).enumerate() {
            let error = (found - expected).abs() / expected.abs();
            assert!(error <= TOLERANCE, "{name} {level:?}: loss {found} of step {step}, PyTorch has {expected}");
        }
        for (name, found) in report.step_losses.iter().filter(|_| report.step_losses.len() > 1) {
            let expected = numbers(&golden[&**name]);
            assert_eq!(found.len(), expected.len(), "{name}");
            let most = found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / b.abs()).fold(0.0, f64::max);
            assert!(most <= TOLERANCE, "{name} {level:?}: {found:?}, PyTorch has {expected:?}");
        }
        let foreign = foreign_names(Some(&recipe)).unwrap();
        for (torch, expected) in golden["states"].as_object().unwrap() {
            let state = &foreign.iter().find(|entry| *entry.foreign == **torch).unwrap().state;
            let found = elements(session.states().get(state).unwrap());
            assert_close(&format!("{name} {level:?} @{state}"), &found, &numbers(expected));
        }
        let examples = Split::new(data.examples(), options.test_every, options.fold().unwrap()).train;
        let found = training.predict(&session, &data, &examples[..options.batch]).unwrap();
        assert_close(&format!("{name} {level:?} @predict"), &elements(&found), &numbers(&golden["predict"]));
        for (key, metric) in [("test_loss", "loss"), ("test_accuracy", "accuracy")] {
            let Some(expected) = golden[key].as_f64() else { continue };
            assert_close(&format!("{name} {level:?} {key}"), &[report.test_value(metric).unwrap()], &[expected]);
        }
    }
}

#[test]
fn dense_layers_with_momentum() {
    trajectory("mlp");
}

#[test]
fn dense_layers_with_nesterov_momentum() {
    trajectory("nesterov");
}

#[test]
fn residual_network_with_adamw() {
    trajectory("cnn");
}

#[test]
fn text_classifier_with_adam_and_clipping() {
    trajectory("text");
}

#[test]
fn recurrent_layers_through_time() {
    trajectory("recurrent");
}

#[test]
fn decoder_with_causal_attention() {
    trajectory("gpt");
}

#[test]
fn smooth_activations_with_rmsprop_and_cosine() {
    trajectory("activations");
}

#[test]
fn digits_with_adam() {
    trajectory("digits");
}

#[test]
fn generator_and_discriminator_in_alternating_steps() {
    trajectory("gan");
}

/// The graph of a case, its gradients derived, and its inputs.
fn op_case(name: &str, case: &Value) -> (Module, Vec<Array>) {
    let lines: Vec<&str> = case["graph"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let text = lines.join("\n") + "\n";
    let mut module = text::parse_module(name, &text)
        .unwrap_or_else(|found| panic!("{}", render_all(&found, &|_| Some(text.clone()))));
    let found = verify(&module, Bound::Yes);
    assert!(found.is_empty(), "{}", render_all(&found, &|_| Some(text.clone())));
    // The reference has no `gradient`.
    kiln::autodiff::Autodiff.run(&mut module, &mut kiln::pass::Remarks::default()).unwrap();
    let graph = module.graph(name).unwrap();
    let input = |param: &Param| {
        let numbers = numbers(&case["inputs"][&**graph.value_name(param.value)]);
        let ty = graph.ty(param.value).clone();
        let number = |at: usize| {
            let number = numbers.get(at)?;
            Some(if ty.dtype.is_float() { Number::Float(*number) } else { Number::Int(*number as i64) })
        };
        Array::from_numbers(ty.clone(), number).unwrap()
    };
    let inputs = graph.params().iter().map(input).collect();
    (module, inputs)
}

fn ops(file: &str) {
    let golden = json(file);
    let mut wrong = Vec::new();
    for (name, case) in golden.as_object().unwrap().iter().filter(|(name, _)| *name != "torch") {
        let (module, inputs) = op_case(name, case);
        let graph = module.graph(name).unwrap();
        let names = graph.returns().iter().map(|value| graph.value_name(*value));
        let expected: Vec<_> = names.zip(case["expected"].as_array().unwrap().iter().map(numbers)).collect();
        let executors = [Executor::Truth, Executor::Reference].into_iter().chain(Executor::compiled());
        for executor in executors {
            match executor.run(graph, &inputs) {
                Ok(found) => {
                    for ((what, expected), found) in expected.iter().zip(&found) {
                        wrong.extend(compare(name, what, executor, &found.to_f64(), expected));
                    }
                }
                Err(message) => wrong.push(format!("{name} on {executor:?}: {message}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn windows_in_odd_configurations() {
    ops("windows.json");
}

#[test]
fn ops_in_odd_configurations() {
    ops("ops.json");
}

fn compare(name: &str, what: &str, executor: Executor, found: &[f64], expected: &[f64]) -> Option<String> {
    let largest = expected.iter().filter(|value| value.is_finite()).fold(1.0_f64, |most, value| most.max(value.abs()));
    // Expected numbers have seven digits; inputs are rounded to float32.
    let tolerance = if executor == Executor::Truth { 1e-6 } else { 1e-5 } * largest;
    let wrong = |(found, expected): (&f64, &f64)| {
        !(found == expected || (found.is_nan() && expected.is_nan()) || (found - expected).abs() <= tolerance)
    };
    let position = found.iter().zip(expected).position(wrong)?;
    let (found, expected) = (found[position], expected[position]);
    Some(format!("{name} on {executor:?}: %{what} is {found} at {position}, PyTorch has {expected}"))
}
