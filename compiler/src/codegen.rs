//! Machine code for loop nests.
//!
//! [`emit`] turns one nest into position-independent bytes, [`jit`] makes the bytes of many nests executable. Codegen
//! knows no op names and no graph: a [`LoopNest`] says everything.
//!
//! There are two emitters. Cranelift's makes every kernel, in vectors of at most 128 bit. On processors with AVX-512 the
//! innermost loops in lanes, if their bodies are lists of vector operations, become code of 512 bit by an emitter of our
//! own: `wide`. It stands behind the kernel's code in the same bytes, and the kernel calls it: see [`LoopWidth`] for which
//! loops did. What was measured is in `compiler/src/codegen/README.md`.
//!
//! # The kernel ABI
//!
//! A kernel is `extern "C" fn(table: *const *mut u8, begin: u64, end: u64)`: it runs the tiles `begin..end`. The caller
//! fills the table as [`CompiledKernel::table`] says: slot 0 is the worker's scratch (64-byte aligned,
//! [`CompiledKernel::scratch_bytes`] long), slot 1 the worker's status (three `i64` words, all zero before the run; the
//! first is 0 as long as nothing failed), then the buffers, the helpers' addresses and those of
//! functions of binary64. There are
//! no relocations, so the bytes may be copied, cached and shared.
//!
//! **The caller executes `vzeroupper` before entering** (x86-64): Cranelift moves registers with legacy SSE
//! instructions, which cost 4.4 times as much while upper halves are dirty. Helpers that use wider registers end in it.

pub mod emit;
pub mod jit;
pub mod math;
mod target;
mod wide;

use thiserror::Error;

use crate::loops::nest::LoopNest;

pub use target::Target;

/// A kernel that could not be made: always a defect in Kiln, never the fault of a model.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("defect: kernel `{kernel}`: {reason}")]
pub struct CodegenError {
    /// Name of the nest.
    pub kernel: String,
    /// What was refused, and by whom.
    pub reason: String,
}

/// What a slot of a kernel's table points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableSlot {
    /// The worker's scratch memory.
    Scratch,
    /// The worker's status words.
    Status,
    /// Buffer of the nest with this number.
    Buffer(u32),
    /// Helper of the nest with this number.
    Helper(u32),
    /// A function of [`math`], see [`math::MathFn::address`].
    Math(math::MathFn),
}

/// Which texts to keep beside the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// Cranelift's intermediate form.
    pub clif: bool,
    /// Disassembly.
    pub asm: bool,
}

/// Bytes of one kernel and what is needed to enter them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledKernel {
    /// Name of the nest it was made from.
    pub name: String,
    /// What the caller puts in each slot.
    pub table: Vec<TableSlot>,
    /// Size of the worker's scratch memory.
    pub scratch_bytes: usize,
    /// Position-independent machine code; the entry is the first byte.
    pub code: Vec<u8>,
    /// Least alignment of the code in bytes.
    pub alignment: u64,
    /// Number of Cranelift instructions, for metrics.
    pub instructions: usize,
    /// How the loops run that may run in lanes, in the order of their beginnings.
    pub loops: Vec<LoopWidth>,
    /// Cranelift's intermediate form, if asked for.
    pub clif: Option<String>,
    /// Disassembly, if asked for.
    pub asm: Option<String>,
}

/// How a loop that may run in lanes does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopWidth {
    /// Name of its variable.
    pub variable: String,
    /// What became of it.
    pub width: Width,
}

/// Width of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Vectors of 512 bit, so many in a round.
    Wide {
        /// Vectors in a round.
        vectors: usize,
    },
    /// What Cranelift can do: four lanes or single elements.
    Narrow {
        /// Why it is not wide.
        reason: &'static str,
    },
}

/// Something that makes machine code of loop nests.
pub trait Emit {
    /// Makes the code of one nest.
    ///
    /// # Errors
    /// If the nest breaks a rule, computes in a half type, or the machine cannot.
    fn emit(&self, nest: &LoopNest) -> Result<CompiledKernel, CodegenError>;
}
