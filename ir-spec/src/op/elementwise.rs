//! Elementwise ops without attributes: a formula and its derivative each.
//!
//! The formula is read by the reference evaluator and the loop builder; the derivative is turned into nodes by
//! [`crate::builder::Tensor::formula`], so a backward graph reads like this page.

use crate::body::{Body, Map};
use crate::op::{AttrEntry, Fault, Gradient, OpEntry, OpSpec, Types, Vjp};
use crate::scalar::*;
use crate::types::{DType, TensorType};

/// Element types an op accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Floats.
    Float,
    /// Floats and integers.
    Numeric,
    /// Integers and bool.
    Bits,
    /// Everything.
    Any,
}

impl Domain {
    /// Whether `dtype` belongs to it.
    pub fn accepts(self, dtype: DType) -> bool {
        match self {
            Domain::Float => dtype.is_float(),
            Domain::Numeric => dtype != DType::Bool,
            Domain::Bits => !dtype.is_float(),
            Domain::Any => true,
        }
    }

    /// As messages and the spec say it.
    pub fn text(self) -> &'static str {
        match self {
            Domain::Float => "a float type",
            Domain::Numeric => "a float or integer type",
            Domain::Bits => "an integer type or bool",
            Domain::Any => "any type",
        }
    }
}

/// Formula of one element.
pub type Formula = fn(&[ScalarExpr]) -> ScalarExpr;
/// Derivative: from operands, result and cotangent to the operands' cotangents.
pub type Derivative = fn(&[ScalarExpr], &ScalarExpr, &ScalarExpr) -> Vec<Option<ScalarExpr>>;

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// What every op has.
    pub entry: OpEntry,
    /// The formula as written.
    pub text: &'static str,
    /// Element types.
    pub domain: Domain,
    /// The formula.
    pub formula: Formula,
    /// The derivative; `None` with a reason where nothing flows back.
    pub derivative: Result<Derivative, &'static str>,
}

/// Operand's cotangent: an expression, or `()` for none.
trait IntoCotangent {
    fn cotangent(self) -> Option<ScalarExpr>;
}

impl IntoCotangent for ScalarExpr {
    fn cotangent(self) -> Option<ScalarExpr> {
        Some(self)
    }
}

impl IntoCotangent for &ScalarExpr {
    fn cotangent(self) -> Option<ScalarExpr> {
        Some(self.clone())
    }
}

impl IntoCotangent for () {
    fn cotangent(self) -> Option<ScalarExpr> {
        None
    }
}

