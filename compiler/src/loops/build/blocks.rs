//! Long reductions in blocks: partial values of fixed blocks of the reduced positions, then their combination.
//!
//! A sum over few rows has few tiles if a tile is a row, and one that runs in lanes along its rows (a bias gradient, the
//! statistics of columns) walks memory in narrow strips if a tile is some columns. So the outermost reduced loop is cut
//! into blocks, a function of shapes alone. One nest has a tile per block and goes over memory in its order; it leaves a
//! partial value per block and row, and stores the results per element on its way. A second nest combines the blocks in
//! the order of their numbers and computes the results per row. If one block is all, both are one nest and the partial
//! values lie in its scratch.
//!
//! In lanes along the rows the partial values are loaded and stored for every element. They stay in the first cache,
//! which takes a load and a store beside the operand's load; memory further away does not deliver faster.

use kiln_ir::body::{Combine, Monoid};
use kiln_ir::graph::{Graph, Value};
use kiln_ir::types::{DType, Extents};

use super::evaluate::Evaluator;
use super::form::RowForm;
use super::in_place::{in_place, loads_from};
use super::plan::{Lanes, Plan};
use super::rows::{element_index, enter_element, hoist, leave_element, store_all, wrap};
use super::shape::unflatten;
use super::{Built, Declined, Part, reduce};
use crate::loops::nest::{Access, Index, Loop, Place, Stmt, Var};
use crate::loops::tile::{MOST_TILES, Tiling};

/// Rows whose tiles are enough without blocks.
const ENOUGH_ROWS: usize = 16;
/// Positions below which partial values would be as much traffic as what they are made of.
const LEAST_POSITIONS: usize = 16;
/// A block of a loop in lanes is a multiple of this: rounds of eight vectors.
const LANE_MULTIPLE: u64 = 128;
/// Time to take a partial value and to make a result of them, in nanoseconds.
const COMBINE_NS: f64 = 0.3;
const FINISH_NS: f64 = 5.0;

/// How the reduced positions are cut.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    /// Loops around the lanes, if those run along the rows; all row loops else.
    groups: Extents,
    /// Elements of the row loop in lanes, or 1.
    lanes: usize,
    /// The outermost reduced loop, in blocks.
    cut: Tiling,
}

/// A reduced value with the place of its partial values.
struct Partial {
    value: Value,
    dtype: DType,
    monoid: Monoid,
    place: Place,
}

impl Blocks {
    /// Blocks of a row program, if they are of use and it can be cut: one stage, on which no result per element depends.
    pub(super) fn of(region: &Graph, form: &RowForm, plan: &Plan) -> Option<Blocks> {
        let [_] = form.stages.as_slice() else { return None };
        if plan.unrolled || plan.periods.iter().any(|&period| period > 1) || form.reduced.contains(&0) {
            return None;
        }
        if form.has_late_elements(region) {
            return None;
        }
        let mut groups = plan.rows.loops();
        let positions: usize = form.reduced.iter().product();
        let reduced = plan.reduced.loops();
        let lanes = match plan.lanes {
            Lanes::Row => groups.pop()?,
            Lanes::Reduced => 1,
        };
        if groups.contains(&0) || lanes == 0 {
            return None;
        }
        let count: usize = groups.iter().product();
        let along_rows = plan.lanes == Lanes::Row;
        if along_rows && (positions < LEAST_POSITIONS || lanes < LEAST_POSITIONS) || !along_rows && count >= ENOUGH_ROWS
        {
            return None;
        }
        let extent = reduced.first().copied()?;
        let multiple = if !along_rows && reduced.len() == 1 { LANE_MULTIPLE } else { 1 };
        let cost = plan.nanoseconds * lanes as f64 / extent as f64;
        let most = if count >= ENOUGH_ROWS { 1 } else { MOST_TILES.div_ceil(count as u64) };
        let least = LEAST_POSITIONS.div_ceil(positions / extent);
        let cut =
            Tiling::of_at_least(extent as u64, cost, multiple, (least as u64).max((extent as u64).div_ceil(most)));
        (along_rows || cut.tiles > 1).then_some(Blocks { groups, lanes, cut })
    }

