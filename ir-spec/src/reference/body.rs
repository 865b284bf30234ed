//! Maps and scatters, point by point.

use super::{Array, EvalError, Evaluator, defect, scalar};
use crate::body::{Affine, Combine, IndexExpr, Map, Read, Scatter};
use crate::graph::NodeData;
use crate::scalar::{BinaryFn, CompareFn, Number, ScalarExpr};
use crate::types::TensorType;

impl Evaluator {
    pub(super) fn map(
        &self,
        node: &NodeData,
        map: &Map,
        operands: &[Array],
        results: &[TensorType],
    ) -> Result<Vec<Array>, EvalError> {
        if map.exprs.len() != results.len() {
            return Err(defect(node, "the body has not one expression per result"));
        }
        let mut columns: Vec<Vec<Number>> = vec![Vec::new(); map.exprs.len()];
        let mut point = vec![0; map.parallel.len() + map.reduce.len()];
        for_each_point(&map.parallel, |p| {
            point[..p.len()].copy_from_slice(p);
            let mut values = self.neutral(map);
            let mut first = true;
            for_each_point(&map.reduce, |r| {
                point[p.len()..].copy_from_slice(r);
                let new = self.point(node, &map.reads, &map.exprs, operands, &point)?;
                self.combine(map, &mut values, new, first);
                first = false;
                Ok(())
            })?;
            for (number, (column, value)) in columns.iter_mut().zip(values).enumerate() {
                let (of, to) = (map.exprs[number].dtype(), results[number].dtype);
                column.push(if of == to { value } else { self.cast(value, to) });
            }
            Ok(())
        })?;
        let arrays = results.iter().zip(columns).map(|(ty, column)| {
            let array =
                (column.len() == ty.elements()).then(|| Array::from_numbers(ty.clone(), |p| column.get(p).copied()));
            array.flatten().ok_or_else(|| defect(node, format!("the body has {} points for {ty}", column.len())))
        });
        arrays.collect()
    }

    /// What an empty range of the reduction gives.
    fn neutral(&self, map: &Map) -> Vec<Number> {
        let extremum = |monoid: crate::body::Monoid| vec![monoid.neutral(map.exprs[0].dtype()), Number::Int(0)];
        match map.combine {
            Combine::None => map.exprs.iter().map(|e| Number::Int(0).to_dtype(e.dtype())).collect(),
            Combine::Each(monoid) => {
                let neutral = |e: &ScalarExpr| scalar::wrapped(monoid.neutral(e.dtype()), e.dtype());
                map.exprs.iter().map(neutral).collect()
            }
            Combine::ArgMax => extremum(crate::body::Monoid::Max),
            Combine::ArgMin => extremum(crate::body::Monoid::Min),
        }
    }

    fn combine(&self, map: &Map, values: &mut Vec<Number>, new: Vec<Number>, first: bool) {
        match map.combine {
            Combine::None => *values = new,
            Combine::Each(monoid) => {
                for ((value, new), expr) in values.iter_mut().zip(new).zip(&map.exprs) {
                    *value = self.binary(monoid.function(), *value, new, expr.dtype());
                }
            }
            Combine::ArgMax if first || wins(new[0], values[0], CompareFn::Gt) => *values = new,
            Combine::ArgMin if first || wins(new[0], values[0], CompareFn::Lt) => *values = new,
            Combine::ArgMax | Combine::ArgMin => {}
        }
    }

    pub(super) fn scatter(
        &self,
        node: &NodeData,
        scatter: &Scatter,
        operands: &[Array],
        results: &[TensorType],
    ) -> Result<Vec<Array>, EvalError> {
        let (Some(ty), Some(initial)) = (results.first(), operands.get(scatter.initial)) else {
            return Err(defect(node, "a scatter has one result, which starts from an operand"));
        };
        let extents = ty.extents();
        let mut elements: Vec<Number> = (0..ty.elements()).filter_map(|p| initial.at(p)).collect();
        let function: BinaryFn = scatter.monoid.function();
        for_each_point(&scatter.domain, |point| {
            let new = self.point(node, &scatter.reads, std::slice::from_ref(&scatter.expr), operands, point)?;
            let place = linear(node, &scatter.target, &extents, operands, point)?;
            let element = place.and_then(|place| elements.get_mut(place));
            let Some(element) = element else { return Err(defect(node, "a target is outside the result")) };
            *element = self.binary(function, *element, new[0], ty.dtype);
            Ok(())
        })?;
        let array = Array::from_numbers(ty.clone(), |p| elements.get(p).copied());
        Ok(vec![array.ok_or_else(|| defect(node, "the initial operand is too short"))?])
    }

