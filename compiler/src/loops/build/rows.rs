//! Row programs: per row some reductions, then results per row or per element.

use std::collections::{BTreeSet, HashSet};

use kiln_ir::body::{Affine, Body, IndexExpr, Map, Read};
use kiln_ir::graph::{Graph, Value};
use kiln_ir::types::Extents;

use super::evaluate::{Evaluator, Kept, ReadSite, is_expensive};
use super::shape::{Dims, indices_of, linear, unflatten};
use super::{Built, Declined, body_of};
use crate::loops::nest::{Atom, ExprNode, Index, Loop, LoopNest, Place, Stmt, Var};
use crate::loops::tile::Tiling;

/// Loop structure of a region.
#[derive(Clone, Debug, PartialEq)]
pub struct RowForm {
    /// Extents of the rows; without reductions a row is an element.
    pub rows: Extents,
    /// Extents of the reduced dimensions.
    pub reduced: Extents,
    /// If results or members per element exist beside reductions: where each of their dimensions comes from.
    pub element: Option<Vec<Source>>,
    /// Members that reduce, in order, in stages that share a loop.
    pub stages: Vec<Vec<Value>>,
}

/// Where a dimension of the element shape comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Dimension of the rows.
    Row(usize),
    /// Reduced dimension.
    Reduced(usize),
}

impl RowForm {
    /// Whether a value has one element per row: by its extents, or as a reduction, whose parallel dimensions may split
    /// those of the result (a grouped convolution).
    fn is_per_row(&self, region: &Graph, value: Value) -> bool {
        region.ty(value).extents() == self.rows || self.stages.iter().flatten().any(|&reduced| reduced == value)
    }

    /// Extents of one element per row and reduced position.
    pub fn element_extents(&self) -> Option<Extents> {
        let extent = |source: &Source| match *source {
            Source::Row(d) => self.rows[d],
            Source::Reduced(d) => self.reduced[d],
        };
        Some(self.element.as_ref()?.iter().map(extent).collect())
    }
}

/// The row form of a region.
///
/// # Errors
/// What stands in the way of one nest.
pub fn row_form(region: &Graph) -> Result<RowForm, Declined> {
    let mut maps: Vec<Map> = Vec::new();
    for (_, data) in region.nodes() {
        match body_of(region, data) {
            Body::Map(map) => maps.push(map),
            _ => return Err(Declined::Body),
        }
    }
    let reducers: Vec<usize> = (0..maps.len()).filter(|&m| !maps[m].reduce.is_empty()).collect();
    let form = match reducers.split_first() {
        None => {
            let rows = region.returns().first().map(|&v| region.ty(v).extents()).ok_or(Declined::Domain)?;
            RowForm { rows, reduced: Extents::new(), element: None, stages: Vec::new() }
        }
        Some((&first, rest)) => {
            let form = RowForm {
                rows: maps[first].parallel.clone(),
                reduced: maps[first].reduce.clone(),
                element: element_of(region, first, &maps[first]),
                stages: stages(region, &reducers),
            };
            for &other in rest {
                let map = &maps[other];
                let same = map.parallel == form.rows && map.reduce == form.reduced;
                if !same || element_of(region, other, map) != form.element || form.element.is_none() {
                    return Err(Declined::Reductions);
                }
            }
            form
        }
    };
    check_results(region, &form)?;
    check_row_reads(region, &form, &maps)?;
    Ok(form)
}

fn check_results(region: &Graph, form: &RowForm) -> Result<(), Declined> {
    let element = form.element_extents();
    let per_element = |v: Value| element.as_ref().is_some_and(|element| *element == region.ty(v).extents());
    let all = region.returns().iter().all(|&v| form.is_per_row(region, v) || per_element(v));
    if all { Ok(()) } else { Err(Declined::Domain) }
}

