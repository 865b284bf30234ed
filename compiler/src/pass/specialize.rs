//! Pass `specialize`: resolves what differs between training and inference.
//!
//! The author writes `batch_norm` and `dropout` once. A graph that differentiates or updates a parameter trains, every
//! other one infers, unless the pipeline says otherwise.
//!
//! ```text
//! graph @f(%x: f32[8, 4], %counter: i64[]) {
//!   %y: f32[8, 4] = dropout %x, %counter {rate = 0.5, stream = "dropout1"}
//!   %z: f32[8, 4] = relu %y
//!   return %z
//! }
//! ```
//! becomes, in inference,
//! ```text
//! graph @f(%x: f32[8, 4], %counter: i64[]) {
//!   %z: f32[8, 4] = relu %x
//!   return %z
//! }
//! ```

use kiln_ir::graph::{Graph, NodeData, ValueMap};
use kiln_ir::op::{self, Op};
use kiln_ir::{Diagnostic, Module};

use super::{Changed, Pass, Remarks, each_graph};

/// The pass.
#[derive(Debug)]
pub struct Specialize {
    /// Forced mode; `None` looks at each graph.
    pub mode: Option<Mode>,
}

/// What a graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch, random masks.
    Training,
    /// Running statistics, no randomness.
    Inference,
}

impl Pass for Specialize {
    fn name(&self) -> &'static str {
        "specialize"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, remarks, |graph, remarks| {
            Ok(specialize(graph, self.mode.unwrap_or_else(|| mode_of(graph)), remarks))
        })
    }

    /// It decides what a normalisation and a dropout mean.
    fn keeps_results(&self) -> bool {
        false
    }
}

/// A graph trains if it differentiates or writes states.
pub fn mode_of(graph: &Graph) -> Mode {
    let differentiates = graph.nodes().any(|(_, data)| matches!(data.op, Op::GradientOf(_)));
    if differentiates || !graph.updates().is_empty() { Mode::Training } else { Mode::Inference }
}

fn specialize(graph: &Graph, mode: Mode, remarks: &mut Remarks) -> Option<Graph> {
    let undecided = |data: &NodeData| match &data.op {
        Op::BatchNorm(_) => true,
        Op::Dropout(_) => mode == Mode::Inference,
        _ => false,
    };
    let decided = graph.nodes().filter(|(_, data)| undecided(data)).count();
    if decided == 0 {
        return None;
    }
    remarks.rewrote(decided);
    let mut next = graph.successor();
    let mut map = ValueMap::params(graph);
    for (_, data) in graph.nodes() {
        match (&data.op, mode) {
            (Op::Dropout(_), Mode::Inference) => map.set(data.results[0], map.get(data.operands[0])),
            (Op::BatchNorm(norm), Mode::Training) => {
                let op = op::BatchNormTraining { epsilon: norm.epsilon, momentum: norm.momentum };
                let copy = NodeData { op: op.into(), ..data.clone() };
                next.push_copy(graph, &copy, &mut map);
            }
            (Op::BatchNorm(norm), Mode::Inference) => {
                let op = op::BatchNormInference { epsilon: norm.epsilon };
                let results = data.results[..1].into();
                let copy = NodeData { op: op.into(), results, ..data.clone() };
                next.push_copy(graph, &copy, &mut map);
                map.set(data.results[1], map.get(data.operands[3]));
                map.set(data.results[2], map.get(data.operands[4]));
            }
            _ => {
                next.push_copy(graph, data, &mut map);
            }
        }
    }
    next.finish_copy(graph, &map);
    Some(next)
}
