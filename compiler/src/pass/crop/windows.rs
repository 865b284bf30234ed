//! What windows read, and how they are padded so that there is a given number of them.

use kiln_ir::attribute::Ints;
use kiln_ir::graph::{Graph, NodeData};
use kiln_ir::op::Op;
use kiln_ir::types::Extents;

/// Windows over the first operand, `[N, C, spatial...]`, one for each element of a result's plane.
pub(super) struct Windows<'a> {
    kernel: Extents,
    strides: &'a Ints,
    padding: &'a Ints,
    dilation: Option<&'a Ints>,
}

impl<'a> Windows<'a> {
    /// The windows of a convolution or a pool.
    pub(super) fn of(graph: &Graph, data: &'a NodeData) -> Option<Windows<'a>> {
        let given = |window: &Ints| window.iter().map(|&k| usize::try_from(k).unwrap_or(0)).collect();
        let (kernel, strides, padding, dilation) = match &data.op {
            Op::Conv(op) => {
                let kernel = graph.ty(data.operands[1]).extents()[2..].into();
                (kernel, &op.strides, &op.padding, Some(&op.dilation))
            }
            Op::MaxPool(op) => (given(&op.window), &op.strides, &op.padding, None),
            Op::SumPool(op) => (given(&op.window), &op.strides, &op.padding, None),
            Op::AvgPool(op) => (given(&op.window), &op.strides, &op.padding, None),
            _ => return None,
        };
        Some(Windows { kernel, strides, padding, dilation })
    }

    /// How much of the operand the windows of the first `results` read; at least one element of each dimension.
    pub(super) fn reach(&self, results: &[usize], operand: &[usize]) -> Extents {
        let mut reach: Extents = operand.into();
        for (i, (extent, &count)) in reach[2..].iter_mut().zip(&results[2..]).enumerate() {
            let end = usize::try_from(self.end(i, count)).unwrap_or(0);
            *extent = end.max(1).min(*extent);
        }
        reach
    }

    /// The padding that makes `results` of an operand of the given extents; after it at least `least`.
    pub(super) fn padding(&self, results: &[usize], operand: &[usize], least: i64) -> Ints {
        let space = results[2..].iter().zip(&operand[2..]).enumerate();
        let pairs =
            space.map(|(i, (&count, &extent))| [self.padding[2 * i], (self.end(i, count) - extent as i64).max(least)]);
        pairs.flatten().collect()
    }

    /// Position behind the last element that `count` windows read along spatial dimension `i`.
    fn end(&self, i: usize, count: usize) -> i64 {
        let dilation = self.dilation.map_or(1, |dilation| dilation[i]);
        (count as i64 - 1) * self.strides[i] + (self.kernel[i] as i64 - 1) * dilation + 1 - self.padding[2 * i]
    }
}

/// A pool with another padding.
pub(super) fn with_padding(op: &Op, new: Ints) -> Op {
    let mut op = op.clone();
    if let Op::MaxPool(kiln_ir::op::MaxPool { padding, .. })
    | Op::SumPool(kiln_ir::op::SumPool { padding, .. })
    | Op::AvgPool(kiln_ir::op::AvgPool { padding, .. }) = &mut op
    {
        *padding = new;
    }
    op
}
