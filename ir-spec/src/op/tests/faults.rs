//! Every label has operands that yield it, and extents may be unknown.

use super::{ints, labels, ty};
use crate::attribute::Dims;
use crate::op::*;
use crate::types::{Bindings, DType, Dim, Shape, TensorType};

fn f32s(extents: &[usize]) -> TensorType {
    ty(DType::F32, extents)
}

fn dims(list: &[usize]) -> Dims {
    list.iter().map(|&n| Dim::from(n)).collect()
}

fn conv(strides: &[i64], padding: &[i64], dilation: &[i64], groups: i64) -> Conv {
    Conv { strides: ints(strides), padding: ints(padding), dilation: ints(dilation), groups }
}

#[test]
fn dot_labels() {
    let dot =
        |a: &[i64], b: &[i64]| Dot { a_contract: ints(a), b_contract: ints(b), a_batch: ints(&[]), b_batch: ints(&[]) };
    assert_eq!(labels(dot(&[1], &[0]), &[f32s(&[2, 3]), ty(DType::F64, &[3, 2])]), ["dot.C1"]);
    assert_eq!(labels(dot(&[1, 0], &[0]), &[f32s(&[2, 3]), f32s(&[3, 2])]), ["dot.C2"]);
    assert_eq!(labels(dot(&[2], &[0]), &[f32s(&[2, 3]), f32s(&[3, 2])]), ["dot.C3"]);
    assert_eq!(labels(dot(&[1], &[1]), &[f32s(&[2, 3]), f32s(&[3, 2])]), ["dot.C4"]);
}

#[test]
fn attention_labels() {
    let attention = |causal| Attention { scale: 0.5, causal };
    let (q, k, v) = (f32s(&[1, 2, 3, 4]), f32s(&[1, 2, 5, 4]), f32s(&[1, 2, 5, 6]));
    let found = attention(false).infer(&[q.clone(), k.clone(), v.clone()]).unwrap();
    assert_eq!(found.to_vec(), [f32s(&[1, 2, 3, 6]), f32s(&[1, 2, 3])]);
    assert_eq!(labels(attention(false), &[f32s(&[2, 3, 4]), k.clone(), v.clone()]), ["attention.C1"]);
    assert_eq!(labels(attention(false), &[q.clone(), f32s(&[1, 2, 5, 3]), v.clone()]), ["attention.C2"]);
    assert_eq!(labels(attention(false), &[q.clone(), k.clone(), f32s(&[1, 2, 4, 6])]), ["attention.C2"]);
    assert_eq!(labels(attention(true), &[q.clone(), k.clone(), v.clone()]), ["attention.C3"]);
    let unbounded = Attention { scale: f64::INFINITY, causal: false };
    assert_eq!(labels(unbounded, &[q.clone(), k.clone(), v.clone()]), ["attention.C4"]);
    let grad = AttentionGrad { scale: 0.5, causal: false };
    let (y, rows) = (f32s(&[1, 2, 3, 6]), f32s(&[1, 2, 3]));
    assert_eq!(grad.infer(&[q.clone(), k.clone(), v.clone(), y.clone(), rows, y.clone()]).unwrap().len(), 3);
    assert_eq!(labels(grad, &[q, k, v, y.clone(), f32s(&[1, 2, 4]), y]), ["attention_grad.C1"]);
}

#[test]
fn conv_labels() {
    let plain = || conv(&[1], &[0, 0], &[1], 1);
    assert_eq!(labels(plain(), &[f32s(&[1, 2, 5]), f32s(&[1, 2])]), ["conv.C1"]);
    assert_eq!(labels(plain(), &[f32s(&[1, 2, 5]), ty(DType::Bf16, &[1, 2, 3])]), ["conv.C2"]);
    assert_eq!(labels(conv(&[1, 1], &[0], &[1], 1), &[f32s(&[1, 2, 5]), f32s(&[1, 2, 3])]), ["conv.C3"]);
    assert_eq!(labels(conv(&[0], &[0, 0], &[1], 1), &[f32s(&[1, 2, 5]), f32s(&[1, 2, 3])]), ["conv.C4"]);
    assert_eq!(labels(conv(&[1], &[-1, 0], &[1], 1), &[f32s(&[1, 2, 5]), f32s(&[1, 2, 3])]), ["conv.C4"]);
    assert_eq!(labels(conv(&[1], &[0, -3], &[1], 1), &[f32s(&[1, 2, 5]), f32s(&[1, 2, 3])]), ["conv.C7"]);
    assert_eq!(labels(conv(&[1], &[0, 0], &[1], 2), &[f32s(&[1, 2, 5]), f32s(&[3, 1, 3])]), ["conv.C5"]);
    assert_eq!(labels(plain(), &[f32s(&[1, 2, 5]), f32s(&[1, 3, 3])]), ["conv.C6"]);
    assert_eq!(labels(plain(), &[f32s(&[1, 2, 2]), f32s(&[1, 2, 3])]), ["conv.C7"]);
    assert_eq!(labels(conv(&[0], &[-1, 0], &[1], 1), &[f32s(&[1, 2, 5]), f32s(&[1, 3, 3])]), ["conv.C4", "conv.C6"]);
    let Conv { strides, padding, dilation, groups } = plain();
    let back = ConvGradInput { ty: f32s(&[1, 2, 5]), strides, padding, dilation, groups };
    assert_eq!(labels(back, &[f32s(&[1, 1, 4]), f32s(&[1, 2, 3])]), ["conv_grad_input.C1"]);
    let Conv { strides, padding, dilation, groups } = plain();
    let back = ConvGradFilter { ty: f32s(&[1, 2, 3]), strides, padding, dilation, groups };
    assert_eq!(labels(back, &[f32s(&[1, 2, 5]), f32s(&[1, 1, 4])]), ["conv_grad_filter.C1"]);
}

