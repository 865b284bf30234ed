//! Pointer tables, and the one place that calls compiled code.
#![allow(unsafe_code, reason = "calls compiled code")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use crate::error::LoadError;
use crate::executable::{Executable, KernelFn, Launch, RESERVED_SLOTS, Slot, Status};
use crate::tensor::Tensor;

/// Addresses of everything a program can touch besides its inputs and outputs.
pub(crate) struct Memory<'a> {
    /// Start of the arena, of at least the program's `arena_bytes`.
    pub(crate) arena: *mut u8,
    /// Start of the program's constants.
    pub(crate) constants: *mut u8,
    /// One per state of the program, in order.
    pub(crate) states: &'a [*mut u8],
    /// One `(scratch, status)` per worker.
    pub(crate) workers: &'a [(*mut u8, *mut u8)],
}

/// The tables of all launches of one program, one row per worker.
///
/// `AtomicPtr` has the size and representation of a pointer and may be sent to other threads.
#[derive(Default)]
pub(crate) struct Tables {
    slots: Vec<AtomicPtr<u8>>,
    row: usize,
    begins: Vec<usize>,
    /// `(slot in a row, index of the input)`.
    inputs: Vec<(usize, usize)>,
    /// `(slot in a row, index of the output)`.
    outputs: Vec<(usize, usize)>,
}

impl Tables {
    /// Resolves every slot but the inputs and outputs.
    ///
    /// # Errors
    /// [`LoadError::Malformed`] if a slot points outside of what the executable declares.
    pub(crate) fn build(executable: &Executable, memory: &Memory<'_>) -> Result<Tables, LoadError> {
        let mut tables = Tables::default();
        for launch in &executable.launches {
            tables.begins.push(tables.row);
            for (i, &slot) in launch.slots.iter().enumerate() {
                let at = tables.row + RESERVED_SLOTS + i;
                match slot {
                    Slot::Input(input) => tables.inputs.push((at, input)),
                    Slot::Output(output) => tables.outputs.push((at, output)),
                    _ => {}
                }
            }
            tables.row += RESERVED_SLOTS + launch.slots.len();
        }
        tables.slots.reserve_exact(tables.row * memory.workers.len());
        for &(scratch, status) in memory.workers {
            for launch in &executable.launches {
                tables.slots.extend([AtomicPtr::new(scratch), AtomicPtr::new(status)]);
                for &slot in &launch.slots {
                    tables.slots.push(AtomicPtr::new(resolve(executable, launch, slot, memory)?));
                }
            }
        }
        Ok(tables)
    }

    /// Enters the addresses of this run's tensors. Their number has been checked against the signature.
    pub(crate) fn patch(&mut self, inputs: &[&Tensor], outputs: &mut [Tensor]) {
        for row in self.slots.chunks_exact_mut(self.row.max(1)) {
            for &(at, input) in &self.inputs {
                if let (Some(slot), Some(tensor)) = (row.get_mut(at), inputs.get(input)) {
                    // Kernels only read inputs: the compiler writes to outputs, states and the arena.
                    *slot.get_mut() = tensor.as_ptr().cast_mut();
                }
            }
            for &(at, output) in &self.outputs {
                if let (Some(slot), Some(tensor)) = (row.get_mut(at), outputs.get_mut(output)) {
                    *slot.get_mut() = tensor.as_mut_ptr();
                }
            }
        }
    }

    /// Table of one launch for one worker.
    fn table(&self, worker: usize, launch: usize) -> Option<*const *mut u8> {
        let begin = worker * self.row + self.begins.get(launch)?;
        self.slots.get(begin..).map(|slots| slots.as_ptr().cast())
    }

    /// Runs tiles `begin..end` of launch number `launch`, whose entry is `entry`, as `worker`; what the kernel reports
    /// goes to `faults`.
    ///
    /// # Safety
    /// The table is patched with live tensors of the declared types, everything given to [`Tables::build`] is alive,
    /// `entry` is the code of this launch, and no other thread runs the same worker or the same tiles.
    pub(crate) unsafe fn call(
        &self,
        (worker, launch): (usize, usize),
        entry: KernelFn,
        (begin, end): (u64, u64),
        faults: &Faults,
    ) {
        let Some(table) = self.table(worker, launch) else { return };
        clear_upper_halves();
        // SAFETY: by the contract above, the table holds what the code was compiled for, and slot 1 is the status
        // word of this worker, which nobody else touches.
        unsafe {
            entry(table, begin, end);
            let status = table.add(1).read().cast::<Status>();
            if (*status).code != 0 {
                faults.add(std::mem::take(&mut *status));
            }
        }
    }
}

/// The least violation of a launch: the same one whoever runs which tiles.
#[derive(Default)]
pub(crate) struct Faults {
    any: AtomicBool,
    least: Mutex<Status>,
}

impl Faults {
    fn add(&self, status: Status) {
        let mut least = self.least.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let rank = |status: &Status| (status.position, status.code);
        if !self.any.swap(true, Ordering::Relaxed) || rank(&status) < rank(&least) {
            *least = status;
        }
    }

    /// The least violation since the last call.
    #[inline]
    pub(crate) fn take(&self) -> Option<Status> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        self.any.store(false, Ordering::Relaxed);
        Some(std::mem::take(&mut *self.least.lock().unwrap_or_else(|poisoned| poisoned.into_inner())))
    }
}

/// Address of a slot; null for inputs and outputs, which [`Tables::patch`] fills.
fn resolve(executable: &Executable, launch: &Launch, slot: Slot, memory: &Memory<'_>) -> Result<*mut u8, LoadError> {
    let within = |start: *mut u8, offset: usize, bytes: usize| (offset <= bytes).then(|| start.wrapping_add(offset));
    let null = |valid: bool| valid.then_some(std::ptr::null_mut());
    let address = match slot {
        Slot::Arena(offset) => within(memory.arena, offset, executable.arena_bytes),
        Slot::Constant(offset) => within(memory.constants, offset, executable.constants.len()),
        Slot::State(index) => memory.states.get(index).copied(),
        Slot::Input(index) => null(index < executable.inputs.len()),
        Slot::Output(index) => null(index < executable.outputs.len()),
        Slot::Address(address) => Some(std::ptr::with_exposed_provenance_mut(address)),
    };
    address.ok_or_else(|| LoadError::Malformed {
        program: executable.name.clone(),
        kernel: launch.name.clone(),
        what: format!("the slot {slot:?} does not exist"),
    })
}

/// Entering code of 128-bit instructions with dirty upper halves of the vector registers makes it 4.4 times slower.
#[inline]
fn clear_upper_halves() {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX.
        unsafe { zero_upper() }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
fn zero_upper() {
    std::arch::x86_64::_mm256_zeroupper();
}
