//! The gradient of a depthwise convolution's filters: a contraction that sums over the positions of planes.
//!
//! One operand is read at `kernel + stride * position`, the other at the position; nothing else is summed but images.

use kiln_ir::body::{Affine, Body, IndexExpr, Map, Read};
use kiln_ir::graph::{Def, Graph};
use kiln_ir::types::{DType, Extents};
use kiln_rt::kernels::window::{Axis, DepthwiseGradSpec};

use super::contract::is_contraction;
use super::depthwise::{LARGEST_KERNEL, MOST_MULTIPLIED};
use super::{body_of, window};

/// A region that one kernel covers. Operands are parameters of the region, by position.
#[derive(Clone, Debug)]
pub struct DepthwiseGradForm {
    /// For the kernel's plan.
    pub spec: DepthwiseGradSpec,
    /// The planes that the convolution reads.
    pub x: usize,
    /// The gradient of what it gives.
    pub dy: usize,
}

/// The form of a region that is such a gradient alone.
pub fn depthwise_grad_form(region: &Graph) -> Option<DepthwiseGradForm> {
    let (_, root) = region.nodes().next().filter(|_| region.nodes().len() == 1)?;
    if !is_contraction(region, root) || region.ty(root.results[0]).dtype != DType::F32 {
        return None;
    }
    let Body::Map(map) = body_of(region, root) else { return None };
    let (a, b) = map.as_contract()?;
    let extents = |read: &Read| read.view.clone().unwrap_or_else(|| region.ty(root.operands[read.operand]).extents());
    let param = |read: &Read| match region.value(root.operands[read.operand]).def {
        Def::Param(number) => Some(number),
        Def::Result(..) => None,
    };
    let try_order = |x: &Read, dy: &Read| {
        let spec = spec_of(&map, (x, &extents(x)), (dy, &extents(dy)))?;
        Some(DepthwiseGradForm { spec, x: param(x)?, dy: param(dy)? })
    };
    try_order(a, b).or_else(|| try_order(b, a))
}

fn spec_of(map: &Map, (x, x_extents): (&Read, &Extents), dy: (&Read, &Extents)) -> Option<DepthwiseGradSpec> {
    let all = map.extents();
    let parallel = map.parallel.len();
    let real = |d: &usize| all[*d] > 1;
    let (outer, axes) = planes(map, x, x_extents)?;
    let outer: Vec<usize> = outer.into_iter().filter(real).collect();
    // Images first, then channels; what else `dy` has in between are filters of one channel.
    let images: Vec<usize> = outer.iter().copied().take_while(|&d| d >= parallel).collect();
    let positions: Vec<usize> = axes.iter().map(|axis| axis.position).collect();
    let planes = super::depthwise::plain_dims(dy, &all)?;
    let shown: Vec<usize> = positions.iter().copied().filter(real).collect();
    let planes = planes.strip_suffix(shown.as_slice())?;
    let multiplied = planes.strip_prefix(outer.as_slice())?;
    let filters = &planes[images.len()..];
    let summed = (parallel..all.len()).filter(real).all(|d| images.contains(&d) || positions.contains(&d));
    // The filters lie as the result does: planes in order, then rows and columns.
    let taps = axes.iter().map(|axis| axis.tap).filter(real);
    let result: Vec<usize> = filters.iter().copied().chain(taps).collect();
    let wanted: Vec<usize> = (0..parallel).filter(real).collect();
    let product = |dims: &[usize]| dims.iter().map(|&d| all[d]).product::<usize>();
    let multiplier = product(multiplied);
    let [rows, columns] = match axes.as_slice() {
        [columns] => [Axis { input: 1, output: 1, kernel: 1, stride: 1, offset: 0 }, columns.axis],
        [rows, columns] => [rows.axis, columns.axis],
        _ => return None,
    };
    let small = rows.kernel.max(columns.kernel) <= LARGEST_KERNEL && multiplier <= MOST_MULTIPLIED;
    (summed && result == wanted && small).then(|| DepthwiseGradSpec {
        planes: product(planes),
        filters: product(filters),
        multiplier,
        rows,
        columns,
    })
}

struct GradAxis {
    axis: Axis,
    /// Dimension of the body along the filter.
    tap: usize,
    /// Dimension of the body along `dy`, which is summed.
    position: usize,
}

/// The outer dimensions of `x`, and its spatial axes.
fn planes(map: &Map, x: &Read, extents: &Extents) -> Option<(Vec<usize>, Vec<GradAxis>)> {
    let all = map.extents();
    let (mut outer, mut axes) = (Vec::new(), Vec::new());
    for (index, &extent) in x.index.iter().zip(extents) {
        let IndexExpr::Affine(affine) = index else { return None };
        match axis(map, &all, affine, extent) {
            Some(axis) => axes.push(axis),
            None if axes.is_empty() => outer.extend(window::plain(affine, extent, &all)?),
            None => return None,
        }
    }
    Some((outer, axes))
}

fn axis(map: &Map, all: &[usize], affine: &Affine, input: usize) -> Option<GradAxis> {
    let &[(tap, step), (position, stride)] = affine.terms.as_slice() else { return None };
    let parallel = map.parallel.len();
    let plain = affine.divisor == 1 && (step == 1 || all[tap] == 1);
    if !plain || tap >= parallel || position < parallel {
        return None;
    }
    let stride = usize::try_from(stride).ok().filter(|&stride| stride > 0)?;
    let axis = Axis { input, output: all[position], kernel: all[tap], stride, offset: affine.offset };
    Some(GradAxis { axis, tap, position })
}
