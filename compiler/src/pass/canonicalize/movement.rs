//! Rules about ops that move elements or change their type.

use kiln_ir::graph::Value;
use kiln_ir::op::{self, Elementwise, Op};
use kiln_ir::types::{DType, Dim, Shape};

use super::{Form, Site};

/// Ops that return their operand as it is.
pub(super) fn identity(site: &Site<'_>) -> Option<Form> {
    let first = site.same_type()?;
    let ascending = |dims: &[i64]| dims.iter().enumerate().all(|(i, &d)| d == i as i64);
    let zero = |v: &[i64]| v.iter().all(|&x| x == 0);
    let holds = match site.op {
        Op::Reshape(_) | Op::Cast(_) | Op::Relayout(_) => true,
        Op::Broadcast(op) => ascending(&op.dims),
        Op::Transpose(op) => ascending(&op.permutation),
        Op::Slice(op) => zero(&op.start) && op.step.iter().all(|&s| s == 1),
        Op::Pad(op) => zero(&op.low) && zero(&op.high),
        Op::Reverse(op) => op.dims.iter().all(|&d| extent(site, first, d) == Some(1)),
        Op::Concat(_) => site.operands.len() == 1,
        _ => false,
    };
    holds.then_some(Form::Same(first))
}

fn extent(site: &Site<'_>, value: Value, dim: i64) -> Option<usize> {
    site.graph.ty(value).extents().get(usize::try_from(dim).ok()?).copied()
}

/// Two movements of one kind are one.
pub(super) fn of_same_kind(site: &Site<'_>) -> Option<Form> {
    let (inner, behind) = site.behind(0)?;
    let &source = behind.first()?;
    let through = |dims: &[i64], outer: &[i64]| -> Option<_> {
        dims.iter().map(|&d| outer.get(usize::try_from(d).ok()?).copied()).collect()
    };
    let op: Op = match (site.op, inner) {
        (Op::Reshape(_) | Op::Relayout(_), Op::Reshape(_)) => site.op.clone(),
        (Op::Reverse(outer), Op::Reverse(inner)) if outer == inner => return Some(Form::Same(source)),
        (Op::Transpose(outer), Op::Transpose(inner)) => {
            op::Transpose { permutation: through(&outer.permutation, &inner.permutation)? }.into()
        }
        (Op::Broadcast(outer), Op::Broadcast(inner)) => {
            op::Broadcast { ty: site.ty.clone(), dims: through(&inner.dims, &outer.dims)? }.into()
        }
        (Op::Cast(_), Op::Cast(_)) => {
            let [from, by] = [source, site.operands[0]].map(|v| site.graph.ty(v).dtype);
            if !is_detour(from, by, site.ty.dtype) {
                return None;
            }
            site.op.clone()
        }
        _ => return None,
    };
    Some(Form::node(op, [source]))
}

/// A reshape that splits a dimension behind a slice of it, into parts that begin and end where the slice does, comes before
/// the slice: what follows, a transpose to heads, is then one movement with it.
pub(super) fn split_of_slice(site: &Site<'_>) -> Option<Form> {
    let (Op::Reshape(_), (Op::Slice(slice), behind)) = (site.op, site.behind(0)?) else { return None };
    let &source = behind.first()?;
    let ty = site.graph.ty(source);
    let (whole, cut, split) = (ty.extents(), site.graph.ty(*site.operands.first()?).extents(), site.ty.extents());
    let dim = (0..whole.len()).find(|&d| whole[d] != cut[d])?;
    let only = slice.step.iter().all(|&step| step == 1) && (0..whole.len()).all(|d| d == dim || whole[d] == cut[d]);
    // Dimensions of the result before the split one, as many elements as before it, and the parts within it.
    let prefix: usize = cut[..dim].iter().product();
    let first = (0..split.len()).find(|&d| split[..d].iter().product::<usize>() == prefix && split[d] > 1)?;
    let rest: usize = cut[dim + 1..].iter().product();
    let part: usize = split[first + 1..].iter().product::<usize>().checked_div(rest)?;
    let start = usize::try_from(*slice.start.get(dim)?).ok()?;
    let even =
        part > 1 && split[first] * part == cut[dim] && start.is_multiple_of(part) && whole[dim].is_multiple_of(part);
    if !only || !even {
        return None;
    }
    let mut extents = split.clone();
    extents[first] = whole[dim] / part;
    let from = start / part;
    let ends = (0..split.len()).map(|d| Dim::from(if d == first { from + split[first] } else { split[d] }));
    let op = op::Slice {
        start: (0..split.len()).map(|d| if d == first { from as i64 } else { 0 }).collect(),
        stop: ends.collect(),
        step: split.iter().map(|_| 1).collect(),
    };
    let reshape = op::Reshape { ty: ty.with_shape(extents.iter().map(|&extent| Dim::from(extent)).collect::<Shape>()) };
    Some(Form::Behind(reshape, source, Box::new(op.into())))
}

