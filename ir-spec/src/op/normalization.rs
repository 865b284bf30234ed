//! Softmax, normalisation and dropout: composites with gradients of their own where memory or numerics ask for it.

use crate::body::Body;
use crate::builder::Tensor;
use crate::op::rules::{compose, dimension, others, sum_leading};
use crate::op::{Fault, Faults, Gradient, OpSpec, Types, Vjp};
use crate::types::{DType, TensorType};

/// 1. `softmax.C1`: `x` is of a float type.
/// 2. `softmax.C2`: `dim` is a dimension of `x`, negative from the end.
///
/// The largest element is subtracted first, so that no exponential overflows.
impl OpSpec for super::Softmax {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        infer_along(&operands[0], self.dim)
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["x"], operands, |params| {
            let along = Along::new(&params[0], self.dim);
            let powers = along.shifted(&params[0]).exp();
            vec![&powers / &along.spread(&along.sum(&powers), &powers)]
        })
    }

    /// `dx = y * (dy - sum(dy * y))`: needs the result only.
    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let (y, Some(dy)) = (&cx.results[0], &cx.cotangents[0]) else { return no_cotangent(cx) };
        let along = Along::new(y, self.dim);
        let mean = along.spread(&along.sum(&(dy * y)), dy);
        Gradient::Operands(vec![Some(y * &(dy - &mean))])
    }
}

/// Constraints as `softmax`.
impl OpSpec for super::LogSoftmax {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        infer_along(&operands[0], self.dim)
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["x"], operands, |params| {
            let along = Along::new(&params[0], self.dim);
            let shifted = along.shifted(&params[0]);
            let log_sum = along.sum(&shifted.exp()).log();
            vec![&shifted - &along.spread(&log_sum, &shifted)]
        })
    }

    /// `dx = dy - e^y * sum(dy)`: needs the result only.
    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let (y, Some(dy)) = (&cx.results[0], &cx.cotangents[0]) else { return no_cotangent(cx) };
        let along = Along::new(y, self.dim);
        let sum = along.spread(&along.sum(dy), dy);
        Gradient::Operands(vec![Some(dy - &(&y.exp() * &sum))])
    }
}

fn no_cotangent(cx: &Vjp<'_>) -> Gradient {
    Gradient::Operands(vec![None; cx.operands.len()])
}

fn infer_along(x: &TensorType, dim: i64) -> Result<Types, Vec<Fault>> {
    let mut faults = Faults::default();
    faults.float("softmax.C1", "x", x);
    faults.require(dimension(dim, x.rank()).is_some(), || {
        Fault::new("softmax.C2", format!("dimension {dim} of {x}, which has {}", x.rank()))
            .help("count from 0, or from the end with -1")
    });
    faults.finish(|| smallvec::smallvec![x.clone()])
}

/// Reduction along one dimension and the way back.
struct Along {
    dim: usize,
    kept: Vec<usize>,
}

impl Along {
    fn new(x: &Tensor, dim: i64) -> Along {
        let dim = dimension(dim, x.rank()).unwrap_or_default();
        Along { dim, kept: others(x.rank(), dim) }
    }

    fn sum(&self, x: &Tensor) -> Tensor {
        x.sum(&[self.dim])
    }

    fn spread(&self, x: &Tensor, like: &Tensor) -> Tensor {
        x.broadcast(like.shape(), &self.kept)
    }

    fn shifted(&self, x: &Tensor) -> Tensor {
        x - &self.spread(&x.max_over(&[self.dim]), x)
    }
}

/// 1. `layer_norm.C1`: `x` is of a float type and has a dimension.
/// 2. `layer_norm.C2`: `scale` and `offset` have the element type and the last extent of `x`.
/// 3. `layer_norm.C3`: `epsilon` is finite and at least 0.
///
/// The variance is the biased one, in two passes.
impl OpSpec for super::LayerNorm {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let x = &operands[0];
        let mut faults = Faults::default();
        faults.float("layer_norm.C1", "x", x);
        faults.require(x.rank() > 0, || Fault::new("layer_norm.C1", format!("`x` is {x}, which has no dimension")));
        if let Some(last) = x.shape.dims().last() {
            let wanted = x.with_shape(std::iter::once(last.clone()).collect::<crate::types::Shape>());
            faults.same("layer_norm.C2", "scale", &operands[1], &wanted);
            faults.same("layer_norm.C2", "offset", &operands[2], &wanted);
        }
        faults.not_negative("layer_norm.C3", "epsilon", self.epsilon);
        faults.finish(|| smallvec::smallvec![x.clone()])
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["x", "scale", "offset"], operands, |params| {
            let rows = Along::new(&params[0], -1);
            let (normal, _) = normalize_rows(&rows, &params[0], self.epsilon);
            vec![&(&normal * &params[1]) + &params[2]]
        })
    }

    /// With `n` the normalised rows and `g = dy * scale`: `dx = (g - mean(g) - n * mean(g * n)) / deviation`. The rows
    /// are normalised again instead of kept.
    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let Some(dy) = &cx.cotangents[0] else { return no_cotangent(cx) };
        let (x, scale) = (&cx.operands[0], &cx.operands[1]);
        let rows = Along::new(x, -1);
        let (normal, inverse) = normalize_rows(&rows, x, self.epsilon);
        let g = dy * scale;
        let mean = rows.spread(&g.mean(&[rows.dim]), x);
        let slope = rows.spread(&(&g * &normal).mean(&[rows.dim]), x);
        let dx = &(&(&g - &mean) - &(&normal * &slope)) * &inverse;
        Gradient::Operands(vec![Some(dx), Some(sum_leading(&(dy * &normal))), Some(sum_leading(dy))])
    }
}

