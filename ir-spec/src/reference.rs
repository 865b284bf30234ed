//! The meaning of every program: a naive evaluator over [`Body`].
//!
//! Slow and obvious. It is never optimised and never used to run a model; passes, gradients and compiled code are held
//! against it. In [`Precision::Native`] every scalar operation rounds to its element type, also within sums; in
//! [`Precision::Wide`] all floats are binary64, the truth that errors are measured from.
//!
//! ```
//! use kiln_ir::builder::GraphBuilder;
//! use kiln_ir::reference::{Array, Data, Evaluator};
//! use kiln_ir::types::{DType, TensorType};
//!
//! let builder = GraphBuilder::new("f");
//! let x = builder.input("x", DType::F32, [2]);
//! builder.returns(&[&x.relu()]);
//! let graph = builder.finish().expect("no faults");
//! let input = Array::new(TensorType::new(DType::F32, [2]), Data::Float(vec![-1.0, 2.0])).expect("two elements");
//! let outcome = Evaluator::native().evaluate(&graph, &[input], &|_| None).expect("defined");
//! assert_eq!(outcome.returns[0].data, Data::Float(vec![0.0, 2.0]));
//! ```

mod array;
mod body;
mod scalar;
mod special;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests;

pub use array::{Array, Data};
pub use special::{erf, philox4x32};

use crate::body::Body;
use crate::graph::{Graph, Node, NodeData, Provenance, Value};
use crate::op::Op;
use crate::scalar::{Number, ScalarExpr, ScalarNode};
use crate::types::{DType, Name, TensorType};

/// Value type of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Every operation rounds to its element type.
    Native,
    /// Floats of every type are binary64.
    Wide,
}

/// Evaluates graphs.
#[derive(Clone, Copy, Debug)]
pub struct Evaluator {
    /// Value type of floats.
    pub precision: Precision,
}

/// What a graph yields.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Results in order.
    pub returns: Vec<Array>,
    /// Next values of states, in the order of the graph's updates.
    pub updates: Vec<(Name, Array)>,
}

/// Why a program has no value.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EvalError {
    /// The inputs are not those of the graph.
    #[error("{0}")]
    Input(String),
    /// A state has no value or one of another type.
    #[error("state `@{name}`: {reason}")]
    State {
        /// Name of the state.
        name: Name,
        /// What is wrong.
        reason: String,
    },
    /// An index loaded from a tensor is outside the operand.
    #[error("`{mnemonic}` {provenance}: index {value} at {position:?} is not in 0..{extent}")]
    Index {
        /// The op.
        mnemonic: &'static str,
        /// Where it comes from.
        provenance: Provenance,
        /// Position of the index in its tensor.
        position: Vec<usize>,
        /// The index.
        value: i64,
        /// Extent it has to be below.
        extent: usize,
    },
    /// A body breaks its own promises, or an op that a pass has to expand is left.
    #[error("defect in `{mnemonic}` {provenance}: {reason}")]
    Defect {
        /// The op.
        mnemonic: &'static str,
        /// Where it comes from.
        provenance: Provenance,
        /// What is wrong.
        reason: String,
    },
}

/// Values of states by name.
pub type States<'a> = &'a dyn Fn(&str) -> Option<Array>;
/// Called with the results of every node, in program order.
pub type Observer<'a> = &'a mut dyn FnMut(Node, &[Array]);

impl Evaluator {
    /// An evaluator of the given precision.
    pub fn new(precision: Precision) -> Evaluator {
        Evaluator { precision }
    }

    /// Rounds as the program's types say.
    pub fn native() -> Evaluator {
        Evaluator::new(Precision::Native)
    }

    /// Computes with binary64 throughout.
    pub fn wide() -> Evaluator {
        Evaluator::new(Precision::Wide)
    }

    /// Value of an expression whose read `i` is `reads[i]`; `None` if it has further reads or depends on a position.
    pub fn scalar(&self, expr: &ScalarExpr, reads: &[(Number, DType)]) -> Option<Number> {
        if !depends_only_on(expr, reads.len()) {
            return None;
        }
        let rounded = |&(number, dtype): &(Number, DType)| match number.to_dtype(dtype) {
            Number::Float(value) => Number::Float(self.round(value, dtype)),
            Number::Int(value) => Number::Int(scalar::wrap(value, dtype)),
        };
        Some(self.expr(expr, &reads.iter().map(rounded).collect::<Vec<_>>(), &[]))
    }

    /// Results and updates of a bound graph.
    ///
    /// # Errors
    /// [`EvalError`]: wrong inputs or states, an index out of range, a defect.
    pub fn evaluate(&self, graph: &Graph, inputs: &[Array], states: States<'_>) -> Result<Outcome, EvalError> {
        self.evaluate_observed(graph, inputs, states, &mut |_, _| {})
    }

