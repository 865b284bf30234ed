//! Moving what does not change in a loop before it.
//!
//! A load moves only if its statement runs in every iteration, and only past a test that there is an iteration; everything
//! else is free of effects and may run whether or not it is needed.

use kiln_ir::scalar::Number;

use super::analysis::Facts;
use super::function::{Emitted, Emitter, Val};
use crate::loops::nest::{Arg, Expr, ExprNode, Stmt};

/// One walk over the body of a loop.
pub(super) struct Hoist {
    changed: Facts,
    /// The loop runs in lanes: what is the same in all lanes is spread over a register.
    lanes: bool,
    seen: Vec<bool>,
}

impl Emitter<'_, '_> {
    /// Emits, before a loop, what its body needs and does not change.
    pub(super) fn hoist(&mut self, stmts: &[Stmt], changed: Facts, lanes: bool) -> Emitted<()> {
        let mut hoist = Hoist { changed, lanes, seen: vec![false; self.nest.exprs.len()] };
        self.hoist_block(&mut hoist, stmts, true)
    }

    fn hoist_block(&mut self, hoist: &mut Hoist, stmts: &[Stmt], always: bool) -> Emitted<()> {
        stmts.iter().try_for_each(|stmt| self.hoist_stmt(hoist, stmt, always))
    }

    fn hoist_stmt(&mut self, hoist: &mut Hoist, stmt: &Stmt, always: bool) -> Emitted<()> {
        match stmt {
            Stmt::Let { value, .. } | Stmt::Set { value, .. } => self.hoist_expr(hoist, *value, always),
            Stmt::Store { place, index, value } => {
                self.address_before(*place, index, &hoist.changed)?;
                self.hoist_expr(hoist, *value, always)
            }
            Stmt::If { condition, then, otherwise } => {
                self.hoist_expr(hoist, *condition, always)?;
                self.hoist_block(hoist, then, false)?;
                self.hoist_block(hoist, otherwise, false)
            }
            Stmt::Check { value, body, .. } => {
                self.hoist_expr(hoist, *value, always)?;
                self.hoist_block(hoist, body, false)
            }
            Stmt::Loop(node) => {
                self.index_before(&node.begin, &hoist.changed)?;
                self.index_before(&node.end, &hoist.changed)?;
                for accumulator in &node.accumulators {
                    self.hoist_expr(hoist, accumulator.init, always)?;
                }
                let runs = matches!((node.begin.as_constant(), node.end.as_constant()), (Some(a), Some(b)) if a < b);
                self.hoist_block(hoist, &node.body, always && runs)
            }
            Stmt::Call { args, .. } => args.iter().try_for_each(|arg| match arg {
                Arg::Address { place, index } => self.address_before(*place, index, &hoist.changed),
                Arg::Int(index) => self.index_before(index, &hoist.changed),
            }),
        }
    }

    fn hoist_expr(&mut self, hoist: &mut Hoist, expr: Expr, always: bool) -> Emitted<()> {
        if std::mem::replace(&mut hoist.seen[expr.0 as usize], true) {
            return Ok(());
        }
        let nest = self.nest;
        let facts = self.facts[expr.0 as usize];
        let node = nest.node(expr);
        if let ExprNode::Literal(value) = node {
            if hoist.lanes {
                self.hoist_literal(expr, *value);
            }
            return Ok(());
        }
        if !facts.meets(&hoist.changed) && (always || !facts.loads) {
            let value = self.eval(expr)?;
            if hoist.lanes && matches!(value, Val::One(_)) {
                self.spread(value, self.dtype(expr));
            }
            return Ok(());
        }
        match node {
            ExprNode::Load(place, index) | ExprNode::GuardedLoad { place, index, .. } => {
                self.address_before(*place, index, &hoist.changed)?;
            }
            ExprNode::Philox { .. } if hoist.lanes => self.philox_registers(),
            ExprNode::Index(index) | ExprNode::InRange(index, _) => self.index_before(index, &hoist.changed)?,
            _ => {}
        }
        node.children().try_for_each(|child| self.hoist_expr(hoist, child, always))
    }

    /// Few constants fit into registers; the others are memory operands.
    fn hoist_literal(&mut self, expr: Expr, value: Number) {
        if self.constant_registers > 0 && !is_zero(value) {
            self.constant_registers -= 1;
            self.literal_register(value, self.dtype(expr));
        }
    }
}

fn is_zero(value: Number) -> bool {
    match value {
        Number::Float(value) => value.to_bits() == 0,
        Number::Int(value) => value == 0,
    }
}
