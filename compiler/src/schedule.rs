//! The order of kernels: what runs, one after the other, and what each reads and writes.
//!
//! `fuse` has formed the kernels; the schedule only lists them. States, tables of constants and reshapes are no
//! kernels: they are names for memory that exists.

mod views;

use std::collections::HashMap;
use std::fmt;

use kiln_ir::attribute::Literal;
use kiln_ir::graph::{Def, Graph, Node, Value};
use kiln_ir::op::Op;
use kiln_ir::types::Name;
use smallvec::SmallVec;

use crate::loops::build::kernel_operands;

pub use views::without_moves;

/// Kernels of one graph in order.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Name of the graph.
    pub name: Name,
    /// Kernels in order.
    pub kernels: Vec<Scheduled>,
    /// Where the memory of every value comes from, by [`Value::index`].
    pub origins: Vec<Origin>,
    /// Values that are some of their origin's bytes, with the first one of these.
    pub views: HashMap<Value, usize>,
    /// Values that no kernel writes: they are what others are together.
    pub joins: Vec<Join>,
    text: String,
}

/// A value whose parts are computed where they lie in it.
#[derive(Clone, Debug)]
pub struct Join {
    /// The value.
    pub value: Value,
    /// Results of kernels, with their first bytes in the value.
    pub parts: Vec<(Value, usize)>,
}

/// One kernel.
#[derive(Clone, Debug)]
pub struct Scheduled {
    /// The node, `fused` or a single op.
    pub node: Node,
    /// Values read, in the order of the region's parameters.
    pub operands: SmallVec<[Value; 4]>,
    /// Values defined, without those that nobody reads.
    pub results: SmallVec<[Value; 3]>,
}

/// The memory behind a value: views share their operand's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Parameter of the graph.
    Input(usize),
    /// Value of a state at the start of the run.
    State(Name),
    /// Table of constants, defined by this value.
    Constant(Value),
    /// Result of a kernel, this value.
    Computed(Value),
}

/// Lists the kernels of a graph in program order.
pub fn schedule(graph: &Graph) -> Schedule {
    let mut origins: Vec<Origin> = Vec::with_capacity(graph.value_count());
    let mut kernels = Vec::new();
    for value in graph.values() {
        let origin = match graph.value(value).def {
            Def::Param(number) => Origin::Input(number),
            Def::Result(node, _) => {
                let data = graph.node(node);
                match &data.op {
                    Op::State(state) => Origin::State(state.name.clone()),
                    Op::Const(constant) if matches!(constant.value, Literal::Dense(_)) => Origin::Constant(value),
                    Op::Reshape(_) | Op::Relayout(_) => origins[data.operands[0].index()].clone(),
                    _ => Origin::Computed(value),
                }
            }
        };
        origins.push(origin);
    }
    let mut read = vec![false; graph.value_count()];
    graph.roots().for_each(|v| read[v.index()] = true);
    graph.nodes().flat_map(|(_, data)| &data.operands).for_each(|v| read[v.index()] = true);
    for (node, data) in graph.nodes() {
        let computes = data.results.iter().any(|v| origins[v.index()] == Origin::Computed(*v));
        if computes {
            let mut results = data.results.clone();
            results.retain(|v| read[v.index()]);
            // A node that nobody reads is still a kernel, if no pass has removed it.
            let results = if results.is_empty() { data.results.clone() } else { results };
            kernels.push(Scheduled { node, operands: kernel_operands(data), results });
        }
    }
    let text = render(graph, &kernels);
    Schedule { name: graph.name().into(), kernels, origins, views: HashMap::new(), joins: Vec::new(), text }
}

impl Schedule {
    /// The same kernels in another order, by their places in this one.
    pub fn reordered(&self, graph: &Graph, order: &[usize]) -> Schedule {
        let kernels: Vec<Scheduled> = order.iter().map(|&step| self.kernels[step].clone()).collect();
        let text = render(graph, &kernels);
        Schedule { kernels, text, ..self.clone() }
    }
}

fn render(graph: &Graph, kernels: &[Scheduled]) -> String {
    let mut text = format!("schedule @{} {{\n", graph.name());
    let name = |v: &Value| format!("%{}: {}", graph.value_name(*v), graph.ty(*v));
    for (step, kernel) in kernels.iter().enumerate() {
        let data = graph.node(kernel.node);
        let results: Vec<String> = kernel.results.iter().map(name).collect();
        let operands: Vec<String> = kernel.operands.iter().map(|v| format!("%{}", graph.value_name(*v))).collect();
        let what = match data.regions.as_slice() {
            [region] => {
                let members: Vec<&str> = region.nodes().map(|(_, d)| d.op.mnemonic()).collect();
                format!("fused({})", members.join(" "))
            }
            _ => data.op.mnemonic().to_owned(),
        };
        text.push_str(&format!("  {step}: {} = {what} {}\n", results.join(", "), operands.join(", ")));
    }
    text.push_str("}\n");
    text
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
