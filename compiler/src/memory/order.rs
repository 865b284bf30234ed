//! An order of kernels with a low peak: list scheduling, then local search, up to a bound for all orders.
//!
//! The order given is changed only for one with a strictly lower peak. Everything is decided by the content of the
//! problem and by the order given, so that the same program always runs in the same order; the effort is a fixed number of
//! evaluations, each linear in the number of kernels.

mod bound;

use std::cmp::Reverse;

use super::flow::Flow;

pub use bound::bound;

/// Evaluations of the local search. Each takes 3 microseconds in a training step of 120 kernels.
const EVALUATIONS: usize = 256;

/// What the search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// All kernels.
    pub order: Vec<usize>,
    /// Bytes that no order can do without.
    pub bound: u64,
}

/// An order of all kernels with a peak as low as was found; `base` has to be one that works.
pub fn improve(flow: &Flow, base: &[usize]) -> Found {
    let before = flow.dependencies(base);
    let bound = bound(flow, base, &before);
    let mut best = Scored::new(flow, base.to_vec());
    for rule in [Rule::FreeEarly, Rule::LeastGrowth] {
        if best.peak() <= bound {
            return Found { order: best.order, bound };
        }
        let found = Scored::new(flow, list_schedule(flow, base, &before, rule));
        if found.score < best.score && found.peak() < best.peak() {
            best = found;
        }
    }
    Found { order: local_search(flow, &before, best, bound), bound }
}

/// An order and what it needs: its peak, and at how many kernels that is reached.
struct Scored {
    order: Vec<usize>,
    profile: Vec<u64>,
    score: (u64, usize),
}

impl Scored {
    fn new(flow: &Flow, order: Vec<usize>) -> Self {
        let profile = flow.profile(&order);
        let peak = profile.iter().copied().max().unwrap_or(0);
        let score = (peak, profile.iter().filter(|&&bytes| bytes == peak).count());
        Self { order, profile, score }
    }

    fn peak(&self) -> u64 {
        self.score.0
    }
}

/// Which of the kernels that may run comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The next in program order, unless one leaves no more bytes live than there are: then that one.
    FreeEarly,
    /// The one after which the fewest bytes are live.
    LeastGrowth,
}

fn list_schedule(flow: &Flow, base: &[usize], before: &[Vec<usize>], rule: Rule) -> Vec<usize> {
    let mut place = vec![0; flow.kernels.len()];
    base.iter().enumerate().for_each(|(position, &kernel)| place[kernel] = position);
    let mut waiting: Vec<usize> = before.iter().map(Vec::len).collect();
    let mut after = vec![Vec::new(); flow.kernels.len()];
    for (kernel, list) in before.iter().enumerate() {
        list.iter().for_each(|&other| after[other].push(kernel));
    }
    let mut uses = vec![0usize; flow.sizes.len()];
    flow.kernels.iter().flat_map(|k| &k.reads).for_each(|&v| uses[v] += 1);
    let growth = |kernel: usize, uses: &[usize]| {
        let kernel = &flow.kernels[kernel];
        let made: u64 = kernel.writes.iter().filter(|&&v| uses[v] > 0 || flow.kept[v]).map(|&v| flow.sizes[v]).sum();
        let freed = kernel.reads.iter().filter(|&&v| uses[v] == 1 && !flow.kept[v]);
        // Totals are below i64::MAX: `Problem` has seen to it.
        made.cast_signed() - freed.map(|&v| flow.sizes[v]).sum::<u64>().cast_signed()
    };
    let mut ready: Vec<usize> = base.iter().copied().filter(|&kernel| waiting[kernel] == 0).collect();
    let mut order = Vec::with_capacity(base.len());
    while !ready.is_empty() {
        let key = |&kernel: &usize| {
            let growth = growth(kernel, &uses);
            (if rule == Rule::LeastGrowth || growth <= 0 { growth } else { i64::MAX }, place[kernel])
        };
        let Some(at) = (0..ready.len()).min_by_key(|&at| key(&ready[at])) else { break };
        let next = ready.swap_remove(at);
        order.push(next);
        flow.kernels[next].reads.iter().for_each(|&v| uses[v] -= 1);
        for &user in &after[next] {
            waiting[user] -= 1;
            if waiting[user] == 0 {
                ready.push(user);
            }
        }
    }
    order
}

