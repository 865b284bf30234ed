//! Rows that lie together are not moved: a slice of them is a view of what it is taken from, and what is concatenated is
//! computed where it will lie.
//!
//! ```text
//! concat a, b          b is computed behind a, the result is both: no kernel
//! slice x              names bytes of x: no kernel
//! ```
//! Limits. Both lie in the arena, so that inputs, states, constants and what the graph returns are copied as before. Rows
//! lie together along the first dimension whose extent is not 1, and begin at a multiple of [`ALIGNMENT`], which kernels
//! count on. A value is part of one concatenation only, and none of them is part of another.

use std::collections::{HashMap, HashSet};

use kiln_ir::graph::{Graph, NodeData, Value};
use kiln_ir::op::{Op, Slice};

use super::{Join, Origin, Schedule};
use crate::memory::ALIGNMENT;

/// The schedule without the kernels that only move rows; nothing if it has none.
pub fn without_moves(graph: &Graph, schedule: &Schedule) -> Option<Schedule> {
    let mut views = Views::new(graph, schedule);
    let kept: Vec<bool> = schedule.kernels.iter().map(|kernel| !views.take(graph.node(kernel.node))).collect();
    let mut next = views.next;
    let mut kept_of = kept.iter();
    next.kernels.retain(|_| kept_of.next().is_some_and(|&kept| kept));
    next.text = super::render(graph, &next.kernels);
    (next.kernels.len() < schedule.kernels.len()).then_some(next)
}

struct Views<'a> {
    graph: &'a Graph,
    next: Schedule,
    /// Results of kernels.
    computed: HashSet<Value>,
    /// Origins of what the graph returns and of what states become.
    wanted: HashSet<Origin>,
    /// Values that are part of a concatenation.
    parts: HashSet<Value>,
}

impl<'a> Views<'a> {
    fn new(graph: &'a Graph, schedule: &Schedule) -> Views<'a> {
        Views {
            graph,
            computed: schedule.kernels.iter().flat_map(|kernel| kernel.results.iter().copied()).collect(),
            wanted: graph.roots().map(|v| schedule.origins[v.index()].clone()).collect(),
            next: schedule.clone(),
            parts: HashSet::new(),
        }
    }

    /// Whether a node needs no kernel: then its result has a place inside another value's memory, or around others'.
    fn take(&mut self, data: &NodeData) -> bool {
        let [result] = data.results.as_slice() else { return false };
        if self.wanted.contains(&Origin::Computed(*result)) || self.graph.ty(*result).bytes() == 0 {
            return false;
        }
        match &data.op {
            Op::Slice(op) => self.slice(op, data.operands[0], *result).is_some(),
            Op::Concat(op) => self.concat(op.dim, &data.operands, *result).is_some(),
            _ => false,
        }
    }

    fn slice(&mut self, op: &Slice, operand: Value, result: Value) -> Option<()> {
        let base = self.next.origins[operand.index()].clone();
        let owned = matches!(base, Origin::Computed(_)) && !self.wanted.contains(&base);
        let within = self.next.views.get(&operand).copied().unwrap_or(0);
        let at = within + self.first_byte(op, operand, result)?;
        if !owned || !is_aligned(at) {
            return None;
        }
        // Reshapes of the result are other names for the same bytes.
        let old = Origin::Computed(result);
        for value in self.graph.values().filter(|v| self.next.origins[v.index()] == old).collect::<Vec<_>>() {
            self.next.origins[value.index()] = base.clone();
            self.next.views.insert(value, at);
        }
        Some(())
    }

    /// Where a slice begins in its operand, if its bytes lie together.
    fn first_byte(&self, op: &Slice, operand: Value, result: Value) -> Option<usize> {
        let (from, ty) = (self.graph.ty(operand), self.graph.ty(result));
        let (whole, part) = (from.extents(), ty.extents());
        let split = part.iter().position(|&extent| extent != 1).unwrap_or(part.len());
        let rest = || (split + 1).min(part.len())..part.len();
        if op.step.iter().any(|&step| step != 1) || rest().any(|d| part[d] != whole[d]) {
            return None;
        }
        let mut rows = 0;
        for (start, extent) in op.start.iter().zip(&whole) {
            rows = rows * extent + usize::try_from(*start).ok()?;
        }
        Some(rows * ty.dtype.bytes())
    }

    fn concat(&mut self, dim: i64, operands: &[Value], result: Value) -> Option<()> {
        let extents = self.graph.ty(result).extents();
        let dim = usize::try_from(dim).ok().filter(|&dim| dim < extents.len())?;
        if extents[..dim].iter().any(|&extent| extent != 1) {
            return None;
        }
        let mut parts: HashMap<Value, usize> = HashMap::new();
        let mut at = 0;
        let mut join = Join { value: result, parts: Vec::new() };
        for &operand in operands {
            let origin = &self.next.origins[operand.index()];
            let Origin::Computed(part) = *origin else { return None };
            let fresh = self.computed.contains(&part) && !self.wanted.contains(origin) && !self.parts.contains(&part);
            let whole = !self.next.views.contains_key(&operand) && !self.is_join(part);
            if !fresh || !whole || !is_aligned(at) || parts.insert(part, at).is_some() {
                return None;
            }
            join.parts.push((part, at));
            at += self.graph.ty(operand).bytes();
        }
        self.parts.extend(parts.into_keys());
        self.next.joins.push(join);
        Some(())
    }

    fn is_join(&self, value: Value) -> bool {
        self.next.joins.iter().any(|join| join.value == value)
    }
}

fn is_aligned(bytes: usize) -> bool {
    (bytes as u64).is_multiple_of(ALIGNMENT)
}
