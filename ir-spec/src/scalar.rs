//! Scalar expressions: what one element of a result is, as data.
//!
//! The reference evaluator, the differentiator and the loop builder all read these trees, so a formula is written
//! once. Every node carries its element type; literals take the type of what they are combined with.

use std::ops;
use std::sync::Arc;

use crate::types::DType;

/// A literal: exact for every integer type and every float up to binary64.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// Value of a float type.
    Float(f64),
    /// Value of an integer type or of `bool` (0 or 1).
    Int(i64),
}

impl Number {
    /// The number as the nearest value of `dtype`.
    pub fn to_dtype(self, dtype: DType) -> Number {
        if dtype.is_float() {
            let value = self.to_f64();
            Number::Float(if dtype == DType::F32 { f64::from(value as f32) } else { value })
        } else {
            Number::Int(self.to_i64())
        }
    }

    /// The number as binary64.
    pub fn to_f64(self) -> f64 {
        match self {
            Number::Float(value) => value,
            Number::Int(value) => value as f64,
        }
    }

    /// The number as an integer, truncated towards zero.
    pub fn to_i64(self) -> i64 {
        match self {
            Number::Float(value) => value as i64,
            Number::Int(value) => value,
        }
    }
}

/// Same kind and same bits; NaN equals itself and 0.0 differs from -0.0.
impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        match (self, other) {
            (Number::Float(a), Number::Float(b)) => a.to_bits() == b.to_bits(),
            (Number::Int(a), Number::Int(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Number {}

impl std::hash::Hash for Number {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self {
            Number::Float(value) => value.to_bits().hash(state),
            Number::Int(value) => value.hash(state),
        }
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number::Float(value)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        Number::Int(value)
    }
}

/// Functions of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnaryFn {
    /// `-x`; wraps for integers.
    Neg,
    /// `|x|`; wraps for integers.
    Abs,
    /// -1, 0 or 1; NaN for NaN.
    Sign,
    /// `e^x`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root.
    Sqrt,
    /// `1 / sqrt(x)`.
    Rsqrt,
    /// Sine of radians.
    Sin,
    /// Cosine of radians.
    Cos,
    /// Hyperbolic tangent.
    Tanh,
    /// Error function.
    Erf,
    /// Largest integer not above x.
    Floor,
    /// Smallest integer not below x.
    Ceil,
    /// Nearest integer, ties to even.
    Round,
    /// Complement: logical for bool, bitwise for integers.
    Not,
}

/// Functions of two numbers of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BinaryFn {
    /// `a + b`; wraps for integers.
    Add,
    /// `a - b`; wraps for integers.
    Sub,
    /// `a * b`; wraps for integers.
    Mul,
    /// `a / b`; integers truncate towards zero, `a / 0 = -1` (all bits set), `MIN / -1 = MIN`.
    Div,
    /// Remainder with the sign of `a`; for integers `a % 0 = a`, `MIN % -1 = 0`.
    Rem,
    /// `a^b`, floats only.
    Pow,
    /// The larger; NaN if either is NaN.
    Max,
    /// The smaller; NaN if either is NaN.
    Min,
    /// Conjunction: logical for bool, bitwise for integers.
    And,
    /// Disjunction.
    Or,
    /// Exclusive disjunction.
    Xor,
    /// Shift left by `b` modulo the width.
    Shl,
    /// Shift right by `b` modulo the width; arithmetic for signed types.
    Shr,
}

/// Comparisons; with a NaN all are false but `Ne`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CompareFn {
    /// `a = b`.
    Eq,
    /// `a != b`.
    Ne,
    /// `a < b`.
    Lt,
    /// `a <= b`.
    Le,
    /// `a > b`.
    Gt,
    /// `a >= b`.
    Ge,
}

/// A scalar expression with its element type. Cloning shares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScalarExpr {
    dtype: DType,
    node: Arc<ScalarNode>,
}

/// One node of a [`ScalarExpr`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ScalarNode {
    /// Element of the body's read with this number.
    Read(usize),
    /// A constant.
    Literal(Number),
    /// Position along a dimension of the body, parallel dimensions first, as `i64`.
    Index(usize),
    /// `f(x)`.
    Unary(UnaryFn, ScalarExpr),
    /// `f(a, b)`, both of the node's type.
    Binary(BinaryFn, ScalarExpr, ScalarExpr),
    /// `a ? b`, both of one type; the node is `bool`.
    Compare(CompareFn, ScalarExpr, ScalarExpr),
    /// `condition ? then : otherwise`.
    Select(ScalarExpr, ScalarExpr, ScalarExpr),
    /// The value in the node's type: float to integer truncates and saturates, NaN becomes 0; integers wrap;
    /// to bool is `!= 0`.
    Cast(ScalarExpr),
    /// First word of Philox4x32-10 (Salmon et al., SC 2011) with key `key` and counter `(position, counter)`, both
    /// `i64`; the node is `u32`.
    Philox {
        /// Stream of the random op, a function of its name.
        key: u64,
        /// How often the op has run.
        counter: ScalarExpr,
        /// Linear position of the element.
        position: ScalarExpr,
    },
}

