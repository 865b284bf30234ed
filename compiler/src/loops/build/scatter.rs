//! Push form: the result starts as a copy and every position of the domain is combined into its place, in order.
//!
//! One tile: the order of the combination is the meaning. Dimensions that the target takes unchanged run in lanes.

use kiln_ir::body::{Body, IndexExpr, Scatter};
use kiln_ir::graph::Graph;

use super::evaluate::Evaluator;
use super::shape::linear;
use super::{Built, Declined, Part, body_of};
use crate::loops::nest::{Index, Loop, Place, Stmt, Var};

/// The nest of a region whose last node is a scatter; `None` for any other region. Members before the scatter are
/// computed where they are read.
pub(super) fn build(name: &str, region: &Graph) -> Result<Option<Built>, Declined> {
    let Some((_, data)) = region.nodes().last() else { return Ok(None) };
    let Body::Scatter(scatter) = body_of(region, data) else { return Ok(None) };
    let mut cx = Evaluator::new(name, region)?;
    let result = region.ty(data.results[0]).extents();
    let out = cx.results[0];

    let flat = cx.ranges.var(&cx.nest, "e", result.iter().product());
    cx.begin();
    let initial = data.operands[scatter.initial];
    let at = super::shape::unflatten(&Index::var(flat), &result);
    let value = cx.value(initial, &at, None)?;
    let store = cx.nest.store(out, linear(&at, &result), value);
    let copy = cx.end(vec![store]);
    let elements = result.iter().product::<usize>();
    let copy = Loop::over(flat, elements).vector().body(copy);

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
    let inner = cx.end(vec![cx.nest.store(out, place, cx.nest.cast(sum, dtype))]);
    let push = push_loops(&cx, &scatter, &vars, inner);

    let empty = scatter.domain.contains(&0);
    let body = if empty { vec![copy] } else { std::iter::once(copy).chain(push).collect() };
    let checks = std::mem::take(&mut cx.checks);
    let mut nest = cx.nest.finish(u64::from(elements > 0 || !empty), body);
    if let (Place::Buffer(number), false) = (out, empty) {
        nest.buffers[number as usize].access = crate::loops::nest::Access::ReadWrite;
    }
    let flops = scatter.domain.iter().product::<usize>() as u64;
    let launches = vec![Part::whole(nest, region.params().len())];
    Ok(Some(Built { launches, workspace_bytes: 0, in_place: Default::default(), checks, flops }))
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
