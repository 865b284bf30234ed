//! `kiln run`: one graph on tensors from files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use indexmap::IndexMap;
use kiln_ir::graph::Graph;
use kiln_ir::verify::Bound;
use kiln_ir::{Bindings, DType, Name, TensorType};
use kiln_rt::Tensor;
use kiln_rt::atomic_file::write_atomically;
use kiln_rt::data::convert::decode_integer;
use kiln_rt::data::npy::write_npy;
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::load::{Outline, Script, bindings, parse_binding, sole_name};
use super::machine::{self, Machine, NamedPath, parse_named_path, parse_threads};
use super::output::{print, print_json};
use super::precision::Numerics;

/// Runs a graph.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Script, or `-` for stdin.
    model: String,
    /// Gives an input as a NumPy file; its shape binds dimension names.
    #[arg(short, long, value_name = "NAME=X.NPY", value_parser = parse_named_path)]
    input: Vec<NamedPath>,
    /// Writes a result to a NumPy file; results that are not written are printed.
    #[arg(short, long, value_name = "NAME=Y.NPY", value_parser = parse_named_path)]
    output: Vec<NamedPath>,
    /// The graph; `@predict` if there is one.
    #[arg(long, value_name = "@NAME")]
    graph: Option<String>,
    /// Binds a dimension's name.
    #[arg(long, value_name = "NAME=N", value_parser = parse_binding)]
    bind: Vec<(Name, usize)>,
    /// Weights, `.safetensors` or `.npz`.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Runs with initial weights, to try things out.
    #[arg(long, conflicts_with = "weights")]
    random_weights: bool,
    /// Seed of what the model draws, and of the initial weights; without it draws go on where training stopped.
    #[arg(long)]
    seed: Option<u64>,
    /// Threads; every core by default.
    #[arg(long, value_parser = parse_threads)]
    threads: Option<usize>,
    #[command(flatten)]
    numerics: Numerics,
    /// Prints the results as JSON.
    #[arg(long)]
    json: bool,
}

/// Most elements of a result that are shown.
const SHOWN: usize = 1000;

impl Run {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let script = Script::open(&self.model)?;
        let mut outline = script.outline()?;
        outline.focus(self.graph.as_deref());
        let inputs = machine::read_inputs(&self.input, &self.input_names(&script, &outline))?;
        let given = bindings(&self.bind);
        let bound = infer_bindings(&outline, &inputs, &given)?;
        let mut module = script.module(&outline.complete(&bound)?)?;
        let graph_name = machine::choose_graph(&module, self.graph.as_deref())?;
        module.keep_graphs(std::slice::from_ref(&graph_name));
        let graph = module.graph(&graph_name).cloned().unwrap_or_default();
        check_inputs(&graph, &outline, &inputs)?;
        let results: Vec<Name> = graph.returns().iter().map(|&value| graph.value_name(value).clone()).collect();
        let files = machine::by_name(&self.output, &results, "output")?;
        let learned = machine::learned(&module);
        if self.weights.is_none() && !self.random_weights && !learned.is_empty() {
            return Err(Failure::Input(format!(
                "the model has {} weights ({}, ...) and none are given; give --weights FILE, or --random-weights to try it out",
                learned.len(),
                learned.iter().take(3).map(|name| format!("@{name}")).collect::<Vec<_>>().join(", "),
            )));
        }
        let threads = machine::threads(self.threads);
        let program = script.compile(&module, &self.numerics.options(threads))?;
        let mut machine = Machine::new(&program, self.seed, self.weights.as_deref(), threads)?;
        let id = machine.program(&graph_name)?;
        let ordered: Vec<&Tensor> =
            graph.params().iter().filter_map(|param| inputs.get(graph.value_name(param.value))).collect();
        let mut outputs = machine.session.outputs(id)?;
        let start = Instant::now();
        machine.session.run(id, &ordered, &mut outputs)?;
        let elapsed = machine::milliseconds(start);
        for (name, tensor) in results.iter().zip(&outputs) {
            if let Some(path) = files.get(name) {
                write_atomically(path, |out| write_npy(out, tensor))?;
            }
        }
        self.show(&results, &outputs, &files, elapsed)
    }

    /// Inputs of the graph, as far as they are known before names are bound; else all that the script has. A model's
    /// labels are no inputs of its prediction.
    fn input_names(&self, script: &Script, outline: &Outline) -> Vec<Name> {
        let graph = script.expand(&Bindings::new(), Bound::No).ok().and_then(|module| {
            let name = machine::choose_graph(&module, self.graph.as_deref()).ok()?;
            module.graph(&name).cloned()
        });
        match graph {
            Some(graph) => graph.params().iter().map(|param| graph.value_name(param.value).clone()).collect(),
            None => outline.inputs.iter().map(|(name, _)| name.clone()).collect(),
        }
    }

    fn show(
        &self,
        names: &[Name],
        tensors: &[Tensor],
        files: &IndexMap<Name, &Path>,
        milliseconds: f64,
    ) -> Result<(), Failure> {
        let mut object = Map::new();
        let mut text = String::new();
        for (name, tensor) in names.iter().zip(tensors) {
            let file = files.get(name).map(|path| path.display().to_string());
            let head = format!("%{name}: {}", tensor.ty());
            // Writing to a String cannot fail.
            let _ = match &file {
                Some(file) => writeln!(text, "{head} -> {file}"),
                None => writeln!(text, "{head}\n{}", rows(tensor)),
            };
            let values: Option<Vec<Value>> = (file.is_none() && tensor.len() <= SHOWN)
                .then(|| (0..tensor.len()).map(|i| number(tensor, i)).collect());
            let extents = tensor.ty().extents().to_vec();
            let entry = json!({"dtype": tensor.dtype().name(), "shape": extents, "file": file, "values": values});
            object.insert(name.to_string(), entry);
        }
        if !self.json {
            return print(&text);
        }
        print_json(&json!({"outputs": object, "milliseconds": milliseconds}))
    }
}

