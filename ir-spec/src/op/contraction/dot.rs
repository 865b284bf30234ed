//! `dot`: the general contraction.

use crate::attribute::Ints;
use crate::body::{Affine, Body, Combine, Map, Monoid, Read};
use crate::builder::to_ints;
use crate::op::dims::{inverse, other_dims, permuted, resolve_dims};
use crate::op::{Dot, Fault, Faults, Gradient, OpSpec, Types, Vjp};
use crate::scalar::ScalarExpr;
use crate::types::{DType, Dim, Extents, TensorType};

/// Dimensions of one operand by role.
struct Roles {
    batch: Vec<usize>,
    free: Vec<usize>,
    contract: Vec<usize>,
}

impl Roles {
    /// `None` if a dimension does not exist or stands twice.
    fn new(rank: usize, batch: &Ints, contract: &Ints) -> Option<Roles> {
        let named: Ints = batch.iter().chain(contract).copied().collect();
        let named = resolve_dims(&named, rank)?;
        let (batch, contract) = named.split_at(batch.len());
        Some(Roles { batch: batch.to_vec(), free: other_dims(rank, &named), contract: contract.to_vec() })
    }

    /// Index of a read: the body's dimension for each of the operand's; `free` and `reduce` are the first body
    /// dimensions of the free and contracted ones.
    fn index(&self, free: usize, reduce: usize) -> Vec<Affine> {
        let starts = [(&self.batch, 0), (&self.free, free), (&self.contract, reduce)];
        let mut pairs: Vec<(usize, usize)> = starts
            .into_iter()
            .flat_map(|(dims, start)| dims.iter().enumerate().map(move |(i, &dim)| (dim, start + i)))
            .collect();
        pairs.sort_unstable();
        pairs.into_iter().map(|(_, body)| Affine::dim(body)).collect()
    }
}

impl Dot {
    fn roles(&self, a: usize, b: usize) -> Option<(Roles, Roles)> {
        Some((Roles::new(a, &self.a_batch, &self.a_contract)?, Roles::new(b, &self.b_batch, &self.b_contract)?))
    }
}

/// 1. `dot.C1`: the operands have one element type, not bool.
/// 2. `dot.C2`: `a_batch` pairs with `b_batch` and `a_contract` with `b_contract`, one to one.
/// 3. `dot.C3`: the dimensions exist and none is named twice.
/// 4. `dot.C4`: paired dimensions have equal extents.
impl OpSpec for Dot {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let (a, b) = (&operands[0], &operands[1]);
        let mut faults = Faults::default();
        faults.require(a.dtype == b.dtype && a.dtype != DType::Bool, || {
            Fault::new("dot.C1", format!("the operands have element types {} and {}", a.dtype, b.dtype))
                .help("`cast` one of them; bool has no products")
        });
        let paired = self.a_batch.len() == self.b_batch.len() && self.a_contract.len() == self.b_contract.len();
        faults.require(paired, || {
            let message = format!(
                "{} and {} batch dimensions, {} and {} contracted dimensions do not pair up",
                self.a_batch.len(),
                self.b_batch.len(),
                self.a_contract.len(),
                self.b_contract.len()
            );
            Fault::new("dot.C2", message).help("give `a_*` and `b_*` lists of equal length")
        });
        let roles = self.roles(a.rank(), b.rank());
        faults.require(roles.is_some(), || {
            Fault::new("dot.C3", format!("a dimension is named twice or not in {} and {}", a.shape, b.shape))
                .help("each dimension of an operand is batch, contracted or free")
        });
        faults.check()?;
        let Some((ra, rb)) = roles else { return faults.finish(Types::new) };
        let (dims_a, dims_b) = (a.shape.dims(), b.shape.dims());
        for (kind, left, right) in [("batch", &ra.batch, &rb.batch), ("contracted", &ra.contract, &rb.contract)] {
            for (&i, &j) in left.iter().zip(right) {
                faults.require(dims_a[i] == dims_b[j], || {
                    let message = format!(
                        "{kind} dimension {i} of `a` is {}, but dimension {j} of `b` is {}",
                        dims_a[i], dims_b[j]
                    );
                    Fault::new("dot.C4", message).help("transpose an operand, or pair other dimensions")
                });
            }
        }
        let pick = |dims: &[Dim], which: &[usize]| which.iter().map(|&d| dims[d].clone()).collect::<Vec<_>>();
        faults.finish(|| {
            let dims = [pick(dims_a, &ra.batch), pick(dims_a, &ra.free), pick(dims_b, &rb.free)].concat();
            smallvec::smallvec![TensorType::new(a.dtype, dims.into_iter().collect::<crate::types::Shape>())]
        })
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let Some((ra, rb)) = self.roles(operands[0].rank(), operands[1].rank()) else { return Body::Expanded };
        let parallel = results[0].extents();
        let extents = operands[0].extents();
        let reduce: Extents = ra.contract.iter().map(|&d| extents[d]).collect();
        let free_a = ra.batch.len();
        let free_b = free_a + ra.free.len();
        let dtype = operands[0].dtype;
        Body::Map(Map {
            reads: vec![
                Read::inside(0, ra.index(free_a, parallel.len())),
                Read::inside(1, rb.index(free_b, parallel.len())),
            ],
            parallel,
            reduce,
            exprs: vec![ScalarExpr::read(0, dtype) * ScalarExpr::read(1, dtype)],
            combine: Combine::Each(Monoid::Sum),
        })
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let (a, b) = (&cx.operands[0], &cx.operands[1]);
        let (Some(dy), Some((ra, rb))) = (&cx.cotangents[0], self.roles(a.rank(), b.rank())) else {
            return Gradient::Operands(vec![None, None]);
        };
        let batch: Vec<usize> = (0..ra.batch.len()).collect();
        let free_a: Vec<usize> = (batch.len()..batch.len() + ra.free.len()).collect();
        let free_b: Vec<usize> = (batch.len() + ra.free.len()..dy.rank()).collect();
        let da = Dot {
            a_contract: to_ints(&free_b),
            b_contract: to_ints(&rb.free),
            a_batch: to_ints(&batch),
            b_batch: to_ints(&rb.batch),
        };
        let db = Dot {
            a_contract: to_ints(&ra.free),
            b_contract: to_ints(&free_a),
            a_batch: to_ints(&ra.batch),
            b_batch: to_ints(&batch),
        };
        // The dimensions of `a` and `b` in the order in which the products have them.
        let order_a = [&*ra.batch, &*ra.free, &*paired_ascending(&rb.contract, &ra.contract)].concat();
        let order_b = [&*rb.batch, &*paired_ascending(&ra.contract, &rb.contract), &*rb.free].concat();
        let da = dy.builder().apply(da, &[dy, b]);
        let db = dy.builder().apply(db, &[a, dy]);
        Gradient::Operands(vec![Some(permuted(&da, &inverse(&order_a))), Some(permuted(&db, &inverse(&order_b)))])
    }
}

/// The partners of `keys` in ascending order of `keys`.
fn paired_ascending(keys: &[usize], partners: &[usize]) -> Vec<usize> {
    let mut pairs: Vec<(usize, usize)> = keys.iter().copied().zip(partners.iter().copied()).collect();
    pairs.sort_unstable();
    pairs.into_iter().map(|(_, partner)| partner).collect()
}
