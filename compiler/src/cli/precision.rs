//! `--precision`, `--memory-budget` and `--tuned`, which every subcommand that compiles has.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use kiln::tuning::cached::CachedChoices;
use kiln::tuning::{Rounding, Tuning};
use kiln::{Options, Precision};
use kiln_rt::cache::Cache;

use super::load::parse_bytes;

/// What kernels may do to be faster, and how much memory they may take.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Numerics {
    /// How far sums may be reordered and approximated.
    #[arg(long, value_enum, value_name = "P", default_value = "default")]
    precision: Level,
    /// Bytes that the arena of a graph may have, `64MiB`; what does not fit is computed twice, to the same bits.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory_budget: Option<u64>,
    /// Choices that `kiln bench --tune` measured and cached to use; none with a memory budget.
    #[arg(long, value_enum, value_name = "WHICH", default_value = "exact")]
    tuned: Tuned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tuned {
    /// None: every choice is the cost model's.
    Off,
    /// Those that keep every bit.
    Exact,
    /// Also those that change how results are rounded, of `kiln bench --tune=bits`.
    Bits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Sums of products in f32, in a fixed order.
    Strict,
    /// Also algorithms with a bounded error, such as Winograd convolutions.
    Default,
    /// Also products in bf16, where a kernel has them: operands keep 8 significant bits, sums are in f32.
    Fast,
}

impl Numerics {
    /// Options that differ from the default in this, to run on so many threads.
    pub(crate) fn options(self, threads: usize) -> Options {
        let rounding = match self.tuned {
            Tuned::Off => None,
            Tuned::Exact => Some(Rounding::Kept),
            Tuned::Bits => Some(Rounding::Tuned),
        };
        // Where memory is what matters: panels that tiles share take more of it.
        let rounding = rounding.filter(|_| self.memory_budget.is_none());
        let table = rounding.zip(Cache::of_user());
        let table = table.map(|(rounding, cache)| Arc::new(CachedChoices::new(&cache, threads, rounding)));
        let tuning = table.filter(|table| table.is_there()).map(|table| Tuning::of(table)).unwrap_or_default();
        Options { tuning, ..self.untuned() }
    }

    /// Options without measured choices.
    pub(crate) fn untuned(self) -> Options {
        let precision = match self.precision {
            Level::Strict => Precision::Strict,
            Level::Default => Precision::Default,
            Level::Fast => Precision::Fast,
        };
        Options { precision, memory_budget: self.memory_budget, ..Options::default() }
    }
}
