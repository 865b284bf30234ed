//! Stages of a row program: loops over the reduced dimensions that leave one local per reduced value.

use kiln_ir::body::{Combine, Map, Monoid};
use kiln_ir::graph::{NodeData, Value};
use kiln_ir::scalar::{BinaryFn, CompareFn};

use super::Declined;
use super::evaluate::{Evaluator, Kept, point_of};
use super::form::RowForm;
use super::rows::{element_index, enter_element, leave_element, store_all};
use super::shape::{Dims, unflatten};
use crate::loops::nest::{Expr, Index, Local, Loop, Stmt, Var};

/// The loops over the reduced dimensions, outermost first, with the index of each dimension.
pub(super) fn loops(cx: &mut Evaluator<'_>, dims: &Dims) -> (Vec<(Var, usize)>, Vec<Index>) {
    let extents = dims.loops();
    let vars: Vec<(Var, usize)> = extents.iter().map(|&e| (cx.ranges.var(&cx.nest, "r", e), e)).collect();
    let indices: Vec<Index> = vars.iter().map(|&(v, _)| Index::var(v)).collect();
    (vars, dims.indices(&indices))
}

/// Loops without accumulators around `inner`; the innermost runs in lanes.
pub(super) fn nest_loops(loops: Vec<(Var, usize)>, inner: Vec<Stmt>, lanes: bool) -> Stmt {
    let mut list = inner;
    for (level, &(var, extent)) in loops.iter().enumerate().rev() {
        let one = Loop::over(var, extent);
        let one = if lanes && level + 1 == loops.len() { one.vector() } else { one };
        list = vec![one.body(list)];
    }
    list.into_iter().next().unwrap_or_else(nothing)
}

/// One reduced value of a stage: its accumulators, one local per loop level.
struct Reducer {
    result: usize,
    levels: Vec<Local>,
    init: Expr,
    combine: Option<BinaryFn>,
}

/// Builds one stage: all its reductions in one loop nest, over a part of the outermost loop if it is `cut`. The loop also
/// stores the results per element `stores`.
pub(super) fn stage(
    cx: &mut Evaluator<'_>,
    form: &RowForm,
    dims: &Dims,
    stage: &[Value],
    lanes: bool,
    stores: &[usize],
    cut: Option<(Index, Index)>,
) -> Result<Vec<Stmt>, Declined> {
    let (loops, reduced) = loops(cx, dims);
    let mut reducers: Vec<Reducer> = Vec::new();
    for &value in stage {
        let (data, map) = member(cx, value)?;
        for result in 0..data.results.len() {
            reducers.push(reducer(cx, data, &map, result, loops.len()));
        }
    }
    let at = element_index(cx, form, &reduced);
    enter_element(cx, form, &reduced, &at);
    let mut sets = Vec::new();
    let mut next = 0;
    for &value in stage {
        let (data, map) = member(cx, value)?;
        let point = point(form, &map, &cx.row, &reduced);
        let count = data.results.len();
        sets.extend(combine(cx, data, &map, &point, &reducers[next..next + count])?);
        next += count;
    }
    if let Some(extents) = form.element_extents() {
        sets.extend(store_all(cx, stores, &at, &extents)?);
    }
    let inner = cx.end(sets);
    leave_element(cx);
    for &result in stores {
        let place = cx.results[result];
        cx.kept.insert(cx.region.returns()[result], Kept { place, filled: true, is_result: true });
    }
    let mut next = 0;
    for &value in stage {
        let (data, _) = member(cx, value)?;
        for &v in &data.results {
            cx.row_values.insert(v, reducers[next].levels[0]);
            next += 1;
        }
    }
    Ok(vec![accumulate(cx, &loops, &reducers, inner, lanes, cut)])
}

