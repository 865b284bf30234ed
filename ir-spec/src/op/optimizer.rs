//! Optimizer updates, in the order of operations of PyTorch's single-tensor loops, so that results agree to rounding.
//!
//! 1. `optimizer.C1`: `w` is of a float type.
//! 2. `optimizer.C2`: `g` and the moments have the type of `w`.
//! 3. `optimizer.C3`: `rate` is a float scalar.
//! 4. `optimizer.C4`: `step` is i64[].
//! 5. `optimizer.C5`: `epsilon` and `weight_decay` are finite and at least 0; `beta1`, `beta2`, `decay` and `momentum` lie in
//!    0..=1.

use crate::body::{Body, Combine, Map, Read};
use crate::builder::Tensor;
use crate::op::rules::compose;
use crate::op::{Elementwise, Fault, Faults, Gradient, OpSpec, Types, Vjp};
use crate::scalar::{self, ScalarExpr};
use crate::types::{DType, Extents, TensorType};

const LAST: &str = "an update ends a step: no loss depends on it";

/// Checks C1 to C3 of `w g moments... rate`.
fn check_update(faults: &mut Faults, operands: &[(&str, &TensorType)]) {
    let [(name, w), same @ .., (rate_name, rate)] = operands else { return };
    faults.float("optimizer.C1", name, w);
    for (name, ty) in same {
        faults.same("optimizer.C2", name, ty, w);
    }
    faults.float_scalar("optimizer.C3", rate_name, rate);
}

/// The gradient with `weight_decay * w` added.
fn decayed(w: &Tensor, g: &Tensor, weight_decay: f64) -> Tensor {
    if weight_decay == 0.0 { g.clone() } else { g + &(w * weight_decay) }
}

/// `w - scalar * direction`, the scalar in any float type.
fn descend(w: &Tensor, scalar: &Tensor, direction: &Tensor) -> Tensor {
    w - &(&scalar.cast(w.dtype()).broadcast_like(w) * direction)
}

/// `decay * v + (1 - decay) * g * g`.
fn mean_square(v: &Tensor, g: &Tensor, decay: f64) -> Tensor {
    &(v * decay) + &(&(g * (1.0 - decay)) * g)
}

/// Constraints: optimizer.C1, C2, C3, C5. `g' = g + weight_decay * w`, `w' = w - rate * g'`.
impl OpSpec for super::Sgd {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let mut faults = Faults::default();
        check_update(&mut faults, &[("w", &operands[0]), ("g", &operands[1]), ("rate", &operands[2])]);
        faults.not_negative("optimizer.C5", "weight_decay", self.weight_decay);
        faults.finish(|| smallvec::smallvec![operands[0].clone()])
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["w", "g", "rate"], operands, |params| {
            let [w, g, rate] = params else { return Vec::new() };
            vec![descend(w, rate, &decayed(w, g, self.weight_decay))]
        })
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::NonDifferentiable(LAST)
    }
}

/// Constraints: optimizer.C1, C2, C3, C5. `m' = momentum * m + g'`; the step goes along `m'`, with `nesterov` along
/// `g' + momentum * m'`.
impl OpSpec for super::Momentum {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let mut faults = Faults::default();
        let [w, g, m, rate] = operands else { return Ok(Types::new()) };
        check_update(&mut faults, &[("w", w), ("g", g), ("m", m), ("rate", rate)]);
        faults.within("optimizer.C5", "momentum", self.momentum, 0.0, 1.0);
        faults.not_negative("optimizer.C5", "weight_decay", self.weight_decay);
        faults.finish(|| smallvec::smallvec![w.clone(), w.clone()])
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["w", "g", "m", "rate"], operands, |params| {
            let [w, g, m, rate] = params else { return Vec::new() };
            let g = decayed(w, g, self.weight_decay);
            let m = &(m * self.momentum) + &g;
            let direction = if self.nesterov { &g + &(&m * self.momentum) } else { m.clone() };
            vec![descend(w, rate, &direction), m]
        })
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::NonDifferentiable(LAST)
    }
}

/// Numbers of the Adam family.
struct Moments {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    weight_decay: f64,
}

