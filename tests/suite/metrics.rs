//! What the compiler makes of the example models, in numbers that do not depend on the machine: the worth of a pass is
//! a diff of this snapshot. Every script is there, forward with one example and training with the batch of its recipe.

use std::fmt::Write;

use kiln::codegen::Target;
use kiln::memory::Plan;
use kiln::training::TrainGraphs;
use kiln::{Compiled, Options, Program, compile};
use kiln_ir::graph::Graph;
use kiln_ir::types::{Bindings, Name};
use kiln_ir::{Module, script};
use kiln_rt::kernels::Level;
use kiln_rt::train::FitOptions;
use kiln_tests::fixtures::{files, read};
use kiln_tests::snapshots;

/// Extent of `tokens` in all numbers.
const TOKENS: usize = 128;
/// Cranelift's instructions depend on whether the processor multiplies and adds in one; code bytes on more than that,
/// so they are in no snapshot.
const TARGET: &str = "x86_64-unknown-linux-gnu+fma";

/// Compiled graphs of an example.
struct Example {
    name: String,
    batch: usize,
    module: Module,
    program: Program,
}

/// The predictions of each script, then its steps: those of a script with several optimizers are several.
fn examples() -> Vec<Example> {
    files("examples", "kiln").into_iter().flat_map(|path| [forward(&path), training(&path)]).flatten().collect()
}

fn forward(path: &str) -> Option<Example> {
    let module = load(path, 1);
    module.graph("predict")?;
    Some(example(path, 1, module, &["predict".into()], Options::default()))
}

fn training(path: &str) -> Option<Example> {
    let recipe = load(path, 1).recipe?;
    let steps = TrainGraphs::of(&recipe).steps;
    let batch = FitOptions::from_recipe(&recipe).unwrap().batch;
    Some(example(path, batch, load(path, batch), &steps, Options::default().for_training()))
}

fn load(path: &str, batch: usize) -> Module {
    let bindings = Bindings::from([("batch".into(), batch), ("tokens".into(), TOKENS)]);
    let module = script::load(path, &read(path), &bindings).unwrap_or_else(|found| panic!("{path}: {found:?}"));
    module.bind(&bindings).unwrap()
}

fn example(path: &str, batch: usize, mut module: Module, graphs: &[Name], options: Options) -> Example {
    module.keep_graphs(graphs);
    // Portable micro-kernels have the same tiles everywhere.
    let options = Options { level: Level::Portable, ..options };
    let program = compile(&module, &options).unwrap_or_else(|error| panic!("{path}: {error}"));
    let name = path.trim_start_matches("examples/").trim_end_matches(".kiln").to_owned();
    Example { name, batch, module, program }
}

/// What is known about a plan: that none is smaller, whatever the offsets, or that the search ran out of nodes.
fn proof(plan: &Plan) -> &'static str {
    match (plan.peak == plan.lower_bound, plan.proved) {
        (true, _) => "at bound",
        (false, true) => "exhausted",
        (false, false) => "open",
    }
}

/// A share as a percentage.
fn percent(above: u64, below: u64) -> f64 {
    100.0 * (above as f64 / below.max(1) as f64 - 1.0).max(0.0)
}

/// Ops, those of groups included, the groups themselves not.
fn ops(graph: &Graph) -> usize {
    graph.nodes().map(|(_, data)| if data.regions.is_empty() { 1 } else { data.regions.iter().map(ops).sum() }).sum()
}

fn instructions(compiled: &Compiled) -> usize {
    compiled.launches.clone().map(|launch| compiled.code.kernel(launch).instructions).sum()
}

/// `gap`: of the arena above the most live bytes; `order`: of these above what lives at once in every order.
#[test]
fn metrics_of_the_examples() {
    let mut plan = format!(
        "{:<22} {:<10}{:>6}{:>6}{:>7}{:>9}{:>10}{:>12}{:>7}  {:<9}{:>9}{:>13}\n",
        "model", "graph", "batch", "ops", "after", "kernels", "launches", "arena", "gap", "proof", "order", "no reuse"
    );
    let mut code = format!("{:<22} {:<10}{:>14}\n", "model", "graph", "instructions");
    for Example { name, batch, module, program } in examples() {
        for (graph, before) in &module.graphs {
            let (Some(after), Some(compiled)) = (program.module.graph(graph), program.graphs.get(graph)) else {
                continue;
            };
            let memory = &compiled.placement.plan;
            let any_order = compiled.placement.any_order;
            assert!(any_order <= memory.lower_bound, "{name} @{graph}: {any_order} is no bound");
            assert!(proof(memory) != "open", "{name} @{graph}: {} of {}", memory.peak, memory.lower_bound);
            let (kernels, launches) = (compiled.schedule.kernels.len(), compiled.launches.len());
            let _ = write!(plan, "{name:<22} @{graph:<9}{batch:>6}{:>6}{:>7}", ops(before), ops(after));
            let _ = write!(plan, "{kernels:>9}{launches:>10}{:>12}", memory.peak);
            let _ = write!(plan, "{:>5.2} %  {:<9}", percent(memory.peak, memory.lower_bound), proof(memory));
            let _ = writeln!(plan, "{:>7.2} %{:>13}", percent(memory.lower_bound, any_order), memory.naive);
            let _ = writeln!(code, "{name:<22} @{graph:<9}{:>14}", instructions(compiled));
        }
    }
    snapshots::check("", "metrics", &plan);
    if Target::host().is_ok_and(|target| target.name() == TARGET) {
        snapshots::check("", "metrics_code", &code);
    }
}
