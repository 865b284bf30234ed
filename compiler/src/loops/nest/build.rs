//! Building nests: constructors that may be nested in each other, as they borrow the builder only briefly.

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroU32;

use kiln_ir::DType;
use kiln_ir::scalar::{BinaryFn, CompareFn, Number, ScalarExpr, ScalarNode, UnaryFn};

use super::{
    Access, Arg, Atom, BufferDecl, Expr, ExprNode, Helper, HelperDecl, Index, Local, LocalDecl, LoopNest, Place,
    ScratchDecl, Stmt, Var,
};

/// A nest in the making; see the example of [`crate::loops::nest`].
#[derive(Debug)]
pub struct NestBuilder {
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    nest: LoopNest,
    numbers: HashMap<(ExprNode, DType), Expr>,
}

impl State {
    fn new(name: String) -> State {
        let nest = LoopNest {
            name,
            buffers: Vec::new(),
            scratch: Vec::new(),
            helpers: Vec::new(),
            tiles: 0,
            vars: vec!["tile".to_string()],
            locals: Vec::new(),
            exprs: Vec::new(),
            body: Vec::new(),
        };
        State { nest, numbers: HashMap::new() }
    }
}

impl NestBuilder {
    /// A nest without anything.
    pub fn new(name: impl Into<String>) -> NestBuilder {
        NestBuilder { state: RefCell::new(State::new(name.into())) }
    }

    /// A nest with what another one declares, and no expressions.
    pub(super) fn declaring(nest: &LoopNest) -> NestBuilder {
        let nest = LoopNest { exprs: Vec::new(), body: Vec::new(), ..nest.clone() };
        NestBuilder { state: RefCell::new(State { nest, numbers: HashMap::new() }) }
    }

    /// Declares the next buffer.
    pub fn buffer(&self, name: impl Into<String>, dtype: DType, elements: usize, access: Access) -> Place {
        let buffers = &mut self.state.borrow_mut().nest.buffers;
        buffers.push(BufferDecl { name: name.into(), dtype, elements, access });
        Place::Buffer(buffers.len() as u32 - 1)
    }

    /// Declares per-worker memory.
    pub fn scratch(&self, name: impl Into<String>, dtype: DType, elements: usize) -> Place {
        let scratch = &mut self.state.borrow_mut().nest.scratch;
        scratch.push(ScratchDecl { name: name.into(), dtype, elements });
        Place::Scratch(scratch.len() as u32 - 1)
    }

    /// The helper with this name, declared if it is new.
    pub fn helper(&self, name: &str) -> Helper {
        let helpers = &mut self.state.borrow_mut().nest.helpers;
        let number = helpers.iter().position(|helper| helper.name == name).unwrap_or_else(|| {
            helpers.push(HelperDecl { name: name.to_string() });
            helpers.len() - 1
        });
        Helper(number as u32)
    }

    /// A new loop variable; a name that exists gets a number.
    pub fn var(&self, name: &str) -> Var {
        let vars = &mut self.state.borrow_mut().nest.vars;
        let name = unique(name, &|name| vars.iter().any(|other| other == name));
        vars.push(name);
        Var(vars.len() as u32 - 1)
    }

    /// A new local; a name that exists gets a number.
    pub fn local(&self, name: &str, dtype: DType) -> Local {
        let locals = &mut self.state.borrow_mut().nest.locals;
        let name = unique(name, &|name| locals.iter().any(|other| other.name == name));
        locals.push(LocalDecl { name, dtype });
        Local(locals.len() as u32 - 1)
    }

    /// Type of an expression.
    pub fn dtype(&self, expr: Expr) -> DType {
        self.state.borrow().nest.dtype(expr)
    }

    /// Whether the value of an expression depends on a loop variable directly.
    pub fn uses(&self, expr: Expr, var: Var) -> bool {
        let nest = &self.state.borrow().nest;
        let mut work = vec![expr];
        while let Some(expr) = work.pop() {
            let node = nest.node(expr);
            let mut found = false;
            if let Some(index) = node.index() {
                index.visit(&mut |atom| found |= *atom == Atom::Var(var));
            }
            if found {
                return true;
            }
            work.extend(node.children());
        }
        false
    }