/// Builds one stage without loops: every reduced position is written out. For windows, whose positions are few and whose
/// guards often vanish once the position is a number.
pub(super) fn unrolled(cx: &mut Evaluator<'_>, form: &RowForm, stage: &[Value]) -> Result<Vec<Stmt>, Declined> {
    cx.begin();
    let mut lets = Vec::new();
    let mut values = Vec::new();
    for &value in stage {
        let (data, map) = member(cx, value)?;
        let mut current: Vec<Expr> = (0..data.results.len()).map(|r| reducer(cx, data, &map, r, 0).init).collect();
        for position in 0..form.reduced.iter().product() {
            let reduced = unflatten(&Index::constant(position as i64), &form.reduced);
            let point = point(form, &map, &cx.row, &reduced);
            current = take(cx, data, &map, &point, &current, position == 0)?;
        }
        for (&v, expr) in data.results.iter().zip(current) {
            let local = cx.nest.local(cx.region.value_name(v), cx.nest.dtype(expr));
            lets.push(Stmt::Let { local, value: expr });
            values.push((v, local));
        }
    }
    let list = cx.end(lets);
    cx.row_values.extend(values);
    Ok(list)
}

/// Combines one position into the current values; the first one replaces them, as a neutral element would.
fn take(
    cx: &mut Evaluator<'_>,
    data: &NodeData,
    map: &Map,
    point: &[Index],
    current: &[Expr],
    first: bool,
) -> Result<Vec<Expr>, Declined> {
    match map.combine {
        Combine::Each(monoid) => {
            let mut next = Vec::new();
            for (result, &old) in current.iter().enumerate() {
                let value = cx.expression(data, map, result, point, None)?;
                next.push(if first { value } else { cx.nest.binary(monoid.function(), old, value) });
            }
            Ok(next)
        }
        Combine::ArgMax | Combine::ArgMin => {
            let (key, payload) = (cx.expression(data, map, 0, point, None)?, cx.expression(data, map, 1, point, None)?);
            let chosen = is_better(cx, map, key, current[0]);
            Ok(vec![cx.nest.select(chosen, key, current[0]), cx.nest.select(chosen, payload, current[1])])
        }
        Combine::None => Err(Declined::Body),
    }
}

/// Whether a new key wins over the best one so far; the first NaN wins and stays.
fn is_better(cx: &Evaluator<'_>, map: &Map, key: Expr, best: Expr) -> Expr {
    let better = if map.combine == Combine::ArgMax { CompareFn::Gt } else { CompareFn::Lt };
    let wins = cx.nest.compare(better, key, best);
    if !cx.nest.dtype(key).is_float() {
        return wins;
    }
    let key_nan = cx.nest.compare(CompareFn::Ne, key, key);
    let best_number = cx.nest.compare(CompareFn::Eq, best, best);
    let nan = cx.nest.binary(BinaryFn::And, key_nan, best_number);
    cx.nest.binary(BinaryFn::Or, wins, nan)
}

/// Evaluates a reduction at every dimension's own variable; for the trial.
pub(super) fn trial(
    cx: &mut Evaluator<'_>,
    form: &RowForm,
    value: Value,
    row: &[Index],
    reduced: &[Index],
) -> Result<(), Declined> {
    let (data, map) = member(cx, value)?;
    let point = point(form, &map, row, reduced);
    for (result, &v) in data.results.iter().enumerate() {
        let expr = cx.expression(data, &map, result, &point, None)?;
        let local = cx.nest.local("row", cx.nest.dtype(expr));
        cx.row_values.insert(v, local);
    }
    Ok(())
}

/// Point of a reduction's dimensions at a row and a reduced position.
pub(super) fn point(form: &RowForm, map: &Map, row: &[Index], reduced: &[Index]) -> Vec<Index> {
    point_of(map, row, &form.rows).into_iter().chain(reduced.iter().cloned()).collect()
}

pub(super) fn member<'a>(cx: &Evaluator<'a>, value: Value) -> Result<(&'a NodeData, Map), Declined> {
    let (data, map, _) = cx.map(value).ok_or(Declined::Body)?;
    Ok((data, map.clone()))
}

fn reducer(cx: &Evaluator<'_>, data: &NodeData, map: &Map, result: usize, levels: usize) -> Reducer {
    let value = data.results[result];
    let dtype = map.exprs[result].dtype();
    let name = cx.region.value_name(value);
    let (init, combine) = match map.combine {
        Combine::Each(monoid) => (monoid.neutral(dtype), Some(monoid.function())),
        Combine::ArgMax if result == 0 => (Monoid::Max.neutral(dtype), None),
        Combine::ArgMin if result == 0 => (Monoid::Min.neutral(dtype), None),
        Combine::ArgMax | Combine::ArgMin | Combine::None => (0i64.into(), None),
    };
    Reducer {
        result,
        levels: (0..levels).map(|_| cx.nest.local(name, dtype)).collect(),
        init: cx.nest.literal(init, dtype),
        combine,
    }
}

