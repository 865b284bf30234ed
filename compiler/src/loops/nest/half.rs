//! Half types as the integers that hold them.
//!
//! Machine code has loads and stores of 16 bits, and arithmetic of 32. Before a nest is emitted, what is `bf16` or `f16` in
//! it becomes the `u32` of its bits, and casts become the integer arithmetic of their definitions: to the nearest, ties to
//! even, denormal numbers included. It is written once, as expressions, for every emitter.

use std::borrow::Cow;

use kiln_ir::DType;
use kiln_ir::scalar::{BinaryFn, CompareFn, UnaryFn};

use super::{Accumulator, Expr, ExprNode, Loop, LoopNest, NestBuilder, Stmt};

impl LoopNest {
    /// The nest with half types in memory only: loads of them are `u32`.
    ///
    /// # Errors
    /// If the nest computes in a half type: ops compute in `f32`.
    pub fn without_halves(&self) -> Result<Cow<'_, LoopNest>, String> {
        if !self.exprs.iter().any(|(_, dtype)| dtype.is_half()) {
            return Ok(Cow::Borrowed(self));
        }
        let mut expansion =
            Expansion { nest: self, built: NestBuilder::declaring(self), exprs: Vec::new(), held: Vec::new() };
        for (node, dtype) in &self.exprs {
            let expr = expansion.expr(node, *dtype)?;
            expansion.exprs.push(expr);
            expansion.held.push(*dtype == DType::F32 && expansion.is_held(node));
        }
        let body = expansion.stmts(&self.body);
        let mut nest = expansion.built.finish(self.tiles, body);
        nest.locals.iter_mut().filter(|local| local.dtype.is_half()).for_each(|local| local.dtype = DType::U32);
        Ok(Cow::Owned(nest))
    }
}

struct Expansion<'a> {
    nest: &'a LoopNest,
    built: NestBuilder,
    /// The new number of each expression.
    exprs: Vec<Expr>,
    /// Whether it is an `f32` that a `bf16` holds.
    held: Vec<bool>,
}

