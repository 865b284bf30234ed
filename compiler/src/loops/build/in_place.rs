//! Which results may be computed over which operands.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::loops::nest::{Expr, ExprNode, Index, LoopNest, Place, Stmt};

/// Parameters whose every load is at the index of a result's store, and in a statement before it: a row's own result
/// is stored before the row's elements are computed, which may still read what lay there.
pub(super) fn in_place(nest: &LoopNest, params: &[Place], results: &[Place]) -> SmallVec<[(usize, usize); 2]> {
    let mut order =
        Order { nest, statements: 0, seen: vec![0; nest.exprs.len()], last: HashMap::new(), stores: Vec::new() };
    order.walk(&nest.body);
    let mut pairs = SmallVec::new();
    for (p, param) in params.iter().enumerate() {
        let at: Vec<&Index> = nest
            .exprs
            .iter()
            .filter_map(|(node, _)| match node {
                ExprNode::Load(place, index) | ExprNode::GuardedLoad { place, index, .. } if place == param => {
                    Some(index)
                }
                _ => None,
            })
            .collect();
        for (r, result) in results.iter().enumerate() {
            let same_size =
                nest.place(*param).map(|(d, n)| d.bytes() * n) == nest.place(*result).map(|(d, n)| d.bytes() * n);
            let same_element =
                nest.place(*param).map(|(d, _)| d.bytes()) == nest.place(*result).map(|(d, _)| d.bytes());
            let fits = |(place, index, number): &(Place, Index, usize)| {
                place == result
                    && at.iter().all(|i| *i == index)
                    && order.last.get(param).is_none_or(|last| last <= number)
            };
            if same_size && same_element && order.stores.iter().filter(|(place, ..)| place == result).all(fits) {
                pairs.push((p, r));
            }
        }
    }
    pairs
}

/// Whether a nest loads from a place.
pub(super) fn loads_from(nest: &LoopNest, place: Place) -> bool {
    let loads = |node: &ExprNode| matches!(node, ExprNode::Load(at, _) | ExprNode::GuardedLoad { place: at, .. } if *at == place);
    nest.exprs.iter().any(|(node, _)| loads(node))
}

/// Statements of a nest in the order in which one iteration runs them.
struct Order<'a> {
    nest: &'a LoopNest,
    statements: usize,
    /// The statement that computed each expression last.
    seen: Vec<usize>,
    /// Last statement that loads from a place.
    last: HashMap<Place, usize>,
    /// Every store: where, at which index, in which statement.
    stores: Vec<(Place, Index, usize)>,
}

impl Order<'_> {
    fn walk(&mut self, body: &[Stmt]) {
        for stmt in body {
            self.statements += 1;
            match stmt {
                Stmt::Store { place, index, value } => {
                    self.reads(*value);
                    self.stores.push((*place, index.clone(), self.statements));
                }
                Stmt::Let { value, .. } | Stmt::Set { value, .. } => self.reads(*value),
                Stmt::Loop(inner) => {
                    inner.accumulators.iter().for_each(|a| self.reads(a.init));
                    self.walk(&inner.body);
                }
                Stmt::Check { value, body, .. } => {
                    self.reads(*value);
                    self.walk(body);
                }
                Stmt::If { condition, then, otherwise } => {
                    self.reads(*condition);
                    self.walk(then);
                    self.walk(otherwise);
                }
                Stmt::Call { .. } => {}
            }
        }
    }

    /// Notes that the current statement computes an expression.
    fn reads(&mut self, expr: Expr) {
        let mut work = vec![expr];
        while let Some(expr) = work.pop() {
            if std::mem::replace(&mut self.seen[expr.0 as usize], self.statements) == self.statements {
                continue;
            }
            let node = self.nest.node(expr);
            if let ExprNode::Load(place, _) | ExprNode::GuardedLoad { place, .. } = node {
                self.last.insert(*place, self.statements);
            }
            work.extend(node.children());
        }
    }
}
