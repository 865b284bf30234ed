//! The structured ops against hand calculation, PyTorch and finite differences.

mod faults;
mod gradients;
mod values;

use crate::attribute::Ints;
use crate::builder::{GraphBuilder, Tensor};
use crate::graph::Graph;
use crate::op::{Gradient, Op, Vjp};
use crate::reference::{Array, Data, Evaluator};
use crate::types::{DType, TensorType};

/// An attribute list.
fn ints(list: &[i64]) -> Ints {
    list.iter().copied().collect()
}

fn ty(dtype: DType, extents: &[usize]) -> TensorType {
    TensorType::new(dtype, extents)
}

/// `x[i] = (7 i + 3) mod 11 - 5`: small integers, so that sums are exact, and every maximum has a place.
fn pattern(dtype: DType, extents: &[usize]) -> Array {
    let ty = ty(dtype, extents);
    let numbers = (0..ty.elements() as i64).map(|i| (7 * i + 3) % 11 - 5);
    let data = match dtype.is_float() {
        true => Data::Float(numbers.map(|n| n as f64).collect()),
        false => Data::Int(numbers.collect()),
    };
    Array::new(ty, data).unwrap()
}

fn floats(extents: &[usize], values: &[f64]) -> Array {
    Array::new(ty(DType::F64, extents), Data::Float(values.to_vec())).unwrap()
}

fn indices(extents: &[usize], values: &[i64]) -> Array {
    Array::i64(extents, values).unwrap()
}

/// The graph of one op.
fn graph(op: &Op, operands: &[Array]) -> Graph {
    let builder = GraphBuilder::new("f");
    let params: Vec<Tensor> = operands.iter().map(|x| builder.param("x", x.ty.clone(), None)).collect();
    let results = builder.apply_all(op.clone(), &params.iter().collect::<Vec<_>>(), &[]);
    builder.returns(&results.iter().collect::<Vec<_>>());
    builder.finish().unwrap()
}

/// Results of one op.
fn run(op: impl Into<Op>, operands: &[Array]) -> Vec<Array> {
    Evaluator::native().evaluate(&graph(&op.into(), operands), operands, &|_| None).unwrap().returns
}

/// The only or first result of one op, as numbers.
fn first(op: impl Into<Op>, operands: &[Array]) -> Vec<f64> {
    run(op, operands)[0].to_f64()
}

/// A weight of `loss = sum(weight * result)`, different for every element.
fn weight(result: usize, position: usize) -> f64 {
    0.7 + ((position * 37 + result * 11) % 23) as f64 / 9.0
}

fn loss(op: &Op, operands: &[Array]) -> f64 {
    let results = Evaluator::wide().evaluate(&graph(op, operands), operands, &|_| None).unwrap().returns;
    let floats = results.iter().enumerate().filter(|(_, r)| r.ty.dtype.is_float());
    floats.map(|(i, r)| r.to_f64().iter().enumerate().map(|(p, y)| weight(i, p) * y).sum::<f64>()).sum()
}

/// Holds the op's rule against central differences in binary64, for every element of every float operand.
fn check_gradient(op: impl Into<Op>, operands: &[Array]) {
    let op = op.into();
    let builder = GraphBuilder::new("backward");
    let params: Vec<Tensor> = operands.iter().map(|x| builder.param("x", x.ty.clone(), None)).collect();
    let results = builder.apply_all(op.clone(), &params.iter().collect::<Vec<_>>(), &[]);
    let mut inputs = operands.to_vec();
    let cotangents: Vec<Option<Tensor>> = results
        .iter()
        .enumerate()
        .map(|(i, y)| {
            let ty = y.ty();
            ty.dtype.is_float().then(|| {
                let weights = (0..ty.elements()).map(|p| weight(i, p)).collect();
                inputs.push(Array::new(ty.clone(), Data::Float(weights)).unwrap());
                builder.param("dy", ty, None)
            })
        })
        .collect();
    let rule = op.spec().vjp(&Vjp { operands: &params, results: &results, cotangents: &cotangents });
    let Gradient::Operands(gradients) = rule else { panic!("{}: {rule:?}", op.mnemonic()) };
    let found: Vec<(usize, Tensor)> = gradients.into_iter().enumerate().filter_map(|(i, g)| Some((i, g?))).collect();
    builder.returns(&found.iter().map(|(_, g)| g).collect::<Vec<_>>());
    let backward = builder.finish().unwrap();
    let outcome = Evaluator::wide().evaluate(&backward, &inputs, &|_| None).unwrap();
    let float: Vec<usize> = (0..operands.len()).filter(|&i| operands[i].ty.dtype.is_float()).collect();
    let differentiated: Vec<usize> = found.iter().map(|(i, _)| *i).collect();
    assert_eq!(differentiated, float, "{}: operands with a cotangent", op.mnemonic());
    for ((operand, _), gradient) in found.iter().zip(&outcome.returns) {
        assert_eq!(gradient.ty, operands[*operand].ty, "{}: type of cotangent {operand}", op.mnemonic());
        for (position, got) in gradient.to_f64().into_iter().enumerate() {
            let step = 1e-4;
            let at = |delta: f64| {
                let mut moved = operands.to_vec();
                if let Data::Float(numbers) = &mut moved[*operand].data {
                    numbers[position] += delta;
                }
                loss(&op, &moved)
            };
            let expected = (at(step) - at(-step)) / (2.0 * step);
            let error = (got - expected).abs() / expected.abs().max(1.0);
            assert!(error < 1e-6, "{}: operand {operand}[{position}]: {got} instead of {expected}", op.mnemonic());
        }
    }
}

/// Labels of the faults of one op.
fn labels(op: impl Into<Op>, operands: &[TensorType]) -> Vec<&'static str> {
    match op.into().spec().infer(operands) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.into_iter().map(|fault| fault.label).collect(),
    }
}
