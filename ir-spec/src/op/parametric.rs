//! Elementwise ops with attributes.

use crate::body::{Body, Map};
use crate::op::elementwise::{Domain, formula_gradient};
use crate::op::{Clamp, Elu, Fault, Faults, Gradient, LeakyRelu, OpSpec, Types, Vjp};
use crate::scalar::{ScalarExpr, and, exp, ge, gt, le, max, min, select};
use crate::types::TensorType;

fn infer(x: &TensorType, label: &'static str, domain: Domain) -> Result<Types, Vec<Fault>> {
    let mut faults = Faults::default();
    faults.require(domain.accepts(x.dtype), || {
        Fault::new(label, format!("takes {}, not {}", domain.text(), x.dtype)).help("`cast` it")
    });
    faults.finish(|| smallvec::smallvec![x.clone()])
}

fn body(operands: &[TensorType], formula: impl Fn(&ScalarExpr) -> ScalarExpr) -> Body {
    let x = ScalarExpr::read(0, operands[0].dtype);
    Body::Map(Map::elementwise(&operands[0].extents(), 1, vec![formula(&x)]))
}

fn vjp(cx: &Vjp<'_>, derivative: impl Fn(&ScalarExpr, &ScalarExpr) -> ScalarExpr) -> Gradient {
    formula_gradient(cx, |operands, _, dy| vec![Some(derivative(&operands[0], dy))])
}

/// 1. `leaky_relu.C1`: `x` is a float tensor.
impl OpSpec for LeakyRelu {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        infer(&operands[0], "leaky_relu.C1", Domain::Float)
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        body(operands, |x| select(gt(x, 0.0), x, self.slope * x))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        vjp(cx, |x, dy| select(gt(x, 0.0), dy, self.slope * dy))
    }
}

/// 1. `elu.C1`: `x` is a float tensor.
impl OpSpec for Elu {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        infer(&operands[0], "elu.C1", Domain::Float)
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        // The minimum keeps the branch that is not taken finite, and with it the gradient's gradient.
        body(operands, |x| select(gt(x, 0.0), x, self.alpha * (exp(min(x, 0.0)) - 1.0)))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        vjp(cx, |x, dy| select(gt(x, 0.0), dy, self.alpha * (exp(min(x, 0.0)) * dy)))
    }
}

/// 1. `clamp.C1`: `x` is a float or integer tensor.
/// 2. `clamp.C2`: `low <= high`.
///
/// A NaN stays NaN; the gradient passes within the bounds, both included.
impl OpSpec for Clamp {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let types = infer(&operands[0], "clamp.C1", Domain::Numeric)?;
        let mut faults = Faults::default();
        faults.require(self.low <= self.high, || {
            Fault::new("clamp.C2", format!("{} is not at most {}", self.low, self.high)).help("swap the bounds")
        });
        faults.finish(|| types)
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        body(operands, |x| min(max(x, self.low), self.high))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        vjp(cx, |x, dy| select(and(ge(x, self.low), le(x, self.high)), dy, 0.0))
    }
}
