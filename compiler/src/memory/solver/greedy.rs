//! The greedy portfolio: a few orders, each storage put into the lowest (or tightest) gap left by those before it.
//!
//! The orders are the usual ones: by size as in TensorFlow Lite's `greedy_by_size`, by breadth after Pisarchyk and Lee
//! ("Efficient Memory Management for Deep Neural Net Inference", 2020), by area, by duration, and by time.

use std::cmp::Reverse;

use super::occupancy::{Fit, Occupancy};
use super::{Placement, SlotStorage};

/// Best plan of the portfolio; stops early when one needs no more than `enough` bytes.
pub(crate) fn place(storages: &[SlotStorage], enough: u64) -> Placement {
    let mut best: Option<Placement> = None;
    for &(solver, order, fit) in PORTFOLIO {
        let found = place_in_order(storages, &order(storages), fit, solver);
        if best.as_ref().is_none_or(|best| found.peak < best.peak) {
            best = Some(found);
        }
        if best.as_ref().is_some_and(|best| best.peak <= enough) {
            break;
        }
    }
    best.unwrap_or_else(|| Placement::new(storages, Vec::new(), "empty"))
}

type Order = fn(&[SlotStorage]) -> Vec<usize>;

/// Name, order and fit of each member, the most often successful first.
const PORTFOLIO: &[(&str, Order, Fit)] = &[
    ("greedy by size, lowest gap", by_size, Fit::Lowest),
    ("greedy by duration, lowest gap", by_duration, Fit::Lowest),
    ("greedy by area, lowest gap", by_area, Fit::Lowest),
    ("greedy by breadth, lowest gap", by_breadth, Fit::Lowest),
    ("greedy by size, tightest gap", by_size, Fit::Tightest),
    ("greedy in program order, tightest gap", by_start, Fit::Tightest),
    ("greedy in program order, lowest gap", by_start, Fit::Lowest),
    ("greedy in reverse order, lowest gap", by_end, Fit::Lowest),
];

fn place_in_order(storages: &[SlotStorage], order: &[usize], fit: Fit, solver: &'static str) -> Placement {
    let slots = storages.iter().map(|s| s.end).max().unwrap_or(0);
    let mut occupancy = Occupancy::new(slots);
    let mut offsets = vec![0; storages.len()];
    for &i in order {
        let s = &storages[i];
        // Nothing is stored in no bytes: offset 0 is as good as any.
        if s.size > 0 {
            offsets[i] = occupancy.find(s.slots(), s.size, fit);
            occupancy.take(s.slots(), &(offsets[i]..offsets[i] + s.size));
        }
    }
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