impl Moments {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let [w, g, m, v, step, rate] = operands else { return Ok(Types::new()) };
        let mut faults = Faults::default();
        check_update(&mut faults, &[("w", w), ("g", g), ("m", m), ("v", v), ("rate", rate)]);
        faults.counter("optimizer.C4", "step", step);
        faults.within("optimizer.C5", "beta1", self.beta1, 0.0, 1.0);
        faults.within("optimizer.C5", "beta2", self.beta2, 0.0, 1.0);
        faults.not_negative("optimizer.C5", "epsilon", self.epsilon);
        faults.not_negative("optimizer.C5", "weight_decay", self.weight_decay);
        faults.finish(|| smallvec::smallvec![w.clone(), w.clone(), w.clone()])
    }

    fn body(&self, operands: &[TensorType], decoupled: bool) -> Body {
        compose(&["w", "g", "m", "v", "step", "rate"], operands, |params| {
            let [w, g, m, v, step, rate] = params else { return Vec::new() };
            let rate = rate.cast(DType::F64);
            let (w, g) = if decoupled {
                let keep = 1.0 - &(&rate * self.weight_decay);
                (w * &keep.cast(w.dtype()), g.clone())
            } else {
                (w.clone(), decayed(w, g, self.weight_decay))
            };
            let m = m + &(&(&g - m) * (1.0 - self.beta1));
            let v = mean_square(v, &g, self.beta2);
            // In f64: 1 - beta2^t loses four digits in f32 at the first steps. One scalar each, shared by all weights.
            let t = &step.cast(DType::F64) + 1.0;
            let correction = |beta: f64| 1.0 - &t.full_like(beta).elementwise(Elementwise::Pow, &[&t]);
            let step_size = &rate / &correction(self.beta1);
            let root = correction(self.beta2).sqrt();
            let denominator = &(&v.sqrt() / &root.cast(w.dtype())) + self.epsilon;
            let scaled = &step_size.cast(w.dtype()).broadcast_like(&w) * &m;
            vec![&w - &(&scaled / &denominator), m, v]
        })
    }
}

/// Constraints: optimizer.C1 to C5. With `t = step + 1` and `g' = g + weight_decay * w`:
/// `m' = m + (1 - beta1) * (g' - m)`, `v' = beta2 * v + (1 - beta2) * g'^2`,
/// `w' = w - rate / (1 - beta1^t) * m' / (sqrt(v') / sqrt(1 - beta2^t) + epsilon)`.
impl OpSpec for super::Adam {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        self.moments().infer(operands)
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        self.moments().body(operands, false)
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::NonDifferentiable(LAST)
    }
}

impl super::Adam {
    fn moments(&self) -> Moments {
        let super::Adam { beta1, beta2, epsilon, weight_decay } = *self;
        Moments { beta1, beta2, epsilon, weight_decay }
    }
}

/// Constraints: optimizer.C1 to C5. As `adam` without decay of the gradient, after `w` was multiplied by
/// `1 - rate * weight_decay`.
impl OpSpec for super::AdamW {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        self.moments().infer(operands)
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        self.moments().body(operands, true)
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::NonDifferentiable(LAST)
    }
}

impl super::AdamW {
    fn moments(&self) -> Moments {
        let super::AdamW { beta1, beta2, epsilon, weight_decay } = *self;
        Moments { beta1, beta2, epsilon, weight_decay }
    }
}

/// Constraints: optimizer.C1, C2, C3, C5. `v' = decay * v + (1 - decay) * g'^2`, `w' = w - rate * g' / (sqrt(v') + epsilon)`.
impl OpSpec for super::RmsProp {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let mut faults = Faults::default();
        let [w, g, v, rate] = operands else { return Ok(Types::new()) };
        check_update(&mut faults, &[("w", w), ("g", g), ("v", v), ("rate", rate)]);
        faults.within("optimizer.C5", "decay", self.decay, 0.0, 1.0);
        faults.not_negative("optimizer.C5", "epsilon", self.epsilon);
        faults.not_negative("optimizer.C5", "weight_decay", self.weight_decay);
        faults.finish(|| smallvec::smallvec![w.clone(), w.clone()])
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["w", "g", "v", "rate"], operands, |params| {
            let [w, g, v, rate] = params else { return Vec::new() };
            let g = decayed(w, g, self.weight_decay);
            let v = mean_square(v, &g, self.decay);
            let scaled = &rate.cast(w.dtype()).broadcast_like(w) * &g;
            vec![w - &(&scaled / &(&v.sqrt() + self.epsilon)), v]
        })
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::NonDifferentiable(LAST)
    }
}

/// 1. `cosine_rate.C1`: `step` is i64[].
/// 2. `cosine_rate.C2`: `steps` is at least 1.
///
/// `floor + (base - floor) * (1 + cos(pi * min(step, steps) / steps)) / 2`, computed in f64; the result is f32[].
impl OpSpec for super::CosineRate {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let mut faults = Faults::default();
        faults.counter("cosine_rate.C1", "step", &operands[0]);
        faults.require(self.steps >= 1, || {
            Fault::new("cosine_rate.C2", format!("`steps` is {}, the curve needs at least 1", self.steps))
        });
        faults.finish(|| smallvec::smallvec![TensorType::scalar(DType::F32)])
    }

    fn body(&self, _: &[TensorType], _: &[TensorType]) -> Body {
        let steps = ScalarExpr::literal(self.steps, DType::I64);
        let step = scalar::min(ScalarExpr::read(0, DType::I64), steps).cast(DType::F64);
        let angle = step * (std::f64::consts::PI / self.steps as f64);
        let rate = self.floor + (self.base - self.floor) * 0.5 * (1.0 + scalar::cos(angle));
        Body::Map(Map {
            parallel: Extents::new(),
            reduce: Extents::new(),
            reads: vec![Read::inside(0, [])],
            exprs: vec![rate.cast(DType::F32)],
            combine: Combine::None,
        })
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::NonDifferentiable("a function of an integer")
    }
}
