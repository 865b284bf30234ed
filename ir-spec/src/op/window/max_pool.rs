//! The largest element of each window, its gradient, and the gradient's own.
//!
//! `max_pool` also yields the place of the largest element, so its gradient is a linear map given by the places, and
//! that map's transpose (`max_pool_take`) picks elements by place. The two are each other's gradient.

use super::geometry::{Labels, Window, labels};
use crate::body::{Body, Combine, Map, Monoid, Read, range};
use crate::op::{Fault, Faults, Gradient, MaxPool, MaxPoolGrad, MaxPoolTake, OpSpec, Types, Vjp};
use crate::scalar::{Number, ScalarExpr, eq, select};
use crate::types::{DType, TensorType};

macro_rules! window {
    ($($op:ident),*) => {
        $(impl $op {
            fn window(&self) -> Window<'_> {
                Window::new(&self.window, &self.strides, &self.padding)
            }
        })*
    };
}

window!(MaxPool, MaxPoolGrad, MaxPoolTake);

/// Row-major position in the window, as i32; the window's dimensions start at `first`.
fn place(window: &Window<'_>, first: usize) -> ScalarExpr {
    let position = window.window.iter().enumerate().fold(None, |position: Option<ScalarExpr>, (i, &extent)| {
        let here = ScalarExpr::index(first + i);
        Some(match position {
            Some(outer) => outer * ScalarExpr::literal(Number::Int(extent), DType::I64) + here,
            None => here,
        })
    });
    position.unwrap_or_else(|| ScalarExpr::literal(0.0, DType::I64)).cast(DType::I32)
}

/// 1. `max_pool.C1`: `x` has one to three spatial dimensions.
/// 2. `max_pool.C2`: its element type is not bool.
/// 3. `max_pool.C3`: `window` and `strides` have one entry per spatial dimension, `padding` two.
/// 4. `max_pool.C4`: windows and strides are at least 1, paddings at least 0.
/// 5. `max_pool.C5`: the window fits into the padded input.
/// 6. `max_pool.D1`: the output extents have a value.
///
/// A window of padding only has the place 0; the places of a window count in i32.
impl OpSpec for MaxPool {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let shape = self.window().infer(&operands[0], &labels!("max_pool"))?;
        let y = operands[0].with_shape(shape);
        let place = y.with_dtype(DType::I32);
        Ok(smallvec::smallvec![y, place])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let dtype = operands[0].dtype;
        let parallel = results[0].extents();
        let (lowest, _) = range(dtype);
        Body::Map(Map {
            reduce: self.window().extents(),
            reads: vec![Read::inside(0, self.window().input_index()).or(lowest)],
            exprs: vec![ScalarExpr::read(0, dtype), place(&self.window(), parallel.len())],
            combine: Combine::ArgMax,
            parallel,
        })
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let dx = cx.cotangents[0].as_ref().map(|dy| {
            let MaxPool { window, strides, padding } = self.clone();
            let grad = MaxPoolGrad { ty: cx.operands[0].ty(), window, strides, padding };
            dy.builder().apply(grad, &[dy, &cx.results[1]])
        });
        Gradient::Operands(vec![dx])
    }
}

/// The pooled tensors that belong to `x`: values of its element type and places.
fn require_pooled(
    window: &Window<'_>,
    labels: &Labels,
    label: &'static str,
    x: &TensorType,
    value: Option<&TensorType>,
    place: &TensorType,
) -> Result<TensorType, Vec<Fault>> {
    let pooled = x.with_shape(window.infer(x, labels)?);
    let mut faults = Faults::default();
    let wanted = pooled.with_dtype(DType::I32);
    faults.require(place.shape == wanted.shape && place.dtype == DType::I32, || {
        let message = format!("`max_pool` of {x} has places {wanted}, but `place` is {place}");
        Fault::new(label, message).help("take the second result of the `max_pool`")
    });
    if let Some(value) = value {
        faults.require(value.shape == pooled.shape && value.dtype == pooled.dtype, || {
            let message = format!("`max_pool` of {x} gives {pooled}, but `dy` is {value}");
            Fault::new(label, message).help("declare the type of the operand whose gradient this is")
        });
    }
    faults.check()?;
    Ok(pooled)
}

/// 1. `max_pool_grad.C1`: `dy` and `place` have the types of a `max_pool` of the declared type, within its constraints.
impl OpSpec for MaxPoolGrad {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let (dy, place) = (&operands[0], &operands[1]);
        require_pooled(&self.window(), &labels!("max_pool"), "max_pool_grad.C1", &self.ty, Some(dy), place)?;
        Ok(smallvec::smallvec![self.ty.clone()])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let dtype = operands[0].dtype;
        let parallel = results[0].extents();
        let index = self.window().output_index();
        let chosen = eq(ScalarExpr::read(1, DType::I32), place(&self.window(), parallel.len()));
        Body::Map(Map {
            reduce: self.window().extents(),
            reads: vec![
                Read::inside(0, index.clone()).or(Number::Int(0).to_dtype(dtype)),
                Read::inside(1, index).or(Number::Int(-1)),
            ],
            exprs: vec![select(chosen, ScalarExpr::read(0, dtype), 0.0)],
            combine: Combine::Each(Monoid::Sum),
            parallel,
        })
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let ddy = cx.cotangents[0].as_ref().map(|ddx| {
            let (window, strides, padding) = (self.window.clone(), self.strides.clone(), self.padding.clone());
            ddx.builder().apply(MaxPoolTake { window, strides, padding }, &[ddx, &cx.operands[1]])
        });
        Gradient::Operands(vec![ddy, None])
    }
}

/// 1. `max_pool_take.C1`: `place` has the type of the places of a `max_pool` of `x`, within its constraints.
impl OpSpec for MaxPoolTake {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let (x, place) = (&operands[0], &operands[1]);
        let y = require_pooled(&self.window(), &labels!("max_pool"), "max_pool_take.C1", x, None, place)?;
        Ok(smallvec::smallvec![y])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let dtype = operands[0].dtype;
        let parallel = results[0].extents();
        let chosen = eq(ScalarExpr::read(1, DType::I32), place(&self.window(), parallel.len()));
        Body::Map(Map {
            reduce: self.window().extents(),
            reads: vec![
                Read::inside(0, self.window().input_index()).or(Number::Int(0).to_dtype(dtype)),
                Read::identity(1, parallel.len()),
            ],
            exprs: vec![select(chosen, ScalarExpr::read(0, dtype), 0.0)],
            combine: Combine::Each(Monoid::Sum),
            parallel,
        })
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let dx = cx.cotangents[0].as_ref().map(|dy| {
            let (window, strides, padding) = (self.window.clone(), self.strides.clone(), self.padding.clone());
            let grad = MaxPoolGrad { ty: cx.operands[0].ty(), window, strides, padding };
            dy.builder().apply(grad, &[dy, &cx.operands[1]])
        });
        Gradient::Operands(vec![dx, None])
    }
}
