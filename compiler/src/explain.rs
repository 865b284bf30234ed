//! Why a program became what it is, as text.

use std::fmt::Write as _;

use crate::placement::Placement;

/// The memory plan of a graph: its certificate, and memory over time.
pub fn memory(placement: &Placement) -> String {
    let plan = &placement.plan;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "memory plan: {} buffers\n  lower bound {:>12} bytes\n  plan        {:>12} bytes  {}\n  gap         {:>12.2} %\n  \
         naive total {:>12} bytes",
        placement.problem.buffers().len(),
        plan.lower_bound,
        plan.peak,
        plan.solver,
        100.0 * plan.gap(),
        plan.naive
    );
    text
}
