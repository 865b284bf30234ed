//! Sums and means of windows.

use super::geometry::{Window, labels};
use crate::body::{Body, Combine, Map, Monoid, Read};
use crate::builder::Tensor;
use crate::op::rules::compose;
use crate::op::{AvgPool, Fault, Faults, Gradient, OpSpec, SumPool, SumPoolGrad, Types, Vjp};
use crate::scalar::{Number, ScalarExpr};
use crate::types::{Dim, Shape, TensorType};

impl SumPool {
    fn window(&self) -> Window<'_> {
        Window::new(&self.window, &self.strides, &self.padding)
    }
}

impl SumPoolGrad {
    fn forward(&self) -> SumPool {
        let (window, strides, padding) = (self.window.clone(), self.strides.clone(), self.padding.clone());
        SumPool { window, strides, padding }
    }
}

/// 1. `sum_pool.C1`: `x` has one to three spatial dimensions.
/// 2. `sum_pool.C2`: its element type is not bool.
/// 3. `sum_pool.C3`: `window` and `strides` have one entry per spatial dimension, `padding` two.
/// 4. `sum_pool.C4`: windows and strides are at least 1, paddings at least 0.
/// 5. `sum_pool.C5`: the window fits into the padded input.
/// 6. `sum_pool.D1`: the output extents have a value.
impl OpSpec for SumPool {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let shape = self.window().infer(&operands[0], &labels!("sum_pool"))?;
        Ok(smallvec::smallvec![operands[0].with_shape(shape)])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let dtype = operands[0].dtype;
        Body::Map(Map {
            parallel: results[0].extents(),
            reduce: self.window().extents(),
            reads: vec![Read::inside(0, self.window().input_index()).or(Number::Int(0).to_dtype(dtype))],
            exprs: vec![ScalarExpr::read(0, dtype)],
            combine: Combine::Each(Monoid::Sum),
        })
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let dx = cx.cotangents[0].as_ref().map(|dy| self.grad(dy, &cx.operands[0]));
        Gradient::Operands(vec![dx])
    }
}

impl SumPool {
    #[track_caller]
    fn grad(&self, dy: &Tensor, x: &Tensor) -> Tensor {
        let SumPool { window, strides, padding } = self.clone();
        dy.builder().apply(SumPoolGrad { ty: x.ty(), window, strides, padding }, &[dy])
    }
}

/// 1. `sum_pool_grad.C1`: a `sum_pool` of the declared type, within its own constraints, gives the type of `dy`.
impl OpSpec for SumPoolGrad {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let forward = self.forward().window().infer(&self.ty, &labels!("sum_pool"))?;
        let dy = &operands[0];
        let mut faults = Faults::default();
        faults.require(forward == dy.shape && self.ty.dtype == dy.dtype, || {
            let message = format!("`sum_pool` of {} gives {}{forward}, but `dy` is {dy}", self.ty, self.ty.dtype);
            Fault::new("sum_pool_grad.C1", message).help("declare the type of the operand whose gradient this is")
        });
        faults.finish(|| smallvec::smallvec![self.ty.clone()])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let dtype = operands[0].dtype;
        let forward = self.forward();
        Body::Map(Map {
            parallel: results[0].extents(),
            reduce: forward.window().extents(),
            reads: vec![Read::inside(0, forward.window().output_index()).or(Number::Int(0).to_dtype(dtype))],
            exprs: vec![ScalarExpr::read(0, dtype)],
            combine: Combine::Each(Monoid::Sum),
        })
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        Gradient::Operands(vec![cx.cotangents[0].as_ref().map(|ddx| ddx.builder().apply(self.forward(), &[ddx]))])
    }
}

impl AvgPool {
    fn sum(&self) -> SumPool {
        let (window, strides, padding) = (self.window.clone(), self.strides.clone(), self.padding.clone());
        SumPool { window, strides, padding }
    }

    /// `sums`, one per window of `x`, over the number of elements that count.
    #[track_caller]
    fn divided(&self, sums: &Tensor, x: &Tensor) -> Tensor {
        if self.count_outside {
            let size: i64 = self.window.iter().product();
            return sums * (1.0 / size as f64);
        }
        let x = x.ty();
        let space = x.shape.dims().iter().skip(2).cloned();
        let ones: Shape = [Dim::from(1), Dim::from(1)].into_iter().chain(space).collect();
        let ones = sums.builder().full(1.0, &x.with_shape(ones));
        let counts = sums.builder().apply(self.sum(), &[&ones]);
        let dims: Vec<usize> = (0..sums.rank()).collect();
        sums / &counts.broadcast(sums.shape(), &dims)
    }
}

/// 1. `avg_pool.C1`: `x` has one to three spatial dimensions.
/// 2. `avg_pool.C2`: its element type is a float type.
/// 3. `avg_pool.C3`: `window` and `strides` have one entry per spatial dimension, `padding` two.
/// 4. `avg_pool.C4`: windows and strides are at least 1, paddings at least 0.
/// 5. `avg_pool.C5`: the window fits into the padded input.
/// 6. `avg_pool.C6`: without `count_outside` the padding is smaller than the window, so that no divisor is 0.
/// 7. `avg_pool.D1`: the output extents have a value.
impl OpSpec for AvgPool {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let x = &operands[0];
        let labels = labels!("avg_pool");
        let mut faults = Faults::default();
        faults.require(x.dtype.is_float(), || {
            Fault::new(labels.dtype, format!("the mean of {} is no {}", x.dtype, x.dtype)).help("`cast` it to f32")
        });
        faults.check()?;
        let shape = Window::new(&self.window, &self.strides, &self.padding).infer(x, &labels)?;
        let widest = self.padding.iter().enumerate().all(|(i, &p)| p < self.window[i / 2]);
        faults.require(self.count_outside || widest, || {
            let message = format!(
                "padding {:?} is not smaller than the window {:?}: a mean of nothing",
                &self.padding[..],
                &self.window[..]
            );
            Fault::new("avg_pool.C6", message).help("pad less, or set `count_outside = true`")
        });
        faults.finish(|| smallvec::smallvec![x.with_shape(shape)])
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["x"], operands, |operands| {
            let x = &operands[0];
            let sums = x.builder().apply(self.sum(), &[x]);
            vec![self.divided(&sums, x)]
        })
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let x = &cx.operands[0];
        let dx = cx.cotangents[0].as_ref().map(|dy| self.sum().grad(&self.divided(dy, x), x));
        Gradient::Operands(vec![dx])
    }
}
