//! What an op computes, as data.
//!
//! *Map* is the one form behind elementwise ops, views, reductions, contractions and windows: `out[p] = combine over r
//! of expr(reads)`. The reference evaluator, the loop builder and the spec read it; nothing else says what an op means.

use smallvec::SmallVec;

use crate::graph::Graph;
use crate::scalar::{Number, ScalarExpr};
use crate::types::{DType, Extents};

/// The meaning of one node.
#[derive(Clone, Debug)]
pub enum Body {
    /// A map from an index space to values.
    Map(Map),
    /// Push form: every position of a domain is combined into a place of the result, in row-major order.
    Scatter(Scatter),
    /// The meaning is the node's own region.
    Region,
    /// The meaning is this graph of simpler ops: parameters are the operands, returns are the results.
    Composite(Box<Graph>),
    /// No meaning of its own: a pass replaces the node before anything runs (`gradient`).
    Expanded,
}

/// `out[p] = combine over r of expr(reads)`.
///
/// Dimensions are numbered parallel first, then reduction. The elements of every result, in row-major order, are the
/// points of `parallel` in row-major order: the extents are equal, or `parallel` splits or joins dimensions of the
/// result (the channels of a grouped convolution are two parallel dimensions).
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// Extents of the parallel dimensions p.
    pub parallel: Extents,
    /// Extents of the reduction dimensions r; an empty range gives the neutral element.
    pub reduce: Extents,
    /// Where operands are read.
    pub reads: Vec<Read>,
    /// One expression per result. Values are combined in the expression's type; where the result has another one, what
    /// comes out is cast to it.
    pub exprs: Vec<ScalarExpr>,
    /// How the values over r become one.
    pub combine: Combine,
}

/// Combination over the reduction dimensions, in row-major order of r.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Combine {
    /// No reduction dimensions.
    None,
    /// Each result on its own.
    Each(Monoid),
    /// Two results: the largest first expression, and the second expression at the first place where it occurs.
    /// A NaN wins over every number. An empty range gives the neutral element of the maximum, and 0.
    ArgMax,
    /// As [`Combine::ArgMax`] with the smallest; a NaN wins here too.
    ArgMin,
}

/// An associative operation with a neutral element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Monoid {
    /// Addition from 0.
    Sum,
    /// Multiplication from 1.
    Prod,
    /// Maximum from the smallest value (-inf).
    Max,
    /// Minimum from the largest value (inf).
    Min,
    /// Conjunction from true.
    And,
    /// Disjunction from false.
    Or,
}

impl Monoid {
    /// The neutral element in `dtype`.
    pub fn neutral(self, dtype: DType) -> Number {
        let (lowest, highest) = range(dtype);
        match self {
            Monoid::Sum | Monoid::Or => Number::Int(0).to_dtype(dtype),
            Monoid::Prod => Number::Int(1).to_dtype(dtype),
            Monoid::And if dtype == DType::Bool => Number::Int(1),
            Monoid::And => Number::Int(-1),
            Monoid::Max => lowest,
            Monoid::Min => highest,
        }
    }

    /// The binary function that combines two values.
    pub fn function(self) -> crate::scalar::BinaryFn {
        use crate::scalar::BinaryFn;
        match self {
            Monoid::Sum => BinaryFn::Add,
            Monoid::Prod => BinaryFn::Mul,
            Monoid::Max => BinaryFn::Max,
            Monoid::Min => BinaryFn::Min,
            Monoid::And => BinaryFn::And,
            Monoid::Or => BinaryFn::Or,
        }
    }
}

