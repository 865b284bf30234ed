//! Why a program became what it is, as text: fusion verdicts, kernels with their micro-kernels, memory, provenance.

use std::fmt::Write as _;

use kiln_ir::graph::{Def, Graph, NodeData, Provenance, Value};
use kiln_ir::types::Name;

use crate::codegen::{LoopWidth, Width};
use crate::compile::{Compiled, Program};
use crate::lower::Lowered;
use crate::memory::{Plan, Problem, chart};
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
    format!("{}{}", order(placement), memory_plan(&placement.problem, &placement.plan))
}

/// What the order of the kernels needs, beside what any other would.
fn order(placement: &Placement) -> String {
    let (here, any) = (placement.plan.lower_bound, placement.any_order);
    let standing = match here <= any {
        true => "no order needs less".to_owned(),
        false => format!("no order needs less than {any}"),
    };
    format!("order of {} kernels: at most {here} bytes are live, {standing}\n", placement.workspaces.len())
}

/// Certificate of a plan, and memory over time.
pub fn memory_plan(problem: &Problem, plan: &Plan) -> String {
    format!("{}\n{}", chart::certificate(problem, plan), chart::text(problem, plan))
}

/// The kernels in order, with what computes them.
fn kernels(graph: &Graph, compiled: &Compiled) -> String {
    let mut text = "kernels\n".to_owned();
    let mut launches = compiled.launches.clone();
    for (step, (scheduled, lowered)) in compiled.schedule.kernels.iter().zip(&compiled.lowered).enumerate() {
        let data = graph.node(scheduled.node);
        let results: Vec<String> =
            scheduled.results.iter().map(|&v| format!("%{}: {}", graph.value_name(v), graph.ty(v))).collect();
        let _ = writeln!(text, "  {step:>3} {} = {}{}", results.join(", "), ops(data), at(&data.provenance));
        let _ = writeln!(text, "      {} operations; {}", lowered.flops, code(lowered));
        for launch in launches.by_ref().take(lowered.launches.len()) {
            compiled.code.kernel(launch).loops.iter().for_each(|one| text.push_str(&width(one)));
        }
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

/// What runs a kernel, and what was measured about that.
fn code(lowered: &Lowered) -> String {
    let tuned = lowered.decision.as_ref().and_then(|decision| Some((decision.choice, decision.tuned?)));
    let tuned = tuned.map(|(choice, measured)| format!("\n      tuned: {choice}; {measured}")).unwrap_or_default();
    format!("{}{tuned}", runs(lowered))
}

fn runs(lowered: &Lowered) -> String {
    if let Some(plan) = &lowered.window {
        let (planes, tiles) = (plan.planes_per_tile(), plan.tiles());
        return format!("micro-kernel {}, {planes} planes a tile, {tiles} tiles", plan.kernel());
    }
    if lowered.contractions.is_empty() {
        return "loops of its own".to_owned();
    }
    let plans: Vec<String> = lowered.contractions.iter().map(|plan| plan.describe()).collect();
    plans.join("\n      ")
}

/// How a loop runs that may run in lanes.
fn width(one: &LoopWidth) -> String {
    let variable = &one.variable;
    match one.width {
        Width::Wide { vectors } => format!("      loop {variable}: 16 lanes, {vectors} vectors a round\n"),
        Width::Narrow { reason } => format!("      loop {variable}: at most 4 lanes, {reason}\n"),
    }
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
    /// Where the op that makes it is.
    graph: &'a Graph,
    value: Value,
    /// The group that the op is in, if it is in one.
    around: Option<&'a NodeData>,
    /// The value in the graph itself, if it leaves its kernel.
    outside: Option<Value>,
}

fn find<'a>(graph: &'a Graph, name: &str) -> Vec<Place<'a>> {
    let named = |graph: &'a Graph| graph.values().find(|&value| &**graph.value_name(value) == name);
    let outside = named(graph);
    let mut places: Vec<Place<'_>> = Vec::new();
    for (_, data) in graph.nodes() {
        let leaves = outside.filter(|value| data.results.contains(value));
        for region in &data.regions {
            let own = |value: &Value| matches!(region.value(*value).def, Def::Result(..));
            let found = named(region).filter(own);
            places.extend(found.map(|value| Place { graph: region, value, around: Some(data), outside: leaves }));
        }
    }
    if let Some(value) = outside.filter(|_| places.iter().all(|place| place.outside.is_none())) {
        places.insert(0, Place { graph, value, around: None, outside });
    }
    places
}

fn describe(graph: &Graph, compiled: &Compiled, place: &Place<'_>) -> String {
    let Place { graph: inner, value, around, outside } = place;
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
    let mut readers = readers(inner, *value);
    readers.extend(outside.filter(|_| around.is_some()).into_iter().flat_map(|value| self::readers(graph, value)));
    let _ = writeln!(text, "  read by: {}", if readers.is_empty() { "no op".to_owned() } else { readers.join(", ") });
    if let Some(data) = around {
        let _ = writeln!(text, "  kernel: {} = {}", results(graph, data), ops(data));
    }
    let _ = match outside {
        Some(value) => writeln!(text, "  lies in: {}", home(compiled, *value)),
        None => writeln!(text, "  lies in: registers, it never leaves its kernel"),
    };
    text
}

fn readers(graph: &Graph, value: Value) -> Vec<String> {
    let reader = |data: &NodeData| format!("{} ({})", results(graph, data), data.op.mnemonic());
    graph.users()[value.index()].iter().map(|&user| reader(graph.node(user))).collect()
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
            let shared = b.alias_of.map(|of| {
                let other = &placement.problem.buffers()[of];
                let how = if other.size == b.size { "in place of" } else { "inside" };
                format!(", {how} %{}", other.id)
            });
            let shared = shared.unwrap_or_default();
            format!("arena, bytes {offset}..{}, steps {}..{}{shared}", offset + b.size, b.lower, b.upper)
        }
    }
}
