//! Losses: the mean over all examples, a scalar of the type of the first operand.

use crate::body::Body;
use crate::builder::Tensor;
use crate::op::rules::{compose, mean_all};
use crate::op::{Elementwise, Fault, Faults, Gradient, OpSpec, Types, Vjp};
use crate::types::{DType, Shape, TensorType};

/// 1. `cross_entropy.C1`: `logits: [N..., K]` is of a float type and has a dimension.
/// 2. `cross_entropy.C2`: `label` is of type i32 or i64.
/// 3. `cross_entropy.C3`: `label` has the shape of `logits` without its last dimension.
///
/// A label outside `0..K` is a run-time error.
impl OpSpec for super::CrossEntropy {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let (logits, label) = (&operands[0], &operands[1]);
        let mut faults = Faults::default();
        faults.float("cross_entropy.C1", "logits", logits);
        faults.require(logits.rank() > 0, || {
            Fault::new("cross_entropy.C1", format!("`logits` is {logits}, it must be [N..., K]"))
        });
        faults.require(matches!(label.dtype, DType::I32 | DType::I64), || {
            Fault::new("cross_entropy.C2", format!("`label` is {label}, it must hold class numbers of i32 or i64"))
                .help("one-hot or soft targets have no op: give the class numbers, or `cast` integers to i64")
        });
        if let Some((_, leading)) = logits.shape.dims().split_last() {
            let wanted: Shape = leading.iter().cloned().collect();
            faults.require(label.shape == wanted, || {
                let message = format!("`label` has shape {}, `logits` {} asks for {wanted}", label.shape, logits.shape);
                Fault::new("cross_entropy.C3", message).help("one label per row of logits")
            });
        }
        faults.finish(|| smallvec::smallvec![TensorType::scalar(logits.dtype)])
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["logits", "label"], operands, |params| {
            let builder = params[0].builder();
            let log_p = builder.apply(super::LogSoftmax { dim: -1 }, &[&params[0]]);
            let picked = builder.apply(super::TakeAlong {}, &[&log_p, &params[1]]);
            vec![mean_all(&picked).neg()]
        })
    }

    /// `(softmax - onehot) * dloss / N`: neither logarithms nor a scatter.
    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let Some(dloss) = &cx.cotangents[0] else { return Gradient::Operands(vec![None, None]) };
        let (logits, label) = (&cx.operands[0], &cx.operands[1]);
        let builder = logits.builder();
        let rows = label.rank();
        let p = builder.apply(super::Softmax { dim: -1 }, &[logits]);
        let class = TensorType::new(label.dtype(), logits.shape());
        let class = builder.apply(super::Iota { ty: class, dim: rows as i64 }, &[]);
        let label = label.broadcast(logits.shape(), &(0..rows).collect::<Vec<_>>());
        let hit = class.elementwise(Elementwise::Eq, &[&label]);
        let onehot = hit.elementwise(Elementwise::Select, &[&p.full_like(1.0), &p.full_like(0.0)]);
        let each = dloss * (1.0 / cx.operands[1].shape().elements() as f64);
        Gradient::Operands(vec![Some(&(&p - &onehot) * &each), None])
    }
}

/// 1. `loss.C1`: the first operand is of a float type.
/// 2. `loss.C2`: `target` has its type.
///
/// `softplus(x) - x * t` is `-(t log p + (1 - t) log (1 - p))` with `p = sigmoid(x)`, without overflow. It is computed as
/// `(max(x, 0) - x * t) + softplus(-|x|)`: for a logit that is right the parts of the first term cancel exactly, and the
/// second, small as it is, stays.
impl OpSpec for super::BceWithLogits {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        infer_pair("logits", operands)
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["logits", "target"], operands, |params| {
            let (x, target) = (&params[0], &params[1]);
            let large = &x.relu() - &(x * target);
            vec![mean_all(&(&large + &x.abs().neg().softplus()))]
        })
    }

    /// `(sigmoid(x) - target) * dloss / N`.
    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let Some(dloss) = &cx.cotangents[0] else { return Gradient::Operands(vec![None, None]) };
        let (x, target) = (&cx.operands[0], &cx.operands[1]);
        let each = per_element(dloss, x);
        let dx = &(&x.sigmoid() - target) * &each;
        Gradient::Operands(vec![Some(dx), Some((x * &each).neg())])
    }
}

/// Constraints as `bce_with_logits`.
impl OpSpec for super::Mse {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        infer_pair("x", operands)
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["x", "target"], operands, |params| vec![mean_all(&(&params[0] - &params[1]).square())])
    }

    /// `2 (x - target) * dloss / N`.
    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let Some(dloss) = &cx.cotangents[0] else { return Gradient::Operands(vec![None, None]) };
        let (x, target) = (&cx.operands[0], &cx.operands[1]);
        let each = per_element(&(dloss * 2.0), x);
        let dx = &(x - target) * &each;
        let dtarget = dx.neg();
        Gradient::Operands(vec![Some(dx), Some(dtarget)])
    }
}

/// `dloss / N` in the shape of `like`.
fn per_element(dloss: &Tensor, like: &Tensor) -> Tensor {
    (dloss * (1.0 / like.shape().elements() as f64)).broadcast_like(like)
}

fn infer_pair(name: &str, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
    let mut faults = Faults::default();
    faults.float("loss.C1", name, &operands[0]);
    faults.same("loss.C2", "target", &operands[1], &operands[0]);
    faults.finish(|| smallvec::smallvec![TensorType::scalar(operands[0].dtype)])
}
