//! Literal results. Those of windows and convolutions are from PyTorch 2 on the same patterns; the rest is by hand.

use super::{first, floats, indices, ints, pattern, run, ty};
use crate::op::*;
use crate::reference::{Array, Data};
use crate::types::{DType, Dim};

const F: DType = DType::F32;

fn conv() -> Conv {
    Conv { strides: ints(&[2, 1]), padding: ints(&[1, 2, 1, 0]), dilation: ints(&[1, 2]), groups: 2 }
}

/// `F.conv2d(F.pad(x, (1, 0, 1, 2)), w, stride=(2, 1), dilation=(1, 2), groups=2)`.
#[test]
fn grouped_strided_dilated_convolution_agrees_with_pytorch() {
    let y = run(conv(), &[pattern(F, &[1, 4, 4, 3]), pattern(F, &[4, 2, 3, 2])]).remove(0);
    assert_eq!(y.ty, ty(F, &[1, 4, 3, 2]));
    let expected = [-20, 9, 20, -27, 4, 7, 6, -49, -4, 13, 4, -26, -17, -14, 9, 23, -20, 5, 27, -14, 12, 29, 22, -21];
    assert_eq!(y.to_f64(), expected.map(f64::from));
}

#[test]
fn gradients_of_a_convolution_agree_with_pytorch() {
    let (x, w, dy) = (pattern(F, &[1, 4, 4, 3]), pattern(F, &[4, 2, 3, 2]), pattern(F, &[1, 4, 3, 2]));
    let Conv { strides, padding, dilation, groups } = conv();
    let input = ConvGradInput { ty: x.ty.clone(), strides, padding, dilation, groups };
    let dx = [
        -4, -10, -3, 1, 20, -32, 12, -7, -11, -22, 26, 18, -20, 2, -19, 1, -12, 1, 28, -7, 5, -2, 3, -17, 4, -12, 4,
        -9, 1, 0, 16, 20, -8, -29, -12, 42, 4, 5, -7, -10, 1, -12, 4, -19, 2, 1, 8, 28,
    ];
    assert_eq!(first(input, &[dy.clone(), w.clone()]), dx.map(f64::from));
    let Conv { strides, padding, dilation, groups } = conv();
    let filter = ConvGradFilter { ty: w.ty, strides, padding, dilation, groups };
    let dw = [
        9, 12, 2, 1, 0, 0, -12, 4, 16, -3, 14, -37, 25, 4, 14, -15, 16, -8, -24, 6, 0, 13, 2, -35, 8, 20, -3, 12, -8,
        -28, -36, -1, -23, 6, 16, -1, -10, 21, -3, 16, -4, -38, 17, -34, -7, -2, 14, -1,
    ];
    assert_eq!(first(filter, &[x, dy]), dw.map(f64::from));
}

/// By hand: 1 2 3 4 under 1 10, of which the last result is left out, and its gradients for `dy` of 1 2.
#[test]
fn negative_padding_after_leaves_out_what_is_last() {
    let geometry = || (ints(&[1]), ints(&[0, -1]), ints(&[1]));
    let (x, w, dy) = (floats(&[1, 1, 4], &[1.0, 2.0, 3.0, 4.0]), floats(&[1, 1, 2], &[1.0, 10.0]), [1.0, 2.0]);
    let (strides, padding, dilation) = geometry();
    assert_eq!(first(Conv { strides, padding, dilation, groups: 1 }, &[x.clone(), w.clone()]), [21.0, 32.0]);
    let (strides, padding, dilation) = geometry();
    let input = ConvGradInput { ty: x.ty.clone(), strides, padding, dilation, groups: 1 };
    assert_eq!(first(input, &[floats(&[1, 1, 2], &dy), w.clone()]), [1.0, 12.0, 20.0, 0.0]);
    let (strides, padding, dilation) = geometry();
    let filter = ConvGradFilter { ty: w.ty, strides, padding, dilation, groups: 1 };
    assert_eq!(first(filter, &[x, floats(&[1, 1, 2], &dy)]), [5.0, 8.0]);
}

/// `F.conv3d(x, w, stride=(1, 1, 2), padding=(0, 1, 0))`.
#[test]
fn convolution_in_space_agrees_with_pytorch() {
    let op =
        Conv { strides: ints(&[1, 1, 2]), padding: ints(&[0, 0, 1, 1, 0, 0]), dilation: ints(&[1, 1, 1]), groups: 1 };
    let expected = [-17, 14, 13, 23, -11, 22, -1, -8, 23, 16, 13, -16, 26, -37, 4, 16];
    assert_eq!(first(op, &[pattern(F, &[1, 1, 2, 3, 3]), pattern(F, &[2, 1, 1, 2, 2])]), expected.map(f64::from));
}

