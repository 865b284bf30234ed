//! Ops that read or write where integers say.
//!
//! Indices count from 0; one that is negative or too large is an error when the program runs.

use crate::body::{Affine, Body, IndexExpr, Map, Monoid, Read, Scatter};
use crate::op::dims::{positions, repeat_along};
use crate::op::{Elementwise, Fault, Faults, Gather, Gradient, OpSpec, ScatterAdd, TakeAlong, Types, Vjp};
use crate::scalar::ScalarExpr;
use crate::types::{DType, Dim, Shape, TensorType};

fn require_index(faults: &mut Faults, label: &'static str, index: &TensorType) {
    faults.require(matches!(index.dtype, DType::I32 | DType::I64), || {
        Fault::new(label, format!("indices are {}", index.dtype)).help("`cast` them to i32 or i64")
    });
}

/// `[V, rest...]` and `[I...]` to `[I..., rest...]`.
fn gathered(x: &TensorType, index: &TensorType) -> Shape {
    index.shape.dims().iter().chain(x.shape.dims().iter().skip(1)).cloned().collect()
}

/// Position in `[V, rest...]` of a body over `[I..., rest...]`: the row comes from operand 1.
fn row_index(index_rank: usize, rank: usize) -> impl Iterator<Item = IndexExpr> {
    let row = IndexExpr::Load { operand: 1, index: (0..index_rank).map(Affine::dim).collect() };
    let rest = (index_rank..index_rank + rank - 1).map(|d| IndexExpr::Affine(Affine::dim(d)));
    std::iter::once(row).chain(rest)
}

/// 1. `gather.C1`: `x` has at least one dimension.
/// 2. `gather.C2`: indices are i32 or i64.
impl OpSpec for Gather {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let (x, index) = (&operands[0], &operands[1]);
        let mut faults = Faults::default();
        faults.require(x.rank() >= 1, || {
            Fault::new("gather.C1", "`x` is a scalar").help("x: [V, rest...] has rows to gather")
        });
        require_index(&mut faults, "gather.C2", index);
        faults.finish(|| smallvec::smallvec![x.with_shape(gathered(x, index))])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let index = row_index(operands[1].rank(), operands[0].rank()).collect();
        let read = Read { operand: 0, view: None, index, outside: None };
        Body::Map(Map::movement(&results[0].extents(), results[0].dtype, read))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let (x, index) = (&cx.operands[0], &cx.operands[1]);
        let dx = cx.cotangents[0].as_ref().map(|dy| dy.builder().apply(ScatterAdd {}, &[&x.full_like(0.0), index, dy]));
        Gradient::Operands(vec![dx, None])
    }
}

/// 1. `scatter_add.C1`: `x` has at least one dimension, and `updates` have the shape `[I..., rest...]` of the gathered rows.
/// 2. `scatter_add.C2`: indices are i32 or i64.
/// 3. `scatter_add.C3`: `x` and `updates` have one element type, not bool.
impl OpSpec for ScatterAdd {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let (x, index, updates) = (&operands[0], &operands[1], &operands[2]);
        let mut faults = Faults::default();
        faults.require(x.rank() >= 1 && gathered(x, index) == updates.shape, || {
            let message = format!("rows of {} at {} do not have the shape {}", x.shape, index.shape, updates.shape);
            Fault::new("scatter_add.C1", message).help("x: [V, rest...], index: [I...], updates: [I..., rest...]")
        });
        require_index(&mut faults, "scatter_add.C2", index);
        faults.require(x.dtype == updates.dtype && x.dtype != DType::Bool, || {
            Fault::new("scatter_add.C3", format!("`x` is {} and `updates` are {}", x.dtype, updates.dtype))
                .help("`cast` one of them; bool has no sum")
        });
        faults.finish(|| smallvec::smallvec![x.with_shape(x.shape.clone())])
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        let (x, index, updates) = (&operands[0], &operands[1], &operands[2]);
        Body::Scatter(Scatter {
            domain: updates.extents(),
            initial: 0,
            target: row_index(index.rank(), x.rank()).collect(),
            reads: vec![Read::identity(2, updates.rank())],
            expr: ScalarExpr::read(0, updates.dtype),
            monoid: Monoid::Sum,
        })
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let Some(dy) = &cx.cotangents[0] else { return Gradient::Operands(vec![None; 3]) };
        let updates = dy.builder().apply(Gather {}, &[dy, &cx.operands[1]]);
        Gradient::Operands(vec![Some(dy.clone()), None, Some(updates)])
    }
}

/// 1. `take_along.C1`: `index` has the shape of `x` without its last dimension.
/// 2. `take_along.C2`: indices are i32 or i64.
impl OpSpec for TakeAlong {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let (x, index) = (&operands[0], &operands[1]);
        let rows: Option<&[Dim]> = x.shape.dims().split_last().map(|(_, rows)| rows);
        let mut faults = Faults::default();
        faults.require(rows == Some(index.shape.dims()), || {
            let message = format!("indices {} do not pick one element of each row of {}", index.shape, x.shape);
            Fault::new("take_along.C1", message).help("x: [I..., V], index: [I...]")
        });
        require_index(&mut faults, "take_along.C2", index);
        faults.finish(|| smallvec::smallvec![x.with_shape(index.shape.clone())])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let rank = operands[1].rank();
        let rows = (0..rank).map(|d| IndexExpr::Affine(Affine::dim(d)));
        let column = IndexExpr::Load { operand: 1, index: (0..rank).map(Affine::dim).collect() };
        let read = Read { operand: 0, view: None, index: rows.chain([column]).collect(), outside: None };
        Body::Map(Map::movement(&results[0].extents(), results[0].dtype, read))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let (x, index) = (&cx.operands[0], &cx.operands[1]);
        let dx = cx.cotangents[0].as_ref().map(|dy| {
            let last = x.rank() - 1;
            let index = repeat_along(&index.cast(DType::I64), x, &[last]);
            let hit = positions(x, last).elementwise(Elementwise::Eq, &[&index]);
            let dy = repeat_along(dy, x, &[last]);
            hit.elementwise(Elementwise::Select, &[&dy, &dy.full_like(0.0)])
        });
        Gradient::Operands(vec![dx, None])
    }
}