macro_rules! elementwise {
    ($(
        $(#[doc = $doc:literal])+
        $mnemonic:ident $op:ident($($x:ident),+: $domain:ident) -> $y:ident = $formula:expr; $kind:ident $args:tt = $vjp:tt;
    )*) => {
        /// An elementwise op without attributes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Elementwise {
            $($(#[doc = $doc])+ $op,)*
        }

        /// Every elementwise op, in the order of the enum.
        pub static TABLE: &[Row] = &[$(Row {
            entry: OpEntry {
                mnemonic: stringify!($mnemonic),
                doc: concat!($($doc, "\n"),+),
                operands: &[$(stringify!($x)),+],
                results: &[stringify!($y)],
                typed: false,
                attributes: &[] as &[AttrEntry],
            },
            text: stringify!($formula),
            domain: Domain::$domain,
            formula: {
                fn formula(operands: &[ScalarExpr]) -> ScalarExpr {
                    elementwise!(@bind operands, $($x),+);
                    ($formula).into()
                }
                formula
            },
            derivative: elementwise!(@$kind [$($x),+] $y $args $vjp),
        }),*];

        impl Elementwise {
            /// Every op.
            pub const ALL: &[Elementwise] = &[$(Elementwise::$op),*];
        }
    };
    (@bind $operands:ident, $($x:ident),+) => {
        let mut next = $operands.iter();
        $(
            #[allow(unused_variables, reason = "a derivative need not read every operand")]
            let $x = next.next().unwrap_or(&$operands[0]);
        )+
    };
    (@vjp [$($x:ident),+] $y:ident ($dy:ident) [$($d:expr),*]) => {
        Ok({
            #[allow(unused_variables, reason = "a derivative need not read every operand")]
            fn derivative(operands: &[ScalarExpr], $y: &ScalarExpr, $dy: &ScalarExpr) -> Vec<Option<ScalarExpr>> {
                elementwise!(@bind operands, $($x),+);
                vec![$(IntoCotangent::cotangent($d)),*]
            }
            derivative as Derivative
        })
    };
    (@flat [$($x:ident),+] $y:ident () $reason:literal) => { Err($reason) };
}

elementwise! {
    /// `-x`.
    neg Neg(x: Numeric) -> y = -x; vjp(dy) = [-dy];
    /// Absolute value; the subgradient at 0 is 0.
    abs Abs(x: Numeric) -> y = abs(x);
        vjp(dy) = [select(gt(x, 0.0), dy, select(lt(x, 0.0), -dy, zero(dy)))];
    /// -1, 0 or 1.
    sign Sign(x: Numeric) -> y = sign(x); flat() = "constant almost everywhere";
    /// `e^x`.
    exp Exp(x: Float) -> y = exp(x); vjp(dy) = [dy * y];
    /// Natural logarithm.
    log Log(x: Float) -> y = log(x); vjp(dy) = [dy / x];
    /// Square root.
    sqrt Sqrt(x: Float) -> y = sqrt(x); vjp(dy) = [0.5 * dy / y];
    /// `1 / sqrt(x)`.
    rsqrt Rsqrt(x: Float) -> y = rsqrt(x); vjp(dy) = [-0.5 * dy * y / x];
    /// `1 / x`.
    reciprocal Reciprocal(x: Float) -> y = 1.0 / x; vjp(dy) = [-dy * y * y];
    /// `x * x`.
    square Square(x: Numeric) -> y = x * x; vjp(dy) = [2.0 * dy * x];
    /// Sine of radians.
    sin Sin(x: Float) -> y = sin(x); vjp(dy) = [dy * cos(x)];
    /// Cosine of radians.
    cos Cos(x: Float) -> y = cos(x); vjp(dy) = [-dy * sin(x)];
    /// Hyperbolic tangent.
    tanh Tanh(x: Float) -> y = tanh(x); vjp(dy) = [dy * (1.0 - y * y)];
    /// Error function, `2 / sqrt(pi) * integral of e^-t^2 from 0 to x`.
    erf Erf(x: Float) -> y = erf(x); vjp(dy) = [dy * std::f64::consts::FRAC_2_SQRT_PI * exp(-(x * x))];
    /// Largest integer not above `x`.
    floor Floor(x: Float) -> y = floor(x); flat() = "constant almost everywhere";
    /// Smallest integer not below `x`.
    ceil Ceil(x: Float) -> y = ceil(x); flat() = "constant almost everywhere";
    /// Nearest integer, ties to even.
    round Round(x: Float) -> y = round(x); flat() = "constant almost everywhere";

    /// Rectified linear unit, `max(x, 0)`; the subgradient at 0 is 0.
    relu Relu(x: Float) -> y = max(x, 0.0); vjp(dy) = [select(gt(y, 0.0), dy, 0.0)];
    /// Logistic function, `1 / (1 + e^-x)`.
    sigmoid Sigmoid(x: Float) -> y = 1.0 / (1.0 + exp(-x)); vjp(dy) = [dy * y * (1.0 - y)];
    /// Gaussian error linear unit, `x * Phi(x)` (Hendrycks and Gimpel, 2016).
    gelu Gelu(x: Float) -> y = 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2));
        vjp(dy) = [dy * (0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)) + x * GAUSS * exp(-0.5 * x * x))];
    /// The tanh approximation of `gelu`.
    gelu_tanh GeluTanh(x: Float) -> y = 0.5 * x * (1.0 + gelu_inner(x));
        vjp(dy) = [dy * (0.5 * (1.0 + gelu_inner(x))
            + 0.5 * x * (1.0 - gelu_inner(x) * gelu_inner(x)) * (GELU_SLOPE + 3.0 * GELU_SLOPE * GELU_CUBIC * x * x))];
    /// Sigmoid linear unit, `x * sigmoid(x)`.
    silu Silu(x: Float) -> y = x / (1.0 + exp(-x));
        vjp(dy) = [dy * (logistic(x) + y * (1.0 - logistic(x)))];
    /// Piecewise linear logistic function, `min(max(x + 3, 0), 6) / 6`; the subgradient at its bends is 0.
    hard_sigmoid HardSigmoid(x: Float) -> y = min(max(x + 3.0, 0.0), 6.0) * SIXTH;
        vjp(dy) = [select(gt(y, 0.0), select(lt(x, 3.0), dy * SIXTH, 0.0), 0.0)];
    /// `x * hard_sigmoid(x)` (Howard et al., ICCV 2019); the subgradient is 0 at -3 and 1 at 3.
    hard_swish HardSwish(x: Float) -> y = x * (min(max(x + 3.0, 0.0), 6.0) * SIXTH);
        vjp(dy) = [select(gt(x, -3.0), select(lt(x, 3.0), dy * (x * (2.0 * SIXTH) + 0.5), dy), 0.0)];
    /// `x` as it is, through which no gradient flows back: what comes of it is a constant to every `gradient`.
    detach Detach(x: Any) -> y = x; vjp(dy) = [()];
    /// `log(1 + e^x)`, without overflow.
    softplus Softplus(x: Float) -> y = max(x, 0.0) + log_of_1_plus(exp(-abs(x))); vjp(dy) = [dy * logistic(x)];

    /// `a + b`.
    add Add(a, b: Numeric) -> y = a + b; vjp(dy) = [dy, dy];
    /// `a - b`.
    sub Sub(a, b: Numeric) -> y = a - b; vjp(dy) = [dy, -dy];
    /// `a * b`.
    mul Mul(a, b: Numeric) -> y = a * b; vjp(dy) = [dy * b, dy * a];
    /// `a / b`; integers truncate towards zero, see the integer table.
    div Div(a, b: Numeric) -> y = a / b; vjp(dy) = [dy / b, -dy * y / b];
    /// Remainder with the sign of `a`.
    rem Rem(a, b: Numeric) -> y = rem(a, b); flat() = "used on integers";
    /// `a^b`; the derivative in `b` needs `a > 0`, that in `a` is 0 where `b` is.
    pow Pow(a, b: Float) -> y = pow(a, b);
        vjp(dy) = [select(ne(b, 0.0), dy * b * pow(a, b - 1.0), 0.0), select(gt(a, 0.0), dy * y * log(a), 0.0)];
    /// The larger; NaN if either is. A tie goes to `a`.
    max Max(a, b: Numeric) -> y = max(a, b); vjp(dy) = [select(ge(a, b), dy, 0.0), select(ge(a, b), zero(dy), dy)];
    /// The smaller; NaN if either is. A tie goes to `a`.
    min Min(a, b: Numeric) -> y = min(a, b); vjp(dy) = [select(le(a, b), dy, 0.0), select(le(a, b), zero(dy), dy)];

    /// `a = b`.
    eq Eq(a, b: Any) -> y = eq(a, b); flat() = "the result is bool";
    /// `a != b`; true for NaN.
    ne Ne(a, b: Any) -> y = ne(a, b); flat() = "the result is bool";
    /// `a < b`.
    lt Lt(a, b: Numeric) -> y = lt(a, b); flat() = "the result is bool";
    /// `a <= b`.
    le Le(a, b: Numeric) -> y = le(a, b); flat() = "the result is bool";
    /// `a > b`.
    gt Gt(a, b: Numeric) -> y = gt(a, b); flat() = "the result is bool";
    /// `a >= b`.
    ge Ge(a, b: Numeric) -> y = ge(a, b); flat() = "the result is bool";
    /// Complement: logical for bool, bitwise for integers.
    not Not(x: Bits) -> y = not(x); flat() = "not a function of reals";
    /// Conjunction, bit by bit.
    and And(a, b: Bits) -> y = and(a, b); flat() = "not a function of reals";
    /// Disjunction, bit by bit.
    or Or(a, b: Bits) -> y = or(a, b); flat() = "not a function of reals";
    /// Exclusive disjunction, bit by bit.
    xor Xor(a, b: Bits) -> y = xor(a, b); flat() = "not a function of reals";
    /// Shift left by `b` modulo the width.
    shl Shl(a, b: Bits) -> y = shl(a, b); flat() = "not a function of reals";
    /// Shift right by `b` modulo the width; arithmetic for signed types.
    shr Shr(a, b: Bits) -> y = shr(a, b); flat() = "not a function of reals";
    /// `c ? a : b`, element by element.
    select Select(c, a, b: Any) -> y = select(c, a, b); vjp(dy) = [(), select(c, dy, 0.0), select(c, zero(dy), dy)];
}

