//! Ops whose result type is declared: `cast`, `reshape`, `broadcast`, `relayout`.

use super::map;
use crate::body::{Affine, Body, Map, Read};
use crate::op::dims::{element_count, other_dims, permuted, resolve_dims};
use crate::op::{Broadcast, Cast, Fault, Faults, Gradient, OpSpec, Relayout, Reshape, Types, Vjp};
use crate::scalar::ScalarExpr;
use crate::types::TensorType;

/// 1. `cast.C1`: the declared shape is that of `x`.
impl OpSpec for Cast {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let mut faults = Faults::default();
        faults.require(self.ty.shape == operands[0].shape, || {
            Fault::new("cast.C1", format!("`x` is {}, the result is declared {}", operands[0], self.ty))
                .help("a cast keeps the shape; `reshape` or `broadcast` change it")
        });
        faults.finish(|| smallvec::smallvec![self.ty.clone()])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let value = ScalarExpr::read(0, operands[0].dtype).cast(results[0].dtype);
        Body::Map(Map::elementwise(&results[0].extents(), 1, vec![value]))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let x = cx.operands[0].dtype();
        if !x.is_float() || !self.ty.dtype.is_float() {
            return Gradient::NonDifferentiable("a cast from or to integers or bool is constant almost everywhere");
        }
        Gradient::Operands(vec![cx.cotangents[0].as_ref().map(|dy| dy.cast(x))])
    }
}

/// 1. `reshape.C1`: the declared element type is that of `x`.
/// 2. `reshape.C2`: the declared shape has as many elements as `x`.
impl OpSpec for Reshape {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let x = &operands[0];
        let mut faults = Faults::default();
        same_dtype(&mut faults, "reshape.C1", x, &self.ty);
        let (have, want) = (element_count(x), element_count(&self.ty));
        faults.require(have.is_ok() && have == want, || {
            let text = |count: Result<crate::types::Dim, _>| count.map_or("?".to_owned(), |n| n.to_string());
            let message =
                format!("{} has {} elements, {} would have {}", x.shape, text(have), self.ty.shape, text(want));
            Fault::new("reshape.C2", message).help("a reshape keeps the number of elements")
        });
        faults.finish(|| smallvec::smallvec![self.ty.clone()])
    }

    fn body(&self, _: &[TensorType], results: &[TensorType]) -> Body {
        let extents = results[0].extents();
        map(results, Read::identity(0, extents.len()).viewed(&extents))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        Gradient::Operands(vec![cx.cotangents[0].as_ref().map(|dy| dy.reshape(cx.operands[0].shape()))])
    }
}

fn same_dtype(faults: &mut Faults, label: &'static str, x: &TensorType, declared: &TensorType) {
    faults.require(x.dtype == declared.dtype, || {
        Fault::new(label, format!("`x` has elements of {}, the result is declared {declared}", x.dtype))
            .help("`cast` changes the element type")
    });
}

/// 1. `broadcast.C1`: the declared element type is that of `x`.
/// 2. `broadcast.C2`: `dims` gives every dimension of `x` a different dimension of the result.
/// 3. `broadcast.C3`: each extent of `x` is that of its dimension in the result, or 1.
impl OpSpec for Broadcast {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let x = &operands[0];
        let mut faults = Faults::default();
        same_dtype(&mut faults, "broadcast.C1", x, &self.ty);
        let dims = resolve_dims(&self.dims, self.ty.rank()).filter(|dims| dims.len() == x.rank());
        faults.require(dims.is_some(), || {
            let message = format!("dims {:?} do not place {} in {}", &self.dims[..], x.shape, self.ty.shape);
            Fault::new("broadcast.C2", message).help("one different dimension of the result per dimension of `x`")
        });
        for (i, &dim) in dims.iter().flatten().enumerate() {
            let (own, target) = (&x.shape.dims()[i], &self.ty.shape.dims()[dim]);
            faults.require(own == target || own.known() == Some(1), || {
                let message = format!("dimension {i} of `x` is {own}, dimension {dim} of the result is {target}");
                Fault::new("broadcast.C3", message).help("only extents of 1 repeat")
            });
        }
        faults.finish(|| smallvec::smallvec![self.ty.clone()])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let dims = resolve_dims(&self.dims, results[0].rank()).unwrap_or_default();
        let extents = operands[0].extents();
        let index = dims.into_iter().zip(&extents).map(|(dim, &extent)| match extent {
            1 => Affine::constant(0),
            _ => Affine::dim(dim),
        });
        map(results, Read::inside(0, index))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let x = &cx.operands[0];
        let dx = cx.cotangents[0].as_ref().map(|dy| {
            let dims = resolve_dims(&self.dims, dy.rank()).unwrap_or_default();
            let (own, target) = (x.ty().extents(), dy.ty().extents());
            // Dimensions of the result that stand for one of `x` element by element, in the order of `x`.
            let kept: Vec<usize> = dims.iter().zip(&own).filter(|&(&d, &n)| n == target[d]).map(|(&d, _)| d).collect();
            let summed = other_dims(dy.rank(), &kept);
            let sum = if summed.is_empty() { dy.clone() } else { dy.sum(&summed) };
            let ordered = permuted(&sum, &ranks(&kept));
            if ordered.shape() == x.shape() { ordered } else { ordered.reshape(x.shape()) }
        });
        Gradient::Operands(vec![dx])
    }
}

/// The place of each dimension among all of them, ascending.
fn ranks(dims: &[usize]) -> Vec<usize> {
    dims.iter().map(|d| dims.iter().filter(|other| *other < d).count()).collect()
}

/// 1. `relayout.C1`: the declared element type and shape are those of `x`.
impl OpSpec for Relayout {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let x = &operands[0];
        let mut faults = Faults::default();
        faults.require(self.ty.shape == x.shape && self.ty.dtype == x.dtype, || {
            Fault::new("relayout.C1", format!("`x` is {x}, the result is declared {}", self.ty))
                .help("only the layout may differ")
        });
        faults.finish(|| smallvec::smallvec![self.ty.clone()])
    }

    fn body(&self, _: &[TensorType], results: &[TensorType]) -> Body {
        map(results, Read::identity(0, results[0].rank()))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let ty = cx.operands[0].ty();
        Gradient::Operands(vec![cx.cotangents[0].as_ref().map(|dy| dy.builder().apply(Relayout { ty }, &[dy]))])
    }
}
