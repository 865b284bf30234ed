//! Depthwise convolutions with an epilogue: contractions that keep planes apart.
//!
//! A contraction is depthwise if one operand is read at a window of the plane that the output's plane belongs to, the
//! other at one filter per plane, and nothing but the window is summed. `conv` with as many groups as channels has
//! this form, and its backward-data pass where the stride is 1. Where it is 2, each element takes from the windows that
//! it is in, which is a form of its own.

use kiln_ir::body::{Body, IndexExpr, Map, Read};
use kiln_ir::graph::{Def, Graph, NodeData};
use kiln_ir::types::{DType, Extents};
use kiln_rt::kernels::window::{DepthwiseEpilogue, DepthwiseSpec, PoolGradSpec, Share};

use super::contract::is_contraction;
use super::epilogue::follow;
use super::{body_of, window};

/// A region that one depthwise kernel covers. Operands are parameters of the region, by position.
#[derive(Clone, Debug)]
pub struct DepthwiseForm {
    /// For the kernel's plan.
    pub spec: DepthwiseSpec,
    /// The planes.
    pub x: usize,
    /// The filters.
    pub w: usize,
    /// Vector that is added.
    pub bias: Option<usize>,
    /// Vector that is multiplied.
    pub scale: Option<usize>,
    /// Tensor that is added.
    pub residual: Option<usize>,
}

impl DepthwiseForm {
    /// The residual, if the result may be computed over it: each plane reads it where it writes.
    pub fn residual_in_place(&self) -> Option<usize> {
        let others = [Some(self.x), Some(self.w), self.bias, self.scale];
        self.residual.filter(|residual| !others.contains(&Some(*residual)))
    }
}

/// Output planes per input plane above which the contraction kernels, which pack a window once for all of them, win.
pub(super) const MOST_MULTIPLIED: usize = 4;
/// Extent of a window above which it is no filter: the weights' gradient sums over whole planes.
pub(super) const LARGEST_KERNEL: usize = 15;

/// The form of a region whose first contraction is its root; `None` if that is no depthwise convolution.
///
/// # Errors
/// Why the members after the root are no epilogue that the kernels have.
pub fn depthwise_form(region: &Graph) -> Option<Result<DepthwiseForm, &'static str>> {
    let (_, root) = region.nodes().find(|(_, data)| is_contraction(region, data))?;
    let (spec, x, w) = root_form(region, root)?;
    Some(with_epilogue(region, root, spec, x, w))
}

/// A region that is the backward-data pass of a strided depthwise convolution.
#[derive(Clone, Debug)]
pub struct DepthwiseSpreadForm {
    /// For the kernel's plan.
    pub spec: PoolGradSpec,
    /// The gradient of what the convolution gives.
    pub dy: usize,
    /// The filters.
    pub w: usize,
}

/// The form of a region that is such a pass alone, with one filter per channel.
pub fn depthwise_spread_form(region: &Graph) -> Option<DepthwiseSpreadForm> {
    let (_, root) = region.nodes().next().filter(|_| region.nodes().len() == 1)?;
    if !is_contraction(region, root) {
        return None;
    }
    let (spec, dy, w) = operands_in_order(region, root, spread_spec)?;
    Some(DepthwiseSpreadForm { spec, dy, w })
}

fn spread_spec(map: &Map, dy: (&Read, &Extents), w: (&Read, &Extents)) -> Option<PoolGradSpec> {
    let planes = window::spread(map, dy.0, dy.1)?;
    let all = map.extents();
    let real = |d: &usize| all.get(*d).is_some_and(|&extent| extent > 1);
    let outer: Vec<usize> = planes.outer.iter().copied().filter(real).collect();
    let taps: Vec<usize> = planes.axes.iter().map(|axis| axis.kernel).filter(real).collect();
    let filter = plain_dims(w, &all)?;
    let filters = filter.strip_suffix(taps.as_slice())?;
    let [rows, columns] = planes.axes.map(|axis| axis.axis);
    let fits = outer.ends_with(filters) && planes.is_whole(map) && rows.kernel.max(columns.kernel) <= LARGEST_KERNEL;
    fits.then(|| PoolGradSpec {
        planes: planes.count(map),
        rows,
        columns,
        share: Share::Weighted { filters: filters.iter().map(|&d| all[d]).product() },
        gate: false,
    })
}

