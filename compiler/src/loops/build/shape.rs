//! The loop structure of a kernel: which dimensions run as one loop and which one runs in lanes.

use kiln_ir::types::{Extents, row_major_strides};

use crate::loops::nest::{Atom, Index, LoopNest, NestBuilder, Var};

/// Loop dimensions in order, some of which run as one.
///
/// Two dimensions with nothing but extents of 1 between them can be one loop if every index of the kernel steps through
/// them evenly. Then the outer one is held at 0 and the inner one runs through the product of both extents.
#[derive(Clone, Debug)]
pub(super) struct Dims {
    extents: Extents,
    roles: Vec<Role>,
}

/// What a dimension is among the loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Of extent 1: always at 0.
    Unit,
    /// Runs as one with the next dimension that is no unit.
    Merged,
    /// A loop.
    Loop,
}

impl Dims {
    /// Merges what the indices of a trial nest, in which dimension `i` is `vars[i]`, allow.
    pub(super) fn merge(extents: &[usize], vars: &[Var], indices: &[Index]) -> Dims {
        let role = |&extent: &usize| if extent == 1 { Role::Unit } else { Role::Loop };
        let mut roles: Vec<Role> = extents.iter().map(role).collect();
        let larger: Vec<usize> = (0..extents.len()).filter(|&d| extents[d] != 1).collect();
        for pair in larger.windows(2) {
            let &[outer, inner] = pair else { continue };
            if indices.iter().all(|index| steps_evenly(index, vars[outer], vars[inner], extents[inner])) {
                roles[outer] = Role::Merged;
            }
        }
        Dims { extents: extents.into(), roles }
    }

    /// Extents of the loops, outermost first. At least one.
    pub(super) fn loops(&self) -> Extents {
        let mut loops: Extents = Extents::new();
        let mut run = 1usize;
        for (extent, role) in self.extents.iter().zip(&self.roles) {
            run = run.saturating_mul(*extent);
            if *role == Role::Loop {
                loops.push(run);
                run = 1;
            }
        }
        if loops.is_empty() {
            loops.push(run);
        }
        loops
    }

    /// Index of every dimension, given the index of every loop.
    pub(super) fn indices(&self, loops: &[Index]) -> Vec<Index> {
        let mut next = loops.iter();
        let index = |role: &Role| match role {
            Role::Loop => next.next().cloned().unwrap_or_default(),
            Role::Unit | Role::Merged => Index::constant(0),
        };
        self.roles.iter().map(index).collect()
    }
}

fn steps_evenly(index: &Index, outer: Var, inner: Var, inner_extent: usize) -> bool {
    let plain = index.terms.iter().all(|(atom, _)| match atom {
        Atom::Var(_) | Atom::Local(_) => true,
        Atom::Floor(nested, _) | Atom::Modulo(nested, _) | Atom::Min(nested, _) => {
            let mut touched = false;
            nested.visit(&mut |a| touched |= *a == Atom::Var(outer) || *a == Atom::Var(inner));
            !touched
        }
    });
    plain && index.coefficient(outer) == index.coefficient(inner) * inner_extent as i64
}

/// Every index of a finished nest.
pub(super) fn indices_of(nest: &LoopNest, stores: &[Index]) -> Vec<Index> {
    nest.exprs.iter().filter_map(|(node, _)| node.index().cloned()).chain(stores.iter().cloned()).collect()
}

/// Linear position of an index in row-major order.
pub(super) fn linear(index: &[Index], extents: &[usize]) -> Index {
    if let Some(flat) = flat(index, extents) {
        return flat;
    }
    let strides = row_major_strides(extents);
    index.iter().zip(&strides).fold(Index::constant(0), |sum, (i, &stride)| sum + i.clone() * stride as i64)
}

/// The flat index that [`unflatten`] has split into this one.
fn flat(index: &[Index], extents: &[usize]) -> Option<Index> {
    let last = index.last().filter(|last| index.len() > 1 && last.constant == 0)?;
    let [(Atom::Modulo(of, _), 1)] = last.terms.as_slice() else { return None };
    (unflatten(of, extents) == index).then(|| (**of).clone())
}

/// Splits a flat index into `extents`; the outermost part is the quotient.
pub(super) fn unflatten(flat: &Index, extents: &[usize]) -> Vec<Index> {
    let mut rest = flat.clone();
    let mut parts = Vec::with_capacity(extents.len());
    for (d, &extent) in extents.iter().enumerate().rev() {
        let extent = extent.max(1) as i64;
        if d == 0 {
            parts.push(rest.clone());
        } else {
            parts.push(rest.modulo(extent));
            rest = rest.floor_div(extent);
        }
    }
    parts.reverse();
    parts
}

/// Variables with the number of values each takes, for interval arithmetic.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<(Var, i64)>);

impl Ranges {
    /// A new variable of `0..extent`.
    pub(super) fn var(&mut self, nest: &NestBuilder, name: &str, extent: usize) -> Var {
        let var = nest.var(name);
        self.0.push((var, extent as i64));
        var
    }

    /// Smallest and largest value of an index; `None` if it depends on a loaded index.
    pub(super) fn bounds(&self, index: &Index) -> Option<(i64, i64)> {
        let (mut low, mut high) = (index.constant, index.constant);
        for (atom, coefficient) in &index.terms {
            let (a, b) = match atom {
                Atom::Var(var) => (0, self.0.iter().find(|(v, _)| v == var).map(|(_, n)| (n - 1).max(0))?),
                Atom::Local(_) => return None,
                Atom::Floor(nested, divisor) => {
                    let (a, b) = self.bounds(nested)?;
                    (a.div_euclid(*divisor), b.div_euclid(*divisor))
                }
                Atom::Modulo(nested, divisor) => match self.bounds(nested)? {
                    (a, b) if a >= 0 && b < *divisor => (a, b),
                    _ => (0, divisor - 1),
                },
                Atom::Min(nested, limit) => {
                    let (a, b) = self.bounds(nested)?;
                    (a.min(*limit), b.min(*limit))
                }
            };
            let (a, b) = (a * coefficient, b * coefficient);
            low += a.min(b);
            high += a.max(b);
        }
        Some((low, high))
    }

    /// Whether the index is always in `0..extent`.
    pub(super) fn inside(&self, index: &Index, extent: usize) -> bool {
        self.bounds(index).is_some_and(|(low, high)| low >= 0 && high < extent as i64)
    }
}
