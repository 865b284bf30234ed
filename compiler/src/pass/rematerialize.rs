//! Pass `rematerialize`: values that wait long for their next reader are computed again just before it, until a graph
//! fits into the budget of [`Options::memory_budget`].
//!
//! ```text
//! graph @f(%x: f32[32, 32], %w: f32[32, 128], %v: f32[128, 32]) {
//!   %a: f32[32, 32] = exp %x
//!   %b: f32[32, 128] = dot %a, %w {a_contract = [1], b_contract = [0], a_batch = [], b_batch = []}
//!   %c: f32[32, 32] = dot %b, %v {a_contract = [1], b_contract = [0], a_batch = [], b_batch = []}
//!   %y: f32[32, 32] = mul %a, %c
//!   return %y
//! }
//! ```
//! needs 24 KiB in the arena, while `%c` is computed; for a budget of 20 KiB it becomes
//! ```text
//! graph @f(%x: f32[32, 32], %w: f32[32, 128], %v: f32[128, 32]) {
//!   %a: f32[32, 32] = exp %x
//!   %b: f32[32, 128] = dot %a, %w {a_contract = [1], b_contract = [0], a_batch = [], b_batch = []}
//!   %c: f32[32, 32] = dot %b, %v {a_contract = [1], b_contract = [0], a_batch = [], b_batch = []}
//!   %a.again: f32[32, 32] = exp %x
//!   %y: f32[32, 32] = mul %a.again, %c
//!   return %y
//! }
//! ```
//! It runs after `fuse`, on kernels: a kernel that runs twice makes the same bits twice, where other groups might not.
//! Of a group only the members run again that the results wanted need. Which kernels, decides
//! [`crate::memory::recompute`]; the nodes come out in the order in which they are to run.
//!
//! Not part of the standard pipeline: a budget adds it at the end. Without one it leaves everything as it is.

mod emit;
mod needs;

use kiln_ir::graph::Graph;
use kiln_ir::{Diagnostic, Module};
use kiln_rt::kernels::{Kernels, Level};

use super::{Changed, Pass, Remark, Remarks, each_graph};
use crate::arrange::{Arranged, arrange_nodes};
use crate::compile::{CompileError, Options, Precision};
use crate::lower::MicroKernels;
use crate::memory::recompute::{Recomputed, within};
use crate::memory::{self, chart};
use crate::placement::{self, Placement};
use crate::tuning::Tuning;

/// The pass.
#[derive(Debug)]
pub struct Rematerialize {
    /// Bytes that the arena of each graph may have, if that matters.
    pub budget: Option<u64>,
    /// Micro-kernels that may be called: they decide about scratch memory.
    pub level: Level,
    /// How they may compute.
    pub precision: Precision,
    /// Measured choices.
    pub tuning: Tuning,
}

impl Pass for Rematerialize {
    fn name(&self) -> &'static str {
        "rematerialize"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        let Some(budget) = self.budget else { return Ok(Changed::No) };
        each_graph(module, remarks, |graph, remarks| self.graph(graph, budget, remarks))
    }
}

/// How often the search aims lower, when offsets or packing take more than the sum of live bytes.
const ATTEMPTS: usize = 4;

impl Rematerialize {
    /// The pass as the options want it.
    pub fn of(options: &Options) -> Rematerialize {
        let Options { memory_budget: budget, level, precision, .. } = *options;
        Rematerialize { budget, level, precision, tuning: options.tuning.clone() }
    }

    /// The graph with second runs, if it does not fit without them.
    fn graph(&self, graph: &Graph, budget: u64, remarks: &mut Remarks) -> Result<Option<Graph>, Vec<Diagnostic>> {
        let now = self.planned(graph)?;
        if now.placement.plan.peak <= budget {
            return Ok(None);
        }
        let mut flow = placement::flow(graph, &now.schedule, &now.lowered);
        needs::note(graph, &now.schedule, &mut flow);
        let order: Vec<usize> = (0..now.lowered.len()).collect();
        let times: Vec<u64> = (0..order.len()).map(|step| time(graph, &now, step)).collect();
        let mut lowest: Option<Arranged> = None;
        let mut aim = budget;
        for _ in 0..ATTEMPTS {
            let found = within(&flow.flow, &order, &times, aim);
            let next = emit::graph(graph, &now.schedule, &flow.values, &found);
            let planned = self.planned(&next)?;
            let peak = planned.placement.plan.peak;
            if peak <= budget {
                report(graph, &now, &found, &times, peak, remarks);
                return Ok(Some(next));
            }
            if lowest.as_ref().is_none_or(|lowest| peak < lowest.placement.plan.peak) {
                lowest = Some(planned);
            }
            let over = peak - budget;
            if found.peak > aim || over >= aim {
                break;
            }
            aim -= over;
        }
        Err(vec![refusal(graph, budget, &lowest.unwrap_or(now).placement)])
    }

    fn planned(&self, graph: &Graph) -> Result<Arranged, Vec<Diagnostic>> {
        let unplanned = |error: CompileError| {
            let message = format!("@{} has no memory plan: {error}", graph.name());
            let help = "only kernels are planned: end the passes with `decompose,fuse,rematerialize`";
            vec![Diagnostic::error("memory.B2", message).help(help)]
        };
        let kernels =
            Kernels::for_level(self.level).map(|kernels| MicroKernels::new(kernels, self.precision, &self.tuning));
        arrange_nodes(graph, kernels.as_ref(), &memory::Options::default()).map_err(unplanned)
    }
}

/// Nanoseconds of a kernel, roughly: 100 operations and 10 bytes each, and a microsecond to start it.
fn time(graph: &Graph, planned: &Arranged, step: usize) -> u64 {
    let kernel = &planned.schedule.kernels[step];
    let bytes: u64 = kernel.operands.iter().chain(&kernel.results).map(|&v| graph.ty(v).bytes() as u64).sum();
    1_000 + planned.lowered[step].flops / 100 + bytes / 10
}

/// One remark per second run.
fn report(graph: &Graph, now: &Arranged, found: &Recomputed, times: &[u64], peak: u64, remarks: &mut Remarks) {
    let again = &found.kernel_of[now.lowered.len()..];
    let share = |time: u64| 100.0 * time as f64 / times.iter().sum::<u64>().max(1) as f64;
    let total = share(again.iter().map(|&step| times[step]).sum());
    for &step in again {
        let value = now.schedule.kernels[step].results[0];
        remarks.push(Remark {
            pass: "rematerialize",
            graph: graph.name().into(),
            value: graph.value_name(value).clone(),
            code: "again",
            message: format!(
                "runs twice, {:.1} % of {total:.1} % more time; the arena takes {peak} bytes, not {}",
                share(times[step]),
                now.placement.plan.peak
            ),
        });
    }
    remarks.rewrote(again.len());
}

/// That a graph does not fit, and who holds its peak.
pub fn refusal(graph: &Graph, budget: u64, placement: &Placement) -> Diagnostic {
    let peak = placement.plan.peak;
    let message = format!("@{} needs {peak} bytes at least, the budget is {budget}", graph.name());
    let holders = chart::holders_of_peak(&placement.problem);
    Diagnostic::error("memory.B1", message)
        .note(format!("live at the peak, with everything that can be computed again left out:\n{}", holders.trim_end()))
        .help("allow more memory, take a smaller batch, or a model with smaller layers")
}
