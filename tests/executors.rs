//! Executors: everything that can run a graph, behind one function.

use std::sync::Arc;

use kiln::pass::hoist::PREPARE;
use kiln::pass::specialize::Mode;
use kiln::{Options, Program};
use kiln_ir::graph::Graph;
use kiln_ir::reference::{Array, Evaluator};
use kiln_ir::scalar::Number;
use kiln_ir::types::{DType, Name, TensorType};
use kiln_ir::{Diagnostic, Module};
use kiln_rt::Tensor;
use kiln_rt::data::convert;
use kiln_rt::kernels::{Level, detect};
use kiln_rt::session::Session;

/// Passes without which a program cannot be compiled.
const NECESSARY: &str = "specialize,autodiff,optimizer,decompose,eliminate_dead";

/// Something that runs a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// Reference evaluator in the program's types.
    Reference,
    /// Reference evaluator in binary64.
    Truth,
    /// Compiled without groups: one kernel per op.
    Plain(Level, usize),
    /// Compiled with the standard pipeline.
    Optimized(Level, usize),
}

/// Values by name.
pub type Named = Vec<(Name, Array)>;

/// What a graph yields.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Results in order.
    pub returns: Vec<Array>,
    /// Updated states after the run, in the order of the graph's updates.
    pub updates: Named,
}

impl Executor {
    /// Every compiled executor that this machine has.
    pub fn compiled() -> Vec<Executor> {
        let mut all = vec![Executor::Plain(Level::None, 1)];
        all.extend(levels().into_iter().map(|level| Executor::Optimized(level, 1)));
        all.push(Executor::Optimized(detect(), 3));
        all
    }

    /// Results of a graph without states.
    ///
    /// # Errors
    /// The message of whatever failed.
    pub fn run(self, graph: &Graph, inputs: &[Array]) -> Result<Vec<Array>, String> {
        let mut module = Module::default();
        module.add_graph(graph.clone());
        Ok(self.run_module(&module, graph.name(), inputs, &[])?.returns)
    }

    /// Results and updates of one graph of a module; normalisations and dropout train.
    ///
    /// # Errors
    /// The message of whatever failed.
    pub fn run_module(
        self,
        module: &Module,
        graph: &str,
        inputs: &[Array],
        states: &[(Name, Array)],
    ) -> Result<Outcome, String> {
        match self {
            Executor::Reference => evaluate(Evaluator::native(), module, graph, inputs, states),
            Executor::Truth => evaluate(Evaluator::wide(), module, graph, inputs, states),
            _ => run_program(&self.compile(module)?, self.threads(), graph, inputs, states),
        }
    }

    /// The program that a compiled executor runs.
    ///
    /// # Errors
    /// The compiler's; executors that do not compile have no program.
    pub fn compile(self, module: &Module) -> Result<Program, String> {
        let (level, passes) = match self {
            Executor::Plain(level, _) => (level, Some(NECESSARY.to_owned())),
            Executor::Optimized(level, _) => (level, None),
            Executor::Reference | Executor::Truth => return Err(format!("{self:?} does not compile")),
        };
        let options = Options { level, passes, mode: Some(Mode::Training), verify_each: true, ..Options::default() };
        kiln::compile(module, &options).map_err(|error| format!("{error}: {error:?}"))
    }

    /// Number of workers.
    pub fn threads(self) -> usize {
        match self {
            Executor::Plain(_, threads) | Executor::Optimized(_, threads) => threads,
            Executor::Reference | Executor::Truth => 1,
        }
    }
}

/// Micro-kernel levels that this machine has, none first.
pub fn levels() -> Vec<Level> {
    Level::ALL.into_iter().filter(|level| level.available()).collect()
}

fn evaluate(
    evaluator: Evaluator,
    module: &Module,
    graph: &str,
    inputs: &[Array],
    states: &[(Name, Array)],
) -> Result<Outcome, String> {
    let graph = module.graph(graph).ok_or_else(|| format!("there is no @{graph}"))?;
    let outcome = evaluator.evaluate(graph, inputs, &|name| find(states, name).cloned());
    let outcome = outcome.map_err(|error| error.to_string())?;
    Ok(Outcome { returns: outcome.returns, updates: outcome.updates })
}

fn find<'a>(states: &'a [(Name, Array)], name: &str) -> Option<&'a Array> {
    states.iter().find(|(n, _)| &**n == name).map(|(_, array)| array)
}

