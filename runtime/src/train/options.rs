//! What to train with, and for how long.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kiln_ir::attribute::{AttrValue, Attribute};
use kiln_ir::{Name, Recipe};

use super::error::TrainError;
use crate::session::ProgramId;

/// Compiled programs for each batch size that occurs, see [`batch_sizes`].
#[derive(Clone, Debug, Default)]
pub struct TrainPrograms {
    /// By examples in the batch.
    pub by_batch: BTreeMap<usize, BatchPrograms>,
    /// Computes what the eval programs derive from the parameters; runs before each evaluation.
    pub prepare: Option<ProgramId>,
}

/// Programs for batches of one size. Their results are scalars, each the mean over the batch: `loss`, then metrics.
#[derive(Clone, Debug, Default)]
pub struct BatchPrograms {
    /// Run in order on each batch of training examples; a model makes one, however many steps it has.
    pub steps: Vec<ProgramId>,
    /// Loss and metrics without an update.
    pub eval: Option<ProgramId>,
}

/// Sizes of the batches of an epoch: `batch`, and what is left for the last one.
pub fn batch_sizes(examples: usize, batch: usize) -> BTreeSet<usize> {
    let batch = batch.max(1);
    let full = (examples >= batch).then_some(batch);
    full.into_iter().chain(Some(examples % batch).filter(|&rest| rest > 0)).collect()
}

/// How to train. The defaults are those of the text form.
#[derive(Clone, Debug)]
pub struct FitOptions {
    /// Examples per step.
    pub batch: usize,
    /// Passes over the data.
    pub epochs: u64,
    /// Results of the step programs that are losses; the first of each program if empty.
    pub losses: Vec<Name>,
    /// Stop after this many steps, those before a resume included.
    pub steps: Option<u64>,
    /// Key of the order of examples.
    pub seed: u64,
    /// Whether each epoch has its own order.
    pub shuffle: bool,
    /// Every n-th example is held out; 0 for none.
    pub test_every: usize,
    /// Which remainder is held out; the last if not given.
    pub test_fold: Option<usize>,
    /// Where to write checkpoints: at the start, after each epoch, at the end, and when interrupted.
    pub checkpoint: Option<PathBuf>,
    /// Also after every so many steps.
    pub checkpoint_every: Option<u64>,
    /// Checkpoint to go on from.
    pub resume: Option<PathBuf>,
    /// Hash of the program's text, kept in checkpoints.
    pub script: u64,
    /// Set from outside to end the training after the current step.
    pub stop: Arc<AtomicBool>,
}

impl Default for FitOptions {
    fn default() -> FitOptions {
        FitOptions {
            batch: 32,
            epochs: 1,
            losses: Vec::new(),
            steps: None,
            seed: 0,
            shuffle: true,
            test_every: 5,
            test_fold: None,
            checkpoint: None,
            checkpoint_every: None,
            resume: None,
            script: 0,
            stop: Arc::default(),
        }
    }
}

impl FitOptions {
    /// The options that a recipe states, the others by default.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] if a value is of the wrong kind.
    pub fn from_recipe(recipe: &Recipe) -> Result<FitOptions, TrainError> {
        let mut options = FitOptions::default();
        let count = "an integer of at least 1";
        if let Some(batch) = integer(recipe, "batch", 1, count)? {
            options.batch = usize::try_from(batch).unwrap_or(usize::MAX);
        }
        if let Some(epochs) = integer(recipe, "epochs", 1, count)? {
            options.epochs = epochs;
        }
        if let Some(seed) = integer(recipe, "seed", 0, "an integer of at least 0")? {
            options.seed = seed;
        }
        if let Some(every) = integer(recipe, "test_every", 0, "an integer of at least 0")? {
            options.test_every = usize::try_from(every).unwrap_or(usize::MAX);
        }
        if let Some(losses) = recipe.get("losses") {
            let names = match losses {
                AttrValue::List(names) => names.iter().map(Name::from_value).collect(),
                _ => None,
            };
            options.losses = names.ok_or_else(|| wrong("losses", losses, "a list of names of results"))?;
        }
        match recipe.get("shuffle") {
            None => {}
            Some(AttrValue::Bool(shuffle)) => options.shuffle = *shuffle,
            Some(other) => return Err(wrong("shuffle", other, "true or false")),
        }
        Ok(options)
    }

    /// The remainder that is held out.
    ///
    /// # Errors
    /// [`TrainError::Fold`] if there is no such fold.
    pub fn fold(&self) -> Result<usize, TrainError> {
        let last = self.test_every.saturating_sub(1);
        match self.test_fold {
            Some(fold) if self.test_every > 0 && fold > last => {
                Err(TrainError::Fold { fold, every: self.test_every, last })
            }
            fold => Ok(fold.unwrap_or(last)),
        }
    }
}

fn integer(recipe: &Recipe, key: &'static str, least: i64, wanted: &'static str) -> Result<Option<u64>, TrainError> {
    match recipe.get(key) {
        None => Ok(None),
        Some(AttrValue::Int(value)) if *value >= least => Ok(Some(value.unsigned_abs())),
        Some(other) => Err(wrong(key, other, wanted)),
    }
}

fn wrong(key: &'static str, value: &AttrValue, wanted: &'static str) -> TrainError {
    TrainError::Recipe { key, value: value.to_string(), wanted }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;

    #[test]
    fn the_last_batch_has_what_is_left() {
        let sizes = |examples, batch| batch_sizes(examples, batch).into_iter().collect::<Vec<_>>();
        assert_eq!(sizes(100, 32), [4, 32]);
        assert_eq!(sizes(96, 32), [32]);
        assert_eq!(sizes(5, 32), [5]);
        assert_eq!(sizes(0, 32), Vec::<usize>::new());
    }

    #[test]
    fn a_recipe_is_read_and_checked() {
        let mut recipe = Recipe::default();
        recipe.entries.insert("batch".into(), AttrValue::Int(64));
        recipe.entries.insert("shuffle".into(), AttrValue::Bool(false));
        let options = FitOptions::from_recipe(&recipe).unwrap();
        assert_eq!((options.batch, options.shuffle, options.epochs, options.test_every), (64, false, 1, 5));
        recipe.entries.insert("epochs".into(), AttrValue::Int(0));
        let message = FitOptions::from_recipe(&recipe).unwrap_err().to_string();
        assert_eq!(message, "train: `epochs = 0` is not an integer of at least 1");
    }

    #[test]
    fn the_defaults_are_those_of_the_text_form() {
        let stated = |key: &str| {
            let row = kiln_ir::model::RECIPE_KEYS.iter().find(|row| row.name == key);
            row.and_then(|row| row.default).unwrap_or_default()
        };
        let options = FitOptions::default();
        assert_eq!(stated("batch"), options.batch.to_string());
        assert_eq!(stated("epochs"), options.epochs.to_string());
        assert_eq!(stated("seed"), options.seed.to_string());
        assert_eq!(stated("shuffle"), options.shuffle.to_string());
        assert_eq!(stated("test_every"), options.test_every.to_string());
    }

    #[test]
    fn folds_are_counted_from_zero() {
        let fold = |every, fold| FitOptions { test_every: every, test_fold: fold, ..FitOptions::default() }.fold();
        assert_eq!(fold(5, None).unwrap(), 4);
        assert_eq!(fold(5, Some(0)).unwrap(), 0);
        assert_eq!(fold(0, None).unwrap(), 0);
        let message = fold(5, Some(5)).unwrap_err().to_string();
        assert!(message.ends_with("so folds run from 0 to 4"), "{message}");
    }
}
