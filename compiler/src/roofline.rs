//! How fast each launch of a program could be on this machine, and why a slow one is slow.
//!
//! The model is the roofline (Williams, Waterman and Patterson, 2009) with one roof for each level of memory: a launch
//! takes at least as long as its operations at the peak, and as its bytes through every level that they come from. Where
//! a buffer comes from follows from what has been touched since its last use, in a program that runs again and again: if
//! that fits a cache, so does the buffer. All roofs are figures measured on this machine.

use std::collections::HashMap;

use kiln_ir::DType;
use kiln_rt::executable::Slot;
use kiln_rt::machine::{Caches, Ceilings};

use crate::codegen::{CompiledKernel, TableSlot};
use crate::compile::Compiled;
use crate::loops::nest::LoopNest;
use crate::lower::{BufferUse, Lowered};

pub mod cause;
pub mod work;

use work::Work;

/// The least time of one launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// Nanoseconds.
    pub nanoseconds: f64,
    /// What sets it.
    pub bound: Bound,
}

/// What a launch cannot be faster than.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Multiply-adds.
    Compute,
    /// Second-level cache.
    L2,
    /// Last-level cache.
    L3,
    /// Memory.
    Dram,
}

impl Bound {
    /// Short name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Compute => "compute",
            Bound::L2 => "L2",
            Bound::L3 => "L3",
            Bound::Dram => "DRAM",
        }
    }
}

/// What the compiler knows of one launch.
#[derive(Clone, Copy, Debug)]
pub struct LaunchSource<'a> {
    /// Its kernel.
    pub lowered: &'a Lowered,
    /// Its loops.
    pub nest: &'a LoopNest,
    /// What its buffers are.
    pub uses: &'a [BufferUse],
    /// Its machine code.
    pub code: &'a CompiledKernel,
}

/// Where each launch of a graph comes from, in order; `None` for copies and packing, which belong to no kernel.
pub fn sources(compiled: &Compiled) -> Vec<Option<LaunchSource<'_>>> {
    let nests =
        compiled.lowered.iter().flat_map(|lowered| lowered.launches.iter().map(move |launch| (lowered, launch)));
    let nests = nests.map(Some).chain(std::iter::repeat(None));
    let launches = compiled.launches.clone().zip(nests);
    launches
        .map(|(entry, source)| {
            let (lowered, (nest, uses)) = source?;
            Some(LaunchSource { lowered, nest, uses, code: compiled.code.kernel(entry) })
        })
        .collect()
}

/// The roofline of each launch of a graph.
pub fn rooflines(compiled: &Compiled, ceilings: &Ceilings, caches: Caches) -> Vec<Roofline> {
    let touched = touches(compiled);
    let capacities = [caches.l2 * ceilings.threads, caches.l3].map(|bytes| bytes as u64);
    let traffic = traffic(&touched, capacities);
    let launches = compiled.executable.launches.iter().zip(sources(compiled)).zip(traffic);
    launches
        .map(|((launch, source), bytes)| {
            let double =
                source.is_some_and(|s| s.nest.exprs.iter().any(|(_, dtype)| *dtype == DType::F64) || is_double(s));
            let peak = if double { ceilings.gflops / 2.0 } else { ceilings.gflops * terms_per_step(source) };
            roofline(launch.flops, bytes, peak, ceilings)
        })
        .collect()
}

/// Whether a contraction is one of `f64`.
fn is_double(source: LaunchSource<'_>) -> bool {
    source.lowered.contractions.iter().any(|plan| plan.direct().is_some_and(|plan| plan.element_bytes() == 8))
}

/// Terms of a sum that one instruction multiplies for each lane of 32 bit.
fn terms_per_step(source: Option<LaunchSource<'_>>) -> f64 {
    let plans = source.into_iter().flat_map(|source| &source.lowered.contractions);
    plans.filter_map(|plan| plan.direct()).map(|plan| plan.terms_per_step()).max().unwrap_or(1) as f64
}

