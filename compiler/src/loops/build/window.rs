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
    /// Dimension of the body that runs along the result; none for an axis that is not there.
    pub(super) result: usize,
    /// Dimension of the body that runs along the window.
    pub(super) kernel: usize,
    /// The window is met from its end to its beginning.
    pub(super) flipped: bool,
}

/// An axis of a tensor that has only columns; its dimensions are no dimensions of any body.
const NO_AXIS: WindowAxis = WindowAxis {
    axis: Axis { input: 1, output: 1, kernel: 1, stride: 1, offset: 0 },
    result: usize::MAX,
    kernel: usize::MAX,
    flipped: false,
};

impl Planes {
    /// Whether nothing but the window is reduced, and all other dimensions number planes.
    pub(super) fn is_whole(&self, map: &Map) -> bool {
        let all = map.extents();
        let known =
            |d: usize| self.outer.contains(&d) || self.axes.iter().any(|axis| axis.result == d || axis.kernel == d);
        (0..all.len()).all(|d| all[d] == 1 || known(d))
            && self.axes.is_sorted_by_key(|axis| axis.kernel.wrapping_add(1))
    }

    /// Number of planes.
    pub(super) fn count(&self, map: &Map) -> usize {
        self.outer.iter().map(|&d| map.parallel[d]).product()
    }
}

/// How a read meets its operand, if by windows over its last one or two dimensions: position `output * stride +
/// kernel + offset`, or the same with the kernel backwards.
pub(super) fn windows(map: &Map, read: &Read, extents: &Extents) -> Option<Planes> {
    let parallel = map.parallel.len();
    planes(map, read, extents, |all, affine, input| {
        let &[(result, stride), (kernel, step)] = affine.terms.as_slice() else { return None };
        let one = all.get(kernel) == Some(&1);
        if affine.divisor != 1 || result >= parallel || kernel < parallel || stride < 1 || (step.abs() != 1 && !one) {
            return None;
        }
        let flipped = step < 0;
        let offset = if flipped { affine.offset - (all[kernel] as i64 - 1) } else { affine.offset };
        let stride = usize::try_from(stride).ok()?;
        let axis = Axis { input, output: all[result], kernel: all[kernel], stride, offset };
        Some(WindowAxis { axis, result, kernel, flipped })
    })
}

/// How a read meets its operand, if at the windows that an element is in: position `(input - kernel - offset) /
/// stride`. The axes are those of the windows, whose output is the operand.
pub(super) fn spread(map: &Map, read: &Read, extents: &Extents) -> Option<Planes> {
    let parallel = map.parallel.len();
    planes(map, read, extents, |all, affine, output| {
        let &[(result, 1), (kernel, -1)] = affine.terms.as_slice() else { return None };
        if result >= parallel || kernel < parallel {
            return None;
        }
        let stride = usize::try_from(affine.divisor).ok()?;
        let axis = Axis { input: all[result], output, kernel: all[kernel], stride, offset: -affine.offset };
        Some(WindowAxis { axis, result, kernel, flipped: false })
    })
}

fn planes(
    map: &Map,
    read: &Read,
    extents: &Extents,
    axis_of: impl Fn(&[usize], &Affine, usize) -> Option<WindowAxis>,
) -> Option<Planes> {
    let all = map.extents();
    let mut outer = Vec::new();
    let mut axes = Vec::new();
    for (index, &extent) in read.index.iter().zip(extents) {
        let IndexExpr::Affine(affine) = index else { return None };
        match axis_of(&all, affine, extent) {
            Some(axis) => axes.push(axis),
            None if axes.is_empty() => outer.extend(plain(affine, extent, &all)?.filter(|_| extent > 1)),
            None => return None,
        }
    }
    let axes = match axes.as_slice() {
        [columns] => [NO_AXIS, *columns],
        [rows, columns] => [*rows, *columns],
        _ => return None,
    };
    // Results lie as the planes do: rows and columns are the last parallel dimensions.
    let space: Vec<usize> = axes.iter().map(|axis| axis.result).filter(|&d| d != NO_AXIS.result).collect();
    let last: Vec<usize> = (map.parallel.len().checked_sub(space.len())?..map.parallel.len()).collect();
    let ordered = outer.is_sorted() && outer.iter().all(|&d| d < map.parallel.len());
    (space == last && ordered).then_some(Planes { outer, axes })
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