impl ScalarExpr {
    /// Element type of the value.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The node.
    pub fn node(&self) -> &ScalarNode {
        &self.node
    }

    /// Address of the shared node: equal for clones, a cheap key for caches within one traversal.
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.node) as usize
    }

    fn new(dtype: DType, node: ScalarNode) -> ScalarExpr {
        ScalarExpr { dtype, node: Arc::new(node) }
    }

    /// Element of read number `read`.
    pub fn read(read: usize, dtype: DType) -> ScalarExpr {
        ScalarExpr::new(dtype, ScalarNode::Read(read))
    }

    /// A constant of `dtype`.
    pub fn literal(value: impl Into<Number>, dtype: DType) -> ScalarExpr {
        ScalarExpr::new(dtype, ScalarNode::Literal(value.into().to_dtype(dtype)))
    }

    /// Position along dimension `dim`.
    pub fn index(dim: usize) -> ScalarExpr {
        ScalarExpr::new(DType::I64, ScalarNode::Index(dim))
    }

    /// `f(self)`.
    pub fn unary(self, function: UnaryFn) -> ScalarExpr {
        ScalarExpr::new(self.dtype, ScalarNode::Unary(function, self))
    }

    /// `f(self, other)`.
    pub fn binary(self, function: BinaryFn, other: ScalarExpr) -> ScalarExpr {
        ScalarExpr::new(self.dtype, ScalarNode::Binary(function, self, other))
    }

    /// `self ? other` as bool.
    pub fn compare(self, function: CompareFn, other: ScalarExpr) -> ScalarExpr {
        ScalarExpr::new(DType::Bool, ScalarNode::Compare(function, self, other))
    }

    /// `self ? then : otherwise`.
    pub fn select(self, then: ScalarExpr, otherwise: ScalarExpr) -> ScalarExpr {
        ScalarExpr::new(then.dtype, ScalarNode::Select(self, then, otherwise))
    }

    /// The value as `dtype`.
    pub fn cast(self, dtype: DType) -> ScalarExpr {
        if self.dtype == dtype { self } else { ScalarExpr::new(dtype, ScalarNode::Cast(self)) }
    }

    /// Random bits, see [`ScalarNode::Philox`].
    pub fn philox(key: u64, counter: ScalarExpr, position: ScalarExpr) -> ScalarExpr {
        ScalarExpr::new(DType::U32, ScalarNode::Philox { key, counter, position })
    }

    /// The operands of the node.
    pub fn children(&self) -> impl Iterator<Item = &ScalarExpr> {
        let (a, b, c) = match &*self.node {
            ScalarNode::Read(_) | ScalarNode::Literal(_) | ScalarNode::Index(_) => (None, None, None),
            ScalarNode::Unary(_, x) | ScalarNode::Cast(x) => (Some(x), None, None),
            ScalarNode::Binary(_, x, y) | ScalarNode::Compare(_, x, y) => (Some(x), Some(y), None),
            ScalarNode::Philox { counter, position, .. } => (Some(counter), Some(position), None),
            ScalarNode::Select(x, y, z) => (Some(x), Some(y), Some(z)),
        };
        a.into_iter().chain(b).chain(c)
    }

    /// The expression with its leaves (reads, literals, indices) replaced by `leaf`.
    pub fn substitute(&self, leaf: &mut dyn FnMut(&ScalarExpr) -> ScalarExpr) -> ScalarExpr {
        let mut sub = |x: &ScalarExpr| x.substitute(leaf);
        match &*self.node {
            ScalarNode::Read(_) | ScalarNode::Literal(_) | ScalarNode::Index(_) => leaf(self),
            ScalarNode::Unary(f, x) => sub(x).unary(*f),
            ScalarNode::Binary(f, x, y) => sub(x).binary(*f, sub(y)),
            ScalarNode::Compare(f, x, y) => sub(x).compare(*f, sub(y)),
            ScalarNode::Select(c, x, y) => sub(c).select(sub(x), sub(y)),
            ScalarNode::Cast(x) => sub(x).cast(self.dtype),
            ScalarNode::Philox { key, counter, position } => ScalarExpr::philox(*key, sub(counter), sub(position)),
        }
    }
}

