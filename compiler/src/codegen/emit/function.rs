//! The function in the making: what every part of the emitter shares.
//!
//! Values are numbered (equal integer arithmetic is emitted once) and remembered per scope. A scope is a region of blocks
//! dominated by its first; whatever was emitted in it is forgotten at its end.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use cranelift_codegen::ir::{
    AbiParam, Block, BlockArg, Endianness, Function, InstBuilder, MemFlagsData, SigRef, Signature, Type, Value, types,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use kiln_ir::DType;

use super::analysis::Facts;
use crate::codegen::math::MathFn;
use crate::codegen::wide::WideCode;
use crate::codegen::{LoopWidth, TableSlot, Target};
use crate::loops::nest::{Expr, LoopNest, Place, Var};

/// Result of an emitting step; the text goes into a `CodegenError`.
pub(super) type Emitted<T> = Result<T, String>;

/// An element, or one element per lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Val {
    /// The same in all lanes.
    One(Value),
    /// Four lanes: one register, or two for types of 64 bit. Integers of 8 bit and the bits of half types take 32,
    /// `bool` is 0 or -1 in 32.
    Lanes(Value, Option<Value>),
}

/// Number of lanes.
pub(super) const LANES: i64 = 4;

/// Where a variable stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct VarState {
    /// The part that is not known; `None` if all of it is.
    pub(super) value: Option<Value>,
    /// The known part: of an unrolled copy, or of a loop that is written out.
    pub(super) known: i64,
    /// Number of loops around the body that it is bound in.
    pub(super) depth: u32,
    /// Least value, if known.
    pub(super) least: Option<i64>,
    /// Greatest value, if known.
    pub(super) greatest: Option<i64>,
}

/// Integer arithmetic that is emitted once per scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Add(Value, Value),
    AddImm(Value, i64),
    MulImm(Value, i64),
    Floor(Value, i64),
    Min(Value, i64),
    Splat(Value, Type),
    Lane(Value, u8),
    Constant([u8; 16], Type),
}

/// FNV-1a; the keys are few and small.
#[derive(Default)]
pub(super) struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_i64(&mut self, word: i64) {
        self.write_u64(word as u64);
    }
}

enum Undo {
    Value(Expr),
    Key(Key),
}

/// The function in the making.
pub(in crate::codegen) struct Emitter<'a, 'f> {
    pub(super) nest: &'a LoopNest,
    pub(in crate::codegen) b: FunctionBuilder<'f>,
    pub(super) target: &'a Target,
    pub(super) facts: Vec<Facts>,
    pub(super) table: Value,
    pub(super) vars: Vec<VarState>,
    pub(super) locals: Vec<Option<Val>>,
    pub(super) local_depth: Vec<u32>,
    /// Accumulators of enclosing loops.
    pub(super) open: Vec<crate::loops::nest::Local>,
    pub(super) depth: u32,
    /// The variable that runs along lanes.
    pub(super) lane: Option<Var>,
    /// While one lane is computed by itself.
    pub(super) single: Option<u8>,
    /// How many more constants may live in registers.
    pub(super) constant_registers: usize,
    bases: Vec<Value>,
    scratch: Option<Value>,
    pub(super) scratch_offsets: Vec<usize>,
    values: Vec<Option<Val>>,
    keys: HashMap<Key, Value, BuildHasherDefault<Fnv>>,
    log: Vec<Undo>,
    slots: Vec<TableSlot>,
    signatures: HashMap<Vec<Type>, SigRef>,
    /// Whether loops may be wide.
    pub(super) wide: bool,
    /// Whether wide code is listed.
    pub(super) listing: bool,
    pub(super) wide_codes: Vec<WideCode>,
    pub(super) loops: Vec<LoopWidth>,
}

/// What belongs to a function beside its instructions.
pub(super) struct Extras {
    /// What the table holds.
    pub(super) table: Vec<TableSlot>,
    /// Functions that it calls by their numbers.
    pub(super) wide_codes: Vec<WideCode>,
    /// How its loops in lanes run.
    pub(super) loops: Vec<LoopWidth>,
}

