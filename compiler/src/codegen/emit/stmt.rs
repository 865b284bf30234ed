//! Statements other than loops.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, InstBuilder, Value, types};

use super::analysis::Facts;
use super::function::{Emitted, Emitter, Val, trusted};
use crate::loops::nest::{Arg, Expr, Index, Local, Stmt};

impl Emitter<'_, '_> {
    /// Emits statements in order.
    pub(super) fn block(&mut self, stmts: &[Stmt]) -> Emitted<()> {
        stmts.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Emitted<()> {
        match stmt {
            Stmt::Loop(node) => self.loop_(node),
            Stmt::Let { local, value } => {
                let value = self.eval(*value)?;
                self.define(*local, value);
                Ok(())
            }
            Stmt::Set { local, value } => {
                let dtype = self.dtype(*value);
                let value = self.eval(*value)?;
                let lanes = matches!(self.locals[local.0 as usize], Some(Val::Lanes(..)));
                let value = if lanes { self.spread(value, dtype) } else { value };
                self.define(*local, value);
                Ok(())
            }
            Stmt::Store { place, index, value } => {
                self.store(*place, index, *value)?;
                self.kill(&Facts::place(*place));
                Ok(())
            }
            Stmt::If { condition, then, otherwise } => {
                let condition = self.one(*condition)?;
                self.fork(condition, |e| e.block(then), |e| e.block(otherwise))
            }
            Stmt::Check { value, limit, site, position, body } => {
                self.check(*value, *limit, i64::from(site.get()), position, body)
            }
            Stmt::Call { helper, args } => {
                let mut values = Vec::with_capacity(args.len());
                for arg in args {
                    values.push(match arg {
                        Arg::Int(index) => self.index_value(index)?,
                        Arg::Address { place, index } => {
                            let (pointer, offset) = self.address(*place, index)?;
                            self.add_imm(pointer, i64::from(offset))
                        }
                    });
                }
                let slot = 2 + self.nest.buffers.len() + helper.0 as usize;
                self.call_slot(slot, &values, None);
                self.kill(&Facts::changed_by(std::slice::from_ref(stmt)));
                Ok(())
            }
        }
    }

    /// Gives a local its value.
    pub(super) fn define(&mut self, local: Local, value: Val) {
        self.kill(&Facts::local(local));
        self.locals[local.0 as usize] = Some(value);
        self.local_depth[local.0 as usize] = self.depth;
    }

    /// An expression that is the same in all lanes.
    fn one(&mut self, expr: Expr) -> Emitted<Value> {
        match self.eval(expr)? {
            Val::One(value) => Ok(value),
            Val::Lanes(..) => Err("a condition differs between lanes".to_string()),
        }
    }

    fn check(&mut self, value: Expr, limit: i64, site: i64, position: &Index, body: &[Stmt]) -> Emitted<()> {
        let value = self.one(value)?;
        let inside = self.below(value, limit);
        let report = |e: &mut Self| {
            let position = e.index_value(position)?;
            let status = e.load_slot(1);
            let (write, done) = (e.b.create_block(), e.b.create_block());
            let held = e.b.ins().load(types::I64, trusted(), status, 0);
            let free = e.b.ins().icmp_imm_s(IntCC::Equal, held, 0);
            e.branch(free, (write, &[]), (done, &[]));
            e.b.set_cold_block(write);
            e.b.switch_to_block(write);
            let site = e.int(site);
            for (number, word) in [site, value, position].into_iter().enumerate() {
                e.b.ins().store(trusted(), word, status, number as i32 * 8);
            }
            e.jump(done, &[]);
            e.b.switch_to_block(done);
            Ok(())
        };
        self.fork(inside, |e| e.block(body), report)
    }

    /// Two ways and where they meet; accumulators continue as parameters.
    fn fork(
        &mut self,
        condition: Value,
        then: impl FnOnce(&mut Self) -> Emitted<()>,
        otherwise: impl FnOnce(&mut Self) -> Emitted<()>,
    ) -> Emitted<()> {
        let (yes, no) = (self.b.create_block(), self.b.create_block());
        self.branch(condition, (yes, &[]), (no, &[]));
        let before = self.open_values();
        let registers = flatten(before.iter().map(|(_, value)| *value));
        let join = self.block_like(&registers);

        self.b.switch_to_block(yes);
        self.way(join, then)?;
        self.restore(&before);
        self.b.switch_to_block(no);
        self.way(join, otherwise)?;

        self.b.switch_to_block(join);
        let mut params = self.b.block_params(join).to_vec().into_iter();
        for (local, value) in before {
            let value = value.rebuilt(&mut params).ok_or("too few parameters")?;
            self.define_open(local, value);
        }
        Ok(())
    }

    fn way(&mut self, join: Block, emit: impl FnOnce(&mut Self) -> Emitted<()>) -> Emitted<()> {
        let scope = self.open_scope();
        emit(self)?;
        self.close_scope(scope);
        let registers = flatten(self.open_values().iter().map(|(_, value)| *value));
        self.jump(join, &registers);
        Ok(())
    }

    fn open_values(&self) -> Vec<(Local, Val)> {
        self.open.iter().filter_map(|local| Some((*local, self.locals[local.0 as usize]?))).collect()
    }

    fn restore(&mut self, values: &[(Local, Val)]) {
        for (local, value) in values {
            if self.locals[local.0 as usize] != Some(*value) {
                self.define_open(*local, *value);
            }
        }
    }

    /// As [`Emitter::define`] for an accumulator, whose depth stays that of its loop.
    fn define_open(&mut self, local: Local, value: Val) {
        let depth = self.local_depth[local.0 as usize];
        self.define(local, value);
        self.local_depth[local.0 as usize] = depth;
    }
}

impl Val {
    /// The registers.
    pub(super) fn registers(self) -> impl Iterator<Item = Value> {
        let (a, b) = match self {
            Val::One(value) => (value, None),
            Val::Lanes(low, high) => (low, high),
        };
        std::iter::once(a).chain(b)
    }

    /// A value of the same form from other registers.
    pub(super) fn rebuilt(self, registers: &mut impl Iterator<Item = Value>) -> Option<Val> {
        Some(match self {
            Val::One(_) => Val::One(registers.next()?),
            Val::Lanes(_, None) => Val::Lanes(registers.next()?, None),
            Val::Lanes(_, Some(_)) => Val::Lanes(registers.next()?, Some(registers.next()?)),
        })
    }
}

/// The registers of several values.
pub(super) fn flatten(values: impl Iterator<Item = Val>) -> Vec<Value> {
    values.flat_map(Val::registers).collect()
}
