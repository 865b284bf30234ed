//! `kiln train`: everything is compiled, then the fit loop of the runtime runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use kiln::training::{self, TrainGraphs};
use kiln_ir::attribute::AttrValue;
use kiln_ir::module::stream;
use kiln_ir::{Bindings, Module, Name, Recipe};
use kiln_rt::data::Dataset;
use kiln_rt::train::{FitOptions, Outcome, Progress, Report, TrainError, TrainPrograms, curves, fit};
use kiln_rt::{Session, weights};
use serde_json::{Value, json};

use super::failure::Failure;
use super::load::{Outline, Script};
use super::machine::{self, parse_threads};
use super::output::print_json;
use super::precision::Numerics;
use super::replay;

/// Trains a model as its script's `train` says.
#[derive(Debug, Args)]
pub(crate) struct Train {
    /// Script, or `-` for stdin.
    script: String,
    /// Data, `.npz`; the script's by default.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Passes over the data.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,
    /// Stops after this many steps.
    #[arg(long)]
    steps: Option<u64>,
    /// Examples per step.
    #[arg(long, value_parser = parse_batch)]
    batch: Option<usize>,
    /// Seed of initial values and of the order of examples.
    #[arg(long)]
    seed: Option<u64>,
    /// Threads; every core by default. Results do not depend on it.
    #[arg(long, value_parser = parse_threads)]
    threads: Option<usize>,
    /// Starts from weights, `.safetensors` or `.npz`.
    #[arg(long, value_name = "W")]
    weights: Option<PathBuf>,
    /// Takes the examples in the order of the data.
    #[arg(long)]
    no_shuffle: bool,
    /// Which examples are held out: those whose index leaves this remainder.
    #[arg(long, value_name = "K")]
    test_fold: Option<usize>,
    /// Where to write the weights; the script's name by default.
    #[arg(long, value_name = "W.SAFETENSORS")]
    out: Option<PathBuf>,
    /// Where to draw the curves; the script's name by default.
    #[arg(long, value_name = "L.SVG")]
    plot: Option<PathBuf>,
    /// Where to write checkpoints: at the start, after each epoch, at the end, and on Ctrl-C.
    #[arg(long, value_name = "C")]
    checkpoint: Option<PathBuf>,
    /// Writes checkpoints also every so many steps.
    #[arg(long, value_name = "N", requires = "checkpoint", value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_every: Option<u64>,
    /// Goes on from a checkpoint.
    #[arg(long, value_name = "C")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    numerics: Numerics,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What the data has to be when there is none.
fn no_data(path: &Path, outline: &Outline, from_script: bool) -> Failure {
    let inputs = outline.inputs.iter().map(|(name, ty)| format!("`{name}`: {ty}"));
    let inputs = inputs.collect::<Vec<_>>().join(", ");
    let from = if from_script { ", which the script names; give your own with --data FILE.npz" } else { "" };
    Failure::Input(format!("there is no file {}{from}. It holds an array for each input: {inputs}", path.display()))
}

fn parse_batch(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(batch @ 1..) => Ok(batch),
        _ => Err("a number of at least 1".to_owned()),
    }
}

/// A training that is ready to start.
struct Setup {
    /// With every graph, at the full batch.
    module: Module,
    options: FitOptions,
    numerics: Numerics,
    data: Dataset,
    graphs: TrainGraphs,
    outline: Outline,
    bindings: Bindings,
}

