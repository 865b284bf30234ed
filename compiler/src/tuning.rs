//! Choices that were measured, in place of those that the cost model estimates.
//!
//! The cost model chooses how each kernel is computed. [`Options::tuning`](crate::Options::tuning) is the one place where another
//! choice enters: a [`Table`] from kernels to choices, which [`lower`](crate::lower) asks for every micro-kernel before it takes
//! the cost model's. `kiln bench --tune` measures the alternatives in the model they belong to and writes what is faster into the
//! user's cache ([`cached`]); the command line compiles with it, and `kiln explain` says which choices were measured. A program
//! that calls [`compile`](crate::compile()) reads no cache unless it asks for one.
//!
//! # What is chosen, and what decides the bits
//!
//! A result's bits follow from the order in which the terms of its sums are added, and from the algorithm. Everything that the
//! cost model decides, and whether it is tuned:
//!
//! | choice | where | bits | tuned |
//! |---|---|---|---|
//! | operand whose rows a register block takes, width of the block | `kernels/contract.rs` | kept, unless a block keeps several sums of each element | always |
//! | macro tiles along rows and columns | `kernels/tiling.rs` | kept | always |
//! | longest k block | `kernels/tiling.rs` | kept, with the same exception | always |
//! | columns packed once for all tiles, or by each | `kernels/tiling.rs` | kept | always |
//! | groups of a Winograd block, parts of its outputs, input transformed ahead or by each tile | `kernels/winograd/blocks.rs` | kept, with the same exception | always |
//! | planes of a tile of a window kernel | `kernels/window/axis.rs` | kept | always |
//! | shared among the threads, or run by one | `session.rs` | kept | always |
//! | partial sums of a contraction | `kernels/tiling.rs` | changed | `--tune=bits` |
//! | direct sum, F(2 x 2) or F(4 x 4), forwards and for the gradient by the weights | `kernels/winograd/cost.rs` | changed | `--tune=bits`, where `--precision` allows |
//! | chunks and partial sums of a Winograd gradient | `kernels/winograd/gradient/cut.rs` | changed | no |
//! | sums of each element in small register blocks | `kernels/tile.rs` | changed | no: part of the code of a block |
//! | tiles of compiled loops, blocks of long reductions | `loops/tile.rs`, `loops/build/blocks.rs` | kept, changed | no: bound by memory, not by tiles |
//! | phases of a strided gradient | `kernels/phases.rs` | kept | no: several plans |
//!
//! # Bits
//!
//! Without `--tune=bits` a tuned program computes the bits of an untuned one, on every machine of the same level of
//! kernels. That does not rest on what a cache says: [`MicroKernels`](crate::lower::MicroKernels) compares the order of every
//! choice's sums with that of the cost model's and drops a choice that differs, so that an entry that was copied from
//! another machine, or forged, can make a kernel slow but not change it. Choices that change rounding are entries of a
//! folder of their own that is read only on request ([`Rounding::Tuned`]); they hold for every number of threads, so that results
//! never depend on that, but they do depend on the processor and on what was measured. They are part of an executable's
//! fingerprint: a training does not go on from a checkpoint with other ones.

use std::fmt;
use std::sync::Arc;

pub mod cached;
mod choice;
mod trial;

pub use choice::{Choice, Way};
pub use trial::Trial;

/// Whether measured choices may change how results are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Every bit is that of the cost model's choices.
    #[default]
    Kept,
    /// Choices that change it are taken, too.
    Tuned,
}

/// A choice for one kernel, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuned {
    /// `None` if the cost model's was the fastest of those that were measured.
    pub choice: Option<Choice>,
    /// Whether it may change bits; otherwise it is dropped if it would.
    pub rounding: Rounding,
    /// What was measured.
    pub measured: Measured,
}

/// Times of one kernel within a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// With the choice, in microseconds.
    pub tuned: f64,
    /// With the cost model's choice, alternating with the other.
    pub usual: f64,
    /// Threads that ran it.
    pub threads: usize,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured { tuned, usual, threads } = self;
        let threads = if *threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
        match tuned == usual {
            true => {
                write!(f, "the estimated choice was the fastest measured, {usual:.1} us on this CPU with {threads}")
            }
            false => write!(f, "measured {tuned:.1} us against {usual:.1} us on this CPU with {threads}"),
        }
    }
}

/// Measured choices. A kernel is known by a text: level, precision, and what it computes from what.
pub trait Table: fmt::Debug + Send + Sync {
    /// The choice for a kernel.
    fn find(&self, kernel: &str) -> Option<Tuned>;

    /// What whoever asks for details should know, such as entries that were ignored.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Where a compilation finds measured choices: nowhere by default.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    table: Option<Arc<dyn Table>>,
    /// Whether each [`Decision`] lists alternatives, and which.
    alternatives: Option<Rounding>,
}

impl Tuning {
    /// The choices of a table.
    pub fn of(table: Arc<dyn Table>) -> Tuning {
        Tuning { table: Some(table), alternatives: None }
    }

    /// These choices, with the alternatives to each.
    pub fn exploring(self, rounding: Rounding) -> Tuning {
        Tuning { alternatives: Some(rounding), ..self }
    }

    /// Whether anybody asks for choices or wants to know them.
    pub(crate) fn is_used(&self) -> bool {
        self.table.is_some() || self.alternatives.is_some()
    }

    pub(crate) fn find(&self, kernel: &str) -> Option<Tuned> {
        self.table.as_ref()?.find(kernel)
    }

    pub(crate) fn alternatives(&self) -> Option<Rounding> {
        self.alternatives
    }

    /// The table's notes.
    pub fn notes(&self) -> Vec<String> {
        self.table.as_ref().map(|table| table.notes()).unwrap_or_default()
    }
}

/// What was decided about a kernel; only of compilations with [`Options::tuning`](crate::Options::tuning).
#[derive(Clone, Debug)]
pub struct Decision {
    /// The kernel, as tables know it.
    pub kernel: String,
    /// The choice that is in force.
    pub choice: Choice,
    /// The measurement behind it; `None` if it is the cost model's.
    pub tuned: Option<Measured>,
    /// Other choices that may be faster, likely ones first: of [`Tuning::exploring`] only.
    pub alternatives: Vec<Choice>,
}

impl Decision {
    /// Whether a measured choice is in force that is not the cost model's.
    pub fn is_other(&self) -> bool {
        self.tuned.is_some_and(|measured| measured.tuned < measured.usual)
    }
}