/// `1 / sqrt(2 pi)`.
const GAUSS: f64 = 0.398_942_280_401_432_7;
/// Slope of `hard_sigmoid`.
const SIXTH: f64 = 1.0 / 6.0;
/// `sqrt(2 / pi)`, of the tanh approximation.
const GELU_SLOPE: f64 = 0.797_884_560_802_865_4;
/// Weight of the cubic term of the tanh approximation.
const GELU_CUBIC: f64 = 0.044_715;

fn gelu_inner(x: &ScalarExpr) -> ScalarExpr {
    tanh(GELU_SLOPE * (x + GELU_CUBIC * x * x * x))
}

fn logistic(x: &ScalarExpr) -> ScalarExpr {
    1.0 / (1.0 + exp(-x))
}

/// `log(1 + x)` for `x` in 0..=1, exact to a few units in the last place also where `1 + x` rounds to 1: the rounding of
/// `u = 1 + x` is divided out, `log(u) * x / (u - 1)` (Kahan; Goldberg, ACM Computing Surveys 23, 1991, theorem 4).
fn log_of_1_plus(x: ScalarExpr) -> ScalarExpr {
    let u = 1.0 + &x;
    let scaled = log(u.clone()) * &x / (u.clone() - 1.0);
    select(eq(u, 1.0), x, scaled)
}

