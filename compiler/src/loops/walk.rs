//! How often each statement of a nest runs.

use std::collections::HashSet;

use super::nest::{Arg, Atom, Expr, Index, Loop, LoopNest, Place, Stmt, Var};

/// What is met on a walk.
pub(crate) enum Visit<'a> {
    /// A node of an expression, once for each list of statements that needs it and is in none that does.
    Expr(Expr),
    /// A store.
    Store(&'a Place),
    /// A place whose address a helper gets.
    Address(&'a Place),
}

/// Calls `visit` for every access with the number of times it happens in all tiles together. Both branches of a condition
/// count, and every tile counts as much as the first: a bound, not a count.
pub(crate) fn walk<'a>(nest: &'a LoopNest, visit: &mut dyn FnMut(Visit<'a>, f64)) {
    let mut walk = Walk { nest, values: vec![0; nest.vars.len()], known: HashSet::new(), visit };
    walk.block(&nest.body, nest.tiles as f64);
}

struct Walk<'a, 'v> {
    nest: &'a LoopNest,
    /// First value of each variable.
    values: Vec<i64>,
    /// Expressions that the lists around have evaluated.
    known: HashSet<Expr>,
    visit: &'v mut dyn FnMut(Visit<'a>, f64),
}

impl<'a> Walk<'a, '_> {
    fn block(&mut self, stmts: &'a [Stmt], times: f64) {
        let around = self.known.clone();
        stmts.iter().for_each(|stmt| self.stmt(stmt, times));
        self.known = around;
    }

    fn stmt(&mut self, stmt: &'a Stmt, times: f64) {
        match stmt {
            Stmt::Loop(node) => {
                let trips = trips(node, &mut self.values);
                node.accumulators.iter().for_each(|accumulator| self.expr(accumulator.init, times));
                self.block(&node.body, times * trips as f64);
            }
            Stmt::Let { value, .. } | Stmt::Set { value, .. } => self.expr(*value, times),
            Stmt::Store { place, value, .. } => {
                self.expr(*value, times);
                (self.visit)(Visit::Store(place), times);
            }
            Stmt::If { condition, then, otherwise } => {
                self.expr(*condition, times);
                self.block(then, times);
                self.block(otherwise, times);
            }
            Stmt::Check { value, body, .. } => {
                self.expr(*value, times);
                self.block(body, times);
            }
            Stmt::Call { args, .. } => {
                for arg in args {
                    if let Arg::Address { place, .. } = arg {
                        (self.visit)(Visit::Address(place), times);
                    }
                }
            }
        }
    }

    /// The nodes of an expression.
    fn expr(&mut self, root: Expr, times: f64) {
        let mut todo = vec![root];
        while let Some(expr) = todo.pop() {
            if self.known.insert(expr) {
                (self.visit)(Visit::Expr(expr), times);
                todo.extend(self.nest.node(expr).children());
            }
        }
    }
}

/// Iterations of a loop with all variables around it at their first values; its own is set to its first.
pub(crate) fn trips(node: &Loop, values: &mut [i64]) -> u64 {
    let (begin, end) = (value(&node.begin, values), value(&node.end, values));
    if let Some(own) = values.get_mut(node.var.0 as usize) {
        *own = begin;
    }
    let distance = u64::try_from(end.saturating_sub(begin)).unwrap_or(0);
    distance.div_ceil(node.step.max(1) as u64)
}

/// An index at values of the variables; what is loaded counts as 0.
fn value(index: &Index, values: &[i64]) -> i64 {
    let of = |atom: &Atom| match atom {
        Atom::Var(Var(number)) => values.get(*number as usize).copied().unwrap_or(0),
        Atom::Local(_) => 0,
        Atom::Floor(index, divisor) => value(index, values).div_euclid(*divisor),
        Atom::Modulo(index, divisor) => value(index, values).rem_euclid(*divisor),
        Atom::Min(index, limit) => value(index, values).min(*limit),
    };
    index.terms.iter().fold(index.constant, |sum, (atom, factor)| sum.saturating_add(factor.saturating_mul(of(atom))))
}
