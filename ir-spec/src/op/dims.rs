//! Lists of dimensions: resolved, permuted, repeated along, sliced.

use crate::builder::{Tensor, to_ints};
use crate::op;
use crate::op::rules::dimension;
use crate::types::{Dim, DimError, TensorType};

/// Dimension numbers of `dims`; `None` unless all exist and differ.
pub(crate) fn resolve_dims(dims: &[i64], rank: usize) -> Option<Vec<usize>> {
    let resolved: Vec<usize> = dims.iter().map(|&d| dimension(d, rank)).collect::<Option<_>>()?;
    let distinct = resolved.iter().enumerate().all(|(i, d)| !resolved[..i].contains(d));
    distinct.then_some(resolved)
}

/// The dimensions of `0..rank` that are not in `taken`, ascending.
pub(crate) fn other_dims(rank: usize, taken: &[usize]) -> Vec<usize> {
    (0..rank).filter(|d| !taken.contains(d)).collect()
}

/// `permutation[inverse[i]] = i`; `permutation` is one.
pub(crate) fn inverse(permutation: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; permutation.len()];
    for (i, &p) in permutation.iter().enumerate() {
        inverse[p] = i;
    }
    inverse
}

/// `x` with its dimensions permuted; itself if the order is right already.
#[track_caller]
pub(crate) fn permuted(x: &Tensor, permutation: &[usize]) -> Tensor {
    if permutation.iter().enumerate().all(|(i, &p)| i == p) { x.clone() } else { x.transpose(permutation) }
}

/// Number of elements, as a polynomial.
pub(crate) fn element_count(ty: &TensorType) -> Result<Dim, DimError> {
    ty.shape.dims().iter().try_fold(Dim::from(1), |product, dim| product.mul(dim))
}

/// Positions along `dim` of a tensor like `x`, as i64.
#[track_caller]
pub(crate) fn positions(x: &Tensor, dim: usize) -> Tensor {
    let ty = TensorType::new(crate::types::DType::I64, x.shape());
    x.builder().apply(op::Iota { ty, dim: dim as i64 }, &[])
}

/// `x` without `dims`, repeated along them again: the inverse of a reduction over `dims`.
#[track_caller]
pub(crate) fn repeat_along(x: &Tensor, like: &Tensor, dims: &[usize]) -> Tensor {
    let kept = other_dims(like.rank(), dims);
    x.broadcast(like.shape(), &kept)
}

/// Columns `start..stop` of `dim`, every other dimension whole.
#[track_caller]
pub(crate) fn slice_dim(x: &Tensor, dim: usize, start: i64, stop: usize) -> Tensor {
    let mut starts = to_ints(&vec![0; x.rank()]);
    let mut stops: crate::attribute::Dims = x.shape().dims().iter().cloned().collect();
    starts[dim] = start;
    stops[dim] = Dim::from(stop);
    let step = to_ints(&vec![1; x.rank()]);
    x.builder().apply(op::Slice { start: starts, stop: stops, step }, &[x])
}
