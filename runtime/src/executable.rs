//! The finished program: what the compiler hands over and a session runs.
//!
//! An [`Executable`] is plain data: signature, kernels in order, constants, and the entry points behind [`Code`]. It
//! knows no addresses of tensors; a session resolves each [`Slot`] once, when the program is loaded.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use kiln_ir::{Name, TensorType};

/// Entry of a compiled kernel: runs tiles `begin..end`.
///
/// `table[0]` is the worker's own scratch, 64-byte aligned and at least [`Launch::scratch_bytes`] long, `table[1]` its
/// status word ([`Status`]), and `table[2..]` are the launch's slots in order.
pub type KernelFn = unsafe extern "C" fn(table: *const *mut u8, begin: u64, end: u64);

/// Entries of the table that come before the slots of a launch.
pub const RESERVED_SLOTS: usize = 2;

/// Compiled code, freed when the last program that uses it is dropped.
pub trait Code: Send + Sync {
    /// Entry point of a kernel.
    fn entry(&self, index: usize) -> KernelFn;

    /// Size of the machine code in bytes.
    fn bytes(&self) -> usize;
}

/// What a kernel reports about itself: all zero while it is fine.
///
/// A kernel that meets a violation stores it only if `code` is still 0, and meets its positions in increasing order: the
/// session then reports the one with the least position, however tiles are spread over workers.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// 0, or the number of the violated check among [`Launch::sites`], from 1.
    pub code: u64,
    /// The offending value, as the bits of an `i64`.
    pub value: u64,
    /// Linear position of the value in the operand or domain that the site's text names.
    pub position: u64,
    /// Unused.
    pub spare: u64,
}

/// Where a kernel finds a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Byte offset into the arena.
    Arena(usize),
    /// Index into [`Executable::inputs`].
    Input(usize),
    /// Index into [`Executable::outputs`].
    Output(usize),
    /// Index into [`Executable::states`].
    State(usize),
    /// Byte offset into [`Executable::constants`].
    Constant(usize),
    /// A raw address: a helper function, or data that [`Executable::keep`] keeps alive.
    Address(usize),
}

/// One kernel call over all of its tiles; launches run one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Name of the kernel, for profiles.
    pub name: String,
    /// Index for [`Code::entry`].
    pub entry: usize,
    /// Buffers in the order the kernel expects.
    pub slots: Vec<Slot>,
    /// Independent pieces of work: any split of `0..tiles` over workers gives the same bits.
    pub tiles: u64,
    /// Whether the tiles are shared among the workers; `None` leaves it to the session's estimate.
    pub forks: Option<bool>,
    /// Scratch that each worker needs, in bytes.
    pub scratch_bytes: usize,
    /// Arithmetic operations.
    pub flops: u64,
    /// Compulsory memory traffic in bytes: each operand read once, each result written once.
    pub bytes: u64,
    /// Script line of the kernel's root.
    pub source: Option<String>,
    /// What it checks: number `c - 1` explains the status code `c`.
    pub sites: Vec<Site>,
}

impl Launch {
    /// Explanation of a status code that this launch has stored.
    pub fn site(&self, code: u64) -> Option<&Site> {
        self.sites.get(usize::try_from(code.checked_sub(1)?).ok()?)
    }
}

/// A named tensor in a program's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its name in the graph.
    pub name: Name,
    /// Its type; every extent is known.
    pub ty: TensorType,
    /// For an integer input: every value must lie in `0..below`.
    pub below: Option<u64>,
}

impl Binding {
    /// A binding without a bound on its values.
    pub fn new(name: impl Into<Name>, ty: TensorType) -> Binding {
        Binding { name: name.into(), ty, below: None }
    }
}

/// A check inside a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Mnemonic of the op that checks.
    pub op: String,
    /// Its script line.
    pub source: Option<String>,
    /// What was checked: `index into %table`.
    pub what: String,
    /// Valid values are `0..limit`.
    pub limit: u64,
}

/// A compiled graph.
#[derive(Clone)]
pub struct Executable {
    /// Name of the graph.
    pub name: Name,
    /// Tensors given to each run.
    pub inputs: Vec<Binding>,
    /// Tensors that each run fills.
    pub outputs: Vec<Binding>,
    /// States that it reads or updates in place.
    pub states: Vec<Binding>,
    /// Kernels in order.
    pub launches: Vec<Launch>,
    /// Constant data; a session keeps a 64-byte aligned copy.
    pub constants: Vec<u8>,
    /// Size of the arena in bytes.
    pub arena_bytes: usize,
    /// The machine code.
    pub code: Arc<dyn Code>,
    /// Owners of what [`Slot::Address`] points to.
    pub keep: Vec<Arc<dyn Any + Send + Sync>>,
    /// Hash of every choice that can change bits.
    pub fingerprint: u64,
}

impl Executable {
    /// Largest scratch any launch needs, in bytes.
    pub fn scratch_bytes(&self) -> usize {
        self.launches.iter().map(|launch| launch.scratch_bytes).max().unwrap_or(0)
    }
}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executable")
            .field("name", &self.name)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .field("states", &self.states)
            .field("launches", &self.launches)
            .field("constant_bytes", &self.constants.len())
            .field("arena_bytes", &self.arena_bytes)
            .field("code_bytes", &self.code.bytes())
            .field("fingerprint", &format_args!("{:016x}", self.fingerprint))
            .finish_non_exhaustive()
    }
}
