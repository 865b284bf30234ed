//! The loop nest of one kernel: a small structured language of loops, loads and stores.
//!
//! A nest is executed for every tile of `0..tiles`, in any order and on any thread; the predefined variable
//! [`Var::TILE`] is the number of the tile. Two tiles must not write the same element. The body is a list of
//! [`Stmt`]s; an [`Expr`] is a number of a node in the nest's pool, in which equal nodes are one node.
//!
//! Rules, checked by [`LoopNest::check`]:
//! - a variable is bound by one enclosing loop; a local is defined once, by a `Let` or as an accumulator of a loop, and
//!   is visible after its `Let` to the end of that statement list, or in the loop and after it;
//! - only accumulators of an enclosing loop are `Set`;
//! - operands of a function have one type, conditions are `bool`, values of checks are `i64`;
//! - a `Load` is in range whenever its statement runs; [`NestBuilder::guarded_load`] tests first.
//!
//! Expressions are evaluated where their statement stands, each node once per statement. The emitter may move a load out
//! of loops that do not write its place. Two buffers may lie in the same memory (in place) only if every element is
//! loaded in the same loop iteration as, and before, the store to that element.
//!
//! A `vector` loop says that its iterations are independent but for its accumulators, whose [`Accumulator::combine`] is
//! taken over a number of partial values fixed by the nest and the width of the machine's vectors (lanes times `unroll`).
//! At four lanes, elements past the last whole vector are computed one by one; at sixteen, by one vector under a mask; in
//! both cases with the bits of whole vectors. Whatever cannot be done in lanes (checks, calls, conditions that differ
//! between lanes, `combine: None`) makes the emitter run the loop one by one: never an error.
//!
//! # Example: softmax of a row, three stages over one row of scratch
//!
//! ```
//! use kiln::loops::nest::{Access, Index, Loop, NestBuilder, Var};
//! use kiln_ir::DType::F32;
//! use kiln_ir::scalar::{BinaryFn::{Add, Div, Max, Sub}, UnaryFn::Exp};
//!
//! let (rows, columns) = (32, 10);
//! let n = NestBuilder::new("softmax");
//! let x = n.buffer("x", F32, rows * columns, Access::Read);
//! let y = n.buffer("y", F32, rows * columns, Access::Write);
//! let e = n.scratch("e", F32, columns);
//! let (j, k, l) = (n.var("j"), n.var("k"), n.var("l"));
//! let (largest, sum) = (n.local("largest", F32), n.local("sum", F32));
//! let at = |column| Index::var(Var::TILE) * columns as i64 + Index::var(column);
//!
//! let stage1 = Loop::over(j, columns)
//!     .vector()
//!     .accumulate(largest, n.literal(f64::NEG_INFINITY, F32), Max)
//!     .body(vec![n.set(largest, n.binary(Max, n.value(largest), n.load(x, at(j))))]);
//! let exp = n.unary(Exp, n.binary(Sub, n.load(x, at(k)), n.value(largest)));
//! let stage2 = Loop::over(k, columns).vector().accumulate(sum, n.literal(0.0, F32), Add).body(vec![
//!     n.store(e, Index::var(k), exp),
//!     n.set(sum, n.binary(Add, n.value(sum), exp)),
//! ]);
//! let quotient = n.binary(Div, n.load(e, Index::var(l)), n.value(sum));
//! let stage3 = Loop::over(l, columns).vector().body(vec![n.store(y, at(l), quotient)]);
//! let nest = n.finish(rows as u64, vec![stage1, stage2, stage3]);
//!
//! nest.check().unwrap();
//! assert_eq!(nest.to_string(), "\
//! nest softmax tiles 32 {
//!   read x: f32[320]
//!   write y: f32[320]
//!   scratch e: f32[10]
//!   vector for j in 0..10 with largest: f32 = -inf by max {
//!     set largest = max(largest, x[tile*10 + j])
//!   }
//!   vector for k in 0..10 with sum: f32 = 0.0 by add {
//!     e[k] = exp(sub(x[tile*10 + k], largest))
//!     set sum = add(sum, exp(sub(x[tile*10 + k], largest)))
//!   }
//!   vector for l in 0..10 {
//!     y[tile*10 + l] = div(e[l], sum)
//!   }
//! }
//! ");
//! ```

