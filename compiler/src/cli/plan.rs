//! `kiln plan`: plans the memory of any program, given as buffers with sizes and live ranges.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use kiln::memory::{self, Options};

use super::failure::Failure;
use super::output::{print, print_json};

/// Plans memory for buffers from a CSV file with the columns id, lower, upper and size.
#[derive(Debug, Args)]
pub(crate) struct PlanMemory {
    /// The file, in MiniMalloc's format.
    file: PathBuf,
    /// Bytes that are enough; the exit code is 1 if no plan was found that fits.
    #[arg(long, value_name = "N")]
    capacity: Option<u64>,
    /// Searches until the plan is proved optimal, or for a very long time.
    #[arg(long)]
    exact: bool,
    /// Prints offsets and certificate as JSON.
    #[arg(long)]
    json: bool,
}

/// Nodes of the search unless `--exact` asks for more: ten seconds or so, and most problems take none of them.
const NODES: u64 = 1_000_000;

/// Nodes of an exact search that is asked for: an hour.
const EXACT_NODES: u64 = 200_000_000;

impl PlanMemory {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let file = self.file.display();
        let text = std::fs::read_to_string(&self.file);
        let text = text.map_err(|error| Failure::Input(format!("cannot read {file}: {error}")))?;
        let problem = memory::csv::read_problem(&text).map_err(|faults| {
            let faults: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
            Failure::Input(format!("{file} is no memory problem:\n{}", faults.join("\n")))
        })?;
        let options = Options { capacity: self.capacity, exact_nodes: if self.exact { EXACT_NODES } else { NODES } };
        let start = Instant::now();
        let plan = memory::plan(&problem, &options);
        let elapsed = start.elapsed();
        if self.json {
            print_json(&memory::plan_json(&problem, &plan, elapsed))?;
        } else {
            print(&kiln::explain::memory_plan(&problem, &plan))?;
        }
        match self.capacity {
            Some(capacity) if plan.peak > capacity => {
                let why = if plan.excludes(capacity) { "no plan fits" } else { "no plan was found that fits" };
                Err(Failure::Input(format!("{why} into {capacity} bytes; the best found takes {}", plan.peak)))
            }
            _ => Ok(()),
        }
    }
}
