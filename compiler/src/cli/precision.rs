//! `--precision` and `--memory-budget`, which every subcommand that compiles has.

use clap::{Args, ValueEnum};
use kiln::{Options, Precision};

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
    /// Options that differ from the default in this.
    pub(crate) fn options(self) -> Options {
        let precision = match self.precision {
            Level::Strict => Precision::Strict,
            Level::Default => Precision::Default,
            Level::Fast => Precision::Fast,
        };
        Options { precision, memory_budget: self.memory_budget, ..Options::default() }
    }
}