/// Moves kernels across the peak, as long as that makes it lower or rarer.
fn local_search(flow: &Flow, before: &[Vec<usize>], mut best: Scored, bound: u64) -> Vec<usize> {
    let mut left = EVALUATIONS;
    let mut improved = true;
    while improved && best.peak() > bound {
        improved = false;
        for step in moves(flow, before, &best) {
            if left == 0 {
                return best.order;
            }
            left -= 1;
            let found = Scored::new(flow, step.applied(&best.order));
            if found.score < best.score {
                best = found;
                improved = true;
                break;
            }
        }
    }
    best.order
}

/// A change of an order that keeps all dependencies.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Move {
    /// The kernel at a position goes to another one.
    One { from: usize, to: usize },
    /// Kernels, and with them all that need them, go to the end.
    Last(Vec<usize>),
}

impl Move {
    fn applied(&self, order: &[usize]) -> Vec<usize> {
        let mut order = order.to_vec();
        match self {
            Move::One { from, to } => {
                let kernel = order.remove(*from);
                order.insert(*to, kernel);
            }
            Move::Last(kernels) => order.sort_by_key(|kernel| kernels.contains(kernel)),
        }
        order
    }
}

/// Kernels that go to the end together at most: the gradient of a weight, its sum with what decays, and its update are a
/// few.
const TAIL: usize = 8;

/// A kernel with all that need it, if they are few.
fn tail(kernel: usize, after: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut tail = vec![kernel];
    let mut at = 0;
    while let Some(&next) = tail.get(at) {
        let new: Vec<usize> = after[next].iter().copied().filter(|user| !tail.contains(user)).collect();
        tail.extend(new);
        if tail.len() > TAIL {
            return None;
        }
        at += 1;
    }
    Some(tail)
}

