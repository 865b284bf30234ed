//! Which results may be computed over which operands.

use smallvec::SmallVec;

use crate::loops::nest::{ExprNode, Index, LoopNest, Place, Stmt};

/// Parameters whose every load is at the index of a result's store, in the statement list of that store.
pub(super) fn in_place(nest: &LoopNest, params: &[Place], results: &[Place]) -> SmallVec<[(usize, usize); 2]> {
    let mut stores: Vec<(Place, Index)> = Vec::new();
    collect_stores(&nest.body, &mut stores);
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
            let store = stores.iter().find(|(place, _)| place == result);
            if same_size && same_element && store.is_some_and(|(_, index)| at.iter().all(|i| *i == index)) {
                pairs.push((p, r));
            }
        }
    }
    pairs
}

fn collect_stores(body: &[Stmt], stores: &mut Vec<(Place, Index)>) {
    for stmt in body {
        match stmt {
            Stmt::Store { place, index, .. } => stores.push((*place, index.clone())),
            Stmt::Loop(inner) => collect_stores(&inner.body, stores),
            Stmt::Check { body, .. } => collect_stores(body, stores),
            Stmt::If { then, otherwise, .. } => {
                collect_stores(then, stores);
                collect_stores(otherwise, stores);
            }
            Stmt::Let { .. } | Stmt::Set { .. } | Stmt::Call { .. } => {}
        }
    }
}