/// Reads of anything that depends on a reduction must stay in their row and, per element, at their element.
fn check_row_reads(region: &Graph, form: &RowForm, maps: &[Map]) -> Result<(), Declined> {
    let mut tainted = vec![false; region.value_count()];
    let element = form.element_extents();
    for (node, data) in region.nodes() {
        let map = &maps[node.index()];
        let reads_taint = data.operands.iter().any(|v| tainted[v.index()]);
        let reduces = !map.reduce.is_empty();
        if reads_taint {
            // Dimensions of the reader that are the row, and those that are the element.
            let (row_dims, element_dims): (Vec<usize>, Vec<usize>) = if reduces {
                let dims = form.element.iter().flatten().map(|s| match *s {
                    Source::Row(d) => d,
                    Source::Reduced(d) => form.rows.len() + d,
                });
                ((0..form.rows.len()).collect(), dims.collect())
            } else if map.parallel == form.rows {
                ((0..form.rows.len()).collect(), Vec::new())
            } else if Some(&map.parallel) == element.as_ref() {
                (row_dims_of_element(form), (0..map.parallel.len()).collect())
            } else {
                return Err(Declined::Row);
            };
            for read in map.reads.iter().filter(|r| tainted[data.operands[r.operand].index()]) {
                let extents = region.ty(data.operands[read.operand]).extents();
                let wanted = if extents == form.rows { &row_dims } else { &element_dims };
                if read.view.is_some() || !reads_exactly(read, wanted) {
                    return Err(Declined::Row);
                }
            }
        }
        if reads_taint || reduces {
            data.results.iter().for_each(|v| tainted[v.index()] = true);
        }
    }
    Ok(())
}

fn row_dims_of_element(form: &RowForm) -> Vec<usize> {
    let sources = form.element.as_deref().unwrap_or_default();
    let place = |row: usize| sources.iter().position(|s| *s == Source::Row(row));
    (0..form.rows.len()).filter_map(place).collect()
}

fn reads_exactly(read: &Read, dims: &[usize]) -> bool {
    read.index.len() == dims.len()
        && read.index.iter().zip(dims).all(|(index, &dim)| *index == IndexExpr::Affine(Affine::dim(dim)))
}

/// The element shape of a reduction: an operand read once per row and reduced position, and nowhere else.
fn element_of(region: &Graph, member: usize, map: &Map) -> Option<Vec<Source>> {
    let (_, data) = region.nodes().nth(member)?;
    let rows = map.parallel.len();
    let total = rows + map.reduce.len();
    map.reads.iter().find_map(|read| {
        let extents = region.ty(data.operands[read.operand]).extents();
        let dims: Vec<usize> = read.index.iter().map(pure_dim).collect::<Option<_>>()?;
        let each_once = dims.len() == total && (0..total).all(|d| dims.contains(&d));
        let all = map.extents();
        let whole = read.view.is_none() && dims.iter().zip(&extents).all(|(&d, &e)| all[d] == e);
        let source = |d: usize| if d < rows { Source::Row(d) } else { Source::Reduced(d - rows) };
        (each_once && whole).then(|| dims.into_iter().map(source).collect())
    })
}

fn pure_dim(index: &IndexExpr) -> Option<usize> {
    match index {
        IndexExpr::Affine(a) if a.offset == 0 && a.divisor == 1 => match a.terms.as_slice() {
            [(dim, 1)] => Some(*dim),
            _ => None,
        },
        _ => None,
    }
}

/// Reductions that do not depend on each other share a loop.
fn stages(region: &Graph, reducers: &[usize]) -> Vec<Vec<Value>> {
    let mut stages: Vec<Vec<Value>> = Vec::new();
    // Number of stages that must have run before a value can be computed.
    let mut depth = vec![0usize; region.value_count()];
    for (node, data) in region.nodes() {
        let needed = data.operands.iter().map(|v| depth[v.index()]).max().unwrap_or(0);
        let reduces = reducers.contains(&node.index());
        data.results.iter().for_each(|v| depth[v.index()] = needed + usize::from(reduces));
        if reduces {
            if stages.len() <= needed {
                stages.resize(needed + 1, Vec::new());
            }
            stages[needed].push(data.results[0]);
        }
    }
    stages
}

/// Which dimension runs in lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lanes {
    /// The innermost row dimension.
    Row,
    /// The innermost reduced dimension.
    Reduced,
}

/// Loop structure chosen by a trial.
struct Plan {
    rows: Dims,
    reduced: Dims,
    lanes: Lanes,
    nanoseconds: f64,
    flops: u64,
    /// Reads that may be outside.
    unproven: HashSet<ReadSite>,
    /// Whether the reduced positions are written out.
    unrolled: bool,
    /// Period of each row dimension: reads at `(p - r) / s` exist for one row in s, so rows run phase by phase.
    periods: Vec<usize>,
}