    fn count(&self) -> usize {
        self.cut.tiles as usize
    }

    fn group_count(&self) -> usize {
        self.groups.iter().product()
    }

    /// Row of a group, at an element in lanes.
    fn row(&self, plan: &Plan, group: &Index, lane: Option<Var>) -> Vec<Index> {
        let mut loops = if self.groups.is_empty() { Vec::new() } else { unflatten(group, &self.groups) };
        loops.extend(lane.map(Index::var));
        plan.rows.indices(&loops)
    }
}

/// Builds the nests of a row program in blocks.
pub(super) fn build(
    name: &str,
    region: &Graph,
    form: &RowForm,
    plan: &Plan,
    blocks: &Blocks,
) -> Result<Built, Declined> {
    if blocks.count() == 1 {
        in_one_nest(name, region, form, plan, blocks)
    } else {
        in_two(name, region, form, plan, blocks)
    }
}

/// A tile is some groups, each with its partial values in scratch.
fn in_one_nest(name: &str, region: &Graph, form: &RowForm, plan: &Plan, blocks: &Blocks) -> Result<Built, Declined> {
    let mut cx = Evaluator::new(name, region)?;
    cx.proven = Some(plan.unproven.clone());
    let partials = partials(&cx, form, |cx, name, dtype| cx.nest.scratch(name, dtype, blocks.lanes))?;
    let groups = blocks.group_count();
    let tiling = Tiling::new(groups as u64, plan.nanoseconds * blocks.lanes as f64, 1);
    let group = cx.ranges.var(&cx.nest, "row", groups);
    let all = (Index::constant(0), Index::constant(blocks.cut.extent as i64));
    let mut body = one_block(&mut cx, form, plan, blocks, &partials, &Index::var(group), &Index::constant(0), all)?;
    let lanes = (Index::constant(0), Index::constant(blocks.lanes as i64));
    body.extend(combined(&mut cx, form, plan, blocks, &partials, &Index::var(group), lanes)?);
    let body = if groups == 1 {
        // A single iteration, which the emitter writes out.
        vec![Loop::over(group, 1i64).body(body)]
    } else {
        vec![Loop::range(group, tiling.begin(), tiling.end()).body(body)]
    };
    Ok(super::rows::finish(cx, tiling.tiles.max(1), body, plan))
}

