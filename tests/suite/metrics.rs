//! What the compiler makes of the example models, in numbers that do not depend on the machine: the worth of a pass is
//! a diff of this snapshot.

use std::fmt::Write;

use kiln::codegen::Target;
use kiln::{Compiled, Options, Program, compile};
use kiln_ir::graph::Graph;
use kiln_ir::types::Bindings;
use kiln_ir::{Module, script};
use kiln_rt::kernels::Level;
use kiln_tests::fixtures::{files, read};
use kiln_tests::snapshots;

/// Extents of `batch` and `tokens` in all numbers.
const BATCH: usize = 32;
const TOKENS: usize = 128;
/// The second step is that of a script with two optimizers.
const GRAPHS: [&str; 3] = ["predict", "step0", "step1"];
/// Cranelift's instructions depend on whether the processor multiplies and adds in one; code bytes on more than that,
/// so they are in no snapshot.
const TARGET: &str = "x86_64-unknown-linux-gnu+fma";

/// A compiled example.
struct Example {
    name: String,
    module: Module,
    program: Program,
}

fn examples() -> Vec<Example> {
    files("examples", "kiln").into_iter().map(|path| example(&path)).collect()
}

fn example(path: &str) -> Example {
    let bindings = Bindings::from([("batch".into(), BATCH), ("tokens".into(), TOKENS)]);
    let module = script::load(path, &read(path), &bindings).unwrap_or_else(|found| panic!("{path}: {found:?}"));
    let module = module.bind(&bindings).unwrap();
    // Portable micro-kernels have the same tiles everywhere.
    let options = Options { level: Level::Portable, ..Options::default() };
    let program = compile(&module, &options).unwrap_or_else(|error| panic!("{path}: {error}"));
    let name = path.trim_start_matches("examples/").trim_end_matches(".kiln").to_owned();
    Example { name, module, program }
}

/// Ops, those of groups included, the groups themselves not.
fn ops(graph: &Graph) -> usize {
    graph.nodes().map(|(_, data)| if data.regions.is_empty() { 1 } else { data.regions.iter().map(ops).sum() }).sum()
}

fn instructions(compiled: &Compiled) -> usize {
    compiled.launches.clone().map(|launch| compiled.code.kernel(launch).instructions).sum()
}

#[test]
fn metrics_of_the_examples() {
    let mut plan = format!(
        "{:<18} {:<10}{:>6}{:>8}{:>9}{:>10}{:>13}{:>13}{:>13}\n",
        "model", "graph", "ops", "after", "kernels", "launches", "arena", "lower bound", "no reuse"
    );
    let mut code = format!("{:<18} {:<10}{:>14}\n", "model", "graph", "instructions");
    for Example { name, module, program } in examples() {
        for graph in GRAPHS {
            let (Some(before), Some(after)) = (module.graph(graph), program.module.graph(graph)) else { continue };
            let compiled = &program.graphs[graph];
            let memory = &compiled.placement.plan;
            let (kernels, launches) = (compiled.schedule.kernels.len(), compiled.launches.len());
            let _ = write!(plan, "{name:<18} @{graph:<9}{:>6}{:>8}{kernels:>9}{launches:>10}", ops(before), ops(after));
            let _ = writeln!(plan, "{:>13}{:>13}{:>13}", memory.peak, memory.lower_bound, memory.naive);
            let _ = writeln!(code, "{name:<18} @{graph:<9}{:>14}", instructions(compiled));
        }
    }
    snapshots::check("", "metrics", &plan);
    if Target::host().is_ok_and(|target| target.name() == TARGET) {
        snapshots::check("", "metrics_code", &code);
    }
}
