//! Numbers of another framework: `tests/golden/make.py` computes them with PyTorch and describes the files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use kiln::pass::Pass;
use kiln::pipeline::Pipeline;
use kiln::{Options, Program};
use kiln_ir::attribute::AttrValue;
use kiln_ir::diagnostic::render_all;
use kiln_ir::reference::Array;
use kiln_ir::scalar::Number;
use kiln_ir::verify::{Bound, verify};
use kiln_ir::{Bindings, Module, script, text};
use kiln_rt::data::{Dataset, Split};
use kiln_rt::executable::Binding;
use kiln_rt::kernels::{Level, detect};
use kiln_rt::train::{BatchPrograms, FitOptions, Report, TrainPrograms, batch_sizes, fit};
use kiln_rt::{Session, Tensor, Weights, weights};
use kiln_tests::executors::Executor;
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

fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().filter(|value| value.is_finite()).fold(1e-3_f64, |most, value| most.max(value.abs()));
    for (position, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = found == expected
            || (found.is_nan() && expected.is_nan())
            || (found - expected).abs() <= tolerance * largest;
        assert!(close, "{what}: {found} at {position}, PyTorch has {expected}");
    }
}

/// A script of the folder, and how to compile it.
struct Case {
    name: &'static str,
    text: String,
    level: Level,
}

impl Case {
    fn new(name: &'static str, level: Level) -> Case {
        let text = std::fs::read_to_string(folder().join(format!("{name}.kiln"))).unwrap();
        Case { name, text, level }
    }

    fn module(&self, batch: usize) -> Module {
        let bindings = Bindings::from_iter([("batch".into(), batch)]);
        let render = |found: Vec<_>| -> Module { panic!("{}", render_all(&found, &|_| Some(self.text.clone()))) };
        let module = script::load(self.name, &self.text, &bindings).unwrap_or_else(render);
        let found = verify(&module, Bound::Yes);
        if found.is_empty() { module } else { render(found) }
    }

    /// Some graphs, compiled; without `hoist` where states change between runs.
    fn compile(&self, batch: usize, graphs: &[&str], hoist: bool) -> Program {
        let mut module = self.module(batch);
        module.graphs.retain(|name, _| graphs.contains(&&**name));
        let passes: Vec<&str> = Pipeline::standard(None).names();
        let passes: Vec<&str> = passes.into_iter().filter(|name| hoist || *name != "hoist").collect();
        let options = Options { level: self.level, passes: Some(passes.join(",")), ..Options::default() };
        kiln::compile(&module, &options).unwrap_or_else(|error| panic!("{}: {error}: {error:?}", self.name))
    }

    fn data(&self, module: &Module) -> Dataset {
        let Some(AttrValue::Text(path)) = module.recipe.as_ref().and_then(|recipe| recipe.get("data")) else {
            panic!("{}: no data", self.name)
        };
        Dataset::open(&folder().join(&**path), &inputs(module, "step0")).unwrap()
    }

    fn weights(&self) -> Weights {
        let files = ["safetensors", "weights.npz"].map(|ending| folder().join(format!("{}.{ending}", self.name)));
        Weights::read(files.iter().find(|file| file.exists()).unwrap()).unwrap()
    }

    /// Trains for some steps from the weights of the folder.
    fn train(&self, steps: u64) -> (Session, Report) {
        let recipe = self.module(1).recipe;
        let options = FitOptions { steps: Some(steps), ..FitOptions::from_recipe(recipe.as_ref().unwrap()).unwrap() };
        let module = self.module(options.batch);
        let data = self.data(&module);
        let mut session = Session::new(2).unwrap();
        session.initialize(&module, 0).unwrap();
        let unused = self.weights().apply(&mut session, &module).unwrap();
        assert_eq!(unused, [""; 0], "{}", self.name);

        let split = Split::new(data.examples(), options.test_every, options.fold().unwrap());
        let sizes = batch_sizes(split.train.len(), options.batch);
        let sizes: BTreeSet<usize> = sizes.union(&batch_sizes(split.test.len(), options.batch)).copied().collect();
        let mut programs = TrainPrograms::default();
        for size in sizes {
            let program = self.compile(size, &["step0", "eval"], false);
            let mut load = |graph: &str| session.load(Arc::clone(&program.graphs[graph].executable)).unwrap();
            let programs_of_size = BatchPrograms { steps: vec![load("step0")], eval: Some(load("eval")) };
            programs.by_batch.insert(size, programs_of_size);
        }
        let report = fit(&mut session, &programs, &data, &options, &mut ()).unwrap();
        (session, report)
    }