/// Runs a graph of a compiled program, after `@prepare`, in a session of its own.
///
/// # Errors
/// The message of whatever failed.
pub fn run_program(
    program: &Program,
    threads: usize,
    graph: &str,
    inputs: &[Array],
    states: &[(Name, Array)],
) -> Result<Outcome, String> {
    let mut session = Session::new(threads).map_err(|error| error.to_string())?;
    for (name, state) in &program.module.states {
        let value = match find(states, name) {
            Some(array) => tensor(array),
            None => Tensor::zeros(state.ty.clone()).map_err(|error| error.to_string())?,
        };
        session.put_state(name.clone(), value).map_err(|error| error.to_string())?;
    }
    if program.graphs.contains_key(PREPARE) {
        run_graph(&mut session, program, PREPARE, &[])?;
    }
    let returns = run_graph(&mut session, program, graph, inputs)?;
    let updated = program.module.graph(graph).map(Graph::updates).unwrap_or_default();
    let value = |name: &Name| session.states().get(name).map(array).ok_or_else(|| format!("@{name} is gone"));
    let updates = updated.iter().map(|u| Ok((u.state.clone(), value(&u.state)?))).collect::<Result<_, String>>()?;
    Ok(Outcome { returns, updates })
}

fn run_graph(session: &mut Session, program: &Program, graph: &str, inputs: &[Array]) -> Result<Vec<Array>, String> {
    let compiled = program.graphs.get(graph).ok_or_else(|| format!("there is no @{graph}"))?;
    let id = session.load(Arc::clone(&compiled.executable)).map_err(|error| error.to_string())?;
    let tensors: Vec<Tensor> = inputs.iter().map(tensor).collect();
    let mut outputs = session.outputs(id).map_err(|error| error.to_string())?;
    // What a kernel forgets to write is no zero by accident.
    outputs.iter_mut().for_each(|output| output.bytes_mut().fill(0xA5));
    let refs: Vec<&Tensor> = tensors.iter().collect();
    session.run(id, &refs, &mut outputs).map_err(|error| error.to_string())?;
    let untouched = tensors.iter().zip(inputs).all(|(after, before)| after.bytes() == tensor(before).bytes());
    if untouched { Ok(outputs.iter().map(array).collect()) } else { Err("an input was written to".to_owned()) }
}

/// The graph with its `gradient` nodes expanded: neither evaluator nor code knows them.
///
/// # Errors
/// Ops without gradient.
pub fn differentiated(graph: &Graph) -> Result<Graph, Vec<Diagnostic>> {
    use kiln::pass::Pass;
    let mut module = Module::default();
    module.add_graph(graph.clone());
    kiln::autodiff::Autodiff.run(&mut module, &mut kiln::pass::Remarks::default())?;
    Ok(module.graphs.swap_remove(graph.name()).unwrap_or_default())
}

/// A tensor of an array's elements.
///
/// # Panics
/// For types without a Rust number, and if memory runs out.
pub fn tensor(array: &Array) -> Tensor {
    let mut bytes = Vec::new();
    for position in 0..array.ty.elements() {
        let number = array.at(position).unwrap_or(Number::Int(0));
        let (float, int) = (number.to_f64(), number.to_i64());
        match array.ty.dtype {
            DType::F32 => bytes.extend((float as f32).to_ne_bytes()),
            DType::F64 => bytes.extend(float.to_ne_bytes()),
            DType::I32 => bytes.extend((int as i32).to_ne_bytes()),
            DType::U32 => bytes.extend((int as u32).to_ne_bytes()),
            DType::I64 => bytes.extend(int.to_ne_bytes()),
            DType::I8 | DType::U8 | DType::Bool => bytes.push(int as u8),
            half => {
                let mut element = [0; 2];
                convert::encode_float(half, float, &mut element);
                bytes.extend(element);
            }
        }
    }
    Tensor::from_bytes(array.ty.clone(), &bytes).unwrap_or_else(|error| panic!("{error}"))
}

/// An array of a tensor's elements.
///
/// # Panics
/// If the tensor is not of its own size.
pub fn array(tensor: &Tensor) -> Array {
    let ty: TensorType = tensor.ty().clone();
    let mut chunks = tensor.bytes().chunks_exact(ty.dtype.bytes());
    let get = |_| {
        let bytes = chunks.next()?;
        match convert::decode_integer(ty.dtype, bytes) {
            Some(int) => Some(Number::Int(int)),
            None => convert::decode(ty.dtype, bytes).map(Number::Float),
        }
    };
    Array::from_numbers(ty.clone(), get).unwrap_or_else(|| panic!("a tensor of {ty}"))
}
