//! Replay of a step whose loss is not finite, in the reference evaluator: which op went wrong first?

use std::collections::BTreeMap;

use kiln::Options;
use kiln::pass::Remarks;
use kiln::pipeline::Pipeline;
use kiln_ir::graph::{Graph, NodeData, Provenance};
use kiln_ir::reference::{Array, Evaluator, States};
use kiln_ir::scalar::Number;
use kiln_ir::{Diagnostic, Module, Name};
use kiln_rt::data::Dataset;
use kiln_rt::data::convert::{decode, decode_integer};
use kiln_rt::{Session, Tensor};

/// What went wrong first.
#[derive(Debug)]
pub(crate) struct Fault {
    what: String,
    provenance: Provenance,
}

impl Fault {
    /// The finding: `error` is what training stopped with.
    pub(crate) fn at_step(&self, error: &str, step: u64) -> Diagnostic {
        let found = Diagnostic::error("train.finite", error).at(self.provenance.source.clone());
        let found = found.note(format!("replay of step {step}: {}", self.what));
        match &self.provenance.derived {
            Some(derived) => found.note(format!("derived by `{derived}`")),
            None => found,
        }
    }
}

/// Passes that the meaning of a step needs; none that optimises.
const PASSES: &str = "specialize,autodiff,optimizer";

/// The first value of the step graphs of `module` that is not finite, on the examples `indices` and with the session's
/// states; `None` if all are.
pub(crate) fn first_fault(
    mut module: Module,
    session: &Session,
    data: &Dataset,
    indices: &[usize],
) -> Result<Option<Fault>, String> {
    let pipeline = Pipeline::parse(PASSES, &Options::default())?;
    let ran = pipeline.run(&mut module, &mut Remarks::default(), false, &mut |_| {});
    ran.map_err(|found| found.into_iter().map(|d| d.message).collect::<Vec<_>>().join("; "))?;
    // A step reads what those before it have written.
    let mut written: BTreeMap<Name, Array> = BTreeMap::new();
    for graph in module.graphs.values() {
        let states = |name: &str| written.get(name).cloned().or_else(|| session.states().get(name).and_then(array));
        match replay(graph, &states, data, indices)? {
            Replayed::Fault(fault) => return Ok(Some(fault)),
            Replayed::Updates(updates) => written.extend(updates),
        }
    }
    Ok(None)
}

/// What came of one graph.
enum Replayed {
    Fault(Fault),
    Updates(Vec<(Name, Array)>),
}

fn replay(graph: &Graph, states: States<'_>, data: &Dataset, indices: &[usize]) -> Result<Replayed, String> {
    let mut inputs = Vec::new();
    for param in graph.params() {
        let name = graph.value_name(param.value);
        let mut tensor = Tensor::zeros(graph.ty(param.value).clone()).map_err(|error| error.to_string())?;
        data.fill(name, indices, &mut tensor).map_err(|error| error.to_string())?;
        let array = array(&tensor).ok_or("a tensor without elements")?;
        if let Some(position) = not_finite(&array) {
            let example = indices.get(position / (tensor.len() / indices.len().max(1)).max(1)).copied();
            let example = example.map(|example| format!(", example {example} of {}", data.file())).unwrap_or_default();
            let what = format!("the input %{name} is not finite at position {position}{example}");
            return Ok(Replayed::Fault(Fault { what, provenance: Provenance::default() }));
        }
        inputs.push(array);
    }
    let mut first: Option<Fault> = None;
    let mut observe = |node, results: &[Array]| {
        if first.is_none() {
            first = fault(graph, graph.node(node), results);
        }
    };
    let outcome = Evaluator::native().evaluate_observed(graph, &inputs, states, &mut observe);
    match (first, outcome) {
        (Some(fault), _) => Ok(Replayed::Fault(fault)),
        (None, Ok(outcome)) => Ok(Replayed::Updates(outcome.updates)),
        (None, Err(error)) => Err(error.to_string()),
    }
}

/// The fault of a node that computes, or reads from a state, something that is not finite. Constants may be infinite.
fn fault(graph: &Graph, data: &NodeData, results: &[Array]) -> Option<Fault> {
    let state = matches!(data.op, kiln_ir::Op::State(_));
    if data.operands.is_empty() && !state {
        return None;
    }
    let (value, array, position) =
        data.results.iter().zip(results).find_map(|(&value, array)| Some((value, array, not_finite(array)?)))?;
    let number = array.at(position).map_or(f64::NAN, Number::to_f64);
    let name = graph.value_name(value);
    let what = match graph.read_state_name(value) {
        Some(state) => format!("the state @{state} is {number} at position {position} before the step"),
        None => {
            let mnemonic = data.op.mnemonic();
            format!("%{name} = `{mnemonic}` is the first result that is not finite: {number} at position {position}")
        }
    };
    Some(Fault { what, provenance: data.provenance.clone() })
}

fn not_finite(array: &Array) -> Option<usize> {
    let finite = array.is_finite();
    (!finite).then(|| (0..array.ty.elements()).find(|&i| array.at(i).is_some_and(|n| !n.to_f64().is_finite())))?
}

/// Elements of a tensor.
fn array(tensor: &Tensor) -> Option<Array> {
    let (dtype, size) = (tensor.dtype(), tensor.dtype().bytes());
    Array::from_numbers(tensor.ty().clone(), |position| {
        let bytes = tensor.bytes().get(position * size..(position + 1) * size)?;
        match decode_integer(dtype, bytes) {
            Some(integer) => Some(Number::Int(integer)),
            None => decode(dtype, bytes).map(Number::Float),
        }
    })
}