/// Reduced positions that are written out at most.
const MOST_UNROLLED: usize = 16;

/// Period with which each row dimension enters a divided index.
fn periods(indices: &[Index], rows: &[Var]) -> Vec<usize> {
    let mut periods = vec![1usize; rows.len()];
    for (atom, _) in indices.iter().flat_map(|index| &index.terms) {
        if let Atom::Modulo(dividend, divisor) = atom {
            for (period, &row) in periods.iter_mut().zip(rows) {
                if dividend.coefficient(row) % divisor != 0 {
                    *period = (*period).max(*divisor as usize);
                }
            }
        }
    }
    let phases: usize = periods.iter().product();
    if phases <= MOST_UNROLLED { periods } else { vec![1; rows.len()] }
}

/// Rows phase by phase: in each phase a divided index is whole or not for all rows alike.
fn phased(mut cx: Evaluator<'_>, form: &RowForm, plan: &Plan) -> Result<Built, Declined> {
    cx.proven = None;
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
        for d in first..form.rows.len() {
            let (period, offset) = (plan.periods[d], offsets[d].as_constant().unwrap_or(0));
            let extent = (form.rows[d].saturating_sub(offset as usize)).div_ceil(period);
            let var = cx.ranges.var(&cx.nest, "i", extent);
            cx.row.push(Index::var(var) * period as i64 + offset);
            loops.push((var, extent));
        }
        let list = row_body(&mut cx, form, plan)?;
        body.push(super::reduce::nest_loops(loops, list, true));
    }
    let body = if outer.is_empty() { body } else { vec![Loop::range(row, tiling.begin(), tiling.end()).body(body)] };
    let tiles = if form.rows.contains(&0) { 0 } else { tiling.tiles.max(1) };
    Ok(finish(cx, tiles, body, plan))
}

/// Builds the nest of a region in row form.
pub(super) fn build(name: &str, region: &Graph, form: &RowForm) -> Result<Built, Declined> {
    let plan = trial(region, form)?;
    let mut cx = Evaluator::new(name, region)?;
    cx.proven = Some(plan.unproven.clone());
    if plan.periods.iter().any(|&p| p > 1) {
        return phased(cx, form, &plan);
    }
    if plan.lanes == Lanes::Reduced {
        keep_expensive(&mut cx, form);
    }
    let loops = plan.rows.loops();
    let last = loops[loops.len() - 1];
    let outer: Extents = loops[..loops.len() - 1].into();
    let (tiles, body) = match plan.lanes {
        Lanes::Reduced => {
            let count: usize = loops.iter().product();
            let tiling = Tiling::new(count as u64, plan.nanoseconds, 1);
            let row = cx.ranges.var(&cx.nest, "row", count);
            cx.row = plan.rows.indices(&unflatten(&Index::var(row), &loops));
            let body = row_body(&mut cx, form, &plan)?;
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
            let body = row_body(&mut cx, form, &plan)?;
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

fn finish(mut cx: Evaluator<'_>, tiles: u64, body: Vec<Stmt>, plan: &Plan) -> Built {
    let checks = std::mem::take(&mut cx.checks);
    let (results, params) = (cx.results.clone(), cx.params.clone());
    let nest = cx.nest.finish(tiles, body);
    let in_place = in_place(&nest, &params, &results);
    Built { nest, in_place, checks, flops: plan.flops }
}

/// Statements that guard a loop, innermost last.
pub(super) fn wrap(before: Vec<Stmt>, inner: Stmt) -> Vec<Stmt> {
    let mut list = vec![inner];
    for stmt in before.into_iter().rev() {
        list = match stmt {
            Stmt::Check { value, limit, site, position, .. } => {
                vec![Stmt::Check { value, limit, site, position, body: list }]
            }
            other => std::iter::once(other).chain(list).collect(),
        };
    }
    list
}

/// Takes loaded indices that do not depend on `lane` out of the loop over it: a row is checked once.
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
            _ => break,
        }
    }
    (before, body)
}

fn position_uses(index: &Index, var: Var) -> bool {
    let mut found = false;
    index.visit(&mut |atom| found |= *atom == crate::loops::nest::Atom::Var(var));
    found
}

