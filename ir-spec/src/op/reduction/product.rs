//! Gradient of a product: for each element the product of all others.
//!
//! `y / x` is wrong at zeros, so the others are multiplied up in a balanced tree: each half of a node gets what its
//! parent got times the other half. That is linear work, exact at zeros, and made of products and slices, so it can be
//! differentiated again.

use crate::builder::{Tensor, to_ints};
use crate::op::dims::{inverse, other_dims, permuted, slice_dim};
use crate::op::{Concat, Gradient, Pad, Vjp};

pub(super) fn vjp(cx: &Vjp<'_>, dims: &[usize]) -> Gradient {
    let x = &cx.operands[0];
    let dx = cx.cotangents[0].as_ref().map(|dy| {
        let extents = x.ty().extents();
        let kept = other_dims(x.rank(), dims);
        let count: usize = dims.iter().map(|&d| extents[d]).product();
        let rows: usize = kept.iter().map(|&d| extents[d]).product();
        let order = [&*kept, dims].concat();
        let flat = permuted(x, &order).reshape([rows, count]);
        let scaled = &others(&flat) * &dy.reshape([rows]).broadcast([rows, count], &[0]);
        let moved = order.iter().map(|&d| x.shape().dims()[d].clone()).collect::<crate::types::Shape>();
        permuted(&scaled.reshape(moved), &inverse(&order))
    });
    Gradient::Operands(vec![dx])
}

/// For each element of `x: [R, N]` the product of the others of its row.
fn others(x: &Tensor) -> Tensor {
    let extents = x.ty().extents();
    let (rows, count) = (extents[0], extents[1]);
    let width = count.next_power_of_two();
    let high = [0, (width - count) as i64];
    let padded = match width - count {
        0 => x.clone(),
        _ => x.builder().apply(Pad { low: to_ints(&[0, 0]), high: high.into_iter().collect(), value: 1.0 }, &[x]),
    };
    // Upwards: the halves of every node, from the leaves to the root.
    let mut halves = Vec::new();
    let mut level = padded.clone();
    let mut nodes = width;
    while nodes > 1 {
        nodes /= 2;
        let pairs = level.reshape([rows, nodes, 2]);
        let half = |i: usize| slice_dim(&pairs, 2, i as i64, i + 1).reshape([rows, nodes]);
        let (left, right) = (half(0), half(1));
        level = &left * &right;
        halves.push((left, right));
    }
    // Downwards: what lies outside of each node.
    let mut outside = level.full_like(1.0);
    for (left, right) in halves.into_iter().rev() {
        let (for_left, for_right) = (&outside * &right, &outside * &left);
        let column = |t: &Tensor| t.reshape([rows, nodes, 1]);
        let (a, b) = (column(&for_left), column(&for_right));
        nodes *= 2;
        outside = x.builder().apply(Concat { dim: 2 }, &[&a, &b]).reshape([rows, nodes]);
    }
    if width == count { outside } else { slice_dim(&outside, 1, 0, count) }
}
