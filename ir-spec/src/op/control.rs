//! Ops about programs: derivatives to be taken, and groups of nodes that are one kernel.

use crate::body::Body;
use crate::op::{Fault, Faults, Gradient, OpSpec, Types, Vjp};
use crate::types::TensorType;

/// 1. `gradient.C1`: `loss` is a float scalar.
/// 2. `gradient.C2`: every further operand is of a float type.
///
/// The results have the types of the operands after `loss`. Pass `autodiff` expands inner gradients first, so no rule
/// ever meets one.
impl OpSpec for super::GradientOf {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let (loss, rest) = (&operands[0], &operands[1..]);
        let mut faults = Faults::default();
        faults.require(loss.dtype.is_float() && loss.rank() == 0, || {
            Fault::new("gradient.C1", format!("the loss is {loss}, it must be a float scalar"))
                .help("reduce it: `reduce_mean %loss {dims = [...]}`")
        });
        for (i, ty) in rest.iter().enumerate() {
            faults.require(ty.dtype.is_float(), || {
                Fault::new("gradient.C2", format!("operand {} is {ty}; only floats have derivatives", i + 1))
            });
        }
        faults.finish(|| rest.iter().cloned().collect())
    }

    fn body(&self, _: &[TensorType], _: &[TensorType]) -> Body {
        Body::Expanded
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::Decompose
    }
}

/// 1. `fused.C1`: a group is made from its region; operands alone do not give its results (`Graph::push`
///    makes it, `verify` compares it with its region).
impl OpSpec for super::Fused {
    fn infer(&self, _: &[TensorType]) -> Result<Types, Vec<Fault>> {
        Err(vec![
            Fault::new("fused.C1", "a group has the types that its region yields, and no region was given")
                .help("let pass `fuse` make groups, or write the region: `fused %x {kind = \"map\"} { (%a) -> ... }`"),
        ])
    }

    fn body(&self, _: &[TensorType], _: &[TensorType]) -> Body {
        Body::Region
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::Decompose
    }
}
