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

use super::function::{Emitted, Emitter, Val, scalar_type};
use super::loops::Bound;
use crate::codegen::wide::tape::Tape;
use crate::codegen::wide::{self, WideCode};
use crate::codegen::{LoopWidth, Width};
use crate::loops::nest::Loop;

mod lower;

use lower::WideLoop;

/// Namespace of the names of wide functions.
const NAMESPACE: u32 = 1;
/// A shorter loop does not repay the call.
const LEAST_COUNT: i64 = wide::LANES;
/// A body with fewer expressions takes four vectors at a time, as the counter would cost as much as the work.
const SMALL_BODY: usize = 12;
/// A body with fewer expressions takes two.
const MIDDLE_BODY: usize = 40;
/// Vectors at a time of a reduction: hides 4 cycles of latency at two additions per cycle.
const REDUCTION_COPIES: usize = 8;

/// A wide loop with its code.
pub(super) struct Planned {
    wide: WideLoop,
    code: WideCode,
}

impl Emitter<'_, '_> {
    /// The wide form of a loop that may run in lanes, if it has one. Notes the decision.
    pub(super) fn plan_wide(&mut self, node: &Loop, begin: Bound, end: Bound, lanes: bool) -> Option<Planned> {
        if !node.vector || self.lane.is_some() {
            return None;
        }
        let planned = match () {
            () if !lanes => Err("it does not run in lanes"),
            () if !self.wide => Err("wider vectors are not used"),
            () => self.try_wide(node, begin, end),
        };
        let variable = self.nest.vars.get(node.var.0 as usize).cloned().unwrap_or_default();
        let width = match &planned {
            Ok(planned) => Width::Wide { vectors: planned.code.copies },
            Err(reason) => Width::Narrow { reason },
        };
        self.loops.push(LoopWidth { variable, width });
        planned.ok()
    }

    fn try_wide(&self, node: &Loop, begin: Bound, end: Bound) -> Result<Planned, &'static str> {
        let count = match (begin, end) {
            (Bound::Known(begin), Bound::Known(end)) => end - begin,
            _ => i64::MAX,
        };
        if count < LEAST_COUNT {
            return Err("fewer iterations than lanes");
        }
        let wide = lower::lower(self.nest, &self.facts, node)?;
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
        Ok(Planned { wide, code })
    }

    /// Calls the wide form of a loop, of which at least one iteration runs.
    pub(super) fn call_wide(&mut self, node: &Loop, begin: Bound, end: Bound, planned: Planned) -> Emitted<()> {
        let Planned { wide, code } = planned;
        let inits: Vec<Option<Val>> =
            node.accumulators.iter().map(|accumulator| self.locals[accumulator.local.0 as usize]).collect();
        let (first, last) = (self.value(begin), self.value(end));
        let count = self.b.ins().isub(last, first);
        match begin {
            Bound::Known(known) => self.set_var(node.var, None, known),
            Bound::Value(value) => self.set_var(node.var, Some(value), 0),
        }
        for (var, value) in &wide.inner {
            self.set_var(*var, None, *value);
        }
        let slot =
            self.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, wide.tape.block_bytes(), 3));
        self.b.ins().stack_store(types::I64, count, slot, 0);
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
