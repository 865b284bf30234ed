//! Why a program became what it is, as text: fusion verdicts, kernels with their micro-kernels, memory, provenance.

use std::fmt::Write as _;

use kiln_ir::graph::{Def, Graph, NodeData, Provenance, Value};
use kiln_ir::types::Name;

use crate::compile::{Compiled, Program};
use crate::lower::Lowered;
use crate::memory::{Plan, Problem};
use crate::placement::{Home, Placement};

/// Everything about every graph of a program.
pub fn program(program: &Program) -> String {
    let mut text = String::new();
    for (name, compiled) in &program.graphs {
        let Some(graph) = program.module.graph(name) else { continue };
        // Writing to a String cannot fail; the same holds for every `let _` below.
        let _ = writeln!(text, "@{name}: {} kernels, {} launches\n", compiled.lowered.len(), compiled.launches.len());
        text.push_str(&kernels(graph, compiled));
        text.push_str(&verdicts(program, name));
        let _ = writeln!(text, "{}", memory(&compiled.placement));
    }
    text
}

/// Everything about the values of one name: in each graph that has it, who makes and reads it, which kernel it is in,
/// where it lies, where it comes from and what the passes said about it. `None` if no graph has it.
pub fn value(program: &Program, name: &str) -> Option<String> {
    let mut text = String::new();
    for (graph_name, compiled) in &program.graphs {
        let Some(graph) = program.module.graph(graph_name) else { continue };
        for place in find(graph, name) {
            let _ = writeln!(text, "%{name} in @{graph_name}");
            text.push_str(&describe(graph, compiled, &place));
        }
    }
    let remarks = program.remarks.list().iter().filter(|remark| &*remark.value == name);
    for remark in remarks {
        let _ = writeln!(text, "  {remark}");
    }
    (!text.is_empty()).then_some(text)
}

/// The memory plan of a graph.
pub fn memory(placement: &Placement) -> String {
    memory_plan(&placement.problem, &placement.plan)
}

/// Certificate of a plan, and memory over time.
pub fn memory_plan(problem: &Problem, plan: &Plan) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "memory plan: {} buffers\n  lower bound {:>12} bytes\n  plan        {:>12} bytes  {}\n  gap         {:>12.2} %\n  \
         naive total {:>12} bytes",
        problem.buffers().len(),
        plan.lower_bound,
        plan.peak,
        plan.solver,
        100.0 * plan.gap(),
        plan.naive
    );
    text
}

/// The kernels in order, with what computes them.
fn kernels(graph: &Graph, compiled: &Compiled) -> String {
    let mut text = "kernels\n".to_owned();
    for (step, (scheduled, lowered)) in compiled.schedule.kernels.iter().zip(&compiled.lowered).enumerate() {
        let data = graph.node(scheduled.node);
        let results: Vec<String> =
            scheduled.results.iter().map(|&v| format!("%{}: {}", graph.value_name(v), graph.ty(v))).collect();
        let _ = writeln!(text, "  {step:>3} {} = {}{}", results.join(", "), ops(data), at(&data.provenance));
        let _ = writeln!(text, "      {} operations; {}", lowered.flops, code(lowered));
    }
    text.push('\n');
    text
}

/// Mnemonic of a node, with its members if it is a group.
fn ops(data: &NodeData) -> String {
    let members: Vec<&str> = data.regions.iter().flat_map(Graph::nodes).map(|(_, d)| d.op.mnemonic()).collect();
    match members.as_slice() {
        [] => data.op.mnemonic().to_owned(),
        members => format!("{}({})", data.op.mnemonic(), members.join(" ")),
    }
}

/// What runs a kernel.
fn code(lowered: &Lowered) -> String {
    if lowered.contractions.is_empty() {
        return "loops of its own".to_owned();
    }
    let plans: Vec<String> = lowered
        .contractions
        .iter()
        .map(|plan| {
            let t = plan.tiling();
            let (left, right) = plan.packing();
            format!(
                "micro-kernel {}, block {} x {}, macro tile {} x {}, k block {}, tiles {} x {} x {} splits; packs {left} \
                 and {right}",
                plan.kernel(),
                t.mr,
                t.nr,
                t.mc,
                t.nc,
                t.kc,
                t.m_tiles,
                t.n_tiles,
                t.k_splits
            )
        })
        .collect();
    plans.join("\n      ")
}

