//! The command line: one file per subcommand, and one place that turns a failure into an exit code.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | the input or the environment is at fault: script, data, a loss that is not finite, a full disk |
//! | 2 | bad usage |
//! | 3 | a defect in Kiln |
//! | 130 | interrupted: the step was finished and the checkpoint written |

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod check;
mod explain;
mod failure;
mod fmt;
mod load;
mod machine;
mod opt;
mod output;
mod plan;
mod precision;
mod replay;
mod run;
mod train;

use failure::Failure;

/// Static graph compiler and optimizer for deep learning.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Train),
    Run(run::Run),
    Opt(opt::Opt),
    Explain(explain::Explain),
    Bench(bench::Bench),
    Check(check::Check),
    Fmt(fmt::Fmt),
    Plan(plan::PlanMemory),
}

/// Bytes of stack for the main thread: programs nest as deep as the parser allows, whatever the shell's limit.
const STACK: usize = 64 << 20;

/// Parses the arguments and runs; returns the exit code.
pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody to tell if even stderr is closed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    failure::catch_panics();
    let thread = std::thread::Builder::new().name("main".into()).stack_size(STACK).spawn(move || run(&arguments));
    let outcome = match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Failure::Panicked),
        Err(error) => Err(Failure::Input(format!("cannot start a thread: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    failure::check_environment()?;
    match &arguments.command {
        Command::Train(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Opt(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Fmt(command) => command.run(),
        Command::Plan(command) => command.run(),
    }
}
