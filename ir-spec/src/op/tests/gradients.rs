//! First-order gradients; every backward graph consists of ops that are checked here themselves.

use super::{check_gradient, floats, indices, ints, pattern, ty};
use crate::op::*;
use crate::reference::{Array, Data};
use crate::types::DType;

/// Numbers without ties, so that no difference quotient crosses a kink.
fn distinct(extents: &[usize]) -> Array {
    let ty = ty(DType::F64, extents);
    let n = ty.elements();
    let numbers = (0..n).map(|i| ((i * 7919 + 13) % 9973) as f64 / 2000.0 - 2.4999).collect();
    Array::new(ty, Data::Float(numbers)).unwrap()
}

fn f64s(extents: &[usize]) -> Array {
    distinct(extents)
}

#[test]
fn dot_in_any_order_of_dimensions() {
    let plain = Dot { a_contract: ints(&[1]), b_contract: ints(&[0]), a_batch: ints(&[]), b_batch: ints(&[]) };
    check_gradient(plain, &[f64s(&[2, 3]), f64s(&[3, 4])]);
    let mixed = Dot { a_contract: ints(&[3, 0]), b_contract: ints(&[0, 2]), a_batch: ints(&[2]), b_batch: ints(&[-1]) };
    check_gradient(mixed, &[f64s(&[3, 2, 2, 4]), f64s(&[4, 2, 3, 2])]);
    let outer = Dot { a_contract: ints(&[]), b_contract: ints(&[]), a_batch: ints(&[]), b_batch: ints(&[]) };
    check_gradient(outer, &[f64s(&[2]), f64s(&[3])]);
}

struct Case {
    x: Vec<usize>,
    w: Vec<usize>,
    y: Vec<usize>,
    conv: Conv,
}

fn case(x: &[usize], w: &[usize], y: &[usize], attributes: [&[i64]; 3], groups: i64) -> Case {
    let [strides, padding, dilation] = attributes.map(ints);
    Case { x: x.into(), w: w.into(), y: y.into(), conv: Conv { strides, padding, dilation, groups } }
}

fn convolutions() -> Vec<Case> {
    vec![
        case(&[2, 2, 5], &[3, 2, 2], &[2, 3, 3], [&[2], &[1, 0], &[1]], 1),
        case(&[1, 2, 5, 4], &[3, 2, 3, 2], &[1, 3, 3, 3], [&[2, 1], &[1, 1, 0, 1], &[1, 2]], 1),
        case(&[2, 4, 3, 3], &[6, 2, 2, 2], &[2, 6, 2, 3], [&[1, 1], &[0, 0, 1, 0], &[1, 1]], 2),
        case(&[1, 3, 4], &[3, 1, 3], &[1, 3, 2], [&[2], &[1, 1], &[1]], 3),
        case(&[1, 1, 2, 3, 2], &[2, 1, 2, 2, 1], &[1, 2, 1, 2, 1], [&[1, 1, 2], &[0; 6], &[1, 1, 1]], 1),
    ]
}

#[test]
fn convolutions_of_one_to_three_dimensions() {
    for Case { x, w, conv, .. } in convolutions() {
        check_gradient(conv, &[f64s(&x), f64s(&w)]);
    }
}

#[test]
fn gradients_of_convolutions() {
    for Case { x, w, y, conv } in convolutions() {
        let Conv { strides, padding, dilation, groups } = conv.clone();
        let input = ConvGradInput { ty: ty(DType::F64, &x), strides, padding, dilation, groups };
        check_gradient(input, &[f64s(&y), f64s(&w)]);
        let Conv { strides, padding, dilation, groups } = conv;
        let filter = ConvGradFilter { ty: ty(DType::F64, &w), strides, padding, dilation, groups };
        check_gradient(filter, &[f64s(&x), f64s(&y)]);
    }
}

#[test]
fn pools_and_their_gradients() {
    let (window, strides, padding) = (ints(&[3, 2]), ints(&[2, 1]), ints(&[1, 1, 0, 1]));
    let (x, y) = (distinct(&[1, 2, 5, 3]), distinct(&[1, 2, 3, 3]));
    let like = x.ty.clone();
    let max = MaxPool { window: window.clone(), strides: strides.clone(), padding: padding.clone() };
    let place = super::run(max.clone(), std::slice::from_ref(&x))[1].clone();
    check_gradient(max, std::slice::from_ref(&x));
    let take = MaxPoolTake { window: window.clone(), strides: strides.clone(), padding: padding.clone() };
    check_gradient(take, &[x.clone(), place.clone()]);
    let (w, s, p) = (window.clone(), strides.clone(), padding.clone());
    check_gradient(MaxPoolGrad { ty: like.clone(), window: w, strides: s, padding: p }, &[y.clone(), place]);
    let sum = SumPool { window: window.clone(), strides: strides.clone(), padding: padding.clone() };
    check_gradient(sum, std::slice::from_ref(&x));
    let (w, s, p) = (window.clone(), strides.clone(), padding.clone());
    check_gradient(SumPoolGrad { ty: like, window: w, strides: s, padding: p }, &[y]);
    for count_outside in [true, false] {
        let (window, strides, padding) = (window.clone(), strides.clone(), padding.clone());
        check_gradient(AvgPool { window, strides, padding, count_outside }, std::slice::from_ref(&x));
    }
}

