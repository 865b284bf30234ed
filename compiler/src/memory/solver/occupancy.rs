//! Which bytes are taken at which steps: the one data structure behind the greedy solvers.
//!
//! A segment tree over time. A buffer is filed as *whole* at the few nodes that tile its live range and as *partial* at
//! the ancestors of those; each node keeps the union of what is filed there as sorted, merged byte ranges. A question
//! about a live range then reads O(log steps) short lists instead of all buffers that overlap it in time: a quarter of
//! all pairs in a training step, whose activations stay live until the backward half.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;

/// Bytes taken so far, over elementary time slots `0..slots`.
pub(crate) struct Occupancy {
    /// Power of two; node `n` has children `2n` and `2n + 1`, slot `t` is leaf `leaves + t`.
    leaves: usize,
    /// Bytes taken by buffers that cover the node's whole span (and not its parent's).
    whole: Vec<ByteSet>,
    /// Bytes taken by anything that touches the node's span without covering its parent's.
    touched: Vec<ByteSet>,
    /// Steps of the search for gaps that may still be made freely; after that each search gets [`SHORT_SEARCH`].
    effort: usize,
}

/// Ranges looked at before a search gives up and takes the place above everything, once the effort is spent.
const SHORT_SEARCH: usize = 48;

/// How to choose among the gaps that are large enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The gap at the lowest offset.
    Lowest,
    /// The smallest gap, the lowest among equals.
    Tightest,
}

impl Occupancy {
    /// Nothing taken. Searches may look at `effort` ranges in all before they become hasty: a bound for arenas so
    /// fragmented that every search visits thousands of gaps.
    pub(crate) fn new(slots: usize, effort: usize) -> Self {
        let leaves = slots.max(1).next_power_of_two();
        let empty = vec![ByteSet::default(); 2 * leaves];
        Self { leaves, whole: empty.clone(), touched: empty, effort }
    }

    /// What is left of the effort.
    pub(crate) fn effort(&self) -> usize {
        self.effort
    }

    /// Offset of a gap of `size` bytes that is free during all of `slots`. There is always one above everything.
    pub(crate) fn find(&mut self, slots: Range<usize>, size: u64, fit: Fit) -> u64 {
        let mut sets = Vec::with_capacity(64);
        self.collect(slots, &mut sets);
        let mut cursor = GapCursor { heads: sets.into(), offset: 0, steps: self.effort.max(SHORT_SEARCH) };
        let mut best = cursor.next(size);
        if fit == Fit::Tightest {
            // The gap above everything ends nowhere, so that any other is tighter.
            let mut gap = best.clone();
            while gap.end != u64::MAX {
                gap = cursor.next(size);
                if gap.end - gap.start < best.end - best.start {
                    best = gap.clone();
                }
            }
        }
        let left = cursor.steps;
        self.effort = self.effort.min(left);
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
    fn collect<'a>(&'a self, slots: Range<usize>, sets: &mut Vec<Head<'a>>) {
        let mut push = |set: &'a ByteSet| {
            if !set.ranges.is_empty() {
                sets.push(Head(&set.ranges));
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

/// Walks the gaps of a union of byte sets upwards, by merging the sets. Visiting the sets in turn until none objects
/// was eight times slower: fragmented arenas make one step per gap, and each step asked every set.
struct GapCursor<'a> {
    /// Start of the next range of each set, and that range with all after it; lowest start on top.
    heads: BinaryHeap<Head<'a>>,
    /// Everything below is taken, or was given out.
    offset: u64,
    /// Ranges that may still be looked at.
    steps: usize,
}

/// What is left of a set, ordered so that the lowest start is the greatest.
struct Head<'a>(&'a [Range<u64>]);

impl Head<'_> {
    fn start(&self) -> u64 {
        self.0.first().map_or(u64::MAX, |range| range.start)
    }
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.start().cmp(&self.start())
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head<'_> {}

impl GapCursor<'_> {
    /// The next gap of at least `size` bytes; the last one ends at `u64::MAX`.
    fn next(&mut self, size: u64) -> Range<u64> {
        while let Some(mut head) = self.heads.peek_mut() {
            if self.steps == 0 {
                break;
            }
            self.steps -= 1;
            let start = head.start();
            if start.saturating_sub(self.offset) >= size && start > self.offset {
                let gap = self.offset..start;
                self.offset = start;
                return gap;
            }
            self.offset = self.offset.max(head.0[0].end);
            let done = head.0.partition_point(|range| range.end <= self.offset);
            head.0 = &head.0[done..];
            if head.0.is_empty() {
                PeekMut::pop(head);
            }
        }
        let top = self.heads.iter().filter_map(|head| head.0.last()).map(|range| range.end).max();
        self.offset = self.offset.max(top.unwrap_or(0));
        self.offset..u64::MAX
    }
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
