//! Training from Rust: what `kiln train` does for a script, for a [`Module`] of the Rust front end.

use std::collections::BTreeSet;
use std::path::Path;

use kiln_ir::attribute::AttrValue;
use kiln_ir::module::stream;
use kiln_ir::{Bindings, Diagnostic, Module, Name, Recipe, text};
use kiln_rt::data::{DataError, Dataset, Split};
use kiln_rt::executable::Binding;
use kiln_rt::train::{FitOptions, Progress, Report, TrainError, TrainPrograms, batch_sizes, fit};
use kiln_rt::{LoadError, Session};

use crate::{CompileError, Options, Program, compile};

/// A trained model: its states are in the session.
pub struct Trained {
    /// Losses and metrics.
    pub report: Report,
    /// Parameters, moments and counters.
    pub session: Session,
}

/// Why a module cannot be trained.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// The module's recipe lacks something.
    #[error("the recipe has no `{0}`; set it with `Model::train`")]
    Recipe(&'static str),
    /// Binding the batch finds faults.
    #[error("{}", kiln_ir::diagnostic::render_all(.0, &|file| std::fs::read_to_string(file).ok()))]
    Program(Vec<Diagnostic>),
    /// The compiler refuses.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A program and the session's states do not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The fit loop stops.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Threads cannot be started.
    #[error("threads: {0}")]
    Threads(#[from] std::io::Error),
}

/// Trains a module as its recipe says, with a progress bar on a terminal. Paths are relative to `folder`.
///
/// # Errors
/// [`FitError`], with everything that is wrong with the program at once.
pub fn train(module: &Module, folder: &Path, threads: usize) -> Result<Trained, FitError> {
    let recipe = module.recipe.as_ref().ok_or(FitError::Recipe("train"))?;
    let options =
        FitOptions { script: stream(&text::print(module, &Default::default())), ..FitOptions::from_recipe(recipe)? };
    let steps = step_graphs(recipe);
    let eval = graph_of(recipe, "eval");
    let Some(AttrValue::Text(path)) = recipe.get("data") else { return Err(FitError::Recipe("data")) };
    let bound = |size: usize, graphs: &[Name]| {
        let mut module = module.bind(&Bindings::from([("batch".into(), size)])).map_err(FitError::Program)?;
        module.graphs.retain(|name, _| graphs.contains(name));
        Ok::<Module, FitError>(module)
    };
    let all: Vec<Name> = steps.iter().chain(&eval).cloned().collect();
    let whole = bound(options.batch, &all)?;
    let data = Dataset::open(&folder.join(&**path), &inputs(&whole, all.iter()))?;
    let mut session = Session::new(threads)?;
    session.initialize(&whole, options.seed)?;
    let split = Split::new(data.examples(), options.test_every, options.fold()?);
    let sizes = Sizes::new(&split, options.batch);
    let programs = load_programs(&mut session, &sizes, &steps, eval.as_ref(), |size, graphs| {
        Ok::<Program, FitError>(compile(&bound(size, graphs)?, &Options { hoist: false, ..Options::default() })?)
    })?;
    let report = fit(&mut session, &programs, &data, &options, &mut Progress::default())?;
    Ok(Trained { report, session })
}

/// Sizes of batch that occur.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// In training.
    pub train: BTreeSet<usize>,
    /// In evaluation.
    pub test: BTreeSet<usize>,
}

impl Sizes {
    /// Of a split, with batches of `batch` examples.
    pub fn new(split: &Split, batch: usize) -> Sizes {
        Sizes { train: batch_sizes(split.train.len(), batch), test: batch_sizes(split.test.len(), batch) }
    }
}

/// Compiles and loads step and eval programs for every size of batch that occurs; `compile` gets the size and the
/// graphs that are wanted.
///
/// # Errors
/// Those of `compile`, and [`LoadError`].
pub fn load_programs<E: From<LoadError>>(
    session: &mut Session,
    sizes: &Sizes,
    steps: &[Name],
    eval: Option<&Name>,
    mut compile: impl FnMut(usize, &[Name]) -> Result<Program, E>,
) -> Result<TrainPrograms, E> {
    let mut programs = TrainPrograms::default();
    for &size in sizes.train.union(&sizes.test) {
        let steps: &[Name] = if sizes.train.contains(&size) { steps } else { &[] };
        let eval = eval.filter(|_| sizes.test.contains(&size));
        let wanted: Vec<Name> = steps.iter().chain(eval).cloned().collect();
        let program = compile(size, &wanted)?;
        let mut load = |name: &Name| match program.graphs.get(name) {
            Some(compiled) => session.load(compiled.executable.clone()).map(Some),
            None => Ok(None),
        };
        let entry = programs.by_batch.entry(size).or_default();
        for name in steps {
            entry.steps.extend(load(name)?);
        }
        entry.eval = eval.map(load).transpose()?.flatten();
    }
    Ok(programs)
}

/// Graphs of a recipe's `step`: one, or a list.
pub fn step_graphs(recipe: &Recipe) -> Vec<Name> {
    match recipe.get("step") {
        Some(AttrValue::List(steps)) => steps.iter().filter_map(graph_name).collect(),
        Some(step) => graph_name(step).into_iter().collect(),
        None => Vec::new(),
    }
}

/// A graph that the recipe names.
pub fn graph_of(recipe: &Recipe, key: &str) -> Option<Name> {
    recipe.get(key).and_then(graph_name)
}

fn graph_name(value: &AttrValue) -> Option<Name> {
    match value {
        AttrValue::Word(word) => Some(word.strip_prefix('@').unwrap_or(word).into()),
        _ => None,
    }
}

/// Inputs of graphs, each name once.
pub fn inputs<'a>(module: &Module, graphs: impl Iterator<Item = &'a Name>) -> Vec<Binding> {
    let mut inputs: Vec<Binding> = Vec::new();
    for graph in graphs.filter_map(|name| module.graph(name)) {
        for param in graph.params() {
            let name = graph.value_name(param.value);
            if !inputs.iter().any(|input| input.name == *name) {
                let ty = graph.ty(param.value).clone();
                inputs.push(Binding { below: param.below, ..Binding::new(name.clone(), ty) });
            }
        }
    }
    inputs
}
