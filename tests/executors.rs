//! Executors: everything that can run a graph, behind one function.

use std::sync::Arc;

use kiln::Options;
use kiln_ir::Module;
use kiln_ir::graph::Graph;
use kiln_ir::reference::{Array, Evaluator};
use kiln_ir::scalar::Number;
use kiln_ir::types::DType;
use kiln_rt::Tensor;
use kiln_rt::data::convert;
use kiln_rt::kernels::Level;
use kiln_rt::session::Session;

/// Something that runs a graph without states.
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

impl Executor {
    /// Every compiled executor that this machine has.
    pub fn compiled() -> Vec<Executor> {
        let mut all = vec![Executor::Plain(Level::None, 1)];
        for level in Level::ALL.into_iter().filter(|level| level.available()) {
            all.push(Executor::Optimized(level, 1));
        }
        all.push(Executor::Optimized(kiln_rt::kernels::detect(), 3));
        all
    }

    /// Results of a graph.
    ///
    /// # Errors
    /// The message of whatever failed.
    pub fn run(self, graph: &Graph, inputs: &[Array]) -> Result<Vec<Array>, String> {
        match self {
            Executor::Reference => reference(Evaluator::native(), graph, inputs),
            Executor::Truth => reference(Evaluator::wide(), graph, inputs),
            Executor::Plain(level, threads) => {
                let passes = Some("specialize,autodiff,optimizer,decompose,eliminate_dead".to_owned());
                compiled(graph, inputs, &Options { level, passes, ..Options::default() }, threads)
            }
            Executor::Optimized(level, threads) => {
                compiled(graph, inputs, &Options { level, ..Options::default() }, threads)
            }
        }
    }
}

fn reference(evaluator: Evaluator, graph: &Graph, inputs: &[Array]) -> Result<Vec<Array>, String> {
    evaluator.evaluate(graph, inputs, &|_| None).map(|outcome| outcome.returns).map_err(|error| error.to_string())
}

fn compiled(graph: &Graph, inputs: &[Array], options: &Options, threads: usize) -> Result<Vec<Array>, String> {
    let mut module = Module::default();
    module.add_graph(graph.clone());
    let program = kiln::compile(&module, options).map_err(|error| format!("{error}: {error:?}"))?;
    let compiled = program.graphs.values().next().ok_or("no graph")?;
    let mut session = Session::new(threads).map_err(|error| error.to_string())?;
    let id = session.load(Arc::clone(&compiled.executable)).map_err(|error| error.to_string())?;
    let tensors: Vec<Tensor> = inputs.iter().map(tensor).collect();
    let mut outputs = session.outputs(id).map_err(|error| error.to_string())?;
    let refs: Vec<&Tensor> = tensors.iter().collect();
    session.run(id, &refs, &mut outputs).map_err(|error| error.to_string())?;
    Ok(outputs.iter().map(array).collect())
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
            other => panic!("no tensors of {other} in the suites"),
        }
    }
    Tensor::from_bytes(array.ty.clone(), &bytes).unwrap_or_else(|error| panic!("{error}"))
}

/// An array of a tensor's elements.
///
/// # Panics
/// If the tensor is not of its own size.
pub fn array(tensor: &Tensor) -> Array {
    let ty = tensor.ty().clone();
    let mut chunks = tensor.bytes().chunks_exact(ty.dtype.bytes());
    let get = |_| {
        let bytes = chunks.next()?;
        match convert::decode_integer(ty.dtype, bytes) {
            Some(int) => Some(Number::Int(int)),
            None => convert::decode(ty.dtype, bytes).map(Number::Float),
        }
    };
    Array::from_numbers(tensor.ty().clone(), get).unwrap_or_else(|| panic!("a tensor of {}", tensor.ty()))
}
