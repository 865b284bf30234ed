//! Why training stops early.

use kiln_ir::Name;

use super::checkpoint::CheckpointError;
use crate::atomic_file::WriteError;
use crate::data::DataError;
use crate::error::{LoadError, RunError};

/// Training cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A key of the recipe is of the wrong kind.
    #[error("train: `{key} = {value}` is not {wanted}")]
    Recipe {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is accepted.
        wanted: &'static str,
    },
    /// The fold does not exist.
    #[error("there is no test fold {fold}: every {every}-th example is held out, so folds run from 0 to {last}")]
    Fold {
        /// As asked.
        fold: usize,
        /// Number of folds.
        every: usize,
        /// The last fold.
        last: usize,
    },
    /// A batch size without programs. The caller's fault.
    #[error("no {kind} program was compiled for batches of {size} examples; this is a defect in Kiln")]
    MissingProgram {
        /// Step or eval.
        kind: &'static str,
        /// Examples in the batch.
        size: usize,
    },
    /// A program's input is not sized for its batch, or a result is no scalar. The caller's fault.
    #[error("@{program}: %{value} is {ty}, but {wanted}")]
    Signature {
        /// The program.
        program: Name,
        /// The input or result.
        value: Name,
        /// Its type.
        ty: String,
        /// What it should be.
        wanted: String,
    },
    /// Loss or a metric became infinite or not a number. The session's states are those before step `origin`, which is
    /// where the trouble began, so that replaying its batch shows the first op that is at fault.
    #[error(
        "{name} is {value} at epoch {epoch}, step {step}; lower the learning rate, clip the gradients, or look for \
         values in the data that are not finite"
    )]
    NonFinite {
        /// Which result.
        name: Name,
        /// Its value.
        value: f64,
        /// Epoch, from 1.
        epoch: u64,
        /// Step since the start of the training, from 1.
        step: u64,
        /// The step to replay, from 1: `step`, or the one before if that left a state that is not finite.
        origin: u64,
        /// Examples in the batch of step `origin`.
        indices: Vec<usize>,
    },
    /// The data does not fit.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A step failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// States do not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}
