//! Pass `fold_batch_norm`: in inference, a normalisation after a convolution is a convolution with other weights.
//!
//! ```text
//! graph @f(%x: f32[1, 3, 2, 2], %w: f32[4, 3, 1, 1], %scale: f32[4], %offset: f32[4], %mean: f32[4], %variance: f32[4]) {
//!   %h: f32[1, 4, 2, 2] = conv %x, %w {strides = [1, 1], padding = [0, 0, 0, 0], dilation = [1, 1], groups = 1}
//!   %y: f32[1, 4, 2, 2] = batch_norm_inference %h, %scale, %offset, %mean, %variance {epsilon = 1e-5}
//!   return %y
//! }
//! ```
//! becomes
//! ```text
//! graph @f(%x: f32[1, 3, 2, 2], %w: f32[4, 3, 1, 1], %scale: f32[4], %offset: f32[4], %mean: f32[4], %variance: f32[4]) {
//!   %const: f32[4] = const {value = 1e-5}
//!   %add: f32[4] = add %variance, %const
//!   %rsqrt: f32[4] = rsqrt %add
//!   %mul: f32[4] = mul %scale, %rsqrt
//!   %neg: f32[4] = neg %mean
//!   %mul.1: f32[4] = mul %neg, %mul
//!   %h.bias: f32[4] = add %mul.1, %offset
//!   %broadcast: f32[4, 3, 1, 1] = broadcast %mul {dims = [0]}
//!   %h.weight: f32[4, 3, 1, 1] = mul %w, %broadcast
//!   %conv: f32[1, 4, 2, 2] = conv %x, %h.weight {strides = [1, 1], padding = [0, 0, 0, 0], dilation = [1, 1], groups = 1}
//!   %broadcast.1: f32[1, 4, 2, 2] = broadcast %h.bias {dims = [1]}
//!   %y: f32[1, 4, 2, 2] = add %conv, %broadcast.1
//!   return %y
//! }
//! ```
//! with weights `w * factor` and bias `offset - mean * factor`, where `factor = scale / sqrt(variance + epsilon)` per
//! output channel. They depend on states only, so `hoist` moves their computation to `@prepare`. A bias between the
//! convolution and the normalisation is folded too.

use kiln_ir::builder::Tensor;
use kiln_ir::op::Op;

use crate::rewrite::{Declined, Match, Patch, Pattern, Rewrite, Rules};

/// The pass.
pub fn fold_batch_norm() -> Rules {
    Rules::new("fold_batch_norm", vec![Box::new(FoldBatchNorm { bias: false }), Box::new(FoldBatchNorm { bias: true })])
}

struct FoldBatchNorm {
    bias: bool,
}

impl Rewrite for FoldBatchNorm {
    fn name(&self) -> &'static str {
        "fold_batch_norm"
    }

    fn pattern(&self) -> Pattern {
        let conv = Pattern::op("conv", [Pattern::any("x"), Pattern::any("w")]).named("conv");
        let bias = Pattern::op("broadcast", [Pattern::any("bias")]).named("spread");
        let input = if self.bias { (conv + bias).named("sum") } else { conv };
        let vectors = ["scale", "offset", "mean", "variance"].map(Pattern::any);
        Pattern::op("batch_norm_inference", std::iter::once(input).chain(vectors)).named("norm")
    }

    fn apply(&self, found: &Match<'_>, patch: &Patch<'_>) -> Result<Tensor, Declined> {
        if patch.uses(found.value("conv")) > 1 || self.bias && patch.uses(found.value("sum")) > 1 {
            return Err(Declined::new("multiple_uses", "the convolution's result is needed without the normalisation"));
        }
        let (Some(norm), Some(conv)) = (found.node("norm"), found.node("conv")) else {
            return Err(Declined::new("form", "not a node"));
        };
        let Op::BatchNormInference(op) = &norm.op else { return Err(Declined::new("form", "not a normalisation")) };
        if self.bias && !spreads_channels(found) {
            return Err(Declined::new("form", "the sum is not a bias per channel"));
        }
        let [w, scale, offset, mean, variance] =
            ["w", "scale", "offset", "mean", "variance"].map(|name| patch.tensor(found.value(name)));
        let factor = &scale * &(&variance + op.epsilon).rsqrt();
        let shift = if self.bias { &patch.tensor(found.value("bias")) - &mean } else { mean.neg() };
        let bias = &(&shift * &factor) + &offset;
        let weight = &w * &factor.broadcast(w.shape(), &[0]);
        let conv_name = found.graph().value_name(found.value("conv"));
        patch.builder().rename(&weight, &format!("{conv_name}.weight"));
        patch.builder().rename(&bias, &format!("{conv_name}.bias"));
        let x = patch.tensor(found.value("x"));
        let sum = patch.builder().apply(conv.op.clone(), &[&x, &weight]);
        let spread = bias.broadcast(sum.shape(), &[1]);
        Ok(&sum + &spread)
    }
}

fn spreads_channels(found: &Match<'_>) -> bool {
    matches!(found.node("spread").map(|data| &data.op), Some(Op::Broadcast(op)) if op.dims.as_slice() == [1])
}
