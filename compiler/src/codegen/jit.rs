//! Executable memory for compiled kernels.
//!
//! Kernels are compiled on all cores, identical ones once, and their bytes defined in one module that is sealed once:
//! memory is writable first and executable afterwards, never both.
#![allow(unsafe_code, reason = "entry points are addresses in memory that this file owns and frees")]

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cranelift_codegen::ir::{AbiParam, types};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module, ModuleError, default_libcall_names};
use kiln_rt::executable::{Code, KernelFn};
use kiln_rt::kernels::Level;

use super::emit::ClifEmitter;
use super::{CodegenError, CompiledKernel, Emit, TableSlot, Target, Texts};
use crate::loops::nest::LoopNest;

/// Kernels for each thread at least: fewer are not worth starting one.
const KERNELS_PER_THREAD: usize = 2;

/// Machine code of a program: owns its memory, which is freed when it is dropped.
pub struct JitCode {
    /// Only for its memory; `None` while dropping.
    module: Mutex<Option<JITModule>>,
    /// Distinct kernels.
    kernels: Vec<CompiledKernel>,
    entries: Vec<KernelFn>,
    /// Distinct kernel of each nest.
    of_nest: Vec<usize>,
}

impl std::fmt::Debug for JitCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JitCode({} kernels, {} bytes)", self.kernels.len(), self.bytes())
    }
}

impl JitCode {
    /// Compiles nests for this machine with the best it has; [`Code::entry`] takes the position in `nests`.
    ///
    /// # Errors
    /// The first nest that could not be compiled, or memory that could not be had.
    pub fn compile(nests: &[LoopNest], texts: Texts) -> Result<JitCode, CodegenError> {
        JitCode::compile_at(nests, Level::Avx512, texts)
    }

    /// As [`JitCode::compile`], with no instructions above a level: below AVX-512 all loops are Cranelift's.
    ///
    /// # Errors
    /// As [`JitCode::compile`].
    pub fn compile_at(nests: &[LoopNest], level: Level, texts: Texts) -> Result<JitCode, CodegenError> {
        let nowhere = |reason: String| CodegenError { kernel: String::new(), reason };
        let target = Target::host().map_err(nowhere)?;
        let (distinct, of_nest) = share(nests);
        let wide = level >= Level::Avx512 && Level::Avx512.available();
        let kernels = emit_all(&distinct, target, wide, texts)?;
        let (module, entries) = define(&kernels, target).map_err(|error| nowhere(error.to_string()))?;
        Ok(JitCode { module: Mutex::new(Some(module)), kernels, entries, of_nest })
    }

    /// What a nest became; nests that differ only in names share it.
    ///
    /// # Panics
    /// If there is no such nest.
    pub fn kernel(&self, nest: usize) -> &CompiledKernel {
        &self.kernels[self.of_nest[nest]]
    }

    /// The distinct kernels, in the order of their first use.
    pub fn kernels(&self) -> &[CompiledKernel] {
        &self.kernels
    }

    /// Calls the kernel of a nest on this thread, as a session would: for tests and measurements.
    ///
    /// # Errors
    /// If the buffers or helpers are not those of the table.
    ///
    /// # Safety
    /// Every buffer has the size that the nest declares, and buffers that are written overlap only as the nest allows.
    /// Helpers have the parameters that the nest passes. The nest's loads and stores are in range.
    ///
    /// # Panics
    /// If there is no such nest.
    pub unsafe fn invoke(
        &self,
        nest: usize,
        buffers: &[*mut u8],
        helpers: &[*const u8],
        tiles: std::ops::Range<u64>,
    ) -> Result<[i64; 3], String> {
        let kernel = self.kernel(nest);
        let mut scratch = vec![[0u8; 64]; kernel.scratch_bytes.div_ceil(64) + 1];
        let aligned = scratch.as_mut_ptr().cast::<u8>();
        let mut status = [0i64; 3];
        let mut table: Vec<*mut u8> = Vec::with_capacity(kernel.table.len());
        for slot in &kernel.table {
            table.push(match slot {
                TableSlot::Scratch => aligned.wrapping_add(aligned.align_offset(64)),
                TableSlot::Status => status.as_mut_ptr().cast(),
                TableSlot::Buffer(number) => *buffers.get(*number as usize).ok_or("a buffer is missing")?,
                TableSlot::Helper(number) => helpers.get(*number as usize).ok_or("a helper is missing")?.cast_mut(),
                TableSlot::Math(function) => function.address().cast_mut(),
            });
        }
        clean_upper_halves();
        // SAFETY: the table is that of the kernel, and the caller vouches for what it points to.
        unsafe { self.entry(nest)(table.as_ptr(), tiles.start, tiles.end) };
        Ok(status)
    }
}

