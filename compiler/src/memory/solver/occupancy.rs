//! Which bytes are taken at which steps: the one data structure behind the greedy solvers.
//!
//! A segment tree over time. A buffer is filed as *whole* at the few nodes that tile its live range and as *partial* at
//! the ancestors of those; each node keeps the union of what is filed there as sorted, merged byte ranges. A question
//! about a live range then reads O(log steps) short lists instead of all buffers that overlap it in time: a quarter of
//! all pairs in a training step, whose activations stay live until the backward half.

use std::ops::Range;

/// Bytes taken so far, over elementary time slots `0..slots`.
pub(crate) struct Occupancy {
    /// Power of two; node `n` has children `2n` and `2n + 1`, slot `t` is leaf `leaves + t`.
    leaves: usize,
    /// Bytes taken by buffers that cover the node's whole span (and not its parent's).
    whole: Vec<ByteSet>,
    /// Bytes taken by anything that touches the node's span without covering its parent's.
    touched: Vec<ByteSet>,
}

/// How to choose among the gaps that are large enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The gap at the lowest offset.
    Lowest,
    /// The smallest gap, the lowest among equals.
    Tightest,
}

impl Occupancy {
    pub(crate) fn new(slots: usize) -> Self {
        let leaves = slots.max(1).next_power_of_two();
        Self { leaves, whole: vec![ByteSet::default(); 2 * leaves], touched: vec![ByteSet::default(); 2 * leaves] }
    }

    /// Offset of a gap of `size` bytes that is free during all of `slots`. There is always one above everything.
    pub(crate) fn find(&self, slots: Range<usize>, size: u64, fit: Fit) -> u64 {
        let mut sets = Vec::with_capacity(64);
        self.collect(slots, &mut sets);
        let mut cursor = GapCursor { sets, offset: 0 };
        let mut gap = cursor.next(size);
        if fit == Fit::Lowest {
            return gap.start;
        }
        let mut best = gap.clone();
        // The gap above everything ends nowhere; it is taken only when no other fits.
        while gap.end != u64::MAX {
            gap = cursor.next(size);
            if gap.end != u64::MAX && gap.end - gap.start < best.end - best.start {
                best = gap.clone();
            }
        }
        best.start
    }

    /// Takes `bytes` during all of `slots`.
    pub(crate) fn take(&mut self, slots: Range<usize>, bytes: &Range<u64>) {
        let (mut low, mut high) = (slots.start + self.leaves, slots.end + self.leaves);
        let (first, last) = (low, high - 1);
        while low < high {
            if low & 1 == 1 {
                self.whole[low].insert(bytes);
                self.touched[low].insert(bytes);
                low += 1;
            }
            if high & 1 == 1 {
                high -= 1;
                self.whole[high].insert(bytes);
                self.touched[high].insert(bytes);
            }
            (low, high) = (low / 2, high / 2);
        }
        self.touch_ancestors(first, last, bytes);
    }

    /// Files `bytes` at every ancestor of the two ends. A node on these paths that lies wholly inside the range is the
    /// child of a node filed as whole, or that node itself: filing there again changes no answer.
    fn touch_ancestors(&mut self, first: usize, last: usize, bytes: &Range<u64>) {
        let (mut left, mut right) = (first / 2, last / 2);
        while left > 0 {
            self.touched[left].insert(bytes);
            if right != left {
                self.touched[right].insert(bytes);
            }
            (left, right) = (left / 2, right / 2);
        }
    }

    /// The byte sets whose union is what is taken at some time during `slots`.
    fn collect<'a>(&'a self, slots: Range<usize>, sets: &mut Vec<&'a [Range<u64>]>) {
        let mut push = |set: &'a ByteSet| {
            if !set.ranges.is_empty() {
                sets.push(&set.ranges);
            }
        };
        let (mut low, mut high) = (slots.start + self.leaves, slots.end + self.leaves);
        let (mut left, mut right) = (low / 2, (high - 1) / 2);
        while low < high {
            if low & 1 == 1 {
                push(&self.touched[low]);
                low += 1;
            }
            if high & 1 == 1 {
                high -= 1;
                push(&self.touched[high]);
            }
            (low, high) = (low / 2, high / 2);
        }
        // Whoever covers an ancestor covers everything below it.
        while left > 0 {
            push(&self.whole[left]);
            if right != left {
                push(&self.whole[right]);
            }
            (left, right) = (left / 2, right / 2);
        }
    }
}

/// Walks the gaps of a union of byte sets upwards.
struct GapCursor<'a> {
    /// What is left of each set: ranges that end above `offset`.
    sets: Vec<&'a [Range<u64>]>,
    offset: u64,
}

impl GapCursor<'_> {
    /// The next gap of at least `size` bytes; the last one ends at `u64::MAX`.
    fn next(&mut self, size: u64) -> Range<u64> {
        let start = self.settle(size);
        let end = self.sets.iter().filter_map(|set| set.first()).map(|range| range.start).min().unwrap_or(u64::MAX);
        self.offset = end;
        start..end
    }

    /// Moves `offset` up to where no set has a range within the next `size` bytes.
    fn settle(&mut self, size: u64) -> u64 {
        let mut quiet = 0;
        let mut at = 0;
        while quiet < self.sets.len() {
            let before = self.offset;
            self.sets[at] = skip(self.sets[at], &mut self.offset, size);
            quiet = if self.offset == before { quiet + 1 } else { 1 };
            at = if at + 1 == self.sets.len() { 0 } else { at + 1 };
        }
        self.offset
    }
}

/// Drops the ranges below `offset`, moving it above every range that leaves less than `size` bytes free.
fn skip<'a>(set: &'a [Range<u64>], offset: &mut u64, size: u64) -> &'a [Range<u64>] {
    let mut rest = &set[set.partition_point(|range| range.end <= *offset)..];
    while let Some((range, tail)) = rest.split_first() {
        if range.start.saturating_sub(*offset) >= size && range.start >= *offset {
            break;
        }
        *offset = range.end.max(*offset);
        rest = tail;
    }
    rest
}

/// Sorted, disjoint, non-touching byte ranges.
#[derive(Clone, Default)]
struct ByteSet {
    ranges: Vec<Range<u64>>,
}

impl ByteSet {
    fn insert(&mut self, bytes: &Range<u64>) {
        let from = self.ranges.partition_point(|range| range.end < bytes.start);
        let to = from + self.ranges[from..].partition_point(|range| range.start <= bytes.end);
        match self.ranges.get(from..to) {
            None | Some([]) => self.ranges.insert(from, bytes.clone()),
            Some([first, ..]) => {
                let merged = first.start.min(bytes.start)..self.ranges[to - 1].end.max(bytes.end);
                self.ranges[from] = merged;
                self.ranges.drain(from + 1..to);
            }
        }
    }
}
