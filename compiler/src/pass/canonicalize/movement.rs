//! Rules about ops that move elements or change their type.

use kiln_ir::graph::Value;
use kiln_ir::op::{self, Elementwise, Op};
use kiln_ir::types::DType;

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