#[test]
fn unknown_extents_flow_through_a_convolution() {
    let shape = |dims: Vec<Dim>| TensorType::new(DType::F32, dims.into_iter().collect::<Shape>());
    let (batch, length) = (Dim::named("batch"), Dim::named("length"));
    let x = shape(vec![batch.clone(), 2.into(), length.clone()]);
    let w = f32s(&[4, 2, 3]);
    let y = conv(&[1], &[0, 0], &[1], 1).infer(&[x.clone(), w.clone()]).unwrap();
    assert_eq!(y[0], shape(vec![batch, 4.into(), length.offset(-2).unwrap()]));
    assert_eq!(labels(conv(&[2], &[0, 0], &[1], 1), &[x.clone(), w.clone()]), ["conv.D1"]);
    let bound = TensorType { shape: x.shape.bind(&Bindings::from([("length".into(), 9)])), ..x };
    assert_eq!(conv(&[2], &[0, 0], &[1], 1).infer(&[bound, w]).unwrap()[0].shape.dims()[2], Dim::from(4));
}

#[test]
fn pool_labels() {
    let pool = |window: &[i64], strides: &[i64], padding: &[i64]| MaxPool {
        window: ints(window),
        strides: ints(strides),
        padding: ints(padding),
    };
    let x = f32s(&[1, 1, 4]);
    assert_eq!(labels(pool(&[2], &[2], &[0, 0]), &[f32s(&[4])]), ["max_pool.C1"]);
    assert_eq!(labels(pool(&[2], &[2], &[0, 0]), &[ty(DType::Bool, &[1, 1, 4])]), ["max_pool.C2"]);
    assert_eq!(labels(pool(&[2, 2], &[2], &[0, 0]), std::slice::from_ref(&x)), ["max_pool.C3"]);
    assert_eq!(labels(pool(&[0], &[2], &[0, 0]), std::slice::from_ref(&x)), ["max_pool.C4"]);
    assert_eq!(labels(pool(&[5], &[2], &[0, 0]), std::slice::from_ref(&x)), ["max_pool.C5"]);
    let unknown =
        TensorType::new(DType::F32, [1, 1].map(Dim::from).into_iter().chain([Dim::named("n")]).collect::<Shape>());
    assert_eq!(labels(pool(&[2], &[2], &[0, 0]), &[unknown]), ["max_pool.D1"]);
    let (window, strides, padding) = (ints(&[2]), ints(&[2]), ints(&[0, 0]));
    let grad =
        MaxPoolGrad { ty: x.clone(), window: window.clone(), strides: strides.clone(), padding: padding.clone() };
    let place = ty(DType::I64, &[1, 1, 2]);
    assert_eq!(labels(grad, &[f32s(&[1, 1, 3]), place.clone()]), ["max_pool_grad.C1", "max_pool_grad.C1"]);
    let take = MaxPoolTake { window: window.clone(), strides: strides.clone(), padding: padding.clone() };
    assert_eq!(labels(take, &[x.clone(), place]), ["max_pool_take.C1"]);
    let grad = SumPoolGrad { ty: x.clone(), window: window.clone(), strides: strides.clone(), padding };
    assert_eq!(labels(grad, &[f32s(&[1, 1, 3])]), ["sum_pool_grad.C1"]);
    let avg = AvgPool { window, strides, padding: ints(&[2, 0]), count_outside: false };
    assert_eq!(labels(avg.clone(), std::slice::from_ref(&x)), ["avg_pool.C6"]);
    assert_eq!(labels(avg, &[ty(DType::I32, &[1, 1, 4])]), ["avg_pool.C2"]);
}

