//! `kiln bench`: how long a model takes to compile and to run.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indexmap::IndexMap;
use kiln::training::TrainGraphs;
use kiln::{Options, Program};
use kiln_ir::graph::Graph;
use kiln_ir::{DType, Module, Name, TensorType};
use kiln_rt::Tensor;
use kiln_rt::data::convert::convert;
use kiln_rt::philox::Philox;
use kiln_rt::profile::Profile;
use kiln_rt::session::ProgramId;
use serde_json::json;

use super::failure::Failure;
use super::load::{Script, bindings, parse_binding, parse_bytes};
use super::machine::{self, Machine, NamedPath, milliseconds, parse_named_path, parse_threads};
use super::output::{print, print_json};
use super::run::{check_inputs, infer_bindings};

/// Measures compilation and runs.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Script, or `-` for stdin.
    model: String,
    /// Binds a dimension's name; `batch` is the recipe's by default.
    #[arg(long, value_name = "NAME=N", value_parser = parse_binding)]
    bind: Vec<(Name, usize)>,
    /// Measures a training step instead of a prediction.
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
    /// How far sums may be reordered and approximated.
    #[arg(long, value_enum, default_value = "default")]
    precision: Precision,
    /// Bytes that the arena of a graph may have, `64MiB`; what does not fit is computed twice, to the same bits.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory_budget: Option<u64>,
    /// Prints the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// What a kernel may do to be faster. Today's kernels keep the order of f32 sums that the tiles fix, which is what
/// `strict` asks for, so all three run the same code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Precision {
    Strict,
    Default,
    Fast,
}

/// Runs before the measurement, and the time that a measurement without `--iterations` takes.
const WARM_UP: usize = 3;
const MEASURED: Duration = Duration::from_millis(1000);
const MOST_ITERATIONS: usize = 1000;

/// Figures of one program.
struct Figures {
    compile_ms: f64,
    prepare_ms: f64,
    /// Sorted.
    times: Vec<Duration>,
    arena_bytes: usize,
    lower_bound: u64,
    flops: u64,
    threads: usize,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let start = Instant::now();
        let script = Script::open(&self.model)?;
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
        let graph_name = self.graph_name(&module)?;
        module.keep_graphs(std::slice::from_ref(&graph_name));
        let graph = module.graph(&graph_name).cloned().unwrap_or_default();
        let program = script.compile(&module, &Options { memory_budget: self.memory_budget, ..Options::default() })?;
        let threads = machine::threads(self.threads);
        let mut machine = Machine::new(&program, 0, self.weights.as_deref(), threads)?;
        let compile_ms = milliseconds(start) - machine.prepare_ms - read_ms;
        fill_inputs(&graph, &mut inputs)?;
        check_inputs(&graph, &outline, &inputs)?;
        let ordered: Vec<&Tensor> =
            graph.params().iter().filter_map(|param| inputs.get(graph.value_name(param.value))).collect();
        let id = machine.program(&graph_name)?;
        let times = self.measure(&mut machine, id, &ordered)?;
        let figures = figures(&program, &graph_name, &machine, compile_ms, times)?;
        if self.json {
            return print_json(&figures.to_json());
        }
        let mut outputs = machine.session.outputs(id)?;
        let profile = machine.session.profile(id, &ordered, &mut outputs, figures.times.len().min(100))?;
        print(&format!("@{graph_name}\n{}\n{}", figures.to_text(), table(&profile)))
    }

    fn graph_name(&self, module: &Module) -> Result<Name, Failure> {
        if !self.train {
            return machine::choose_graph(module, self.graph.as_deref());
        }
        let steps = module.recipe.as_ref().map(|recipe| TrainGraphs::of(recipe).steps).unwrap_or_default();
        match steps.into_iter().next() {
            Some(step) => Ok(step),
            None => Err(Failure::Input("the script has no `train`, so there is no step to measure".to_owned())),
        }
    }

    /// Times of single runs, sorted.
    fn measure(&self, machine: &mut Machine, id: ProgramId, inputs: &[&Tensor]) -> Result<Vec<Duration>, Failure> {
        let mut outputs = machine.session.outputs(id)?;
        for _ in 0..WARM_UP {
            machine.session.run(id, inputs, &mut outputs)?;
        }
        let most = self.iterations.map_or(MOST_ITERATIONS, |iterations| iterations as usize);
        let mut times = Vec::with_capacity(most);
        let begin = Instant::now();
        while times.len() < most && (self.iterations.is_some() || times.is_empty() || begin.elapsed() < MEASURED) {
            let start = Instant::now();
            machine.session.run(id, inputs, &mut outputs)?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(times)
    }
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

fn figures(
    program: &Program,
    graph: &Name,
    machine: &Machine,
    compile_ms: f64,
    times: Vec<Duration>,
) -> Result<Figures, Failure> {
    let compiled = program.graphs.get(graph);
    let compiled = compiled.ok_or_else(|| Failure::Defect(format!("@{graph} was not compiled")))?;
    Ok(Figures {
        compile_ms,
        prepare_ms: machine.prepare_ms,
        times,
        arena_bytes: compiled.executable.arena_bytes,
        lower_bound: compiled.placement.plan.lower_bound,
        flops: compiled.executable.launches.iter().map(|launch| launch.flops).sum(),
        threads: machine.session.threads(),
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
            "prepare_ms": self.prepare_ms,
            "median_ms": self.median().as_secs_f64() * 1e3,
            "min_ms": self.min().as_secs_f64() * 1e3,
            "iterations": self.times.len(),
            "arena_bytes": self.arena_bytes,
            "arena_lower_bound_bytes": self.lower_bound,
            "peak_rss_bytes": peak_rss_bytes(),
            "gflops": self.gflops(),
            "threads": self.threads,
        })
    }

    fn to_text(&self) -> String {
        let peak = peak_rss_bytes().map_or("unknown".to_owned(), |bytes| format!("{bytes} bytes"));
        format!(
            "  compile  {:>10.2} ms\n  prepare  {:>10.2} ms\n  median   {:>10.4} ms  of {} runs on {} threads\n  \
             min      {:>10.4} ms\n  speed    {:>10.2} GFLOP/s\n  arena    {} bytes, lower bound {}\n  peak RSS {peak}\n",
            self.compile_ms,
            self.prepare_ms,
            self.median().as_secs_f64() * 1e3,
            self.times.len(),
            self.threads,
            self.min().as_secs_f64() * 1e3,
            self.gflops(),
            self.arena_bytes,
            self.lower_bound,
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

/// Kernels by time.
fn table(profile: &Profile) -> String {
    let total: Duration = profile.launches.iter().map(kiln_rt::profile::LaunchTimes::median).sum();
    let mut launches: Vec<_> = profile.launches.iter().collect();
    launches.sort_by_key(|launch| std::cmp::Reverse(launch.median()));
    let mut text = format!("{:>10} {:>6} {:>9} {:>8} {:>7}  kernel\n", "us", "%", "GFLOP/s", "GB/s", "tiles");
    for launch in launches {
        let time = launch.median();
        let nanoseconds = time.as_nanos().max(1) as f64;
        let source = launch.source.as_ref().map(|source| format!("  {source}")).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:>10.2} {:>6.1} {:>9.2} {:>8.2} {:>7}  {}{source}",
            nanoseconds / 1e3,
            100.0 * time.as_secs_f64() / total.as_secs_f64().max(1e-12),
            launch.gflops(),
            launch.bytes as f64 / nanoseconds,
            launch.tiles,
            launch.name,
        );
    }
    text
}
