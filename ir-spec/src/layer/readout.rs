//! Layers that measure: means over the batch, scalars.

use super::{Accuracy, BinaryAccuracy, Call, LayerSpec};
use crate::builder::Tensor;
use crate::op::{self, Elementwise};
use crate::types::DType;

/// - accuracy.L1: `logits` has rank 1 or more.
/// - accuracy.L2: `label` has the extents of `logits` but the last, and an integer type.
impl LayerSpec for Accuracy {
    fn expand(&self, call: &Call) -> Tensor {
        let (logits, label) = (call.operand(0), call.operand(1));
        let (shape, wanted) = (logits.shape(), label.shape());
        let Some((_, examples)) = shape.dims().split_last() else {
            return call.fault("L1", "`accuracy` takes logits: [N..., K], not a scalar", "give the model's logits");
        };
        if examples != wanted.dims() || !label.dtype().is_integer() {
            let message =
                format!("`accuracy` takes logits: [N..., K] and label: [N...], not {shape} and {}", label.ty());
            return call.fault("L2", message, "the label is the index of the class, an integer per example");
        }
        let dim = examples.len() as i64;
        let found = call.builder.apply_all(op::ArgMax { dim }, &[logits], &["largest", "class"]);
        let Some(class) = found.get(1) else { return logits.clone() };
        mean_agreement(&class.cast(label.dtype()), label, "accuracy")
    }
}

/// - binary_accuracy.L1: both operands are floats of one shape.
impl LayerSpec for BinaryAccuracy {
    fn expand(&self, call: &Call) -> Tensor {
        let (logits, target) = (call.operand(0), call.operand(1));
        if logits.shape() != target.shape() || !logits.dtype().is_float() || !target.dtype().is_float() {
            let message = format!("`binary_accuracy` takes two equal shapes, not {} and {}", logits.ty(), target.ty());
            return call.fault("L1", message, "the target is 0 or 1 per logit, a float");
        }
        let positive = logits.elementwise(Elementwise::Gt, &[&logits.full_like(0.0)]);
        let wanted = target.elementwise(Elementwise::Gt, &[&target.full_like(0.5)]);
        mean_agreement(&positive, &wanted, "binary_accuracy")
    }
}

fn mean_agreement(a: &Tensor, b: &Tensor, name: &str) -> Tensor {
    let agree = a.elementwise(Elementwise::Eq, &[b]).cast(DType::F32);
    let dims = (0..agree.rank() as i64).collect();
    agree.builder().apply_named(op::ReduceMean { dims }, &[&agree], name)
}