impl Train {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let script = Script::open(&self.script)?;
        let out = self.out.clone().unwrap_or_else(|| format!("{}.safetensors", script.stem()).into());
        let plot = self.plot.clone().unwrap_or_else(|| format!("{}.svg", script.stem()).into());
        [Some(&out), Some(&plot), self.checkpoint.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|path| writable(path))?;
        let setup = self.setup(&script)?;
        let mut session = machine::new_session(machine::threads(self.threads))?;
        machine::initialize(&mut session, &setup.module, Some(setup.options.seed), self.weights.as_deref())?;
        let programs = setup.compile(&script, &mut session)?;
        listen(&setup.options.stop)?;
        let report = fit(&mut session, &programs, &setup.data, &setup.options, &mut Progress::default());
        let report = report.map_err(|error| setup.explain(&script, &session, error))?;
        let interrupted = report.outcome == Outcome::Interrupted;
        if !interrupted || self.checkpoint.is_none() {
            weights::save(&out, session.states(), &setup.module)?;
            curves::save(&plot, &report)?;
        }
        if self.json {
            print_json(&to_json(&report, &session))?;
        }
        self.farewell(&report, &out, &plot);
        if interrupted { Err(Failure::Interrupted) } else { Ok(()) }
    }

    fn setup(&self, script: &Script) -> Result<Setup, Failure> {
        let mut outline = script.outline()?;
        outline.batch = self.batch.or(outline.batch).or(Some(FitOptions::default().batch));
        let bindings = outline.complete(&Bindings::new())?;
        let module = script.module(&bindings)?;
        let Some(recipe) = &module.recipe else {
            return Err(Failure::Input(format!(
                "{} does not say how to train; add `train {{data = \"data.npz\", batch = 32, epochs = 10, optimizer = \
                 adam {{rate = 0.001}}}}`",
                script.file
            )));
        };
        let options = self.options(recipe, script)?;
        let graphs = TrainGraphs::of(recipe);
        for name in graphs.names() {
            if module.graph(name).is_none() {
                return Err(Failure::Input(format!("train: there is no graph `@{name}`")));
            }
        }
        if graphs.steps.is_empty() {
            return Err(Failure::Input("train: name the graph of a step, `step = @step0`".to_owned()));
        }
        let path = self.data(recipe, script)?;
        if !path.exists() {
            return Err(no_data(&path, &outline, self.data.is_none()));
        }
        let data = Dataset::open(&path, &training::inputs(&module, graphs.names()))?;
        Ok(Setup { options, numerics: self.numerics, data, graphs, outline, bindings, module })
    }

    fn options(&self, recipe: &Recipe, script: &Script) -> Result<FitOptions, Failure> {
        let recipe = FitOptions::from_recipe(recipe)?;
        Ok(FitOptions {
            batch: self.batch.unwrap_or(recipe.batch),
            epochs: self.epochs.unwrap_or(recipe.epochs),
            steps: self.steps,
            seed: self.seed.unwrap_or(recipe.seed),
            shuffle: recipe.shuffle && !self.no_shuffle,
            test_fold: self.test_fold,
            checkpoint: self.checkpoint.clone(),
            checkpoint_every: self.checkpoint_every,
            resume: self.resume.clone(),
            script: stream(script.text()),
            ..recipe
        })
    }

    /// The data: as given, or as the script says, relative to it.
    fn data(&self, recipe: &Recipe, script: &Script) -> Result<PathBuf, Failure> {
        match (&self.data, recipe.get("data")) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(AttrValue::Text(path))) => Ok(script.resolve(path)),
            _ => Err(Failure::Input("train: no data; give --data PATH, or write `data = \"data.npz\"`".to_owned())),
        }
    }

    fn farewell(&self, report: &Report, out: &Path, plot: &Path) {
        match (&self.checkpoint, report.outcome) {
            (Some(checkpoint), Outcome::Interrupted) => {
                eprintln!("interrupted after step {}; go on with --resume {}", report.steps, checkpoint.display());
            }
            (None, Outcome::Interrupted) => {
                eprintln!("interrupted after step {}; wrote {}", report.steps, out.display());
            }
            (_, Outcome::Done) => eprintln!("wrote {} and {}", out.display(), plot.display()),
        }
    }
}

impl Setup {
    /// Compiles step and eval for every size of batch that occurs, and loads them.
    fn compile(&self, script: &Script, session: &mut Session) -> Result<TrainPrograms, Failure> {
        let options = self.numerics.options(session.threads()).for_training();
        training::load(session, &self.graphs, self.data.examples(), &self.options, |size, graphs| {
            script.compile(&self.bound(script, size, graphs)?, &options)
        })
    }

    /// Some graphs for batches of `size` examples.
    fn bound(&self, script: &Script, size: usize, graphs: &[Name]) -> Result<Module, Failure> {
        let mut bindings = self.bindings.clone();
        for name in self.outline.batch_names() {
            bindings.insert(name, size);
        }
        let mut module = if bindings == self.bindings { self.module.clone() } else { script.module(&bindings)? };
        module.keep_graphs(graphs);
        for input in training::inputs(&module, graphs.iter()) {
            if input.ty.extents().first().is_some_and(|&extent| extent != size) {
                return Err(Failure::Input(format!(
                    "%{} is {}, but the data makes a batch of {size} examples; declare the first extent as `batch`",
                    input.name, input.ty
                )));
            }
        }
        Ok(module)
    }

    /// A failed training; a loss that is not finite is replayed to find the op at fault.
    fn explain(&self, script: &Script, session: &Session, error: TrainError) -> Failure {
        let TrainError::NonFinite { origin, indices, .. } = &error else { return error.into() };
        eprintln!("replaying step {origin} in the reference evaluator");
        let replayed = self.bound(script, indices.len(), &self.graphs.steps);
        let found = replayed.map(|module| replay::first_fault(module, session, &self.data, indices));
        match found {
            Ok(Ok(Some(fault))) => {
                let fault = fault.at_step(&error.to_string(), *origin);
                Failure::Program(script.render(&[fault]))
            }
            Ok(Ok(None)) => Failure::Input(format!("{error}\nThe reference evaluator finds only finite results.")),
            Ok(Err(reason)) => Failure::Input(format!("{error}\nThe step could not be replayed: {reason}")),
            Err(_) => error.into(),
        }
    }
}

/// Hours of training should not end in a directory that does not exist.
fn writable(path: &Path) -> Result<(), Failure> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) if !parent.is_dir() => {
            let (path, parent) = (path.display(), parent.display());
            Err(Failure::Input(format!("cannot write {path}: there is no directory {parent}; create it first")))
        }
        _ if path.is_dir() => Err(Failure::Input(format!("cannot write {}: it is a directory", path.display()))),
        _ => Ok(()),
    }
}

/// The first Ctrl-C sets the flag, the second ends the process at once.
fn listen(stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let stop = stop.clone();
    let handler = move || {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).map_err(|error| Failure::Input(format!("cannot listen for Ctrl-C: {error}")))
}

fn to_json(report: &Report, session: &Session) -> Value {
    let mut object: Value = serde_json::from_str(&report.to_json()).unwrap_or_else(|_| json!({}));
    if let Some(object) = object.as_object_mut() {
        object.insert("arena_bytes".into(), session.arena_bytes().into());
        object.insert("tiles_per_worker".into(), session.tiles_run().into());
    }
    object
}
