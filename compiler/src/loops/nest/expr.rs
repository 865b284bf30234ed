//! Expressions of a nest: a pool in which equal nodes are one node.

use kiln_ir::DType;
use kiln_ir::scalar::{BinaryFn, CompareFn, Number, UnaryFn};

use super::{Index, Local, LoopNest, Place};

/// Number of a node in the pool of its nest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Expr(pub u32);

/// One node; its type stands beside it in the pool. Functions mean what `kiln_ir::scalar` says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExprNode {
    /// A constant of the node's type.
    Literal(Number),
    /// Value of a local.
    Local(Local),
    /// An index as `i64`.
    Index(Index),
    /// `0 <= index < limit` as `bool`.
    InRange(Index, i64),
    /// Element of a place.
    Load(Place, Index),
    /// Element of a place if the condition holds, else `otherwise`; the place is not touched outside.
    GuardedLoad {
        /// Where.
        place: Place,
        /// Which element, in range if `condition` holds.
        index: Index,
        /// A `bool`.
        condition: Expr,
        /// Value if not.
        otherwise: Expr,
    },
    /// `f(x)`.
    Unary(UnaryFn, Expr),
    /// `f(a, b)`.
    Binary(BinaryFn, Expr, Expr),
    /// `a * b + c` of floats, rounded once where the machine can; for sums of products.
    MulAdd(Expr, Expr, Expr),
    /// `a ? b` as `bool`.
    Compare(CompareFn, Expr, Expr),
    /// `condition ? then : otherwise`; both are evaluated.
    Select(Expr, Expr, Expr),
    /// The value in the node's type.
    Cast(Expr),
    /// The 32 bits of an `f32` as `u32`, or the other way.
    Bits(Expr),
    /// First word of Philox4x32-10 as `u32`; counter and position are `i64`.
    Philox {
        /// Stream.
        key: u64,
        /// How often the op has run.
        counter: Expr,
        /// Position of the element.
        position: Expr,
    },
}

impl ExprNode {
    /// The operands.
    pub fn children(&self) -> impl Iterator<Item = Expr> {
        let (a, b, c) = match *self {
            ExprNode::Literal(_)
            | ExprNode::Local(_)
            | ExprNode::Index(_)
            | ExprNode::InRange(..)
            | ExprNode::Load(..) => (None, None, None),
            ExprNode::Unary(_, x) | ExprNode::Cast(x) | ExprNode::Bits(x) => (Some(x), None, None),
            ExprNode::Binary(_, x, y) | ExprNode::Compare(_, x, y) => (Some(x), Some(y), None),
            ExprNode::Philox { counter, position, .. } => (Some(counter), Some(position), None),
            ExprNode::GuardedLoad { condition, otherwise, .. } => (Some(condition), Some(otherwise), None),
            ExprNode::MulAdd(x, y, z) | ExprNode::Select(x, y, z) => (Some(x), Some(y), Some(z)),
        };
        a.into_iter().chain(b).chain(c)
    }

    /// The index, if there is one.
    pub fn index(&self) -> Option<&Index> {
        match self {
            ExprNode::Index(index)
            | ExprNode::InRange(index, _)
            | ExprNode::Load(_, index)
            | ExprNode::GuardedLoad { index, .. } => Some(index),
            _ => None,
        }
    }
}

impl LoopNest {
    /// Node of an expression.
    ///
    /// # Panics
    /// If the number is of another nest; [`LoopNest::check`] finds that.
    pub fn node(&self, expr: Expr) -> &ExprNode {
        &self.exprs[expr.0 as usize].0
    }

    /// Type of an expression.
    ///
    /// # Panics
    /// As [`LoopNest::node`].
    pub fn dtype(&self, expr: Expr) -> DType {
        self.exprs[expr.0 as usize].1
    }
}
