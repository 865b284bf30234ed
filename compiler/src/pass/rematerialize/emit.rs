//! From a choice of second runs to a graph.

use std::collections::HashMap;

use kiln_ir::graph::{Graph, NodeData, Provenance, Value, ValueMap};
use kiln_ir::types::{Name, TensorType};

use crate::memory::recompute::Recomputed;
use crate::schedule::{Origin, Schedule};

/// The graph in the order found, with the second runs. `values` says which value of the graph each number of the flow is.
pub(super) fn graph(graph: &Graph, schedule: &Schedule, values: &[Option<Value>], found: &Recomputed) -> Graph {
    let numbers = values.iter().enumerate().filter_map(|(number, value)| Some(((*value)?, number)));
    let mut emitter = Emitter {
        graph,
        schedule,
        values,
        found,
        numbers: numbers.collect(),
        next: graph.successor(),
        params: ValueMap::params(graph),
        done: HashMap::new(),
    };
    for &kernel in &found.order {
        emitter.kernel(kernel);
    }
    emitter.finish()
}

struct Emitter<'a> {
    graph: &'a Graph,
    schedule: &'a Schedule,
    values: &'a [Option<Value>],
    found: &'a Recomputed,
    /// Number of each value in the flow.
    numbers: HashMap<Value, usize>,
    next: Graph,
    params: ValueMap,
    /// New value of each old one, by the run that makes it if it lies in the arena.
    done: HashMap<(Value, Option<usize>), Value>,
}

