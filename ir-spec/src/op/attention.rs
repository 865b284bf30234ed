//! Scaled dot-product attention (Vaswani et al., NeurIPS 2017) and its gradient.
//!
//! Forward and backward are one op each, so that a kernel for the whole can take their place by name. The backward keeps
//! `log_sum`, a number per row, and computes the S x T matrix of weights again (Dao et al., NeurIPS 2022).

use crate::attribute::Ints;
use crate::body::Body;
use crate::builder::{Tensor, to_ints};
use crate::op::rules::compose;
use crate::op::{Dot, Elementwise, Fault, Faults, Gradient, Iota, OpSpec, Types, Vjp};
use crate::types::{DType, Shape, TensorType};

/// Dimensions that queries and keys share: N and H.
const BATCH: [usize; 2] = [0, 1];
/// Queries or keys, in whatever has a row for each.
const ROW: usize = 2;
/// Features, or the other of queries and keys.
const COLUMN: usize = 3;

/// 1. `attention.C1`: `q: [N, H, S, D]` is of a float type and has 4 dimensions.
/// 2. `attention.C2`: `k` is `[N, H, T, D]` and `v` is `[N, H, T, E]`, of the element type of `q`.
/// 3. `attention.C3`: `causal` asks for as many keys as queries, `S = T`.
/// 4. `attention.C4`: `scale` is finite.
///
/// A row of weights is `e^(s - max s) / sum e^(s - max s)`, so no exponential overflows; the division comes after the
/// product with `v`, which has D elements per row instead of T. With `causal`, `s` is -inf where a key stands behind its
/// query. Where S differs from T there are two conventions for that, from the first key or from the last: hence C3.
impl OpSpec for super::Attention {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let mut faults = Faults::default();
        infer_operands(&mut faults, operands, self.scale, self.causal)?;
        let (y, rows) = result_types(operands);
        faults.finish(|| smallvec::smallvec![y, rows])
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["q", "k", "v"], operands, |params| {
            let [q, k, v] = params else { return Vec::new() };
            let scores = &product(q, k, COLUMN, COLUMN) * self.scale;
            let scores = masked(&scores, self.causal, COLUMN);
            let largest = scores.max_over(&[COLUMN]);
            let powers = (&scores - &along_rows(&largest, &scores)).exp();
            let sum = powers.sum(&[COLUMN]);
            let mixed = product(&powers, v, COLUMN, ROW);
            vec![&mixed / &along_rows(&sum, &mixed), &largest + &sum.log()]
        })
    }

    /// `attention_grad`; where a loss depends on `log_sum` itself, the decomposition is derived.
    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let Some(dy) = &cx.cotangents[0] else { return Gradient::Decompose };
        if cx.cotangents[1].is_some() {
            return Gradient::Decompose;
        }
        let [q, k, v] = cx.operands else { return Gradient::Decompose };
        let op = super::AttentionGrad { scale: self.scale, causal: self.causal };
        let gradients = dy.builder().apply_all(op, &[q, k, v, &cx.results[0], &cx.results[1], dy], &[]);
        Gradient::Operands(gradients.into_iter().map(Some).collect())
    }
}

/// 1. `attention_grad.C1`: `y` and `dy` have the type of the result of `attention`, `log_sum` has that of its rows.
///
/// Constraints as `attention`, of `q`, `k`, `v` and attributes. With the weights `p = e^(s - log_sum)`: `dv = p' dy`, and
/// `ds = p * (dy v' - sum(dy * y))`, from which `dq = scale * ds k` and `dk = scale * ds' q`. Matrices are computed as their
/// transposes, with a row per key.
impl OpSpec for super::AttentionGrad {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let mut faults = Faults::default();
        infer_operands(&mut faults, &operands[..3], self.scale, self.causal)?;
        let (y, rows) = result_types(operands);
        faults.same("attention_grad.C1", "y", &operands[3], &y);
        faults.same("attention_grad.C1", "log_sum", &operands[4], &rows);
        faults.same("attention_grad.C1", "dy", &operands[5], &y);
        faults.finish(|| operands[..3].iter().cloned().collect())
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["q", "k", "v", "y", "log_sum", "dy"], operands, |params| {
            let [q, k, v, y, log_sum, dy] = params else { return Vec::new() };
            // A row per key: as the forward has it, `eliminate_common` would keep the forward's product until here.
            let scores = &product(k, q, COLUMN, COLUMN) * self.scale;
            let scores = masked(&scores, self.causal, ROW);
            let weights = (&scores - &along_columns(log_sum, &scores)).exp();
            let slope = (dy * y).sum(&[COLUMN]);
            let dweights = product(v, dy, COLUMN, COLUMN);
            let dscores = &weights * &(&dweights - &along_columns(&slope, &dweights));
            let dq = &product(&dscores, k, ROW, ROW) * self.scale;
            let dk = &product(&dscores, q, COLUMN, ROW) * self.scale;
            vec![dq, dk, product(&weights, dy, COLUMN, ROW)]
        })
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::Decompose
    }
}

