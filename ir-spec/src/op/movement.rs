//! Movement: ops that place elements and do no arithmetic.

mod concat;
mod retype;

use crate::attribute::{Dims, Ints};
use crate::body::{Affine, Body, Map, Read};
use crate::builder::to_ints;
use crate::op::dims::{inverse, resolve_dims};
use crate::op::{Fault, Faults, Gradient, OpSpec, Pad, Reverse, Slice, SliceGrad, Transpose, Types, Vjp};
use crate::scalar::Number;
use crate::types::{Dim, DimError, Shape, TensorType};

/// Largest position in an attribute: sums of a few then stay within i64.
const LARGEST: i64 = i64::MAX / 8;

fn map(results: &[TensorType], read: Read) -> Body {
    Body::Map(Map::movement(&results[0].extents(), results[0].dtype, read))
}

/// The permutation `permuted` applies; `infer` has checked it.
fn permutation_of(permutation: &Ints) -> Option<Vec<usize>> {
    resolve_dims(permutation, permutation.len())
}

/// 1. `transpose.C1`: `permutation` names every dimension of `x` once.
impl OpSpec for Transpose {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let x = &operands[0];
        let permutation = permutation_of(&self.permutation).filter(|p| p.len() == x.rank());
        let Some(permutation) = permutation else {
            let message = format!("{:?} is no permutation of the dimensions of {}", &self.permutation[..], x.shape);
            return Err(vec![
                Fault::new("transpose.C1", message).help(format!("name each of 0 to {} once", x.rank().max(1) - 1)),
            ]);
        };
        let shape: Shape = permutation.iter().map(|&p| x.shape.dims()[p].clone()).collect();
        Ok(smallvec::smallvec![x.with_shape(shape)])
    }

    fn body(&self, _: &[TensorType], results: &[TensorType]) -> Body {
        let permutation = permutation_of(&self.permutation).unwrap_or_default();
        map(results, Read::inside(0, inverse(&permutation).into_iter().map(Affine::dim)))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let inverse = inverse(&permutation_of(&self.permutation).unwrap_or_default());
        Gradient::Operands(vec![cx.cotangents[0].as_ref().map(|dy| dy.transpose(&inverse))])
    }
}

/// 1. `slice.C1`: `start`, `stop` and `step` have one entry per dimension.
/// 2. `slice.C2`: `0 <= start <= stop <= extent` and `step >= 1`, as far as extents are known.
/// 3. `slice.D1`: the extents have a value.
impl OpSpec for Slice {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let x = &operands[0];
        let rank = x.rank();
        let mut faults = Faults::default();
        faults.require(self.start.len() == rank && self.stop.len() == rank && self.step.len() == rank, || {
            let (a, b, c) = (self.start.len(), self.stop.len(), self.step.len());
            Fault::new("slice.C1", format!("{rank} dimensions, but {a} starts, {b} stops and {c} steps"))
                .help("give one of each per dimension; `0`, the extent and `1` keep a dimension whole")
        });
        faults.check()?;
        let mut dims = Vec::with_capacity(rank);
        for (i, extent) in x.shape.dims().iter().enumerate() {
            let (start, stop, step) = (self.start[i], &self.stop[i], self.step[i]);
            let within = match (stop.known(), extent.known()) {
                (Some(stop), Some(extent)) => stop <= extent,
                _ => true,
            };
            let range = (0..=LARGEST).contains(&start) && (1..=LARGEST).contains(&step) && within;
            let count = if range { sliced(start, stop, step) } else { Err(DimError::NotASize(String::new())) };
            match count {
                Ok(dim) => dims.push(dim),
                Err(DimError::NotASize(_)) => {
                    faults.require(false, || {
                        let message = format!("dimension {i} of extent {extent} has no {start} : {stop} : {step}");
                        Fault::new("slice.C2", message).help("0 <= start <= stop <= extent, step >= 1")
                    });
                }
                Err(error) => {
                    faults.require(false, || Fault::new("slice.D1", error.to_string()));
                }
            }
        }
        faults.finish(|| smallvec::smallvec![x.with_shape(dims.into_iter().collect::<Shape>())])
    }

    fn body(&self, _: &[TensorType], results: &[TensorType]) -> Body {
        let positions = self.start.iter().zip(&self.step).enumerate();
        map(results, Read::inside(0, positions.map(|(i, (&start, &step))| Affine::new([(i, step)], start))))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let dx = cx.cotangents[0].as_ref().map(|dy| {
            let grad = SliceGrad { ty: cx.operands[0].ty(), start: self.start.clone(), step: self.step.clone() };
            dy.builder().apply(grad, &[dy])
        });
        Gradient::Operands(vec![dx])
    }
}

/// `ceil((stop - start) / step)`.
fn sliced(start: i64, stop: &Dim, step: i64) -> Result<Dim, DimError> {
    let length = stop.offset(-start)?;
    if step == 1 { Ok(length) } else { length.offset(step - 1)?.floor_div(step) }
}

