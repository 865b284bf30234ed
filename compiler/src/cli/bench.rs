//! `kiln bench`: how long a model takes to compile and to run, kernel by kernel, and what the machine can do.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indexmap::IndexMap;
use kiln::Program;
use kiln::compile::Compiled;
use kiln::training::TrainGraphs;
use kiln_ir::graph::Graph;
use kiln_ir::{DType, Module, Name, TensorType};
use kiln_rt::Tensor;
use kiln_rt::data::convert::convert;
use kiln_rt::philox::Philox;
use kiln_rt::profile::Profile;
use kiln_rt::session::ProgramId;
use serde_json::json;

use load::Load;

use super::failure::Failure;
use super::load::{Outline, Script, bindings, parse_binding};
use super::machine::{self, Machine, NamedPath, milliseconds, parse_named_path, parse_threads};
use super::output::{print, print_json};
use super::precision::Numerics;
use super::run::{check_inputs, infer_bindings};

mod ceilings;
mod kernels;
mod load;
mod tune;

/// Measures compilation, runs and kernels; with `--machine`, the machine itself.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Script, or `-` for stdin.
    #[arg(required_unless_present = "machine")]
    model: Option<String>,
    /// Measures what this machine can do at most, without a model: multiply-adds, bandwidth, forking.
    #[arg(long, conflicts_with_all = ["model", "bind", "train", "graph", "iterations", "weights", "input", "precision", "tune"])]
    machine: bool,
    /// Binds a dimension's name; `batch` is the recipe's by default.
    #[arg(long, value_name = "NAME=N", value_parser = parse_binding)]
    bind: Vec<(Name, usize)>,
    /// Measures a training step instead of a prediction: of several steps, all that a batch runs.
    #[arg(long)]
    train: bool,
    /// The graph; `@predict` if there is one.
    #[arg(long, value_name = "@NAME", conflicts_with = "train")]
    graph: Option<String>,
    /// Threads; every core by default.
    #[arg(long, value_parser = parse_threads)]
    threads: Option<usize>,
    /// Runs to measure; by default as many as fit a second, at most 1000.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: Option<u32>,
    /// Weights, `.safetensors` or `.npz`; initial ones by default.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Gives an input as a NumPy file; inputs are random by default, within their declared bounds.
    #[arg(short, long, value_name = "NAME=X.NPY", value_parser = parse_named_path)]
    input: Vec<NamedPath>,
    /// Measures alternatives to the choices of the cost model, and caches what is faster for `run`, `train` and `bench`:
    /// choices that keep every bit, or with `=bits` also those that change how results are rounded.
    #[arg(long, value_enum, value_name = "WHICH", num_args = 0..=1, default_missing_value = "exact", require_equals = true)]
    tune: Option<tune::Which>,
    #[command(flatten)]
    numerics: Numerics,
    /// Prints the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs before the measurement, and the time that a measurement without `--iterations` takes.
const WARM_UP: usize = 3;
const MEASURED: Duration = Duration::from_millis(1000);
const MOST_ITERATIONS: usize = 1000;

/// Processors that others may keep busy before the figures are said to be disturbed.
const DISTURBED: f64 = 0.1;