/// Smallest and largest value of a type; infinities for floats.
pub fn range(dtype: DType) -> (Number, Number) {
    let int = |a: i64, b: i64| (Number::Int(a), Number::Int(b));
    match dtype {
        DType::F32 | DType::F64 | DType::Bf16 | DType::F16 => {
            (Number::Float(f64::NEG_INFINITY), Number::Float(f64::INFINITY))
        }
        DType::I8 => int(i8::MIN.into(), i8::MAX.into()),
        DType::U8 => int(0, u8::MAX.into()),
        DType::I32 => int(i32::MIN.into(), i32::MAX.into()),
        DType::U32 => int(0, u32::MAX.into()),
        DType::I64 => int(i64::MIN, i64::MAX),
        DType::Bool => int(0, 1),
    }
}

/// One read of an operand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Read {
    /// Number of the operand.
    pub operand: usize,
    /// Extents under which the operand is read, its elements in row-major order; `None` for its own.
    pub view: Option<Extents>,
    /// One index per dimension of the operand, or of the view.
    pub index: SmallVec<[IndexExpr; 4]>,
    /// Value for positions outside the operand; `None` promises that there are none.
    pub outside: Option<Number>,
}

/// Index along one dimension of an operand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IndexExpr {
    /// Computed from the dimensions of the body.
    Affine(Affine),
    /// Loaded from an integer operand; checked when it runs: out of range, the kernel sets its status and the run ends.
    Load {
        /// Number of the integer operand.
        operand: usize,
        /// Where in it.
        index: Vec<Affine>,
    },
}

/// `(sum coefficient * dim + offset) / divisor`, outside where not divisible.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Affine {
    /// `(dimension, coefficient)`, sorted by dimension, no zero coefficient.
    pub terms: SmallVec<[(usize, i64); 2]>,
    /// Constant term.
    pub offset: i64,
    /// At least 1.
    pub divisor: i64,
}

impl Affine {
    /// Position along `dim`.
    pub fn dim(dim: usize) -> Affine {
        Affine::new([(dim, 1)], 0)
    }

    /// A constant.
    pub fn constant(offset: i64) -> Affine {
        Affine::new([], offset)
    }

    /// `sum coefficient * dim + offset`.
    pub fn new(terms: impl IntoIterator<Item = (usize, i64)>, offset: i64) -> Affine {
        let mut sorted: SmallVec<[(usize, i64); 2]> = SmallVec::new();
        for (dim, coefficient) in terms {
            match sorted.iter_mut().find(|(d, _)| *d == dim) {
                Some((_, c)) => *c += coefficient,
                None => sorted.push((dim, coefficient)),
            }
        }
        sorted.retain(|(_, c)| *c != 0);
        sorted.sort_unstable();
        Affine { terms: sorted, offset, divisor: 1 }
    }

    /// Exact division: where the quotient is not whole, the position is outside.
    pub fn divided_by(mut self, divisor: i64) -> Affine {
        self.divisor *= divisor;
        self
    }

    /// The index at a point, or `None` where the division is not exact.
    pub fn at(&self, point: &[usize]) -> Option<i64> {
        let sum = self.terms.iter().fold(self.offset, |sum, &(dim, c)| sum + c * point[dim] as i64);
        (sum % self.divisor == 0).then(|| sum / self.divisor)
    }

    /// Smallest and largest value of the dividend over dimensions of the given extents.
    pub fn bounds(&self, extents: &[usize]) -> (i64, i64) {
        let (mut low, mut high) = (self.offset, self.offset);
        for &(dim, c) in &self.terms {
            let last = c * (extents[dim] as i64 - 1).max(0);
            low += last.min(0);
            high += last.max(0);
        }
        (low, high)
    }

    /// The coefficient of `dim`.
    pub fn coefficient(&self, dim: usize) -> i64 {
        self.terms.iter().find(|(d, _)| *d == dim).map_or(0, |&(_, c)| c)
    }
}

impl From<Affine> for IndexExpr {
    fn from(affine: Affine) -> IndexExpr {
        IndexExpr::Affine(affine)
    }
}

