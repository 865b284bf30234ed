//! What must hold of a nest; the emitter relies on it.

use kiln_ir::DType;
use kiln_ir::scalar::BinaryFn;
use thiserror::Error;

use super::{Access, Arg, Atom, Expr, ExprNode, Index, Local, Loop, LoopNest, Place, Stmt, Var};

/// Why a nest is not one: always a defect of its builder.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("nest `{nest}`: {reason}")]
pub struct NestError {
    /// Name of the nest.
    pub nest: String,
    /// What does not hold.
    pub reason: String,
}

impl LoopNest {
    /// Checks the rules of [`crate::loops::nest`].
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self) -> Result<(), NestError> {
        let mut checker = Checker { nest: self, vars: vec![Var::TILE], locals: Vec::new(), open: Vec::new() };
        checker
            .pool()
            .and_then(|()| checker.block(&self.body))
            .map_err(|reason| NestError { nest: self.name.clone(), reason })
    }
}

type Checked = Result<(), String>;

struct Checker<'a> {
    nest: &'a LoopNest,
    /// Variables of enclosing loops.
    vars: Vec<Var>,
    /// Visible locals.
    locals: Vec<Local>,
    /// Accumulators of enclosing loops.
    open: Vec<Local>,
}

fn require(holds: bool, reason: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(reason()) }
}

