//! `conv_transpose`: the layer over the op `conv_grad_input`, which is what a transposed convolution computes
//! (Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016).
//!
//! `x` stands for the gradient of a convolution's result, the layer's result for that of its input; hence the weight
//! is `[C, filters / groups, kernel...]`, as PyTorch has it.

use super::dense::{finish, positive};
use super::window::known_channels;
use super::{Call, ConvTranspose, LayerSpec, Padding};
use crate::attribute::Ints;
use crate::builder::Tensor;
use crate::module::Role;
use crate::op;
use crate::types::{Dim, DimError, Shape};

/// - conv_transpose.L1: `x` has rank 3 or more.
/// - conv_transpose.L2: the number of channels is known.
/// - conv_transpose.L3: kernel, strides and dilation are at least 1, one size for all dimensions or one for each.
/// - conv_transpose.L4: the padding has a number, or two per spatial dimension, none below 0; `output_padding` is at
///   least 0 and below the stride, and not given with `same`.
/// - conv_transpose.L5: filters, groups and kernel are at least 1.
/// - conv_transpose.L6: `groups` divides channels and filters.
/// - conv_transpose.L7: the padding leaves something of the result.
impl LayerSpec for ConvTranspose {
    fn expand(&self, call: &Call) -> Tensor {
        let x = call.operand(0);
        let channels = match known_channels(call) {
            Ok(channels) => channels,
            Err(fault) => return fault,
        };
        let geometry = match self.geometry(call) {
            Ok(geometry) => geometry,
            Err(fault) => return fault,
        };
        let (Some(filters), Some(groups)) = (positive(self.filters), positive(self.groups)) else {
            let message = format!("`filters` is {} and `groups` is {}", self.filters, self.groups);
            return call.fault("L5", message, "give at least 1");
        };
        if channels % groups != 0 || filters % groups != 0 {
            let message = format!("{channels} channels and {filters} filters do not split into {groups} groups");
            return call.fault("L6", message, "`groups` must divide both");
        }
        let shape = x.shape();
        let space = match geometry.extents(shape.dims().get(2..).unwrap_or_default()) {
            Ok(space) => space,
            Err(reason) => return call.fault("L7", reason, "make `padding` smaller"),
        };
        let per_group = filters / groups;
        let kernel: Vec<usize> = geometry.kernel.iter().filter_map(|&k| positive(k)).collect();
        // As both PyTorch and Keras count it: dimension 1 of the weight and the kernel.
        let fan_in = kernel.iter().fold(per_group as u64, |fan, &k| fan.saturating_mul(k as u64));
        let weight: Vec<usize> = [channels, per_group].into_iter().chain(kernel).collect();
        let instance = call.instance();
        let weight = instance.state("weight", weight.as_slice(), Role::Param, self.init.weight(fan_in));
        let batch = shape.dims().first().cloned();
        let dims: Shape = batch.into_iter().chain([Dim::from(filters)]).chain(space).collect();
        let Geometry { strides, dilation, padding, .. } = geometry;
        let ty = x.ty().with_shape(dims);
        let op = op::ConvGradInput { ty, strides, padding, dilation, groups: self.groups };
        let y = call.builder.apply_named(op, &[x, &weight], &instance.value("conv_grad_input"));
        finish(call, y, 1, filters, fan_in, self.bias.then_some(self.init), &self.activation, &instance)
    }
}

/// Sizes per spatial dimension, padding `[before, after]` each.
struct Geometry {
    kernel: Ints,
    strides: Ints,
    dilation: Ints,
    padding: Ints,
    output_padding: Ints,
}

impl ConvTranspose {
    /// The sizes, resolved; the fault is reported.
    fn geometry(&self, call: &Call) -> Result<Geometry, Tensor> {
        let rank = call.operand(0).rank() - 2;
        let sizes = [&self.kernel, &self.strides, &self.dilation, &self.output_padding].map(|size| size.sizes(rank));
        let [Some(kernel), Some(strides), Some(dilation), Some(output_padding)] = sizes else {
            let message = format!("kernel, strides, dilation or output_padding has not one size for {rank} dimensions");
            return Err(call.fault("L3", message, "give one number for all, or one for each"));
        };
        if kernel.iter().chain(&strides).chain(&dilation).any(|&n| n < 1) {
            let message = format!("kernel {kernel:?} with strides {strides:?} and dilation {dilation:?}");
            return Err(call.fault("L3", message, "every size is at least 1"));
        }
        let windows = kernel.iter().zip(&dilation).map(|(k, d)| (k - 1).saturating_mul(*d).saturating_add(1));
        let windows: Ints = windows.collect();
        let (padding, output_padding) = match &self.padding {
            Padding::Valid => (Ints::from_elem(0, 2 * rank), output_padding),
            Padding::Same if output_padding.iter().any(|&n| n != 0) => {
                let help = "leave `output_padding` out, or give the padding in numbers";
                return Err(call.fault("L4", "`same` chooses the output padding itself", help));
            }
            Padding::Same => same(&windows, &strides),
            Padding::Explicit(ints) => match ints.as_slice() {
                [size] => (Ints::from_elem(*size, 2 * rank), output_padding),
                ints if ints.len() == 2 * rank => (Ints::from_slice(ints), output_padding),
                ints => {
                    let message = format!("`padding` has {} numbers for {rank} spatial dimensions", ints.len());
                    let help = "give one number, or [before, after] for each dimension in order";
                    return Err(call.fault("L4", message, help));
                }
            },
        };
        let fits = output_padding.iter().zip(&strides).all(|(extra, stride)| (0..*stride).contains(extra));
        if !fits || padding.iter().any(|&n| n < 0) {
            let message = format!("padding {padding:?} and output_padding {output_padding:?} with strides {strides:?}");
            return Err(call.fault("L4", message, "paddings are at least 0, an output padding is below its stride"));
        }
        Ok(Geometry { kernel, strides, dilation, padding, output_padding })
    }
}

/// Padding and output padding with which the result has `n * stride` elements: what a `same` convolution with that
/// stride would have been padded with.
fn same(windows: &[i64], strides: &[i64]) -> (Ints, Ints) {
    let mut padding = Ints::new();
    let mut extra = Ints::new();
    for (window, stride) in windows.iter().zip(strides) {
        let total = (window - stride).max(0);
        padding.extend([total / 2, total - total / 2]);
        extra.push((stride - window).max(0));
    }
    (padding, extra)
}

impl Geometry {
    /// Extents of the result: `(n - 1) * stride - before - after + dilation * (kernel - 1) + 1 + output_padding`.
    fn extents(&self, space: &[Dim]) -> Result<Vec<Dim>, String> {
        let extents = space.iter().enumerate().map(|(i, n)| self.extent(i, n).map_err(|error| error.to_string()));
        let extents: Vec<Dim> = extents.collect::<Result<_, _>>()?;
        match extents.iter().any(|extent| extent.known() == Some(0)) {
            true => Err(format!("the padding {:?} leaves nothing of the result", &self.padding[..])),
            false => Ok(extents),
        }
    }

    fn extent(&self, i: usize, n: &Dim) -> Result<Dim, DimError> {
        let window = (self.kernel[i] - 1).saturating_mul(self.dilation[i]).saturating_add(1);
        let stride = Dim::from(usize::try_from(self.strides[i]).unwrap_or(1));
        let around = self.padding[2 * i].saturating_add(self.padding[2 * i + 1]);
        let rest = window.saturating_add(self.output_padding[i]).saturating_sub(self.strides[i]);
        n.mul(&stride)?.offset(rest.saturating_sub(around))
    }
}