/// Statements that take one reduced position into the innermost accumulators.
fn combine(
    cx: &mut Evaluator<'_>,
    data: &NodeData,
    map: &Map,
    point: &[Index],
    reducers: &[Reducer],
) -> Result<Vec<Stmt>, Declined> {
    let innermost = |r: &Reducer| r.levels[r.levels.len() - 1];
    match map.combine {
        Combine::Each(monoid) => {
            let mut sets = Vec::new();
            for reducer in reducers {
                let local = innermost(reducer);
                let current = cx.nest.value(local);
                let value = taken(cx, data, map, reducer.result, point, monoid, current)?;
                sets.push(cx.nest.set(local, value));
            }
            Ok(sets)
        }
        Combine::ArgMax | Combine::ArgMin => {
            let [best, place] = reducers else { return Err(Declined::Body) };
            let key = cx.expression(data, map, 0, point, None)?;
            let payload = cx.expression(data, map, 1, point, None)?;
            let (old, old_place) = (cx.nest.value(innermost(best)), cx.nest.value(innermost(place)));
            let take = is_better(cx, map, key, old);
            let taken = cx.nest.local("take", kiln_ir::DType::Bool);
            let chosen = cx.nest.value(taken);
            Ok(vec![
                Stmt::Let { local: taken, value: take },
                cx.nest.set(innermost(place), cx.nest.select(chosen, payload, old_place)),
                cx.nest.set(innermost(best), cx.nest.select(chosen, key, old)),
            ])
        }
        Combine::None => Err(Declined::Body),
    }
}

/// The current value with that of one position.
pub(super) fn taken(
    cx: &mut Evaluator<'_>,
    data: &NodeData,
    map: &Map,
    result: usize,
    point: &[Index],
    monoid: Monoid,
    current: Expr,
) -> Result<Expr, Declined> {
    match cx.product(data, map, result, point)? {
        Some((a, b)) if monoid == Monoid::Sum => Ok(cx.nest.mul_add(a, b, current)),
        _ => {
            let value = cx.expression(data, map, result, point, None)?;
            Ok(cx.nest.binary(monoid.function(), current, value))
        }
    }
}

/// Loops with an accumulator per level; an inner loop starts from the outer one's value.
fn accumulate(
    cx: &Evaluator<'_>,
    loops: &[(Var, usize)],
    reducers: &[Reducer],
    inner: Vec<Stmt>,
    lanes: bool,
    mut cut: Option<(Index, Index)>,
) -> Stmt {
    let mut list = inner;
    for (level, &(var, extent)) in loops.iter().enumerate().rev() {
        let mut one = match cut.take_if(|_| level == 0) {
            Some((begin, end)) => Loop::range(var, begin, end),
            None => Loop::over(var, extent),
        };
        if lanes && level + 1 == loops.len() && reducers.iter().all(|r| r.combine.is_some()) {
            one = one.vector();
        }
        for reducer in reducers {
            let init = if level == 0 { reducer.init } else { cx.nest.value(reducer.levels[level - 1]) };
            one = match reducer.combine {
                Some(function) => one.accumulate(reducer.levels[level], init, function),
                None => one.carry(reducer.levels[level], init),
            };
        }
        let stmt = one.body(list);
        list = vec![stmt];
        if level > 0 {
            let hand_over = |r: &Reducer| cx.nest.set(r.levels[level - 1], cx.nest.value(r.levels[level]));
            list.extend(reducers.iter().map(hand_over));
        }
    }
    list.into_iter().next().unwrap_or_else(nothing)
}

/// `Dims::loops` has at least one loop, so this never stands in a nest.
fn nothing() -> Stmt {
    Stmt::If { condition: Expr(0), then: Vec::new(), otherwise: Vec::new() }
}
