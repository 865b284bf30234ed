//! Images of a batch as products of their own.
//!
//! The pixels of a convolution are one free index, images and all: panels of columns go on from image to image, where the
//! output breaks off. A block that such a panel cuts is spilled and stored row by row, and its columns are packed where
//! the others are read as they lie. Where planes hold many panels, it takes less to end the last panel of each image early:
//! the outermost dimension of the free index becomes one of the batch.

use super::abi::Table;
use super::spec::{AffineRead, Along, ContractSpec, Side};
use super::work::Work;

/// The spec with the outermost dimension of one operand's free index in the batch, if that takes less time: it computes the
/// same sums. Rows that come as panels are read again for each image at no cost, others would be packed again.
pub(super) fn apart(spec: &ContractSpec, table: &Table<f32>) -> Option<ContractSpec> {
    let of = |side: Side, other: Side| spec.packed.side(other).then(|| moved(spec, side)).flatten();
    let apart = of(Side::Right, Side::Left).or_else(|| of(Side::Left, Side::Right))?;
    let cycles = |spec: &ContractSpec| {
        let work = Work::new(spec, table, None).ok()?;
        let nr = table.shapes.get(work.cheapest.shape)?.nr;
        Some(work.sizes[0] as f64 * (work.cheapest.cycles + cuts(&work, nr)))
    };
    (cycles(&apart)? < WORTH * cycles(spec)?).then_some(apart)
}

/// What the estimate has to be of that with images together.
const WORTH: f64 = 0.98;

/// Cycles that blocks of `nr` columns take beyond others where the output breaks off within them.
fn cuts(work: &Work<'_>, nr: usize) -> f64 {
    // Of each row, measured on Zen 5, blocks of 13 x 32 and 8 x 48 with a relu.
    const CUT: f64 = 45.0;
    let [left, right] = &work.out;
    let (rows, columns) = if work.cheapest.swapped { (right, left) } else { (left, right) };
    let run = columns.len / (columns.breaks + 1);
    let cut = if run.is_multiple_of(nr) { 0 } else { columns.breaks.min(columns.len.div_ceil(nr)) };
    CUT * (rows.len * cut) as f64
}

/// The spec with the outermost dimension of `side`'s free index as the last one of the batch; `None` if it has no other
/// dimension, if a vector of the epilogue counts it, or if it decides with other indices which element is read.
pub(super) fn moved(spec: &ContractSpec, side: Side) -> Option<ContractSpec> {
    let (batch, m) = (spec.batch.len(), spec.m.len());
    let (from, free, read, along) = match side {
        Side::Left => (batch, &spec.m, &spec.left, Along::M),
        Side::Right => (batch + m, &spec.n, &spec.right, Along::N),
    };
    let by_itself = |read: &AffineRead| {
        read.dims.iter().filter(|dim| dim.terms.iter().any(|&(index, _)| index == from)).all(|dim| {
            let whole = dim.offset == 0 && dim.divisor == 1 && free.first().is_some_and(|e| *e <= dim.extent);
            whole && dim.terms.as_slice() == [(from, 1)]
        })
    };
    let counted = [spec.epilogue.bias, spec.epilogue.scale].contains(&Some(along));
    if free.len() < 2 || free[0] < 2 || counted || !by_itself(read) {
        return None;
    }
    let mut apart = spec.clone();
    let images = match side {
        Side::Left => apart.m.remove(0),
        Side::Right => apart.n.remove(0),
    };
    apart.batch.push(images);
    let stride = apart.out_strides.remove(from);
    apart.out_strides.insert(batch, stride);
    let number = |index: usize| match index {
        _ if index == from => batch,
        _ if (batch..from).contains(&index) => index + 1,
        _ => index,
    };
    for dim in apart.left.dims.iter_mut().chain(&mut apart.right.dims) {
        dim.terms.iter_mut().for_each(|(index, _)| *index = number(*index));
    }
    Some(apart)
}
