//! Windows over planes, found in the affine reads of a body.

use kiln_ir::body::{Affine, IndexExpr, Map, Read};
use kiln_ir::types::Extents;
use kiln_rt::kernels::window::Axis;

/// An operand read at windows of its planes: outer dimensions one to one, then rows and columns.
pub(super) struct Planes {
    /// Dimensions of the body that number the planes, without those of extent 1.
    pub(super) outer: Vec<usize>,
    /// Rows, columns.
    pub(super) axes: [WindowAxis; 2],
}

/// One spatial axis.
#[derive(Clone, Copy)]
pub(super) struct WindowAxis {
    pub(super) axis: Axis,
    /// Dimension of the body that runs along the output; none for an axis that is not there.
    pub(super) output: usize,
    /// Dimension of the body that runs along the window.
    pub(super) kernel: usize,
    /// The window is met from its end to its beginning.
    pub(super) flipped: bool,
}

/// An axis of a tensor that has only columns; its dimensions are no dimensions of any body.
const NO_AXIS: WindowAxis = WindowAxis {
    axis: Axis { input: 1, output: 1, kernel: 1, stride: 1, offset: 0 },
    output: usize::MAX,
    kernel: usize::MAX,
    flipped: false,
};

/// How a read meets its operand, if by windows over its last one or two dimensions.
pub(super) fn planes(map: &Map, (read, extents): (&Read, &Extents)) -> Option<Planes> {
    let all = map.extents();
    let mut outer = Vec::new();
    let mut axes = Vec::new();
    for (index, &extent) in read.index.iter().zip(extents) {
        let IndexExpr::Affine(affine) = index else { return None };
        match window_axis(map, &all, affine, extent) {
            Some(axis) => axes.push(axis),
            None if axes.is_empty() => {
                let dim = plain(affine, extent, &all)?;
                outer.extend(dim.filter(|_| extent > 1));
            }
            None => return None,
        }
    }
    let axes = match axes.as_slice() {
        [columns] => [NO_AXIS, *columns],
        [rows, columns] => [*rows, *columns],
        _ => return None,
    };
    // Outputs lie as the planes do: rows and columns are the last parallel dimensions.
    let space = axes.iter().map(|axis| axis.output).filter(|&d| d != NO_AXIS.output);
    let wanted: Vec<usize> = space.collect();
    let last: Vec<usize> = (0..map.parallel.len()).skip(map.parallel.len().checked_sub(wanted.len())?).collect();
    let ordered = outer.is_sorted() && outer.iter().all(|&d| d < map.parallel.len());
    (wanted == last && ordered).then_some(Planes { outer, axes })
}

/// `output * stride + kernel + offset`, or the same with the kernel backwards.
fn window_axis(map: &Map, all: &[usize], affine: &Affine, input: usize) -> Option<WindowAxis> {
    let &[(output, stride), (kernel, step)] = affine.terms.as_slice() else { return None };
    let parallel = map.parallel.len();
    let one = all.get(kernel) == Some(&1);
    if affine.divisor != 1 || output >= parallel || kernel < parallel || stride < 1 || (step.abs() != 1 && !one) {
        return None;
    }
    let flipped = step < 0;
    let offset = if flipped { affine.offset - (all[kernel] as i64 - 1) } else { affine.offset };
    let stride = usize::try_from(stride).ok()?;
    let axis = Axis { input, output: all[output], kernel: all[kernel], stride, offset };
    Some(WindowAxis { axis, output, kernel, flipped })
}

/// The dimension that runs along the whole of an operand's dimension, or none along one of extent 1.
pub(super) fn plain(affine: &Affine, extent: usize, all: &[usize]) -> Option<Option<usize>> {
    if affine.divisor != 1 || affine.offset != 0 {
        return None;
    }
    match affine.terms.as_slice() {
        [] if extent == 1 => Some(None),
        &[(dim, 1)] if all[dim] == extent => Some(Some(dim)),
        _ => None,
    }
}
