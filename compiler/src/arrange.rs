//! Kernels in their order, with loops and a place for every value: all that is decided before there is code.
//!
//! ```text
//! schedule(), without_moves() -> lower() -> order::improve() -> place()
//! ```
//! The last two are the memory planning, whose time is taken.

use std::time::{Duration, Instant};

use kiln_ir::graph::Graph;

use crate::compile::CompileError;
use crate::lower::{self, Lowered, MicroKernels};
use crate::memory::{self, order};
use crate::packing::Lasting;
use crate::placement::{self, Placement};
use crate::schedule::{Schedule, schedule, without_moves};

/// A graph on its way to code.
#[derive(Debug)]
pub(crate) struct Arranged {
    /// Kernels in the order in which they run.
    pub schedule: Schedule,
    /// Their loops.
    pub lowered: Vec<Lowered>,
    /// Where values lie.
    pub placement: Placement,
    /// Time that the search for an order, the offsets and their proof took.
    pub planning: Duration,
}

/// Lowers every kernel, orders them for a low peak and places what they compute. Rows that lie together are not moved,
/// unless moving them takes less memory: a join holds the bytes of all of its parts from the first one on.
///
/// # Errors
/// A kernel without loops, or a plan that does not hold: a defect.
pub(crate) fn arrange(
    graph: &Graph,
    kernels: Option<&MicroKernels<'_>>,
    lasting: &Lasting,
    memory: &memory::Options,
) -> Result<Arranged, CompileError> {
    let schedule = schedule(graph);
    let Some(without) = without_moves(graph, &schedule) else {
        return arranged(graph, schedule, kernels, lasting, memory);
    };
    let moved = arranged(graph, schedule, kernels, lasting, memory)?;
    let mut still = arranged(graph, without, kernels, lasting, memory)?;
    still.planning += moved.planning;
    Ok(if still.placement.plan.peak <= moved.placement.plan.peak { still } else { moved })
}

/// As [`arrange`], with a kernel for every node that moves rows: so that each can be run again.
///
/// # Errors
/// As [`arrange`].
pub(crate) fn arrange_nodes(
    graph: &Graph,
    kernels: Option<&MicroKernels<'_>>,
    memory: &memory::Options,
) -> Result<Arranged, CompileError> {
    arranged(graph, schedule(graph), kernels, &Lasting::nothing(), memory)
}

fn arranged(
    graph: &Graph,
    schedule: Schedule,
    kernels: Option<&MicroKernels<'_>>,
    lasting: &Lasting,
    memory: &memory::Options,
) -> Result<Arranged, CompileError> {
    let lowered = loops(graph, &schedule, kernels, lasting)?;
    let start = Instant::now();
    let (schedule, lowered, any_order) = ordered(graph, schedule, lowered);
    let placement = placement::place(graph, &schedule, &lowered, any_order, memory).map_err(CompileError::Defect)?;
    Ok(Arranged { schedule, lowered, placement, planning: start.elapsed() })
}

/// The loops of every kernel.
fn loops(
    graph: &Graph,
    schedule: &Schedule,
    kernels: Option<&MicroKernels<'_>>,
    lasting: &Lasting,
) -> Result<Vec<Lowered>, CompileError> {
    let lasts = |value| lasting.holds(graph, schedule, value);
    let near = lower::stays_near(graph);
    let lower = |kernel| lower::lower(graph, kernel, kernels, &lasts, near).map_err(|declined| (kernel, declined));
    let lowered = schedule.kernels.iter().map(lower).collect::<Result<_, _>>();
    lowered.map_err(|(kernel, declined)| {
        let name = graph.value_name(kernel.results[0]);
        CompileError::Defect(format!("kernel %{name} of @{} has no loops: {declined}", graph.name()))
    })
}

/// The kernels in an order with as low a peak as was found, and the bytes that no order can do without.
fn ordered(graph: &Graph, schedule: Schedule, lowered: Vec<Lowered>) -> (Schedule, Vec<Lowered>, u64) {
    let flow = placement::flow(graph, &schedule, &lowered).flow;
    let base: Vec<usize> = (0..lowered.len()).collect();
    let found = order::improve(&flow, &base);
    if found.order == base {
        return (schedule, lowered, found.bound);
    }
    let mut by_step: Vec<Option<Lowered>> = lowered.into_iter().map(Some).collect();
    let lowered = found.order.iter().filter_map(|&step| by_step[step].take()).collect();
    (schedule.reordered(graph, &found.order), lowered, found.bound)
}
