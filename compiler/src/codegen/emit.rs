//! Loop nests to machine code by Cranelift, with vectors of 128 bit.
//!
//! Cranelift selects instructions and allocates registers; everything above that is done here, in the order in which the
//! kernel runs: sharing (`function`), hoisting out of loops (`hoist`), lanes (`lanes`), unrolling (`loops`) and
//! address arithmetic (`index`).

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

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{AbiParam, Function, Signature, UserFuncName, types};
use cranelift_frontend::FunctionBuilderContext;

use super::{CodegenError, CompiledKernel, Emit, Target, Texts};
use crate::loops::nest::LoopNest;
pub(super) use function::Emitter;

/// Emitter by way of Cranelift; one per thread, as it keeps its working memory.
pub struct ClifEmitter {
    target: &'static Target,
    texts: Texts,
    memory: RefCell<(Context, FunctionBuilderContext)>,
}

impl std::fmt::Debug for ClifEmitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClifEmitter({:?})", self.target)
    }
}

impl ClifEmitter {
    /// An emitter for this target.
    pub fn new(target: &'static Target, texts: Texts) -> ClifEmitter {
        ClifEmitter { target, texts, memory: RefCell::new((Context::new(), FunctionBuilderContext::new())) }
    }

    fn compile(&self, nest: &LoopNest) -> Result<CompiledKernel, String> {
        nest.check().map_err(|error| error.reason)?;
        let (context, builder) = &mut *self.memory.borrow_mut();
        context.clear();
        context.set_disasm(self.texts.asm);
        context.func = Function::with_name_signature(UserFuncName::user(0, 0), self.signature());
        let table = function::emit(nest, self.target, &mut context.func, builder)?;
        let clif = self.texts.clif.then(|| context.func.display().to_string());
        let instructions = context.func.dfg.num_insts();
        let compiled =
            context.compile(&*self.target.isa, &mut ControlPlane::default()).map_err(|error| format!("{error:?}"))?;
        if let Some(reloc) = compiled.buffer.relocs().first() {
            return Err(format!("the code is not position independent: {reloc:?}"));
        }
        let asm = compiled.vcode.clone();
        let code = compiled.code_buffer().to_vec();
        let alignment = u64::from(compiled.buffer.alignment);
        let (_, scratch_bytes) = nest.scratch_offsets();
        Ok(CompiledKernel { name: nest.name.clone(), table, scratch_bytes, code, alignment, instructions, clif, asm })
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