fn at(provenance: &Provenance) -> String {
    match provenance.to_string() {
        place if place.is_empty() => place,
        place => format!("  {place}"),
    }
}

/// What the passes said about a graph.
fn verdicts(program: &Program, graph: &Name) -> String {
    let mut text = "verdicts\n".to_owned();
    for remark in program.remarks.list().iter().filter(|remark| remark.graph == *graph) {
        let _ = writeln!(text, "  {} %{} [{}] {}", remark.pass, remark.value, remark.code, remark.message);
    }
    text.push('\n');
    text
}

/// A value of a graph, or of the region of one of its nodes.
struct Place<'a> {
    graph: &'a Graph,
    value: Value,
    /// Results of the node whose region it is in.
    around: Option<&'a NodeData>,
}

fn find<'a>(graph: &'a Graph, name: &str) -> Vec<Place<'a>> {
    let named = |graph: &'a Graph| graph.values().find(|&value| &**graph.value_name(value) == name);
    let mut places: Vec<Place<'_>> = Vec::new();
    places.extend(named(graph).map(|value| Place { graph, value, around: None }));
    for (_, data) in graph.nodes() {
        for region in &data.regions {
            let own = |value: &Value| matches!(region.value(*value).def, Def::Result(..));
            let found = named(region).filter(own);
            places.extend(found.map(|value| Place { graph: region, value, around: Some(data) }));
        }
    }
    places
}

fn describe(graph: &Graph, compiled: &Compiled, place: &Place<'_>) -> String {
    let Place { graph: inner, value, around } = place;
    let mut text = String::new();
    let _ = writeln!(text, "  type: {}", inner.ty(*value));
    let origin = match inner.producer(*value) {
        Some((_, data)) => {
            let operands: Vec<String> = data.operands.iter().map(|&v| format!("%{}", inner.value_name(v))).collect();
            format!("made by: {} {}{}", ops(data), operands.join(", "), at(&data.provenance))
        }
        None => "made by: nobody, it is an input".to_owned(),
    };
    let _ = writeln!(text, "  {origin}");
    let users = inner.users();
    let readers: Vec<String> = users[value.index()].iter().map(|&user| reader(inner, inner.node(user))).collect();
    let _ = writeln!(text, "  read by: {}", if readers.is_empty() { "no op".to_owned() } else { readers.join(", ") });
    match around {
        Some(data) => {
            let _ = writeln!(text, "  in the kernel of {}: it needs no memory of its own", results(graph, data));
        }
        None => {
            let _ = writeln!(text, "  lies in: {}", home(compiled, *value));
        }
    }
    text
}

fn reader(graph: &Graph, data: &NodeData) -> String {
    format!("{} ({})", results(graph, data), data.op.mnemonic())
}

fn results(graph: &Graph, data: &NodeData) -> String {
    data.results.iter().map(|&v| format!("%{}", graph.value_name(v))).collect::<Vec<_>>().join(", ")
}

fn home(compiled: &Compiled, value: Value) -> String {
    let placement = &compiled.placement;
    match placement.home(value) {
        Home::Input(number) => format!("input {number}"),
        Home::Output(number) => format!("output {number}"),
        Home::State(name) => format!("state @{name}"),
        Home::Constant(_) => "the table of constants".to_owned(),
        Home::Buffer(buffer) => {
            let b = &placement.problem.buffers()[*buffer];
            let offset = placement.plan.offsets[*buffer];
            let shared = b.alias_of.map(|of| format!(", in place of %{}", placement.problem.buffers()[of].id));
            let shared = shared.unwrap_or_default();
            format!("arena, bytes {offset}..{}, steps {}..{}{shared}", offset + b.size, b.lower, b.upper)
        }
    }
}