#[test]
fn pools_agree_with_pytorch() {
    let x = pattern(F, &[1, 1, 4, 4]);
    let one = std::slice::from_ref(&x);
    let (window, strides, padding) = (ints(&[3, 3]), ints(&[2, 2]), ints(&[1, 1, 1, 1]));
    let max = run(MaxPool { window: window.clone(), strides: strides.clone(), padding: padding.clone() }, one);
    assert_eq!(max[0].to_f64(), [5.0, 5.0, 5.0, 4.0]);
    let (w, s, p) = (window.clone(), strides.clone(), padding.clone());
    let grad = MaxPoolGrad { ty: x.ty.clone(), window: w, strides: s, padding: p };
    let dx = first(grad, &[pattern(F, &[1, 1, 2, 2]), max[1].clone()]);
    assert_eq!(dx, [0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, -3.0]);
    let sum = SumPool { window: window.clone(), strides: strides.clone(), padding: padding.clone() };
    assert_eq!(first(sum, one), [7.0, 2.0, 4.0, -4.0]);
    let inside = AvgPool { window, strides, padding, count_outside: false };
    let means = first(inside, one);
    let expected = [7.0 / 4.0, 2.0 / 6.0, 4.0 / 6.0, -4.0 / 9.0];
    assert!(means.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-7), "{means:?}");
}

#[test]
fn max_pool_of_padding_and_of_nan() {
    let op = MaxPool { window: ints(&[2]), strides: ints(&[2]), padding: ints(&[2, 0]) };
    let results = run(op, &[floats(&[1, 1, 4], &[1.0, f64::NAN, f64::NAN, 7.0])]);
    let y = results[0].to_f64();
    assert!(y[0] == f64::NEG_INFINITY && y[1].is_nan() && y[2].is_nan(), "{y:?}");
    assert_eq!(results[1].data, Data::Int(vec![0, 1, 0]));
}

/// `torch.einsum("bij,bki->bjk", a, b)`.
#[test]
fn dot_agrees_with_pytorch() {
    let op = Dot { a_contract: ints(&[1]), b_contract: ints(&[2]), a_batch: ints(&[0]), b_batch: ints(&[0]) };
    let expected = [13, 10, 7, 4, -25, -27, -29, -31, -27, -24, -21, 4, 16, 20, 24, 6];
    assert_eq!(first(op, &[pattern(F, &[2, 3, 2]), pattern(F, &[2, 4, 3])]), expected.map(f64::from));
}

