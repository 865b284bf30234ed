//! Layers that normalise or regularise: batch_norm, layer_norm, dropout.

use super::window::known_channels;
use super::{BatchNorm, Call, Dropout, LayerNorm, LayerSpec};
use crate::builder::{GraphBuilder, Tensor};
use crate::module::{Initializer, Role, State};
use crate::op;
use crate::types::{DType, TensorType};

/// - batch_norm.L1: `x` has rank 2 or more.
/// - batch_norm.L2: the number of channels is known.
impl LayerSpec for BatchNorm {
    fn expand(&self, call: &Call) -> Tensor {
        let x = call.operand(0);
        // [N, C] is allowed: a dense layer's units are channels without a spatial extent.
        let channels = match x.shape().dims() {
            [_, channels] => channels.known(),
            _ => match known_channels(call) {
                Ok(channels) => Some(channels),
                Err(fault) => return fault,
            },
        };
        let Some(channels) = channels else {
            return call.fault("L2", "the number of channels is not known", "bind the name with --bind");
        };
        let instance = call.instance();
        let state = |name, role, value| instance.state(name, [channels], role, Initializer::Constant(value));
        let scale = state("scale", Role::Param, 1.0);
        let offset = state("offset", Role::Param, 0.0);
        let mean = state("mean", Role::Statistic, 0.0);
        let variance = state("variance", Role::Statistic, 1.0);
        let op = op::BatchNorm { epsilon: self.epsilon, momentum: self.momentum };
        let names = [&*instance.path, &instance.value("mean.next"), &instance.value("variance.next")];
        let results = call.builder.apply_all(op, &[x, &scale, &offset, &mean, &variance], &names);
        let [y, next_mean, next_variance] = results.as_slice() else { return x.clone() };
        call.builder.pend_update(&mean, next_mean);
        call.builder.pend_update(&variance, next_variance);
        y.clone()
    }
}

/// - layer_norm.L1: `x` has a last extent, which is known.
impl LayerSpec for LayerNorm {
    fn expand(&self, call: &Call) -> Tensor {
        let x = call.operand(0);
        let Some(features) = x.shape().dims().last().and_then(|dim| dim.known()) else {
            let message = format!("the last extent of {} is not known", x.ty());
            return call.fault("L1", message, "give the input a number there, or bind the name with --bind");
        };
        let instance = call.instance();
        let scale = instance.state("scale", [features], Role::Param, Initializer::Constant(1.0));
        let offset = instance.state("offset", [features], Role::Param, Initializer::Constant(0.0));
        call.builder.apply_named(op::LayerNorm { epsilon: self.epsilon }, &[x, &scale, &offset], &instance.path)
    }
}

/// - dropout.L1: `0 <= rate < 1`.
impl LayerSpec for Dropout {
    fn expand(&self, call: &Call) -> Tensor {
        if !(0.0..1.0).contains(&self.rate) {
            let message = format!("`rate` is {}, not a fraction", self.rate);
            return call.fault("L1", message, "it is the fraction to drop, at least 0 and below 1");
        }
        let instance = call.instance().path;
        let counter = draw_counter(&call.builder);
        let op = op::Dropout { rate: self.rate, stream: call.builder.next_stream(&instance) };
        call.builder.apply_named(op, &[call.operand(0), &counter], &instance)
    }
}

/// The counter that every random op reads; a training step adds 1 to it.
pub(crate) fn draw_counter(builder: &GraphBuilder) -> Tensor {
    let ty = TensorType::scalar(DType::I64);
    builder.shared_state("rng", State { ty, role: Role::Counter, init: Initializer::Seed, source: None })
}
