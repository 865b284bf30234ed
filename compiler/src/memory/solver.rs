//! Chooses an offset for every buffer: a few greedy orders, skyline plans, more orders, then an exact search, each only
//! if what came before leaves a gap.

mod exact;
mod greedy;
mod occupancy;
mod skyline;
mod sweep;

use super::problem::{Problem, Storage};

/// How hard to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Nodes the exact search may visit; `0` leaves it out. A count and not a clock: the plan is the same everywhere.
    pub exact_nodes: u64,
    /// Bytes that are enough: the search stops at the first plan that fits. Without it, it looks for the smallest.
    pub capacity: Option<u64>,
}

impl Default for Options {
    /// A budget of 7 to 20 milliseconds for up to a few hundred buffers. Of 139 training steps (13 networks, batches of 1
    /// to 64) one uses it: the others are at the bound before.
    fn default() -> Self {
        Self { exact_nodes: 6_000, capacity: None }
    }
}

/// Where every buffer lies, and how good that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Offset in bytes of each buffer, in the problem's order; aliases lie where they are in what they share.
    pub offsets: Vec<u64>,
    /// Size of the arena in bytes.
    pub peak: u64,
    /// Largest sum of live bytes over all steps: [`Problem::lower_bound`].
    pub lower_bound: u64,
    /// No plan has a peak below this: the lower bound, or what the exact search has raised it to.
    pub proved_bound: u64,
    /// Bytes without any reuse: [`Problem::naive_total`].
    pub naive: u64,
    /// The peak is the smallest possible one.
    pub proved: bool,
    /// Name of the solver that found the plan.
    pub solver: &'static str,
}

impl Plan {
    /// Share by which the peak exceeds the lower bound; `0.0` is perfect.
    pub fn gap(&self) -> f64 {
        if self.lower_bound == 0 { 0.0 } else { self.peak as f64 / self.lower_bound as f64 - 1.0 }
    }

    /// Whether the search has shown that no plan fits into `capacity` bytes.
    pub fn excludes(&self, capacity: u64) -> bool {
        self.proved_bound > capacity
    }
}

/// Places all buffers: greedy first, and if that misses the lower bound (or the capacity, when one is given), an exact
/// search for the rest of the way. Deterministic; near-linear in the number of buffers but for the exact search.
pub fn plan(problem: &Problem, options: &Options) -> Plan {
    let lower_bound = problem.lower_bound();
    let enough = options.capacity.unwrap_or(0).max(lower_bound);
    let storages = SlotStorage::compress(problem.storages());
    let mut placement = greedy::first(&storages, enough);
    let few = storages.len() <= FEW;
    if few {
        placement = placement.or(|| skyline::place(&storages, enough), enough);
    }
    placement = placement.or(|| greedy::place(&storages, enough), enough);
    if storages.len() > MANY {
        placement = placement.or(|| sweep::place(&storages), enough);
    }
    let mut proved_bound = lower_bound;
    if few && placement.peak > enough && options.exact_nodes > 0 {
        let outcome = exact::improve(&storages, placement.peak, lower_bound, enough, options.exact_nodes);
        proved_bound = outcome.proved_bound;
        placement = outcome.placement.unwrap_or(placement);
    }
    Plan {
        offsets: offsets_of(problem, &placement),
        peak: placement.peak,
        lower_bound,
        proved_bound,
        naive: problem.naive_total(),
        proved: placement.peak == proved_bound,
        solver: placement.solver,
    }
}

/// Offset of every buffer: that of its storage, and its place in there.
fn offsets_of(problem: &Problem, placement: &Placement) -> Vec<u64> {
    let inside = problem.storage_of().iter().zip(problem.position_of());
    inside.map(|(&storage, position)| placement.offsets[storage] + position).collect()
}

/// Storages with which the portfolio may run out of effort.
const MANY: usize = 10_000;

/// Storages above which nothing is done for every pair of them. The exact search also recurses once per storage.
const FEW: usize = 1500;

/// What the solvers place: a storage over slots of time instead of steps. Between two steps at which anything starts or
/// ends nothing changes, and only those of these intervals matter that begin with a start and finish with an end: all
/// others hold a subset of what a neighbour holds. So n storages have at most n slots, however long they live.
#[derive(Debug, Clone, Copy)]
struct SlotStorage {
    size: u64,
    first: usize,
    end: usize,
    /// Steps, not slots, for the orders that weigh lifetime.
    duration: u64,
}

impl SlotStorage {
    fn compress(storages: &[Storage]) -> Vec<Self> {
        let mut events: Vec<(u32, bool)> = storages.iter().flat_map(|s| [(s.lower, true), (s.upper, false)]).collect();
        // At one step the ends come first: half-open ranges that meet do not overlap.
        events.sort_unstable();
        // A slot closes at each end that follows a start.
        let turns = events.windows(2).filter(|pair| pair[0].1 && !pair[1].1);
        let closings: Vec<u32> = turns.map(|pair| pair[1].0).collect();
        let compressed = |s: &Storage| Self {
            size: s.size,
            first: closings.partition_point(|&closing| closing <= s.lower),
            end: closings.partition_point(|&closing| closing <= s.upper),
            duration: s.duration(),
        };
        storages.iter().map(compressed).collect()
    }

    fn slots(&self) -> std::ops::Range<usize> {
        self.first..self.end
    }

    fn area(&self) -> u128 {
        u128::from(self.size) * u128::from(self.duration)
    }
}

/// An offset for every storage.
#[derive(Debug, Clone)]
struct Placement {
    offsets: Vec<u64>,
    peak: u64,
    solver: &'static str,
}

impl Placement {
    fn new(storages: &[SlotStorage], offsets: Vec<u64>, solver: &'static str) -> Self {
        let peak = storages.iter().zip(&offsets).map(|(s, offset)| offset + s.size).max().unwrap_or(0);
        Self { offsets, peak, solver }
    }

    /// This one, or the better of it and another one if it needs more than `enough` bytes.
    fn or(self, other: impl FnOnce() -> Self, enough: u64) -> Self {
        if self.peak <= enough {
            return self;
        }
        let other = other();
        if other.peak < self.peak { other } else { self }
    }

    fn empty() -> Self {
        Self { offsets: Vec::new(), peak: 0, solver: "nothing to place" }
    }
}

/// For each storage of some size those that are live at some time together with it.
fn overlaps(storages: &[SlotStorage]) -> Vec<Vec<u32>> {
    let mut by_start: Vec<usize> = (0..storages.len()).filter(|&i| storages[i].size > 0).collect();
    by_start.sort_by_key(|&i| storages[i].first);
    let mut overlaps = vec![Vec::new(); storages.len()];
    let mut live: Vec<usize> = Vec::new();
    for i in by_start {
        live.retain(|&other| storages[other].end > storages[i].first);
        for &other in &live {
            overlaps[i].push(other as u32);
            overlaps[other].push(i as u32);
        }
        live.push(i);
    }
    overlaps
}

/// Bytes live in each slot.
fn live_bytes_per_slot(storages: &[SlotStorage]) -> Vec<u64> {
    let slots = storages.iter().map(|s| s.end).max().unwrap_or(0);
    let mut change = vec![0i64; slots + 1];
    for s in storages {
        // Totals are below i64::MAX: `Problem` has seen to it.
        change[s.first] += s.size.cast_signed();
        change[s.end] -= s.size.cast_signed();
    }
    let running = change.iter().scan(0i64, |sum, &c| {
        *sum += c;
        Some(sum.cast_unsigned())
    });
    running.take(slots).collect()
}

#[cfg(test)]
mod tests;
