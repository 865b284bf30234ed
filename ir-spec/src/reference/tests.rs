//! The scalar table, rounding and run-time errors; expected values by hand or from PyTorch where stated.

use super::{Array, Data, EvalError, Evaluator, Precision};
use crate::builder::GraphBuilder;
use crate::op::{Elementwise, Gather};
use crate::scalar::{BinaryFn, Number};
use crate::types::{DType, TensorType};

fn binary(function: BinaryFn, a: i64, b: i64, dtype: DType) -> i64 {
    Evaluator::native().binary(function, a.into(), b.into(), dtype).to_i64()
}

#[test]
fn integers_follow_the_table() {
    let min = i64::from(i32::MIN);
    assert_eq!(binary(BinaryFn::Add, 127, 1, DType::I8), -128);
    assert_eq!(binary(BinaryFn::Sub, 0, 1, DType::U32), 4_294_967_295);
    assert_eq!(binary(BinaryFn::Mul, i64::MAX, 2, DType::I64), -2);
    assert_eq!(binary(BinaryFn::Div, 7, 0, DType::I32), -1);
    assert_eq!(binary(BinaryFn::Div, 7, 0, DType::U8), 255);
    assert_eq!(binary(BinaryFn::Div, -7, 2, DType::I32), -3);
    assert_eq!(binary(BinaryFn::Div, min, -1, DType::I32), min);
    assert_eq!(binary(BinaryFn::Div, i64::MIN, -1, DType::I64), i64::MIN);
    assert_eq!(binary(BinaryFn::Rem, 7, 0, DType::I32), 7);
    assert_eq!(binary(BinaryFn::Rem, min, -1, DType::I32), 0);
    assert_eq!(binary(BinaryFn::Rem, -7, 3, DType::I32), -1);
    assert_eq!(binary(BinaryFn::Shl, 1, 33, DType::I32), 2);
    assert_eq!(binary(BinaryFn::Shr, -8, 1, DType::I32), -4);
    assert_eq!(binary(BinaryFn::Shr, 0x8000_0000, 31, DType::U32), 1);
}

#[test]
fn floats_round_to_their_type_only_in_native_precision() {
    let round = |x: f64, dtype| Evaluator::native().round(x, dtype);
    // `torch.tensor(...).half()` and `.bfloat16()`.
    let half = [1.001_276_562_5, 65_519.9, 65_520.0, 1e-8, 6e-8].map(|x| round(x, DType::F16));
    assert_eq!(half, [1.000_976_562_5, 65_504.0, f64::INFINITY, 0.0, 5.960_464_477_539_063e-8]);
    let brain = [1.003_906_2, 1.01, 3.4e38, 1e-40].map(|x| round(x, DType::Bf16));
    assert_eq!(brain, [1.0, 1.007_812_5, f64::INFINITY, 9.183_549_615_799_121e-41]);
    assert_eq!(Evaluator::wide().round(0.1, DType::F32), 0.1);
}

#[test]
fn sums_round_after_every_step() {
    let builder = GraphBuilder::new("f");
    let x = builder.input("x", DType::F32, [3]);
    builder.returns(&[&x.sum(&[0])]);
    let graph = builder.finish().unwrap();
    let x = [Array::f32(&[3], &[16_777_216.0, 1.0, 1.0]).unwrap()];
    let sum = |precision| Evaluator { precision }.evaluate(&graph, &x, &|_| None).unwrap().returns[0].at(0).unwrap();
    assert_eq!(sum(Precision::Native), Number::Float(16_777_216.0));
    assert_eq!(sum(Precision::Wide), Number::Float(16_777_218.0));
}

#[test]
fn a_scalar_expression_without_positions_has_a_value() {
    use crate::scalar::ScalarExpr;
    let x = ScalarExpr::read(0, DType::F32);
    let three = (Number::Int(3), DType::F32);
    assert_eq!(Evaluator::native().scalar(&(&x / 4.0), &[three]), Some(Number::Float(0.75)));
    assert_eq!(Evaluator::native().scalar(&x, &[]), None);
    assert_eq!(Evaluator::native().scalar(&ScalarExpr::index(0), &[three]), None);
}

