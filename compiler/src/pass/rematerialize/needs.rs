//! What each result of a kernel depends on: a second run need not make all of them, and some it must not, for the
//! states behind them have gone on.

use std::collections::HashMap;

use kiln_ir::graph::{Graph, Value};
use kiln_ir::types::Name;

use crate::memory::flow::Needs;
use crate::placement::ArenaFlow;
use crate::schedule::{Origin, Schedule};

/// Notes the needs of every group's results in the flow.
pub(super) fn note(graph: &Graph, schedule: &Schedule, flow: &mut ArenaFlow) {
    let values = flow.values.iter().enumerate();
    let numbers: HashMap<Value, usize> = values.filter_map(|(number, value)| Some(((*value)?, number))).collect();
    let states: HashMap<Name, usize> = flow.states.iter().cloned().zip(0..).collect();
    for (kernel, scheduled) in flow.flow.kernels.iter_mut().zip(&schedule.kernels) {
        let data = graph.node(scheduled.node);
        let [region] = data.regions.as_slice() else { continue };
        let needs_of = |&written: &usize| {
            let result = data.results.iter().position(|v| numbers.get(v) == Some(&written));
            let mut needs = Needs::default();
            for param in result.map(|result| params_behind(region, result)).unwrap_or_default() {
                match &schedule.origins[data.operands[param].index()] {
                    Origin::Computed(value) => needs.reads.extend(numbers.get(value)),
                    Origin::State(name) => needs.states.extend(states.get(name)),
                    _ => {}
                }
            }
            needs
        };
        kernel.needs = kernel.writes.iter().map(needs_of).collect();
    }
}

/// Numbers of the parameters that a yield depends on.
fn params_behind(region: &Graph, result: usize) -> Vec<usize> {
    let mut live = vec![false; region.value_count()];
    live[region.returns()[result].index()] = true;
    let nodes: Vec<_> = region.nodes().map(|(_, data)| data).collect();
    for data in nodes.into_iter().rev() {
        if data.results.iter().any(|v| live[v.index()]) {
            data.operands.iter().for_each(|v| live[v.index()] = true);
        }
    }
    let params = region.params().iter().enumerate();
    params.filter(|(_, param)| live[param.value.index()]).map(|(number, _)| number).collect()
}