/// The normalised rows, and the inverse deviation spread to their shape.
fn normalize_rows(rows: &Along, x: &Tensor, epsilon: f64) -> (Tensor, Tensor) {
    let centered = x - &rows.spread(&x.mean(&[rows.dim]), x);
    let variance = (&centered * &centered).mean(&[rows.dim]);
    let inverse = rows.spread(&(&variance + epsilon).rsqrt(), x);
    (&centered * &inverse, inverse)
}

/// 1. `batch_norm.C1`: `x: [N, C, spatial...]` is of a float type and has at least 2 dimensions.
/// 2. `batch_norm.C2`: `scale`, `offset`, `mean` and `variance` are `[C]` of the element type of `x`.
/// 3. `batch_norm.C3`: `epsilon` is finite and at least 0, `momentum` lies in 0..=1.
///
/// Its meaning, until `specialize` resolves it, is that of `batch_norm_training`.
impl OpSpec for super::BatchNorm {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        self.training().infer(operands)
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        self.training().body(operands, results)
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        self.training().vjp(cx)
    }
}

impl super::BatchNorm {
    /// The op that `specialize(training)` makes of this one.
    pub fn training(&self) -> super::BatchNormTraining {
        super::BatchNormTraining { epsilon: self.epsilon, momentum: self.momentum }
    }

    /// The op that `specialize(inference)` makes of this one; the statistics pass through.
    pub fn inference(&self) -> super::BatchNormInference {
        super::BatchNormInference { epsilon: self.epsilon }
    }
}

/// Constraints as `batch_norm`.
impl OpSpec for super::BatchNormInference {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        infer_batch_norm(operands, self.epsilon, 0.0)?;
        Ok(smallvec::smallvec![operands[0].clone()])
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["x", "scale", "offset", "mean", "variance"], operands, |params| {
            let [x, scale, offset, mean, variance] = params else { return Vec::new() };
            let slope = scale * &(variance + self.epsilon).rsqrt();
            let centered = x - &channels(mean, x);
            vec![&(&centered * &channels(&slope, x)) + &channels(offset, x)]
        })
    }

    fn vjp(&self, _: &Vjp<'_>) -> Gradient {
        Gradient::Decompose
    }
}

/// Constraints as `batch_norm`. Mean and biased variance over all dimensions but C, in two passes. The running variance
/// takes the unbiased one; of a single element per channel that is the biased one, 0.
impl OpSpec for super::BatchNormTraining {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        infer_batch_norm(operands, self.epsilon, self.momentum)?;
        let x = &operands[0];
        let statistic = || x.with_shape(operands[3].shape.clone());
        Ok(smallvec::smallvec![x.clone(), statistic(), statistic()])
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["x", "scale", "offset", "mean", "variance"], operands, |params| {
            let [x, scale, offset, running_mean, running_variance] = params else { return Vec::new() };
            let batch = BatchStatistics::new(x, self.epsilon);
            let y = &(&batch.centered * &channels(&(scale * &batch.inverse), x)) + &channels(offset, x);
            let count = batch.count;
            let unbiased = &batch.variance * (count / (count - 1.0).max(1.0));
            let next = |running: &Tensor, own: &Tensor| &(running * self.momentum) + &(own * (1.0 - self.momentum));
            vec![y, next(running_mean, &batch.mean), next(running_variance, &unbiased)]
        })
    }

    /// With `n` the normalised input: `dx = scale / deviation * (dy - mean(dy) - n * mean(dy * n))`. The statistics are
    /// computed again instead of kept; where a loss depends on the running statistics, the decomposition is derived.
    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        if cx.cotangents[1..].iter().any(Option::is_some) {
            return Gradient::Decompose;
        }
        let Some(dy) = &cx.cotangents[0] else { return no_cotangent(cx) };
        let (x, scale) = (&cx.operands[0], &cx.operands[1]);
        let batch = BatchStatistics::new(x, self.epsilon);
        let normal = &batch.centered * &channels(&batch.inverse, x);
        let dims = others(x.rank(), 1);
        let doffset = dy.sum(&dims);
        let dscale = (dy * &normal).sum(&dims);
        let mean = channels(&(&doffset * (1.0 / batch.count)), x);
        let slope = channels(&(&dscale * (1.0 / batch.count)), x);
        let centered = &(dy - &mean) - &(&normal * &slope);
        let dx = &centered * &channels(&(scale * &batch.inverse), x);
        Gradient::Operands(vec![Some(dx), Some(dscale), Some(doffset), None, None])
    }
}

