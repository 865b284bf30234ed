//! Wide loops in a kernel: which loops are, and the call of their code.
//!
//! The call is direct: the wide code lies behind the kernel's own, at a distance that is filled in when both are known.
//! Arguments go through a block on the stack; a call changes every vector register, so nothing is held across it that
//! could be made again.

use cranelift_codegen::ir::{
    AbiParam, ExtFuncData, ExternalName, InstBuilder, Signature, StackSlotData, StackSlotKind, UserExternalName, Value,
    types,
};
use cranelift_codegen::isa::CallConv;
use kiln_ir::DType;

use super::analysis::LaneCheck;
use super::function::{Emitted, Emitter, Val, scalar_type};
use super::loops::Bound;
use crate::codegen::wide::tape::Tape;
use crate::codegen::wide::{self, WideCode};
use crate::codegen::{LoopWidth, Width};
use crate::loops::nest::{Expr, ExprNode, Local, Loop, Stmt, Var};

mod access;
mod functions;
mod lower;

use lower::WideLoop;

/// Namespace of the names of wide functions.
const NAMESPACE: u32 = 1;
/// A shorter loop does not repay the call.
const LEAST_COUNT: i64 = wide::LANES;
/// Nor does a shorter row fill enough of a vector.
const LEAST_IN_ROWS: i64 = 4;
/// A body with fewer expressions takes four vectors at a time, as the counter would cost as much as the work.
const SMALL_BODY: usize = 12;
/// A body with fewer expressions takes two.
const MIDDLE_BODY: usize = 40;
/// Vectors at a time of a reduction: hides 4 cycles of latency at two additions per cycle.
const REDUCTION_COPIES: usize = 8;

/// A wide loop with its code.
pub(super) struct Planned {
    /// First values of the variables inside the loop.
    first: Vec<(Var, i64)>,
    /// Iterations of the loop in lanes, if it is not the loop itself.
    lanes: Option<i64>,
    wide: WideLoop,
    code: WideCode,
}

/// Loops one inside the other, with nothing between them but the handing over of accumulators; the last runs in lanes.
struct Chain<'a> {
    rows: Vec<&'a Loop>,
    lanes: &'a Loop,
}

impl<'a> Chain<'a> {
    fn of(node: &'a Loop) -> Option<Chain<'a>> {
        let mut chain = Chain { rows: Vec::new(), lanes: node };
        while !chain.lanes.vector {
            let outer = chain.lanes;
            let (Stmt::Loop(inner), rest) = outer.body.split_first()? else { return None };
            if !combine_alike(outer, inner, rest) || !has_constant_bounds(inner) {
                return None;
            }
            chain.rows.push(outer);
            chain.lanes = inner;
        }
        Some(chain)
    }

    /// Bounds of all loops but the first, first values of their variables.
    fn first_values(&self) -> Vec<(Var, i64)> {
        let inner = self.rows.iter().chain([&self.lanes]).skip(1);
        inner.map(|node| (node.var, node.begin.as_constant().unwrap_or(0))).collect()
    }
}

/// Whether the loops have as many accumulators, of the same kinds, and the rest of the outer body as many statements.
fn combine_alike(outer: &Loop, inner: &Loop, rest: &[Stmt]) -> bool {
    let count = outer.accumulators.len();
    let mut pairs = outer.accumulators.iter().zip(&inner.accumulators);
    inner.accumulators.len() == count
        && rest.len() == count
        && pairs.all(|(out, own)| own.combine.is_some() && own.combine == out.combine)
}

fn has_constant_bounds(node: &Loop) -> bool {
    constant_count(node).is_some_and(|count| count > 0)
}

fn constant_count(node: &Loop) -> Option<i64> {
    Some((node.end.as_constant()? - node.begin.as_constant()? + node.step - 1) / node.step)
}

impl Emitter<'_, '_> {
    /// The wide form of a loop that may run in lanes, or has nothing in it but such a loop, if there is one. Notes the
    /// decision.
    pub(super) fn plan_wide(&mut self, node: &Loop, begin: Bound, end: Bound, lanes: bool) -> Option<Planned> {
        if self.lane.is_some() {
            return None;
        }
        let chain = Chain::of(node).filter(|chain| self.is_handed_over(chain))?;
        let planned = match () {
            () if !self.wide => Err("wider vectors are not used"),
            () if !self.may_run_in_lanes(&chain, lanes) => Err("it does not run in lanes"),
            () => self.try_wide(&chain, begin, end),
        };
        let variable = self.nest.vars.get(chain.lanes.var.0 as usize).cloned().unwrap_or_default();
        let width = match &planned {
            Ok(planned) => Width::Wide { vectors: planned.code.copies },
            // The inner loop is asked again by itself.
            Err(_) if !chain.rows.is_empty() => return None,
            Err(reason) => Width::Narrow { reason },
        };
        self.loops.push(LoopWidth { variable, width });
        planned.ok()
    }

