//! The loop structure of a row program, found by building it once with every dimension a loop of its own.

use std::collections::HashSet;

use kiln_ir::graph::Graph;

use super::Declined;
use super::evaluate::{Evaluator, ReadSite};
use super::form::RowForm;
use super::rows::element_index;
use super::shape::{Dims, indices_of, linear};
use crate::loops::nest::{Atom, ExprNode, Index, LoopNest, Var};

/// Which dimension runs in lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lanes {
    /// The innermost row dimension.
    Row,
    /// The innermost reduced dimension.
    Reduced,
}

/// Loop structure chosen by a trial.
pub(super) struct Plan {
    pub(super) rows: Dims,
    pub(super) reduced: Dims,
    pub(super) lanes: Lanes,
    /// Of one row, roughly.
    pub(super) nanoseconds: f64,
    pub(super) flops: u64,
    /// Reads that may be outside.
    pub(super) unproven: HashSet<ReadSite>,
    /// Whether indices are loaded and checked.
    pub(super) checked: bool,
    /// Whether the reduced positions are written out.
    pub(super) unrolled: bool,
    /// Period of each row dimension: reads at `(p - r) / s` exist for one row in s, so rows run phase by phase.
    pub(super) periods: Vec<usize>,
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

impl Plan {
    /// Builds once with every dimension a loop of its own, to see which loops can be one and which runs in lanes.
    pub(super) fn of(region: &Graph, form: &RowForm) -> Result<Plan, Declined> {
        let mut cx = Evaluator::new("trial", region)?;
        let rows: Vec<Var> = vars(&mut cx, "p", &form.rows);
        let reduced: Vec<Var> = vars(&mut cx, "r", &form.reduced);
        // The only position of a dimension of extent 1 is a number, as it will be in the nest.
        let position = |(&var, &extent): (&Var, &usize)| if extent == 1 { Index::constant(0) } else { Index::var(var) };
        let row: Vec<Index> = rows.iter().zip(&form.rows).map(position).collect();
        let inner: Vec<Index> = reduced.iter().zip(&form.reduced).map(position).collect();
        cx.row = row.clone();
        let mut work = 0.0;
        let count: f64 = form.reduced.iter().map(|&e| e as f64).product();
        for value in form.stages.iter().flatten() {
            cx.begin();
            super::reduce::trial(&mut cx, form, *value, &row, &inner)?;
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
        // What is loaded once per row does not matter if something is loaded once per element.
        let is_inner = |i: &&Index| reduced.iter().any(|&v| i.coefficient(v) != 0);
        let any_inner = loads(&nest).any(|i| is_inner(&i));
        let coefficient = |var: Option<&Var>| {
            let hit = |i: &&Index| var.is_some_and(|&v| i.coefficient(v) == 1) && (!any_inner || is_inner(i));
            loads(&nest).filter(hit).count()
        };
        let vector_rows = coefficient(rows.iter().zip(&form.rows).filter(|(_, e)| **e > 1).map(|(v, _)| v).next_back());
        let vector_reduced =
            coefficient(reduced.iter().zip(&form.reduced).filter(|(_, e)| **e > 1).map(|(v, _)| v).next_back());
        // A window is too short for lanes; its rows are not, even with a stride.
        let reduced_dims = Dims::merge(&form.reduced, &reduced, &indices);
        let innermost = reduced_dims.loops().last().copied().unwrap_or(1);
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
            reduced: reduced_dims,
            lanes,
            nanoseconds: work * count.max(1.0),
            flops: (arithmetic(&nest) as f64 * cells) as u64,
            unproven,
            checked,
            unrolled,
            periods,
        })
    }
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
