//! What expressions depend on and what statements change, as sets of bits.
//!
//! Numbers are taken modulo 128: two that share a bit look dependent, which costs an opportunity and never correctness.

use kiln_ir::scalar::BinaryFn;

use crate::loops::nest::{Arg, Atom, Expr, ExprNode, Index, Local, Loop, LoopNest, Place, Stmt, Var};

/// Variables, locals and memory: of an expression what it reads, of statements what they change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    vars: u128,
    locals: u128,
    places: u128,
    /// Of an expression: whether it loads, so that it may run only where its statement runs.
    pub(super) loads: bool,
}

fn bit(number: u32) -> u128 {
    1 << (number % 128)
}

fn place_bit(place: Place) -> u128 {
    match place {
        Place::Buffer(number) => bit(number),
        Place::Scratch(number) => bit(127 - number % 128),
    }
}

impl Facts {
    /// A single variable.
    pub(super) fn var(var: Var) -> Facts {
        Facts { vars: bit(var.0), ..Facts::default() }
    }

    /// A single local.
    pub(super) fn local(local: Local) -> Facts {
        Facts { locals: bit(local.0), ..Facts::default() }
    }

    /// A single place.
    pub(super) fn place(place: Place) -> Facts {
        Facts { places: place_bit(place), ..Facts::default() }
    }

    /// What an index reads.
    pub(super) fn index(index: &Index) -> Facts {
        let mut facts = Facts::default();
        index.visit(&mut |atom| match atom {
            Atom::Var(var) => facts.add(Facts::var(*var)),
            Atom::Local(local) => facts.add(Facts::local(*local)),
            _ => {}
        });
        facts
    }

    /// What one atom of an index reads.
    pub(super) fn atom(atom: &Atom) -> Facts {
        match atom {
            Atom::Var(var) => Facts::var(*var),
            Atom::Local(local) => Facts::local(*local),
            Atom::Floor(index, _) | Atom::Modulo(index, _) | Atom::Min(index, _) => Facts::index(index),
        }
    }

    /// Union.
    pub(super) fn add(&mut self, other: Facts) {
        self.vars |= other.vars;
        self.locals |= other.locals;
        self.places |= other.places;
        self.loads |= other.loads;
    }

    /// Whether something is in both.
    pub(super) fn meets(&self, other: &Facts) -> bool {
        self.vars & other.vars != 0 || self.locals & other.locals != 0 || self.places & other.places != 0
    }

    /// What every expression of the pool reads.
    pub(super) fn of_pool(nest: &LoopNest) -> Vec<Facts> {
        let mut all: Vec<Facts> = Vec::with_capacity(nest.exprs.len());
        for (node, _) in &nest.exprs {
            let mut facts = node.index().map(Facts::index).unwrap_or_default();
            for child in node.children() {
                facts.add(all[child.0 as usize]);
            }
            match node {
                ExprNode::Local(local) => facts.add(Facts::local(*local)),
                ExprNode::Load(place, _) | ExprNode::GuardedLoad { place, .. } => {
                    facts.add(Facts { loads: true, ..Facts::place(*place) });
                }
                _ => {}
            }
            all.push(facts);
        }
        all
    }

    /// What statements change: variables bound, locals defined or set, places written.
    pub(super) fn changed_by(stmts: &[Stmt]) -> Facts {
        let mut facts = Facts::default();
        for stmt in stmts {
            match stmt {
                Stmt::Loop(node) => facts.add(Facts::changed_by_loop(node)),
                Stmt::Let { local, .. } | Stmt::Set { local, .. } => facts.add(Facts::local(*local)),
                Stmt::Store { place, .. } => facts.add(Facts::place(*place)),
                Stmt::If { then, otherwise, .. } => {
                    facts.add(Facts::changed_by(then));
                    facts.add(Facts::changed_by(otherwise));
                }
                Stmt::Check { body, .. } => facts.add(Facts::changed_by(body)),
                Stmt::Call { args, .. } => {
                    for arg in args {
                        if let Arg::Address { place, .. } = arg {
                            facts.add(Facts::place(*place));
                        }
                    }
                }
            }
        }
        facts
    }

    /// What a loop changes.
    pub(super) fn changed_by_loop(node: &Loop) -> Facts {
        let mut facts = Facts::changed_by(&node.body);
        facts.add(Facts::var(node.var));
        for accumulator in &node.accumulators {
            facts.add(Facts::local(accumulator.local));
        }
        facts
    }
}

/// Whether a loop may run in lanes, and what for.
pub(super) struct LaneCheck<'a> {
    nest: &'a LoopNest,
    facts: &'a [Facts],
    /// What differs between lanes.
    varying: Facts,
    own: Facts,
    contiguous: usize,
    gathers: usize,
    lane: Var,
}