fn with_epilogue(
    region: &Graph,
    root: &NodeData,
    mut spec: DepthwiseSpec,
    x: usize,
    w: usize,
) -> Result<DepthwiseForm, &'static str> {
    let result = region.ty(root.results[0]).extents();
    let area = spec.rows.output * spec.columns.output;
    // A vector has one element per filter if each of them holds for whole planes.
    let chain = follow(region, root, |onto, fills| {
        let &[dim] = onto else { return None };
        let inner: usize = result[dim + 1..].iter().product();
        (fills && result[dim] == spec.filters && inner == area).then_some(())
    })?;
    spec.epilogue = DepthwiseEpilogue {
        bias: chain.bias.is_some(),
        scale: chain.scale.is_some(),
        residual: chain.residual.is_some(),
        activation: chain.activation,
    };
    let param = |vector: Option<(usize, ())>| vector.map(|(param, ())| param);
    Ok(DepthwiseForm { spec, x, w, bias: param(chain.bias), scale: param(chain.scale), residual: chain.residual })
}

/// The spec of a depthwise root without its epilogue, and the parameters it reads.
fn root_form(region: &Graph, root: &NodeData) -> Option<(DepthwiseSpec, usize, usize)> {
    operands_in_order(region, root, spec_of)
}

/// What `spec_of` makes of the factors of a contraction in one order or the other, and the parameters that they read.
fn operands_in_order<T>(
    region: &Graph,
    root: &NodeData,
    spec_of: impl Fn(&Map, (&Read, &Extents), (&Read, &Extents)) -> Option<T>,
) -> Option<(T, usize, usize)> {
    let Body::Map(map) = body_of(region, root) else { return None };
    let (a, b) = map.as_contract()?;
    if region.ty(root.results[0]).dtype != DType::F32 {
        return None;
    }
    let extents = |read: &Read| read.view.clone().unwrap_or_else(|| region.ty(root.operands[read.operand]).extents());
    let param = |read: &Read| match region.value(root.operands[read.operand]).def {
        Def::Param(number) => Some(number),
        Def::Result(..) => None,
    };
    let try_order = |x: &Read, w: &Read| {
        let spec = spec_of(&map, (x, &extents(x)), (w, &extents(w)))?;
        Some((spec, param(x)?, param(w)?))
    };
    try_order(a, b).or_else(|| try_order(b, a))
}

fn spec_of(map: &Map, x: (&Read, &Extents), w: (&Read, &Extents)) -> Option<DepthwiseSpec> {
    let planes = window::windows(map, x.0, x.1)?;
    let all = map.extents();
    let summed = map.parallel.len()..all.len();
    let real = |d: &usize| all.get(*d).is_some_and(|&extent| extent > 1);
    let kernel: Vec<usize> = planes.axes.iter().map(|axis| axis.kernel).collect();
    if summed.filter(real).any(|d| !kernel.contains(&d)) {
        return None;
    }
    let space: Vec<usize> = planes.axes.iter().map(|axis| axis.result).collect();
    let outer: Vec<usize> = (0..map.parallel.len()).filter(|d| !space.contains(d)).filter(real).collect();
    // The planes of x come first, then those that share one.
    let shared = outer.strip_prefix(planes.outer.as_slice())?;
    let multiplier: usize = shared.iter().map(|&d| all[d]).product();
    let filter = plain_dims(w, &all)?;
    let taps: Vec<usize> = kernel.iter().copied().filter(real).collect();
    let filters = filter.strip_suffix(taps.as_slice())?;
    if multiplier > MOST_MULTIPLIED || !outer.ends_with(filters) {
        return None;
    }
    let [rows, columns] = planes.axes.map(|axis| axis.axis);
    if rows.kernel.max(columns.kernel) > LARGEST_KERNEL {
        return None;
    }
    Some(DepthwiseSpec {
        planes: outer.iter().map(|&d| all[d]).product(),
        filters: filters.iter().map(|&d| all[d]).product(),
        multiplier,
        rows,
        columns,
        flipped: planes.axes.map(|axis| axis.flipped),
        epilogue: DepthwiseEpilogue::default(),
    })
}

/// The dimensions along which an operand is read whole and in order, without those of extent 1.
pub(super) fn plain_dims((read, extents): (&Read, &Extents), all: &[usize]) -> Option<Vec<usize>> {
    let mut dims = Vec::new();
    for (index, &extent) in read.index.iter().zip(extents) {
        let IndexExpr::Affine(affine) = index else { return None };
        let dim = window::plain(affine, extent, all)?;
        dims.extend(dim.filter(|_| extent > 1));
    }
    Some(dims)
}
