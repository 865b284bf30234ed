//! Layers over the spatial dimensions of `x: [N, C, spatial...]`: pools, and what removes these dimensions.

use super::dense::known;
use super::{AvgPool, Call, Flatten, GlobalAvgPool, GlobalMaxPool, LayerSpec, MaxPool, Padding, Spatial};
use crate::attribute::Ints;
use crate::builder::Tensor;
use crate::op;
use crate::types::{Dim, Shape};

/// Strides and `[before, after]` padding of a window, per spatial dimension.
pub(super) struct Window {
    pub(super) strides: Ints,
    pub(super) padding: Ints,
}

/// Resolves sizes and padding for `x: [N, C, spatial...]`; the fault is reported.
pub(super) fn resolve_window(
    call: &Call,
    kernel: &[i64],
    strides: &Spatial,
    dilation: &[i64],
    padding: &Padding,
) -> Result<Window, Tensor> {
    let shape = call.operand(0).shape();
    let spatial = &shape.dims()[2..];
    let Some(strides) = strides.sizes(spatial.len()) else {
        let message = format!("`strides` must have one size, or one for each of {} dimensions", spatial.len());
        return Err(call.fault("L3", message, "one number stands for all"));
    };
    if strides.iter().chain(dilation).chain(kernel).any(|&n| n < 1) {
        let message = format!("window {kernel:?} with strides {strides:?} and dilation {dilation:?}");
        return Err(call.fault("L3", message, "every size is at least 1"));
    }
    let padding = match padding {
        Padding::Valid => Ints::from_elem(0, 2 * spatial.len()),
        Padding::Same => same_padding(call, spatial, kernel, &strides, dilation)?,
        Padding::Explicit(ints) => match ints.as_slice() {
            [size] => Ints::from_elem(*size, 2 * spatial.len()),
            ints if ints.len() == 2 * spatial.len() => Ints::from_slice(ints),
            ints => {
                let message = format!("`padding` has {} numbers for {} spatial dimensions", ints.len(), spatial.len());
                return Err(call.fault(
                    "L4",
                    message,
                    "give one number, or [before, after] for each dimension in order",
                ));
            }
        },
    };
    let fits = |(i, dim): (usize, &Dim)| {
        let window = (kernel[i] - 1).saturating_mul(dilation[i]).saturating_add(1);
        known(dim).is_none_or(|n| n.saturating_add(padding[2 * i]).saturating_add(padding[2 * i + 1]) >= window)
    };
    if !spatial.iter().enumerate().all(fits) {
        let message = format!("a window of {kernel:?} does not fit into {shape}");
        return Err(call.fault("L7", message, "make it smaller, or give `padding = same`"));
    }
    Ok(Window { strides, padding })
}

/// TensorFlow's rule: `total = max((ceil(n / stride) - 1) * stride + window - n, 0)`, the odd element at the end.
/// With stride 1 the total does not depend on the extent, which may then be unbound.
fn same_padding(
    call: &Call,
    spatial: &[Dim],
    kernel: &[i64],
    strides: &[i64],
    dilation: &[i64],
) -> Result<Ints, Tensor> {
    let mut padding = Ints::new();
    for (i, dim) in spatial.iter().enumerate() {
        let window = (kernel[i] - 1).saturating_mul(dilation[i]).saturating_add(1);
        let total = match (strides[i], known(dim)) {
            (1, _) => window - 1,
            (stride, Some(n)) => {
                let steps = n.saturating_add(stride - 1) / stride;
                ((steps - 1).saturating_mul(stride).saturating_add(window) - n).max(0)
            }
            (stride, None) => {
                let message = format!("`same` padding with stride {stride} has no value before `{dim}` is known");
                return Err(call.fault("L4", message, "bind the name with --bind, or give the padding in numbers"));
            }
        };
        padding.extend([total / 2, total - total / 2]);
    }
    Ok(padding)
}

/// Number of channels of `x: [N, C, spatial...]`; the fault is reported.
pub(super) fn known_channels(call: &Call) -> Result<usize, Tensor> {
    let shape = spatial_shape(call)?;
    shape.dims()[1].known().ok_or_else(|| {
        let message = format!("the number of channels, {}, is not known", shape.dims()[1]);
        call.fault("L2", message, "give the input a number there, or bind the name with --bind")
    })
}

