#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "flags and panels in raw memory of the caller; the contract is stated at each function"
)]
//! Column panels that the tiles of a contraction share: whoever needs a panel first packs it, between two blocks, with
//! its source asked for while the block before was computed. A pass of its own before the tiles waits for memory instead.
//!
//! Nobody waits for anybody: a worker that meets a panel which another one is packing packs a copy for itself. Tiles
//! therefore begin at different panels (see `Descriptor::first_panel`), so that workers meet seldom.

use std::sync::atomic::{AtomicU32, Ordering};

use super::abi::Descriptor;

const EMPTY: u32 = 0;
const PACKING: u32 = 1;
const READY: u32 = 2;

/// Where a panel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// In shared memory.
    Ready,
    /// Nowhere: the caller writes it to shared memory and publishes it.
    Mine,
    /// On its way there, by someone else.
    Elsewhere,
}

/// One flag for each panel of each k block of each packed copy.
pub(super) struct Flags {
    first: *mut u32,
    bytes: usize,
}

impl Flags {
    /// Bytes of the flags, in whole cache lines.
    pub(super) fn bytes(panels: usize) -> usize {
        (panels * size_of::<u32>()).next_multiple_of(64)
    }

    /// The flags of a run whose partial sums begin at `partials`.
    pub(super) fn of(d: &Descriptor, partials: *mut u8) -> Flags {
        Flags { first: partials.wrapping_add(d.shared_flags).cast(), bytes: d.shared_panels - d.shared_flags }
    }

    /// Makes all panels empty.
    ///
    /// # Safety
    /// The flags are within the caller's memory, and nobody uses them yet.
    pub(super) unsafe fn clear(&self) {
        self.first.cast::<u8>().write_bytes(EMPTY as u8, self.bytes);
    }

    /// Asks for `panel`.
    ///
    /// # Safety
    /// The flags are within the caller's memory and were cleared before the tiles began.
    pub(super) unsafe fn claim(&self, panel: usize) -> Claim {
        let flag = AtomicU32::from_ptr(self.first.add(panel));
        match flag.compare_exchange(EMPTY, PACKING, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => Claim::Mine,
            Err(READY) => Claim::Ready,
            Err(_) => Claim::Elsewhere,
        }
    }

    /// Whether `panel` is in shared memory.
    ///
    /// # Safety
    /// As for `claim`.
    pub(super) unsafe fn is_ready(&self, panel: usize) -> bool {
        AtomicU32::from_ptr(self.first.add(panel)).load(Ordering::Acquire) == READY
    }

    /// Gives `panel`, which was claimed and has been written, to all.
    ///
    /// # Safety
    /// As for `claim`, which answered [`Claim::Mine`].
    pub(super) unsafe fn publish(&self, panel: usize) {
        AtomicU32::from_ptr(self.first.add(panel)).store(READY, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_packs_and_the_others_copy_until_it_is_published() {
        let mut memory = [7u32; 16];
        let flags = Flags { first: memory.as_mut_ptr(), bytes: 64 };
        // SAFETY: the memory has sixteen flags.
        unsafe {
            flags.clear();
            assert_eq!(flags.claim(3), Claim::Mine);
            assert_eq!((flags.claim(3), flags.is_ready(3)), (Claim::Elsewhere, false));
            flags.publish(3);
            assert_eq!((flags.claim(3), flags.is_ready(3)), (Claim::Ready, true));
            assert_eq!(flags.claim(4), Claim::Mine);
        }
    }
}
