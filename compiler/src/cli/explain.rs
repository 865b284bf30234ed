//! `kiln explain`: why the compiler did what it did.

use clap::Args;
use kiln::explain;
use kiln_ir::Name;

use super::failure::Failure;
use super::load::{Script, bindings, parse_binding};
use super::machine::{self, parse_threads};
use super::output::print;
use super::precision::Numerics;

/// Fusion verdicts, kernels, memory certificate; or everything about one value.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Script, or `-` for stdin.
    model: String,
    /// Only this value.
    #[arg(value_name = "%VALUE")]
    value: Option<String>,
    /// Binds a dimension's name.
    #[arg(long, value_name = "NAME=N", value_parser = parse_binding)]
    bind: Vec<(Name, usize)>,
    /// Threads whose measured choices are shown; every core by default.
    #[arg(long, value_parser = parse_threads)]
    threads: Option<usize>,
    #[command(flatten)]
    numerics: Numerics,
}

impl Explain {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let script = Script::open(&self.model)?;
        let module = script.module(&script.outline()?.complete(&bindings(&self.bind))?)?;
        let options = self.numerics.options(machine::threads(self.threads));
        let program = script.compile(&module, &options)?;
        options.tuning.notes().iter().for_each(|note| eprintln!("note: {note}"));
        let Some(value) = &self.value else { return print(&explain::program(&program)) };
        let name = value.strip_prefix('%').unwrap_or(value);
        match explain::value(&program, name) {
            Some(text) => print(&text),
            None if module.graphs.values().any(|g| g.values().any(|v| &**g.value_name(v) == name)) => {
                print(&format!("%{name} is in the script, but no graph needs it after the passes\n"))
            }
            None => Err(Failure::Usage(format!("there is no value %{name}; `kiln opt` prints them all"))),
        }
    }
}
