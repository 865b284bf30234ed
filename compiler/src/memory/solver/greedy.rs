//! The greedy portfolio: a few orders, each storage put into the lowest (or tightest) gap left by those before it.
//!
//! The orders are the usual ones: by size as in TensorFlow Lite's `greedy_by_size`, by breadth after Pisarchyk and Lee
//! ("Efficient Memory Management for Deep Neural Net Inference", 2020), by area, by duration, and by time. Then every
//! order is retried with its own failures first: what ended above the target is *promoted* to the front (squeaky wheel
//! optimization, Joslin and Clements, 1999). Measured on S_1 of the IOPDDL contest, 28,526 buffers: the best single
//! order misses the lower bound by 2.5%, four promotions by 0.25%, at 40 ms an attempt.

use std::cmp::Reverse;

use super::occupancy::{Fit, Occupancy};
use super::{Placement, SlotStorage, live_bytes_per_slot};

/// Best of the first attempts by weight.
pub(crate) fn first(storages: &[SlotStorage], enough: u64) -> Placement {
    let mut best: Option<Placement> = None;
    for m in BY_WEIGHT {
        let found = place_in_order(storages, &(m.order)(storages), m.fit, m.name, &mut EFFORT.clone());
        best = Some(match best {
            Some(best) => best.or(|| found, 0),
            None => found,
        });
        if let Some(best) = best.take_if(|best| best.peak <= enough) {
            return best;
        }
    }
    best.unwrap_or_else(Placement::empty)
}

/// Best plan of the portfolio; stops early when one needs no more than `enough` bytes.
pub(crate) fn place(storages: &[SlotStorage], enough: u64) -> Placement {
    let mut best: Option<Placement> = None;
    let mut effort = EFFORT;
    for members in [BY_WEIGHT, BY_TIME, BEST_FIT] {
        let mut orders: Vec<Vec<usize>> = members.iter().map(|member| (member.order)(storages)).collect();
        for round in 0..ROUNDS {
            for (member, order) in members.iter().zip(&mut orders) {
                if best.as_ref().is_some_and(|best| best.peak <= enough || effort == 0) {
                    return best.unwrap_or_else(Placement::empty);
                }
                let name = if round == 0 { member.name } else { member.promoted };
                let found = place_in_order(storages, order, member.fit, name, &mut effort);
                promote(storages, &found, enough, order);
                best = Some(match best {
                    Some(best) if best.peak <= found.peak => best,
                    _ => found,
                });
            }
        }
    }
    best.unwrap_or_else(Placement::empty)
}

/// The first attempt of every member, for the tests.
#[cfg(test)]
pub(crate) fn every_member(storages: &[SlotStorage]) -> Vec<Placement> {
    let place = |m: &Member| place_in_order(storages, &(m.order)(storages), m.fit, m.name, &mut EFFORT.clone());
    [BY_WEIGHT, BY_TIME, BEST_FIT].concat().iter().map(place).collect()
}

type Order = fn(&[SlotStorage]) -> Vec<usize>;

#[derive(Clone, Copy)]
struct Member {
    /// Name of its first attempt.
    name: &'static str,
    /// Name of the attempts after that.
    promoted: &'static str,
    order: Order,
    fit: Fit,
}

/// Attempts per member. Almost all gains come with the first four.
const ROUNDS: usize = 6;

/// Ranges looked at in all attempts together, each placement counting [`PLACEMENT`] of them. It is used up after about
/// a second, which only problems of more than ten thousand buffers take.
const EFFORT: usize = 20_000_000;

/// What filing a buffer costs, in ranges looked at.
const PLACEMENT: usize = 40;

/// The hardest to place first. Promotion gains most here.
const BY_WEIGHT: &[Member] = &[
    Member::new("greedy by size", "greedy by size, promoted", by_size, Fit::Lowest),
    Member::new("greedy by duration", "greedy by duration, promoted", by_duration, Fit::Lowest),
    Member::new("greedy by breadth", "greedy by breadth, promoted", by_breadth, Fit::Lowest),
    Member::new("greedy by area", "greedy by area, promoted", by_area, Fit::Lowest),
];

/// As an allocator at run time would meet them, forwards and backwards.
const BY_TIME: &[Member] = &[
    Member::new("greedy in program order", "greedy in program order, promoted", by_start, Fit::Lowest),
    Member::new("greedy in reverse order", "greedy in reverse order, promoted", by_end, Fit::Lowest),
];

