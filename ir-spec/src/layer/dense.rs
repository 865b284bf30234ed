//! Layers with a weight: dense, conv, embedding.

use super::window::{known_channels, resolve_window};
use super::{Activation, Call, Conv, Dense, Embedding, Init, Instance, LayerSpec};
use crate::attribute::Ints;
use crate::builder::Tensor;
use crate::module::Role;
use crate::op;
use crate::types::Dim;

/// - dense.L1: `x` has rank 2 or 3.
/// - dense.L2: the number of features is known.
/// - dense.L3: `units >= 1`.
impl LayerSpec for Dense {
    fn expand(&self, call: &Call) -> Tensor {
        let x = call.operand(0);
        let shape = x.shape();
        if !(2..=3).contains(&shape.rank()) {
            let message = format!("`dense` takes x: [N, features] or [N, S, features], not {shape}");
            return call.fault("L1", message, "put `flatten` before it");
        }
        let last = shape.rank() - 1;
        let Some(features) = shape.dims()[last].known() else {
            let message = format!("the number of features, {}, is not known", shape.dims()[last]);
            return call.fault("L2", message, "give the input a number there, or bind the name with --bind");
        };
        let Some(units) = positive(self.units) else {
            return call.fault("L3", format!("`units` is {}, not a size", self.units), "give at least 1");
        };
        let instance = call.instance();
        let weight = instance.state("weight", [features, units], Role::Param, self.init.weight(features as u64));
        let op = op::Dot {
            a_contract: Ints::from_slice(&[last as i64]),
            b_contract: Ints::from_slice(&[0]),
            a_batch: Ints::new(),
            b_batch: Ints::new(),
        };
        let y = call.builder.apply_named(op, &[x, &weight], &instance.value("dot"));
        finish(call, y, last, units, features as u64, self.bias.then_some(self.init), &self.activation, &instance)
    }
}

/// - conv.L1: `x` has rank 3 or more.
/// - conv.L2: the number of channels is known.
/// - conv.L3: kernel, strides and dilation are at least 1, one size for all dimensions or one for each.
/// - conv.L4: the padding has a number, or two per spatial dimension; `same` with strides needs known extents.
/// - conv.L5: filters, groups and kernel are at least 1.
/// - conv.L6: `groups` divides channels and filters.
/// - conv.L7: the window fits into the padded extents.
impl LayerSpec for Conv {
    fn expand(&self, call: &Call) -> Tensor {
        let x = call.operand(0);
        let channels = match known_channels(call) {
            Ok(channels) => channels,
            Err(fault) => return fault,
        };
        let rank = x.rank() - 2;
        let (Some(kernel), Some(dilation)) = (self.kernel.sizes(rank), self.dilation.sizes(rank)) else {
            let message = format!("`kernel` and `dilation` must have one size, or one for each of {rank} dimensions");
            return call.fault("L3", message, "one number stands for all");
        };
        let window = match resolve_window(call, &kernel, &self.strides, &dilation, &self.padding) {
            Ok(window) => window,
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
        let per_group = channels / groups;
        let Some(extents) = kernel.iter().map(|&k| positive(k)).collect::<Option<Vec<usize>>>() else {
            return call.fault("L5", format!("`kernel` is {kernel:?}"), "give at least 1");
        };
        let fan_in = extents.iter().fold(per_group as u64, |fan, &k| fan.saturating_mul(k as u64));
        let shape: Vec<usize> = [filters, per_group].into_iter().chain(extents).collect();
        let instance = call.instance();
        let weight = instance.state("weight", shape.as_slice(), Role::Param, self.init.weight(fan_in));
        let op = op::Conv { strides: window.strides, padding: window.padding, dilation, groups: self.groups };
        let y = call.builder.apply_named(op, &[x, &weight], &instance.value("conv"));
        finish(call, y, 1, filters, fan_in, self.bias.then_some(self.init), &self.activation, &instance)
    }
}

/// - embedding.L1: `index` is of an integer type.
/// - embedding.L2: vocabulary and units are at least 1.
impl LayerSpec for Embedding {
    fn expand(&self, call: &Call) -> Tensor {
        let index = call.operand(0);
        if !index.dtype().is_integer() {
            let message = format!("`embedding` takes integers, not {}", index.ty());
            return call.fault("L1", message, "declare the input i64, with `below` the vocabulary");
        }
        let (Some(vocabulary), Some(units)) = (positive(self.vocabulary), positive(self.units)) else {
            let message = format!("`vocabulary` is {} and `units` is {}", self.vocabulary, self.units);
            return call.fault("L2", message, "give at least 1");
        };
        let instance = call.instance();
        let init = self.init.weight(vocabulary as u64);
        let weight = instance.state("weight", [vocabulary, units], Role::Param, init);
        call.builder.apply_named(op::Gather {}, &[&weight, index], &instance.path)
    }
}

/// Bias along dimension `dim` and activation.
#[allow(clippy::too_many_arguments, reason = "the tail that layers with a weight share, nothing else")]
pub(super) fn finish(
    call: &Call,
    mut y: Tensor,
    dim: usize,
    units: usize,
    fan_in: u64,
    bias: Option<Init>,
    activation: &Activation,
    instance: &Instance,
) -> Tensor {
    if let Some(init) = bias {
        let bias = instance.state("bias", [units], Role::Param, init.bias(fan_in));
        if y.is_invalid() {
            return y;
        }
        let op = op::Broadcast { ty: y.ty(), dims: Ints::from_slice(&[dim as i64]) };
        let wide = call.builder.apply_named(op, &[&bias], &instance.value("bias.wide"));
        let add = op::Op::Elementwise(op::Elementwise::Add);
        y = call.builder.apply_named(add, &[&y, &wide], &instance.value("add"));
    }
    match activation.op() {
        Some(op) => call.builder.apply_named(op.clone(), &[&y], &instance.value(op.mnemonic())),
        None => y,
    }
}

/// A size as a number of elements, if it is one.
pub(super) fn positive(size: i64) -> Option<usize> {
    usize::try_from(size).ok().filter(|&n| n >= 1)
}

/// An extent as an attribute.
pub(super) fn known(dim: &Dim) -> Option<i64> {
    dim.known().and_then(|n| i64::try_from(n).ok())
}