impl<'a> LaneCheck<'a> {
    /// Decides for one loop: every statement has a form in lanes and some memory access is contiguous.
    pub(super) fn allows(nest: &'a LoopNest, facts: &'a [Facts], node: &Loop) -> bool {
        LaneCheck::gathers(nest, facts, node).is_some()
    }

    /// How many accesses of a loop are not contiguous, if it may run in lanes.
    pub(super) fn gathers(nest: &'a LoopNest, facts: &'a [Facts], node: &Loop) -> Option<usize> {
        let mut own = Facts::default();
        node.accumulators.iter().for_each(|accumulator| own.add(Facts::local(accumulator.local)));
        let mut varying = own;
        varying.add(Facts::var(node.var));
        let mut check = LaneCheck { nest, facts, varying, own, contiguous: 0, gathers: 0, lane: node.var };
        let allowed = node.vector
            && node.step == 1
            && node.accumulators.iter().all(|accumulator| accumulator.combine.is_some())
            && check.block(&node.body, node)
            && (check.contiguous > 0 || check.gathers == 0);
        allowed.then_some(check.gathers)
    }

    fn block(&mut self, stmts: &[Stmt], outer: &Loop) -> bool {
        stmts.iter().all(|stmt| self.stmt(stmt, outer))
    }

    fn stmt(&mut self, stmt: &Stmt, outer: &Loop) -> bool {
        match stmt {
            Stmt::Let { local, value } => {
                if self.facts_of(*value).meets(&self.varying) {
                    self.varying.add(Facts::local(*local));
                }
                self.reads_no_partial(*value)
            }
            Stmt::Set { local, value } => match outer.accumulators.iter().find(|own| own.local == *local) {
                Some(own) => own.combine.is_some_and(|combine| self.combines(*value, *local, combine)),
                None => self.reads_no_partial(*value),
            },
            Stmt::Store { place: _, index, value } => {
                self.count(index);
                self.reads_no_partial(*value) && Facts::index(index).meets(&self.varying)
            }
            Stmt::If { condition, then, otherwise } => {
                !self.facts_of(*condition).meets(&self.varying)
                    && self.block(then, outer)
                    && self.block(otherwise, outer)
            }
            Stmt::Loop(inner) => {
                let uniform = |index: &Index| !Facts::index(index).meets(&self.varying);
                let bounds = uniform(&inner.begin) && uniform(&inner.end);
                inner.accumulators.iter().for_each(|accumulator| self.varying.add(Facts::local(accumulator.local)));
                bounds
                    && inner.accumulators.iter().all(|accumulator| self.reads_no_partial(accumulator.init))
                    && self.block(&inner.body, outer)
            }
            Stmt::Check { .. } | Stmt::Call { .. } => false,
        }
    }

    fn facts_of(&self, expr: Expr) -> Facts {
        self.facts[expr.0 as usize]
    }

    /// A partial value means nothing but to its own `Set`. Counts the loads on the way.
    fn reads_no_partial(&mut self, expr: Expr) -> bool {
        self.count_loads(expr);
        !self.facts_of(expr).meets(&self.own)
    }

    /// `combine(local, something)` in either order, or a multiply-add to `local`.
    fn combines(&mut self, value: Expr, local: Local, combine: BinaryFn) -> bool {
        let is_own = |expr: Expr| *self.nest.node(expr) == ExprNode::Local(local);
        let rest = match *self.nest.node(value) {
            ExprNode::Binary(function, a, b) if function == combine && is_own(a) => vec![b],
            ExprNode::Binary(function, a, b) if function == combine && is_own(b) => vec![a],
            ExprNode::MulAdd(a, b, c) if combine == BinaryFn::Add && is_own(c) => vec![a, b],
            _ => return false,
        };
        rest.into_iter().all(|expr| self.reads_no_partial(expr))
    }

    fn count_loads(&mut self, root: Expr) {
        let mut todo = vec![root];
        let mut seen = std::collections::HashSet::new();
        while let Some(expr) = todo.pop() {
            if !seen.insert(expr) {
                continue;
            }
            let node = self.nest.node(expr);
            if let ExprNode::Load(_, index) | ExprNode::GuardedLoad { index, .. } = node {
                self.count(index);
            }
            todo.extend(node.children());
        }
    }

    fn count(&mut self, index: &Index) {
        if Facts::index(index).meets(&self.varying) {
            if index.coefficient(self.lane) == 1 { self.contiguous += 1 } else { self.gathers += 1 }
        }
    }
}
