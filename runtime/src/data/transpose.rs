//! Reversing the order of axes: transposes, and arrays in column-major order.

use kiln_ir::Shape;

use crate::arena::OutOfMemory;
use crate::tensor::Tensor;

/// Side of the square tiles that are turned at once: a tile's rows and its columns fit the L1 cache as whole lines.
const TILE: usize = 16;

/// The tensor with its axes in reverse order: `y[k, ..., j, i] = x[i, j, ..., k]`. Of a matrix that is the transpose.
/// An array in column-major order, read as if it were row-major with the extents reversed, becomes row-major.
pub(crate) fn reverse_axes(tensor: &Tensor) -> Result<Tensor, OutOfMemory> {
    let extents = tensor.ty().extents();
    let reversed: Vec<usize> = extents.iter().rev().copied().collect();
    let mut turned = Tensor::zeros(tensor.ty().with_shape(Shape::from(&reversed[..])))?;
    if tensor.is_empty() {
        return Ok(turned);
    }
    let (source, target) = (tensor.bytes(), turned.bytes_mut());
    match tensor.dtype().bytes() {
        1 => reverse::<1>(&extents, source, target),
        2 => reverse::<2>(&extents, source, target),
        4 => reverse::<4>(&extents, source, target),
        _ => reverse::<8>(&extents, source, target),
    }
    Ok(turned)
}

/// Turns elements of `N` bytes: for each position of the inner axes, the matrix of the first axis and the last.
fn reverse<const N: usize>(extents: &[usize], source: &[u8], target: &mut [u8]) {
    let (source, target) = (source.as_chunks::<N>().0, target.as_chunks_mut::<N>().0);
    let [rows, ref middle @ .., columns] = *extents else {
        target.copy_from_slice(source);
        return;
    };
    let inner: usize = middle.iter().product();
    for position in 0..inner {
        // The position among the inner axes as the source counts it, and as the target does.
        let (mut rest, mut turned) = (position, 0);
        let mut stride = inner;
        for &extent in middle.iter().rev() {
            stride /= extent;
            turned += rest % extent * stride;
            rest /= extent;
        }
        let from = Matrix { start: position * columns, stride: inner * columns };
        let to = Matrix { start: turned * rows, stride: inner * rows };
        transpose((rows, columns), source, from, target, to);
    }
}

/// Where a matrix lies: its first element, and how far its rows are apart.
#[derive(Clone, Copy)]
struct Matrix {
    start: usize,
    stride: usize,
}

fn transpose<const N: usize>(
    (rows, columns): (usize, usize),
    source: &[[u8; N]],
    from: Matrix,
    target: &mut [[u8; N]],
    to: Matrix,
) {
    for top in (0..rows).step_by(TILE) {
        let height = TILE.min(rows - top);
        for left in (0..columns).step_by(TILE) {
            for column in left..columns.min(left + TILE) {
                let out = to.start + column * to.stride + top;
                let Some(out) = target.get_mut(out..out + height) else { continue };
                let first = from.start + top * from.stride + column;
                let elements = source.get(first..).unwrap_or_default().iter().step_by(from.stride);
                out.iter_mut().zip(elements).for_each(|(out, element)| *out = *element);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;

    /// `y[reversed index] = x[index]`, by the definition.
    fn check<T: crate::tensor::Element + PartialEq + std::fmt::Debug>(extents: &[usize], element: impl Fn(usize) -> T) {
        let count: usize = extents.iter().product();
        let x = Tensor::from_vec(extents, (0..count).map(&element).collect()).unwrap();
        let y = reverse_axes(&x).unwrap();
        assert!(y.ty().extents().iter().eq(extents.iter().rev()));
        let values = y.as_slice::<T>().unwrap();
        for position in 0..count {
            let (mut rest, mut turned, mut stride) = (position, 0, count);
            for &extent in extents.iter().rev() {
                stride /= extent;
                turned += rest % extent * stride;
                rest /= extent;
            }
            assert_eq!(values[turned], element(position), "{extents:?}");
        }
    }

    #[test]
    fn axes_are_reversed_at_every_rank_and_size() {
        for extents in [&[][..], &[7], &[2, 3], &[33, 17], &[1, 40], &[2, 3, 4], &[5, 1, 3, 2], &[20, 2, 3, 2, 19]] {
            check(extents, |i| i as f32);
            check(extents, |i| i as u8);
            check(extents, |i| i as i64);
        }
        assert!(reverse_axes(&Tensor::zeros(kiln_ir::TensorType::new(kiln_ir::DType::F64, [0, 3])).unwrap()).is_ok());
    }

    #[test]
    fn a_matrix_is_transposed() {
        let x = Tensor::from_vec([2, 3], vec![1_i32, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(reverse_axes(&x).unwrap().as_slice::<i32>().unwrap(), [1, 4, 2, 5, 3, 6]);
    }
}
