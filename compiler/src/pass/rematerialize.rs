//! Pass `rematerialize`: values that wait long for their next reader are computed again just before it, until a graph
//! fits into a number of bytes.
//!
//! ```text
//! %a: f32[1024] = exp %x            %a: f32[1024] = exp %x
//! %b: f32[1024] = ...               %b: f32[1024] = ...
//! ...                               ...                              # %a does not wait here
//! %y: f32[1024] = mul %a, %c        %a.again: f32[1024] = exp %x     @rematerialize
//!                                   %y: f32[1024] = mul %a.again, %c
//! ```
//! It runs after `fuse`, on kernels: a kernel that runs twice makes the same bits twice, where other groups might not.
//! Of a group only the members run again that the results wanted need. Which kernels, decides
//! [`crate::memory::recompute`]; the nodes come out in the order in which they are to run.
//!
//! Not part of the standard pipeline: [`crate::Options::memory_budget`] adds it.

mod emit;
mod needs;

use kiln_ir::graph::Graph;
use kiln_ir::{Diagnostic, Module};
use kiln_rt::kernels::{Kernels, Level};

use super::{Changed, Pass, Remark, Remarks, each_graph};
use crate::compile::{Precision, ordered};
use crate::lower::{Lowered, MicroKernels};
use crate::memory::recompute::{Recomputed, within};
use crate::memory::{self, chart};
use crate::packing::Lasting;
use crate::placement::{self, Placement};
use crate::schedule::Schedule;

/// The pass.
#[derive(Debug)]
pub struct Rematerialize {
    /// Bytes that the arena of each graph may have.
    pub budget: u64,
    /// Micro-kernels that may be called: they decide about scratch memory.
    pub level: Level,
    /// How they may compute.
    pub precision: Precision,
}

impl Pass for Rematerialize {
    fn name(&self) -> &'static str {
        "rematerialize"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Changed, Vec<Diagnostic>> {
        each_graph(module, remarks, |graph, remarks| self.graph(graph, remarks))
    }
}

/// How often the search aims lower, when offsets or packing take more than the sum of live bytes.
const ATTEMPTS: usize = 4;

impl Rematerialize {
    /// The graph with second runs, if it does not fit without them.
    fn graph(&self, graph: &Graph, remarks: &mut Remarks) -> Result<Option<Graph>, Vec<Diagnostic>> {
        let now = self.planned(graph)?;
        if now.placement.plan.peak <= self.budget {
            return Ok(None);
        }
        let mut flow = placement::flow(graph, &now.schedule, &now.lowered);
        needs::note(graph, &now.schedule, &mut flow);
        let order: Vec<usize> = (0..now.lowered.len()).collect();
        let times: Vec<u64> = (0..order.len()).map(|step| time(graph, &now, step)).collect();
        let mut aim = self.budget;
        for _ in 0..ATTEMPTS {
            let found = within(&flow.flow, &order, &times, aim);
            let next = emit::graph(graph, &now.schedule, &flow.values, &found);
            let planned = self.planned(&next)?;
            let peak = planned.placement.plan.peak;
            if peak <= self.budget {
                report(graph, &now, &found, &times, peak, remarks);
                return Ok(Some(next));
            }
            let over = peak - self.budget;
            if found.peak > aim || over >= aim {
                return Err(vec![refusal(graph, self.budget, &planned.placement)]);
            }
            aim -= over;
        }
        Err(vec![refusal(graph, self.budget, &now.placement)])
    }

    fn planned(&self, graph: &Graph) -> Result<Planned, Vec<Diagnostic>> {
        let defect = |message: String| vec![Diagnostic::error("memory.B2", format!("{message}: a defect in Kiln"))];
        let kernels = Kernels::for_level(self.level).map(|kernels| MicroKernels::new(kernels, self.precision));
        let made = ordered(graph, kernels.as_ref(), &Lasting::nothing());
        let (schedule, lowered) = made.map_err(|error| defect(error.to_string()))?;
        let placement = placement::place(graph, &schedule, &lowered, &memory::Options::default()).map_err(defect)?;
        Ok(Planned { schedule, lowered, placement })
    }
}

/// A graph with its plan.
struct Planned {
    schedule: Schedule,
    lowered: Vec<Lowered>,
    placement: Placement,
}

/// Nanoseconds of a kernel, roughly: 100 operations and 10 bytes each, and a microsecond to start it.
fn time(graph: &Graph, planned: &Planned, step: usize) -> u64 {
    let kernel = &planned.schedule.kernels[step];
    let bytes: u64 = kernel.operands.iter().chain(&kernel.results).map(|&v| graph.ty(v).bytes() as u64).sum();
    1_000 + planned.lowered[step].flops / 100 + bytes / 10
}

/// One remark per second run.
fn report(graph: &Graph, now: &Planned, found: &Recomputed, times: &[u64], peak: u64, remarks: &mut Remarks) {
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
    let message = format!("@{} needs {peak} bytes, the budget is {budget}", graph.name());
    let holders = chart::holders_of_peak(&placement.problem);
    Diagnostic::error("memory.B1", message)
        .note(format!("live at the peak, with everything that can be computed again left out:\n{}", holders.trim_end()))
        .help("allow more memory, take a smaller batch, or a model with smaller layers")
}