/// Everything that is done for one row.
fn row_body(cx: &mut Evaluator<'_>, form: &RowForm, plan: &Plan) -> Result<Vec<Stmt>, Declined> {
    let lanes = plan.lanes == Lanes::Reduced;
    let mut body = Vec::new();
    for stage in &form.stages {
        body.extend(match plan.unrolled {
            true => super::reduce::unrolled(cx, form, stage)?,
            false => super::reduce::stage(cx, form, &plan.reduced, stage, lanes)?,
        });
    }
    let returns = cx.region.returns();
    let per_row: Vec<usize> = (0..returns.len()).filter(|&r| form.is_per_row(cx.region, returns[r])).collect();
    let per_element: Vec<usize> = (0..returns.len()).filter(|r| !per_row.contains(r)).collect();
    if !per_row.is_empty() {
        cx.begin();
        let at = cx.row.clone();
        let stores = store_all(cx, &per_row, &at, &form.rows)?;
        body.extend(cx.end(stores));
    }
    if !per_element.is_empty() {
        let extents = form.element_extents().ok_or(Declined::Domain)?;
        let (loops, reduced) = super::reduce::loops(cx, &plan.reduced);
        let at = element_index(cx, form, &reduced);
        enter_element(cx, form, &reduced, &at);
        let stores = store_all(cx, &per_element, &at, &extents)?;
        let inner = cx.end(stores);
        leave_element(cx);
        body.push(super::reduce::nest_loops(loops, inner, lanes));
    }
    Ok(body)
}