/// Emits the whole function of a nest.
pub(super) fn emit(
    nest: &LoopNest,
    target: &Target,
    (wide, listing): (bool, bool),
    func: &mut Function,
    context: &mut FunctionBuilderContext,
) -> Emitted<Extras> {
    let mut b = FunctionBuilder::new(func, context);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let [table, begin, end] = b.block_params(entry)[..] else { return Err("three parameters".to_string()) };
    let mut slots = vec![TableSlot::Scratch, TableSlot::Status];
    slots.extend((0..nest.buffers.len() as u32).map(TableSlot::Buffer));
    slots.extend((0..nest.helpers.len() as u32).map(TableSlot::Helper));
    let mut emitter = Emitter {
        nest,
        b,
        target,
        facts: Facts::of_pool(nest),
        table,
        vars: vec![VarState::default(); nest.vars.len()],
        locals: vec![None; nest.locals.len()],
        local_depth: vec![0; nest.locals.len()],
        open: Vec::new(),
        depth: 0,
        lane: None,
        single: None,
        constant_registers: 0,
        bases: Vec::new(),
        scratch: None,
        scratch_offsets: nest.scratch_offsets().0,
        values: vec![None; nest.exprs.len()],
        keys: HashMap::default(),
        log: Vec::new(),
        slots,
        signatures: HashMap::new(),
        wide,
        listing,
        wide_codes: Vec::new(),
        loops: Vec::new(),
    };
    emitter.load_pointers();
    emitter.tiles(begin, end)?;
    emitter.b.ins().return_(&[]);
    emitter.b.seal_all_blocks();
    let Emitter { b, slots, wide_codes, loops, .. } = emitter;
    b.finalize(target.isa.frontend_config());
    Ok(Extras { table: slots, wide_codes, loops })
}

/// Memory that never traps.
pub(super) fn trusted() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

impl Emitter<'_, '_> {
    fn load_pointers(&mut self) {
        self.bases = (0..self.nest.buffers.len()).map(|number| self.load_slot(2 + number)).collect();
        if !self.nest.scratch.is_empty() {
            self.scratch = Some(self.load_slot(0));
        }
    }

    /// Pointer in a slot of the table.
    pub(super) fn load_slot(&mut self, slot: usize) -> Value {
        let flags = trusted().with_aligned().with_readonly();
        self.b.ins().load(types::I64, flags, self.table, slot as i32 * 8)
    }

    /// First byte of the memory that holds a place, and the offset of the place from it.
    pub(super) fn base(&self, place: Place) -> Emitted<(Value, i64)> {
        let missing = || format!("{place:?} has no memory");
        match place {
            Place::Buffer(number) => Ok((*self.bases.get(number as usize).ok_or_else(missing)?, 0)),
            Place::Scratch(number) => {
                let offset = self.scratch_offsets.get(number as usize).ok_or_else(missing)?;
                Ok((self.scratch.ok_or_else(missing)?, *offset as i64))
            }
        }
    }

    /// Calls the function in a slot of the table.
    pub(super) fn call_slot(&mut self, slot: usize, args: &[Value], result: Option<Type>) -> Option<Value> {
        let callee = self.load_slot(slot);
        let mut key: Vec<Type> = args.iter().map(|arg| self.b.func.dfg.value_type(*arg)).collect();
        key.extend(result);
        key.push(if result.is_some() { types::I8 } else { types::I16 });
        let signature = match self.signatures.get(&key) {
            Some(known) => *known,
            None => {
                let mut signature = Signature::new(self.target.isa.default_call_conv());
                signature.params.extend(key[..args.len()].iter().map(|ty| AbiParam::new(*ty)));
                signature.returns.extend(result.map(AbiParam::new));
                let signature = self.b.import_signature(signature);
                self.signatures.insert(key, signature);
                signature
            }
        };
        let call = self.b.ins().call_indirect(signature, callee, args);
        self.b.inst_results(call).first().copied()
    }

    /// Slot of a mathematical function.
    pub(super) fn math_slot(&mut self, function: MathFn) -> usize {
        let wanted = TableSlot::Math(function);
        self.slots.iter().position(|slot| *slot == wanted).unwrap_or_else(|| {
            self.slots.push(wanted);
            self.slots.len() - 1
        })
    }

    /// Begins a scope.
    pub(super) fn open_scope(&self) -> usize {
        self.log.len()
    }

