//! A nest of a kernel with what its buffers are.

use super::in_place::loads_from;
use crate::loops::nest::{Access, ExprNode, LoopNest, Place, Stmt};

/// A nest that runs as one launch, declaring only what it uses.
#[derive(Debug)]
pub struct Part {
    /// The loops.
    pub nest: LoopNest,
    /// What each of its buffers is.
    pub buffers: Vec<PartBuffer>,
}

/// What a buffer of a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartBuffer {
    /// Parameter of the region.
    Param(usize),
    /// Result of the region.
    Result(usize),
    /// Memory that the parts of a kernel share, from this byte on.
    Workspace(usize),
}

impl Part {
    /// The nest of a whole kernel: its buffers are the region's parameters and results.
    pub(super) fn whole(nest: LoopNest, params: usize) -> Part {
        let what =
            |number| if number < params { PartBuffer::Param(number) } else { PartBuffer::Result(number - params) };
        let buffers = (0..nest.buffers.len()).map(what).collect();
        Part { nest: with_updates(nest), buffers }
    }

    /// A nest that declares all parameters, all results and the workspace, without what it does not touch.
    pub(super) fn of(nest: LoopNest, params: usize, results: usize, workspace: &[usize]) -> Part {
        let what = |number: usize| match number.checked_sub(params) {
            None => PartBuffer::Param(number),
            Some(result) if result < results => PartBuffer::Result(result),
            Some(own) => PartBuffer::Workspace(workspace[own - results]),
        };
        let used = used(&nest);
        let buffers = (0..nest.buffers.len()).filter(|&number| used[number]).map(what).collect();
        Part { nest: without_unused(with_updates(nest), &used), buffers }
    }
}

/// Which buffers a nest loads from or stores to.
fn used(nest: &LoopNest) -> Vec<bool> {
    let mut used = vec![false; nest.buffers.len()];
    let mut mark = |place: Place| {
        if let Place::Buffer(number) = place {
            used[number as usize] = true;
        }
    };
    for (node, _) in &nest.exprs {
        if let ExprNode::Load(place, _) | ExprNode::GuardedLoad { place, .. } = node {
            mark(*place);
        }
    }
    stored(&nest.body, &mut mark);
    used
}

fn stored(body: &[Stmt], mark: &mut dyn FnMut(Place)) {
    for stmt in body {
        match stmt {
            Stmt::Store { place, .. } => mark(*place),
            Stmt::Loop(inner) => stored(&inner.body, mark),
            Stmt::Check { body, .. } => stored(body, mark),
            _ => {}
        }
    }
}

/// What is written and also loaded, by a later loop or to be combined with more, is updated.
fn with_updates(mut nest: LoopNest) -> LoopNest {
    for number in 0..nest.buffers.len() {
        if nest.buffers[number].access == Access::Write && loads_from(&nest, Place::Buffer(number as u32)) {
            nest.buffers[number].access = Access::ReadWrite;
        }
    }
    nest
}

fn without_unused(mut nest: LoopNest, used: &[bool]) -> LoopNest {
    let numbers: Vec<u32> =
        used.iter().scan(0, |next, &used| Some(std::mem::replace(next, *next + u32::from(used)))).collect();
    let renumber = |place: &mut Place| {
        if let Place::Buffer(number) = place {
            *number = numbers[*number as usize];
        }
    };
    for (node, _) in &mut nest.exprs {
        if let ExprNode::Load(place, _) | ExprNode::GuardedLoad { place, .. } = node {
            renumber(place);
        }
    }
    renumber_stores(&mut nest.body, &renumber);
    let mut keep = used.iter();
    nest.buffers.retain(|_| keep.next().copied().unwrap_or(true));
    nest
}

fn renumber_stores(body: &mut [Stmt], renumber: &dyn Fn(&mut Place)) {
    for stmt in body {
        match stmt {
            Stmt::Store { place, .. } => renumber(place),
            Stmt::Loop(inner) => renumber_stores(&mut inner.body, renumber),
            Stmt::Check { body, .. } => renumber_stores(body, renumber),
            _ => {}
        }
    }
}
