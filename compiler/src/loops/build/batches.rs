//! Short rows in batches: every stage runs for all rows of a batch before the next one does.
//!
//! From one stage of a row to the next its total goes through a chain of latencies (lanes to one value, to memory, to all
//! lanes) as long as the work on a row of a few vectors. Rows of a batch are independent, so stage by stage their chains
//! overlap. Totals wait in scratch; what the rows read stays in the first cache. The bits are those of row after row.

use kiln_ir::graph::Value;

use super::Declined;
use super::evaluate::Evaluator;
use super::form::RowForm;
use super::keep::Stores;
use super::plan::Plan;
use super::reduce;
use super::rows::{last_elements, results_per_row};
use super::shape::unflatten;
use crate::loops::nest::{Index, Loop, Place, Stmt, Var};
use crate::loops::tile::Tiling;

/// Elements of a batch: with operands and results a part of the first cache.
const BATCH_ELEMENTS: usize = 2048;
/// Longer rows hide the latency themselves.
const LONGEST_ROW: usize = 512;
const LEAST_ROWS: usize = 4;

/// Rows in a batch, if batches are of use: there are several loops over short rows, and nothing else is kept from one to the
/// next.
pub(super) fn rows_of(cx: &Evaluator<'_>, form: &RowForm, plan: &Plan, stores: &Stores) -> Option<usize> {
    let loops = form.stages.len() + usize::from(!stores.last.is_empty());
    let [length] = plan.reduced.loops()[..] else { return None };
    let rows: usize = form.rows.iter().product();
    let batch = BATCH_ELEMENTS.checked_div(length)?.min(rows);
    (loops > 1 && !plan.checked && cx.kept.is_empty() && length <= LONGEST_ROW && batch >= LEAST_ROWS).then_some(batch)
}

/// The loops of a tile.
pub(super) fn build(
    cx: &mut Evaluator<'_>,
    form: &RowForm,
    plan: &Plan,
    stores: &Stores,
    batch: usize,
    tiling: &Tiling,
) -> Result<Vec<Stmt>, Declined> {
    let loops = plan.rows.loops();
    let count: usize = loops.iter().product();
    let first = cx.ranges.var(&cx.nest, "batch", count);
    let mut waiting: Vec<(Value, Place)> = Vec::new();
    let mut body = Vec::new();
    let separate = !stores.last.is_empty();
    for number in 0..form.stages.len() + usize::from(separate) {
        let row = cx.ranges.var(&cx.nest, "row", count);
        cx.row = plan.rows.indices(&unflatten(&Index::var(row), &loops));
        let at = Index::var(row) + Index::var(first) * -1;
        let mut list = taken_up(cx, &waiting, &at);
        if let Some(stage) = form.stages.get(number) {
            list.extend(reduce::stage(cx, form, &plan.reduced, stage, true, &stores.by_stage[number], None)?);
        }
        if number + 1 < form.stages.len() + usize::from(separate) {
            for &value in &form.stages[number] {
                let (data, _) = reduce::member(cx, value)?;
                for &value in &data.results {
                    let local = *cx.row_values.get(&value).ok_or(Declined::Body)?;
                    let total = cx.nest.value(local);
                    let place = cx.nest.scratch(&**cx.region.value_name(value), cx.nest.dtype(total), batch);
                    list.push(cx.nest.store(place, at.clone(), total));
                    waiting.push((value, place));
                }
            }
        } else {
            list.extend(results_per_row(cx, form)?);
            list.extend(last_elements(cx, form, plan, stores)?);
        }
        let end = (Index::var(first) + batch as i64).at_most(count as i64);
        body.push(Loop::range(row, Index::var(first), end).body(list));
    }
    Ok(vec![over_batches(first, tiling, batch).body(body)])
}

fn over_batches(first: Var, tiling: &Tiling, batch: usize) -> Loop {
    Loop::range(first, tiling.begin(), tiling.end()).step(batch as i64)
}

/// The totals of a row that earlier loops have left.
fn taken_up(cx: &mut Evaluator<'_>, waiting: &[(Value, Place)], at: &Index) -> Vec<Stmt> {
    let mut list = Vec::new();
    for &(value, place) in waiting {
        let total = cx.nest.load(place, at.clone());
        let local = cx.nest.local(cx.region.value_name(value), cx.nest.dtype(total));
        list.push(Stmt::Let { local, value: total });
        cx.row_values.insert(value, local);
    }
    list
}