/// Figures of one program.
struct Figures {
    compile_ms: f64,
    /// Of the compilation, the memory planning of all graphs.
    planning_ms: f64,
    prepare_ms: f64,
    /// Sorted.
    times: Vec<Duration>,
    arena_bytes: usize,
    lower_bound: u64,
    flops: u64,
    threads: usize,
    /// Kernels with a measured choice that is not the cost model's.
    tuned_kernels: usize,
    /// Processors that other programs kept busy during the runs.
    other_cpu: Option<f64>,
    /// After the runs, before the machine is measured, which takes memory of its own.
    peak_rss_bytes: Option<u64>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match &self.model {
            Some(model) => self.model(model),
            None => self.machine(),
        }
    }

    fn machine(&self) -> Result<(), Failure> {
        let (text, json) = ceilings::machine(machine::threads(self.threads))?;
        if self.json { print_json(&json) } else { print(&text) }
    }

    fn model(&self, model: &str) -> Result<(), Failure> {
        let start = Instant::now();
        let script = Script::open(model)?;
        let mut outline = script.outline()?;
        if !self.train {
            outline.focus(self.graph.as_deref());
        }
        let reading = Instant::now();
        let names: Vec<Name> = outline.inputs.iter().map(|(name, _)| name.clone()).collect();
        let mut inputs = machine::read_inputs(&self.input, &names)?;
        let read_ms = milliseconds(reading);
        let bound = infer_bindings(&outline, &inputs, &bindings(&self.bind))?;
        let mut module = script.module(&outline.complete(&bound)?)?;
        let names = self.graph_names(&module)?;
        module.keep_graphs(&names);
        let graphs: Vec<Graph> = names.iter().filter_map(|name| module.graph(name).cloned()).collect();
        let threads = machine::threads(self.threads);
        if let Some(which) = self.tune {
            fill(&graphs, &outline, &mut inputs)?;
            let weights = self.weights.as_deref();
            let setting = tune::Setting { script: &script, module: &module, graphs: &graphs, inputs: &inputs, weights };
            return tune::run(&setting, which, &self.numerics.untuned(), threads, self.json);
        }
        let options = self.numerics.options(threads);
        let program = script.compile(&module, &options)?;
        let mut machine = Machine::new(&program, None, self.weights.as_deref(), threads)?;
        let compile_ms = milliseconds(start) - machine.prepare_ms - read_ms;
        fill(&graphs, &outline, &mut inputs)?;
        let mut runs: Vec<Run<'_>> =
            graphs.iter().map(|graph| Run::new(&machine, graph, &inputs)).collect::<Result<_, _>>()?;
        let (times, other_cpu) = self.measure(&mut machine, &mut runs)?;
        let figures = figures(&program, &names, &machine, compile_ms, (times, other_cpu))?;
        let profiles = profiles(&program, &mut machine, &names, &mut runs, figures.times.len())?;
        let roofs = ceilings::roofs(machine.session.threads())?;
        let kernels = kernels::kernels(&profiles, &roofs);
        if self.json {
            let mut object = figures.to_json();
            object["kernels"] = kernels.iter().map(kernels::Kernel::to_json).collect();
            object["machine"] = roofs.to_json();
            return print_json(&object);
        }
        let title: Vec<String> = names.iter().map(|name| format!("@{name}")).collect();
        print(&format!("{}\n{}\n{}", title.join(", "), figures.to_text(), kernels::text(&kernels, &roofs)))
    }

    /// What a run is: one graph, or all steps of a batch in their order.
    fn graph_names(&self, module: &Module) -> Result<Vec<Name>, Failure> {
        if !self.train {
            return machine::choose_graph(module, self.graph.as_deref()).map(|name| vec![name]);
        }
        let steps = module.recipe.as_ref().map(|recipe| TrainGraphs::of(recipe).steps).unwrap_or_default();
        match steps.is_empty() {
            false => Ok(steps),
            true => Err(Failure::Input("the script has no `train`, so there is no step to measure".to_owned())),
        }
    }

    /// Times of single runs, sorted, and how many processors other programs kept busy meanwhile.
    fn measure(&self, machine: &mut Machine, runs: &mut [Run<'_>]) -> Result<(Vec<Duration>, Option<f64>), Failure> {
        let mut run = || runs.iter_mut().try_for_each(|run| machine.session.run(run.id, &run.inputs, &mut run.outputs));
        for _ in 0..WARM_UP {
            run()?;
        }
        let most = self.iterations.map_or(MOST_ITERATIONS, |iterations| iterations as usize);
        let mut times = Vec::with_capacity(most);
        let load = Load::start();
        let begin = Instant::now();
        while times.len() < most && (self.iterations.is_some() || times.is_empty() || begin.elapsed() < MEASURED) {
            let start = Instant::now();
            run()?;
            times.push(start.elapsed());
        }
        let other_cpu = load.others();
        times.sort_unstable();
        Ok((times, other_cpu))
    }
}

/// Every input of the graphs: as given, or drawn.
fn fill(graphs: &[Graph], outline: &Outline, inputs: &mut IndexMap<Name, Tensor>) -> Result<(), Failure> {
    graphs.iter().try_for_each(|graph| {
        fill_inputs(graph, inputs)?;
        check_inputs(graph, outline, inputs)
    })
}

/// Draws the inputs that were not given.
fn fill_inputs(graph: &Graph, inputs: &mut IndexMap<Name, Tensor>) -> Result<(), Failure> {
    for (number, param) in graph.params().iter().enumerate() {
        let name = graph.value_name(param.value);
        if !inputs.contains_key(name) {
            inputs.insert(name.clone(), random(graph.ty(param.value), param.below, number as u64)?);
        }
    }
    Ok(())
}

/// Floats uniform in `[-1, 1)`; integers below their bound, or 0 and 1 without one.
fn random(ty: &TensorType, below: Option<u64>, key: u64) -> Result<Tensor, Failure> {
    let philox = Philox::new(key);
    let mut tensor = Tensor::zeros(ty.clone()).map_err(|error| Failure::Input(error.to_string()))?;
    let dtype = ty.dtype;
    for (counter, out) in (0..).zip(tensor.bytes_mut().chunks_exact_mut(dtype.bytes())) {
        if dtype.is_float() {
            let [bits, ..] = philox.block(counter);
            let value = f64::from(bits) / f64::from(1u32 << 31) - 1.0;
            convert(DType::F64, &value.to_ne_bytes(), dtype, out);
        } else {
            let bound = if dtype == DType::Bool { 2 } else { below.unwrap_or(2).max(1) };
            let value = philox.below(counter, bound).cast_signed();
            convert(DType::I64, &value.to_ne_bytes(), dtype, out);
        }
    }
    Ok(tensor)
}

/// A program with its tensors.
struct Run<'a> {
    id: ProgramId,
    inputs: Vec<&'a Tensor>,
    outputs: Vec<Tensor>,
}

