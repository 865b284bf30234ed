//! Training: the graphs of a recipe compiled for every size of batch that occurs, then fitted.
//!
//! [`train()`] is all that a program with a model of its own needs; `kiln train` is made of the same parts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_ir::attribute::AttrValue;
use kiln_ir::{Bindings, Module, Name, Recipe};
use kiln_rt::data::{DataError, Dataset, Split};
use kiln_rt::executable::Binding;
use kiln_rt::train::{FitOptions, Report, Reporter, TrainError, TrainPrograms, batch_sizes, fit};
use kiln_rt::{LoadError, Session};

use crate::compile::{CompileError, Options, Program, compile};

/// Why a module cannot be trained.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The module says too little about how to train.
    #[error("{0}")]
    Recipe(String),
    /// A graph cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A program does not fit the session.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The data cannot be read or does not fit the model.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Training stopped.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// No session could be made.
    #[error("cannot start threads: {0}")]
    Threads(#[from] std::io::Error),
}

/// A trained model: its states are in the session.
pub struct Trained {
    /// Owns parameters, moments and statistics; [`kiln_rt::weights::save()`] writes them.
    pub session: Session,
    /// What the training reported.
    pub report: Report,
}

/// Trains `module` as its recipe says, on all cores. Paths of the recipe are relative to `folder`.
///
/// # Errors
/// [`TrainingError`]; the module's own faults as [`CompileError::Program`], with script lines.
pub fn train(module: &Module, folder: &Path, reporter: &mut dyn Reporter) -> Result<Trained, TrainingError> {
    let missing = |what: &str| TrainingError::Recipe(format!("the module does not say {what}"));
    let recipe = module.recipe.as_ref().ok_or_else(|| missing("how to train: it has no recipe"))?;
    let graphs = TrainGraphs::of(recipe);
    if graphs.steps.is_empty() {
        return Err(missing("which graph is a step: `step = @step0`"));
    }
    let options = FitOptions::from_recipe(recipe)?;
    let Some(AttrValue::Text(path)) = recipe.get("data") else { return Err(missing("where its data is: `data`")) };
    let bound = |size: usize| {
        let bindings = Bindings::from([(Name::from("batch"), size)]);
        module.bind(&bindings).map_err(CompileError::Program)
    };
    let data = Dataset::open(&folder.join(&**path), &inputs(&bound(options.batch)?, graphs.names()))?;
    let mut session = Session::new(std::thread::available_parallelism().map_or(1, usize::from))?;
    session.initialize(module, options.seed)?;
    let programs = load(&mut session, &graphs, data.examples(), &options, |size, names| {
        let mut module = bound(size)?;
        module.keep_graphs(names);
        Ok::<_, TrainingError>(compile(&module, &Options::default().for_training())?)
    })?;
    let report = fit(&mut session, &programs, &data, &options, reporter)?;
    Ok(Trained { session, report })
}

/// The graphs that a training runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainGraphs {
    /// Run in this order on every batch; a model has one, for all of its steps.
    pub steps: Vec<Name>,
    /// Loss and metrics of the examples held out.
    pub eval: Option<Name>,
}

impl TrainGraphs {
    /// As `step` and `eval` of a recipe name them.
    pub fn of(recipe: &Recipe) -> TrainGraphs {
        let name = |value: &AttrValue| match value {
            AttrValue::Word(word) => Some(Name::from(word.strip_prefix('@').unwrap_or(word))),
            _ => None,
        };
        let steps = match recipe.get("step") {
            Some(AttrValue::List(steps)) => steps.iter().filter_map(name).collect(),
            step => step.and_then(name).into_iter().collect(),
        };
        TrainGraphs { steps, eval: recipe.get("eval").and_then(name) }
    }

    /// All of them.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.steps.iter().chain(&self.eval)
    }
}

/// Inputs of graphs, each name once.
pub fn inputs<'a>(module: &Module, graphs: impl Iterator<Item = &'a Name>) -> Vec<Binding> {
    let mut inputs: Vec<Binding> = Vec::new();
    for graph in graphs.filter_map(|name| module.graph(name)) {
        for param in graph.params() {
            let name = graph.value_name(param.value);
            if !inputs.iter().any(|input| input.name == *name) {
                inputs
                    .push(Binding { below: param.below, ..Binding::new(name.clone(), graph.ty(param.value).clone()) });
            }
        }
    }
    inputs
}

/// Loads steps and eval for every size of batch that `examples` make. `compiled` gives the program of some graphs for
/// batches of one size: compiled [for training](Options::for_training).
///
/// # Errors
/// Those of `compiled`; a graph that it leaves out is a [`TrainError::MissingProgram`].
pub fn load<E>(
    session: &mut Session,
    graphs: &TrainGraphs,
    examples: usize,
    options: &FitOptions,
    mut compiled: impl FnMut(usize, &[Name]) -> Result<Program, E>,
) -> Result<TrainPrograms, E>
where
    E: From<LoadError> + From<TrainError>,
{
    let split = Split::new(examples, options.test_every, options.fold()?);
    let step_sizes = batch_sizes(split.train.len(), options.batch);
    let eval_sizes = batch_sizes(split.test.len(), options.batch);
    let mut programs = TrainPrograms { by_batch: BTreeMap::new(), prepare: None };
    for size in step_sizes.union(&eval_sizes).copied().collect::<BTreeSet<_>>() {
        let steps: &[Name] = if step_sizes.contains(&size) { &graphs.steps } else { &[] };
        let eval = graphs.eval.as_ref().filter(|_| eval_sizes.contains(&size));
        let names: Vec<Name> = steps.iter().chain(eval).cloned().collect();
        let program = compiled(size, &names)?;
        let mut load = |name: &Name, kind| {
            let compiled = program.graphs.get(name).ok_or(TrainError::MissingProgram { kind, size })?;
            Ok::<_, E>(session.load(compiled.executable.clone())?)
        };
        let entry = programs.by_batch.entry(size).or_default();
        entry.steps = steps.iter().map(|name| load(name, "step")).collect::<Result<_, _>>()?;
        entry.eval = eval.map(|name| load(name, "eval")).transpose()?;
    }
    Ok(programs)
}

impl Options {
    /// These options for graphs that run between updates: nothing is computed ahead from states that change.
    pub fn for_training(self) -> Options {
        Options { hoist: false, ..self }
    }
}
