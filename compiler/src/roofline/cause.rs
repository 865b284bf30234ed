//! Why a launch is far below its roofline, from what the compiler decided about it.

use kiln_rt::kernels::ContractPlan;

use super::{LaunchSource, Roofline};
use crate::codegen::emit::lane_use::LaneUse;
use crate::loops::nest::{ExprNode, LoopNest};
use crate::lower::BufferUse;
use crate::lower::micro_kernel::{CONTRACT_REDUCE, CONTRACT_TILES};
use kiln_ir::scalar::{BinaryFn, UnaryFn};

/// A cause with its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Stable name.
    pub code: &'static str,
    /// What was seen.
    pub text: String,
}

/// What was measured of a launch, and where.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Time of the launch.
    pub nanoseconds: f64,
    /// Its tiles.
    pub tiles: u64,
    /// Its roofline.
    pub roofline: Roofline,
    /// Threads that ran it.
    pub threads: usize,
    /// Nanoseconds that a fork and join costs here.
    pub fork_join: f64,
}

/// Nanoseconds that a launch takes without doing anything: the call and two looks at the clock.
const LAUNCH: f64 = 150.0;
/// Part of the roofline that a launch with enough threads at work is not asked about.
const ENOUGH: f64 = 0.25;
/// A part of the work that explains a slow launch.
const MUCH: f64 = 0.3;

/// The most likely cause that `source` is slow.
pub fn cause(source: Option<LaunchSource<'_>>, measured: &Measured) -> Cause {
    let Measured { nanoseconds, tiles, roofline, threads, fork_join } = *measured;
    let overhead = LAUNCH + if tiles > 1 && threads > 1 { fork_join } else { 0.0 };
    if nanoseconds - roofline.nanoseconds < 2.0 * overhead {
        let text = format!("{:.1} us of work behind {:.1} us of launching", roofline.nanoseconds / 1e3, overhead / 1e3);
        return Cause { code: "launch_overhead", text };
    }
    let busy = (tiles as f64 / threads as f64).min(1.0);
    let few = format!("{tiles} {} for {threads} threads", if tiles == 1 { "tile" } else { "tiles" });
    // A launch that misses its roof by more than the idle threads explain has another cause too.
    if busy < 1.0 && roofline.nanoseconds / nanoseconds >= ENOUGH * busy {
        return Cause { code: "few_tiles", text: few };
    }
    let mut found = match source {
        None => Cause { code: "copy", text: "moves data between layouts or buffers".to_owned() },
        Some(source) => contraction(source).unwrap_or_else(|| loops(source.nest)),
    };
    if busy < 1.0 {
        found.text = format!("{}; {few}", found.text);
    }
    found
}

/// The cause if the launch calls a micro-kernel.
fn contraction(source: LaunchSource<'_>) -> Option<Cause> {
    let [helper] = source.nest.helpers.as_slice() else { return None };
    let &BufferUse::Descriptor(phase) = source.uses.first()? else { return None };
    let plan = source.lowered.contractions.get(phase)?.direct()?;
    match &*helper.name {
        CONTRACT_TILES => Some(micro_kernel(plan)),
        CONTRACT_REDUCE => {
            let text = format!("adds {} partial sums of each of {} results", plan.tiling().k_splits, plan.outputs());
            Some(Cause { code: "split_sums", text })
        }
        _ => None,
    }
}

/// The largest of the costs that the plan's estimate has beside useful multiply-adds.
fn micro_kernel(plan: &ContractPlan) -> Cause {
    let estimate = plan.estimate();
    let tiling = plan.tiling();
    let percent = |part: f64| format!("{:.0} % of its estimated cycles", 100.0 * part / estimate.total().max(1.0));
    let (left, right) = plan.packing();
    let packing = if estimate.gathers { "gathered_packing" } else { "packing" };
    let costs = [
        (estimate.packing, packing, format!("packs {left} and {right}")),
        (estimate.idle_lanes, "idle_lanes", format!("columns do not fill blocks of {}", tiling.nr)),
        (estimate.latency, "few_rows", format!("register blocks of {} rows wait for their sums", tiling.mr)),
        (
            estimate.stores,
            "stores",
            format!("sums of few terms, or results in short runs: {} k blocks", tiling.k_splits),
        ),
    ];
    let least = (0.0, "cache_misses", String::new());
    let (cost, code, what) = costs.into_iter().fold(least, |most, cost| if cost.0 > most.0 { cost } else { most });
    if cost < MUCH * estimate.total() {
        let text = "its operands come late: the estimate of its cycles has no large part but multiply-adds".to_owned();
        return Cause { code: "cache_misses", text };
    }
    Cause { code, text: format!("{what}: {}", percent(cost)) }
}

/// The cause of a launch of loops.
fn loops(nest: &LoopNest) -> Cause {
    let found = LaneUse::of(nest);
    let all = (found.lanes + found.single).max(1.0);
    if found.single > MUCH * all {
        let text = format!("{:.0} % of its statements run one by one: {}", 100.0 * found.single / all, found.reason);
        return Cause { code: "scalar_loops", text };
    }
    let functions = expensive(nest);
    if !functions.is_empty() {
        return Cause { code: "narrow_functions", text: format!("{} in 128-bit loops", functions.join(", ")) };
    }
    if found.gathering > MUCH * all {
        let text = "128-bit loops read an operand element by element, with a stride".to_owned();
        return Cause { code: "gathers", text };
    }
    Cause { code: "narrow_loops", text: "128-bit loops".to_owned() }
}

/// Functions that cost tens of operations each.
fn expensive(nest: &LoopNest) -> Vec<&'static str> {
    let name = |node: &ExprNode| match node {
        ExprNode::Unary(UnaryFn::Exp, _) => Some("exp"),
        ExprNode::Unary(UnaryFn::Log, _) => Some("log"),
        ExprNode::Unary(UnaryFn::Tanh, _) => Some("tanh"),
        ExprNode::Unary(UnaryFn::Erf, _) => Some("erf"),
        ExprNode::Unary(UnaryFn::Sin, _) => Some("sin"),
        ExprNode::Unary(UnaryFn::Cos, _) => Some("cos"),
        ExprNode::Binary(BinaryFn::Pow, ..) => Some("pow"),
        ExprNode::Philox { .. } => Some("random numbers"),
        _ => None,
    };
    let mut names: Vec<_> = nest.exprs.iter().filter_map(|(node, _)| name(node)).collect();
    names.sort_unstable();
    names.dedup();
    names
}