fn zero(like: &ScalarExpr) -> ScalarExpr {
    ScalarExpr::literal(0.0, like.dtype())
}

impl Elementwise {
    /// The op's row.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// What every op has.
    pub fn entry(self) -> &'static OpEntry {
        &self.row().entry
    }

    /// The op of a text name.
    pub fn parse(mnemonic: &str) -> Option<Elementwise> {
        Elementwise::ALL.iter().copied().find(|op| op.entry().mnemonic == mnemonic)
    }

    /// The formula over the given operands.
    pub fn apply(self, operands: &[ScalarExpr]) -> ScalarExpr {
        (self.row().formula)(operands)
    }
}

/// 1. `elementwise.C1`: the operands have one shape.
/// 2. `elementwise.C2`: the operands have one element type, the condition of `select` excepted.
/// 3. `elementwise.C3`: the op takes this element type.
/// 4. `select.C1`: the condition is bool.
impl OpSpec for Elementwise {
    fn infer(&self, operands: &[TensorType]) -> Result<Types, Vec<Fault>> {
        let row = self.row();
        let values = if *self == Elementwise::Select {
            if operands[0].dtype != DType::Bool {
                return Err(vec![
                    Fault::new("select.C1", format!("the condition is {}, not bool", operands[0].dtype))
                        .help("compare it: `ne %c, %zero`"),
                ]);
            }
            &operands[1..]
        } else {
            operands
        };
        let first = &values[0];
        if let Some(other) = operands.iter().find(|t| t.shape != first.shape) {
            return Err(vec![
                Fault::new("elementwise.C1", format!("operands differ in shape: {first} and {other}"))
                    .help("there is no implicit broadcast in a graph: `broadcast %b {dims = [...]}`"),
            ]);
        }
        if let Some(other) = values.iter().find(|t| t.dtype != first.dtype) {
            return Err(vec![
                Fault::new("elementwise.C2", format!("operands differ in element type: {first} and {other}"))
                    .help("there is no implicit promotion: `cast` one of them"),
            ]);
        }
        if !row.domain.accepts(first.dtype) {
            let message = format!("`{}` takes {}, not {}", row.entry.mnemonic, row.domain.text(), first.dtype);
            return Err(vec![Fault::new("elementwise.C3", message)]);
        }
        let leaves: Vec<ScalarExpr> = operands.iter().enumerate().map(|(i, t)| ScalarExpr::read(i, t.dtype)).collect();
        Ok(smallvec::smallvec![first.with_dtype(self.apply(&leaves).dtype())])
    }

    fn body(&self, operands: &[TensorType], results: &[TensorType]) -> Body {
        let leaves: Vec<ScalarExpr> = operands.iter().enumerate().map(|(i, t)| ScalarExpr::read(i, t.dtype)).collect();
        Body::Map(Map::elementwise(&results[0].extents(), operands.len(), vec![self.apply(&leaves)]))
    }

    fn vjp(&self, cx: &Vjp<'_>) -> Gradient {
        match self.row().derivative {
            Ok(derivative) => formula_gradient(cx, derivative),
            Err(reason) => Gradient::NonDifferentiable(reason),
        }
    }
}

/// Turns the derivative of an elementwise op into nodes.
pub(crate) fn formula_gradient(
    cx: &Vjp<'_>,
    derivative: impl Fn(&[ScalarExpr], &ScalarExpr, &ScalarExpr) -> Vec<Option<ScalarExpr>>,
) -> Gradient {
    let Some(Some(dy)) = cx.cotangents.first() else {
        return Gradient::Operands(vec![None; cx.operands.len()]);
    };
    let leaves: Vec<_> = cx.operands.iter().chain([&cx.results[0], dy]).cloned().collect();
    let reads: Vec<ScalarExpr> = leaves.iter().enumerate().map(|(i, t)| ScalarExpr::read(i, t.dtype())).collect();
    let (operands, rest) = reads.split_at(cx.operands.len());
    let cotangents = derivative(operands, &rest[0], &rest[1]);
    Gradient::Operands(cotangents.into_iter().map(|e| e.map(|e| dy.formula(&e, &leaves))).collect())
}
