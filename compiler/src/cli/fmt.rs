//! `kiln fmt`: the canonical form of a script.

use std::path::Path;

use clap::Args;

use super::failure::Failure;
use super::load::Script;
use super::output::{print, write};

/// Prints a script in its canonical form.
#[derive(Debug, Args)]
pub(crate) struct Fmt {
    /// Scripts, or `-` for stdin.
    #[arg(required = true)]
    scripts: Vec<String>,
    /// Only says which scripts are not in canonical form; then the exit code is 1.
    #[arg(long, conflicts_with = "write")]
    check: bool,
    /// Rewrites the files.
    #[arg(short, long)]
    write: bool,
}

impl Fmt {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut differing = Vec::new();
        for name in &self.scripts {
            let script = Script::open(name)?;
            let canonical = kiln_ir::text::format::format_file(&script.file, script.text());
            let canonical = canonical.map_err(|found| script.failure(&found))?;
            let differs = canonical != script.text();
            if self.check {
                differing.extend(differs.then(|| script.file.to_string()));
            } else if self.write && name != "-" {
                if differs {
                    write(Some(Path::new(name)), &canonical)?;
                }
            } else {
                print(&canonical)?;
            }
        }
        match differing.is_empty() {
            true => Ok(()),
            false => Err(Failure::Input(format!(
                "not in canonical form: {}; rewrite with `kiln fmt --write`",
                differing.join(", ")
            ))),
        }
    }
}