mod build;
mod check;
mod expr;
mod half;
mod index;

use std::num::NonZeroU32;

use kiln_ir::DType;
use kiln_ir::scalar::BinaryFn;

pub use build::NestBuilder;
pub use check::NestError;
pub use expr::{Expr, ExprNode};
pub use index::{Atom, Index};

/// One kernel. Built by [`NestBuilder`], printed by `Display`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoopNest {
    /// Name in dumps and messages; no part of what the kernel does.
    pub name: String,
    /// Memory that the caller passes, in the order of the table slots.
    pub buffers: Vec<BufferDecl>,
    /// Per-worker memory, laid out by [`LoopNest::scratch_offsets`].
    pub scratch: Vec<ScratchDecl>,
    /// Functions that the kernel calls, in the order of the table slots.
    pub helpers: Vec<HelperDecl>,
    /// Number of parallel tiles, a function of shapes only.
    pub tiles: u64,
    /// Names of the variables; number 0 is the tile.
    pub vars: Vec<String>,
    /// Names and types of the locals.
    pub locals: Vec<LocalDecl>,
    /// The pool that [`Expr`]s are numbers of; operands come before their users.
    pub exprs: Vec<(ExprNode, DType)>,
    /// What is done for one tile.
    pub body: Vec<Stmt>,
}

/// Memory that the caller passes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BufferDecl {
    /// Name in dumps.
    pub name: String,
    /// Type of one element.
    pub dtype: DType,
    /// Number of elements.
    pub elements: usize,
    /// What the kernel does with it.
    pub access: Access,
}

/// What a kernel does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Only loads.
    Read,
    /// Only stores.
    Write,
    /// Both.
    ReadWrite,
}

/// Memory of the worker that runs a tile; undefined when the tile begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScratchDecl {
    /// Name in dumps.
    pub name: String,
    /// Type of one element.
    pub dtype: DType,
    /// Number of elements.
    pub elements: usize,
}

/// An `extern "C"` function without result whose parameters are all `i64` or pointers. It must not unwind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HelperDecl {
    /// Name by which the runtime finds its address.
    pub name: String,
}

/// A named value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocalDecl {
    /// Name in dumps.
    pub name: String,
    /// Its type.
    pub dtype: DType,
}

/// Number of a loop variable, an `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Var(pub u32);

impl Var {
    /// The tile that runs.
    pub const TILE: Var = Var(0);
}

/// Number of a local.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Local(pub u32);

/// Number of a helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Helper(pub u32);

/// Where elements lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Buffer with this number.
    Buffer(u32),
    /// Scratch with this number.
    Scratch(u32),
}

/// One step of a nest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stmt {
    /// Repeats its body.
    Loop(Loop),
    /// Defines a local.
    Let {
        /// The local.
        local: Local,
        /// Its value.
        value: Expr,
    },
    /// Gives an accumulator of an enclosing loop its next value, usually `combine(accumulator, something)`.
    Set {
        /// The accumulator.
        local: Local,
        /// Its next value; may read the current one.
        value: Expr,
    },
    /// Writes one element.
    Store {
        /// Where.
        place: Place,
        /// Which element.
        index: Index,
        /// The element, of the place's type.
        value: Expr,
    },
    /// Runs one of two lists.
    If {
        /// A `bool`.
        condition: Expr,
        /// If it is true.
        then: Vec<Stmt>,
        /// If it is false.
        otherwise: Vec<Stmt>,
    },
    /// Runs `body` if `0 <= value < limit`. If not, skips it and, unless the status already holds an error, writes the
    /// three `i64` words of the status: `[site, value, position]`.
    Check {
        /// An `i64`.
        value: Expr,
        /// First value that is too large.
        limit: i64,
        /// Which check of the program this is.
        site: NonZeroU32,
        /// Linear position of the checked element, for the message.
        position: Index,
        /// What the check guards.
        body: Vec<Stmt>,
    },
    /// Calls a helper. It may write every place whose address it gets.
    Call {
        /// The function.
        helper: Helper,
        /// Its arguments.
        args: Vec<Arg>,
    },
}