/// Statistics of a batch per channel.
struct BatchStatistics {
    /// Elements per channel.
    count: f64,
    /// `[C]`.
    mean: Tensor,
    /// Biased, `[C]`.
    variance: Tensor,
    /// `1 / sqrt(variance + epsilon)`, `[C]`.
    inverse: Tensor,
    /// `x - mean`.
    centered: Tensor,
}

impl BatchStatistics {
    fn new(x: &Tensor, epsilon: f64) -> BatchStatistics {
        let dims = others(x.rank(), 1);
        let extents = x.shape().extents();
        let count = dims.iter().map(|&d| extents[d] as f64).product();
        let mean = x.mean(&dims);
        let centered = x - &channels(&mean, x);
        let variance = (&centered * &centered).mean(&dims);
        let inverse = (&variance + epsilon).rsqrt();
        BatchStatistics { count, mean, variance, inverse, centered }
    }
}

/// `[C]` repeated to the shape of `like: [N, C, spatial...]`.
fn channels(x: &Tensor, like: &Tensor) -> Tensor {
    x.broadcast(like.shape(), &[1])
}

fn infer_batch_norm(operands: &[TensorType], epsilon: f64, momentum: f64) -> Result<(), Vec<Fault>> {
    let x = &operands[0];
    let mut faults = Faults::default();
    faults.float("batch_norm.C1", "x", x);
    faults.require(x.rank() >= 2, || {
        Fault::new("batch_norm.C1", format!("`x` is {x}, it must be [N, C, spatial...]"))
            .help("`reshape` a vector of examples to [N, 1]")
    });
    if let Some(c) = x.shape.dims().get(1) {
        let wanted = x.with_shape(std::iter::once(c.clone()).collect::<crate::types::Shape>());
        for (name, ty) in ["scale", "offset", "mean", "variance"].into_iter().zip(&operands[1..]) {
            faults.same("batch_norm.C2", name, ty, &wanted);
        }
    }
    faults.not_negative("batch_norm.C3", "epsilon", epsilon);
    faults.within("batch_norm.C3", "momentum", momentum, 0.0, 1.0);
    faults.check()
}

/// 1. `dropout.C1`: `x` is of a float type.
/// 2. `dropout.C2`: `counter` is i64[].
/// 3. `dropout.C3`: `rate` lies in 0..1, 1 excluded.
///
/// Its meaning, until `specialize(inference)` removes it, is the training form: the mask comes from one f32 draw per
/// element of `stream`, whatever the type of `x`.
impl OpSpec for super::Dropout {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let mut faults = Faults::default();
        faults.float("dropout.C1", "x", &operands[0]);
        faults.counter("dropout.C2", "counter", &operands[1]);
        faults.require((0.0..1.0).contains(&self.rate), || {
            Fault::new("dropout.C3", format!("`rate` is {}, it must be at least 0 and below 1", self.rate))
                .help("the rate is the fraction that is set to 0, not the fraction that is kept")
        });
        faults.finish(|| smallvec::smallvec![operands[0].clone()])
    }

    fn body(&self, operands: &[TensorType], _: &[TensorType]) -> Body {
        compose(&["x", "counter"], operands, |params| {
            let (x, counter) = (&params[0], &params[1]);
            let ty = TensorType::new(DType::F32, x.shape());
            let op = super::RngUniform { ty, stream: self.stream.clone() };
            let draw = x.builder().apply(op, &[counter]);
            let keep = draw.elementwise(super::Elementwise::Ge, &[&draw.full_like(self.rate)]);
            let scaled = x * (1.0 / (1.0 - self.rate));
            vec![keep.elementwise(super::Elementwise::Select, &[&scaled, &x.full_like(0.0)])]
        })
    }

    /// The op is linear in `x`, its mask a function of stream and counter: the cotangent passes through the same
    /// dropout, and no mask is kept.
    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        let Some(dy) = &cx.cotangents[0] else { return no_cotangent(cx) };
        Gradient::Operands(vec![Some(dy.builder().apply(self.clone(), &[dy, &cx.operands[1]])), None])
    }
}