/// Moves that may lower the first peak, those of most bytes first.
fn moves(flow: &Flow, before: &[Vec<usize>], scored: &Scored) -> Vec<Move> {
    let order = &scored.order;
    let Some(peak) = scored.profile.iter().position(|&bytes| bytes == scored.peak()) else { return Vec::new() };
    let mut place = vec![0; flow.kernels.len()];
    order.iter().enumerate().for_each(|(position, &kernel)| place[kernel] = position);
    let last = flow.last_uses(order);
    let mut moves: Vec<(Reverse<u64>, Move)> = Vec::new();
    let mut made = vec![usize::MAX; flow.sizes.len()];
    for (position, &number) in order.iter().enumerate() {
        let kernel = &flow.kernels[number];
        kernel.writes.iter().for_each(|&v| made[v] = position);
        if position > peak {
            // The last reader of something that lives through the peak, moved before it.
            let freed = kernel.reads.iter().filter(|&&v| last[v] == position && made[v] < peak);
            let bytes: u64 = freed.map(|&v| flow.sizes[v]).sum();
            let earliest = before[number].iter().map(|&other| place[other] + 1).max().unwrap_or(0);
            if bytes > 0 && earliest <= peak {
                moves.push((Reverse(bytes), Move::One { from: position, to: earliest }));
            }
        }
    }
    let mut after = vec![Vec::new(); flow.kernels.len()];
    for (kernel, list) in before.iter().enumerate() {
        list.iter().for_each(|&other| after[other].push(kernel));
    }
    for (position, &number) in order.iter().enumerate().take(peak + 1) {
        let bytes: u64 = flow.kernels[number].writes.iter().map(|&v| flow.sizes[v]).sum();
        let first_user = after[number].iter().map(|&user| place[user]).min().unwrap_or(order.len());
        if bytes > 0 && first_user > peak + 1 {
            // What is not needed before the peak, made after it.
            moves.push((Reverse(bytes), Move::One { from: position, to: first_user - 1 }));
        } else if bytes > 0
            && let Some(tail) = tail(number, &after)
        {
            // What only a few need, who are needed by nobody: all of them last.
            moves.push((Reverse(bytes), Move::Last(tail)));
        }
    }
    moves.sort_unstable();
    moves.into_iter().map(|(_, step)| step).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::super::flow::Kernel;
    use super::super::programs::Random;
    use super::*;

    fn kernel(reads: &[usize], writes: &[usize]) -> Kernel {
        Kernel { reads: reads.to_vec(), writes: writes.to_vec(), ..Kernel::default() }
    }

    /// Three large values, each summed up to a small one: all three first, then their sums.
    #[test]
    fn large_values_are_used_up_before_the_next_is_made() {
        let kernels = vec![
            kernel(&[], &[0]),
            kernel(&[], &[1]),
            kernel(&[], &[2]),
            kernel(&[0], &[3]),
            kernel(&[1], &[4]),
            kernel(&[2], &[5]),
            kernel(&[3, 4, 5], &[]),
        ];
        let flow = Flow { sizes: vec![640, 640, 640, 64, 64, 64], kept: vec![false; 6], kernels };
        let base: Vec<usize> = (0..7).collect();
        assert_eq!(flow.peak(&base), 3 * 640 + 64);
        assert_eq!(flow.peak(&improve(&flow, &base).order), 640 + 3 * 64);
    }

    /// The gradient of a weight with its sum and its update, three kernels, while a large value waits for the end of a
    /// chain: no single kernel can be moved so that the peak falls, the three can.
    #[test]
    fn a_gradient_waits_with_its_update() {
        let kernels = vec![
            kernel(&[], &[0]),
            kernel(&[0], &[1]),
            kernel(&[1], &[2]),
            Kernel { in_place: vec![(2, 3)], ..kernel(&[1, 2], &[3]) },
            kernel(&[3], &[]),
            kernel(&[1], &[4]),
            kernel(&[4], &[5]),
            kernel(&[0, 5], &[]),
        ];
        let flow = Flow { sizes: vec![1000, 10, 800, 800, 50, 40], kept: vec![false; 6], kernels };
        let base: Vec<usize> = (0..8).collect();
        let before = flow.dependencies(&base);
        assert_eq!((flow.peak(&base), bound(&flow, &base, &before)), (1810, 1090));
        let order = local_search(&flow, &before, Scored::new(&flow, base), 1090);
        // The chain first, while what the gradient is made of waits too.
        assert_eq!(order, [0, 1, 5, 6, 7, 2, 3, 4]);
        assert_eq!(flow.peak(&order), 1000 + 10 + 50 + 40);
    }

    #[test]
    fn an_order_as_good_as_any_is_left_alone() {
        let flow = Flow {
            sizes: vec![64; 3],
            kept: vec![false; 3],
            kernels: vec![kernel(&[], &[0]), kernel(&[], &[1]), kernel(&[0, 1], &[2])],
        };
        assert_eq!(improve(&flow, &[1, 0, 2]).order, [1, 0, 2]);
    }

    /// Orders are permutations that keep every dependency, never worse than the one given.
    #[test]
    fn random_programs_stay_in_order() {
        let mut random = Random::new(9);
        for _ in 0..300 {
            let count = 3 + random.below(30);
            let kernels = (0..count).map(|i| {
                let mut reads: Vec<usize> = (0..random.below(4)).filter(|_| i > 0).map(|_| random.below(i)).collect();
                reads.sort_unstable();
                reads.dedup();
                let mut kernel = kernel(&reads, &[i]);
                kernel.reads_states = vec![random.below(3)];
                kernel.writes_states = (random.below(8) == 0).then_some(random.below(3)).into_iter().collect();
                kernel
            });
            let flow = Flow {
                kernels: kernels.collect(),
                sizes: (0..count).map(|_| 64 * random.below(20) as u64).collect(),
                kept: (0..count).map(|_| random.below(10) == 0).collect(),
            };
            let base: Vec<usize> = (0..count).collect();
            let Found { order, bound } = improve(&flow, &base);
            assert!((bound..=flow.peak(&base)).contains(&flow.peak(&order)));
            let mut place = vec![usize::MAX; count];
            order.iter().enumerate().for_each(|(position, &kernel)| place[kernel] = position);
            for (kernel, before) in flow.dependencies(&base).iter().enumerate() {
                assert!(before.iter().all(|&other| place[other] < place[kernel]), "{order:?}");
            }
        }
    }
}