/// Computes results, then stores them: a store in place may not come before a load.
fn store_all(
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

/// Gives row scratch to expensive values that several stages need.
fn keep_expensive(cx: &mut Evaluator<'_>, form: &RowForm) {
    let Some(element) = form.element_extents() else { return };
    let mut roots: Vec<Vec<Value>> = form.stages.clone();
    roots.push(cx.region.returns().iter().copied().filter(|&v| !form.is_per_row(cx.region, v)).collect());
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

/// Builds once with every dimension a loop of its own, to see which loops can be one and which runs in lanes.
fn trial(region: &Graph, form: &RowForm) -> Result<Plan, Declined> {
    let mut cx = Evaluator::new("trial", region)?;
    let rows: Vec<Var> = vars(&mut cx, "p", &form.rows);
    let reduced: Vec<Var> = vars(&mut cx, "r", &form.reduced);
    let row: Vec<Index> = rows.iter().map(|&v| Index::var(v)).collect();
    let inner: Vec<Index> = reduced.iter().map(|&v| Index::var(v)).collect();
    cx.row = row.clone();
    let mut work = 0.0;
    let count: f64 = form.reduced.iter().map(|&e| e as f64).product();
    for value in form.stages.iter().flatten() {
        cx.begin();
        super::reduce::trial(&mut cx, *value, &row, &inner)?;
    }
    let mut stores = Vec::new();
    for &value in region.returns() {
        cx.begin();
        let per_row = form.is_per_row(region, value);
        let at = if per_row { row.clone() } else { element_index(&cx, form, &inner) };
        let extents = if per_row { form.rows.clone() } else { region.ty(value).extents() };
        cx.value(value, &at, None)?;
        stores.push(linear(&at, &extents));
    }
    let unproven = std::mem::take(&mut cx.unproven);
    let checked = !cx.checks.is_empty();
    let nest = cx.nest.finish(1, Vec::new());
    for (node, _) in &nest.exprs {
        work += cost(node);
    }
    let indices = indices_of(&nest, &stores);
    let coefficient = |var: Option<&Var>| {
        let hit = |i: &&Index| var.is_some_and(|&v| i.coefficient(v) == 1);
        loads(&nest).filter(hit).count()
    };
    let vector_rows = coefficient(rows.iter().zip(&form.rows).filter(|(_, e)| **e > 1).map(|(v, _)| v).next_back());
    let vector_reduced =
        coefficient(reduced.iter().zip(&form.reduced).filter(|(_, e)| **e > 1).map(|(v, _)| v).next_back());
    // A window is too short for lanes; its rows are not, even with a stride.
    let innermost = form.reduced.last().copied().unwrap_or(1);
    let short = innermost < 8 && form.rows.last().is_some_and(|&e| e > innermost);
    let rows_win = form.reduced.is_empty() || short || vector_rows > vector_reduced;
    let lanes = if rows_win { Lanes::Row } else { Lanes::Reduced };
    let per_row = region.returns().iter().all(|&v| form.is_per_row(region, v));
    let few = form.reduced.iter().product::<usize>() <= MOST_UNROLLED && !form.reduced.contains(&0);
    let unrolled = few && short && per_row && !form.reduced.is_empty() && !checked && form.stages.len() == 1;
    let periods = if unrolled { periods(&indices, &rows) } else { vec![1; rows.len()] };
    let cells: f64 = form.rows.iter().map(|&e| e as f64).product::<f64>() * count.max(1.0);
    Ok(Plan {
        rows: Dims::merge(&form.rows, &rows, &indices),
        reduced: Dims::merge(&form.reduced, &reduced, &indices),
        lanes,
        nanoseconds: work * count.max(1.0),
        flops: (arithmetic(&nest) as f64 * cells) as u64,
        unproven,
        unrolled,
        periods,
    })
}

fn vars(cx: &mut Evaluator<'_>, name: &str, extents: &[usize]) -> Vec<Var> {
    let mut ranges = std::mem::take(&mut cx.ranges);
    let vars = extents.iter().map(|&e| ranges.var(&cx.nest, name, e)).collect();
    cx.ranges = ranges;
    vars
}

fn loads(nest: &LoopNest) -> impl Iterator<Item = &Index> {
    nest.exprs.iter().filter_map(|(node, _)| match node {
        ExprNode::Load(_, index) | ExprNode::GuardedLoad { index, .. } => Some(index),
        _ => None,
    })
}

/// Rough nanoseconds per element in four lanes.
fn cost(node: &ExprNode) -> f64 {
    match node {
        ExprNode::Unary(..) => 0.6,
        ExprNode::Philox { .. } => 8.0,
        ExprNode::GuardedLoad { .. } => 1.0,
        ExprNode::Literal(_) | ExprNode::Local(_) => 0.0,
        _ => 0.15,
    }
}

fn arithmetic(nest: &LoopNest) -> usize {
    let counts = |node: &ExprNode| match node {
        ExprNode::Unary(..) | ExprNode::Binary(..) => 1,
        ExprNode::MulAdd(..) => 2,
        _ => 0,
    };
    nest.exprs.iter().filter(|(_, dtype)| dtype.is_float()).map(|(node, _)| counts(node)).sum()
}

/// Parameters whose every load is at the index of a result's store, in the statement list of that store.
fn in_place(nest: &LoopNest, params: &[Place], results: &[Place]) -> smallvec::SmallVec<[(usize, usize); 2]> {
    let mut stores: Vec<(Place, Index)> = Vec::new();
    collect_stores(&nest.body, &mut stores);
    let mut pairs = smallvec::SmallVec::new();
    for (p, param) in params.iter().enumerate() {
        let at: Vec<&Index> = nest
            .exprs
            .iter()
            .filter_map(|(node, _)| match node {
                ExprNode::Load(place, index) | ExprNode::GuardedLoad { place, index, .. } if place == param => {
                    Some(index)
                }
                _ => None,
            })
            .collect();
        for (r, result) in results.iter().enumerate() {
            let same_size =
                nest.place(*param).map(|(d, n)| d.bytes() * n) == nest.place(*result).map(|(d, n)| d.bytes() * n);
            let same_element =
                nest.place(*param).map(|(d, _)| d.bytes()) == nest.place(*result).map(|(d, _)| d.bytes());
            let store = stores.iter().find(|(place, _)| place == result);
            if same_size && same_element && store.is_some_and(|(_, index)| at.iter().all(|i| *i == index)) {
                pairs.push((p, r));
            }
        }
    }
    pairs
}

fn collect_stores(body: &[Stmt], stores: &mut Vec<(Place, Index)>) {
    for stmt in body {
        match stmt {
            Stmt::Store { place, index, .. } => stores.push((*place, index.clone())),
            Stmt::Loop(inner) => collect_stores(&inner.body, stores),
            Stmt::Check { body, .. } => collect_stores(body, stores),
            Stmt::If { then, otherwise, .. } => {
                collect_stores(then, stores);
                collect_stores(otherwise, stores);
            }
            Stmt::Let { .. } | Stmt::Set { .. } | Stmt::Call { .. } => {}
        }
    }
}