    /// The expressions at one point.
    fn point(
        &self,
        node: &NodeData,
        reads: &[Read],
        exprs: &[ScalarExpr],
        operands: &[Array],
        point: &[usize],
    ) -> Result<Vec<Number>, EvalError> {
        let reads: Vec<Number> =
            reads.iter().map(|read| self.read(node, read, operands, point)).collect::<Result<_, _>>()?;
        Ok(exprs.iter().map(|expr| self.expr(expr, &reads, point)).collect())
    }

    fn read(&self, node: &NodeData, read: &Read, operands: &[Array], point: &[usize]) -> Result<Number, EvalError> {
        let Some(operand) = operands.get(read.operand) else { return Err(defect(node, "no such operand")) };
        let extents = read.view.clone().unwrap_or_else(|| operand.ty.extents());
        if extents.iter().product::<usize>() != operand.data.len() || extents.len() != read.index.len() {
            return Err(defect(node, format!("{} is read as {extents:?} by {} indices", operand.ty, read.index.len())));
        }
        let position = linear(node, &read.index, &extents, operands, point)?;
        match (position.and_then(|p| operand.at(p)), read.outside) {
            (Some(number), _) => Ok(number),
            (None, Some(number)) => Ok(number.to_dtype(operand.ty.dtype)),
            (None, None) => Err(defect(node, format!("a read at {point:?} is outside of {}", operand.ty))),
        }
    }
}

/// Whether a candidate replaces the best so far: a NaN wins over numbers, and the first of equals stays.
fn wins(new: Number, best: Number, than: CompareFn) -> bool {
    match (new.to_f64().is_nan(), best.to_f64().is_nan()) {
        (_, true) => false,
        (true, false) => true,
        (false, false) => scalar::compare(than, new, best),
    }
}

/// Row-major position of an index; `None` where it is outside.
fn linear(
    node: &NodeData,
    index: &[IndexExpr],
    extents: &[usize],
    operands: &[Array],
    point: &[usize],
) -> Result<Option<usize>, EvalError> {
    let mut position = Some(0);
    for (expr, &extent) in index.iter().zip(extents) {
        let along = match expr {
            IndexExpr::Affine(affine) => inside(affine, extent, point),
            IndexExpr::Load { operand, index } => Some(load(node, *operand, index, extent, operands, point)?),
        };
        position = position.zip(along).map(|(position, along)| position * extent + along);
    }
    Ok(position)
}

fn inside(affine: &Affine, extent: usize, point: &[usize]) -> Option<usize> {
    affine.at(point).and_then(|i| usize::try_from(i).ok()).filter(|&i| i < extent)
}

/// An index from an integer operand, checked against `extent`.
fn load(
    node: &NodeData,
    operand: usize,
    index: &[Affine],
    extent: usize,
    operands: &[Array],
    point: &[usize],
) -> Result<usize, EvalError> {
    let broken = || defect(node, "an index is loaded from outside of its tensor");
    let array = operands.get(operand).ok_or_else(broken)?;
    let extents = array.ty.extents();
    let place: Option<Vec<usize>> = index.iter().zip(&extents).map(|(a, &extent)| inside(a, extent, point)).collect();
    let place = place.ok_or_else(broken)?;
    let linear = place.iter().zip(&extents).fold(0, |sum, (&i, &extent)| sum * extent + i);
    let value = array.at(linear).ok_or_else(broken)?.to_i64();
    usize::try_from(value).ok().filter(|&i| i < extent).ok_or_else(|| EvalError::Index {
        mnemonic: node.op.mnemonic(),
        provenance: node.provenance.clone(),
        position: place,
        value,
        extent,
    })
}

/// Visits every point of an index space in row-major order; the space without dimensions has one.
fn for_each_point(
    extents: &[usize],
    mut visit: impl FnMut(&[usize]) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    if extents.contains(&0) {
        return Ok(());
    }
    let mut point = vec![0; extents.len()];
    loop {
        visit(&point)?;
        let Some(last) = (0..extents.len()).rev().find(|&d| point[d] + 1 < extents[d]) else { return Ok(()) };
        point[last] += 1;
        point[last + 1..].fill(0);
    }
}
