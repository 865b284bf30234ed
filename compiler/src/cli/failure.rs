//! Why a command fails, and the exit code for it.

use std::process::ExitCode;

use kiln::CompileError;
use kiln_rt::atomic_file::WriteError;
use kiln_rt::data::DataError;
use kiln_rt::kernels::{self, Level};
use kiln_rt::train::TrainError;
use kiln_rt::weights::WeightsError;
use kiln_rt::{LoadError, RunError};

/// Why a command ends before its time.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Diagnostics of the program, rendered.
    Program(String),
    /// The input or the environment is at fault.
    Input(String),
    /// The command line is.
    Usage(String),
    /// Kiln is.
    Defect(String),
    /// Kiln is, and the panic hook has said so.
    Panicked,
    /// Ctrl-C.
    Interrupted,
    /// Whoever reads the output has gone: nothing more to say.
    Closed,
}

impl Failure {
    /// Says on stderr what happened; returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Failure::Program(text) => {
                eprint!("{text}");
                ExitCode::from(1)
            }
            Failure::Input(message) => {
                eprintln!("error: {message}");
                ExitCode::from(1)
            }
            Failure::Usage(message) => {
                eprintln!("error: {message}\n\nFor what a command takes, try `kiln COMMAND --help`.");
                ExitCode::from(2)
            }
            Failure::Defect(message) => {
                eprintln!("{}", defect(&message));
                ExitCode::from(3)
            }
            Failure::Panicked => ExitCode::from(3),
            Failure::Interrupted => ExitCode::from(130),
            Failure::Closed => ExitCode::SUCCESS,
        }
    }
}

/// What to say about a defect.
fn defect(message: &str) -> String {
    let (version, os, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    let level = kernels::detect().name();
    format!(
        "internal error: {message}\n\
         This is a defect in Kiln, not in your program. Please report it with the script, the command line and this \
         line:\nkiln {version}, {os} {arch}, kernels {level}"
    )
}

/// Panics become one short message; the exit code follows when the thread is joined.
pub(crate) fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic");
        let at = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
        eprintln!("{}", defect(&format!("{text}{at}")));
    }));
}

/// Refuses a `KILN_KERNELS` that means nothing: silently running other kernels would falsify a measurement.
pub(crate) fn check_environment() -> Result<(), Failure> {
    let Ok(name) = std::env::var("KILN_KERNELS") else { return Ok(()) };
    let names = Level::ALL.map(Level::name).join(", ");
    match Level::from_name(&name) {
        Some(level) if level.available() => Ok(()),
        Some(_) => Err(Failure::Input(format!("KILN_KERNELS={name}: this machine has no {name}"))),
        None => Err(Failure::Input(format!("KILN_KERNELS={name} is no level of kernels; there are: {names}"))),
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
        match error {
            RunError::Panicked(_) | RunError::UnknownProgram { .. } | RunError::Count { .. } => {
                Failure::Defect(error.to_string())
            }
            _ => Failure::Input(error.to_string()),
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Failure {
        match error {
            LoadError::Malformed { .. } | LoadError::MissingState { .. } => Failure::Defect(error.to_string()),
            _ => Failure::Input(error.to_string()),
        }
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Failure {
        match error {
            TrainError::MissingProgram { .. } => Failure::Defect(error.to_string()),
            TrainError::Run(error) => error.into(),
            TrainError::Load(error) => error.into(),
            _ => Failure::Input(error.to_string()),
        }
    }
}

impl From<WeightsError> for Failure {
    fn from(error: WeightsError) -> Failure {
        match error {
            WeightsError::Load(error) => error.into(),
            _ => Failure::Input(error.to_string()),
        }
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Failure {
        Failure::Input(error.to_string())
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Failure {
        Failure::Input(error.to_string())
    }
}

/// Whether the verifier found a pass at fault: its diagnostics say so.
pub(crate) fn is_defect(error: &CompileError) -> bool {
    match error {
        CompileError::Defect(_) => true,
        CompileError::Program(found) => {
            found.iter().any(|d| d.notes.iter().any(|note| note.contains("a defect in Kiln")))
        }
        CompileError::Pipeline(_) => false,
    }
}