    /// A constant, as the nearest value of `dtype`.
    pub fn literal(&self, value: impl Into<Number>, dtype: DType) -> Expr {
        self.expr(ExprNode::Literal(value.into().to_dtype(dtype)), dtype)
    }

    /// Value of a local.
    ///
    /// # Panics
    /// If the local is of another nest.
    pub fn value(&self, local: Local) -> Expr {
        let dtype = self.state.borrow().nest.locals[local.0 as usize].dtype;
        self.expr(ExprNode::Local(local), dtype)
    }

    /// An index as `i64`.
    pub fn index(&self, index: Index) -> Expr {
        if let Some(constant) = index.as_constant() {
            return self.literal(constant, DType::I64);
        }
        self.expr(ExprNode::Index(index), DType::I64)
    }

    /// `0 <= index < limit`.
    pub fn in_range(&self, index: Index, limit: i64) -> Expr {
        self.expr(ExprNode::InRange(index, limit), DType::Bool)
    }

    /// Element of a place.
    ///
    /// # Panics
    /// If the place is of another nest.
    pub fn load(&self, place: Place, index: Index) -> Expr {
        self.expr(ExprNode::Load(place, index), self.element(place))
    }

    /// Element of a place if `condition` holds, else `otherwise`: padding. Nothing outside is touched.
    ///
    /// # Panics
    /// If the place is of another nest.
    pub fn guarded_load(&self, place: Place, index: Index, condition: Expr, otherwise: Expr) -> Expr {
        self.expr(ExprNode::GuardedLoad { place, index, condition, otherwise }, self.element(place))
    }

    /// `f(x)`.
    pub fn unary(&self, function: UnaryFn, x: Expr) -> Expr {
        self.expr(ExprNode::Unary(function, x), self.dtype(x))
    }

    /// `f(a, b)`.
    pub fn binary(&self, function: BinaryFn, a: Expr, b: Expr) -> Expr {
        if let (Some(x), Some(y), DType::I64) = (self.constant(a), self.constant(b), self.dtype(a)) {
            // What positions in a window are made of.
            match function {
                BinaryFn::Add => return self.literal(x.wrapping_add(y), DType::I64),
                BinaryFn::Mul => return self.literal(x.wrapping_mul(y), DType::I64),
                _ => {}
            }
        }
        self.expr(ExprNode::Binary(function, a, b), self.dtype(a))
    }

    /// `a * b + c`, rounded once where the machine can: for sums of products only, as elementwise bits must not depend
    /// on what is fused.
    pub fn mul_add(&self, a: Expr, b: Expr, c: Expr) -> Expr {
        self.expr(ExprNode::MulAdd(a, b, c), self.dtype(a))
    }

    /// `a ? b`.
    pub fn compare(&self, function: CompareFn, a: Expr, b: Expr) -> Expr {
        if let (Some(a), Some(b)) = (self.constant(a), self.constant(b)) {
            return self.literal(i64::from(holds(function, a, b)), DType::Bool);
        }
        self.expr(ExprNode::Compare(function, a, b), DType::Bool)
    }

    /// `condition ? then : otherwise`.
    pub fn select(&self, condition: Expr, then: Expr, otherwise: Expr) -> Expr {
        match self.constant(condition) {
            _ if then == otherwise => return then,
            Some(condition) => return if condition != 0 { then } else { otherwise },
            None => {}
        }
        self.expr(ExprNode::Select(condition, then, otherwise), self.dtype(then))
    }

    /// The value in another type.
    pub fn cast(&self, x: Expr, dtype: DType) -> Expr {
        if let (Some(constant), DType::I32 | DType::I64) = (self.constant(x), dtype) {
            let narrow = if dtype == DType::I32 { i64::from(constant as i32) } else { constant };
            return self.literal(narrow, dtype);
        }
        if self.dtype(x) == dtype { x } else { self.expr(ExprNode::Cast(x), dtype) }
    }

    /// The bits of an `f32` as `u32`, or the other way.
    pub fn bits(&self, x: Expr) -> Expr {
        let to = if self.dtype(x) == DType::F32 { DType::U32 } else { DType::F32 };
        self.expr(ExprNode::Bits(x), to)
    }

    /// Random bits as `u32`; counter and position are `i64`.
    pub fn philox(&self, key: u64, counter: Expr, position: Expr) -> Expr {
        self.expr(ExprNode::Philox { key, counter, position }, DType::U32)
    }