#[test]
fn nan_and_saturation() {
    let builder = GraphBuilder::new("f");
    let x = builder.input("x", DType::F32, [4]);
    let zero = x.full_like(0.0);
    let results = [
        x.cast(DType::I32),
        x.cast(DType::Bool),
        x.elementwise(Elementwise::Max, &[&zero]),
        x.elementwise(Elementwise::Ne, &[&x]),
        x.elementwise(Elementwise::Sign, &[]),
    ];
    builder.returns(&results.iter().collect::<Vec<_>>());
    let graph = builder.finish().unwrap();
    let x = [Array::f32(&[4], &[f32::NAN, 3e9, -3e9, -2.5]).unwrap()];
    let y = Evaluator::native().evaluate(&graph, &x, &|_| None).unwrap().returns;
    assert_eq!(y[0].data, Data::Int(vec![0, i64::from(i32::MAX), i64::from(i32::MIN), -2]));
    assert_eq!(y[1].data, Data::Int(vec![1, 1, 1, 1]));
    assert!(y[2].to_f64()[0].is_nan() && y[4].to_f64()[0].is_nan());
    assert_eq!(y[2].to_f64()[1..], [3e9, 0.0, 0.0]);
    assert_eq!(y[3].data, Data::Int(vec![1, 0, 0, 0]));
}

#[test]
fn an_index_out_of_range_is_named() {
    let builder = GraphBuilder::new("f");
    let x = builder.input("x", DType::F32, [3, 2]);
    let index = builder.input("i", DType::I64, [2]);
    builder.returns(&[&builder.apply(Gather {}, &[&x, &index])]);
    let graph = builder.finish().unwrap();
    for bad in [-1, 3] {
        let inputs = [Array::f32(&[3, 2], &[0.0; 6]).unwrap(), Array::i64(&[2], &[0, bad]).unwrap()];
        let error = Evaluator::native().evaluate(&graph, &inputs, &|_| None).unwrap_err();
        let EvalError::Index { mnemonic, position, value, extent, provenance } = error else { panic!("{error}") };
        assert_eq!((mnemonic, position, value, extent), ("gather", vec![1], bad, 3));
        assert!(provenance.source.is_some_and(|source| source.file.ends_with("tests.rs")));
    }
}

#[test]
fn inputs_and_states_are_checked() {
    let builder = GraphBuilder::new("f");
    let ty = TensorType::new(DType::I64, [1]);
    builder.param("label", ty.clone(), Some(10));
    let state = builder.read_state("w", ty);
    builder.returns(&[&state]);
    let graph = builder.finish().unwrap();
    let run = |label: i64, state: Option<Array>| {
        Evaluator::native().evaluate(&graph, &[Array::i64(&[1], &[label]).unwrap()], &|_| state.clone())
    };
    let one = Array::i64(&[1], &[1]);
    assert!(matches!(run(10, one.clone()), Err(EvalError::Input(_))));
    assert!(matches!(run(9, None), Err(EvalError::State { .. })));
    assert!(matches!(run(9, Array::i64(&[2], &[1, 2])), Err(EvalError::State { .. })));
    assert_eq!(run(9, one.clone()).unwrap().returns, [one.unwrap()]);
    assert!(matches!(Evaluator::native().evaluate(&graph, &[], &|_| None), Err(EvalError::Input(_))));
}

#[test]
fn the_observer_sees_every_node_in_order() {
    let builder = GraphBuilder::new("f");
    let x = builder.input("x", DType::F32, [1]);
    let y = &x.log() + 1.0;
    builder.returns(&[&y.exp()]);
    let graph = builder.finish().unwrap();
    let mut non_finite = Vec::new();
    let x = [Array::f32(&[1], &[0.0]).unwrap()];
    let observe = &mut |node, results: &[Array]| {
        if results.iter().any(|array| !array.is_finite()) {
            non_finite.push(graph.node(node).op.mnemonic());
        }
    };
    let outcome = Evaluator::native().evaluate_observed(&graph, &x, &|_| None, observe).unwrap();
    // log(0) = -inf is the first; exp(-inf) is 0 again.
    assert_eq!(non_finite, ["log", "add"]);
    assert_eq!(outcome.returns[0].to_f64(), [0.0]);
}
