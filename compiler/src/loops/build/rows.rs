//! Row programs: per row some reductions, then results per row or per element.

use kiln_ir::graph::Graph;
use kiln_ir::types::Extents;

use super::batches;
use super::blocks::Blocks;
use super::evaluate::Evaluator;
use super::form::{RowForm, Source};
use super::in_place::in_place;
use super::keep::{Stores, keep_expensive};
use super::plan::{Lanes, Plan};
use super::shape::{linear, unflatten};
use super::{Built, Declined, Part};
use crate::loops::nest::{Atom, Index, Loop, Stmt, Var};
use crate::loops::tile::Tiling;

/// Builds the nest of a region in row form.
pub(super) fn build(name: &str, region: &Graph, form: &RowForm) -> Result<Built, Declined> {
    let plan = Plan::of(region, form)?;
    let mut cx = Evaluator::new(name, region)?;
    cx.proven = Some(plan.unproven.clone());
    if plan.periods.iter().any(|&p| p > 1) {
        return phased(cx, form, &plan);
    }
    if let Some(blocks) = Blocks::of(region, form, &plan) {
        return super::blocks::build(name, region, form, &plan, &blocks);
    }
    let stores = if plan.unrolled { Stores::in_last(&cx, form) } else { Stores::of(&cx, form) };
    if plan.lanes == Lanes::Reduced {
        keep_expensive(&mut cx, form, &stores);
    }
    let loops = plan.rows.loops();
    let last = loops[loops.len() - 1];
    let outer: Extents = loops[..loops.len() - 1].into();
    let (tiles, body) = match plan.lanes {
        Lanes::Reduced => {
            let count: usize = loops.iter().product();
            if let Some(batch) = batches::rows_of(&cx, form, &plan, &stores) {
                let tiling = Tiling::new(count as u64, plan.nanoseconds, batch as u64);
                let body = batches::build(&mut cx, form, &plan, &stores, batch, &tiling)?;
                return Ok(finish(cx, tiling.tiles, body, &plan));
            }
            let tiling = Tiling::new(count as u64, plan.nanoseconds, 1);
            let row = cx.ranges.var(&cx.nest, "row", count);
            cx.row = plan.rows.indices(&unflatten(&Index::var(row), &loops));
            let body = row_body(&mut cx, form, &plan, &stores)?;
            (tiling.tiles, vec![Loop::range(row, tiling.begin(), tiling.end()).body(body)])
        }
        Lanes::Row => {
            let count: usize = outer.iter().product();
            let cell = plan.nanoseconds;
            // Few long rows are cut along the row, many rows between them.
            let along = count < 16 && last > 64;
            let tiling = if along {
                Tiling::new(last as u64, cell * count as f64, 16)
            } else {
                Tiling::new(count as u64, cell * last as f64, 1)
            };
            let row = cx.ranges.var(&cx.nest, "row", count);
            let lane = cx.ranges.var(&cx.nest, "i", last);
            let mut indices = if outer.is_empty() { Vec::new() } else { unflatten(&Index::var(row), &outer) };
            indices.push(Index::var(lane));
            cx.row = plan.rows.indices(&indices);
            let body = row_body(&mut cx, form, &plan, &stores)?;
            let (before, body) = hoist(&cx, body, lane);
            let inner = if along { Loop::range(lane, tiling.begin(), tiling.end()) } else { Loop::over(lane, last) };
            let inner = wrap(before, inner.vector().body(body));
            let nest = match (outer.is_empty(), along) {
                (true, true) => inner,
                // One short row: a single tile.
                (true, false) => inner,
                (false, true) => vec![Loop::over(row, count).body(inner)],
                (false, false) => vec![Loop::range(row, tiling.begin(), tiling.end()).body(inner)],
            };
            (tiling.tiles, nest)
        }
    };
    let tiles = if loops.contains(&0) { 0 } else { tiles.max(1) };
    Ok(finish(cx, tiles, body, &plan))
}

