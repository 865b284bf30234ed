//! Loop nests to machine code by Cranelift, with vectors of 128 bit.
//!
//! Cranelift selects instructions and allocates registers; everything above that is done here, in the order in which the
//! kernel runs: sharing (`function`), hoisting out of loops (`hoist`), lanes (`lanes`), unrolling (`loops`) and
//! address arithmetic (`index`). Loops that another emitter does better are calls of its code (`wide`).

mod analysis;
mod expr;
mod function;
mod hoist;
mod index;
mod lane_casts;
pub mod lane_use;
mod lanes;
mod loads;
mod loops;
mod scalar;
mod stmt;
#[cfg(test)]
mod tests;
mod wide;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{AbiParam, ExternalName, Function, Signature, UserFuncName, types};
use cranelift_codegen::{Context, FinalizedMachReloc, FinalizedRelocTarget};
use cranelift_frontend::FunctionBuilderContext;

use super::wide::WideCode;
use super::{CodegenError, CompiledKernel, Emit, Target, Texts};
use crate::loops::nest::LoopNest;
pub(super) use function::Emitter;
use function::Extras;

/// Emitter by way of Cranelift; one per thread, as it keeps its working memory.
pub struct ClifEmitter {
    target: &'static Target,
    wide: bool,
    texts: Texts,
    memory: RefCell<(Context, FunctionBuilderContext)>,
}

impl std::fmt::Debug for ClifEmitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClifEmitter({:?})", self.target)
    }
}

impl ClifEmitter {
    /// An emitter for this target; with `wide`, loops that can run at 512 bit do.
    pub fn new(target: &'static Target, wide: bool, texts: Texts) -> ClifEmitter {
        ClifEmitter { target, wide, texts, memory: RefCell::new((Context::new(), FunctionBuilderContext::new())) }
    }

    fn compile(&self, nest: &LoopNest) -> Result<CompiledKernel, String> {
        nest.check().map_err(|error| error.reason)?;
        let nest = &*nest.without_halves()?;
        let (context, builder) = &mut *self.memory.borrow_mut();
        context.clear();
        context.set_disasm(self.texts.asm);
        context.func = Function::with_name_signature(UserFuncName::user(0, 0), self.signature());
        let options = (self.wide, self.texts.asm);
        let Extras { table, wide_codes, loops } =
            function::emit(nest, self.target, options, &mut context.func, builder)?;
        let clif = self.texts.clif.then(|| context.func.display().to_string());
        let instructions = context.func.dfg.num_insts();
        let names = context.func.params.user_named_funcs().values().map(|name| name.index as usize).collect::<Vec<_>>();
        let compiled =
            context.compile(&*self.target.isa, &mut ControlPlane::default()).map_err(|error| format!("{error:?}"))?;
        let calls = compiled.buffer.relocs().iter().map(|reloc| wide_call(reloc, &names));
        let calls = calls.collect::<Result<Vec<_>, _>>()?;
        let asm = compiled.vcode.clone().map(|text| with_listings(text, &wide_codes));
        let mut code = compiled.code_buffer().to_vec();
        let mut alignment = u64::from(compiled.buffer.alignment);
        if !wide_codes.is_empty() {
            alignment = alignment.max(WIDE_ALIGNMENT as u64);
            append(&mut code, &wide_codes, &calls)?;
        }
        let (_, scratch_bytes) = nest.scratch_offsets();
        let name = nest.name.clone();
        Ok(CompiledKernel { name, table, scratch_bytes, code, alignment, instructions, loops, clif, asm })
    }

    fn signature(&self) -> Signature {
        let mut signature = Signature::new(self.target.isa.default_call_conv());
        signature.params.extend([AbiParam::new(types::I64); 3]);
        signature
    }

    /// Working memory that a panic may have left in any state.
    fn forget(&self) {
        if let Ok(mut memory) = self.memory.try_borrow_mut() {
            *memory = (Context::new(), FunctionBuilderContext::new());
        }
    }
}

/// Alignment of wide code.
const WIDE_ALIGNMENT: usize = 64;

/// A call of wide code: where its distance stands, what is added to it, and which code.
struct WideCall {
    offset: usize,
    addend: i64,
    number: usize,
}

/// The call behind a relocation; there is no other kind.
fn wide_call(reloc: &FinalizedMachReloc, names: &[usize]) -> Result<WideCall, String> {
    if let (Reloc::X86CallPCRel4, FinalizedRelocTarget::ExternalName(ExternalName::User(name))) =
        (reloc.kind, &reloc.target)
    {
        let number = *names.get(name.as_u32() as usize).ok_or("a call of nothing")?;
        return Ok(WideCall { offset: reloc.offset as usize, addend: reloc.addend, number });
    }
    Err(format!("the code is not position independent: {reloc:?}"))
}

/// Puts wide code behind the function and fills in the distances of its calls.
fn append(code: &mut Vec<u8>, wide_codes: &[WideCode], calls: &[WideCall]) -> Result<(), String> {
    let mut starts = Vec::with_capacity(wide_codes.len());
    for wide in wide_codes {
        code.resize(code.len().next_multiple_of(WIDE_ALIGNMENT), 0xcc);
        starts.push(code.len());
        code.extend(&wide.bytes);
    }
    for call in calls {
        let start = starts.get(call.number).ok_or("a call of nothing")?;
        let distance = *start as i64 - call.offset as i64 + call.addend;
        let distance = i32::try_from(distance).map_err(|_| "a function of gigabytes")?;
        code[call.offset..call.offset + 4].copy_from_slice(&distance.to_le_bytes());
    }
    Ok(())
}

fn with_listings(mut text: String, wide_codes: &[WideCode]) -> String {
    for (number, wide) in wide_codes.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\nwide u1:{number}, {} vectors a round, {} bytes:", wide.copies, wide.bytes.len());
        let lines = wide.listing.iter().flat_map(|listing| listing.lines());
        lines.for_each(|line| {
            let _ = writeln!(text, "  {line}");
        });
    }
    text
}

impl Emit for ClifEmitter {
    fn emit(&self, nest: &LoopNest) -> Result<CompiledKernel, CodegenError> {
        let compiled = catch_unwind(AssertUnwindSafe(|| self.compile(nest)));
        let result = compiled.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panic: {}", text.unwrap_or("without a message")))
        });
        result.map_err(|reason| {
            self.forget();
            CodegenError { kernel: nest.name.clone(), reason }
        })
    }
}
