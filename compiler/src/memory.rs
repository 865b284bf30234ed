//! The memory plan: where every buffer of a step lies in one arena, with a certificate of how good that is.
//!
//! ```text
//! Problem -> plan() -> Plan -> check() -> chart, csv, json
//! ```
//!
//! - [`problem`]: buffers with sizes, half-open live ranges and aliases, of all of a buffer or of some of its bytes; the
//!   lower bound that no plan can beat.
//! - [`solver`]: greedy orders and skyline plans, then an exact search where they leave a gap.
//! - [`mod@check`]: an independent checker, which replays the plan and shares no code with the solvers.
//! - [`chart`]: the certificate, and memory over time as text and SVG.
//! - [`flow`]: kernels with what they read and write, before there is a plan; [`order`]: an order with a low peak, and a
//!   bound for all of them.
//! - [`recompute`]: which kernels to run twice for a lower peak.
//! - [`csv`]: MiniMalloc's files in, plans out.
//!
//! Nothing here knows the IR: a problem is plain numbers, so that any program's memory can be planned and any plan
//! recomputed by an outside program.
//!
//! ```
//! use kiln::memory::{Access, Buffer, Options, Problem, check, plan};
//!
//! // y = relu(conv(x)) in place, then a pooling of it: relu may overwrite conv's result, which nobody else reads.
//! let problem = Problem::new(vec![
//!     Buffer::new("conv", 4096, 0, 2),
//!     Buffer::new("relu", 4096, 1, 3).alias_of(0),
//!     Buffer::new("pool", 1024, 2, 4),
//! ])?;
//! let plan = plan(&problem, &Options::default());
//! assert_eq!((plan.peak, plan.naive, plan.proved), (5120, 9216, true));
//!
//! let trace = [
//!     Access::write(0, 0),
//!     Access::read(1, 0),
//!     Access::write(1, 1),
//!     Access::read(2, 1),
//!     Access::write(2, 2),
//!     Access::read(3, 2),
//! ];
//! assert_eq!(check(&problem, &plan.offsets, plan.peak, &trace), []);
//! # Ok::<(), Vec<kiln::memory::Fault>>(())
//! ```

pub mod chart;
pub mod check;
pub mod csv;
pub mod flow;
pub mod order;
pub mod problem;
pub mod recompute;
pub mod solver;

pub use check::{Access, AccessKind, check};
pub use problem::{ALIGNMENT, Buffer, Fault, Problem, Storage};
pub use solver::{Options, Plan, plan};

use std::time::Duration;

use serde_json::{Map, Value, json};

/// A plan as JSON: `offsets` by buffer id, `peak_bytes`, `lower_bound_bytes`, `proved_bound_bytes`, `naive_bytes`,
/// `proved`, `solver`, and the `seconds` that the caller measured.
pub fn plan_json(problem: &Problem, plan: &Plan, elapsed: Duration) -> Value {
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
        "seconds": elapsed.as_secs_f64(),
    })
}

#[cfg(test)]
pub(crate) mod programs;