impl Checker<'_> {
    /// Types of all nodes, independent of where they are used.
    fn pool(&self) -> Checked {
        for (number, (node, dtype)) in self.nest.exprs.iter().enumerate() {
            require(node.children().all(|child| (child.0 as usize) < number), || {
                format!("operand of expression {number} comes after it")
            })?;
            require(self.well_typed(node, *dtype), || {
                format!("expression {number} is ill typed: {node:?} as {dtype}")
            })?;
        }
        Ok(())
    }

    fn well_typed(&self, node: &ExprNode, dtype: DType) -> bool {
        let of = |expr: &Expr| self.nest.dtype(*expr);
        match node {
            ExprNode::Literal(_) | ExprNode::Cast(_) => true,
            ExprNode::Local(local) => self.nest.locals.get(local.0 as usize).is_some_and(|l| l.dtype == dtype),
            ExprNode::Bits(x) => matches!((of(x), dtype), (DType::F32, DType::U32) | (DType::U32, DType::F32)),
            ExprNode::Index(_) => dtype == DType::I64,
            ExprNode::InRange(..) => dtype == DType::Bool,
            ExprNode::Load(place, _) => self.nest.place(*place).is_some_and(|(element, _)| element == dtype),
            ExprNode::GuardedLoad { place, condition, otherwise, .. } => {
                self.nest.place(*place).is_some_and(|(element, _)| element == dtype)
                    && of(condition) == DType::Bool
                    && of(otherwise) == dtype
            }
            ExprNode::Unary(_, x) => of(x) == dtype,
            ExprNode::Binary(function, a, b) => {
                of(a) == dtype && of(b) == dtype && (*function != BinaryFn::Pow || dtype.is_float())
            }
            ExprNode::MulAdd(a, b, c) => dtype.is_float() && of(a) == dtype && of(b) == dtype && of(c) == dtype,
            ExprNode::Compare(_, a, b) => of(a) == of(b) && dtype == DType::Bool,
            ExprNode::Select(condition, a, b) => of(condition) == DType::Bool && of(a) == dtype && of(b) == dtype,
            ExprNode::Philox { counter, position, .. } => {
                of(counter) == DType::I64 && of(position) == DType::I64 && dtype == DType::U32
            }
        }
    }

    fn block(&mut self, stmts: &[Stmt]) -> Checked {
        let visible = self.locals.len();
        stmts.iter().try_for_each(|stmt| self.stmt(stmt))?;
        self.locals.truncate(visible);
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt) -> Checked {
        match stmt {
            Stmt::Loop(node) => self.loop_(node),
            Stmt::Let { local, value } => {
                self.expr(*value)?;
                self.define(*local, *value)
            }
            Stmt::Set { local, value } => {
                self.expr(*value)?;
                require(self.open.contains(local), || format!("{local:?} is set outside its loop"))?;
                self.same_type(*local, *value)
            }
            Stmt::Store { place, index, value } => {
                self.index(index)?;
                self.expr(*value)?;
                self.written(*place)?;
                let element = self.nest.place(*place).map(|(dtype, _)| dtype);
                require(element == Some(self.nest.dtype(*value)), || format!("store to {place:?} has another type"))
            }
            Stmt::If { condition, then, otherwise } => {
                self.expr(*condition)?;
                require(self.nest.dtype(*condition) == DType::Bool, || "condition is not bool".to_string())?;
                self.block(then)?;
                self.block(otherwise)
            }
            Stmt::Check { value, position, body, .. } => {
                self.expr(*value)?;
                self.index(position)?;
                require(self.nest.dtype(*value) == DType::I64, || "checked value is not i64".to_string())?;
                self.block(body)
            }
            Stmt::Call { helper, args } => {
                require((helper.0 as usize) < self.nest.helpers.len(), || format!("{helper:?} is not declared"))?;
                args.iter().try_for_each(|arg| match arg {
                    Arg::Address { place, index } => {
                        require(self.nest.place(*place).is_some(), || format!("{place:?} is not declared"))?;
                        self.index(index)
                    }
                    Arg::Int(index) => self.index(index),
                })
            }
        }
    }

    fn loop_(&mut self, node: &Loop) -> Checked {
        self.index(&node.begin)?;
        self.index(&node.end)?;
        require(node.step > 0, || "step is not positive".to_string())?;
        require((node.var.0 as usize) < self.nest.vars.len(), || format!("{:?} is not declared", node.var))?;
        require(!self.vars.contains(&node.var), || format!("{:?} is bound twice", node.var))?;
        for accumulator in &node.accumulators {
            self.expr(accumulator.init)?;
        }
        for accumulator in &node.accumulators {
            self.define(accumulator.local, accumulator.init)?;
            require(accumulator.combine.is_none_or(combines), || format!("{:?} cannot combine", accumulator.combine))?;
        }
        let open = self.open.len();
        self.open.extend(node.accumulators.iter().map(|accumulator| accumulator.local));
        self.vars.push(node.var);
        self.block(&node.body)?;
        self.vars.pop();
        self.open.truncate(open);
        Ok(())
    }

    fn define(&mut self, local: Local, value: Expr) -> Checked {
        require(!self.locals.contains(&local), || format!("{local:?} is defined twice"))?;
        self.locals.push(local);
        self.same_type(local, value)
    }

    fn same_type(&self, local: Local, value: Expr) -> Checked {
        let declared = self.nest.locals.get(local.0 as usize).map(|local| local.dtype);
        require(declared == Some(self.nest.dtype(value)), || format!("{local:?} has another type than its value"))
    }

    fn written(&self, place: Place) -> Checked {
        let Place::Buffer(number) = place else { return Ok(()) };
        let access = self.nest.buffers.get(number as usize).map(|buffer| buffer.access);
        require(matches!(access, Some(Access::Write | Access::ReadWrite)), || format!("{place:?} is written"))
    }

    /// Everything that the expression depends on is visible here.
    fn expr(&self, expr: Expr) -> Checked {
        require((expr.0 as usize) < self.nest.exprs.len(), || format!("{expr:?} is not in the pool"))?;
        let mut todo = vec![expr];
        let mut seen = vec![false; expr.0 as usize + 1];
        while let Some(expr) = todo.pop() {
            if std::mem::replace(&mut seen[expr.0 as usize], true) {
                continue;
            }
            let node = self.nest.node(expr);
            if let Some(index) = node.index() {
                self.index(index)?;
            }
            if let ExprNode::Local(local) = node {
                require(self.locals.contains(local), || format!("{local:?} is not visible"))?;
            }
            todo.extend(node.children());
        }
        Ok(())
    }

    fn index(&self, index: &Index) -> Checked {
        let mut hidden = None;
        index.visit(&mut |atom| {
            let visible = match atom {
                Atom::Var(var) => self.vars.contains(var),
                Atom::Local(local) => {
                    let dtype = self.nest.locals.get(local.0 as usize).map(|local| local.dtype);
                    self.locals.contains(local) && dtype == Some(DType::I64)
                }
                _ => true,
            };
            if !visible {
                hidden = Some(atom.clone());
            }
        });
        require(hidden.is_none(), || format!("index uses {hidden:?}, which is not visible or not i64"))
    }
}

fn combines(function: BinaryFn) -> bool {
    use BinaryFn::{Add, And, Max, Min, Mul, Or};
    matches!(function, Add | Mul | Max | Min | And | Or)
}