    /// `@predict` on the first batch of training examples, with the states of `trained`.
    fn predict(&self, trained: &Session, batch: usize, every: usize) -> Vec<f64> {
        let program = self.compile(batch, &["predict"], true);
        let mut session = Session::new(1).unwrap();
        session.initialize(&program.module, 0).unwrap();
        for (name, state) in trained.states().iter().filter(|(name, _)| program.module.states.contains_key(*name)) {
            session.set_state(name, state).unwrap();
        }
        let ids: IndexMap<&str, _> = program
            .graphs
            .iter()
            .map(|(name, compiled)| (&**name, session.load(Arc::clone(&compiled.executable)).unwrap()))
            .collect();
        if let Some(&prepare) = ids.get("prepare") {
            session.run(prepare, &[], &mut []).unwrap();
        }
        let module = self.module(batch);
        let data = self.data(&module);
        let examples = Split::new(data.examples(), every, every.max(1) - 1).train;
        let [input] = &inputs(&module, "predict")[..] else { panic!("{}: one input", self.name) };
        let mut x = Tensor::zeros(input.ty.clone()).unwrap();
        data.fill(&input.name, &examples[..batch], &mut x).unwrap();
        let mut outputs = session.outputs(ids["predict"]).unwrap();
        session.run(ids["predict"], &[&x], &mut outputs).unwrap();
        elements(&outputs[0])
    }
}

fn inputs(module: &Module, graph: &str) -> Vec<Binding> {
    let graph = module.graph(graph).unwrap();
    let binding = |param: &kiln_ir::graph::Param| Binding {
        below: param.below,
        ..Binding::new(graph.value_name(param.value).clone(), graph.ty(param.value).clone())
    };
    graph.params().iter().map(binding).collect()
}

fn elements(tensor: &Tensor) -> Vec<f64> {
    (0..tensor.len()).map(|position| tensor.get(position).unwrap()).collect()
}

/// Twenty steps with Kiln follow twenty steps with PyTorch.
fn trajectory(name: &'static str) {
    let golden = json(&format!("{name}.json"));
    for level in [detect(), Level::None] {
        let case = Case::new(name, level);
        let (session, report) = case.train(golden["steps"].as_u64().unwrap());
        for (step, (found, expected)) in report.losses.iter().zip(numbers(&golden["losses"])).enumerate() {
            let error = (found - expected).abs() / expected.abs();
            assert!(error <= TOLERANCE, "{name} {level:?}: loss {found} of step {step}, PyTorch has {expected}");
        }
        assert_eq!(report.losses.len() as u64, report.steps);

        let module = case.module(1);
        let foreign = weights::foreign_names(module.recipe.as_ref()).unwrap();
        for (torch, expected) in golden["states"].as_object().unwrap() {
            let state = &foreign.iter().find(|entry| *entry.foreign == **torch).unwrap().state;
            let found = elements(session.states().get(state).unwrap());
            assert_close(&format!("{name} {level:?} @{state}"), &found, &numbers(expected), TOLERANCE);
        }
        let options = FitOptions::from_recipe(module.recipe.as_ref().unwrap()).unwrap();
        let found = case.predict(&session, options.batch, options.test_every);
        assert_close(&format!("{name} {level:?} @predict"), &found, &numbers(&golden["predict"]), TOLERANCE);
        for (key, metric) in [("test_loss", "loss"), ("test_accuracy", "accuracy")] {
            let Some(expected) = golden[key].as_f64() else { continue };
            assert_close(key, &[report.test_value(metric).unwrap()], &[expected], TOLERANCE);
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
fn smooth_activations_with_rmsprop_and_cosine() {
    trajectory("activations");
}

#[test]
fn digits_with_adam() {
    trajectory("digits");
}

/// The graph of a case of `ops.json`, its gradients derived, and its inputs.
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
    let input = |param: &kiln_ir::graph::Param| {
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

#[test]
fn ops_in_odd_configurations() {
    let golden = json("ops.json");
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
