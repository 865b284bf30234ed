//! Exact search: depth-first over canonical plans, in the manner of MiniMalloc.
//!
//! After M. D. Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine Learning"
//! (ASPLOS 2023). The question is always whether everything fits into a given capacity:
//!
//! - *Canonical plans.* If any plan fits, so does one in which every storage rests on another one or on the ground, and
//!   such a plan can be built bottom up: by rising offset, each storage at the lowest offset that what is placed leaves
//!   it. A node of the search therefore chooses only who comes next, and offsets never fall along a branch.
//! - *Dominance.* Nobody goes to an offset at or above the top of someone who could still slip in underneath.
//! - *Twins.* Of storages with equal size and live range the first one goes first.
//! - *Hatless storages.* One that nobody will lie above is in nobody's way: if the rest fails, it fails without it too.
//! - *Section inference.* In each time slot the storages still to come are stacked by their lowest possible offset; if
//!   that alone exceeds the capacity, the branch is dead. MiniMalloc adds the sum of sizes to the lowest offset; stacking
//!   is the stronger test, and one pass over the storages in the order that the node sorts them into anyway.
//! - *Passed storages.* One that was left out while others went higher can only lie on one still to come, so that its
//!   lowest possible offset is that one's top. This is not in the paper; it halves the nodes of the hardest instances.
//! - *Decomposition.* Where no storage still to come crosses from one slot to the next, the two sides are independent,
//!   and each is put into an order of its own.
//!
//! Orders of preference differ wildly in luck, so many are tried, each under a node limit. MiniMalloc's eleven instances
//! take 2,000 to 140,000 nodes and 0.05 to 1.5 s.

mod search;

use super::{Placement, SlotStorage};
use search::{End, Key, Preference, Search};

/// What the search found out.
pub(crate) struct Outcome {
    /// A plan better than the one known before.
    pub(crate) placement: Option<Placement>,
    /// No plan has a peak below this.
    pub(crate) proved_bound: u64,
}

/// Looks for a plan of at most `enough` bytes, then for the smallest one below `peak`, visiting at most `nodes` nodes.
/// Each question gets three quarters of the nodes that are left, and the next one asks for the middle of what is still open.
pub(crate) fn improve(storages: &[SlotStorage], peak: u64, lower_bound: u64, enough: u64, nodes: u64) -> Outcome {
    let mut outcome = Outcome { placement: None, proved_bound: lower_bound };
    let neighbours = smallest_first(storages);
    // A canonical offset is a sum of sizes, so that peaks lie on a grid as coarse as the sizes allow.
    let grid = storages.iter().map(|s| s.size).fold(0, greatest_common_divisor).max(1);
    let (mut peak, mut hopeful, mut left) = (peak, enough, nodes);
    let mut target = enough;
    while left > 0 && hopeful < peak {
        let mut allowance = left - left / 4;
        left -= allowance;
        let verdict = fits(storages, &neighbours, target, &mut allowance);
        left += allowance;
        let above = (target + 1).next_multiple_of(grid);
        match verdict {
            Verdict::Fits(offsets) => {
                let found = Placement::new(storages, offsets, "exact");
                peak = found.peak;
                outcome.placement = Some(found);
            }
            Verdict::TooSmall => {
                outcome.proved_bound = outcome.proved_bound.max(above);
                hopeful = hopeful.max(above);
            }
            Verdict::Unknown => hopeful = hopeful.max(above),
        }
        // A capacity is all that was asked for: that nothing fits into it is an answer too.
        let answered = enough > lower_bound && (peak <= enough || outcome.proved_bound > enough);
        if answered {
            break;
        }
        target = hopeful + (peak - hopeful.min(peak)) / 2;
    }
    outcome
}

/// The neighbours of each storage in time, by rising size.
fn smallest_first(storages: &[SlotStorage]) -> Vec<Vec<u32>> {
    let mut overlaps = super::overlaps(storages);
    for of_one in &mut overlaps {
        of_one.sort_by_key(|&n| (storages[n as usize].size, n));
    }
    overlaps
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Answer to whether everything fits into a capacity.
enum Verdict {
    /// It does, at these offsets.
    Fits(Vec<u64>),
    /// No plan does.
    TooSmall,
    /// The nodes ran out.
    Unknown,
}

/// The decision problem, by attempts under node limits. Luck differs wildly between preferences, so three ways of
/// choosing them take turns, always the one that has used the fewest nodes: the plain ones under limits that double, and
/// two that shuffle them a little or more, under the limits 1 1 2 1 1 2 4 .. of Luby, Sinclair and Zuckerman (1993).
fn fits(storages: &[SlotStorage], neighbours: &[Vec<u32>], capacity: u64, nodes: &mut u64) -> Verdict {
    let mut streams = STREAMS.map(|shuffle| Stream { shuffle, used: 0, attempts: 0 });
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let plain = FIRST_LIMIT.min(*nodes / 3).max(1);
    let shuffled = FIRST_SHUFFLED.max(2 * storages.len() as u64);
    while *nodes > 0 {
        let Some(stream) = streams.iter_mut().min_by_key(|stream| stream.used) else { break };
        let attempt = stream.attempts;
        stream.attempts += 1;
        let keys = PREFERENCES[attempt as usize % PREFERENCES.len()];
        let round = attempt / PREFERENCES.len() as u64;
        let (limit, delays) = match stream.shuffle {
            None => (plain << round.min(40), Vec::new()),
            Some(share) => (shuffled << (round + 1).trailing_zeros(), random.delays(storages.len(), share)),
        };
        let allowed = limit.min(*nodes);
        let preference = Preference { keys, delays };
        let mut search = Search::new(storages, neighbours, &preference, capacity, allowed);
        let end = search.run();
        let used = allowed - search.nodes;
        *nodes -= used;
        stream.used += used;
        match end {
            End::Found => return Verdict::Fits(search.offsets),
            End::Dead => return Verdict::TooSmall,
            End::Unknown => {}
        }
    }
    Verdict::Unknown
}

/// The orders of preference that MiniMalloc takes.
const PREFERENCES: [[Key; 3]; 3] = [
    [Key::Duration, Key::Area, Key::Contention],
    [Key::Contention, Key::Area, Key::Duration],
    [Key::Contention, Key::Duration, Key::Area],
];

/// Nodes of a first attempt in a plain order, or a third of what there is. From 500 to 20,000 MiniMalloc's instances
/// differ by luck only.
const FIRST_LIMIT: u64 = 20_000;

/// Nodes of a first attempt in a shuffled order, or twice the storages: training steps are found fastest if luck is
/// changed often, but not before a descent can reach its end.
const FIRST_SHUFFLED: u64 = 2_000;

/// How far each way of choosing preferences shuffles: not at all, or by up to a share of the storages.
const STREAMS: [Option<u64>; 3] = [None, Some(16), Some(4)];

struct Stream {
    shuffle: Option<u64>,
    used: u64,
    attempts: u64,
}

/// Xorshift, so that every run makes the same choices.
struct Random(u64);

impl Random {
    /// For each of `count` storages a delay of less than one `share`th of all.
    fn delays(&mut self, count: usize, share: u64) -> Vec<u32> {
        let reach = (count as u64 / share).max(1);
        (0..count).map(|_| (self.next() % reach) as u32).collect()
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