    /// As [`Evaluator::evaluate`]; `observe` sees the results of every node of `graph` itself, not of nested ones.
    ///
    /// # Errors
    /// [`EvalError`].
    pub fn evaluate_observed(
        &self,
        graph: &Graph,
        inputs: &[Array],
        states: States<'_>,
        observe: Observer<'_>,
    ) -> Result<Outcome, EvalError> {
        let mut values: Vec<Option<Array>> = vec![None; graph.value_count()];
        self.bind_params(graph, inputs, &mut values)?;
        for (number, node) in graph.nodes() {
            let operands: Vec<Array> =
                node.operands.iter().map(|&v| read(&values, graph, v)).collect::<Result<_, _>>()?;
            let types = graph.types(&node.results);
            let results = self.node(node, &operands, &types, states)?;
            observe(number, &results);
            for (&value, array) in node.results.iter().zip(results) {
                values[value.index()] = Some(array);
            }
        }
        let get = |value: Value| read(&values, graph, value);
        Ok(Outcome {
            returns: graph.returns().iter().map(|&v| get(v)).collect::<Result<_, _>>()?,
            updates: graph
                .updates()
                .iter()
                .map(|update| Ok((update.state.clone(), get(update.value)?)))
                .collect::<Result<_, _>>()?,
        })
    }

    fn bind_params(&self, graph: &Graph, inputs: &[Array], values: &mut [Option<Array>]) -> Result<(), EvalError> {
        let params = graph.params();
        if params.len() != inputs.len() {
            let message = format!("`@{}` takes {} inputs, {} were given", graph.name(), params.len(), inputs.len());
            return Err(EvalError::Input(message));
        }
        for (param, input) in params.iter().zip(inputs) {
            let (name, ty) = (graph.value_name(param.value), graph.ty(param.value));
            if ty.shape != input.ty.shape || ty.dtype != input.ty.dtype {
                return Err(EvalError::Input(format!("input `%{name}` is {ty}, {} was given", input.ty)));
            }
            if let (Some(below), Data::Int(numbers)) = (param.below, &input.data)
                && let Some(bad) = numbers.iter().find(|&&n| u64::try_from(n).map_or(true, |n| n >= below))
            {
                return Err(EvalError::Input(format!("input `%{name}` has {bad}, which is not in 0..{below}")));
            }
            values[param.value.index()] = Some(self.rounded(input.clone()));
        }
        Ok(())
    }

    fn node(
        &self,
        node: &NodeData,
        operands: &[Array],
        results: &[TensorType],
        states: States<'_>,
    ) -> Result<Vec<Array>, EvalError> {
        match &node.op {
            Op::State(op) => Ok(vec![self.state(&op.name, &op.ty, states)?]),
            Op::Const(op) => {
                let array = Array::from_numbers(op.ty.clone(), |position| op.value.at(position));
                let array = array.ok_or_else(|| defect(node, "the literal has too few numbers"))?;
                Ok(vec![self.rounded(array)])
            }
            op => {
                let types: Vec<TensorType> = operands.iter().map(|array| array.ty.clone()).collect();
                match op.body(&types, results) {
                    Body::Map(map) => self.map(node, &map, operands, results),
                    Body::Scatter(scatter) => self.scatter(node, &scatter, operands, results),
                    Body::Composite(graph) => Ok(self.evaluate(&graph, operands, states)?.returns),
                    Body::Region => match node.regions.first() {
                        Some(region) => Ok(self.evaluate(region, operands, states)?.returns),
                        None => Err(defect(node, "it has no region")),
                    },
                    Body::Expanded => Err(defect(node, "a pass has to expand it first")),
                }
            }
        }
    }

    fn state(&self, name: &Name, ty: &TensorType, states: States<'_>) -> Result<Array, EvalError> {
        let fail = |reason: String| EvalError::State { name: name.clone(), reason };
        let array = states(name).ok_or_else(|| fail("it has no value".into()))?;
        if array.ty.shape != ty.shape || array.ty.dtype != ty.dtype {
            return Err(fail(format!("it is read as {ty}, its value is {}", array.ty)));
        }
        Ok(self.rounded(array))
    }

    /// Inputs are values of their type in native precision, and taken as they are in wide.
    fn rounded(&self, mut array: Array) -> Array {
        let dtype = array.ty.dtype;
        match &mut array.data {
            Data::Float(numbers) => numbers.iter_mut().for_each(|n| *n = self.round(*n, dtype)),
            Data::Int(numbers) => numbers.iter_mut().for_each(|n| *n = scalar::wrap(*n, dtype)),
        }
        array
    }
}

/// Whether the leaves of `expr` are literals and the first `reads` reads.
fn depends_only_on(expr: &ScalarExpr, reads: usize) -> bool {
    match expr.node() {
        ScalarNode::Read(read) => *read < reads,
        ScalarNode::Index(_) => false,
        _ => expr.children().all(|child| depends_only_on(child, reads)),
    }
}

fn read(values: &[Option<Array>], graph: &Graph, value: Value) -> Result<Array, EvalError> {
    let found = values.get(value.index()).and_then(Option::clone);
    found.ok_or_else(|| EvalError::Input(format!("`%{}` is read before it is defined", graph.value_name(value))))
}

fn defect(node: &NodeData, reason: impl Into<String>) -> EvalError {
    EvalError::Defect { mnemonic: node.op.mnemonic(), provenance: node.provenance.clone(), reason: reason.into() }
}
