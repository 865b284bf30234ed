//! `kiln plan`: plans the memory of any program, given as buffers with sizes and live ranges.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use kiln::memory::{self, Options, Plan, Problem};
use serde_json::{Map, Value, json};

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

/// Nodes of an exact search that is asked for: minutes.
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
        let mut options = Options { capacity: self.capacity, ..Options::default() };
        if self.exact {
            options.exact_nodes = EXACT_NODES;
        }
        let start = Instant::now();
        let plan = memory::plan(&problem, &options);
        let seconds = start.elapsed().as_secs_f64();
        if self.json {
            print_json(&to_json(&problem, &plan, seconds))?;
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

fn to_json(problem: &Problem, plan: &Plan, seconds: f64) -> Value {
    let ids = problem.buffers().iter().map(|buffer| buffer.id.clone());
    let offsets: Map<String, Value> = ids.zip(plan.offsets.iter().map(|&offset| offset.into())).collect();
    json!({
        "offsets": offsets,
        "peak_bytes": plan.peak,
        "lower_bound_bytes": plan.lower_bound,
        "proved_bound_bytes": plan.proved_bound,
        "naive_bytes": plan.naive,
        "proved": plan.proved,
        "solver": plan.solver,
        "seconds": seconds,
    })
}
