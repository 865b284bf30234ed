//! `kiln check`: all diagnostics of a script.

use clap::Args;
use kiln_ir::Name;
use kiln_ir::verify::Bound;
use kiln_ir::{Diagnostic, Module, Severity};
use serde_json::json;

use super::failure::Failure;
use super::load::{Script, bindings, parse_binding};
use super::output::{counted, print, print_json};

/// Parses, expands, verifies and infers; reports everything that is wrong.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Script, or `-` for stdin.
    model: String,
    /// Binds a dimension's name; names that are not bound stay symbolic.
    #[arg(long, value_name = "NAME=N", value_parser = parse_binding)]
    bind: Vec<(Name, usize)>,
    /// Prints `ops`, `errors` and `warnings` as JSON.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let script = Script::open(&self.model)?;
        let (ops, found) = self.findings(&script)?;
        let errors = found.iter().filter(|d| d.severity == Severity::Error).count();
        let warnings = found.len() - errors;
        if self.json {
            if !found.is_empty() {
                eprint!("{}", script.render(&found));
            }
            print_json(&json!({"ops": ops, "errors": errors, "warnings": warnings}))?;
            return if errors > 0 { Err(Failure::Program(String::new())) } else { Ok(()) };
        }
        if errors > 0 {
            return Err(script.failure(&found));
        }
        eprint!("{}", script.render(&found));
        print(&format!("{}: {}, {}\n", script.file, counted(ops, "op"), counted(warnings, "warning")))
    }

    /// Number of ops and everything that was found.
    fn findings(&self, script: &Script) -> Result<(usize, Vec<Diagnostic>), Failure> {
        let bindings = bindings(&self.bind);
        if !bindings.is_empty() {
            script.outline()?.check(&bindings)?;
        }
        let module = match kiln_ir::script::load(&script.file, script.text(), &bindings) {
            Ok(module) => module,
            Err(found) => return Ok((0, found)),
        };
        let found = kiln_ir::verify::verify(&module, Bound::No);
        Ok((ops(&module), found))
    }
}

/// Nodes of all graphs.
fn ops(module: &Module) -> usize {
    module.graphs.values().map(|graph| graph.nodes().len()).sum()
}