/// A tile of the first nest is a block of a group, one of the second some rows.
fn in_two(name: &str, region: &Graph, form: &RowForm, plan: &Plan, blocks: &Blocks) -> Result<Built, Declined> {
    let (groups, count) = (blocks.group_count(), blocks.count());
    let elements = groups * count * blocks.lanes;
    let mut first = Evaluator::new(&format!("{name}.blocks"), region)?;
    first.proven = Some(plan.unproven.clone());
    let places = partials(&first, form, |cx, name, dtype| cx.nest.buffer(name, dtype, elements, Access::Write))?;
    let tile = Index::var(Var::TILE);
    let (group, block) = match groups {
        1 => (Index::constant(0), tile.clone()),
        _ => (tile.floor_div(count as i64), tile.modulo(count as i64)),
    };
    let begin = block * blocks.cut.size as i64;
    let end = begin.clone() + blocks.cut.size as i64;
    let whole = blocks.cut.extent.is_multiple_of(blocks.cut.size);
    let end = if whole { end } else { end.at_most(blocks.cut.extent as i64) };
    let start = tile * blocks.lanes as i64;
    let body = one_block(&mut first, form, plan, blocks, &places, &group, &start, (begin, end))?;

    let mut second = Evaluator::new(name, region)?;
    second.proven = Some(plan.unproven.clone());
    second.checks = std::mem::take(&mut first.checks);
    let sums = partials(&second, form, |cx, name, dtype| cx.nest.buffer(name, dtype, elements, Access::Read))?;
    let cost = COMBINE_NS * count as f64 + FINISH_NS;
    let along = groups == 1 && blocks.lanes > 1;
    let (items, cost, multiple) =
        if along { (blocks.lanes, cost, 16) } else { (groups, cost * blocks.lanes as f64, 1) };
    let tiling = Tiling::new(items as u64, cost, multiple);
    let group = second.ranges.var(&second.nest, "row", groups);
    let cut = (tiling.begin(), tiling.end());
    let all = (Index::constant(0), Index::constant(blocks.lanes as i64));
    let lanes = if along { cut.clone() } else { all };
    let list = combined(&mut second, form, plan, blocks, &sums, &Index::var(group), lanes)?;
    let rows = if groups == 1 { Loop::over(group, 1i64) } else { Loop::range(group, cut.0, cut.1) };
    let checks = std::mem::take(&mut second.checks);
    let bytes = |partial: &Partial| (elements * partial.dtype.bytes()).next_multiple_of(64);
    let workspace_bytes = places.iter().map(bytes).sum();
    let (params, results) = (first.params.clone(), first.results.clone());
    let nests =
        [first.nest.finish((groups * count) as u64, body), second.nest.finish(tiling.tiles, vec![rows.body(list)])];
    // A result may lie where an operand does if the operand is not needed behind the nest that stores the result.
    let pairs: Vec<_> = nests.iter().map(|nest| in_place(nest, &params, &results)).collect();
    let per_element = form.per_element(region);
    let in_place = pairs[0]
        .iter()
        .filter(|(param, result)| per_element.contains(result) && !loads_from(&nests[1], params[*param]));
    let in_place =
        in_place.chain(pairs[1].iter().filter(|(_, result)| !per_element.contains(result))).copied().collect();
    let offsets: Vec<usize> =
        places.iter().scan(0, |end, partial| Some(std::mem::replace(end, *end + bytes(partial)))).collect();
    let launches = nests.into_iter().map(|nest| Part::of(nest, params.len(), results.len(), &offsets)).collect();
    Ok(Built { launches, workspace_bytes, in_place, checks, flops: plan.flops })
}