/// Push form: `out[target(p)] = combine(out[target(p)], expr(p))` for every p in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Scatter {
    /// Extents of the positions p.
    pub domain: Extents,
    /// Operand that the result starts from, of the result's type.
    pub initial: usize,
    /// Place in the result, one index per dimension; loaded indices are checked.
    pub target: Vec<IndexExpr>,
    /// Where operands are read.
    pub reads: Vec<Read>,
    /// The value that is combined in.
    pub expr: ScalarExpr,
    /// How.
    pub monoid: Monoid,
}

impl Map {
    /// An elementwise map of operands that all have the result's extents. `exprs` read operand `i` as read `i`.
    pub fn elementwise(extents: &[usize], operands: usize, exprs: Vec<ScalarExpr>) -> Map {
        let reads = (0..operands).map(|operand| Read::identity(operand, extents.len())).collect();
        Map { parallel: extents.into(), reduce: Extents::new(), reads, exprs, combine: Combine::None }
    }

    /// A map that moves elements: one read, no arithmetic.
    pub fn movement(extents: &[usize], dtype: DType, read: Read) -> Map {
        Map {
            parallel: extents.into(),
            reduce: Extents::new(),
            reads: vec![read],
            exprs: vec![ScalarExpr::read(0, dtype)],
            combine: Combine::None,
        }
    }

    /// Extents of all dimensions, parallel first.
    pub fn extents(&self) -> Extents {
        self.parallel.iter().chain(&self.reduce).copied().collect()
    }

    /// Whether every result element depends on the operands' elements at its own position only.
    pub fn is_elementwise(&self) -> bool {
        self.reduce.is_empty() && self.reads.iter().all(|read| read.is_identity(self.parallel.len()))
    }

    /// The two reads of a contraction: a sum of products of two reads, each perhaps cast to the type of the sum, without
    /// loaded indices.
    pub fn as_contract(&self) -> Option<(&Read, &Read)> {
        use crate::scalar::{BinaryFn, ScalarNode};
        let [expr] = self.exprs.as_slice() else { return None };
        let ScalarNode::Binary(BinaryFn::Mul, a, b) = expr.node() else { return None };
        let (a, b) = (read_of(a)?, read_of(b)?);
        let affine = |read: &Read| read.index.iter().all(|i| matches!(i, IndexExpr::Affine(_)));
        let contracts = self.combine == Combine::Each(Monoid::Sum)
            && matches!(expr.dtype(), DType::F32 | DType::F64 | DType::I32)
            && [a, b].into_iter().all(|r| affine(&self.reads[r]));
        contracts.then(|| (&self.reads[a], &self.reads[b]))
    }
}

/// The read behind an expression that is one, or casts one.
fn read_of(expr: &ScalarExpr) -> Option<usize> {
    use crate::scalar::ScalarNode;
    match expr.node() {
        ScalarNode::Read(read) => Some(*read),
        ScalarNode::Cast(inner) => match inner.node() {
            ScalarNode::Read(read) => Some(*read),
            _ => None,
        },
        _ => None,
    }
}

impl Read {
    /// The operand's element at the position itself.
    pub fn identity(operand: usize, rank: usize) -> Read {
        Read::inside(operand, (0..rank).map(Affine::dim))
    }

    /// A read that is never outside.
    pub fn inside(operand: usize, index: impl IntoIterator<Item = Affine>) -> Read {
        Read { operand, view: None, index: index.into_iter().map(IndexExpr::Affine).collect(), outside: None }
    }

    /// The same read of the operand reshaped to `extents`.
    pub fn viewed(mut self, extents: &[usize]) -> Read {
        self.view = Some(extents.into());
        self
    }

    /// A read that yields `value` outside the operand.
    pub fn or(mut self, value: impl Into<Number>) -> Read {
        self.outside = Some(value.into());
        self
    }

    /// Whether the index is the position itself, of the operand as it is.
    pub fn is_identity(&self, rank: usize) -> bool {
        self.view.is_none()
            && self.index.len() == rank
            && self.index.iter().enumerate().all(|(i, index)| *index == IndexExpr::Affine(Affine::dim(i)))
    }
}