/// 1. `slice_grad.C1`: `dy` has the rank and element type declared, `start` and `step` one entry per dimension.
/// 2. `slice_grad.C2`: the last position, `start + (extent of dy - 1) * step`, is inside; `start >= 0`, `step >= 1`.
impl OpSpec for SliceGrad {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let (dy, x) = (&operands[0], &self.ty);
        let rank = x.rank();
        let mut faults = Faults::default();
        let lengths = dy.rank() == rank && self.start.len() == rank && self.step.len() == rank;
        faults.require(lengths && dy.dtype == x.dtype, || {
            let (a, b) = (self.start.len(), self.step.len());
            Fault::new("slice_grad.C1", format!("`dy` is {dy}, the result {x}, with {a} starts and {b} steps"))
                .help("declare the type of the operand that was sliced")
        });
        faults.check()?;
        for (i, (have, whole)) in dy.shape.dims().iter().zip(x.shape.dims()).enumerate() {
            let (start, step) = (self.start[i], self.step[i]);
            let range = (0..=LARGEST).contains(&start) && (1..=LARGEST).contains(&step);
            let inside = match (have.known(), whole.known()) {
                (Some(have), Some(whole)) => range && last_stop(start, step, have) <= whole as i64,
                _ => range,
            };
            faults.require(inside, || {
                let message = format!("{have} elements from {start} in steps of {step} leave dimension {i} of {whole}");
                Fault::new("slice_grad.C2", message).help("use the attributes of the `slice`")
            });
        }
        faults.finish(|| smallvec::smallvec![x.clone()])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let positions = self.start.iter().zip(&self.step).enumerate();
        let index = positions.map(|(i, (&start, &step))| Affine::new([(i, 1)], -start).divided_by(step));
        map(results, Read::inside(0, index).or(Number::Int(0).to_dtype(operands[0].dtype)))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let ddy = cx.cotangents[0].as_ref().map(|ddx| {
            let extents = cx.operands[0].ty().extents();
            let stops = self.start.iter().zip(&self.step).zip(&extents);
            let stop: Dims = stops
                .map(|((&start, &step), &n)| Dim::from(usize::try_from(last_stop(start, step, n)).unwrap_or(0)))
                .collect();
            ddx.builder().apply(Slice { start: self.start.clone(), stop, step: self.step.clone() }, &[ddx])
        });
        Gradient::Operands(vec![ddy])
    }
}

/// One past the last of `count` positions.
fn last_stop(start: i64, step: i64, count: usize) -> i64 {
    match i64::try_from(count) {
        Ok(0) => start,
        Ok(count) => start.saturating_add((count - 1).saturating_mul(step)).saturating_add(1),
        Err(_) => i64::MAX,
    }
}

/// 1. `pad.C1`: `low` and `high` have one entry per dimension, none negative.
impl OpSpec for Pad {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let x = &operands[0];
        let mut faults = Faults::default();
        let sane = self.low.iter().chain(&self.high).all(|v| (0..=LARGEST).contains(v));
        faults.require(self.low.len() == x.rank() && self.high.len() == x.rank() && sane, || {
            let message = format!("low {:?} and high {:?} do not pad {}", &self.low[..], &self.high[..], x.shape);
            Fault::new("pad.C1", message).help("one number per dimension, at least 0; `slice` takes elements away")
        });
        faults.check()?;
        let sums = x.shape.dims().iter().zip(self.low.iter().zip(&self.high));
        let shape: Result<Shape, _> = sums.map(|(dim, (low, high))| dim.offset(low + high)).collect();
        let shape = shape.map_err(|error| vec![Fault::new("pad.C1", error.to_string())])?;
        Ok(smallvec::smallvec![x.with_shape(shape)])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let index = self.low.iter().enumerate().map(|(i, &low)| Affine::new([(i, 1)], -low));
        map(results, Read::inside(0, index).or(Number::Float(self.value).to_dtype(operands[0].dtype)))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let dx = cx.cotangents[0].as_ref().map(|dy| {
            let extents = cx.operands[0].ty().extents();
            let stop: Dims = self.low.iter().zip(&extents).map(|(&low, &n)| Dim::from(low as usize + n)).collect();
            let step = to_ints(&vec![1; extents.len()]);
            dy.builder().apply(Slice { start: self.low.clone(), stop, step }, &[dy])
        });
        Gradient::Operands(vec![dx])
    }
}

/// 1. `reverse.C1`: `dims` exist and differ.
impl OpSpec for Reverse {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let x = &operands[0];
        if resolve_dims(&self.dims, x.rank()).is_none() {
            let message = format!("{:?} are not different dimensions of {}", &self.dims[..], x.shape);
            return Err(vec![Fault::new("reverse.C1", message).help(format!("`x` has {} dimensions", x.rank()))]);
        }
        Ok(smallvec::smallvec![x.with_shape(x.shape.clone())])
    }

    fn body(&self, _: &[TensorType], results: &[TensorType]) -> Body {
        let extents = results[0].extents();
        let reversed = resolve_dims(&self.dims, extents.len()).unwrap_or_default();
        let index = extents.iter().enumerate().map(|(i, &extent)| {
            if reversed.contains(&i) { Affine::new([(i, -1)], extent as i64 - 1) } else { Affine::dim(i) }
        });
        map(results, Read::inside(0, index))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        Gradient::Operands(vec![cx.cotangents[0].as_ref().map(|dy| dy.builder().apply(self.clone(), &[dy]))])
    }
}