/// Formulas in the op table read as in a book: these are their words.
macro_rules! functions {
    ($($name:ident: $function:ident),*) => {
        $(#[doc = concat!("[`UnaryFn::", stringify!($function), "`] of `x`.")]
        pub fn $name(x: impl Into<ScalarExpr>) -> ScalarExpr {
            x.into().unary(UnaryFn::$function)
        })*
    };
}

functions! {
    abs: Abs, sign: Sign, exp: Exp, log: Log, sqrt: Sqrt, rsqrt: Rsqrt, sin: Sin, cos: Cos, tanh: Tanh, erf: Erf,
    floor: Floor, ceil: Ceil, round: Round, not: Not
}

/// An operand of a formula: an expression, or a literal that takes the other operand's type.
pub trait Term {
    /// The expression, given the type of the other operand.
    fn term(self, other: DType) -> ScalarExpr;
}

impl Term for ScalarExpr {
    fn term(self, _: DType) -> ScalarExpr {
        self
    }
}

impl Term for &ScalarExpr {
    fn term(self, _: DType) -> ScalarExpr {
        self.clone()
    }
}

impl Term for f64 {
    fn term(self, other: DType) -> ScalarExpr {
        ScalarExpr::literal(self, other)
    }
}

impl From<&ScalarExpr> for ScalarExpr {
    fn from(expr: &ScalarExpr) -> ScalarExpr {
        expr.clone()
    }
}

macro_rules! binary_functions {
    ($($name:ident: $function:ident),*) => {
        $(#[doc = concat!("[`BinaryFn::", stringify!($function), "`] of `a` and `b`.")]
        pub fn $name(a: impl Into<ScalarExpr>, b: impl Term) -> ScalarExpr {
            let a = a.into();
            let b = b.term(a.dtype());
            a.binary(BinaryFn::$function, b)
        })*
    };
}

binary_functions! {
    rem: Rem, pow: Pow, max: Max, min: Min, and: And, or: Or, xor: Xor, shl: Shl, shr: Shr
}

macro_rules! comparisons {
    ($($name:ident: $function:ident),*) => {
        $(#[doc = concat!("[`CompareFn::", stringify!($function), "`] of `a` and `b`.")]
        pub fn $name(a: impl Into<ScalarExpr>, b: impl Term) -> ScalarExpr {
            let a = a.into();
            let b = b.term(a.dtype());
            a.compare(CompareFn::$function, b)
        })*
    };
}

comparisons! { eq: Eq, ne: Ne, lt: Lt, le: Le, gt: Gt, ge: Ge }

/// `condition ? then : otherwise`.
pub fn select(condition: impl Into<ScalarExpr>, then: impl Into<ScalarExpr>, otherwise: impl Term) -> ScalarExpr {
    let then = then.into();
    let otherwise = otherwise.term(then.dtype());
    condition.into().select(then, otherwise)
}

macro_rules! operators {
    ($($trait:ident $method:ident $function:ident),*) => {
        $(
            impl<T: Term> ops::$trait<T> for ScalarExpr {
                type Output = ScalarExpr;
                fn $method(self, other: T) -> ScalarExpr {
                    let other = other.term(self.dtype());
                    self.binary(BinaryFn::$function, other)
                }
            }
            impl<T: Term> ops::$trait<T> for &ScalarExpr {
                type Output = ScalarExpr;
                fn $method(self, other: T) -> ScalarExpr {
                    ops::$trait::$method(self.clone(), other)
                }
            }
            impl ops::$trait<ScalarExpr> for f64 {
                type Output = ScalarExpr;
                fn $method(self, other: ScalarExpr) -> ScalarExpr {
                    ScalarExpr::literal(self, other.dtype()).binary(BinaryFn::$function, other)
                }
            }
            impl ops::$trait<&ScalarExpr> for f64 {
                type Output = ScalarExpr;
                fn $method(self, other: &ScalarExpr) -> ScalarExpr {
                    ops::$trait::$method(self, other.clone())
                }
            }
        )*
    };
}

operators! { Add add Add, Sub sub Sub, Mul mul Mul, Div div Div }

impl ops::Neg for ScalarExpr {
    type Output = ScalarExpr;
    fn neg(self) -> ScalarExpr {
        self.unary(UnaryFn::Neg)
    }
}

impl ops::Neg for &ScalarExpr {
    type Output = ScalarExpr;
    fn neg(self) -> ScalarExpr {
        -self.clone()
    }
}
