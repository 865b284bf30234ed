//! Skyline plans: bottom up, always the storage that can lie lowest, among equals the one that is hardest to place.
//!
//! These are the plans to which the exact search descends if it never has to turn back (canonical plans, MiniMalloc), without
//! its tests on the way: 0.2 ms for 250 storages where a descent takes 4. Of 139 training steps (13 networks, batches of
//! 1 to 64) the portfolio of greedy orders left 22 above the lower bound, these plans leave 2.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Placement, SlotStorage, live_bytes_per_slot, overlaps};

/// Best plan of a few attempts; stops early when one needs no more than `enough` bytes.
pub(crate) fn place(storages: &[SlotStorage], enough: u64) -> Placement {
    let (orders, overlaps) = (orders(storages), overlaps(storages));
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut best: Option<Placement> = None;
    for share in SHUFFLES {
        for (order, name) in &orders {
            let order = share.map_or_else(|| order.clone(), |share| random.shuffled(order, share));
            let found = attempt(storages, &overlaps, &order, name);
            best = Some(match best {
                Some(best) if best.peak <= found.peak => best,
                _ => found,
            });
            if let Some(best) = best.take_if(|best| best.peak <= enough) {
                return best;
            }
        }
    }
    best.unwrap_or_else(Placement::empty)
}

/// How far the orders of each round are shuffled: not at all, or by up to a share of the storages.
const SHUFFLES: [Option<usize>; 6] = [None, Some(16), Some(4), Some(16), Some(4), Some(8)];

/// The orders among storages that can lie equally low: those that MiniMalloc prefers.
fn orders(storages: &[SlotStorage]) -> [(Vec<usize>, &'static str); 3] {
    let live = live_bytes_per_slot(storages);
    let contention = |s: &SlotStorage| live[s.slots()].iter().copied().max().unwrap_or(0);
    let sorted = |key: &dyn Fn(&SlotStorage) -> [u128; 3]| {
        let mut order: Vec<usize> = (0..storages.len()).collect();
        order.sort_by_cached_key(|&i| Reverse(key(&storages[i])));
        order
    };
    [
        (sorted(&|s| [s.duration.into(), s.area(), contention(s).into()]), "skyline by duration"),
        (sorted(&|s| [contention(s).into(), s.area(), s.duration.into()]), "skyline by contention, area"),
        (sorted(&|s| [contention(s).into(), s.duration.into(), s.area()]), "skyline by contention, duration"),
    ]
}

/// Places by rising offset: a storage rests on those before it that are live together with it.
fn attempt(storages: &[SlotStorage], overlaps: &[Vec<u32>], order: &[usize], solver: &'static str) -> Placement {
    let mut offsets = vec![0; storages.len()];
    let mut placed = vec![false; storages.len()];
    let waiting = order.iter().enumerate().filter(|&(_, &i)| storages[i].size > 0);
    let mut waiting: BinaryHeap<Reverse<(u64, usize, usize)>> =
        waiting.map(|(place, &i)| Reverse((0, place, i))).collect();
    while let Some(Reverse((offset, place, i))) = waiting.pop() {
        if offset < offsets[i] {
            // Raised since it was put into the queue.
            waiting.push(Reverse((offsets[i], place, i)));
            continue;
        }
        placed[i] = true;
        let top = offset + storages[i].size;
        for &other in &overlaps[i] {
            let other = other as usize;
            if !placed[other] {
                offsets[other] = top.max(offsets[other]);
            }
        }
    }
    Placement::new(storages, offsets, solver)
}

/// Xorshift, so that every run makes the same choices.
struct Random(u64);

impl Random {
    /// Each of an order moved down by less than one `share`th of all.
    fn shuffled(&mut self, order: &[usize], share: usize) -> Vec<usize> {
        let reach = (order.len() / share).max(1) as u64;
        let mut delayed: Vec<(u64, usize)> =
            (0u64..).zip(order).map(|(place, &i)| (place + self.next() % reach, i)).collect();
        delayed.sort_by_key(|&(place, _)| place);
        delayed.into_iter().map(|(_, i)| i).collect()
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
