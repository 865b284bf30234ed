//! Largest and smallest elements with their index.

use crate::body::{Affine, Body, Combine, Map, Read};
use crate::op::dims::{other_dims, positions, repeat_along};
use crate::op::rules::dimension;
use crate::op::{ArgMax, ArgMin, Elementwise, Fault, Faults, Gradient, OpSpec, Types, Vjp};
use crate::scalar::ScalarExpr;
use crate::types::{DType, Shape, TensorType};

fn infer(x: &TensorType, dim: i64, labels: [&'static str; 3]) -> Result<Types, Vec<Fault>> {
    let [exists, dtype, empty] = labels;
    let mut faults = Faults::default();
    let resolved = dimension(dim, x.rank());
    faults.require(resolved.is_some(), || {
        Fault::new(exists, format!("{} has no dimension {dim}", x.shape))
            .help(format!("`x` has {} dimensions", x.rank()))
    });
    faults.require(x.dtype != DType::Bool, || {
        Fault::new(dtype, "takes a float or integer type, not bool").help("`cast` it")
    });
    faults.check()?;
    let dim = resolved.unwrap_or(0);
    faults.require(x.shape.dims()[dim].known() != Some(0), || {
        Fault::new(empty, format!("dimension {dim} of {} is empty", x.shape)).help("there is no element to name")
    });
    faults.finish(|| {
        let kept = other_dims(x.rank(), &[dim]).into_iter();
        let y = x.with_shape(kept.map(|d| x.shape.dims()[d].clone()).collect::<Shape>());
        let index = y.with_dtype(DType::I64);
        smallvec::smallvec![y, index]
    })
}

fn body(x: &TensorType, dim: i64, combine: Combine) -> Body {
    let mut parallel = x.extents();
    let dim = dimension(dim, x.rank()).unwrap_or(0);
    let extent = parallel.remove(dim);
    let last = parallel.len();
    let index = (0..x.rank()).map(|d| match d.cmp(&dim) {
        std::cmp::Ordering::Less => Affine::dim(d),
        std::cmp::Ordering::Equal => Affine::dim(last),
        std::cmp::Ordering::Greater => Affine::dim(d - 1),
    });
    Body::Map(Map {
        reads: vec![Read::inside(0, index)],
        exprs: vec![ScalarExpr::read(0, x.dtype), ScalarExpr::index(last)],
        reduce: smallvec::smallvec![extent],
        combine,
        parallel,
    })
}

/// The cotangent of the value goes to the element at the index.
fn vjp(cx: &Vjp<'_>, dim: i64) -> Gradient {
    let x = &cx.operands[0];
    let dim = dimension(dim, x.rank()).unwrap_or(0);
    let dx = cx.cotangents[0].as_ref().map(|dy| {
        let index = repeat_along(&cx.results[1], x, &[dim]);
        let hit = positions(x, dim).elementwise(Elementwise::Eq, &[&index]);
        let dy = repeat_along(dy, x, &[dim]);
        hit.elementwise(Elementwise::Select, &[&dy, &dy.full_like(0.0)])
    });
    Gradient::Operands(vec![dx])
}

macro_rules! arg {
    ($($(#[doc = $doc:literal])+ $op:ident $mnemonic:literal;)*) => {
        $(
            $(#[doc = $doc])+
            impl OpSpec for $op {
                fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
                    let labels = [concat!($mnemonic, ".C1"), concat!($mnemonic, ".C2"), concat!($mnemonic, ".C3")];
                    infer(&operands[0], self.dim, labels)
                }

                fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
                    body(&operands[0], self.dim, Combine::$op)
                }

                fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
                    vjp(cx, self.dim)
                }
            }
        )*
    };
}

arg! {
    /// 1. `arg_max.C1`: `dim` is a dimension of `x`.
    /// 2. `arg_max.C2`: `x` is a float or integer tensor.
    /// 3. `arg_max.C3`: the dimension is not empty.
    ArgMax "arg_max";
    /// 1. `arg_min.C1`: `dim` is a dimension of `x`.
    /// 2. `arg_min.C2`: `x` is a float or integer tensor.
    /// 3. `arg_min.C3`: the dimension is not empty.
    ArgMin "arg_min";
}