/// The product of the matrices of each head, over dimension `i` of `a` and `j` of `b`.
fn product(a: &Tensor, b: &Tensor, i: usize, j: usize) -> Tensor {
    let op = Dot {
        a_contract: Ints::from_slice(&[i as i64]),
        b_contract: Ints::from_slice(&[j as i64]),
        a_batch: to_ints(&BATCH),
        b_batch: to_ints(&BATCH),
    };
    a.builder().apply(op, &[a, b])
}

/// A number per row, `[N, H, S]`, repeated along the rows of `like`.
fn along_rows(x: &Tensor, like: &Tensor) -> Tensor {
    x.broadcast(like.shape(), &[0, 1, ROW])
}

/// A number per query, `[N, H, S]`, repeated along the columns of `like: [N, H, T, S]`.
fn along_columns(x: &Tensor, like: &Tensor) -> Tensor {
    x.broadcast(like.shape(), &[0, 1, COLUMN])
}

/// `scores`, whose keys are along dimension `keys` and whose queries along the other, -inf where the key stands behind
/// the query: one mask for all heads, so that what heads and layers share is small.
fn masked(scores: &Tensor, causal: bool, keys: usize) -> Tensor {
    if !causal {
        return scores.clone();
    }
    let mask = scores.shape().dims()[ROW..].iter().cloned().collect::<Shape>();
    let position = |dim| scores.builder().apply(Iota { ty: TensorType::new(DType::I64, mask.clone()), dim }, &[]);
    let (key, query) = if keys == COLUMN { (position(1), position(0)) } else { (position(0), position(1)) };
    let seen = key.elementwise(Elementwise::Le, &[&query]);
    let seen = seen.broadcast(scores.shape(), &[ROW, COLUMN]);
    seen.elementwise(Elementwise::Select, &[scores, &scores.full_like(f64::NEG_INFINITY)])
}

/// Types of `y: [N, H, S, E]` and of a number per row, for operands that fit.
fn result_types(operands: &[TensorType]) -> (TensorType, TensorType) {
    let (rows, features) = (&operands[0].shape.dims()[..COLUMN], &operands[2].shape.dims()[COLUMN]);
    let y: Shape = rows.iter().chain([features]).cloned().collect();
    (operands[0].with_shape(y), operands[0].with_shape(rows.iter().cloned().collect::<Shape>()))
}

fn infer_operands(faults: &mut Faults, operands: &[TensorType], scale: f64, causal: bool) -> Result<(), Vec<Fault>> {
    let (q, k, v) = (&operands[0], &operands[1], &operands[2]);
    faults.float("attention.C1", "q", q);
    faults.require(q.rank() == 4, || {
        Fault::new("attention.C1", format!("`q` is {q}, it must be [N, H, S, D]"))
            .help("`reshape` [N, S, H * D] to [N, S, H, D] and `transpose` with {permutation = [0, 2, 1, 3]}")
    });
    for (name, ty) in [("k", k), ("v", v)] {
        faults.require(ty.rank() == 4 && ty.dtype == q.dtype, || {
            Fault::new("attention.C2", format!("`{name}` is {ty}, it must be [N, H, T, D] of {}", q.dtype))
        });
    }
    faults.check()?;
    let (rows, keys, values) = (q.shape.dims(), k.shape.dims(), v.shape.dims());
    let heads = keys[..2] == rows[..2] && values[..2] == rows[..2];
    faults.require(heads && keys[COLUMN] == rows[COLUMN] && values[ROW] == keys[ROW], || {
        let message = format!("`q` is {q}, `k` is {k} and `v` is {v}");
        Fault::new("attention.C2", message).help("they must be [N, H, S, D], [N, H, T, D] and [N, H, T, E]")
    });
    faults.require(!causal || keys[ROW] == rows[ROW], || {
        let message = format!("{} queries and {} keys cannot be causal", rows[ROW], keys[ROW]);
        Fault::new("attention.C3", message).help("leave `causal` out, or give a key for every query")
    });
    faults.require(scale.is_finite(), || {
        Fault::new("attention.C4", format!("`scale` is {scale}, it must be finite")).help("the usual one is D^-0.5")
    });
    faults.check()
}
