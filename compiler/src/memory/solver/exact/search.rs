//! One descent into the tree of canonical plans, with one order of preference and a limit on nodes.

use std::cmp::Reverse;
use std::ops::Range;

use super::super::SlotStorage;

/// What a storage is like, in the orders of preference: large values go first, since they are hard to place later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// Steps for which it lives.
    Duration,
    /// Bytes times steps.
    Area,
    /// Bytes still to be placed in the fullest slot that it lives in; taken anew wherever the problem splits.
    Contention,
}

/// An order of preference among storages that could go to the same offset.
#[derive(Debug, Clone)]
pub(super) struct Preference {
    /// By the first key, equals by the next.
    pub(super) keys: [Key; 3],
    /// Places by which each storage is moved down; empty for the plain order.
    pub(super) delays: Vec<u32>,
}

/// How the search of a subtree ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Found,
    Dead,
    Unknown,
}

/// Position of a placement in the canonical sequence: by offset, then by preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    offset: u64,
    place: u32,
}

/// A storage that could be the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: Rank,
    storage: usize,
}

/// State of the search. Between calls it describes the placements along the current branch.
pub(super) struct Search<'a> {
    storages: &'a [SlotStorage],
    /// For each storage those that are live at some time together with it, the smallest first.
    neighbours: &'a [Vec<u32>],
    preference: &'a Preference,
    capacity: u64,
    /// Nodes that may still be visited.
    pub(super) nodes: u64,
    /// Offset of what is placed; the lowest possible one of what is not.
    pub(super) offsets: Vec<u64>,
    placed: Vec<bool>,
    /// For each storage the one of equal size and live range that has to go before it.
    twin: Vec<Option<usize>>,
    /// Bytes still to be placed per slot.
    remaining: Vec<u64>,
    /// Offsets before they were raised, to be undone.
    trail: Vec<(u32, u64)>,
    /// Storages in the order in which they were placed, to be undone.
    sequence: Vec<usize>,
    /// Scratch of the section inference: stacked bytes per slot.
    stacked: Vec<u64>,
    /// Scratch of the decomposition, per slot.
    reach: Vec<usize>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        storages: &'a [SlotStorage],
        neighbours: &'a [Vec<u32>],
        preference: &'a Preference,
        capacity: u64,
        nodes: u64,
    ) -> Self {
        let remaining = super::super::live_bytes_per_slot(storages);
        let slots = remaining.len();
        Self {
            storages,
            neighbours,
            preference,
            capacity,
            nodes,
            offsets: vec![0; storages.len()],
            placed: vec![false; storages.len()],
            twin: twins(storages),
            remaining,
            trail: Vec::new(),
            sequence: Vec::new(),
            stacked: vec![0; slots],
            reach: vec![0; slots],
        }
    }

    /// Places everything, or finds out that the capacity does not suffice.
    pub(super) fn run(&mut self) -> End {
        if self.remaining.iter().any(|&bytes| bytes > self.capacity) {
            return End::Dead;
        }
        let all = (0..self.storages.len()).filter(|&i| self.storages[i].size > 0).collect();
        let parts = self.split(all);
        self.every(parts, 0)
    }

    /// Places independent parts, all at `floor` or above. When one is a dead end, so is the whole.
    fn every(&mut self, mut parts: Vec<Vec<usize>>, floor: u64) -> End {
        // The part with the least choice first: if it is a dead end, the others need not be looked at.
        parts.sort_by_key(Vec::len);
        let (mark, placed) = (self.trail.len(), self.sequence.len());
        for part in parts {
            let order = self.order(part);
            let low = Rank { offset: floor, place: 0 };
            let candidates = self.candidates(&order, low);
            let end = candidates.map_or(End::Dead, |candidates| self.branch(&candidates, low));
            if end != End::Found {
                self.take_back(mark, placed);
                return end;
            }
        }
        End::Found
    }

    /// The storages in the order of preference, by what is still to be placed.
    fn order(&self, mut members: Vec<usize>) -> Vec<usize> {
        let key = |i: usize| {
            self.preference.keys.map(|key| match key {
                Key::Duration => u128::from(self.storages[i].duration),
                Key::Area => self.storages[i].area(),
                Key::Contention => {
                    let bytes = self.remaining[self.storages[i].slots()].iter().max();
                    bytes.map_or(0, |&bytes| u128::from(bytes))
                }
            })
        };
        members.sort_by_cached_key(|&i| (Reverse(key(i)), i));
        if !self.preference.delays.is_empty() {
            let delayed = (0u32..).zip(&members).map(|(place, &i)| (place + self.preference.delays[i], i));
            let mut delayed: Vec<(u32, usize)> = delayed.collect();
            delayed.sort_by_key(|&(place, _)| place);
            members = delayed.into_iter().map(|(_, i)| i).collect();
        }
        members
    }

    /// The members with their lowest offsets; their place is their index in `order`. Nothing if they cannot all fit.
    fn candidates(&mut self, order: &[usize], low: Rank) -> Option<Vec<Candidate>> {
        self.at_or_after(low, (0..).zip(order.iter().copied()))
    }

    /// Storages, given with their places, by the lowest offset that they can have if nobody is placed before `low` any
    /// more. Nothing if they cannot all fit.
    fn at_or_after(&mut self, low: Rank, storages: impl Iterator<Item = (u32, usize)>) -> Option<Vec<Candidate>> {
        let mut candidates = Vec::new();
        for (place, storage) in storages {
            let mut rank = Rank { offset: self.offsets[storage], place };
            if rank < low {
                rank.offset = self.lifted(storage, low.offset)?;
            }
            candidates.push(Candidate { rank, storage });
        }
        // Mostly in order already, which the stable sort takes advantage of.
        candidates.sort();
        self.stack_fits(&candidates, low).then_some(candidates)
    }

    /// A storage whose turn has passed will lie on one that is still to come. Nothing if there is none.
    fn lifted(&self, storage: usize, floor: u64) -> Option<u64> {
        let mut lowest: Option<u64> = None;
        for &neighbour in &self.neighbours[storage] {
            let n = neighbour as usize;
            let size = self.storages[n].size;
            if lowest.is_some_and(|lowest| floor + size >= lowest) {
                break;
            }
            if !self.placed[n] {
                let top = self.offsets[n].max(floor) + size;
                lowest = Some(lowest.map_or(top, |lowest| lowest.min(top)));
            }
        }
        lowest
    }

    /// Section inference: stacks the candidates, given by rising offset, in every slot they live in.
    fn stack_fits(&mut self, candidates: &[Candidate], low: Rank) -> bool {
        let Some(first) = candidates.iter().map(|c| self.storages[c.storage].first).min() else { return true };
        let end = candidates.iter().map(|c| self.storages[c.storage].end).max().unwrap_or(first);
        self.stacked[first..end].fill(low.offset);
        for c in candidates {
            let s = &self.storages[c.storage];
            let mut highest = 0;
            for top in &mut self.stacked[s.first..s.end] {
                *top = (*top).max(c.rank.offset) + s.size;
                highest = highest.max(*top);
            }
            if highest > self.capacity {
                return false;
            }
        }
        true
    }

    /// Tries every candidate as the next in the canonical sequence.
    fn branch(&mut self, candidates: &[Candidate], low: Rank) -> End {
        let tops = candidates.iter().map(|c| self.offsets[c.storage] + self.storages[c.storage].size);
        let Some(lowest_top) = tops.min() else { return End::Found };
        let highest_offset = self.highest_offset(candidates);
        for &Candidate { rank, storage } in candidates {
            if rank.offset >= lowest_top || rank.offset > highest_offset {
                break;
            }
            let passed = rank < low || self.offsets[storage] != rank.offset;
            if passed || self.twin[storage].is_some_and(|twin| !self.placed[twin]) {
                continue;
            }
            if self.nodes == 0 {
                return End::Unknown;
            }
            self.nodes -= 1;
            let (mark, placed) = (self.trail.len(), self.sequence.len());
            let covered = self.put(storage);
            let end = self.rest(candidates, rank);
            if end == End::Found {
                return end;
            }
            self.take_back(mark, placed);
            // With nobody above it, it cannot be in anybody's way: another one first would change nothing.
            if end == End::Unknown || !covered {
                return end;
            }
        }
        End::Dead
    }

    /// Offset above which nobody can be the next: all that is left in the fullest slot has to fit above it.
    fn highest_offset(&self, candidates: &[Candidate]) -> u64 {
        let fullest = candidates.iter().filter_map(|c| self.remaining[self.storages[c.storage].slots()].iter().max());
        fullest.max().map_or(u64::MAX, |&bytes| self.capacity.saturating_sub(bytes))
    }

    /// Places a storage at its lowest offset; whether somebody will lie above it.
    fn put(&mut self, storage: usize) -> bool {
        let SlotStorage { size, first, end, .. } = self.storages[storage];
        let top = self.offsets[storage] + size;
        self.placed[storage] = true;
        self.sequence.push(storage);
        for bytes in &mut self.remaining[first..end] {
            *bytes -= size;
        }
        let mut covered = false;
        for &neighbour in &self.neighbours[storage] {
            let n = neighbour as usize;
            if !self.placed[n] {
                covered = true;
                if self.offsets[n] < top {
                    self.trail.push((neighbour, self.offsets[n]));
                    self.offsets[n] = top;
                }
            }
        }
        covered
    }

    /// Undoes all placements after the first `placed` ones, and the raising of offsets since `mark`.
    fn take_back(&mut self, mark: usize, placed: usize) {
        for storage in self.sequence.drain(placed..) {
            self.placed[storage] = false;
            let SlotStorage { size, first, end, .. } = self.storages[storage];
            for bytes in &mut self.remaining[first..end] {
                *bytes += size;
            }
        }
        for (n, offset) in self.trail.drain(mark..).rev() {
            self.offsets[n as usize] = offset;
        }
    }

    /// Places what is left of the candidates, each independent part by itself.
    fn rest(&mut self, candidates: &[Candidate], low: Rank) -> End {
        let left = candidates.iter().map(|c| (c.rank.place, c.storage)).filter(|c| !self.placed[c.1]);
        let left: Vec<(u32, usize)> = left.collect();
        let Some(left) = self.at_or_after(low, left.into_iter()) else { return End::Dead };
        let parts = self.split(left.iter().map(|c| c.storage).collect());
        match parts.len() {
            0 => End::Found,
            1 => self.branch(&left, low),
            _ => self.every(parts, low.offset),
        }
    }

    /// Parts of `members` between which nobody crosses in time, each in the order given.
    fn split(&mut self, members: Vec<usize>) -> Vec<Vec<usize>> {
        let Some(span) = self.span(&members) else { return Vec::new() };
        // From a slot to the last one that somebody living in it reaches.
        self.reach[span.clone()].fill(0);
        for &i in &members {
            let s = &self.storages[i];
            self.reach[s.first] = self.reach[s.first].max(s.end);
        }
        let (mut parts, mut end) = (0, 0);
        for slot in span {
            let reach = self.reach[slot];
            if reach > 0 {
                parts += usize::from(slot >= end);
                end = end.max(reach);
                self.reach[slot] = parts;
            }
        }
        if parts < 2 {
            return vec![members];
        }
        let mut split = vec![Vec::new(); parts];
        for i in members {
            split[self.reach[self.storages[i].first] - 1].push(i);
        }
        split
    }

    /// Slots from the first to the last in which a member lives.
    fn span(&self, members: &[usize]) -> Option<Range<usize>> {
        let first = members.iter().map(|&i| self.storages[i].first).min()?;
        let end = members.iter().map(|&i| self.storages[i].end).max()?;
        Some(first..end)
    }
}

/// For each storage the one of equal size and live range just before it.
fn twins(storages: &[SlotStorage]) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..storages.len()).collect();
    let kind = |i: usize| (storages[i].first, storages[i].end, storages[i].size);
    order.sort_by_key(|&i| (kind(i), i));
    let mut twins = vec![None; storages.len()];
    for pair in order.windows(2) {
        if kind(pair[0]) == kind(pair[1]) {
            twins[pair[1]] = Some(pair[0]);
        }
    }
    twins
}