impl<'a> Run<'a> {
    fn new(machine: &Machine, graph: &Graph, inputs: &'a IndexMap<Name, Tensor>) -> Result<Run<'a>, Failure> {
        let id = machine.program(graph.name())?;
        let inputs = graph.params().iter().filter_map(|param| inputs.get(graph.value_name(param.value))).collect();
        Ok(Run { id, inputs, outputs: machine.session.outputs(id)? })
    }
}

/// Runs to profile at most.
const PROFILED: usize = 100;

/// Times of all launches of each graph.
fn profiles<'a>(
    program: &'a Program,
    machine: &mut Machine,
    names: &'a [Name],
    runs: &mut [Run<'_>],
    measured: usize,
) -> Result<Vec<(&'a str, &'a Compiled, Profile)>, Failure> {
    let runs = names.iter().zip(runs);
    let profile = |(name, Run { id, inputs, outputs }): (&'a Name, &mut Run<'_>)| {
        let profile = machine.session.profile(*id, inputs, outputs, measured.min(PROFILED))?;
        Ok((&**name, compiled(program, name)?, profile))
    };
    runs.map(profile).collect()
}

fn compiled<'a>(program: &'a Program, graph: &Name) -> Result<&'a Compiled, Failure> {
    program.graphs.get(graph).ok_or_else(|| Failure::Defect(format!("@{graph} was not compiled")))
}

/// Of several graphs, which run one after the other in one arena: the largest arena and all operations.
fn figures(
    program: &Program,
    graphs: &[Name],
    machine: &Machine,
    compile_ms: f64,
    (times, other_cpu): (Vec<Duration>, Option<f64>),
) -> Result<Figures, Failure> {
    let compiled: Vec<_> = graphs.iter().map(|graph| compiled(program, graph)).collect::<Result<_, _>>()?;
    let launches = compiled.iter().flat_map(|compiled| &compiled.executable.launches);
    let decisions =
        compiled.iter().flat_map(|compiled| &compiled.lowered).filter_map(|lowered| lowered.decision.as_ref());
    let planning: Duration = program.graphs.values().map(|compiled| compiled.planning).sum();
    Ok(Figures {
        compile_ms,
        planning_ms: planning.as_secs_f64() * 1e3,
        prepare_ms: machine.prepare_ms,
        times,
        arena_bytes: compiled.iter().map(|compiled| compiled.executable.arena_bytes).max().unwrap_or(0),
        lower_bound: compiled.iter().map(|compiled| compiled.placement.plan.lower_bound).max().unwrap_or(0),
        flops: launches.map(|launch| launch.flops).sum(),
        threads: machine.session.threads(),
        tuned_kernels: decisions.filter(|decision| decision.is_other()).count(),
        other_cpu,
        peak_rss_bytes: peak_rss_bytes(),
    })
}

impl Figures {
    fn median(&self) -> Duration {
        self.times.get(self.times.len() / 2).copied().unwrap_or_default()
    }

    fn min(&self) -> Duration {
        self.times.first().copied().unwrap_or_default()
    }

    fn gflops(&self) -> f64 {
        self.flops as f64 / self.median().as_nanos().max(1) as f64
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "compile_ms": self.compile_ms,
            "planning_ms": self.planning_ms,
            "prepare_ms": self.prepare_ms,
            "median_ms": self.median().as_secs_f64() * 1e3,
            "min_ms": self.min().as_secs_f64() * 1e3,
            "iterations": self.times.len(),
            "arena_bytes": self.arena_bytes,
            "arena_lower_bound_bytes": self.lower_bound,
            "other_cpu": self.other_cpu,
            "peak_rss_bytes": self.peak_rss_bytes,
            "gflops": self.gflops(),
            "threads": self.threads,
            "tuned_kernels": self.tuned_kernels,
        })
    }

    fn to_text(&self) -> String {
        let shared = self.other_cpu.filter(|busy| *busy > DISTURBED);
        let shared =
            shared.map(|busy| format!("  shared   with other programs, which kept {busy:.1} processors busy\n"));
        let tuned = match self.tuned_kernels {
            0 => String::new(),
            kernels => format!("  tuned    {kernels} kernels, by cached choices\n"),
        };
        let peak = self.peak_rss_bytes.map_or("unknown".to_owned(), |bytes| format!("{bytes} bytes"));
        format!(
            "  compile  {:>10.2} ms  {:.2} % of it memory planning\n  prepare  {:>10.2} ms\n  median   {:>10.4} ms  of {} runs on {} threads\n  \
             min      {:>10.4} ms\n  speed    {:>10.2} GFLOP/s\n  arena    {} bytes, lower bound {}\n  peak RSS {peak}\n{tuned}{}",
            self.compile_ms,
            100.0 * self.planning_ms / self.compile_ms.max(f64::MIN_POSITIVE),
            self.prepare_ms,
            self.median().as_secs_f64() * 1e3,
            self.times.len(),
            self.threads,
            self.min().as_secs_f64() * 1e3,
            self.gflops(),
            self.arena_bytes,
            self.lower_bound,
            shared.unwrap_or_default(),
        )
    }
}

/// Most memory that this process has had resident, as the system counts it; `None` where it does not say.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