/// See the notes on the ABI in [`crate::codegen`].
fn clean_upper_halves() {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX; no code keeps values in upper halves across statements without declaring it.
        unsafe { std::arch::asm!("vzeroupper", out("xmm0") _, out("xmm1") _, options(nomem, nostack)) };
    }
}

impl Code for JitCode {
    fn entry(&self, index: usize) -> KernelFn {
        self.entries[self.of_nest[index]]
    }

    fn bytes(&self) -> usize {
        self.kernels.iter().map(|kernel| kernel.code.len()).sum()
    }
}

impl Drop for JitCode {
    fn drop(&mut self) {
        let module = self.module.get_mut().map(Option::take);
        if let Ok(Some(module)) = module {
            // SAFETY: entry points are handed out under the promise of `Code` that the code outlives their use.
            unsafe { module.free_memory() };
        }
    }
}

/// Distinct nests, and which of them each nest is. Names are no part of what a kernel does.
fn share(nests: &[LoopNest]) -> (Vec<&LoopNest>, Vec<usize>) {
    let mut numbers: HashMap<LoopNest, usize> = HashMap::new();
    let mut distinct = Vec::new();
    let of_nest = nests.iter().map(|nest| {
        *numbers.entry(nameless(nest)).or_insert_with(|| {
            distinct.push(nest);
            distinct.len() - 1
        })
    });
    let of_nest = of_nest.collect();
    (distinct, of_nest)
}

fn nameless(nest: &LoopNest) -> LoopNest {
    let mut nest = nest.clone();
    nest.name.clear();
    nest.vars.iter_mut().for_each(String::clear);
    nest.locals.iter_mut().for_each(|local| local.name.clear());
    nest.buffers.iter_mut().for_each(|buffer| buffer.name.clear());
    nest.scratch.iter_mut().for_each(|scratch| scratch.name.clear());
    nest
}

fn emit_all(
    nests: &[&LoopNest],
    target: &'static Target,
    wide: bool,
    texts: Texts,
) -> Result<Vec<CompiledKernel>, CodegenError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let emitter = ClifEmitter::new(target, wide, texts);
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(nest) = nests.get(number) else { break done };
            done.push((number, emitter.emit(nest)));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = cores.min(nests.len() / KERNELS_PER_THREAD);
    let mut results = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut results = work();
        for other in others {
            match other.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

fn define(kernels: &[CompiledKernel], target: &Target) -> Result<(JITModule, Vec<KernelFn>), Box<ModuleError>> {
    let mut module = JITModule::new(JITBuilder::with_isa(target.isa.clone(), default_libcall_names()));
    let entries = fill(&mut module, kernels);
    match entries {
        Ok(entries) => Ok((module, entries)),
        Err(error) => {
            // SAFETY: nothing has been called.
            unsafe { module.free_memory() };
            Err(error)
        }
    }
}

fn fill(module: &mut JITModule, kernels: &[CompiledKernel]) -> Result<Vec<KernelFn>, Box<ModuleError>> {
    let mut signature = module.make_signature();
    signature.params.extend([AbiParam::new(types::I64); 3]);
    let mut ids = Vec::with_capacity(kernels.len());
    for (number, kernel) in kernels.iter().enumerate() {
        let name = format!("{}#{number}", kernel.name);
        let id = module.declare_function(&name, Linkage::Local, &signature).map_err(Box::new)?;
        module.define_function_bytes(id, kernel.alignment.max(32), &kernel.code, &[]).map_err(Box::new)?;
        ids.push(id);
    }
    module.finalize_definitions().map_err(Box::new)?;
    let entry = |id| {
        let address = module.get_finalized_function(id);
        // SAFETY: the bytes there were compiled with the signature of `KernelFn`, and are executable now.
        unsafe { std::mem::transmute::<*const u8, KernelFn>(address) }
    };
    Ok(ids.into_iter().map(entry).collect())
}
