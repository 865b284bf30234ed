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
//! - *Section inference.* In each time slot the storages still to come are stacked by their lowest possible offset; if
//!   that alone exceeds the capacity, the branch is dead. MiniMalloc adds the sum of sizes to the lowest offset; stacking
//!   is the stronger test, and one pass over the storages in the order that the node sorts them into anyway.
//! - *Decomposition.* Where no storage still to come crosses from one slot to the next, the two sides are independent.
//!
//! Orders of preference differ wildly in luck, so many are tried, each under a node limit.

use std::cmp::Reverse;

use super::{Placement, SlotStorage};

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
    if storages.len() > LARGEST {
        return outcome;
    }
    // A canonical offset is a sum of sizes, so that peaks lie on a grid as coarse as the sizes allow.
    let grid = storages.iter().map(|s| s.size).fold(0, greatest_common_divisor).max(1);
    let (mut peak, mut hopeful, mut left) = (peak, enough, nodes);
    let mut target = enough;
    while left > 0 && hopeful < peak {
        let mut allowance = left - left / 4;
        left -= allowance;
        let verdict = fits(storages, target, &mut allowance);
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

/// Storages above which the search is left out: it recurses once per storage, and a node's cost grows with them.
const LARGEST: usize = 1500;

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
fn fits(storages: &[SlotStorage], capacity: u64, nodes: &mut u64) -> Verdict {
    let neighbours = neighbours(storages);
    let plain = preferences(storages);
    let mut streams = STREAMS.map(|shuffle| Stream { shuffle, used: 0, attempts: 0 });
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    while *nodes > 0 {
        let Some(stream) = streams.iter_mut().min_by_key(|stream| stream.used) else { break };
        let attempt = stream.attempts;
        stream.attempts += 1;
        let base = &plain[attempt as usize % plain.len()];
        let round = attempt / plain.len() as u64;
        let (limit, preference) = match stream.shuffle {
            None => (FIRST_LIMIT << round.min(40), base.clone()),
            Some(share) => (FIRST_LIMIT << (round + 1).trailing_zeros(), random.shuffled(base, share)),
        };
        let allowed = limit.min(*nodes);
        let search = Search::new(storages, &neighbours, &preference);
        let mut search = Search { capacity, nodes: allowed, ..search };
        let all = (0..storages.len()).filter(|&i| storages[i].size > 0).collect();
        let end = search.component(all, Rank { offset: 0, place: 0 });
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

/// Nodes of a first attempt.
const FIRST_LIMIT: u64 = 2000;

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
    /// A preference in which nobody has moved by more than one `share`th of all.
    fn shuffled(&mut self, base: &[u32], share: u64) -> Vec<u32> {
        let reach = (base.len() as u64 / share).max(1);
        let keys: Vec<u64> = base.iter().map(|&place| u64::from(place) + self.next() % reach).collect();
        let mut order: Vec<usize> = (0..base.len()).collect();
        order.sort_by_key(|&i| (keys[i], base[i]));
        positions(&order)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// For each preference the place of every storage in it. `contention` is the fullest slot a storage lives in; each
/// order is by decreasing value, which puts those first that are hardest to place later.
fn preferences(storages: &[SlotStorage]) -> Vec<Vec<u32>> {
    let live = super::live_bytes_per_slot(storages);
    let contention: Vec<u64> = storages.iter().map(|s| live[s.slots()].iter().copied().max().unwrap_or(0)).collect();
    let duration = |i: usize| u128::from(storages[i].duration);
    let area = |i: usize| storages[i].area();
    let contention = |i: usize| u128::from(contention[i]);
    vec![
        places(storages.len(), |i| [duration(i), area(i), contention(i)]),
        places(storages.len(), |i| [contention(i), area(i), duration(i)]),
        places(storages.len(), |i| [contention(i), duration(i), area(i)]),
    ]
}

fn places(count: usize, key: impl Fn(usize) -> [u128; 3]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&i| Reverse(key(i)));
    positions(&order)
}

/// Position of each storage in an order.
fn positions(order: &[usize]) -> Vec<u32> {
    let mut positions = vec![0; order.len()];
    for (position, &i) in (0..).zip(order) {
        positions[i] = position;
    }
    positions
}

/// How the search of a subtree ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
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

struct Search<'a> {
    storages: &'a [SlotStorage],
    place: &'a [u32],
    capacity: u64,
    nodes: u64,
    /// For each storage those that are live at some time together with it.
    neighbours: &'a [Vec<u32>],
    /// For each storage the one of equal size and live range that has to go before it.
    twin: Vec<Option<usize>>,
    placed: Vec<bool>,
    /// Offset of what is placed; the lowest possible one of what is not.
    offsets: Vec<u64>,
    /// Offsets before they were raised, to be undone.
    trail: Vec<(u32, u64)>,
    /// Scratch of the section inference: stacked bytes per slot.
    stacked: Vec<u64>,
    /// Scratch of the decomposition, per slot.
    reach: Vec<usize>,
}

impl<'a> Search<'a> {
    fn new(storages: &'a [SlotStorage], neighbours: &'a [Vec<u32>], place: &'a [u32]) -> Self {
        let slots = storages.iter().map(|s| s.end).max().unwrap_or(0);
        Self {
            storages,
            place,
            capacity: u64::MAX,
            nodes: u64::MAX,
            neighbours,
            twin: twins(storages, place),
            placed: vec![false; storages.len()],
            offsets: vec![0; storages.len()],
            trail: Vec::new(),
            stacked: vec![0; slots],
            reach: vec![0; slots],
        }
    }

    /// Places all `members`, which no storage still to come outside of them meets, at `low` or later in the sequence.
    fn component(&mut self, members: Vec<usize>, low: Rank) -> End {
        let Some(candidates) = self.candidates(&members, low) else { return End::Dead };
        if candidates.is_empty() {
            return End::Found;
        }
        self.branch(&candidates, low)
    }

    /// The members by rank, or nothing if they cannot all fit above `low`.
    fn candidates(&mut self, members: &[usize], low: Rank) -> Option<Vec<(Rank, usize)>> {
        let rank = |i: usize| Rank { offset: self.offsets[i], place: self.place[i] };
        let mut candidates: Vec<(Rank, usize)> = members.iter().map(|&i| (rank(i), i)).collect();
        // Mostly in order already, which the stable sort takes advantage of.
        candidates.sort();
        self.stack_fits(&candidates, low.offset).then_some(candidates)
    }

    /// Section inference: stacks the candidates, given by rising offset, in every slot they live in.
    fn stack_fits(&mut self, candidates: &[(Rank, usize)], low: u64) -> bool {
        self.stacked.fill(low);
        for &(rank, i) in candidates {
            let s = &self.storages[i];
            let mut highest = 0;
            for top in &mut self.stacked[s.first..s.end] {
                *top = (*top).max(rank.offset) + s.size;
                highest = highest.max(*top);
            }
            if highest > self.capacity {
                return false;
            }
        }
        true
    }

    /// Tries every candidate as the next in the canonical sequence.
    fn branch(&mut self, candidates: &[(Rank, usize)], low: Rank) -> End {
        let lowest_top = candidates.iter().map(|(rank, i)| rank.offset + self.storages[*i].size).min();
        for &(rank, i) in candidates {
            if rank < low || self.twin[i].is_some_and(|twin| !self.placed[twin]) {
                continue;
            }
            if lowest_top.is_some_and(|top| rank.offset >= top) {
                break;
            }
            if self.nodes == 0 {
                return End::Unknown;
            }
            self.nodes -= 1;
            let mark = self.trail.len();
            let end = if self.put(i) { self.rest(candidates, rank) } else { End::Dead };
            if end != End::Dead {
                return end;
            }
            self.take_back(i, mark);
        }
        End::Dead
    }

    /// Places storage `i` at its lowest offset; false if somebody no longer fits above it.
    fn put(&mut self, i: usize) -> bool {
        let top = self.offsets[i] + self.storages[i].size;
        self.placed[i] = true;
        for &neighbour in &self.neighbours[i] {
            let n = neighbour as usize;
            if !self.placed[n] && self.offsets[n] < top {
                self.trail.push((neighbour, self.offsets[n]));
                self.offsets[n] = top;
                if top + self.storages[n].size > self.capacity {
                    return false;
                }
            }
        }
        true
    }

    fn take_back(&mut self, i: usize, mark: usize) {
        self.placed[i] = false;
        self.take_back_to(mark);
    }

    fn take_back_to(&mut self, mark: usize) {
        while self.trail.len() > mark {
            if let Some((n, offset)) = self.trail.pop() {
                self.offsets[n as usize] = offset;
            }
        }
    }

    /// Places what is left of the candidates, each independent part by itself. When one part is a dead end, what the
    /// others have placed is taken back.
    fn rest(&mut self, candidates: &[(Rank, usize)], low: Rank) -> End {
        let left: Vec<usize> = candidates.iter().map(|&(_, i)| i).filter(|&i| !self.placed[i]).collect();
        let mut parts = Vec::new();
        for members in self.split(left) {
            let Some(part) = self.candidates(&members, low) else { return End::Dead };
            parts.push(part);
        }
        // The part with the least choice first: if it is a dead end, the others need not be looked at.
        parts.sort_by_key(Vec::len);
        let mut done: Vec<usize> = Vec::new();
        let mark = self.trail.len();
        for part in parts {
            match self.branch(&part, low) {
                End::Found => done.extend(part.iter().map(|&(_, i)| i)),
                End::Dead => {
                    for i in done {
                        self.placed[i] = false;
                    }
                    self.take_back_to(mark);
                    return End::Dead;
                }
                End::Unknown => return End::Unknown,
            }
        }
        End::Found
    }

    /// Parts of `members` between which nobody crosses in time, each in the order given.
    fn split(&mut self, members: Vec<usize>) -> Vec<Vec<usize>> {
        // From a slot to the last one that somebody living in it reaches.
        self.reach.fill(0);
        for &i in &members {
            let s = &self.storages[i];
            self.reach[s.first] = self.reach[s.first].max(s.end);
        }
        let (mut parts, mut end) = (0, 0);
        for (slot, reach) in self.reach.iter_mut().enumerate().filter(|(_, reach)| **reach > 0) {
            if slot >= end {
                parts += 1;
            }
            end = end.max(*reach);
            *reach = parts;
        }
        if parts < 2 {
            return if members.is_empty() { Vec::new() } else { vec![members] };
        }
        let mut split = vec![Vec::new(); parts];
        for i in members {
            split[self.reach[self.storages[i].first] - 1].push(i);
        }
        split
    }
}

/// For each storage of some size those that are live at some time together with it.
fn neighbours(storages: &[SlotStorage]) -> Vec<Vec<u32>> {
    let mut by_start: Vec<usize> = (0..storages.len()).filter(|&i| storages[i].size > 0).collect();
    by_start.sort_by_key(|&i| storages[i].first);
    let mut neighbours = vec![Vec::new(); storages.len()];
    let mut live: Vec<usize> = Vec::new();
    for i in by_start {
        live.retain(|&other| storages[other].end > storages[i].first);
        for &other in &live {
            neighbours[i].push(other as u32);
            neighbours[other].push(i as u32);
        }
        live.push(i);
    }
    neighbours
}

/// For each storage the one of equal size and live range just before it in the preference.
fn twins(storages: &[SlotStorage], place: &[u32]) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..storages.len()).collect();
    let kind = |i: usize| (storages[i].first, storages[i].end, storages[i].size);
    order.sort_by_key(|&i| (kind(i), place[i]));
    let mut twins = vec![None; storages.len()];
    for pair in order.windows(2) {
        if kind(pair[0]) == kind(pair[1]) {
            twins[pair[1]] = Some(pair[0]);
        }
    }
    twins
}
