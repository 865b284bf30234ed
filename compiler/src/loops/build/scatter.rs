//! Push form: the result starts as a copy and every position of the domain is combined into its place, in order.
//!
//! A tile owns rows of the result. It goes through the whole domain and combines what falls into its rows, so that the
//! order within a row, which is the meaning, is the program's for any number of tiles. Dimensions that the target takes
//! unchanged run in lanes.

use kiln_ir::body::{Body, IndexExpr, Scatter};
use kiln_ir::graph::Graph;

use super::evaluate::Evaluator;
use super::shape::{linear, unflatten};
use super::{Built, Declined, Part, body_of};
use crate::loops::nest::{Index, Loop, Place, Stmt, Var};
use crate::loops::tile::Tiling;

/// To load an index and see that the row is another tile's.
const SKIP_NS: f64 = 1.0;
/// To find a row and begin to combine into it.
const PUSH_NS: f64 = 20.0;
/// To write or to combine one element.
const ELEMENT_NS: f64 = 0.15;
/// What a tile may skip, relative to what it does itself.
const MOST_SKIPPED: f64 = 1.0 / 16.0;

/// The nest of a region whose last node is a scatter; `None` for any other region. Members before the scatter are
/// computed where they are read.
pub(super) fn build(name: &str, region: &Graph) -> Result<Option<Built>, Declined> {
    let Some((_, data)) = region.nodes().last() else { return Ok(None) };
    let Body::Scatter(scatter) = body_of(region, data) else { return Ok(None) };
    let mut cx = Evaluator::new(name, region)?;
    let result = region.ty(data.results[0]).extents();
    let out = cx.results[0];
    let elements = result.iter().product::<usize>();
    let tiling = tiling(&scatter, &result);
    let width = elements / result.first().map_or(1, |rows| *rows).max(1);

    let flat = cx.ranges.var(&cx.nest, "e", elements);
    cx.begin();
    let initial = data.operands[scatter.initial];
    let value = cx.value(initial, &unflatten(&Index::var(flat), &result), None)?;
    let store = cx.nest.store(out, Index::var(flat), value);
    let fill = cx.end(vec![store]);
    let copy = match tiling.tiles {
        0 | 1 => Loop::over(flat, elements),
        _ => Loop::range(flat, tiling.begin() * width as i64, tiling.end() * width as i64),
    };
    let copy = copy.vector().body(fill);

    let vars: Vec<Var> = scatter.domain.iter().map(|&e| cx.ranges.var(&cx.nest, "p", e)).collect();
    let point: Vec<Index> = vars.iter().map(|&v| Index::var(v)).collect();
    cx.begin();
    let target = target(&mut cx, data, &scatter, &point, &result)?;
    let map = kiln_ir::body::Map {
        parallel: scatter.domain.clone(),
        reduce: Default::default(),
        reads: scatter.reads.clone(),
        exprs: vec![scatter.expr.clone()],
        combine: kiln_ir::body::Combine::None,
    };
    let value = cx.expression(data, &map, 0, &point, None)?;
    let place = linear(&target, &result);
    let dtype = region.ty(data.results[0]).dtype;
    let current = cx.nest.cast(cx.nest.load(out, place.clone()), dtype.computed());
    let sum = cx.nest.binary(scatter.monoid.function(), current, value);
    let store = cx.nest.store(out, place, cx.nest.cast(sum, dtype));
    let own = match target.first() {
        Some(row) if tiling.tiles > 1 => {
            let condition = cx.nest.in_range(row.clone() - tiling.begin(), tiling.size as i64);
            Stmt::If { condition, then: vec![store], otherwise: Vec::new() }
        }
        _ => store,
    };
    let inner = cx.end(vec![own]);
    let push = push_loops(&cx, &scatter, &vars, inner);

    let empty = scatter.domain.contains(&0);
    let body = if empty { vec![copy] } else { std::iter::once(copy).chain(push).collect() };
    let checks = std::mem::take(&mut cx.checks);
    let tiles = if elements > 0 { tiling.tiles.max(1) } else { u64::from(!empty) };
    let mut nest = cx.nest.finish(tiles, body);
    if let (Place::Buffer(number), false) = (out, empty) {
        nest.buffers[number as usize].access = crate::loops::nest::Access::ReadWrite;
    }
    let flops = scatter.domain.iter().product::<usize>() as u64;
    let launches = vec![Part::whole(nest, region.params().len())];
    Ok(Some(Built { launches, workspace_bytes: 0, in_place: Default::default(), checks, flops }))
}

/// Rows of the result for each tile: one tile, unless an index that is loaded chooses the row.
fn tiling(scatter: &Scatter, result: &[usize]) -> Tiling {
    let rows = result.first().map_or(1, |rows| *rows);
    if !matches!(scatter.target.first(), Some(IndexExpr::Load { .. })) || rows == 0 {
        return Tiling { tiles: 1, size: rows.max(1) as u64, extent: rows as u64 };
    }
    let width = result[1..].iter().product::<usize>();
    let pushes = scatter.domain.iter().product::<usize>() / width.max(1);
    let row = width as f64 * ELEMENT_NS;
    let whole = rows as f64 * row + pushes as f64 * (PUSH_NS + row);
    let least = rows as f64 * (pushes as f64 * SKIP_NS / MOST_SKIPPED) / whole.max(1.0);
    // Two workers do not write one line of a cache.
    let multiple = 16 / gcd(16, width.max(1));
    Tiling::of_at_least(rows as u64, whole / rows as f64, multiple as u64, least.ceil() as u64)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn target(
    cx: &mut Evaluator<'_>,
    data: &kiln_ir::graph::NodeData,
    scatter: &Scatter,
    point: &[Index],
    result: &[usize],
) -> Result<Vec<Index>, Declined> {
    let mut target = Vec::new();
    for (dim, index) in scatter.target.iter().enumerate() {
        target.push(match index {
            IndexExpr::Affine(a) => {
                let terms = a.terms.iter().map(|&(d, c)| point[d].clone() * c);
                terms.fold(Index::constant(a.offset), |sum, t| sum + t).floor_div(a.divisor)
            }
            IndexExpr::Load { operand, index } => cx.loaded_index(data, *operand, index, result[dim], point)?,
        });
    }
    Ok(target)
}

/// Loops over the domain. If the last dimension only moves along the row, it is checked once per row and runs in lanes.
fn push_loops(cx: &Evaluator<'_>, scatter: &Scatter, vars: &[Var], inner: Vec<Stmt>) -> Vec<Stmt> {
    let mut list = inner;
    for (level, (&var, &extent)) in vars.iter().zip(&scatter.domain).enumerate().rev() {
        if level + 1 == vars.len() {
            let (before, rest) = super::rows::hoist(cx, list, var);
            let along_row = !before.is_empty();
            let one = Loop::over(var, extent);
            list = super::rows::wrap(before, if along_row { one.vector() } else { one }.body(rest));
        } else {
            list = vec![Loop::over(var, extent).body(list)];
        }
    }
    list
}
