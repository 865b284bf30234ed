//! `concat`.

use crate::body::{Affine, Body, Combine, Map, Read};
use crate::op::dims::slice_dim;
use crate::op::rules::dimension;
use crate::op::{Concat, Fault, Faults, Gradient, OpSpec, Types, Vjp};
use crate::scalar::{Number, ScalarExpr, lt};
use crate::types::{DType, Dim, Extents, Shape, TensorType};

/// 1. `concat.C1`: there is an operand, and `dim` is one of its dimensions.
/// 2. `concat.C2`: the operands agree in element type and in every extent but that of `dim`.
impl OpSpec for Concat {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let Some((first, dim)) = operands.first().and_then(|x| Some((x, dimension(self.dim, x.rank())?))) else {
            let of = operands.first().map_or("no operands".to_owned(), |x| format!("operands like {x}"));
            return Err(vec![
                Fault::new("concat.C1", format!("{of} have no dimension {}", self.dim))
                    .help("give `dim` within the rank, and at least one operand"),
            ]);
        };
        let mut faults = Faults::default();
        let mut total = Dim::from(0);
        for (number, x) in operands.iter().enumerate() {
            let others = |i: usize| i == dim || x.shape.dims()[i] == first.shape.dims()[i];
            let agrees = x.dtype == first.dtype && x.rank() == first.rank() && (0..x.rank()).all(others);
            let agrees = faults.require(agrees, || {
                Fault::new("concat.C2", format!("operand {number} is {x}, the first is {first}"))
                    .help(format!("only extents of dimension {dim} may differ"))
            });
            if agrees {
                match total.add(&x.shape.dims()[dim]) {
                    Ok(sum) => total = sum,
                    Err(error) => drop(faults.require(false, || Fault::new("concat.C2", error.to_string()))),
                }
            }
        }
        faults.finish(|| {
            let dims = first.shape.dims().iter().enumerate();
            let shape: Shape = dims.map(|(i, d)| if i == dim { total.clone() } else { d.clone() }).collect();
            smallvec::smallvec![first.with_shape(shape)]
        })
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let parallel = results[0].extents();
        let dtype = results[0].dtype;
        let dim = dimension(self.dim, parallel.len()).unwrap_or(0);
        let starts = starts(operands, dim);
        let reads = starts.iter().enumerate().map(|(operand, &start)| {
            let index = (0..parallel.len()).map(|i| Affine::new([(i, 1)], if i == dim { -start } else { 0 }));
            Read::inside(operand, index).or(Number::Int(0).to_dtype(dtype))
        });
        let reads: Vec<Read> = reads.collect();
        // From the last operand to the first: `position < start of the next ? this : the rest`.
        let last = ScalarExpr::read(operands.len() - 1, dtype);
        let expr = (0..operands.len() - 1).rev().fold(last, |rest, operand| {
            let next = ScalarExpr::literal(Number::Int(starts[operand + 1]), DType::I64);
            lt(ScalarExpr::index(dim), next).select(ScalarExpr::read(operand, dtype), rest)
        });
        Body::Map(Map { parallel, reduce: Extents::new(), reads, exprs: vec![expr], combine: Combine::None })
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let types: Vec<TensorType> = cx.operands.iter().map(|x| x.ty()).collect();
        let (Some(dy), Some(dim)) = (&cx.cotangents[0], dimension(self.dim, types[0].rank())) else {
            return Gradient::Operands(vec![None; cx.operands.len()]);
        };
        let parts = starts(&types, dim).into_iter().zip(&types);
        let slices = parts.map(|(start, ty)| Some(slice_dim(dy, dim, start, start as usize + ty.extents()[dim])));
        Gradient::Operands(slices.collect())
    }
}

/// Where each operand begins along `dim`.
fn starts(operands: &[TensorType], dim: usize) -> Vec<i64> {
    operands
        .iter()
        .scan(0i64, |next, x| {
            let start = *next;
            *next += x.extents()[dim] as i64;
            Some(start)
        })
        .collect()
}