    /// Forgets what was emitted since.
    pub(super) fn close_scope(&mut self, scope: usize) {
        while self.log.len() > scope {
            match self.log.pop() {
                Some(Undo::Value(expr)) => self.values[expr.0 as usize] = None,
                Some(Undo::Key(key)) => {
                    self.keys.remove(&key);
                }
                None => {}
            }
        }
    }

    /// Value of an expression, if it was emitted in an open scope and still holds.
    pub(super) fn known(&self, expr: Expr) -> Option<Val> {
        self.values[expr.0 as usize]
    }

    /// Remembers a value to the end of the scope.
    pub(super) fn remember(&mut self, expr: Expr, value: Val) {
        self.values[expr.0 as usize] = Some(value);
        self.log.push(Undo::Value(expr));
    }

    /// Forgets expressions that read what changes.
    pub(super) fn kill(&mut self, changed: &Facts) {
        for undo in &self.log {
            if let Undo::Value(expr) = undo
                && self.facts[expr.0 as usize].meets(changed)
            {
                self.values[expr.0 as usize] = None;
            }
        }
    }

    /// The value with this key, emitted if it is new.
    pub(super) fn numbered(&mut self, key: Key, make: impl FnOnce(&mut Self) -> Value) -> Value {
        if let Some(known) = self.keys.get(&key) {
            return *known;
        }
        let value = make(self);
        self.keys.insert(key, value);
        self.log.push(Undo::Key(key));
        value
    }

    /// A constant vector: in a register if it was hoisted, else loaded beside its use. Memory operands from a pool of
    /// the kernel's own were tried: 1 % faster at most.
    pub(in crate::codegen) fn constant(&mut self, bytes: [u8; 16], ty: Type) -> Value {
        if let Some(known) = self.keys.get(&Key::Constant(bytes, ty)) {
            return *known;
        }
        let data = self.b.func.dfg.constants.insert(bytes.as_slice().into());
        self.b.ins().vconst(ty, data)
    }

    /// A block whose parameters have the types of these values.
    pub(super) fn block_like(&mut self, values: &[Value]) -> Block {
        let block = self.b.create_block();
        for value in values {
            let ty = self.b.func.dfg.value_type(*value);
            self.b.append_block_param(block, ty);
        }
        block
    }

    /// Jump with arguments.
    pub(super) fn jump(&mut self, block: Block, args: &[Value]) {
        let args = block_args(args);
        self.b.ins().jump(block, &args);
    }

    /// Conditional branch with arguments.
    pub(super) fn branch(&mut self, condition: Value, then: (Block, &[Value]), otherwise: (Block, &[Value])) {
        let (a, b) = (block_args(then.1), block_args(otherwise.1));
        self.b.ins().brif(condition, then.0, &a, otherwise.0, &b);
    }

    /// Bits of a vector as another vector type.
    pub(in crate::codegen) fn bits(&mut self, value: Value, ty: Type) -> Value {
        if self.b.func.dfg.value_type(value) == ty {
            return value;
        }
        self.b.ins().bitcast(ty, MemFlagsData::new().with_endianness(Endianness::Little), value)
    }

    /// A 64-bit constant.
    pub(super) fn int(&mut self, value: i64) -> Value {
        self.b.ins().iconst(types::I64, value)
    }

    /// Type of an expression.
    pub(super) fn dtype(&self, expr: Expr) -> DType {
        self.nest.dtype(expr)
    }
}

fn block_args(values: &[Value]) -> Vec<BlockArg> {
    values.iter().map(|value| BlockArg::Value(*value)).collect()
}

/// Register type of one element.
pub(super) fn scalar_type(dtype: DType) -> Type {
    match dtype {
        DType::F32 => types::F32,
        DType::F64 => types::F64,
        DType::I32 | DType::U32 | DType::Bf16 | DType::F16 => types::I32,
        DType::I64 => types::I64,
        DType::I8 | DType::U8 | DType::Bool => types::I8,
    }
}

/// Register type of lanes, and whether two registers are needed.
pub(super) fn lane_type(dtype: DType) -> (Type, bool) {
    match dtype {
        DType::F32 => (types::F32X4, false),
        DType::F64 => (types::F64X2, true),
        DType::I64 => (types::I64X2, true),
        _ => (types::I32X4, false),
    }
}
