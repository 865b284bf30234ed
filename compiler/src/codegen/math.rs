//! Functions that machines do not have: polynomials for binary32, and Rust's own functions for binary64.
//!
//! Single elements and lanes go through the same instructions, so that the tail of a loop has the same bits as its
//! vectors. Bounds against the true value, tested in steps over all of binary32:
//!
//! | function | bound | method |
//! |---|---|---|
//! | `exp` | 1 ULP | Cody-Waite reduction by `ln 2`, polynomial of degree 6 |
//! | `log` | 1 ULP | mantissa in `sqrt(1/2)..sqrt(2)`, polynomial of degree 10 |
//! | `tanh` | 4 ULP | odd rational function of degree 11 over 8 on `0..9` |
//! | `erf` | 4 ULP | odd rational function of degree 13 over 10 on `0..3.95` |
//! | `sin cos pow rem` | 1 ULP | binary64, rounded |
//! | `rsqrt` | 2 ULP | square root, then division |
//!
//! Coefficients are our own: least squares on Chebyshev nodes for the relative error, reweighted towards the minimax by
//! Lawson's method, in 40 digits. The reductions are those of Cody and Waite, "Software manual for the elementary
//! functions", 1980.

pub(super) mod coefficients;
mod double;
mod polynomials;

pub use double::MathFn;
#[cfg(test)]
pub(super) use double::tests;
pub(super) use polynomials::Polynomials;