impl Emitter<'_> {
    fn kernel(&mut self, kernel: usize) {
        let step = self.found.kernel_of[kernel];
        let data = self.graph.node(self.schedule.kernels[step].node);
        if kernel == step {
            self.first_run(kernel, data);
        } else {
            self.second_run(kernel, data);
        }
    }

    fn first_run(&mut self, kernel: usize, data: &NodeData) {
        let operands: Vec<Value> = data.operands.iter().map(|&v| self.read(kernel, v)).collect();
        let results: Vec<(Name, TensorType)> =
            data.results.iter().map(|&v| (self.graph.value_name(v).clone(), self.graph.ty(v).clone())).collect();
        let node = self.next.push(data.op.clone(), operands, results, data.regions.clone(), data.provenance.clone());
        let new = self.next.node(node).results.clone();
        for (&old, new) in data.results.iter().zip(new) {
            self.done.insert((old, self.numbers.get(&old).copied()), new);
        }
    }

    /// The members that the results wanted need, under names of their own.
    fn second_run(&mut self, kernel: usize, data: &NodeData) {
        let writes = &self.found.flow.kernels[kernel].writes;
        let wanted: Vec<(Value, usize)> =
            writes.iter().filter_map(|&run| Some((self.values[self.found.value_of[run]]?, run))).collect();
        let (kept, operands, regions) = match data.regions.as_slice() {
            [region] => {
                let of = |(value, run): &(Value, usize)| Some((data.results.iter().position(|r| r == value)?, *run));
                let kept: Vec<(usize, usize)> = wanted.iter().filter_map(of).collect();
                let results: Vec<usize> = kept.iter().map(|&(result, _)| result).collect();
                let (region, params) = part(region, &results);
                (kept, params.into_iter().map(|param| data.operands[param]).collect(), vec![region])
            }
            _ => {
                let run = |value: &Value| wanted.iter().find(|(other, _)| other == value).map(|&(_, run)| run);
                // A single op has all of its results; those not wanted are read by nobody.
                let kept = data.results.iter().enumerate().map(|(i, v)| (i, run(v).unwrap_or(usize::MAX)));
                (kept.collect(), data.operands.to_vec(), Vec::new())
            }
        };
        let operands: Vec<Value> = operands.into_iter().map(|v| self.read(kernel, v)).collect();
        let results: Vec<(Name, TensorType)> = kept
            .iter()
            .map(|&(result, _)| {
                let value = data.results[result];
                (Name::from(format!("{}.again", self.graph.value_name(value))), self.graph.ty(value).clone())
            })
            .collect();
        let provenance = Provenance { source: data.provenance.source.clone(), derived: Some("rematerialize".into()) };
        let node = self.next.push(data.op.clone(), operands, results, regions, provenance);
        let new = self.next.node(node).results.clone();
        for (&(result, run), new) in kept.iter().zip(new) {
            self.done.insert((data.results[result], Some(run)), new);
        }
    }

    /// What a kernel reads for an old value: what the run made that the choice names.
    fn read(&mut self, kernel: usize, value: Value) -> Value {
        let run = match &self.schedule.origins[value.index()] {
            Origin::Computed(origin) => self.numbers.get(origin).copied(),
            _ => None,
        };
        let reads = &self.found.flow.kernels[kernel].reads;
        let of_it = |number: usize| reads.iter().copied().find(|&read| self.found.value_of[read] == number);
        let run = run.map(|number| of_it(number).unwrap_or(number));
        self.resolve(value, run)
    }

    /// A value as `run` made it; states, constants and views are written where they are first needed.
    fn resolve(&mut self, value: Value, run: Option<usize>) -> Value {
        if let Some(&new) = self.done.get(&(value, run)) {
            return new;
        }
        let Some((_, data)) = self.graph.producer(value) else { return self.params.get(value) };
        let operands: Vec<Value> = data.operands.iter().map(|&operand| self.resolve(operand, run)).collect();
        let results = data.results.iter().map(|&v| (self.graph.value_name(v).clone(), self.graph.ty(v).clone()));
        let node = self.next.push(
            data.op.clone(),
            operands,
            results.collect::<Vec<_>>(),
            data.regions.clone(),
            data.provenance.clone(),
        );
        let new = self.next.node(node).results.clone();
        for (&old, &new) in data.results.iter().zip(&new) {
            self.done.insert((old, run), new);
        }
        self.done[&(value, run)]
    }

    /// Returns and updates are made by first runs.
    fn finish(mut self) -> Graph {
        let origin = |value: Value| match &self.schedule.origins[value.index()] {
            Origin::Computed(origin) => self.numbers.get(origin).copied(),
            _ => None,
        };
        let returns: Vec<(Value, Option<usize>)> = self.graph.returns().iter().map(|&v| (v, origin(v))).collect();
        let updates = self.graph.updates().iter().map(|u| (u.state.clone(), u.value, origin(u.value)));
        let updates: Vec<(Name, Value, Option<usize>)> = updates.collect();
        let returns: Vec<Value> = returns.into_iter().map(|(value, run)| self.resolve(value, run)).collect();
        self.next.set_returns(returns);
        for (state, value, run) in updates {
            let value = self.resolve(value, run);
            self.next.add_update(state, value);
        }
        self.next
    }
}

/// The part of a region that some of its yields need, with the numbers of the parameters that are left.
fn part(region: &Graph, yields: &[usize]) -> (Graph, Vec<usize>) {
    let wanted: Vec<Value> = yields.iter().map(|&result| region.returns()[result]).collect();
    let mut live = vec![false; region.value_count()];
    wanted.iter().for_each(|v| live[v.index()] = true);
    let nodes: Vec<&NodeData> = region.nodes().map(|(_, data)| data).collect();
    for data in nodes.iter().rev() {
        if data.results.iter().any(|v| live[v.index()]) {
            data.operands.iter().for_each(|v| live[v.index()] = true);
        }
    }
    let mut next = Graph::default();
    let mut map = ValueMap::empty(region);
    let mut params = Vec::new();
    for (number, param) in region.params().iter().enumerate().filter(|(_, p)| live[p.value.index()]) {
        let data = region.value(param.value);
        map.set(param.value, next.add_param(data.name.clone(), data.ty.clone(), param.below));
        params.push(number);
    }
    for data in nodes.into_iter().filter(|data| data.results.iter().any(|v| live[v.index()])) {
        next.push_copy(region, data, &mut map);
    }
    next.set_returns(wanted.iter().map(|&v| map.get(v)));
    (next, params)
}