#[test]
fn movement() {
    // [[0, 1, 2], [3, 4, 5]]
    let x = floats(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let one = std::slice::from_ref(&x);
    let like = |extents: &[usize]| ty(DType::F64, extents);
    assert_eq!(first(Transpose { permutation: ints(&[1, 0]) }, one), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let stop = [2, 3].into_iter().map(|n: usize| Dim::from(n)).collect();
    assert_eq!(first(Slice { start: ints(&[1, 0]), stop, step: ints(&[1, 2]) }, one), [3.0, 5.0]);
    let pad = Pad { low: ints(&[0, 1]), high: ints(&[1, 0]), value: 9.0 };
    assert_eq!(first(pad, one), [9.0, 0.0, 1.0, 2.0, 9.0, 3.0, 4.0, 5.0, 9.0, 9.0, 9.0, 9.0]);
    assert_eq!(first(Reverse { dims: ints(&[1]) }, one), [2.0, 1.0, 0.0, 5.0, 4.0, 3.0]);
    assert_eq!(first(Reshape { ty: like(&[3, 2]) }, one), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let column = floats(&[2, 1], &[7.0, 8.0]);
    assert_eq!(first(Concat { dim: 1 }, &[column.clone(), x.clone()]), [7.0, 0.0, 1.0, 2.0, 8.0, 3.0, 4.0, 5.0]);
    assert_eq!(first(Broadcast { ty: like(&[2, 2]), dims: ints(&[0, 1]) }, &[column]), [7.0, 7.0, 8.0, 8.0]);
    let grad = SliceGrad { ty: like(&[5]), start: ints(&[1]), step: ints(&[2]) };
    assert_eq!(first(grad, &[floats(&[2], &[7.0, 8.0])]), [0.0, 7.0, 0.0, 8.0, 0.0]);
    assert_eq!(first(Cast { ty: ty(DType::U8, &[2]) }, &[floats(&[2], &[-3.9, 300.0])]), [0.0, 255.0]);
}

#[test]
fn reductions() {
    // [[-2, 5, 1], [-3, 4, 0]]
    let x = pattern(F, &[2, 3]);
    let one = std::slice::from_ref(&x);
    assert_eq!(first(ReduceSum { dims: ints(&[1]) }, one), [4.0, 1.0]);
    assert_eq!(first(ReduceProd { dims: ints(&[1]) }, one), [-10.0, 0.0]);
    assert_eq!(first(ReduceMean { dims: ints(&[0]) }, one), [-2.5, 4.5, 0.5]);
    assert_eq!(first(ReduceMax { dims: ints(&[0]) }, one), [-2.0, 5.0, 1.0]);
    assert_eq!(first(ReduceMin { dims: ints(&[0, 1]) }, one), [-3.0]);
    let bits = Array::new(ty(DType::Bool, &[2, 2]), Data::Int(vec![1, 0, 1, 1])).unwrap();
    assert_eq!(first(ReduceAnd { dims: ints(&[1]) }, std::slice::from_ref(&bits)), [0.0, 1.0]);
    assert_eq!(first(ReduceOr { dims: ints(&[0]) }, &[bits]), [1.0, 1.0]);
    let max = run(ArgMax { dim: -1 }, one);
    assert_eq!((max[0].to_f64(), &max[1].data), (vec![5.0, 4.0], &Data::Int(vec![1, 1])));
    let ties = run(ArgMin { dim: 0 }, &[floats(&[4], &[2.0, 1.0, 1.0, 3.0])]);
    assert_eq!(ties[1].data, Data::Int(vec![1]));
}

#[test]
fn nan_wins_every_reduction_to_an_extremum() {
    let x = floats(&[3], &[1.0, f64::NAN, 9.0]);
    let one = std::slice::from_ref(&x);
    assert!(first(ReduceMax { dims: ints(&[0]) }, one)[0].is_nan());
    assert!(first(ReduceMin { dims: ints(&[0]) }, one)[0].is_nan());
    assert_eq!(run(ArgMax { dim: 0 }, one)[1].data, Data::Int(vec![1]));
    assert_eq!(run(ArgMin { dim: 0 }, one)[1].data, Data::Int(vec![1]));
}

#[test]
fn empty_reductions_give_the_neutral_element() {
    let x = floats(&[2, 0], &[]);
    let one = std::slice::from_ref(&x);
    assert_eq!(first(ReduceSum { dims: ints(&[1]) }, one), [0.0, 0.0]);
    assert_eq!(first(ReduceProd { dims: ints(&[1]) }, one), [1.0, 1.0]);
    assert_eq!(first(ReduceMax { dims: ints(&[1]) }, one), [f64::NEG_INFINITY; 2]);
    assert!(first(ReduceMean { dims: ints(&[1]) }, one)[0].is_nan());
    assert_eq!(first(ReduceSum { dims: ints(&[0]) }, one), [0.0; 0]);
    let plain = Dot { a_contract: ints(&[1]), b_contract: ints(&[0]), a_batch: ints(&[]), b_batch: ints(&[]) };
    assert_eq!(first(plain, &[x.clone(), floats(&[0, 1], &[])]), [0.0, 0.0]);
    assert_eq!(first(Reshape { ty: ty(DType::F64, &[0, 7]) }, one), [0.0; 0]);
    assert_eq!(first(Concat { dim: 1 }, &[x.clone(), floats(&[2, 1], &[3.0, 4.0])]), [3.0, 4.0]);
}

#[test]
fn indexing() {
    // [[-2, 5], [1, -3], [4, 0], [-4, 3]]
    let x = pattern(F, &[4, 2]);
    let rows = indices(&[3], &[1, 3, 1]);
    assert_eq!(first(Gather {}, &[x.clone(), rows.clone()]), [1.0, -3.0, -4.0, 3.0, 1.0, -3.0]);
    assert_eq!(first(TakeAlong {}, &[x.clone(), indices(&[4], &[1, 0, 0, 1])]), [5.0, 1.0, 4.0, 3.0]);
    // `t.index_add(0, [1, 3, 1], updates)`.
    let sum = first(ScatterAdd {}, &[x, rows, pattern(F, &[3, 2])]);
    assert_eq!(sum, [-2.0, 5.0, 3.0, 2.0, 4.0, 0.0, -3.0, 0.0]);
}

#[test]
fn elementwise_with_attributes() {
    // -2, 5, 1, -3, 4, 0
    let x = pattern(DType::F64, &[6]);
    let one = std::slice::from_ref(&x);
    let close = |a: Vec<f64>, b: [f64; 6]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-15);
    assert!(close(first(LeakyRelu { slope: 0.1 }, one), [-0.2, 5.0, 1.0, -0.3, 4.0, 0.0]));
    let elu = [-1.296997075145081, 5.0, 1.0, -1.4253193974482041, 4.0, 0.0];
    assert!(close(first(Elu { alpha: 1.5 }, one), elu));
    assert_eq!(first(Clamp { low: -2.5, high: 4.5 }, one), [-2.0, 4.5, 1.0, -2.5, 4.0, 0.0]);
    assert!(first(Clamp { low: 0.0, high: 1.0 }, &[floats(&[1], &[f64::NAN])])[0].is_nan());
}