/// Rows phase by phase: in each phase a divided index is whole or not for all rows alike.
fn phased(mut cx: Evaluator<'_>, form: &RowForm, plan: &Plan) -> Result<Built, Declined> {
    cx.proven = None;
    let stores = Stores::in_last(&cx, form);
    let first = plan.periods.iter().position(|&p| p > 1).unwrap_or(0);
    let outer: Extents = form.rows[..first].into();
    let count: usize = outer.iter().product();
    let inner: usize = form.rows[first..].iter().product();
    let tiling = Tiling::new(count as u64, plan.nanoseconds * inner as f64, 1);
    let row = cx.ranges.var(&cx.nest, "row", count);
    let prefix = if outer.is_empty() { Vec::new() } else { unflatten(&Index::var(row), &outer) };
    let mut body = Vec::new();
    for phase in 0..plan.periods.iter().product::<usize>() {
        let offsets = unflatten(&Index::constant(phase as i64), &plan.periods);
        let mut loops = Vec::new();
        cx.row = prefix.clone();
        for (d, offset) in offsets.iter().enumerate().skip(first) {
            let (period, offset) = (plan.periods[d], offset.as_constant().unwrap_or(0));
            let extent = (form.rows[d].saturating_sub(offset as usize)).div_ceil(period);
            let var = cx.ranges.var(&cx.nest, "i", extent);
            cx.row.push(Index::var(var) * period as i64 + offset);
            loops.push((var, extent));
        }
        let list = row_body(&mut cx, form, plan, &stores)?;
        body.push(super::reduce::nest_loops(loops, list, true));
    }
    let body = if outer.is_empty() { body } else { vec![Loop::range(row, tiling.begin(), tiling.end()).body(body)] };
    let tiles = if form.rows.contains(&0) { 0 } else { tiling.tiles.max(1) };
    Ok(finish(cx, tiles, body, plan))
}

pub(super) fn finish(mut cx: Evaluator<'_>, tiles: u64, body: Vec<Stmt>, plan: &Plan) -> Built {
    let checks = std::mem::take(&mut cx.checks);
    let (results, params) = (cx.results.clone(), cx.params.clone());
    let nest = cx.nest.finish(tiles, body);
    let in_place = in_place(&nest, &params, &results);
    let launches = vec![Part::whole(nest, params.len())];
    Built { launches, workspace_bytes: 0, in_place, checks, flops: plan.flops }
}

/// Statements that guard a loop, innermost last.
pub(super) fn wrap(before: Vec<Stmt>, inner: Stmt) -> Vec<Stmt> {
    let mut list = vec![inner];
    for stmt in before.into_iter().rev() {
        list = match stmt {
            Stmt::Check { value, limit, site, position, .. } => {
                vec![Stmt::Check { value, limit, site, position, body: list }]
            }
            Stmt::If { condition, otherwise, .. } => vec![Stmt::If { condition, then: list, otherwise }],
            other => std::iter::once(other).chain(list).collect(),
        };
    }
    list
}

/// Takes loaded indices and conditions that do not depend on `lane` out of the loop over it: a row is checked once.
pub(super) fn hoist(cx: &Evaluator<'_>, mut body: Vec<Stmt>, lane: Var) -> (Vec<Stmt>, Vec<Stmt>) {
    let mut before = Vec::new();
    loop {
        match body.first() {
            Some(Stmt::Let { value, .. }) if !cx.nest.uses(*value, lane) => before.push(body.remove(0)),
            Some(Stmt::Check { value, position, .. })
                if body.len() == 1 && !cx.nest.uses(*value, lane) && !position_uses(position, lane) =>
            {
                let Some(Stmt::Check { value, limit, site, position, body: inner }) = body.pop() else { break };
                before.push(Stmt::Check { value, limit, site, position, body: Vec::new() });
                body = inner;
            }
            Some(Stmt::If { condition, otherwise, .. })
                if body.len() == 1 && otherwise.is_empty() && !cx.nest.uses(*condition, lane) =>
            {
                let Some(Stmt::If { condition, then, otherwise }) = body.pop() else { break };
                before.push(Stmt::If { condition, then: Vec::new(), otherwise });
                body = then;
            }
            _ => break,
        }
    }
    (before, body)
}

