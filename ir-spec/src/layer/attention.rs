//! Layers of transformers: attention, attention of several heads, position_embedding.

use super::{Attention, Call, Dense, Instance, Layer, LayerSpec, MultiHeadAttention, PositionEmbedding};
use crate::attribute::Dims;
use crate::builder::Tensor;
use crate::module::Role;
use crate::op::{self, Elementwise, Op};
use crate::types::{Dim, Shape};

/// - attention.L1: `q` has a last extent, which is known.
impl LayerSpec for Attention {
    fn expand(&self, call: &Call) -> Tensor {
        let (q, k, v) = (call.operand(0), call.operand(1), call.operand(2));
        let Some(features) = q.shape().dims().last().and_then(Dim::known) else {
            let message = format!("the last extent of {} is not known", q.ty());
            return call.fault("L1", message, "give the input a number there, or bind the name with --bind");
        };
        attend(call, [q, k, v], features, self.causal, "attention")
    }
}

/// - multi_head_attention.L1: `x` is `[N, S, E]`, and E is known.
/// - multi_head_attention.L2: `heads >= 1`, and they divide E.
impl LayerSpec for MultiHeadAttention {
    fn expand(&self, call: &Call) -> Tensor {
        let x = call.operand(0);
        let shape = x.shape();
        let known = match shape.dims() {
            [n, s, e] => e.known().map(|features| ([n, s], features)),
            _ => None,
        };
        let Some((rows, features)) = known else {
            let message = format!("`multi_head_attention` takes x: [N, S, E] with a known E, not {shape}");
            return call.fault("L1", message, "give every token a vector, as `embedding` does");
        };
        let Some(heads) = usize::try_from(self.heads).ok().filter(|&n| n >= 1 && features % n == 0) else {
            let message = format!("{features} features do not split into {} heads", self.heads);
            return call.fault("L2", message, "`heads` must divide the number of features");
        };
        let instance = call.instance();
        let dense = |x: &Tensor, units: usize, name: &str| {
            let layer = Layer::from(Dense::new(units as i64).bias(self.bias).init(self.init));
            call.builder.scope(&instance.name, || layer.apply(&call.builder, &[x], Some(name)))
        };
        let packed = dense(x, 3 * features, "qkv");
        if packed.is_invalid() {
            return packed;
        }
        let size = features / heads;
        let [q, k, v] = [("q", 0), ("k", 1), ("v", 2)].map(|(name, part)| {
            let columns = columns(&instance, &packed, part * features, features, name);
            let split = shape_of(rows, &[heads, size]);
            let split = call.builder.apply_named(op::Reshape { ty: x.ty().with_shape(split) }, &[&columns], "reshape");
            turned(&split, &instance.value(&format!("{name}.heads")))
        });
        let y = attend(call, [&q, &k, &v], size, self.causal, &instance.value("attention"));
        if y.is_invalid() {
            return y;
        }
        let y = turned(&y, &instance.value("tokens"));
        let joined = shape_of(rows, &[features]);
        dense(&y.reshape(joined), features, "out")
    }
}

/// - position_embedding.L1: `x` is `[N, S, E]`, and E is known.
/// - position_embedding.L2: `length` is at least 1, and at least S.
impl LayerSpec for PositionEmbedding {
    fn expand(&self, call: &Call) -> Tensor {
        let x = call.operand(0);
        let shape = x.shape();
        let known = match shape.dims() {
            [_, tokens, e] => e.known().map(|features| (tokens, features)),
            _ => None,
        };
        let Some((tokens, features)) = known else {
            let message = format!("`position_embedding` takes x: [N, S, E] with a known E, not {shape}");
            return call.fault("L1", message, "give every token a vector, as `embedding` does");
        };
        // Positions of an unknown number are counted when the name is bound, by `slice`.
        let least = tokens.known().unwrap_or(1).max(1);
        let Some(length) = usize::try_from(self.length).ok().filter(|&length| length >= least) else {
            let message = format!("`length` is {}, and there are {tokens} positions", self.length);
            return call.fault("L2", message, "`length` is the number of positions that have a vector");
        };
        let instance = call.instance();
        let weight = instance.state("weight", [length, features], Role::Param, self.init.weight(length as u64));
        if weight.is_invalid() {
            return weight;
        }
        let mut used = weight;
        if tokens.known() != Some(length) {
            let stop: Dims = [tokens.clone(), Dim::from(features)].into_iter().collect();
            let slice = op::Slice { start: smallvec::smallvec![0, 0], stop, step: smallvec::smallvec![1, 1] };
            used = call.builder.apply_named(slice, &[&used], &instance.value("rows"));
        }
        let wide = used.broadcast(shape, &[1, 2]);
        call.builder.apply_named(Op::Elementwise(Elementwise::Add), &[x, &wide], &instance.path)
    }
}

/// The op with the usual scale, `size^-0.5`.
fn attend(call: &Call, operands: [&Tensor; 3], size: usize, causal: bool, name: &str) -> Tensor {
    let scale = 1.0 / (size.max(1) as f64).sqrt();
    let results =
        call.builder.apply_all(op::Attention { scale, causal }, &operands, &[name, &format!("{name}.log_sum")]);
    results.into_iter().next().unwrap_or_else(|| operands[0].clone())
}

/// `count` columns of `x: [N, S, columns]` from `start` on.
fn columns(instance: &Instance, x: &Tensor, start: usize, count: usize, name: &str) -> Tensor {
    let shape = x.shape();
    let mut stop: Dims = shape.dims().iter().cloned().collect();
    if let Some(last) = stop.last_mut() {
        *last = Dim::from(start + count);
    }
    let op = op::Slice { start: smallvec::smallvec![0, 0, start as i64], stop, step: smallvec::smallvec![1, 1, 1] };
    x.builder().apply_named(op, &[x], &instance.value(name))
}

/// `[N, S, H, D]` to `[N, H, S, D]` and back.
fn turned(x: &Tensor, name: &str) -> Tensor {
    let op = op::Transpose { permutation: smallvec::smallvec![0, 2, 1, 3] };
    x.builder().apply_named(op, &[x], name)
}

fn shape_of(rows: [&Dim; 2], rest: &[usize]) -> Shape {
    rows.into_iter().cloned().chain(rest.iter().map(|&n| Dim::from(n))).collect()
}
