//! What is computed once per row although several loops need it: results per element, which lie in their own memory
//! from the first loop on that computes them, and expensive values, which get row scratch.

use std::collections::BTreeSet;

use kiln_ir::graph::Value;

use super::evaluate::{Evaluator, Kept, is_expensive};
use super::form::RowForm;

/// Which loop stores each result per element, by number.
pub(super) struct Stores {
    /// By stage: those that its loop computes anyway.
    pub(super) by_stage: Vec<Vec<usize>>,
    /// The others have a loop behind all stages.
    pub(super) last: Vec<usize>,
}

impl Stores {
    /// A stage stores what it is the first to need.
    pub(super) fn of(cx: &Evaluator<'_>, form: &RowForm) -> Stores {
        let mut last = form.per_element(cx.region);
        let mut by_stage = Vec::new();
        for stage in &form.stages {
            let needed = needed(cx, stage, &BTreeSet::new());
            let (early, rest) = last.into_iter().partition(|&result| needed.contains(&cx.region.returns()[result]));
            by_stage.push(early);
            last = rest;
        }
        Stores { by_stage, last }
    }

    /// All behind the stages, which have no loops.
    pub(super) fn in_last(cx: &Evaluator<'_>, form: &RowForm) -> Stores {
        Stores { by_stage: vec![Vec::new(); form.stages.len()], last: form.per_element(cx.region) }
    }
}

/// Gives row scratch to expensive values that several loops need.
pub(super) fn keep_expensive(cx: &mut Evaluator<'_>, form: &RowForm, stores: &Stores) {
    let Some(element) = form.element_extents() else { return };
    let values = |results: &[usize]| results.iter().map(|&result| cx.region.returns()[result]).collect::<Vec<_>>();
    let mut stored = BTreeSet::new();
    let mut needs: Vec<BTreeSet<Value>> = Vec::new();
    for (stage, early) in form.stages.iter().zip(&stores.by_stage) {
        needs.push(needed(cx, stage, &stored));
        stored.extend(values(early));
    }
    needs.push(needed(cx, &values(&stores.last), &stored));
    let elements: usize = form.reduced.iter().product();
    for value in cx.region.values() {
        let Some((_, map, _)) = cx.map(value) else { continue };
        let per_element = map.reduce.is_empty() && cx.region.ty(value).extents() == element && !stored.contains(&value);
        if per_element && is_expensive(map) && needs.iter().filter(|n| n.contains(&value)).count() > 1 {
            let data = cx.region.value(value);
            let place = cx.nest.scratch(&*data.name, data.ty.dtype, elements);
            cx.kept.insert(value, Kept { place, filled: false, is_result: false });
        }
    }
}

/// Members that a loop computes, not looking behind reductions and what is stored.
fn needed(cx: &Evaluator<'_>, roots: &[Value], stored: &BTreeSet<Value>) -> BTreeSet<Value> {
    let mut seen = BTreeSet::new();
    let mut work: Vec<Value> = Vec::new();
    for &root in roots {
        match cx.map(root) {
            Some((data, map, _)) if !map.reduce.is_empty() => work.extend(&data.operands),
            _ => work.push(root),
        }
    }
    while let Some(value) = work.pop() {
        let Some((data, map, _)) = cx.map(value) else { continue };
        if map.reduce.is_empty() && !stored.contains(&value) && seen.insert(value) {
            work.extend(&data.operands);
        }
    }
    seen
}
