//! Contractions: `dot` and the convolution with its two transposes.
//!
//! The three convolutions are one trilinear form `sum x[n, c, s*stride + k*dilation - pad] w[o, c, k] dy[n, o, s]`,
//! read along `dy`, `x` or `w`. So each one's gradients are the other two, and gradients of any order stay among them.

mod conv;
mod dot;
