//! Layers and losses as methods of a tensor: the Rust side of the table.

use super::*;
use crate::op;

impl Tensor {
    /// A layer with all its attributes: `x.layer(Conv::new(32, 3).padding(Padding::Same))`.
    #[track_caller]
    pub fn layer(&self, layer: impl Into<Layer>) -> Tensor {
        layer.into().apply(self.builder(), &[self], None)
    }

    /// A layer whose states are named `name.*`.
    #[track_caller]
    pub fn layer_named(&self, name: &str, layer: impl Into<Layer>) -> Tensor {
        layer.into().apply(self.builder(), &[self], Some(name))
    }

    /// The value under another name.
    pub fn named(&self, name: &str) -> Tensor {
        self.builder().rename(self, name);
        self.clone()
    }

    /// [`Dense`] with bias: `[N, features]` to `[N, units]`.
    #[track_caller]
    pub fn dense(&self, units: i64) -> Tensor {
        self.layer(Dense::new(units))
    }

    /// [`Conv`] with stride 1, bias and no padding: `[N, C, spatial...]` to `[N, filters, smaller...]`.
    #[track_caller]
    pub fn conv(&self, filters: i64, kernel: impl Into<Spatial>) -> Tensor {
        self.layer(Conv::new(filters, kernel))
    }

    /// [`ConvTranspose`] with bias and no padding: `[N, C, spatial...]` to `[N, filters, larger...]`.
    #[track_caller]
    pub fn conv_transpose(&self, filters: i64, kernel: impl Into<Spatial>, strides: impl Into<Spatial>) -> Tensor {
        self.layer(ConvTranspose::new(filters, kernel).strides(strides))
    }

    /// [`Embedding`]: `[I...]` to `[I..., units]`.
    #[track_caller]
    pub fn embedding(&self, vocabulary: i64, units: i64) -> Tensor {
        self.layer(Embedding::new(vocabulary, units))
    }

    /// [`MaxPool`] of windows side by side, without padding.
    #[track_caller]
    pub fn max_pool(&self, size: impl Into<Spatial>) -> Tensor {
        self.layer(MaxPool::new(size))
    }

    /// [`AvgPool`] of windows side by side, without padding.
    #[track_caller]
    pub fn avg_pool(&self, size: impl Into<Spatial>) -> Tensor {
        self.layer(AvgPool::new(size))
    }

    /// [`GlobalAvgPool`]: `[N, C, spatial...]` to `[N, C]`.
    #[track_caller]
    pub fn global_avg_pool(&self) -> Tensor {
        self.layer(GlobalAvgPool::new())
    }

    /// [`GlobalMaxPool`]: `[N, C, spatial...]` to `[N, C]`.
    #[track_caller]
    pub fn global_max_pool(&self) -> Tensor {
        self.layer(GlobalMaxPool::new())
    }

    /// [`Flatten`]: `[N, D...]` to `[N, product of D]`.
    #[track_caller]
    pub fn flatten(&self) -> Tensor {
        self.layer(Flatten::new())
    }

    /// [`Attention`] of queries `[N, H, S, D]` to keys and values `[N, H, T, D]`.
    #[track_caller]
    pub fn attention(&self, k: &Tensor, v: &Tensor) -> Tensor {
        Layer::from(Attention::new()).apply(self.builder(), &[self, k, v], None)
    }

    /// [`MultiHeadAttention`] of `[N, S, E]` to itself; causal with `x.layer(MultiHeadAttention::new(8).causal(true))`.
    #[track_caller]
    pub fn multi_head_attention(&self, heads: i64) -> Tensor {
        self.layer(MultiHeadAttention::new(heads))
    }

    /// [`PositionEmbedding`] of up to `length` positions, added to `[N, S, E]`.
    #[track_caller]
    pub fn position_embedding(&self, length: i64) -> Tensor {
        self.layer(PositionEmbedding::new(length))
    }

    /// [`BatchNorm`] with epsilon 1e-5 and momentum 0.9.
    #[track_caller]
    pub fn batch_norm(&self) -> Tensor {
        self.layer(BatchNorm::new())
    }

    /// [`LayerNorm`] with epsilon 1e-5.
    #[track_caller]
    pub fn layer_norm(&self) -> Tensor {
        self.layer(LayerNorm::new())
    }

    /// [`Dropout`] of the fraction `rate`.
    #[track_caller]
    pub fn dropout(&self, rate: f64) -> Tensor {
        self.layer(Dropout::new(rate))
    }

    /// [`Accuracy`] of logits `[N..., K]` against class indices `[N...]`: a scalar.
    #[track_caller]
    pub fn accuracy(&self, label: &Tensor) -> Tensor {
        Layer::from(Accuracy::new()).apply(self.builder(), &[self, label], None)
    }

    /// [`BinaryAccuracy`] of logits against 0 or 1: a scalar.
    #[track_caller]
    pub fn binary_accuracy(&self, target: &Tensor) -> Tensor {
        Layer::from(BinaryAccuracy::new()).apply(self.builder(), &[self, target], None)
    }

    /// `e^x / sum e^x` along the last dimension.
    #[track_caller]
    pub fn softmax(&self) -> Tensor {
        self.builder().apply(op::Softmax { dim: self.last_dim() }, &[self])
    }

    /// `x - log sum e^x` along the last dimension.
    #[track_caller]
    pub fn log_softmax(&self) -> Tensor {
        self.builder().apply(op::LogSoftmax { dim: self.last_dim() }, &[self])
    }

    /// Mean cross-entropy of logits `[N..., K]` with class indices `[N...]`: a scalar.
    #[track_caller]
    pub fn cross_entropy(&self, label: &Tensor) -> Tensor {
        self.builder().apply(op::CrossEntropy {}, &[self, label])
    }

    /// Mean binary cross-entropy of logits with targets in 0..1: a scalar.
    #[track_caller]
    pub fn bce_with_logits(&self, target: &Tensor) -> Tensor {
        self.builder().apply(op::BceWithLogits {}, &[self, target])
    }

    /// Mean squared difference: a scalar.
    #[track_caller]
    pub fn mse(&self, target: &Tensor) -> Tensor {
        self.builder().apply(op::Mse {}, &[self, target])
    }

    fn last_dim(&self) -> i64 {
        (self.rank() as i64 - 1).max(0)
    }
}
