//! Row scratch: expensive values that several stages need are computed once per row.

use std::collections::BTreeSet;

use kiln_ir::graph::Value;

use super::evaluate::{Evaluator, Kept, is_expensive};
use super::form::RowForm;

/// Gives row scratch to expensive values that several stages need.
pub(super) fn keep_expensive(cx: &mut Evaluator<'_>, form: &RowForm) {
    let Some(element) = form.element_extents() else { return };
    let mut roots: Vec<Vec<Value>> = form.stages.clone();
    // Results per element that depend on no reduction are stored by the first stage.
    let early = form.before_stages(cx.region);
    let (early, late): (Vec<usize>, Vec<usize>) =
        form.per_element(cx.region).into_iter().partition(|result| early.contains(result));
    let values = |results: Vec<usize>| results.into_iter().map(|result| cx.region.returns()[result]);
    if let Some(first) = roots.first_mut() {
        first.extend(values(early));
    }
    roots.push(values(late).collect());
    let needs: Vec<BTreeSet<Value>> = roots.iter().map(|r| needed(cx, r)).collect();
    let elements: usize = form.reduced.iter().product();
    for value in cx.region.values() {
        let Some((_, map, _)) = cx.map(value) else { continue };
        let per_element = map.reduce.is_empty() && cx.region.ty(value).extents() == element;
        if per_element && is_expensive(map) && needs.iter().filter(|n| n.contains(&value)).count() > 1 {
            let data = cx.region.value(value);
            let place = cx.nest.scratch(&*data.name, data.ty.dtype, elements);
            cx.kept.insert(value, Kept { place, filled: false });
        }
    }
}

/// Members that a stage computes, not looking behind reductions.
fn needed(cx: &Evaluator<'_>, roots: &[Value]) -> BTreeSet<Value> {
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
        if map.reduce.is_empty() && seen.insert(value) {
            work.extend(&data.operands);
        }
    }
    seen
}