/// Argument of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Arg {
    /// Pointer to an element.
    Address {
        /// Where.
        place: Place,
        /// Which element; one past the end is allowed.
        index: Index,
    },
    /// An `i64`.
    Int(Index),
}

/// A counted loop: `var` takes `begin, begin + step, ...` below `end`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Loop {
    /// The variable.
    pub var: Var,
    /// First value.
    pub begin: Index,
    /// First value not taken.
    pub end: Index,
    /// Positive distance of values.
    pub step: i64,
    /// Iterations are independent but for accumulators: may run in lanes. Needs `step = 1`.
    pub vector: bool,
    /// How many copies of the body (vectors, if in lanes) one round takes; 0 leaves it to the emitter. With floating
    /// point accumulators in lanes it decides the order of combination, so it is part of what the nest computes.
    pub unroll: u32,
    /// Values carried from one iteration to the next.
    pub accumulators: Vec<Accumulator>,
    /// What is repeated.
    pub body: Vec<Stmt>,
}

/// A value carried through a loop; after the loop the local is its last value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Accumulator {
    /// Current value, also the result after the loop.
    pub local: Local,
    /// Value before the first iteration.
    pub init: Expr,
    /// How partial values are combined: add, mul, max, min, and, or. `None` carries a value whose order matters (the
    /// pair of an argmax), which keeps the loop out of lanes.
    pub combine: Option<BinaryFn>,
}

impl Loop {
    /// `for var in 0..end`, step 1, not in lanes.
    pub fn over(var: Var, end: impl Into<Index>) -> Loop {
        Loop::range(var, Index::constant(0), end)
    }

    /// `for var in begin..end`, step 1, not in lanes.
    pub fn range(var: Var, begin: impl Into<Index>, end: impl Into<Index>) -> Loop {
        Loop {
            var,
            begin: begin.into(),
            end: end.into(),
            step: 1,
            vector: false,
            unroll: 0,
            accumulators: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Iterations are independent: may run in lanes.
    pub fn vector(self) -> Loop {
        Loop { vector: true, ..self }
    }

    /// Copies of the body per round.
    pub fn unroll(self, unroll: u32) -> Loop {
        Loop { unroll, ..self }
    }

    /// Distance of values.
    pub fn step(self, step: i64) -> Loop {
        Loop { step, ..self }
    }

    /// Adds a value whose partial values may be combined by `combine`.
    pub fn accumulate(mut self, local: Local, init: Expr, combine: BinaryFn) -> Loop {
        self.accumulators.push(Accumulator { local, init, combine: Some(combine) });
        self
    }

    /// Adds a value whose iterations must stay in order.
    pub fn carry(mut self, local: Local, init: Expr) -> Loop {
        self.accumulators.push(Accumulator { local, init, combine: None });
        self
    }

    /// The statement with this body.
    pub fn body(self, body: Vec<Stmt>) -> Stmt {
        Stmt::Loop(Loop { body, ..self })
    }
}

impl LoopNest {
    /// Byte offset of each scratch from the worker's scratch pointer (each 64-byte aligned), and the total size.
    pub fn scratch_offsets(&self) -> (Vec<usize>, usize) {
        let mut end = 0usize;
        let offsets = self.scratch.iter().map(|scratch| {
            let offset = end;
            end += (scratch.elements * scratch.dtype.bytes()).next_multiple_of(64);
            offset
        });
        let offsets = offsets.collect();
        (offsets, end)
    }

    /// Type and number of elements of a place, if it is declared.
    pub fn place(&self, place: Place) -> Option<(DType, usize)> {
        match place {
            Place::Buffer(number) => self.buffers.get(number as usize).map(|b| (b.dtype, b.elements)),
            Place::Scratch(number) => self.scratch.get(number as usize).map(|s| (s.dtype, s.elements)),
        }
    }
}
