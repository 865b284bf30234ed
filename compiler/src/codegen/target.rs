//! The machine that code is made for: this one, found once per process.

use std::sync::OnceLock;

use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};

/// Instruction set and flags of code generation.
#[derive(Clone)]
pub struct Target {
    pub(crate) isa: OwnedTargetIsa,
    /// Whether `a * b + c` rounds once.
    pub(crate) fma: bool,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl Target {
    /// This machine.
    ///
    /// # Errors
    /// If Cranelift does not know it, or it is an x86-64 without SSE4.1 (rounding would need library calls).
    pub fn host() -> Result<&'static Target, String> {
        static HOST: OnceLock<Result<Target, String>> = OnceLock::new();
        HOST.get_or_init(find_host).as_ref().map_err(Clone::clone)
    }

    /// Triple and whatever of the instruction set can change bits, for fingerprints.
    pub fn name(&self) -> String {
        format!("{}{}", self.isa.triple(), if self.fma { "+fma" } else { "" })
    }
}

fn find_host() -> Result<Target, String> {
    let mut flags = settings::builder();
    // The e-graph would undo our schedule, so it is off; we hoist and share ourselves.
    let verify = if cfg!(debug_assertions) { "true" } else { "false" };
    for (flag, value) in [
        ("opt_level", "none"),
        ("regalloc_algorithm", "backtracking"),
        ("is_pic", "false"),
        ("enable_verifier", verify),
        ("unwind_info", "false"),
        ("enable_probestack", "false"),
        ("use_colocated_libcalls", "false"),
    ] {
        flags.set(flag, value).map_err(|error| format!("{flag}: {error}"))?;
    }
    let mut builder = isa::lookup_by_name(triple()?).map_err(|error| error.to_string())?;
    let fma = enable_features(&mut builder)?;
    let isa = builder.finish(settings::Flags::new(flags)).map_err(|error| error.to_string())?;
    Ok(Target { isa, fma })
}

fn triple() -> Result<&'static str, String> {
    match (std::env::consts::ARCH, std::env::consts::OS) {
        ("x86_64", "linux") => Ok("x86_64-unknown-linux-gnu"),
        ("x86_64", "macos") => Ok("x86_64-apple-darwin"),
        ("x86_64", "windows") => Ok("x86_64-pc-windows-msvc"),
        ("aarch64", "linux") => Ok("aarch64-unknown-linux-gnu"),
        ("aarch64", "macos") => Ok("aarch64-apple-darwin"),
        (arch, os) => Err(format!("no code generation for {arch} on {os}")),
    }
}

/// Enables what the processor has; returns whether multiply-add is one instruction. AVX512DQ is left out: with it
/// Cranelift no longer uses `pmuludq` for products of 32 bit, which Philox is made of.
#[cfg(target_arch = "x86_64")]
fn enable_features(builder: &mut isa::Builder) -> Result<bool, String> {
    macro_rules! detect {
        ($($name:tt: $flag:literal),*) => {
            [$(($flag, std::is_x86_feature_detected!($name))),*]
        };
    }
    if !std::is_x86_feature_detected!("sse4.1") {
        return Err("the processor has no SSE4.1".to_string());
    }
    let features = detect! {
        "sse3": "has_sse3", "ssse3": "has_ssse3", "sse4.1": "has_sse41", "sse4.2": "has_sse42", "avx": "has_avx",
        "avx2": "has_avx2", "fma": "has_fma", "popcnt": "has_popcnt", "bmi1": "has_bmi1", "bmi2": "has_bmi2",
        "lzcnt": "has_lzcnt", "avx512f": "has_avx512f", "avx512vl": "has_avx512vl"
    };
    for (flag, present) in features {
        if present {
            builder.enable(flag).map_err(|error| format!("{flag}: {error}"))?;
        }
    }
    Ok(std::is_x86_feature_detected!("fma"))
}

/// Every aarch64 has what is needed.
#[cfg(not(target_arch = "x86_64"))]
fn enable_features(_: &mut isa::Builder) -> Result<bool, String> {
    Ok(true)
}
