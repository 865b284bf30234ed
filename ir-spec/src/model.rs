//! The define-then-run front end of Rust: a model is written once, top to bottom, like a script.
//!
//! ```no_run
//! use kiln_ir::model::{Model, Optimizer, Train};
//! use kiln_ir::{DType, dims};
//!
//! let model = Model::new("digits");
//! let x = model.input("x", DType::F32, dims!["batch", 64]);
//! let label = model.labels("label", dims!["batch"], 10);
//! let logits = x.dense(128).relu().dense(10);
//! model.predict(&logits.softmax());
//! model.loss(&logits.cross_entropy(&label));
//! model.metric("accuracy", &logits.accuracy(&label));
//! model.train(Train::new("data/digits.npz", Optimizer::adam(0.001)).batch(32).epochs(10));
//! let module = model.finish();
//! ```
//!
//! Faults are reported under these labels:
//!
//! - model.C1: `predict` and `train` are given at most once.
//! - model.C2: a model has a result: `predict` or `loss`.
//! - model.C3: what is trained has a `loss`.
//! - model.C4: a loss or metric is a float scalar.
//! - model.C5: every loss or metric has its own name.
//! - model.C6: the loss depends on a parameter.
//! - model.C7: every step of a training has its own name, and there is one.
//! - model.C8: the loss of a step is one of the model's; only where the model has one, a step need not name it.
//! - model.C9: what a step trains are instances or parameters that its loss depends on.
//! - model.C10: what [`Model::share`] names was built before.
//!
//! Names of weights made elsewhere are checked as in scripts, under script.S5, script.S10 and script.S13.

use std::cell::RefCell;
use std::panic::Location as CallSite;

use crate::builder::{GraphBuilder, Tensor, call_location};
use crate::diagnostic::Diagnostic;
use crate::module::Module;
use crate::types::{Bindings, DType, Name, Shape, TensorType};

pub(crate) mod assemble;
mod extract;
pub(crate) mod foreign;
mod step;
mod training;

use assemble::{Program, Root, assemble};
use foreign::ForeignWeight;
pub use training::{OPTIMIZERS, Optimizer, RECIPE_KEYS, RecipeKey, STEP_KEYS, Step, StepKey, Train};

/// Extents of a shape, numbers and names mixed: `dims!["batch", 3, 32, 32]`.
#[macro_export]
macro_rules! dims {
    ($($dim:expr),* $(,)?) => {
        <$crate::Shape as ::std::iter::FromIterator<$crate::Dim>>::from_iter([$($crate::Dim::from($dim)),*])
    };
}

/// A model under construction.
#[derive(Debug)]
pub struct Model {
    builder: GraphBuilder,
    bindings: Bindings,
    roots: RefCell<Roots>,
}

#[derive(Debug, Default)]
struct Roots {
    predict: Option<Root>,
    losses: Vec<Root>,
    metrics: Vec<Root>,
    training: Option<Train>,
    weights: Vec<ForeignWeight>,
}

impl Model {
    /// An empty model.
    pub fn new(name: &str) -> Model {
        Model { builder: GraphBuilder::new(name), bindings: Bindings::new(), roots: RefCell::default() }
    }

    /// Gives a dimension's name its value in all inputs that follow.
    pub fn bind(mut self, name: &str, extent: usize) -> Model {
        self.bindings.insert(name.into(), extent);
        self
    }

    /// An input: `model.input("x", DType::F32, dims!["batch", 3, 32, 32])`.
    pub fn input(&self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Tensor {
        self.declare(name, dtype, shape.into(), None)
    }

    /// An input of class indices or tokens, i64, all in `0..below`.
    pub fn labels(&self, name: &str, shape: impl Into<Shape>, below: u64) -> Tensor {
        self.declare(name, DType::I64, shape.into(), Some(below))
    }

    /// States created by `build` are named `name1.*`, with the next use of the name `name2.*`.
    pub fn scope<R>(&self, name: &str, build: impl FnOnce() -> R) -> R {
        let instance = self.builder.next_instance(name);
        self.builder.scope(&instance, build)
    }

    /// `build` once more with the states of `instance`, a name that [`Model::scope`] gave: what it makes has the same
    /// weights.
    #[track_caller]
    pub fn share<R>(&self, instance: &str, build: impl FnOnce() -> R) -> Option<R> {
        let shared = self.builder.share(instance, || self.builder.scope(instance, build));
        if shared.is_none() {
            self.builder
                .fault("model.C10", format!("nothing is called `{instance}` yet, so nothing can share its states"));
        }
        shared
    }

    /// The builder, for ops that have no method.
    pub fn builder(&self) -> &GraphBuilder {
        &self.builder
    }

    /// What `@predict` returns.
    #[track_caller]
    pub fn predict(&self, value: &Tensor) {
        let root = self.root(&self.builder.with_graph(|g| name_of(g, value)), value);
        if self.roots.borrow_mut().predict.replace(root).is_some() {
            self.builder.fault("model.C1", "`predict` is given twice");
        }
    }

    /// The scalar to make small, called `loss`.
    #[track_caller]
    pub fn loss(&self, value: &Tensor) {
        self.loss_named("loss", value);
    }

    /// One of several scalars to make small: a [`Step`] names it.
    #[track_caller]
    pub fn loss_named(&self, name: &str, value: &Tensor) {
        let root = self.root(name, value);
        self.roots.borrow_mut().losses.push(root);
    }

    /// A scalar to report under a name, the mean over the batch.
    #[track_caller]
    pub fn metric(&self, name: &str, value: &Tensor) {
        let root = self.root(name, value);
        self.roots.borrow_mut().metrics.push(root);
    }

    /// How to train.
    #[track_caller]
    pub fn train(&self, train: Train) {
        let train = train.at(call_location(CallSite::caller()));
        if self.roots.borrow_mut().training.replace(train).is_some() {
            self.builder.fault("model.C1", "`train` is given twice");
        }
    }

    /// A state's name in weights made elsewhere, `transposed` if the matrix there is `[units, features]`; or a pattern of
    /// names, `"encoder{i}.dense1.bias"` and `"layers.{i - 1}.fc.bias"`.
    #[track_caller]
    pub fn foreign_weight(&self, state: &str, foreign: &str, transposed: bool) {
        let at = Some(call_location(CallSite::caller()));
        let entry = ForeignWeight { state: state.into(), foreign: foreign.into(), transposed, at, width: 1 };
        self.roots.borrow_mut().weights.push(entry);
    }

    /// The module: states, `@predict`, `@eval`, `@step0` and the recipe.
    ///
    /// # Errors
    /// Every fault, at the line that made it.
    pub fn finish(self) -> Result<Module, Vec<Diagnostic>> {
        let roots = self.roots.into_inner();
        assemble(Program {
            builder: self.builder,
            predict: roots.predict,
            losses: roots.losses,
            metrics: roots.metrics,
            training: roots.training,
            weights: roots.weights,
        })
    }

    fn declare(&self, name: &str, dtype: DType, shape: Shape, below: Option<u64>) -> Tensor {
        self.builder.param(name, TensorType::new(dtype, shape.bind(&self.bindings)), below)
    }

    #[track_caller]
    fn root(&self, name: &str, value: &Tensor) -> Root {
        Root { name: name.into(), value: value.value(), at: Some(call_location(CallSite::caller())) }
    }
}

fn name_of(graph: &crate::graph::Graph, value: &Tensor) -> Name {
    if value.is_invalid() { "predict".into() } else { graph.value_name(value.value()).clone() }
}

#[cfg(test)]
mod tests;