fn spatial_shape(call: &Call) -> Result<Shape, Tensor> {
    let shape = call.operand(0).shape();
    if shape.rank() >= 3 {
        return Ok(shape);
    }
    let message = format!("`{}` takes x: [N, C, spatial...], not {shape}", call.kind);
    Err(call.fault("L1", message, "an image without channels gets one by `reshape`"))
}

/// Window and strides of a pool, where unset strides are the window's size.
fn pool(call: &Call, size: &Spatial, strides: &Spatial, padding: &Padding) -> Result<(Ints, Window), Tensor> {
    let rank = spatial_shape(call)?.rank() - 2;
    let Some(window) = size.sizes(rank) else {
        let message = format!("`size` must have one number, or one for each of {rank} dimensions");
        return Err(call.fault("L3", message, "one number stands for all"));
    };
    let strides = if strides.is_unset() { size } else { strides };
    let resolved = resolve_window(call, &window, strides, &Ints::from_elem(1, rank), padding)?;
    Ok((window, resolved))
}

/// - max_pool.L1: `x` has rank 3 or more.
/// - max_pool.L3: size and strides are at least 1, one size for all dimensions or one for each.
/// - max_pool.L4: as conv.L4.
/// - max_pool.L7: the window fits into the padded extents.
impl LayerSpec for MaxPool {
    fn expand(&self, call: &Call) -> Tensor {
        let (window, Window { strides, padding }) = match pool(call, &self.size, &self.strides, &self.padding) {
            Ok(resolved) => resolved,
            Err(fault) => return fault,
        };
        let op = op::MaxPool { window, strides, padding };
        call.builder.apply_named(op, &[call.operand(0)], "max_pool")
    }
}

/// - avg_pool.L1: `x` has rank 3 or more.
/// - avg_pool.L3: size and strides are at least 1, one size for all dimensions or one for each.
/// - avg_pool.L4: as conv.L4.
/// - avg_pool.L7: the window fits into the padded extents.
impl LayerSpec for AvgPool {
    fn expand(&self, call: &Call) -> Tensor {
        let (window, Window { strides, padding }) = match pool(call, &self.size, &self.strides, &self.padding) {
            Ok(resolved) => resolved,
            Err(fault) => return fault,
        };
        let op = op::AvgPool { window, strides, padding, count_outside: self.count_outside };
        call.builder.apply(op, &[call.operand(0)])
    }
}

/// - global_avg_pool.L1: `x` has rank 3 or more.
impl LayerSpec for GlobalAvgPool {
    fn expand(&self, call: &Call) -> Tensor {
        match spatial_shape(call) {
            Ok(shape) => call.operand(0).mean(&(2..shape.rank()).collect::<Vec<_>>()),
            Err(fault) => fault,
        }
    }
}

/// - global_max_pool.L1: `x` has rank 3 or more.
impl LayerSpec for GlobalMaxPool {
    fn expand(&self, call: &Call) -> Tensor {
        match spatial_shape(call) {
            Ok(shape) => call.operand(0).max_over(&(2..shape.rank()).collect::<Vec<_>>()),
            Err(fault) => fault,
        }
    }
}

/// - flatten.L1: `x` has rank 1 or more.
/// - flatten.L2: the product of the extents is a size.
impl LayerSpec for Flatten {
    fn expand(&self, call: &Call) -> Tensor {
        let x = call.operand(0);
        let shape = x.shape();
        let Some((first, rest)) = shape.dims().split_first() else {
            return call.fault("L1", "`flatten` takes x: [N, D...], not a scalar", "there is nothing to flatten");
        };
        let product = rest.iter().try_fold(Dim::from(1), |product, dim| product.mul(dim));
        match product {
            Ok(product) => {
                let ty = x.ty().with_shape(Shape::from_iter([first.clone(), product]));
                call.builder.apply_named(op::Reshape { ty }, &[x], "flatten")
            }
            Err(error) => call.fault("L2", error.to_string(), "bind the names with --bind"),
        }
    }
}