/// A place for every reduced value.
fn partials(
    cx: &Evaluator<'_>,
    form: &RowForm,
    declare: impl Fn(&Evaluator<'_>, &str, DType) -> Place,
) -> Result<Vec<Partial>, Declined> {
    let mut partials = Vec::new();
    for &value in form.stages.iter().flatten() {
        let (data, map) = reduce::member(cx, value)?;
        let Combine::Each(monoid) = map.combine else { return Err(Declined::Body) };
        for (&value, expr) in data.results.iter().zip(&map.exprs) {
            let dtype = expr.dtype();
            let name = format!("{}.blocks", cx.region.value_name(value));
            partials.push(Partial { value, dtype, monoid, place: declare(cx, &name, dtype) });
        }
    }
    Ok(partials)
}

/// Leaves the partial values of one block, from element `start` of their places on.
#[expect(clippy::too_many_arguments, reason = "the place of a block")]
fn one_block(
    cx: &mut Evaluator<'_>,
    form: &RowForm,
    plan: &Plan,
    blocks: &Blocks,
    partials: &[Partial],
    group: &Index,
    start: &Index,
    cut: (Index, Index),
) -> Result<Vec<Stmt>, Declined> {
    if plan.lanes == Lanes::Reduced {
        cx.row = blocks.row(plan, group, None);
        let mut list =
            reduce::stage(cx, form, &plan.reduced, &form.stages[0], true, &form.per_element(cx.region), Some(cut))?;
        for partial in partials {
            let local = cx.row_values.remove(&partial.value).ok_or(Declined::Body)?;
            list.push(cx.nest.store(partial.place, start.clone(), cx.nest.value(local)));
        }
        return Ok(list);
    }
    let clear = cx.ranges.var(&cx.nest, "i", blocks.lanes);
    let neutral = partials.iter().map(|partial| {
        let neutral = cx.nest.literal(partial.monoid.neutral(partial.dtype), partial.dtype);
        cx.nest.store(partial.place, start.clone() + Index::var(clear), neutral)
    });
    let clear = Loop::over(clear, blocks.lanes).vector().body(neutral.collect());
    let (loops, reduced) = reduce::loops(cx, &plan.reduced);
    let lane = cx.ranges.var(&cx.nest, "i", blocks.lanes);
    cx.row = blocks.row(plan, group, Some(lane));
    let at = element_index(cx, form, &reduced);
    enter_element(cx, form, &reduced, &at);
    let place = start.clone() + Index::var(lane);
    let mut stores = Vec::new();
    let mut next = partials.iter();
    for &value in &form.stages[0] {
        let (data, map) = reduce::member(cx, value)?;
        let point = reduce::point(form, &map, &cx.row, &reduced);
        for result in 0..data.results.len() {
            let Some(partial) = next.next() else { return Err(Declined::Body) };
            let old = cx.nest.load(partial.place, place.clone());
            let new = reduce::taken(cx, data, &map, result, &point, partial.monoid, old)?;
            stores.push(cx.nest.store(partial.place, place.clone(), new));
        }
    }
    if let Some(extents) = form.element_extents() {
        stores.extend(store_all(cx, &form.per_element(cx.region), &at, &extents)?);
    }
    let inner = cx.end(stores);
    leave_element(cx);
    let (before, inner) = hoist(cx, inner, lane);
    let mut list = wrap(before, Loop::over(lane, blocks.lanes).vector().body(inner));
    for (level, &(var, extent)) in loops.iter().enumerate().rev() {
        let one = match level {
            0 => Loop::range(var, cut.0.clone(), cut.1.clone()),
            _ => Loop::over(var, extent),
        };
        list = vec![one.body(list)];
    }
    Ok([clear].into_iter().chain(list).collect())
}

/// Combines the blocks of one group and computes what its rows have as results, for these lanes.
fn combined(
    cx: &mut Evaluator<'_>,
    form: &RowForm,
    plan: &Plan,
    blocks: &Blocks,
    partials: &[Partial],
    group: &Index,
    lanes: (Index, Index),
) -> Result<Vec<Stmt>, Declined> {
    let along_rows = plan.lanes == Lanes::Row;
    let lane = along_rows.then(|| cx.ranges.var(&cx.nest, "i", blocks.lanes));
    cx.row = blocks.row(plan, group, lane);
    let count = blocks.count();
    let scratch = count == 1;
    let mut list = Vec::new();
    let block = cx.ranges.var(&cx.nest, "block", count);
    let mut sums = Vec::new();
    let mut loop_over = Loop::over(block, count);
    for partial in partials {
        let name = cx.region.value_name(partial.value);
        let sum = cx.nest.local(name, partial.dtype);
        let number = if scratch { Index::constant(0) } else { group.clone() * count as i64 + Index::var(block) };
        let at = number * blocks.lanes as i64 + lane.map(Index::var).unwrap_or_default();
        let load = cx.nest.load(partial.place, at);
        if scratch {
            list.push(Stmt::Let { local: sum, value: load });
        } else {
            let f = partial.monoid.function();
            let neutral = cx.nest.literal(partial.monoid.neutral(partial.dtype), partial.dtype);
            loop_over = loop_over.accumulate(sum, neutral, f);
            sums.push(cx.nest.set(sum, cx.nest.binary(f, cx.nest.value(sum), load)));
        }
        cx.row_values.insert(partial.value, sum);
    }
    if !scratch {
        list.push(loop_over.body(sums));
    }
    cx.begin();
    let at = cx.row.clone();
    let stores = store_all(cx, &form.per_row(cx.region), &at, &form.rows)?;
    list.extend(cx.end(stores));
    Ok(match lane {
        Some(lane) => {
            let (before, inner) = hoist(cx, list, lane);
            wrap(before, Loop::range(lane, lanes.0, lanes.1).vector().body(inner))
        }
        None => list,
    })
}
