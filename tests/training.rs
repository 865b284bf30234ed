//! Training a script the way the command line does, with a choice of kernels and threads.

use std::path::Path;

use kiln::training::{TrainGraphs, inputs, load};
use kiln::{Options, Program};
use kiln_ir::attribute::AttrValue;
use kiln_ir::diagnostic::render_all;
use kiln_ir::verify::{Bound, verify};
use kiln_ir::{Bindings, Diagnostic, Module, Name, Recipe, script};
use kiln_rt::data::Dataset;
use kiln_rt::executable::Binding;
use kiln_rt::kernels::Level;
use kiln_rt::train::{FitOptions, Report, Reporter, TrainError, fit};
use kiln_rt::{Session, Tensor, Weights};

/// Any failure, as text.
pub type Outcome<T> = Result<T, String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A script, and how to run it.
#[derive(Clone, Debug)]
pub struct Training {
    /// What messages call it.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Micro-kernels.
    pub level: Level,
    /// Workers.
    pub threads: usize,
}

impl Training {
    /// The script for batches of `batch` examples, verified.
    ///
    /// # Errors
    /// The diagnostics.
    pub fn module(&self, batch: usize) -> Outcome<Module> {
        let render = |found: Vec<Diagnostic>| render_all(&found, &|_| Some(self.text.clone()));
        let bindings = Bindings::from_iter([("batch".into(), batch)]);
        let module = script::load(&self.name, &self.text, &bindings).map_err(render)?;
        let found = verify(&module, Bound::Yes);
        if found.is_empty() { Ok(module) } else { Err(render(found)) }
    }

    /// The recipe, and what it says for the fit loop.
    ///
    /// # Errors
    /// The script is at fault.
    pub fn recipe(&self) -> Outcome<(Recipe, FitOptions)> {
        let recipe = self.module(1)?.recipe.ok_or("no recipe")?;
        let options = FitOptions::from_recipe(&recipe).map_err(text)?;
        Ok((recipe, options))
    }

    /// Path of the data as the script has it.
    ///
    /// # Errors
    /// The script names none.
    pub fn data_path(&self) -> Outcome<String> {
        match self.recipe()?.0.get("data") {
            Some(AttrValue::Text(path)) => Ok(path.to_string()),
            _ => Err("no data".into()),
        }
    }

    /// Inputs of a step, or of a prediction.
    ///
    /// # Errors
    /// The script is at fault.
    pub fn inputs(&self, graph: &str, batch: usize) -> Outcome<Vec<Binding>> {
        Ok(inputs(&self.module(batch)?, std::iter::once(&Name::from(graph))))
    }

    fn compile(&self, batch: usize, graphs: &[Name], hoist: bool) -> Outcome<Program> {
        let mut module = self.module(batch)?;
        module.keep_graphs(graphs);
        let options = Options { level: self.level, hoist, ..Options::default() };
        kiln::compile(&module, &options).map_err(|error| format!("{}: {error}: {error:?}", self.name))
    }

    /// Trains, from `weights` if there are any, and returns the session with its states and the report. Every tensor of
    /// `weights` must have been used.
    ///
    /// # Errors
    /// Whatever failed.
    pub fn train(&self, data: &Dataset, weights: Option<&Path>, steps: u64) -> Outcome<(Session, Report)> {
        self.train_reported(data, weights, steps, &mut ())
    }

    /// As [`Training::train`], with somebody who watches.
    ///
    /// # Errors
    /// Whatever failed.
    pub fn train_reported(
        &self,
        data: &Dataset,
        weights: Option<&Path>,
        steps: u64,
        reporter: &mut dyn Reporter,
    ) -> Outcome<(Session, Report)> {
        let (recipe, options) = self.recipe()?;
        let options = FitOptions { steps: Some(steps), ..options };
        let module = self.module(options.batch)?;
        let mut session = Session::new(self.threads).map_err(text)?;
        session.initialize(&module, options.seed).map_err(text)?;
        if let Some(weights) = weights {
            let unused = Weights::open(weights).and_then(|mut file| file.apply(&mut session, &module)).map_err(text)?;
            if !unused.is_empty() {
                return Err(format!("{}: nothing uses {}", weights.display(), unused.join(", ")));
            }
        }
        let graphs = TrainGraphs::of(&recipe);
        let programs = load(&mut session, &graphs, data.examples(), &options, |batch, graphs| {
            Ok::<_, Failure>(self.compile(batch, graphs, false)?)
        })
        .map_err(|Failure(message)| message)?;
        let report = fit(&mut session, &programs, data, &options, reporter).map_err(text)?;
        Ok((session, report))
    }

    /// `@predict` on some examples, with the states of a trained session and what is derived from them computed anew.
    ///
    /// # Errors
    /// Whatever failed.
    pub fn predict(&self, trained: &Session, data: &Dataset, examples: &[usize]) -> Outcome<Tensor> {
        let program = self.compile(examples.len(), &["predict".into()], true)?;
        let mut session = Session::new(self.threads).map_err(text)?;
        session.initialize(&program.module, 0).map_err(text)?;
        for (name, state) in trained.states().iter().filter(|(name, _)| program.module.states.contains_key(*name)) {
            session.set_state(name, state).map_err(text)?;
        }
        let mut predict = None;
        for (name, compiled) in &program.graphs {
            let id = session.load(compiled.executable.clone()).map_err(text)?;
            match &**name {
                "prepare" => session.run(id, &[], &mut []).map_err(text)?,
                _ => predict = Some(id),
            }
        }
        let id = predict.ok_or("no @predict")?;
        let mut tensors = Vec::new();
        for input in self.inputs("predict", examples.len())? {
            let mut tensor = Tensor::zeros(input.ty).map_err(text)?;
            data.fill(&input.name, examples, &mut tensor).map_err(text)?;
            tensors.push(tensor);
        }
        let mut outputs = session.outputs(id).map_err(text)?;
        session.run(id, &tensors.iter().collect::<Vec<_>>(), &mut outputs).map_err(text)?;
        outputs.into_iter().next().ok_or_else(|| "no result".into())
    }
}

/// A message on its way through the loader of programs.
struct Failure(String);

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure(message)
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Failure {
        Failure(error.to_string())
    }
}

impl From<kiln_rt::LoadError> for Failure {
    fn from(error: kiln_rt::LoadError) -> Failure {
        Failure(error.to_string())
    }
}

/// Elements of a tensor.
pub fn elements(tensor: &Tensor) -> Vec<f64> {
    (0..tensor.len()).filter_map(|position| tensor.get(position)).collect()
}