/// `bytes` that come from the second level, the third, and memory: each passes through the levels before its own.
fn roofline(flops: u64, [l2, l3, dram]: [u64; 3], peak: f64, ceilings: &Ceilings) -> Roofline {
    let roofs = [
        (Bound::Compute, flops as f64 / peak),
        (Bound::L2, (l2 + l3 + dram) as f64 / ceilings.l2.most()),
        (Bound::L3, (l3 + dram) as f64 / ceilings.l3.most()),
        (Bound::Dram, dram as f64 / ceilings.dram.most()),
    ];
    let (bound, nanoseconds) =
        roofs.into_iter().fold((Bound::Compute, 0.0), |most, roof| if roof.1 > most.1 { roof } else { most });
    Roofline { nanoseconds, bound }
}

/// `(memory, bytes)` that each launch touches.
fn touches(compiled: &Compiled) -> Vec<Vec<(Slot, u64)>> {
    let mut works = compiled.lowered.iter().flat_map(work::of_launches);
    let launches = compiled.executable.launches.iter().map(|launch| {
        let table = &compiled.code.kernel(launch.entry).table;
        let slots =
            table.iter().filter(|slot| !matches!(slot, TableSlot::Scratch | TableSlot::Status)).zip(&launch.slots);
        let Work { buffers, .. } = works.next().unwrap_or_default();
        let bytes = |slot: &TableSlot| match slot {
            // Copies and packing read what they write.
            TableSlot::Buffer(_) if buffers.is_empty() => launch.bytes / 2,
            TableSlot::Buffer(number) => buffers.get(*number as usize).copied().unwrap_or(0),
            _ => 0,
        };
        let touched = slots.filter(|(_, memory)| !matches!(memory, Slot::Address(_)));
        touched.map(|(slot, memory)| (*memory, bytes(slot))).filter(|(_, bytes)| *bytes > 0).collect()
    });
    launches.collect()
}

/// Bytes of each launch that come from the second level, the third, and memory, when the program runs over and over.
fn traffic(touched: &[Vec<(Slot, u64)>], capacities: [u64; 2]) -> Vec<[u64; 3]> {
    // When each memory was touched last, and how much of it.
    let mut last: HashMap<Slot, (usize, u64)> = HashMap::new();
    let mut found = Vec::new();
    for round in 0..2 {
        for (at, launch) in touched.iter().enumerate() {
            let now = round * touched.len() + at;
            let mut levels = [0; 3];
            for &(memory, bytes) in launch {
                // What a launch touches, it touches at the same time: its other buffers count too.
                let since = last.get(&memory).map(|(before, _)| {
                    last.values().filter(|(time, _)| time >= before).map(|(_, bytes)| bytes).sum::<u64>()
                });
                let level = since.map_or(2, |since| capacities.iter().filter(|capacity| since > **capacity).count());
                levels[level] += bytes;
            }
            last.extend(launch.iter().map(|&(memory, bytes)| (memory, (now, bytes))));
            if round == 1 {
                found.push(levels);
            }
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;
    use kiln_rt::machine::Bandwidth;

    fn ceilings() -> Ceilings {
        let bandwidth = |most| Bandwidth { read: most, copy: most / 2.0, triad: most / 2.0 };
        Ceilings { threads: 1, gflops: 100.0, l2: bandwidth(50.0), l3: bandwidth(20.0), dram: bandwidth(10.0) }
    }

    #[test]
    fn the_slowest_roof_counts() {
        // 1000 operations take 10 ns; 400 bytes of memory 40 ns, through L3 20 ns, through L2 8 ns.
        assert_eq!(roofline(1000, [0, 0, 400], 100.0, &ceilings()), Roofline { nanoseconds: 40.0, bound: Bound::Dram });
        assert_eq!(roofline(1000, [400, 0, 0], 100.0, &ceilings()).bound, Bound::Compute);
        assert_eq!(roofline(0, [400, 0, 0], 100.0, &ceilings()), Roofline { nanoseconds: 8.0, bound: Bound::L2 });
    }

    #[test]
    fn memory_is_where_its_last_use_left_it() {
        let (a, b) = (Slot::Arena(0), Slot::State(0));
        // `a` is used again at once, `b` after 300 bytes; caches of 150 and 250 bytes.
        let touched = vec![vec![(a, 100)], vec![(a, 100), (b, 200)]];
        assert_eq!(traffic(&touched, [150, 250]), [[0, 0, 100], [100, 0, 200]]);
        assert_eq!(traffic(&touched, [150, 300]), [[0, 100, 0], [100, 200, 0]]);
    }
}