fn position_uses(index: &Index, var: Var) -> bool {
    let mut found = false;
    index.visit(&mut |atom| found |= *atom == Atom::Var(var));
    found
}

/// Everything that is done for one row.
fn row_body(cx: &mut Evaluator<'_>, form: &RowForm, plan: &Plan, stores: &Stores) -> Result<Vec<Stmt>, Declined> {
    let lanes = plan.lanes == Lanes::Reduced;
    let mut body = Vec::new();
    for (number, stage) in form.stages.iter().enumerate() {
        body.extend(match plan.unrolled {
            true => super::reduce::unrolled(cx, form, stage)?,
            false => super::reduce::stage(cx, form, &plan.reduced, stage, lanes, &stores.by_stage[number], None)?,
        });
    }
    body.extend(results_per_row(cx, form)?);
    body.extend(last_elements(cx, form, plan, stores)?);
    Ok(body)
}

/// Results that have one element per row, once all stages have run.
pub(super) fn results_per_row(cx: &mut Evaluator<'_>, form: &RowForm) -> Result<Vec<Stmt>, Declined> {
    let per_row = form.per_row(cx.region);
    if per_row.is_empty() {
        return Ok(Vec::new());
    }
    cx.begin();
    let at = cx.row.clone();
    let stores = store_all(cx, &per_row, &at, &form.rows)?;
    Ok(cx.end(stores))
}

/// The loop over the results per element that no stage stores.
pub(super) fn last_elements(
    cx: &mut Evaluator<'_>,
    form: &RowForm,
    plan: &Plan,
    stores: &Stores,
) -> Result<Option<Stmt>, Declined> {
    if stores.last.is_empty() {
        return Ok(None);
    }
    let extents = form.element_extents().ok_or(Declined::Domain)?;
    let (loops, reduced) = super::reduce::loops(cx, &plan.reduced);
    let at = element_index(cx, form, &reduced);
    enter_element(cx, form, &reduced, &at);
    let stores = store_all(cx, &stores.last, &at, &extents)?;
    let inner = cx.end(stores);
    leave_element(cx);
    Ok(Some(super::reduce::nest_loops(loops, inner, plan.lanes == Lanes::Reduced)))
}

/// Computes results, then stores them: a store in place may not come before a load.
pub(super) fn store_all(
    cx: &mut Evaluator<'_>,
    results: &[usize],
    at: &[Index],
    extents: &[usize],
) -> Result<Vec<Stmt>, Declined> {
    let mut stores = Vec::new();
    for &result in results {
        let value = cx.region.returns()[result];
        let mut expr = cx.value(value, at, None)?;
        if results.len() > 1 {
            let data = cx.region.value(value);
            let local = cx.nest.local(&data.name, data.ty.dtype);
            cx.first_do(Stmt::Let { local, value: expr });
            expr = cx.nest.value(local);
        }
        stores.push(cx.nest.store(cx.results[result], linear(at, extents), expr));
    }
    Ok(stores)
}

/// Index of an element from the row's index and the reduced indices.
pub(super) fn element_index(cx: &Evaluator<'_>, form: &RowForm, reduced: &[Index]) -> Vec<Index> {
    let index = |source: &Source| match *source {
        Source::Row(d) => cx.row[d].clone(),
        Source::Reduced(d) => reduced[d].clone(),
    };
    form.element.iter().flatten().map(index).collect()
}

/// Opens the statement list of an element loop.
pub(super) fn enter_element(cx: &mut Evaluator<'_>, form: &RowForm, reduced: &[Index], at: &[Index]) {
    cx.begin();
    cx.element = form.element.is_some().then(|| at.to_vec());
    cx.scratch_index = linear(reduced, &form.reduced);
}

/// Closes it: what it stored in row scratch may be loaded from now on.
pub(super) fn leave_element(cx: &mut Evaluator<'_>) {
    cx.element = None;
    cx.settle_kept();
}
