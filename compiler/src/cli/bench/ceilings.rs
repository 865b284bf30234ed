//! `kiln bench --machine`: what this machine can do at most.

use std::fmt::Write as _;
use std::time::Duration;

use kiln::compile::level_from_environment;
use kiln_rt::arena::OutOfMemory;
use kiln_rt::machine::{Bandwidth, Caches, Ceilings, Machine};
use serde_json::{Value, json};

use super::super::failure::Failure;

/// Time for each figure of `--machine`: about two seconds in all.
const THOROUGH: Duration = Duration::from_millis(70);
/// Time for each figure when they are the roofs of a model's kernels.
const QUICK: Duration = Duration::from_millis(30);

/// Roofs for one number of threads.
pub(super) struct Roofs {
    pub(super) level: &'static str,
    pub(super) caches: Caches,
    pub(super) ceilings: Ceilings,
    pub(super) fork_join_us: f64,
}

/// Measures the roofs of `threads` threads. It takes memory: look at the peak RSS first.
pub(super) fn roofs(threads: usize) -> Result<Roofs, Failure> {
    let machine = Machine::new(level_from_environment(), QUICK);
    Ok(Roofs {
        level: machine.level.name(),
        caches: machine.caches,
        ceilings: machine.ceilings(threads).map_err(no_memory)?,
        fork_join_us: fork_join_us(&machine, threads)?,
    })
}

impl Roofs {
    pub(super) fn to_json(&self) -> Value {
        let mut object = ceilings_json(&self.ceilings);
        object["level"] = self.level.into();
        object["l2_bytes"] = self.caches.l2.into();
        object["l3_bytes"] = self.caches.l3.into();
        object["fork_join_us"] = self.fork_join_us.into();
        object
    }
}

/// Everything about this machine with one thread and with `threads`: the text, or one object.
pub(super) fn machine(threads: usize) -> Result<(String, Value), Failure> {
    let machine = Machine::new(level_from_environment(), THOROUGH);
    let mut counts = vec![1, threads];
    counts.dedup();
    let all = counts.into_iter().map(|threads| machine.ceilings(threads));
    let all: Vec<Ceilings> = all.collect::<Result<_, _>>().map_err(no_memory)?;
    let fork_join_us = fork_join_us(&machine, threads)?;
    let (level, Caches { l2, l3 }) = (machine.level.name(), machine.caches);
    let json = json!({
        "level": level,
        "l2_bytes": l2,
        "l3_bytes": l3,
        "fork_join_us": fork_join_us,
        "ceilings": all.iter().map(ceilings_json).collect::<Vec<_>>(),
    });
    Ok((text(level, machine.caches, &all, fork_join_us), json))
}

fn no_memory(error: OutOfMemory) -> Failure {
    Failure::Input(format!("the arrays of the measurement: {error}"))
}

fn fork_join_us(machine: &Machine, threads: usize) -> Result<f64, Failure> {
    let started = machine.fork_join_us(threads);
    started.map_err(|error| Failure::Input(format!("cannot start {threads} threads: {error}")))
}

fn ceilings_json(ceilings: &Ceilings) -> Value {
    let Ceilings { threads, gflops, l2, l3, dram } = ceilings;
    let bandwidth = |b: &Bandwidth| json!({ "read": b.read, "copy": b.copy, "triad": b.triad });
    json!({
        "threads": threads,
        "fma_gflops": gflops,
        "l2_gb_s": bandwidth(l2),
        "l3_gb_s": bandwidth(l3),
        "dram_gb_s": bandwidth(dram),
    })
}

fn text(level: &str, Caches { l2, l3 }: Caches, all: &[Ceilings], fork_join_us: f64) -> String {
    let mut text = format!("level {level}, L2 {} KiB a core, L3 {} KiB\n\n", l2 >> 10, l3 >> 10);
    let mut row = |name: &str, figure: &dyn Fn(&Ceilings) -> String| {
        let figures: String = all.iter().map(|ceilings| format!("{:>12}", figure(ceilings))).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<22}{figures}");
    };
    row("threads", &|ceilings| ceilings.threads.to_string());
    row("f32 FMA, GFLOP/s", &|ceilings| format!("{:.1}", ceilings.gflops));
    let mut level = |name: &str, of: fn(&Ceilings) -> Bandwidth| {
        row(&format!("{name} read, GB/s"), &|ceilings| format!("{:.1}", of(ceilings).read));
        row(&format!("{name} copy, GB/s"), &|ceilings| format!("{:.1}", of(ceilings).copy));
        row(&format!("{name} triad, GB/s"), &|ceilings| format!("{:.1}", of(ceilings).triad));
    };
    level("L2", |ceilings| ceilings.l2);
    level("L3", |ceilings| ceilings.l3);
    level("DRAM", |ceilings| ceilings.dram);
    if fork_join_us > 0.0 {
        let _ = writeln!(text, "\n  fork and join {fork_join_us:.2} us");
    }
    text
}
