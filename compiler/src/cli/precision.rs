//! `--precision`, which every subcommand that compiles has.

use clap::{Args, ValueEnum};
use kiln::{Options, Precision};

/// What kernels may do to be faster.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Numerics {
    /// How far sums may be reordered and approximated.
    #[arg(long, value_enum, value_name = "P", default_value = "default")]
    precision: Level,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Sums of products in f32, in a fixed order.
    Strict,
    /// Also algorithms with a bounded error, such as Winograd convolutions.
    Default,
    /// Also products in bf16, where a kernel has them.
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
        Options { precision, ..Options::default() }
    }
}
