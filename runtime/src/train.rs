//! Training: the fit loop, its checkpoints, and what it shows.

pub mod checkpoint;
pub mod curves;
mod error;
mod feed;
pub mod fit;
pub mod options;
pub mod progress;
pub mod report;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use error::TrainError;
pub use fit::fit;
pub use options::{BatchPrograms, FitOptions, TrainPrograms, batch_sizes};
pub use progress::Progress;
pub use report::{EpochSummary, History, Outcome, Report, Reporter, StepEvent};
