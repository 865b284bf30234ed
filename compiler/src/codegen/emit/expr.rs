//! Values of expressions: the same in all lanes as long as their operands are.

use kiln_ir::scalar::Number;

use super::function::{Emitted, Emitter, LANES, Val, lane_type, scalar_type};
use super::index::Along;
use crate::loops::nest::{Expr, ExprNode, Index};

/// The two literals of a binary function, where they are known.
pub(super) type Literals = (Option<Number>, Option<Number>);

impl Emitter<'_, '_> {
    /// Value of an expression.
    pub(super) fn eval(&mut self, expr: Expr) -> Emitted<Val> {
        let nest = self.nest;
        match nest.node(expr) {
            ExprNode::Local(local) => {
                return self.locals[local.0 as usize].ok_or_else(|| format!("{local:?} has no value"));
            }
            // Made where it is used: as an operand of the instruction, or a register that was hoisted.
            ExprNode::Literal(value) => {
                let dtype = self.dtype(expr);
                return Ok(Val::One(self.scalar_literal(*value, dtype)));
            }
            _ => {}
        }
        if let Some(known) = self.known(expr) {
            return Ok(known);
        }
        let value = self.fresh(expr)?;
        self.remember(expr, value);
        Ok(value)
    }

    fn fresh(&mut self, expr: Expr) -> Emitted<Val> {
        let nest = self.nest;
        let dtype = self.dtype(expr);
        match nest.node(expr) {
            ExprNode::Local(_) | ExprNode::Literal(_) => Err("evaluated in place".to_string()),
            ExprNode::Index(index) => self.index_expr(index),
            ExprNode::InRange(index, limit) => self.in_range(index, *limit),
            ExprNode::Load(place, index) => self.load(*place, index),
            ExprNode::GuardedLoad { place, index, condition, otherwise } => {
                self.guarded_load(*place, index, *condition, *otherwise)
            }
            ExprNode::Unary(function, x) => match self.eval(*x)? {
                Val::One(x) => Ok(Val::One(self.scalar_unary(*function, dtype, x)?)),
                x @ Val::Lanes(..) => self.lanes_unary(*function, dtype, x),
            },
            ExprNode::Binary(function, a, b) => {
                let literals = (self.literal(*a), self.literal(*b));
                match (self.eval(*a)?, self.eval(*b)?) {
                    (Val::One(a), Val::One(b)) => Ok(Val::One(self.scalar_binary(*function, dtype, a, b, literals)?)),
                    _ => {
                        let (a, b) = (self.operand(*a)?, self.operand(*b)?);
                        self.lanes_binary(*function, dtype, a, b, literals)
                    }
                }
            }
            ExprNode::MulAdd(a, b, c) => match (self.eval(*a)?, self.eval(*b)?, self.eval(*c)?) {
                (Val::One(a), Val::One(b), Val::One(c)) => Ok(Val::One(self.multiply_add(a, b, c))),
                _ => {
                    let (a, b, c) = (self.operand(*a)?, self.operand(*b)?, self.operand(*c)?);
                    self.lanes_multiply_add(dtype, a, b, c)
                }
            },
            ExprNode::Compare(function, a, b) => {
                let of = self.dtype(*a);
                match (self.eval(*a)?, self.eval(*b)?) {
                    (Val::One(a), Val::One(b)) => Ok(Val::One(self.scalar_compare(*function, of, a, b))),
                    _ => {
                        let (a, b) = (self.operand(*a)?, self.operand(*b)?);
                        self.lanes_compare(*function, of, a, b)
                    }
                }
            }
            ExprNode::Select(condition, a, b) => match (self.eval(*condition)?, self.eval(*a)?, self.eval(*b)?) {
                (Val::One(condition), Val::One(a), Val::One(b)) => Ok(Val::One(self.pick(condition, a, b))),
                _ => {
                    let condition = self.operand(*condition)?;
                    let (a, b) = (self.operand(*a)?, self.operand(*b)?);
                    self.lanes_select(dtype, condition, a, b)
                }
            },
            ExprNode::Cast(x) => {
                let from = self.dtype(*x);
                match self.eval(*x)? {
                    Val::One(x) => Ok(Val::One(self.scalar_cast(from, dtype, x)?)),
                    x @ Val::Lanes(..) => self.lanes_cast(from, dtype, x),
                }
            }
            ExprNode::Bits(x) => Ok(match self.eval(*x)? {
                Val::One(x) => Val::One(self.bits(x, scalar_type(dtype))),
                Val::Lanes(x, _) => Val::Lanes(self.bits(x, lane_type(dtype).0), None),
            }),
            ExprNode::Philox { key, counter, position } => match (self.eval(*counter)?, self.eval(*position)?) {
                (Val::One(counter), Val::One(position)) => Ok(Val::One(self.philox(*key, counter, position))),
                _ => {
                    let (counter, position) = (self.operand(*counter)?, self.operand(*position)?);
                    self.lanes_philox(*key, counter, position)
                }
            },
        }
    }

    /// The value for use in lanes: a literal is a whole vector at once.
    pub(super) fn operand(&mut self, expr: Expr) -> Emitted<Val> {
        let dtype = self.dtype(expr);
        match self.literal(expr) {
            Some(value) => Ok(self.literal_lanes(value, dtype)),
            None => {
                let value = self.eval(expr)?;
                Ok(self.spread(value, dtype))
            }
        }
    }

    fn literal(&self, expr: Expr) -> Option<Number> {
        match self.nest.node(expr) {
            ExprNode::Literal(value) => Some(*value),
            _ => None,
        }
    }

    fn index_expr(&mut self, index: &Index) -> Emitted<Val> {
        match self.along(index) {
            Along::Uniform => Ok(Val::One(self.index_value(index)?)),
            Along::Step(step) => {
                let first = self.index_value(index)?;
                Ok(self.ramp(first, step))
            }
            Along::Any => self.each_lane(kiln_ir::DType::I64, |e| e.index_value(index)),
        }
    }

    fn in_range(&mut self, index: &Index, limit: i64) -> Emitted<Val> {
        let along = self.along(index);
        if along == Along::Uniform {
            let value = self.index_value(index)?;
            return Ok(Val::One(self.below(value, limit)));
        }
        let fits = |value: i64| i32::try_from(value).is_ok();
        let narrow = self.range(index).is_some_and(|(least, greatest)| fits(least) && fits(greatest)) && fits(limit);
        match along {
            Along::Step(step) if narrow && fits(step * LANES) => {
                let first = self.index_value(index)?;
                Ok(self.ramp_below(first, step, limit.max(0)))
            }
            _ => self.each_lane(kiln_ir::DType::Bool, |e| {
                let value = e.index_value(index)?;
                Ok(e.below(value, limit))
            }),
        }
    }

    /// Computes every lane by itself.
    pub(super) fn each_lane(
        &mut self,
        dtype: kiln_ir::DType,
        mut element: impl FnMut(&mut Self) -> Emitted<cranelift_codegen::ir::Value>,
    ) -> Emitted<Val> {
        let mut elements = Vec::with_capacity(LANES as usize);
        for lane in 0..LANES as u8 {
            self.single = Some(lane);
            let value = element(self);
            self.single = None;
            elements.push(value?);
        }
        Ok(self.gathered(&elements, dtype))
    }
}
