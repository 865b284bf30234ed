//! Values of a region at an index, as expressions over loads.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;

use kiln_ir::body::{Affine, Body, IndexExpr, Map, Read};
use kiln_ir::graph::{Def, Graph, NodeData, Value};
use kiln_ir::scalar::{CompareFn, ScalarExpr, ScalarNode, UnaryFn};
use kiln_ir::types::{DType, Extents};

use super::shape::{Ranges, linear, unflatten};
use super::{CheckSite, Declined, body_of};
use crate::loops::nest::{Access, Expr, Index, Local, NestBuilder, Place, Stmt};

/// A nest under construction.
pub(super) struct Evaluator<'a> {
    pub(super) region: &'a Graph,
    pub(super) nest: NestBuilder,
    pub(super) ranges: Ranges,
    /// Place of each parameter, then of each result, by position.
    pub(super) params: Vec<Place>,
    pub(super) results: Vec<Place>,
    /// Body of each member, by node.
    maps: Vec<Option<Map>>,
    /// Reduced values of the current row, in the type in which they are combined.
    pub(super) row_values: HashMap<Value, Local>,
    /// Index of the current row, and of the current element if it lies in an element loop.
    pub(super) row: Vec<Index>,
    pub(super) element: Option<Vec<Index>>,
    /// Values kept in memory: place, whether a loop has stored them; index of the current element in row scratch.
    pub(super) kept: HashMap<Value, Kept>,
    pub(super) scratch_index: Index,
    /// Uses of each value: what is used more than once gets a local.
    uses: Vec<u32>,
    /// Values already computed in the current statement list.
    memo: HashMap<(Value, Vec<Index>, Option<Expr>), Expr>,
    /// Reads that may be outside, found here; and those that a trial found, if there was one.
    pub(super) unproven: HashSet<ReadSite>,
    pub(super) proven: Option<HashSet<ReadSite>>,
    /// Statements that must run before the one under construction, in order.
    pending: Vec<Pending>,
    /// Values stored in row scratch by the current stage.
    touched: Vec<Value>,
    pub(super) checks: Vec<CheckSite>,
}

/// Dimension of a read of a member, named by its first result.
pub(super) type ReadSite = (Value, usize, usize);

/// An index per dimension, and the condition under which it is inside, if it needs one.
type GuardedIndex = (Vec<Index>, Option<Expr>);

/// A value that lies in memory: in row scratch, or where it is a result.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    pub(super) place: Place,
    pub(super) filled: bool,
    pub(super) is_result: bool,
}

