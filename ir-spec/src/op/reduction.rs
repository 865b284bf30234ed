//! Reductions over whole dimensions.

mod arg;
mod product;

use crate::attribute::Ints;
use crate::body::{Affine, Body, Combine, Map, Monoid, Read};
use crate::op::dims::{other_dims, repeat_along, resolve_dims};
use crate::op::elementwise::Domain;
use crate::op::rules::compose;
use crate::op::{
    Elementwise, Fault, Faults, Gradient, OpSpec, ReduceAnd, ReduceMax, ReduceMean, ReduceMin, ReduceOr, ReduceProd,
    ReduceSum, Types, Vjp,
};
use crate::scalar::ScalarExpr;
use crate::types::{Shape, TensorType};

/// Labels of the constraints and what the op accepts.
struct Rule {
    dims: &'static str,
    dtype: &'static str,
    domain: Domain,
}

impl Rule {
    fn infer(&self, x: &TensorType, dims: &Ints) -> Result<Types, Vec<Fault>> {
        let mut faults = Faults::default();
        let resolved = resolve_dims(dims, x.rank());
        faults.require(resolved.is_some(), || {
            Fault::new(self.dims, format!("{:?} are not different dimensions of {}", &dims[..], x.shape))
                .help(format!("`x` has {} dimensions", x.rank()))
        });
        faults.require(self.domain.accepts(x.dtype), || {
            Fault::new(self.dtype, format!("takes {}, not {}", self.domain.text(), x.dtype)).help("`cast` it")
        });
        faults.finish(|| {
            let kept = other_dims(x.rank(), &resolved.unwrap_or_default());
            let shape: Shape = kept.into_iter().map(|d| x.shape.dims()[d].clone()).collect();
            smallvec::smallvec![x.with_shape(shape)]
        })
    }
}

fn body(x: &TensorType, dims: &Ints, monoid: Monoid) -> Body {
    let extents = x.extents();
    let dims = resolve_dims(dims, x.rank()).unwrap_or_default();
    let kept = other_dims(x.rank(), &dims);
    // The body's dimensions are the kept ones, then the reduced ones, each ascending.
    let mut reduced = dims;
    reduced.sort_unstable();
    let order: Vec<usize> = kept.iter().chain(&reduced).copied().collect();
    let index = crate::op::dims::inverse(&order).into_iter().map(Affine::dim);
    Body::Map(Map {
        parallel: kept.iter().map(|&d| extents[d]).collect(),
        reduce: reduced.iter().map(|&d| extents[d]).collect(),
        reads: vec![Read::inside(0, index)],
        exprs: vec![ScalarExpr::read(0, x.dtype)],
        combine: Combine::Each(monoid),
    })
}

macro_rules! reductions {
    ($($(#[doc = $doc:literal])+ $op:ident $mnemonic:literal $domain:ident $monoid:ident $vjp:path;)*) => {
        $(
            $(#[doc = $doc])+
            impl OpSpec for $op {
                fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
                    let (dims, dtype) = (concat!($mnemonic, ".C1"), concat!($mnemonic, ".C2"));
                    Rule { dims, dtype, domain: Domain::$domain }.infer(&operands[0], &self.dims)
                }

                fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
                    body(&operands[0], &self.dims, Monoid::$monoid)
                }

                fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
                    let dims = resolve_dims(&self.dims, cx.operands[0].rank()).unwrap_or_default();
                    $vjp(cx, &dims)
                }
            }
        )*
    };
}

reductions! {
    /// 1. `reduce_sum.C1`: `dims` exist and differ.
    /// 2. `reduce_sum.C2`: `x` is a float or integer tensor.
    ReduceSum "reduce_sum" Numeric Sum sum_vjp;
    /// 1. `reduce_prod.C1`: `dims` exist and differ.
    /// 2. `reduce_prod.C2`: `x` is a float or integer tensor.
    ///
    /// The gradient is exact where elements are 0, and so are its own gradients.
    ReduceProd "reduce_prod" Numeric Prod product::vjp;
    /// 1. `reduce_max.C1`: `dims` exist and differ.
    /// 2. `reduce_max.C2`: `x` is a float or integer tensor.
    ///
    /// Where several elements are largest they share the cotangent equally.
    ReduceMax "reduce_max" Numeric Max extremum_vjp;
    /// 1. `reduce_min.C1`: `dims` exist and differ.
    /// 2. `reduce_min.C2`: `x` is a float or integer tensor.
    ///
    /// Where several elements are smallest they share the cotangent equally.
    ReduceMin "reduce_min" Numeric Min extremum_vjp;
    /// 1. `reduce_and.C1`: `dims` exist and differ.
    /// 2. `reduce_and.C2`: `x` is an integer or bool tensor.
    ReduceAnd "reduce_and" Bits And no_vjp;
    /// 1. `reduce_or.C1`: `dims` exist and differ.
    /// 2. `reduce_or.C2`: `x` is an integer or bool tensor.
    ReduceOr "reduce_or" Bits Or no_vjp;
}

fn sum_vjp(cx: &Vjp<'_>, dims: &[usize]) -> Gradient {
    Gradient::Operands(vec![cx.cotangents[0].as_ref().map(|dy| repeat_along(dy, &cx.operands[0], dims))])
}

fn extremum_vjp(cx: &Vjp<'_>, dims: &[usize]) -> Gradient {
    let (x, y) = (&cx.operands[0], &cx.results[0]);
    let dx = cx.cotangents[0].as_ref().map(|dy| {
        let hit = x.elementwise(Elementwise::Eq, &[&repeat_along(y, x, dims)]);
        let share = dy / &hit.cast(dy.dtype()).sum(dims);
        let share = repeat_along(&share, x, dims);
        hit.elementwise(Elementwise::Select, &[&share, &share.full_like(0.0)])
    });
    Gradient::Operands(vec![dx])
}

fn no_vjp(_: &Vjp<'_>, _: &[usize]) -> Gradient {
    Gradient::NonDifferentiable("not a function of reals")
}

impl ReduceMean {
    /// Number of elements that one mean takes from `x`.
    fn count(&self, x: &TensorType) -> f64 {
        let dims = resolve_dims(&self.dims, x.rank()).unwrap_or_default();
        let extents = x.extents();
        dims.iter().map(|&d| extents[d]).product::<usize>() as f64
    }
}

/// 1. `reduce_mean.C1`: `dims` exist and differ.
/// 2. `reduce_mean.C2`: `x` is a float tensor.
///
/// The mean of nothing is NaN. The sum is divided: a rounded reciprocal would make the mean of equal elements another
/// number, which a normalisation blows up.
impl OpSpec for ReduceMean {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let rule = Rule { dims: "reduce_mean.C1", dtype: "reduce_mean.C2", domain: Domain::Float };
        rule.infer(&operands[0], &self.dims)
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["x"], operands, |operands| {
            let x = &operands[0];
            let sum = x.builder().apply(ReduceSum { dims: self.dims.clone() }, &[x]);
            vec![&sum / self.count(&x.ty())]
        })
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let x = &cx.operands[0];
        let dims = resolve_dims(&self.dims, x.rank()).unwrap_or_default();
        // A product here, since it may stand in a loop over the elements.
        let share = 1.0 / self.count(&x.ty());
        let dx = cx.cotangents[0].as_ref().map(|dy| repeat_along(&(dy * share), x, &dims));
        Gradient::Operands(vec![dx])
    }
}