/// Whether a cast by way of `by` is the cast from `from` to `to`: `by` holds every value of `from`, and what happens
/// to values that `to` does not hold (integers wrap, floats saturate) stays the same.
fn is_detour(from: DType, by: DType, to: DType) -> bool {
    let kept = match (integer_bits(from), integer_bits(by)) {
        (Some((low, high)), Some((by_low, by_high))) => by_low >= low && by_high >= high,
        (Some((low, high)), None) => low.max(high) <= fraction_bits(by),
        (None, None) => fraction_bits(by) >= fraction_bits(from) && exponent_bits(by) >= exponent_bits(from),
        (None, Some(_)) => false,
    };
    let alike = from.is_float() == by.is_float() || to.is_float() || to == from || from == DType::Bool;
    kept && alike && to != DType::Bool
}

/// Bits below zero and above zero; `None` for floats.
fn integer_bits(dtype: DType) -> Option<(u32, u32)> {
    Some(match dtype {
        DType::Bool => (0, 1),
        DType::U8 => (0, 8),
        DType::I8 => (7, 7),
        DType::U32 => (0, 32),
        DType::I32 => (31, 31),
        DType::I64 => (63, 63),
        DType::F16 | DType::Bf16 | DType::F32 | DType::F64 => return None,
    })
}

/// Bits of the largest range of integers that a float type holds without gaps.
fn fraction_bits(dtype: DType) -> u32 {
    match dtype {
        DType::Bf16 => 8,
        DType::F16 => 11,
        DType::F32 => 24,
        _ => 53,
    }
}

fn exponent_bits(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => 5,
        DType::Bf16 | DType::F32 => 8,
        _ => 11,
    }
}

/// A movement of a broadcast scalar is a broadcast of the scalar, and a scalar's reshapes move nothing.
pub(super) fn of_one_element(site: &Site<'_>) -> Option<Form> {
    let moves = matches!(site.op, Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) | Op::Reverse(_) | Op::Broadcast(_));
    let (inner, behind) = site.behind(0)?;
    let &source = behind.first()?;
    let spread = matches!(inner, Op::Broadcast(_) | Op::Reshape(_)) && site.graph.ty(source).rank() == 0;
    if !moves || !spread || matches!((site.op, inner), (Op::Reshape(_), Op::Reshape(_))) {
        return None;
    }
    let op = op::Broadcast { ty: site.ty.clone(), dims: Default::default() };
    Some(Form::node(op, [source]))
}

/// A reduction over extents of 1 has nothing to combine; floats begin with 0 + x, which is not x where x is -0.
pub(super) fn reduction_of_nothing(site: &Site<'_>) -> Option<Form> {
    let float = site.ty.dtype.is_float();
    let dims = match site.op {
        Op::ReduceSum(op) if !float => &op.dims,
        Op::ReduceProd(op) => &op.dims,
        Op::ReduceMax(op) => &op.dims,
        Op::ReduceMin(op) => &op.dims,
        Op::ReduceAnd(op) => &op.dims,
        Op::ReduceOr(op) => &op.dims,
        _ => return None,
    };
    let &first = site.operands.first()?;
    if !dims.iter().all(|&d| extent(site, first, d) == Some(1)) {
        return None;
    }
    Some(Form::node(op::Reshape { ty: site.ty.clone() }, [first]))
}

/// Whether an op is the elementwise op `which`.
pub(super) fn is(op: &Op, which: Elementwise) -> bool {
    *op == Op::Elementwise(which)
}