    /// A scalar expression of the IR; `leaf` gives the value of each read and each index. Shared parts stay shared.
    pub fn scalar(&self, expr: &ScalarExpr, leaf: &mut dyn FnMut(&ScalarExpr) -> Expr) -> Expr {
        self.scalar_memo(expr, leaf, &mut HashMap::new())
    }

    fn scalar_memo(
        &self,
        expr: &ScalarExpr,
        leaf: &mut dyn FnMut(&ScalarExpr) -> Expr,
        memo: &mut HashMap<usize, Expr>,
    ) -> Expr {
        if let Some(known) = memo.get(&expr.address()) {
            return *known;
        }
        let mut sub = |x: &ScalarExpr| self.scalar_memo(x, leaf, memo);
        let value = match expr.node() {
            ScalarNode::Read(_) | ScalarNode::Index(_) => leaf(expr),
            ScalarNode::Literal(value) => self.literal(*value, expr.dtype()),
            ScalarNode::Unary(function, x) => self.unary(*function, sub(x)),
            ScalarNode::Binary(function, a, b) => self.binary(*function, sub(a), sub(b)),
            ScalarNode::Compare(function, a, b) => self.compare(*function, sub(a), sub(b)),
            ScalarNode::Select(condition, a, b) => self.select(sub(condition), sub(a), sub(b)),
            ScalarNode::Cast(x) => self.cast(sub(x), expr.dtype()),
            ScalarNode::Philox { key, counter, position } => self.philox(*key, sub(counter), sub(position)),
        };
        memo.insert(expr.address(), value);
        value
    }

    /// `local = value` as a new local.
    pub fn define(&self, local: Local, value: Expr) -> Stmt {
        Stmt::Let { local, value }
    }

    /// Next value of an accumulator.
    pub fn set(&self, local: Local, value: Expr) -> Stmt {
        Stmt::Set { local, value }
    }

    /// Writes one element.
    pub fn store(&self, place: Place, index: Index, value: Expr) -> Stmt {
        Stmt::Store { place, index, value }
    }

    /// Runs `body` if `0 <= value < limit`, else reports; see [`Stmt::Check`].
    pub fn check(&self, value: Expr, limit: i64, site: NonZeroU32, position: Index, body: Vec<Stmt>) -> Stmt {
        Stmt::Check { value, limit, site, position, body }
    }

    /// Calls a helper.
    pub fn call(&self, helper: Helper, args: Vec<Arg>) -> Stmt {
        Stmt::Call { helper, args }
    }

    /// The nest; the builder is as new.
    pub fn finish(&self, tiles: u64, body: Vec<Stmt>) -> LoopNest {
        let state = self.state.replace(State::new(String::new()));
        LoopNest { tiles, body, ..state.nest }
    }

    /// The number of an integer or bool literal.
    fn constant(&self, expr: Expr) -> Option<i64> {
        match self.state.borrow().nest.node(expr) {
            ExprNode::Literal(Number::Int(value)) => Some(*value),
            _ => None,
        }
    }

    fn element(&self, place: Place) -> DType {
        let nest = &self.state.borrow().nest;
        match place {
            Place::Buffer(number) => nest.buffers[number as usize].dtype,
            Place::Scratch(number) => nest.scratch[number as usize].dtype,
        }
    }

    pub(super) fn expr(&self, node: ExprNode, dtype: DType) -> Expr {
        let State { nest, numbers } = &mut *self.state.borrow_mut();
        *numbers.entry((node, dtype)).or_insert_with_key(|key| {
            nest.exprs.push(key.clone());
            Expr(nest.exprs.len() as u32 - 1)
        })
    }
}

fn unique(name: &str, taken: &dyn Fn(&str) -> bool) -> String {
    if !taken(name) {
        return name.to_string();
    }
    let numbered = (2..).map(|number| format!("{name}{number}"));
    numbered.into_iter().find(|name| !taken(name)).unwrap_or_default()
}

fn holds(function: CompareFn, a: i64, b: i64) -> bool {
    match function {
        CompareFn::Eq => a == b,
        CompareFn::Ne => a != b,
        CompareFn::Lt => a < b,
        CompareFn::Le => a <= b,
        CompareFn::Gt => a > b,
        CompareFn::Ge => a >= b,
    }
}