enum Pending {
    Do(Stmt),
    Check { value: Expr, limit: i64, site: NonZeroU32, position: Index },
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(name: &str, region: &'a Graph) -> Result<Evaluator<'a>, Declined> {
        let nest = NestBuilder::new(name);
        let declare = |value: Value, access| {
            let data = region.value(value);
            nest.buffer(&*data.name, data.ty.dtype, data.ty.elements(), access)
        };
        let params = region.params().iter().map(|p| declare(p.value, Access::Read)).collect();
        let results = region.returns().iter().map(|&v| declare(v, Access::Write)).collect();
        let maps = region.nodes().map(|(_, data)| match body_of(region, data) {
            Body::Map(map) => Some(map),
            _ => None,
        });
        let maps = maps.collect();
        Ok(Evaluator {
            region,
            nest,
            ranges: Ranges::default(),
            params,
            results,
            maps,
            row_values: HashMap::new(),
            row: Vec::new(),
            element: None,
            kept: HashMap::new(),
            scratch_index: Index::default(),
            uses: region.use_counts(),
            memo: HashMap::new(),
            unproven: HashSet::new(),
            proven: None,
            pending: Vec::new(),
            touched: Vec::new(),
            checks: Vec::new(),
        })
    }

    pub(super) fn map(&self, value: Value) -> Option<(&'a NodeData, &Map, usize)> {
        let Def::Result(node, result) = self.region.value(value).def else { return None };
        Some((self.region.node(node), self.maps[node.index()].as_ref()?, result))
    }

    /// Starts a statement list: nothing computed before is visible in it.
    pub(super) fn begin(&mut self) {
        self.memo.clear();
        self.pending.clear();
    }

    /// Ends a statement list: what is pending, then `last`, which failed checks skip.
    pub(super) fn end(&mut self, last: Vec<Stmt>) -> Vec<Stmt> {
        self.memo.clear();
        let mut list = last;
        for pending in std::mem::take(&mut self.pending).into_iter().rev() {
            match pending {
                Pending::Do(stmt) => list.insert(0, stmt),
                Pending::Check { value, limit, site, position } => {
                    list = vec![self.nest.check(value, limit, site, position, list)];
                }
            }
        }
        list
    }

    /// Ends a stage: what it stored in row scratch may be loaded from now on.
    pub(super) fn settle_kept(&mut self) {
        for value in std::mem::take(&mut self.touched) {
            if let Some(kept) = self.kept.get_mut(&value) {
                kept.filled = true;
            }
        }
    }

    /// Adds a statement before the one under construction.
    pub(super) fn first_do(&mut self, stmt: Stmt) {
        self.pending.push(Pending::Do(stmt));
    }

    /// `value` at `at`; where `guard` is false it may be anything, but nothing outside is loaded.
    pub(super) fn value(&mut self, value: Value, at: &[Index], guard: Option<Expr>) -> Result<Expr, Declined> {
        if let Some(&local) = self.row_values.get(&value) {
            let combined = self.nest.value(local);
            let stored = self.region.ty(value).dtype;
            return if at == self.row { Ok(self.nest.cast(combined, stored)) } else { Err(Declined::Row) };
        }
        let key = (value, at.to_vec(), guard);
        if let Some(&known) = self.memo.get(&key) {
            return Ok(known);
        }
        let expr = self.compute(value, at, guard)?;
        self.memo.insert(key, expr);
        Ok(expr)
    }

    fn compute(&mut self, value: Value, at: &[Index], guard: Option<Expr>) -> Result<Expr, Declined> {
        let data = self.region.value(value);
        let extents = data.ty.extents();
        match data.def {
            Def::Param(number) => {
                let index = linear(at, &extents);
                Ok(self.load(self.params[number], index, guard, data.ty.dtype))
            }
            Def::Result(node, result) => {
                let Some(map) = self.maps[node.index()].clone() else { return Err(Declined::Body) };
                if !map.reduce.is_empty() {
                    return Err(Declined::Row);
                }
                // What is computed under a guard is no value where the guard is false.
                let here = guard.is_none() && self.element.as_deref() == Some(at);
                let kept = self.kept.get(&value).copied().filter(|_| here);
                if let Some(kept) = kept.filter(|k| k.filled) {
                    let index = if kept.is_result { linear(at, &extents) } else { self.scratch_index.clone() };
                    return Ok(self.nest.load(kept.place, index));
                }
                let point = point_of(&map, at, &extents);
                let expr = self.expression(self.region.node(node), &map, result, &point, guard)?;
                let expr = self.nest.cast(expr, data.ty.dtype);
                if kept.is_none() && (self.uses[value.index()] < 2 || guard.is_some() || is_leaf(&map)) {
                    return Ok(expr);
                }
                let local = self.nest.local(&data.name, data.ty.dtype);
                self.first_do(Stmt::Let { local, value: expr });
                let stored = self.nest.value(local);
                if let Some(kept) = kept {
                    let index = self.scratch_index.clone();
                    self.first_do(self.nest.store(kept.place, index, stored));
                    self.touched.push(value);
                }
                Ok(stored)
            }
        }
    }

    /// Expression number `result` of a member's map at a point of its dimensions.
    pub(super) fn expression(
        &mut self,
        data: &NodeData,
        map: &Map,
        result: usize,
        point: &[Index],
        guard: Option<Expr>,
    ) -> Result<Expr, Declined> {
        let mut memo = HashMap::new();
        self.scalar(data, map, &map.exprs[result], point, guard, &mut memo)
    }

    /// The factors of expression number `result`, if it is a product of floats: sums of products round once.
    pub(super) fn product(
        &mut self,
        data: &NodeData,
        map: &Map,
        result: usize,
        point: &[Index],
    ) -> Result<Option<(Expr, Expr)>, Declined> {
        let ScalarNode::Binary(kiln_ir::scalar::BinaryFn::Mul, a, b) = map.exprs[result].node() else {
            return Ok(None);
        };
        if !map.exprs[result].dtype().is_float() {
            return Ok(None);
        }
        let mut memo = HashMap::new();
        let a = self.scalar(data, map, a, point, None, &mut memo)?;
        Ok(Some((a, self.scalar(data, map, b, point, None, &mut memo)?)))
    }

    /// As `NestBuilder::scalar`, but a read may be declined.
    fn scalar(
        &mut self,
        data: &NodeData,
        map: &Map,
        expr: &ScalarExpr,
        point: &[Index],
        guard: Option<Expr>,
        memo: &mut HashMap<usize, Expr>,
    ) -> Result<Expr, Declined> {
        if let Some(&known) = memo.get(&expr.address()) {
            return Ok(known);
        }
        let mut sub = |this: &mut Self, x: &ScalarExpr| this.scalar(data, map, x, point, guard, memo);
        let value = match expr.node() {
            ScalarNode::Read(read) => self.read(data, *read, &map.reads[*read], point, guard)?,
            ScalarNode::Index(dim) => self.nest.index(point[*dim].clone()),
            ScalarNode::Literal(number) => self.nest.literal(*number, expr.dtype()),
            ScalarNode::Unary(f, x) => {
                let x = sub(self, x)?;
                self.nest.unary(*f, x)
            }
            ScalarNode::Binary(f, a, b) => {
                let (a, b) = (sub(self, a)?, sub(self, b)?);
                self.nest.binary(*f, a, b)
            }
            ScalarNode::Compare(f, a, b) => match self.position_below(*f, a, b, point) {
                Some(inside) => inside,
                None => {
                    let (a, b) = (sub(self, a)?, sub(self, b)?);
                    self.nest.compare(*f, a, b)
                }
            },
            ScalarNode::Select(c, a, b) => {
                let (c, a, b) = (sub(self, c)?, sub(self, a)?, sub(self, b)?);
                self.nest.select(c, a, b)
            }
            ScalarNode::Cast(x) => {
                let x = sub(self, x)?;
                self.nest.cast(x, expr.dtype())
            }
            ScalarNode::Philox { key, counter, position } => {
                let (counter, position) = (sub(self, counter)?, sub(self, position)?);
                self.nest.philox(*key, counter, position)
            }
        };
        memo.insert(expr.address(), value);
        Ok(value)
    }

    fn read(
        &mut self,
        data: &NodeData,
        number: usize,
        read: &Read,
        point: &[Index],
        guard: Option<Expr>,
    ) -> Result<Expr, Declined> {
        let operand = data.operands[read.operand];
        let ty = self.region.ty(operand).clone();
        let extents: Extents = read.view.clone().unwrap_or_else(|| ty.extents());
        let outside = self.nest.literal(read.outside.unwrap_or(kiln_ir::scalar::Number::Int(0)), ty.dtype);
        let Some((index, inside)) = self.operand_index(data, number, read, &extents, point, guard)? else {
            return Ok(outside);
        };
        let condition = match (inside, guard) {
            (Some(inside), Some(guard)) => Some(self.nest.binary(kiln_ir::scalar::BinaryFn::And, guard, inside)),
            (inside, guard) => inside.or(guard),
        };
        let at = if read.view.is_some() && !matches!(self.region.value(operand).def, Def::Param(_)) {
            unflatten(&linear(&index, &extents), &ty.extents())
        } else {
            index
        };
        if let (Def::Param(number), Some(condition)) = (self.region.value(operand).def, inside.and(condition)) {
            let position = linear(&at, &extents);
            return Ok(self.nest.guarded_load(self.params[number], position, condition, outside));
        }
        if let Def::Param(number) = self.region.value(operand).def {
            let position = linear(&at, &extents);
            return Ok(self.load(self.params[number], position, guard, ty.dtype));
        }
        let value = self.value(operand, &at, condition)?;
        Ok(match inside {
            Some(inside) => self.nest.select(inside, value, outside),
            None => value,
        })
    }

    fn load(&self, place: Place, index: Index, guard: Option<Expr>, dtype: DType) -> Expr {
        match guard {
            None => self.nest.load(place, index),
            Some(condition) => self.nest.guarded_load(place, index, condition, self.nest.literal(0i64, dtype)),
        }
    }

    /// Where an operand is read, and the condition under which that is inside, if it needs one; `None` if never.
    fn operand_index(
        &mut self,
        data: &NodeData,
        number: usize,
        read: &Read,
        extents: &[usize],
        point: &[Index],
        guard: Option<Expr>,
    ) -> Result<Option<GuardedIndex>, Declined> {
        let mut index = Vec::with_capacity(read.index.len());
        let mut inside: Option<Expr> = None;
        for (dim, expr) in read.index.iter().enumerate() {
            match expr {
                IndexExpr::Affine(affine) => {
                    let site = (data.results[0], number, dim);
                    let (part, conditions) = self.affine(affine, extents[dim], point, read.outside.map(|_| site));
                    let Some(conditions) = conditions else { return Ok(None) };
                    for condition in conditions {
                        inside = Some(match inside {
                            Some(other) => self.nest.binary(kiln_ir::scalar::BinaryFn::And, other, condition),
                            None => condition,
                        });
                    }
                    index.push(part);
                }
                IndexExpr::Load { operand, index: at } => {
                    if guard.is_some() {
                        return Err(Declined::Guard);
                    }
                    index.push(self.loaded_index(data, *operand, at, extents[dim], point)?);
                }
            }
        }
        Ok(Some((index, inside)))
    }

    /// The index, and the conditions under which it is inside; `None` if it never is. Whether it always is, the trial
    /// knows: merged loops run through more than one dimension.
    fn affine(
        &mut self,
        affine: &Affine,
        extent: usize,
        point: &[Index],
        guarded: Option<ReadSite>,
    ) -> (Index, Option<Vec<Expr>>) {
        let terms = affine.terms.iter().map(|&(dim, c)| point[dim].clone() * c);
        let dividend = terms.fold(Index::constant(affine.offset), |sum, term| sum + term);
        let index = dividend.floor_div(affine.divisor);
        let mut conditions = Vec::new();
        if let Some(site) = guarded {
            let remainder = dividend.modulo(affine.divisor);
            match remainder.as_constant() {
                Some(0) => {}
                Some(_) => return (index, None),
                None => conditions.push(self.nest.in_range(remainder, 1)),
            }
            let inside = match (&self.proven, index.as_constant()) {
                (_, Some(constant)) if constant < 0 || constant >= extent as i64 => return (index, None),
                (_, Some(_)) => true,
                (Some(unproven), None) => !unproven.contains(&site),
                (None, None) => self.ranges.inside(&index, extent),
            };
            if !inside {
                self.unproven.insert(site);
                conditions.push(self.nest.in_range(index.clone(), extent as i64));
            }
        }
        (index, Some(conditions))
    }

    /// `position < limit` as the test of a range, where the position is never negative: what a concatenation asks of each
    /// element, in 32 bit.
    fn position_below(&self, f: CompareFn, a: &ScalarExpr, b: &ScalarExpr, point: &[Index]) -> Option<Expr> {
        let (CompareFn::Lt, ScalarNode::Index(dim), ScalarNode::Literal(limit)) = (f, a.node(), b.node()) else {
            return None;
        };
        let index = point.get(*dim)?;
        let (low, _) = self.ranges.bounds(index)?;
        (low >= 0 && index.as_constant().is_none()).then(|| self.nest.in_range(index.clone(), limit.to_i64()))
    }

    /// An index loaded from an operand, checked against the extent.
    pub(super) fn loaded_index(
        &mut self,
        data: &NodeData,
        operand: usize,
        at: &[Affine],
        extent: usize,
        point: &[Index],
    ) -> Result<Index, Declined> {
        let operand = data.operands[operand];
        let place: Vec<Index> = at.iter().map(|a| self.affine(a, usize::MAX, point, None).0).collect();
        let loaded = self.value(operand, &place, None)?;
        let wide = self.nest.cast(loaded, DType::I64);
        let local = self.nest.local("index", DType::I64);
        self.first_do(Stmt::Let { local, value: wide });
        self.checks.push(CheckSite {
            mnemonic: data.op.mnemonic(),
            provenance: data.provenance.clone(),
            limit: extent as i64,
        });
        let site = NonZeroU32::MIN.saturating_add(self.checks.len() as u32 - 1);
        let position = linear(&place, &self.region.ty(operand).extents());
        let value = self.nest.value(local);
        self.pending.push(Pending::Check { value, limit: extent as i64, site, position });
        Ok(Index::local(local))
    }
}

/// The point of a map at which it defines the result's element `at`.
pub(super) fn point_of(map: &Map, at: &[Index], extents: &[usize]) -> Vec<Index> {
    if map.parallel.len() == at.len() && map.parallel.as_slice() == extents {
        at.to_vec()
    } else {
        unflatten(&linear(at, extents), &map.parallel)
    }
}

/// Whether a member costs enough to be kept for a later stage instead of being computed again.
pub fn is_expensive(map: &Map) -> bool {
    fn expensive(expr: &ScalarExpr) -> bool {
        use kiln_ir::scalar::BinaryFn;
        let own = match expr.node() {
            ScalarNode::Unary(f, _) => {
                matches!(f, UnaryFn::Exp | UnaryFn::Log | UnaryFn::Tanh | UnaryFn::Erf | UnaryFn::Sin | UnaryFn::Cos)
            }
            ScalarNode::Binary(f, ..) => matches!(f, BinaryFn::Pow),
            ScalarNode::Philox { .. } => true,
            _ => false,
        };
        own || expr.children().any(expensive)
    }
    map.exprs.iter().any(expensive)
}

/// Whether a member is a constant or a position: computing it again is free.
fn is_leaf(map: &Map) -> bool {
    map.exprs.iter().all(|e| matches!(e.node(), ScalarNode::Literal(_) | ScalarNode::Index(_) | ScalarNode::Read(_)))
}