impl Expansion<'_> {
    fn renumbered(&self, old: Expr) -> Expr {
        self.exprs[old.0 as usize]
    }

    fn expr(&self, node: &ExprNode, dtype: DType) -> Result<Expr, String> {
        let new = |old: &Expr| self.renumbered(*old);
        let held = if dtype.is_half() { DType::U32 } else { dtype };
        let node = match node {
            ExprNode::Cast(x) if dtype.is_half() || self.nest.dtype(*x).is_half() => {
                if dtype == DType::Bf16 && self.held[x.0 as usize] {
                    return Ok(self.shift(BinaryFn::Shr, self.built.bits(new(x)), 16));
                }
                return Ok(self.cast(new(x), self.nest.dtype(*x), dtype));
            }
            ExprNode::Literal(value) if dtype.is_half() => {
                return Ok(self.word(i64::from(half_bits(value.to_f64() as f32, dtype))));
            }
            ExprNode::Unary(..) | ExprNode::Binary(..) | ExprNode::MulAdd(..) if dtype.is_half() => {
                return Err(format!("{dtype} has no arithmetic"));
            }
            ExprNode::Compare(_, a, _) if self.nest.dtype(*a).is_half() => {
                return Err(format!("{} has no order", self.nest.dtype(*a)));
            }
            ExprNode::Literal(_)
            | ExprNode::Local(_)
            | ExprNode::Index(_)
            | ExprNode::InRange(..)
            | ExprNode::Load(..) => node.clone(),
            ExprNode::GuardedLoad { place, index, condition, otherwise } => ExprNode::GuardedLoad {
                place: *place,
                index: index.clone(),
                condition: new(condition),
                otherwise: new(otherwise),
            },
            ExprNode::Unary(f, x) => ExprNode::Unary(*f, new(x)),
            ExprNode::Binary(f, a, b) => ExprNode::Binary(*f, new(a), new(b)),
            ExprNode::MulAdd(a, b, c) => ExprNode::MulAdd(new(a), new(b), new(c)),
            ExprNode::Compare(f, a, b) => ExprNode::Compare(*f, new(a), new(b)),
            ExprNode::Select(condition, a, b) => ExprNode::Select(new(condition), new(a), new(b)),
            ExprNode::Cast(x) => ExprNode::Cast(new(x)),
            ExprNode::Bits(x) => ExprNode::Bits(new(x)),
            ExprNode::Philox { key, counter, position } => {
                ExprNode::Philox { key: *key, counter: new(counter), position: new(position) }
            }
        };
        Ok(self.built.expr(node, held))
    }

    /// Whether a node is a `bf16` for sure, so that nothing is rounded: one of several such, or its opposite.
    fn is_held(&self, node: &ExprNode) -> bool {
        let held = |x: &Expr| self.held[x.0 as usize];
        match node {
            ExprNode::Cast(of) => self.nest.dtype(*of) == DType::Bf16,
            ExprNode::Literal(value) => {
                let value = value.to_f64() as f32;
                value.to_bits() & 0xffff == 0 && !value.is_nan()
            }
            ExprNode::Binary(BinaryFn::Max | BinaryFn::Min, a, b) | ExprNode::Select(_, a, b) => held(a) && held(b),
            ExprNode::Unary(UnaryFn::Neg | UnaryFn::Abs, of) => held(of),
            _ => false,
        }
    }

    fn cast(&self, x: Expr, from: DType, to: DType) -> Expr {
        let wide = match from {
            DType::Bf16 => self.built.bits(self.shift(BinaryFn::Shl, x, 16)),
            DType::F16 => self.f16_to_f32(x),
            _ => self.built.cast(x, DType::F32),
        };
        match to {
            DType::Bf16 => self.f32_to_bf16(self.built.bits(wide)),
            DType::F16 => self.f32_to_f16(self.built.bits(wide)),
            _ => self.built.cast(wide, to),
        }
    }

    /// Rounds by adding just under half of the last place, or just half where that is odd.
    fn f32_to_bf16(&self, x: Expr) -> Expr {
        let high = self.shift(BinaryFn::Shr, x, 16);
        let odd = self.word_binary(BinaryFn::And, high, 1);
        let rounded = self.word_binary(BinaryFn::Add, x, 0x7fff);
        let rounded = self.shift(BinaryFn::Shr, self.built.binary(BinaryFn::Add, rounded, odd), 16);
        let size = self.word_binary(BinaryFn::And, x, 0x7fff_ffff);
        let quiet = self.word_binary(BinaryFn::Or, high, 0x40);
        self.built.select(self.above(size, 0x7f80_0000), quiet, rounded)
    }

    /// The exponent is brought to its place by a product, which is exact, denormal numbers included.
    fn f16_to_f32(&self, x: Expr) -> Expr {
        let size = self.shift(BinaryFn::Shl, self.word_binary(BinaryFn::And, x, 0x7fff), 13);
        let scale = self.built.literal(2f64.powi(112), DType::F32);
        let scaled = self.built.bits(self.built.binary(BinaryFn::Mul, self.built.bits(size), scale));
        let special = self.word_binary(BinaryFn::Or, size, 0x7f80_0000);
        let size = self.built.select(self.above(size, 0x0f7f_ffff), special, scaled);
        let sign = self.shift(BinaryFn::Shl, self.word_binary(BinaryFn::And, x, 0x8000), 16);
        self.built.bits(self.built.binary(BinaryFn::Or, size, sign))
    }

    /// Numbers below the least normal one are rounded by an addition to 0.5, whose last place is theirs.
    fn f32_to_f16(&self, x: Expr) -> Expr {
        let built = &self.built;
        let size = self.word_binary(BinaryFn::And, x, 0x7fff_ffff);
        let odd = self.word_binary(BinaryFn::And, self.shift(BinaryFn::Shr, size, 13), 1);
        // 0xfff less the difference of the exponents' biases.
        let normal = self.word_binary(BinaryFn::Sub, size, 0x3800_0000 - 0xfff);
        let normal = self.shift(BinaryFn::Shr, built.binary(BinaryFn::Add, normal, odd), 13);
        let normal = self.word_binary(BinaryFn::Min, normal, 0x7c00);
        let half = built.literal(0.5, DType::F32);
        let denormal = built.bits(built.binary(BinaryFn::Add, built.bits(size), half));
        let denormal = self.word_binary(BinaryFn::Sub, denormal, 0x3f00_0000);
        let finite = built.select(self.above(size, 0x387f_ffff), normal, denormal);
        let rounded = built.select(self.above(size, 0x7f80_0000), self.word(0x7e00), finite);
        let sign = self.word_binary(BinaryFn::And, self.shift(BinaryFn::Shr, x, 16), 0x8000);
        built.binary(BinaryFn::Or, rounded, sign)
    }

    fn word(&self, value: i64) -> Expr {
        self.built.literal(value, DType::U32)
    }

    fn word_binary(&self, f: BinaryFn, x: Expr, value: i64) -> Expr {
        self.built.binary(f, x, self.word(value))
    }

    fn shift(&self, f: BinaryFn, x: Expr, distance: i64) -> Expr {
        self.word_binary(f, x, distance)
    }

    fn above(&self, x: Expr, limit: i64) -> Expr {
        self.built.compare(CompareFn::Gt, x, self.word(limit))
    }

    fn stmts(&self, stmts: &[Stmt]) -> Vec<Stmt> {
        stmts.iter().map(|stmt| self.stmt(stmt)).collect()
    }

    fn stmt(&self, stmt: &Stmt) -> Stmt {
        match stmt {
            Stmt::Loop(node) => {
                let accumulator = |a: &Accumulator| Accumulator { init: self.renumbered(a.init), ..a.clone() };
                let accumulators = node.accumulators.iter().map(accumulator).collect();
                let outer = Loop { accumulators, body: Vec::new(), ..node.clone() };
                outer.body(self.stmts(&node.body))
            }
            Stmt::Let { local, value } => Stmt::Let { local: *local, value: self.renumbered(*value) },
            Stmt::Set { local, value } => Stmt::Set { local: *local, value: self.renumbered(*value) },
            Stmt::Store { place, index, value } => {
                Stmt::Store { place: *place, index: index.clone(), value: self.renumbered(*value) }
            }
            Stmt::If { condition, then, otherwise } => Stmt::If {
                condition: self.renumbered(*condition),
                then: self.stmts(then),
                otherwise: self.stmts(otherwise),
            },
            Stmt::Check { value, limit, site, position, body } => Stmt::Check {
                value: self.renumbered(*value),
                limit: *limit,
                site: *site,
                position: position.clone(),
                body: self.stmts(body),
            },
            Stmt::Call { .. } => stmt.clone(),
        }
    }
}

/// The bits of a constant.
fn half_bits(value: f32, dtype: DType) -> u16 {
    let mut bytes = [0; 2];
    kiln_rt::data::convert::encode_float(dtype, value.into(), &mut bytes);
    u16::from_ne_bytes(bytes)
}
