//! Why a launch is far below its roofline, from what the compiler decided about it.
//!
//! | code | what is seen |
//! |---|---|
//! | `launch_overhead` | it is shorter than calling it, and waking the other threads |
//! | `few_tiles` | there are fewer tiles than threads |
//! | `packing`, `gathered_packing` | copying operands into panels costs as much as the arithmetic; the second, one by one |
//! | `few_rows`, `idle_lanes`, `stores` | the register block is too low, too wide, or its sums too short |
//! | `split_sums` | it adds partial sums |
//! | `winograd`, `window_kernel` | it is one of these micro-kernels, whose plan is shown |
//! | `scalar_loops` | most of its statements run one by one |
//! | `narrow_loops`, `narrow_functions` | its loops have 128 bit; the second, with functions that take tens of operations |
//! | `gathers` | it reads with a stride, one by one |
//! | `functions` | its loops are wide, and compute functions |
//! | `cache_misses` | nothing of the above: it waits for its data |
//! | `copy` | it moves data only |
//!
//! The estimate is of one launch by itself: it does not know what the others leave in the caches.

use kiln_rt::kernels::ContractPlan;

use super::{LaunchSource, Roofline};
use crate::codegen::Width;
use crate::codegen::emit::lane_use::LaneUse;
use crate::loops::nest::{ExprNode, LoopNest};
use crate::lower::BufferUse;
use crate::lower::micro_kernel::{
    CONTRACT_BEGIN, CONTRACT_REDUCE, CONTRACT_TILES, PACK_OPERAND, WINOGRAD_GRADIENT_INPUT, WINOGRAD_INPUT,
    WINOGRAD_PACK,
};
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
        Some(source) => micro_kernel(source).unwrap_or_else(|| loops(source)),
    };
    if busy < 1.0 {
        found.text = format!("{}; {few}", found.text);
    }
    found
}

/// The cause if the launch calls a micro-kernel.
fn micro_kernel(source: LaunchSource<'_>) -> Option<Cause> {
    if let Some(plan) = &source.lowered.window {
        let text = format!("{}, {} planes a tile", plan.kernel(), plan.planes_per_tile());
        return Some(Cause { code: "window_kernel", text });
    }
    let [helper] = source.nest.helpers.as_slice() else { return None };
    let &BufferUse::Descriptor(phase) = source.uses.first()? else { return None };
    let kernel = source.lowered.contractions.get(phase)?;
    match (&*helper.name, kernel.direct()) {
        (CONTRACT_TILES, Some(plan)) => Some(contraction(plan)),
        (CONTRACT_REDUCE, Some(plan)) => {
            let text = format!("adds {} partial sums of each of {} results", plan.tiling().k_splits, plan.outputs());
            Some(Cause { code: "split_sums", text })
        }
        (CONTRACT_BEGIN, _) => {
            let text = "clears the flags of column panels that tiles share: all of it is the launch".to_owned();
            Some(Cause { code: "launch_overhead", text })
        }
        (PACK_OPERAND | WINOGRAD_PACK | WINOGRAD_INPUT | WINOGRAD_GRADIENT_INPUT, _) => {
            let text = "writes panels of an operand that changes from run to run".to_owned();
            Some(Cause { code: "packing", text })
        }
        _ => Some(Cause { code: "winograd", text: kernel.describe() }),
    }
}

/// The largest of the costs that the plan's estimate has beside useful multiply-adds.
fn contraction(plan: &ContractPlan) -> Cause {
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
fn loops(source: LaunchSource<'_>) -> Cause {
    let found = LaneUse::of(source.nest);
    let all = (found.lanes + found.single).max(1.0);
    let functions = expensive(source.nest).join(", ");
    let narrow = source.code.loops.iter().find_map(|one| match one.width {
        Width::Narrow { reason } => Some(reason),
        Width::Wide { .. } => None,
    });
    if let (None, false) = (narrow, source.code.loops.is_empty()) {
        return match () {
            () if !functions.is_empty() => Cause { code: "functions", text: format!("{functions} in 512-bit loops") },
            () if found.gathering > MUCH * all => gathers("512-bit"),
            () => Cause { code: "cache_misses", text: "512-bit loops, which wait for their data".to_owned() },
        };
    }
    if found.single > MUCH * all {
        let text = format!("{:.0} % of its statements run one by one: {}", 100.0 * found.single / all, found.reason);
        return Cause { code: "scalar_loops", text };
    }
    let reason = narrow.map(|reason| format!(": {reason}")).unwrap_or_default();
    if !functions.is_empty() {
        return Cause { code: "narrow_functions", text: format!("{functions} in 128-bit loops{reason}") };
    }
    if found.gathering > MUCH * all {
        return gathers("128-bit");
    }
    Cause { code: "narrow_loops", text: format!("128-bit loops{reason}") }
}

fn gathers(width: &str) -> Cause {
    Cause { code: "gathers", text: format!("{width} loops read an operand element by element, with a stride") }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use kiln_rt::kernels::Level;

    use super::super::{Bound, sources};
    use super::*;
    use crate::compile::{Options, compile};

    /// The cause of each launch of a graph, if it took 100 times as long as its roofline asks for.
    fn causes(body: &str) -> Vec<&'static str> {
        let text = format!("graph @f({body}\n}}\n");
        let module = kiln_ir::text::parse_module("m.kiln", &text).unwrap();
        let options = Options { level: Level::Portable, ..Options::default() };
        let program = compile(&module, &options).unwrap();
        let measured = measured(1e6, 1, 1);
        sources(&program.graphs["f"]).into_iter().map(|source| cause(source, &measured).code).collect()
    }

    fn measured(nanoseconds: f64, tiles: u64, threads: usize) -> Measured {
        let roofline = Roofline { nanoseconds: 1e4, bound: Bound::L2 };
        Measured { nanoseconds, tiles, roofline, threads, fork_join: 1000.0 }
    }

    #[test]
    fn short_launches_are_overhead_and_single_tiles_leave_threads_idle() {
        assert_eq!(cause(None, &measured(1.2e4, 8, 2)).code, "launch_overhead");
        assert_eq!(cause(None, &measured(6e4, 1, 2)).text, "1 tile for 2 threads");
        // Two threads explain half of it, not all.
        let both = cause(None, &measured(1e6, 1, 2));
        assert_eq!((both.code, both.text.ends_with("; 1 tile for 2 threads")), ("copy", true));
    }

    #[test]
    fn loops_are_known_by_what_keeps_them_from_lanes() {
        assert_eq!(causes("%x: f32[4096]) {\n  %y = exp %x\n  return %y"), ["narrow_functions"]);
        assert_eq!(causes("%x: f32[4096]) {\n  %y = relu %x\n  return %y"), ["narrow_loops"]);
        // Every other element.
        let strided = "%x: f32[8192]) {\n  %y = slice %x {start = [0], stop = [8192], step = [2]}\n  return %y";
        assert_eq!(causes(strided), ["gathers"]);
    }

    #[test]
    fn contractions_are_known_by_their_plans() {
        let dot = |m: usize, k: usize, n: usize| {
            causes(&format!(
                "%a: f32[{m}, {k}], %b: f32[{k}, {n}]) {{\n  %y = dot %a, %b {{a_contract = [1], b_contract = [0]}}\n  \
                 return %y"
            ))
        };
        // One row gives each packed element and each register one use, whichever operand the vectors come from.
        assert!(["few_rows", "idle_lanes", "packing"].contains(&dot(1, 512, 512)[0]));
        assert_eq!(dot(16, 65536, 32).last(), Some(&"split_sums"));
    }
}
