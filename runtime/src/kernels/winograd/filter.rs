#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "vector operations; the one contract, that the processor has them, is stated on the trait"
)]
#![allow(clippy::needless_range_loop, reason = "numbers of coefficients number powers and registers alike")]
//! Minimal filtering in one dimension: F(m, r) computes `m` outputs of a filter of `r` taps by `m + r - 1` products.
//!
//! Outputs, taps and inputs are coefficients of polynomials, which are evaluated at as many points as there are products
//! (Toom and Cook; Winograd, Arithmetic Complexity of Computations, 1980):
//!
//! ```text
//! y = A^T ((G w) (B^T x))      A   evaluates m coefficients, its transpose adds products up to outputs
//!                              G   evaluates r coefficients, and has the factors that B leaves out
//!                              B^T belongs to the points alone: one for all m and r of one sum
//! ```

use super::super::simd::SimdMath;

/// Most outputs, taps and inputs of a tile's row: how long arrays are, whose rest means nothing.
pub(super) const OUTPUTS: usize = 4;
pub(super) const TAPS: usize = 5;
pub(super) const INPUTS: usize = 6;

/// F(M, R) in one dimension; two dimensions are one for rows, then one for columns.
///
/// # Safety
/// All functions: the processor has the instructions of `S`.
pub(super) trait Filter {
    /// Outputs of a tile's row.
    const M: usize;
    /// Taps of a kernel's row.
    const R: usize;
    /// Inputs of a tile's row.
    const A: usize = Self::M + Self::R - 1;
    /// `B^T x`
    unsafe fn input<S: SimdMath>(x: [S; INPUTS]) -> [S; INPUTS];
    /// `G w`
    unsafe fn weights<S: SimdMath>(w: [S; TAPS]) -> [S; INPUTS];
    /// `A^T x`
    unsafe fn output<S: SimdMath>(x: [S; INPUTS]) -> [S; OUTPUTS];
    /// `A y`
    unsafe fn gradient<S: SimdMath>(y: [S; OUTPUTS]) -> [S; INPUTS];
    /// `G^T u`
    unsafe fn taps<S: SimdMath>(u: [S; INPUTS]) -> [S; TAPS];
}

/// The filters along the columns of a tile, from row to row, and along its rows.
pub(super) trait Filters {
    /// From row to row.
    type Y: Filter;
    /// From column to column.
    type X: Filter;
}

impl<Y: Filter, X: Filter> Filters for (Y, X) {
    type Y = Y;
    type X = X;
}

/// An array of a function's instances for each of `Algorithm::ALL`.
macro_rules! each_algorithm {
    ($function:ident) => {
        [
            $function::<(F23, F23)>,
            $function::<(F43, F43)>,
            $function::<(F25, F25)>,
            $function::<(F11, F43)>,
            $function::<(F11, F25)>,
            $function::<(F43, F11)>,
            $function::<(F25, F11)>,
        ]
    };
}
pub(super) use each_algorithm;

/// F(1, 1), which leaves everything as it is: the other dimension of a kernel that has one.
pub(super) struct F11;
/// F(2, 3): points 0, 1, -1 and infinity.
pub(super) struct F23;
/// F(M, R) where `M + R` is 7: points 0, `P`, `-P`, `Q`, `-Q` and infinity.
pub(super) struct Six<const M: usize, const R: usize>;
/// F(4, 3)
pub(super) type F43 = Six<4, 3>;
/// F(2, 5)
pub(super) type F25 = Six<2, 5>;

impl Filter for F11 {
    const M: usize = 1;
    const R: usize = 1;
    #[inline(always)]
    unsafe fn input<S: SimdMath>(x: [S; INPUTS]) -> [S; INPUTS] {
        x
    }
    #[inline(always)]
    unsafe fn weights<S: SimdMath>(w: [S; TAPS]) -> [S; INPUTS] {
        [w[0]; INPUTS]
    }
    #[inline(always)]
    unsafe fn output<S: SimdMath>(x: [S; INPUTS]) -> [S; OUTPUTS] {
        [x[0]; OUTPUTS]
    }
    #[inline(always)]
    unsafe fn gradient<S: SimdMath>(y: [S; OUTPUTS]) -> [S; INPUTS] {
        [y[0]; INPUTS]
    }
    #[inline(always)]
    unsafe fn taps<S: SimdMath>(u: [S; INPUTS]) -> [S; TAPS] {
        [u[0]; TAPS]
    }
}

impl Filter for F23 {
    const M: usize = 2;
    const R: usize = 3;
    #[inline(always)]
    unsafe fn input<S: SimdMath>(x: [S; INPUTS]) -> [S; INPUTS] {
        [x[0].sub(x[2]), x[1].add(x[2]), x[2].sub(x[1]), x[3].sub(x[1]), x[4], x[5]]
    }
    #[inline(always)]
    unsafe fn weights<S: SimdMath>(w: [S; TAPS]) -> [S; INPUTS] {
        let half = S::splat(0.5);
        let (even, odd) = (w[0].add(w[2]).mul(half), w[1].mul(half));
        [w[0], even.add(odd), even.sub(odd), w[2], w[2], w[2]]
    }
    #[inline(always)]
    unsafe fn output<S: SimdMath>(x: [S; INPUTS]) -> [S; OUTPUTS] {
        [x[0].add(x[1]).add(x[2]), x[1].sub(x[2]).add(x[3]), x[3], x[3]]
    }
    #[inline(always)]
    unsafe fn gradient<S: SimdMath>(y: [S; OUTPUTS]) -> [S; INPUTS] {
        [y[0], y[0].add(y[1]), y[0].sub(y[1]), y[1], y[1], y[1]]
    }
    #[inline(always)]
    unsafe fn taps<S: SimdMath>(u: [S; INPUTS]) -> [S; TAPS] {
        let half = S::splat(0.5);
        let even = u[1].add(u[2]).mul(half);
        [u[0].add(even), u[1].sub(u[2]).mul(half), even.add(u[3]), u[3], u[3]]
    }
}