    fn may_run_in_lanes(&self, chain: &Chain<'_>, lanes: bool) -> bool {
        lanes || (!chain.rows.is_empty() && LaneCheck::allows(self.nest, &self.facts, chain.lanes))
    }

    /// Whether each inner loop begins with the accumulators of the outer one, which then takes the results.
    fn is_handed_over(&self, chain: &Chain<'_>) -> bool {
        let is_local = |expr: Expr, local: Local| *self.nest.node(expr) == ExprNode::Local(local);
        let inner = chain.rows.iter().chain([&chain.lanes]).skip(1);
        chain.rows.iter().zip(inner).all(|(outer, inner)| {
            outer.accumulators.iter().zip(&inner.accumulators).all(|(out, own)| {
                let taken = |stmt: &Stmt| match stmt {
                    Stmt::Set { local, value } => *local == out.local && is_local(*value, own.local),
                    _ => false,
                };
                is_local(own.init, out.local) && outer.body.iter().any(taken)
            })
        })
    }

    fn try_wide(&self, chain: &Chain<'_>, begin: Bound, end: Bound) -> Result<Planned, &'static str> {
        let node = chain.lanes;
        let lanes = if chain.rows.is_empty() { None } else { constant_count(node) };
        let count = match (lanes, begin, end) {
            (Some(count), ..) => count,
            (None, Bound::Known(begin), Bound::Known(end)) => end - begin,
            (None, ..) => i64::MAX,
        };
        let least = if lanes.is_some() { LEAST_IN_ROWS } else { LEAST_COUNT };
        if count < least {
            return Err("fewer iterations than lanes");
        }
        let mut wide = lower::lower(self.nest, &self.facts, &chain.rows, node)?;
        let counts = chain.rows.iter().skip(1).map(|row| i32::try_from(constant_count(row)?).ok());
        wide.tape.set_rows(counts.collect::<Option<_>>().ok_or("a loop that is too long")?);
        let wanted = match () {
            () if node.unroll > 0 => node.unroll as usize,
            () if wide.tape.has_totals() || wide.tape.has_repeats() => REDUCTION_COPIES,
            () if wide.size < SMALL_BODY => 4,
            () if wide.size < MIDDLE_BODY => 2,
            () => 1,
        };
        let most = usize::try_from(count / wide::LANES).unwrap_or(usize::MAX);
        let copies = wanted.min(most).max(1);
        // Copies are combined in pairs.
        let copies = if copies.is_power_of_two() { copies } else { copies.next_power_of_two() / 2 };
        let code = wide::assemble(&wide.tape, copies, self.listing)?;
        Ok(Planned { first: chain.first_values(), lanes, wide, code })
    }

    /// Calls the wide form of a loop, of which at least one iteration runs.
    pub(super) fn call_wide(&mut self, node: &Loop, begin: Bound, end: Bound, planned: Planned) -> Emitted<()> {
        let Planned { first, lanes, wide, code } = planned;
        let inits: Vec<Option<Val>> =
            node.accumulators.iter().map(|accumulator| self.locals[accumulator.local.0 as usize]).collect();
        let (from, to) = (self.value(begin), self.value(end));
        let distance = self.b.ins().isub(to, from);
        let (count, rows) = match lanes {
            None => (distance, None),
            Some(lanes) => (self.int(lanes), Some(self.iterations(distance, node.step))),
        };
        match begin {
            Bound::Known(known) => self.set_var(node.var, None, known),
            Bound::Value(value) => self.set_var(node.var, Some(value), 0),
        }
        for (var, value) in first.iter().chain(&wide.inner) {
            self.set_var(*var, None, *value);
        }
        let slot =
            self.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, wide.tape.block_bytes(), 3));
        self.b.ins().stack_store(types::I64, count, slot, 0);
        if let Some(rows) = rows {
            self.b.ins().stack_store(types::I64, rows, slot, Tape::ROWS_OFFSET);
        }
        if let Some(done) = &wide.turn {
            let done = self.index_value(done)?;
            let all = self.int(i64::from(wide.tape.turn()));
            let left = self.b.ins().isub(all, done);
            self.b.ins().stack_store(types::I64, left, slot, Tape::TURN_OFFSET);
        }
        for (number, (place, index)) in wide.streams.iter().enumerate() {
            let (pointer, offset) = self.address(*place, index)?;
            let pointer = self.add_imm(pointer, i64::from(offset));
            self.b.ins().stack_store(types::I64, pointer, slot, Tape::pointer_offset(number));
        }
        for (number, argument) in wide.arguments.iter().enumerate() {
            let dtype = self.dtype(*argument);
            let Val::One(value) = self.eval(*argument)? else { return Err("an argument in lanes".to_string()) };
            let value = if dtype == DType::Bool { self.all_bits(value) } else { value };
            self.b.ins().stack_store(types::I64, value, slot, wide.tape.argument_offset(number as u32));
        }
        let block = self.b.ins().stack_addr(types::I64, slot, 0);
        self.call_code(code, block);
        for (number, (accumulator, init)) in node.accumulators.iter().zip(inits).enumerate() {
            let combine = accumulator.combine.ok_or("an accumulator in lanes does not combine")?;
            let dtype = self.dtype(accumulator.init);
            let sum = self.b.ins().stack_load(types::I64, scalar_type(dtype), slot, wide.tape.total_offset(number));
            let Some(Val::One(init)) = init else { return Err("lanes within lanes".to_string()) };
            let sum = self.scalar_binary(combine, dtype, init, sum, (None, None))?;
            self.define(accumulator.local, Val::One(sum));
        }
        Ok(())
    }

    /// Iterations of a step over a distance above 0.
    fn iterations(&mut self, distance: Value, step: i64) -> Value {
        if step == 1 {
            return distance;
        }
        let more = self.b.ins().iadd_imm_s(distance, step - 1);
        let step = self.int(step);
        self.b.ins().udiv(more, step)
    }

    /// 0 or 1 as no or all bits of a word.
    fn all_bits(&mut self, value: Value) -> Value {
        let word = self.b.ins().uextend(types::I32, value);
        self.b.ins().ineg(word)
    }

    fn call_code(&mut self, code: WideCode, block: Value) {
        let number = self.wide_codes.iter().position(|known| known.bytes == code.bytes).unwrap_or_else(|| {
            self.wide_codes.push(code);
            self.wide_codes.len() - 1
        });
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.push(AbiParam::new(types::I64));
        let signature = self.b.import_signature(signature);
        let name = UserExternalName { namespace: NAMESPACE, index: number as u32 };
        let name = self.b.func.declare_imported_user_function(name);
        let data = ExtFuncData { name: ExternalName::user(name), signature, colocated: true, patchable: false };
        let function = self.b.import_function(data);
        self.b.ins().call(function, &[block]);
    }
}