#[test]
fn movement() {
    let x = f64s(&[2, 3, 4]);
    let one = std::slice::from_ref(&x);
    let like = |extents: &[usize]| ty(DType::F64, extents);
    check_gradient(Transpose { permutation: ints(&[2, 0, 1]) }, one);
    let stop = [2usize, 2, 4].into_iter().map(crate::types::Dim::from).collect();
    check_gradient(Slice { start: ints(&[0, 2, 1]), stop, step: ints(&[1, 1, 2]) }, one);
    check_gradient(SliceGrad { ty: like(&[2, 6, 9]), start: ints(&[0, 1, 0]), step: ints(&[1, 2, 2]) }, one);
    check_gradient(Pad { low: ints(&[1, 0, 0]), high: ints(&[0, 2, 1]), value: 3.0 }, one);
    check_gradient(Concat { dim: -2 }, &[x.clone(), f64s(&[2, 0, 4]), f64s(&[2, 1, 4])]);
    check_gradient(Reverse { dims: ints(&[0, -1]) }, one);
    check_gradient(Reshape { ty: like(&[4, 1, 6]) }, one);
    check_gradient(Relayout { ty: like(&[2, 3, 4]) }, one);
    check_gradient(Cast { ty: ty(DType::F32, &[2, 3, 4]) }, one);
    check_gradient(Broadcast { ty: like(&[4, 5, 2, 3]), dims: ints(&[2, 3, 0]) }, one);
    check_gradient(Broadcast { ty: like(&[3, 2, 4]), dims: ints(&[0, 2]) }, &[f64s(&[1, 4])]);
    check_gradient(Broadcast { ty: like(&[2, 3]), dims: ints(&[]) }, &[f64s(&[])]);
}

#[test]
fn reductions() {
    let x = distinct(&[2, 3, 4]);
    let one = std::slice::from_ref(&x);
    check_gradient(ReduceSum { dims: ints(&[2, 0]) }, one);
    check_gradient(ReduceMean { dims: ints(&[0, 1]) }, one);
    check_gradient(ReduceMax { dims: ints(&[1]) }, one);
    check_gradient(ReduceMin { dims: ints(&[-1, 0]) }, one);
    check_gradient(ReduceProd { dims: ints(&[2, 0]) }, one);
    check_gradient(ArgMax { dim: 1 }, one);
    check_gradient(ArgMin { dim: -1 }, one);
}

#[test]
fn a_product_with_zeros_has_an_exact_gradient() {
    check_gradient(ReduceProd { dims: ints(&[1]) }, &[floats(&[3, 3], &[0.0, 2.0, 3.0, 0.0, 0.0, 5.0, 2.0, 3.0, 4.0])]);
    check_gradient(ReduceProd { dims: ints(&[0]) }, &[floats(&[1], &[0.0])]);
}

#[test]
fn indexing() {
    let x = f64s(&[4, 2]);
    let rows = indices(&[3], &[1, 3, 1]);
    check_gradient(Gather {}, &[x.clone(), rows.clone()]);
    check_gradient(Gather {}, &[x.clone(), indices(&[], &[2])]);
    check_gradient(ScatterAdd {}, &[x.clone(), rows, f64s(&[3, 2])]);
    check_gradient(TakeAlong {}, &[x, indices(&[4], &[1, 0, 0, 1])]);
}

#[test]
fn elementwise_with_attributes() {
    let x = floats(&[6], &[-2.0, -0.7, -0.1, 0.2, 0.9, 3.0]);
    let one = std::slice::from_ref(&x);
    check_gradient(LeakyRelu { slope: 0.1 }, one);
    check_gradient(Elu { alpha: 1.5 }, one);
    check_gradient(Clamp { low: -0.5, high: 1.0 }, one);
}

/// PyTorch's `amax` divides the cotangent equally among ties: `[1/2, 0, 1/2]`.
#[test]
fn ties_share_the_cotangent() {
    let builder = crate::builder::GraphBuilder::new("f");
    let x = builder.param("x", ty(DType::F64, &[3]), None);
    let op = ReduceMax { dims: ints(&[0]) };
    let y = builder.apply(op.clone(), &[&x]);
    let dy = y.full_like(1.0);
    let cx = Vjp { operands: &[x], results: &[y], cotangents: &[Some(dy)] };
    let Gradient::Operands(gradients) = op.vjp(&cx) else { panic!("no rule") };
    builder.returns(&[gradients[0].as_ref().unwrap()]);
    let graph = builder.finish().unwrap();
    let x = floats(&[3], &[4.0, 1.0, 4.0]);
    let dx = crate::reference::Evaluator::wide().evaluate(&graph, &[x], &|_| None).unwrap();
    assert_eq!(dx.returns[0].to_f64(), [0.5, 0.0, 0.5]);
}

/// A pattern with zeros at the kink of every window: the place decides, not the value.
#[test]
fn the_first_of_equal_elements_is_the_place() {
    let x = pattern(DType::I32, &[1, 1, 11]);
    let op = MaxPool { window: ints(&[11]), strides: ints(&[1]), padding: ints(&[0, 0]) };
    // (7 i + 3) mod 11 = 10 at i = 1.
    let results = super::run(op, &[x]);
    assert_eq!((results[0].to_f64(), results[1].to_f64()), (vec![5.0], vec![1.0]));
}