const P: f64 = 0.625;
const Q: f64 = 1.5;
const PP: f32 = (P * P) as f32;
const QQ: f32 = (Q * Q) as f32;

impl<const M: usize, const R: usize> Filter for Six<M, R> {
    const M: usize = M;
    const R: usize = R;
    #[inline(always)]
    unsafe fn input<S: SimdMath>(x: [S; INPUTS]) -> [S; INPUTS] {
        let (even_p, even_q) = (axpy(-QQ, x[2], x[4]), axpy(-PP, x[2], x[4]));
        let (odd_p, odd_q) = (axpy(-QQ, x[1], x[3]), axpy(-PP, x[1], x[3]));
        [
            axpy(PP * QQ, x[0], axpy(-PP - QQ, x[2], x[4])),
            axpy(P as f32, odd_p, even_p),
            axpy(-P as f32, odd_p, even_p),
            axpy(Q as f32, odd_q, even_q),
            axpy(-Q as f32, odd_q, even_q),
            axpy(PP * QQ, x[1], axpy(-PP - QQ, x[3], x[5])),
        ]
    }
    #[inline(always)]
    unsafe fn weights<S: SimdMath>(w: [S; TAPS]) -> [S; INPUTS] {
        evaluate(&w, R, &G)
    }
    #[inline(always)]
    unsafe fn output<S: SimdMath>(x: [S; INPUTS]) -> [S; OUTPUTS] {
        add_up(x, M, &A)
    }
    #[inline(always)]
    unsafe fn gradient<S: SimdMath>(y: [S; OUTPUTS]) -> [S; INPUTS] {
        evaluate(&y, M, &A)
    }
    #[inline(always)]
    unsafe fn taps<S: SimdMath>(u: [S; INPUTS]) -> [S; TAPS] {
        add_up(u, R, &G)
    }
}

/// Rows of a matrix that evaluates polynomials: at 0, and at `P` and `Q`, whose odd powers change sign at `-P` and `-Q`.
struct Powers {
    zero: f32,
    p: [f32; TAPS],
    q: [f32; TAPS],
}

const A: Powers = Powers { zero: 1.0, p: powers(P, 1.0), q: powers(Q, 1.0) };
const G: Powers =
    Powers { zero: (1.0 / (P * P * Q * Q)) as f32, p: powers(P, factor(P, Q)), q: powers(Q, factor(Q, P)) };

/// One over the product of the differences to the other points, `-at`, 0, `other` and `-other`.
const fn factor(at: f64, other: f64) -> f64 {
    0.5 / (at * at * (at * at - other * other))
}

/// `factor`, `factor at`, `factor at^2`, ...
const fn powers(at: f64, factor: f64) -> [f32; TAPS] {
    let mut powers = [0.0; TAPS];
    let (mut power, mut i) = (factor, 0);
    while i < TAPS {
        powers[i] = power as f32;
        power *= at;
        i += 1;
    }
    powers
}

/// The values of `coefficients[..count]` at all points; at infinity that is the last.
#[inline(always)]
unsafe fn evaluate<S: SimdMath>(coefficients: &[S], count: usize, rows: &Powers) -> [S; INPUTS] {
    let [even_p, odd_p] = halves(coefficients, count, &rows.p);
    let [even_q, odd_q] = halves(coefficients, count, &rows.q);
    let zero = S::splat(rows.zero).mul(coefficients[0]);
    [zero, even_p.add(odd_p), even_p.sub(odd_p), even_q.add(odd_q), even_q.sub(odd_q), coefficients[count - 1]]
}

/// Even and odd powers of a polynomial, added up.
#[inline(always)]
unsafe fn halves<S: SimdMath>(coefficients: &[S], count: usize, powers: &[f32; TAPS]) -> [S; 2] {
    let mut halves = [S::splat(powers[0]).mul(coefficients[0]), S::splat(powers[1]).mul(coefficients[1])];
    for i in 2..count {
        halves[i % 2] = axpy(powers[i], coefficients[i], halves[i % 2]);
    }
    halves
}

/// The transpose of [`evaluate`].
#[inline(always)]
unsafe fn add_up<S: SimdMath, const N: usize>(values: [S; INPUTS], count: usize, rows: &Powers) -> [S; N] {
    let [zero, plus_p, minus_p, plus_q, minus_q, last] = values;
    let p = [plus_p.add(minus_p), plus_p.sub(minus_p)];
    let q = [plus_q.add(minus_q), plus_q.sub(minus_q)];
    let mut sums = [last; N];
    for i in 0..count {
        let of_p = if i == 0 {
            axpy(rows.p[0], p[0], S::splat(rows.zero).mul(zero))
        } else if i == count - 1 {
            axpy(rows.p[i], p[i % 2], last)
        } else {
            S::splat(rows.p[i]).mul(p[i % 2])
        };
        sums[i] = axpy(rows.q[i], q[i % 2], of_p);
    }
    sums
}

/// `a x + y`
#[inline(always)]
unsafe fn axpy<S: SimdMath>(a: f32, x: S, y: S) -> S {
    S::splat(a).mul_add(x, y)
}