#[test]
fn movement_labels() {
    let x = [f32s(&[2, 3])];
    assert_eq!(labels(Transpose { permutation: ints(&[0, 0]) }, &x), ["transpose.C1"]);
    let slice =
        |start: &[i64], stop: &[usize], step: &[i64]| Slice { start: ints(start), stop: dims(stop), step: ints(step) };
    assert_eq!(labels(slice(&[0], &[2], &[1]), &x), ["slice.C1"]);
    assert_eq!(labels(slice(&[0, 2], &[3, 1], &[1, 1]), &x), ["slice.C2", "slice.C2"]);
    let named: Dims = [Dim::from(2), Dim::named("n")].into_iter().collect();
    let halved = Slice { start: ints(&[0, 0]), stop: named, step: ints(&[1, 2]) };
    assert_eq!(labels(halved, &x), ["slice.D1"]);
    let grad = |start: &[i64], step: &[i64]| SliceGrad { ty: f32s(&[2, 5]), start: ints(start), step: ints(step) };
    assert_eq!(labels(grad(&[0], &[1]), &x), ["slice_grad.C1"]);
    assert_eq!(labels(grad(&[0, 1], &[1, 2]), &x), ["slice_grad.C2"]);
    assert_eq!(labels(Pad { low: ints(&[0, -1]), high: ints(&[0, 0]), value: 0.0 }, &x), ["pad.C1"]);
    assert_eq!(labels(Concat { dim: 2 }, &x), ["concat.C1"]);
    assert_eq!(labels(Concat { dim: 0 }, &[]), ["concat.C1"]);
    assert_eq!(labels(Concat { dim: 0 }, &[f32s(&[2, 3]), f32s(&[2, 4])]), ["concat.C2"]);
    assert_eq!(labels(Reverse { dims: ints(&[2]) }, &x), ["reverse.C1"]);
    assert_eq!(labels(Cast { ty: f32s(&[3, 2]) }, &x), ["cast.C1"]);
    assert_eq!(labels(Reshape { ty: ty(DType::F64, &[7]) }, &x), ["reshape.C1", "reshape.C2"]);
    assert_eq!(labels(Broadcast { ty: ty(DType::F64, &[2, 3]), dims: ints(&[0, 1]) }, &x), ["broadcast.C1"]);
    assert_eq!(labels(Broadcast { ty: f32s(&[2, 3]), dims: ints(&[0]) }, &x), ["broadcast.C2"]);
    assert_eq!(labels(Broadcast { ty: f32s(&[3, 3]), dims: ints(&[0, 1]) }, &x), ["broadcast.C3"]);
    assert_eq!(labels(Relayout { ty: f32s(&[3, 2]) }, &x), ["relayout.C1"]);
}

#[test]
fn reduction_and_indexing_labels() {
    let x = [f32s(&[2, 0])];
    assert_eq!(labels(ReduceSum { dims: ints(&[0, -2]) }, &x), ["reduce_sum.C1"]);
    assert_eq!(labels(ReduceMax { dims: ints(&[0]) }, &[ty(DType::Bool, &[2])]), ["reduce_max.C2"]);
    assert_eq!(labels(ReduceAnd { dims: ints(&[5]) }, &x), ["reduce_and.C1", "reduce_and.C2"]);
    assert_eq!(labels(ReduceMean { dims: ints(&[0]) }, &[ty(DType::I32, &[2])]), ["reduce_mean.C2"]);
    assert_eq!(labels(ArgMax { dim: 2 }, &x), ["arg_max.C1"]);
    assert_eq!(labels(ArgMin { dim: 0 }, &[ty(DType::Bool, &[2])]), ["arg_min.C2"]);
    assert_eq!(labels(ArgMax { dim: 1 }, &x), ["arg_max.C3"]);
    let index = ty(DType::I32, &[3]);
    assert_eq!(labels(Gather {}, &[f32s(&[]), ty(DType::U8, &[])]), ["gather.C1", "gather.C2"]);
    assert_eq!(labels(ScatterAdd {}, &[f32s(&[2, 2]), index.clone(), f32s(&[3])]), ["scatter_add.C1"]);
    let f64s = ty(DType::F64, &[3, 2]);
    assert_eq!(labels(ScatterAdd {}, &[f32s(&[2, 2]), f32s(&[3]), f64s]), ["scatter_add.C2", "scatter_add.C3"]);
    assert_eq!(labels(TakeAlong {}, &[f32s(&[2, 2]), index]), ["take_along.C1"]);
    assert_eq!(labels(TakeAlong {}, &[f32s(&[2, 2]), f32s(&[2])]), ["take_along.C2"]);
    assert_eq!(labels(Elu { alpha: 1.0 }, &[ty(DType::I32, &[2])]), ["elu.C1"]);
    assert_eq!(labels(LeakyRelu { slope: 1.0 }, &[ty(DType::I32, &[2])]), ["leaky_relu.C1"]);
    assert_eq!(labels(Clamp { low: 0.0, high: 1.0 }, &[ty(DType::Bool, &[2])]), ["clamp.C1"]);
    assert_eq!(labels(Clamp { low: 1.0, high: 0.0 }, &x), ["clamp.C2"]);
}