/// Looks at all gaps and not only up to the first: last, because it costs several times as much.
const BEST_FIT: &[Member] = &[
    Member::new("best fit by size", "best fit by size, promoted", by_size, Fit::Tightest),
    Member::new("best fit in program order", "best fit in program order, promoted", by_start, Fit::Tightest),
];

impl Member {
    const fn new(name: &'static str, promoted: &'static str, order: Order, fit: Fit) -> Self {
        Self { name, promoted, order, fit }
    }
}

/// Moves what ended above `target` to the front, where it meets an emptier arena.
fn promote(storages: &[SlotStorage], placement: &Placement, target: u64, order: &mut [usize]) {
    order.sort_by_key(|&i| placement.offsets[i] + storages[i].size <= target);
}

fn place_in_order(
    storages: &[SlotStorage],
    order: &[usize],
    fit: Fit,
    solver: &'static str,
    effort: &mut usize,
) -> Placement {
    let slots = storages.iter().map(|s| s.end).max().unwrap_or(0);
    let mut occupancy = Occupancy::new(slots, effort.saturating_sub(PLACEMENT * storages.len()));
    let mut offsets = vec![0; storages.len()];
    for &i in order {
        let s = &storages[i];
        // Nothing is stored in no bytes: offset 0 is as good as any.
        if s.size > 0 {
            offsets[i] = occupancy.find(s.slots(), s.size, fit);
            occupancy.take(s.slots(), &(offsets[i]..offsets[i] + s.size));
        }
    }
    *effort = occupancy.effort();
    Placement::new(storages, offsets, solver)
}

fn sorted_by_key<K: Ord>(storages: &[SlotStorage], key: impl Fn(&SlotStorage) -> K) -> Vec<usize> {
    let mut order: Vec<usize> = (0..storages.len()).collect();
    order.sort_by_cached_key(|&i| key(&storages[i]));
    order
}

fn by_size(storages: &[SlotStorage]) -> Vec<usize> {
    sorted_by_key(storages, |s| (Reverse(s.size), Reverse(s.duration), s.first))
}

fn by_duration(storages: &[SlotStorage]) -> Vec<usize> {
    sorted_by_key(storages, |s| (Reverse(s.duration), Reverse(s.size), s.first))
}

fn by_area(storages: &[SlotStorage]) -> Vec<usize> {
    sorted_by_key(storages, |s| (Reverse(s.area()), Reverse(s.size), s.first))
}

fn by_start(storages: &[SlotStorage]) -> Vec<usize> {
    sorted_by_key(storages, |s| (s.first, Reverse(s.size)))
}

fn by_end(storages: &[SlotStorage]) -> Vec<usize> {
    sorted_by_key(storages, |s| (Reverse(s.end), Reverse(s.size)))
}

/// The storages that are live when most bytes are, then those of the next fullest slot, and so on; large before small.
fn by_breadth(storages: &[SlotStorage]) -> Vec<usize> {
    let live = live_bytes_per_slot(storages);
    let fullest = FullestSlot::new(&live);
    sorted_by_key(storages, |s| {
        let slot = fullest.within(s.first, s.end);
        (Reverse(live[slot]), slot, Reverse(s.size), s.first)
    })
}

/// Answers which slot of a range has most live bytes (the first among equals): a sparse table over powers of two.
struct FullestSlot<'a> {
    live: &'a [u64],
    levels: Vec<Vec<usize>>,
}

impl<'a> FullestSlot<'a> {
    fn new(live: &'a [u64]) -> Self {
        let mut table = Self { live, levels: vec![(0..live.len()).collect()] };
        let mut width = 1;
        while 2 * width <= live.len() {
            let below = &table.levels[table.levels.len() - 1];
            let level = (0..=live.len() - 2 * width).map(|i| table.fuller(below[i], below[i + width])).collect();
            table.levels.push(level);
            width *= 2;
        }
        table
    }

    fn within(&self, first: usize, end: usize) -> usize {
        let level = (end - first).ilog2() as usize;
        let row = &self.levels[level];
        self.fuller(row[first], row[end - (1 << level)])
    }

    fn fuller(&self, a: usize, b: usize) -> usize {
        if self.live[b] > self.live[a] { b } else { a }
    }
}