/// An element as JSON, integers exactly.
fn number(tensor: &Tensor, position: usize) -> Value {
    let size = tensor.dtype().bytes();
    let integer =
        tensor.bytes().get(position * size..(position + 1) * size).and_then(|b| decode_integer(tensor.dtype(), b));
    match integer {
        Some(integer) if tensor.dtype() == DType::Bool => Value::from(integer != 0),
        Some(integer) => Value::from(integer),
        // JSON has no infinities and no NaN: they become null.
        None => Value::from(tensor.get(position).unwrap_or(f64::NAN)),
    }
}

/// Elements, one row of the last dimension per line.
fn rows(tensor: &Tensor) -> String {
    let width = tensor.ty().extents().last().copied().unwrap_or(1).max(1);
    let mut text = String::new();
    for position in 0..tensor.len().min(SHOWN) {
        let value = match tensor.dtype().is_float() {
            true => format!("{:>12.6}", tensor.get(position).unwrap_or(f64::NAN)),
            false => format!("{:>6}", number(tensor, position)),
        };
        text.push_str(&value);
        text.push_str(if (position + 1) % width == 0 { "\n" } else { " " });
    }
    if tensor.len() > SHOWN {
        text.push_str(&format!("... {} more\n", tensor.len() - SHOWN));
    }
    text.trim_end().to_owned()
}

/// Names bound by the extents of the tensors, beside those given.
pub(crate) fn infer_bindings(
    outline: &Outline,
    inputs: &IndexMap<Name, Tensor>,
    given: &Bindings,
) -> Result<Bindings, Failure> {
    let mut bindings = given.clone();
    let declared = outline.inputs.iter().filter_map(|(name, ty)| Some((name, ty, inputs.get(name)?)));
    for (input, ty, tensor) in declared {
        let extents = tensor.ty().extents();
        if extents.len() != ty.rank() {
            return Err(mismatch(input, ty, tensor));
        }
        for (dim, extent) in ty.shape.dims().iter().zip(extents) {
            let Some(name) = sole_name(dim) else { continue };
            match bindings.insert(name.clone(), extent) {
                Some(other) if other != extent => {
                    return Err(Failure::Input(format!(
                        "%{input} is {}, so `{name}` would be {extent}, but it is {other}; give tensors that agree",
                        tensor.ty()
                    )));
                }
                _ => {}
            }
        }
    }
    Ok(bindings)
}

fn mismatch(input: &Name, ty: &TensorType, tensor: &Tensor) -> Failure {
    Failure::Input(format!("%{input} is declared {ty}, but the tensor given is {}; reshape or convert it", tensor.ty()))
}

/// Every input is there and of its type.
pub(crate) fn check_inputs(graph: &Graph, outline: &Outline, inputs: &IndexMap<Name, Tensor>) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for param in graph.params() {
        let (name, bound) = (graph.value_name(param.value), graph.ty(param.value));
        let declared = outline.inputs.iter().find(|(other, _)| other == name).map_or(bound, |(_, ty)| ty);
        match inputs.get(name) {
            Some(tensor) if tensor.ty() != bound => return Err(mismatch(name, declared, tensor)),
            Some(_) => {}
            None => missing.push(format!("%{name}: {declared}")),
        }
    }
    match missing.as_slice() {
        [] => Ok(()),
        missing => Err(Failure::Input(format!(
            "@{} needs {}; give each with --input name=file.npy",
            graph.name(),
            missing.join(", ")
        ))),
    }
}
