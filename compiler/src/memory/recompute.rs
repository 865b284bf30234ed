//! Fewer bytes for more time: values that wait long for their next reader are computed again just before it.
//!
//! Greedy, after the manner of XLA's rematerialization and of Kumar et al., "Efficient Rematerialization for Deep
//! Networks" (NeurIPS 2019): while the peak is above the budget, of all kernels whose results merely wait while it is
//! reached, that one runs a second time which takes most bytes off what exceeds the budget, per unit of time. What the
//! second run needs and is gone is computed again too, so that whole segments are repeated where that wins. In the end
//! the second runs that later ones have made needless are left out again.

use std::cmp::Reverse;

use super::flow::{Flow, Kernel};

/// A program within a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recomputed {
    /// The kernels; those after the first ones are second runs.
    pub flow: Flow,
    /// The order in which they run.
    pub order: Vec<usize>,
    /// For each kernel the one of the original program that it is, or repeats.
    pub kernel_of: Vec<usize>,
    /// For each value the one of the original program that it is, or repeats.
    pub value_of: Vec<usize>,
    /// Most live bytes.
    pub peak: u64,
}

/// Rounds of the search, each of which repeats one kernel and what that needs.
const ROUNDS: usize = 2_000;

/// Kernels of one repeated segment at most.
const LONGEST: usize = 64;

/// A result this many times smaller than what is freed is kept instead of computed again.
const SMALL: u64 = 64;

/// Repeats kernels of `flow`, which run in `order` and take `times`, until no more than `budget` bytes are live. If that
/// cannot be reached, the peak of what is returned is the lowest found.
pub fn within(flow: &Flow, order: &[usize], times: &[u64], budget: u64) -> Recomputed {
    let mut at = State::new(flow, order);
    for _ in 0..ROUNDS {
        let profile = at.flow.profile(&at.order);
        let excess = excess(&profile, budget);
        if excess == 0 {
            break;
        }
        let Some(next) = at.best_move(&profile, excess, times, budget) else { break };
        at = next;
    }
    at.leave_out(flow.kernels.len(), times, budget);
    let peak = at.flow.peak(&at.order);
    Recomputed { flow: at.flow, order: at.order, kernel_of: at.kernel_of, value_of: at.value_of, peak }
}

/// Bytes above the budget, summed over time: a measure that falls long before the peak does.
fn excess(profile: &[u64], budget: u64) -> u64 {
    profile.iter().map(|bytes| bytes.saturating_sub(budget)).sum()
}

#[derive(Clone)]
struct State {
    flow: Flow,
    order: Vec<usize>,
    kernel_of: Vec<usize>,
    value_of: Vec<usize>,
    /// Kernel that makes each value.
    maker: Vec<usize>,
}

/// Where each kernel runs and each value is used, for one order.
struct Places {
    place: Vec<usize>,
    /// Positions of the kernels that read each value, rising.
    readers: Vec<Vec<usize>>,
    last: Vec<usize>,
    /// Position after which the old value of a state is gone.
    overwritten: Vec<usize>,
}

impl State {
    fn new(flow: &Flow, order: &[usize]) -> Self {
        let mut maker = vec![usize::MAX; flow.sizes.len()];
        for (number, kernel) in flow.kernels.iter().enumerate() {
            kernel.writes.iter().for_each(|&v| maker[v] = number);
        }
        Self {
            flow: flow.clone(),
            order: order.to_vec(),
            kernel_of: (0..flow.kernels.len()).collect(),
            value_of: (0..flow.sizes.len()).collect(),
            maker,
        }
    }

    fn places(&self) -> Places {
        let mut place = vec![0; self.flow.kernels.len()];
        let mut readers = vec![Vec::new(); self.flow.sizes.len()];
        let states = self.flow.kernels.iter().flat_map(|k| k.reads_states.iter().chain(&k.writes_states));
        let mut overwritten = vec![usize::MAX; states.max().map_or(0, |&most| most + 1)];
        for (position, &number) in self.order.iter().enumerate() {
            place[number] = position;
            let kernel = &self.flow.kernels[number];
            kernel.reads.iter().for_each(|&v| readers[v].push(position));
            kernel.writes_states.iter().for_each(|&state| overwritten[state] = position);
        }
        Places { place, readers, last: self.flow.last_uses(&self.order), overwritten }
    }

    /// The program with one more kernel repeated: most excess taken away per unit of time.
    fn best_move(&self, profile: &[u64], excess_now: u64, times: &[u64], budget: u64) -> Option<State> {
        let places = self.places();
        let peak = profile.iter().copied().max()?;
        let step = profile.iter().position(|&bytes| bytes == peak)?;
        let mut best: Option<(u128, State)> = None;
        for number in 0..self.flow.kernels.len() {
            let waiting = self.waiting(number, step, &places);
            if waiting.is_empty() {
                continue;
            }
            let Some((next, time)) = self.repeated(number, &waiting, step, &places, times) else { continue };
            let excess = excess(&next.flow.profile(&next.order), budget);
            if excess >= excess_now {
                continue;
            }
            // Fixed point, so that nothing depends on rounding.
            let worth = (u128::from(excess_now - excess) << 40) / u128::from(time.max(1));
            if best.as_ref().is_none_or(|(most, _)| worth > *most) {
                best = Some((worth, next));
            }
        }
        best.map(|(_, next)| next)
    }

    /// Results of a kernel that nobody uses at `step`, with readers before or none, and a reader after.
    fn waiting(&self, number: usize, step: usize, places: &Places) -> Vec<usize> {
        if places.place[number] >= step {
            return Vec::new();
        }
        let waits = |&v: &usize| {
            let used_now = places.readers[v].binary_search(&step).is_ok();
            !self.flow.kept[v] && self.flow.sizes[v] > 0 && !used_now && places.last[v] > step
        };
        self.flow.kernels[number].writes.iter().copied().filter(waits).collect()
    }

    /// The program in which `waiting`, results of `number`, are computed again after `step`, and the time of that.
    fn repeated(
        &self,
        number: usize,
        waiting: &[usize],
        step: usize,
        places: &Places,
        times: &[u64],
    ) -> Option<(State, u64)> {
        let next_use = |v: usize| places.readers[v].iter().copied().find(|&position| position > step);
        let at = waiting.iter().filter_map(|&v| next_use(v)).min()?;
        let freed = waiting.iter().map(|&v| self.flow.sizes[v]).sum();
        let mut segment = Segment { state: self, places, at, freed, wanted: Vec::new() };
        for &value in waiting {
            segment.want(number, value)?;
        }
        let mut wanted = segment.wanted;
        // In the order in which they ran before.
        wanted.sort_by_key(|(kernel, _)| places.place[*kernel]);
        let time = wanted.iter().map(|(kernel, _)| times[self.kernel_of[*kernel]]).sum();
        Some((self.insert(at, wanted), time))
    }

    /// Leaves out second runs, those after the `first` kernels, without which the peak stays within the budget: the
    /// longest first.
    fn leave_out(&mut self, first: usize, times: &[u64], budget: u64) {
        if self.flow.peak(&self.order) > budget {
            return;
        }
        let mut again: Vec<usize> = (first..self.flow.kernels.len()).collect();
        again.sort_by_key(|&number| (Reverse(times[self.kernel_of[number]]), number));
        let mut left_out = Vec::new();
        for number in again {
            let next = self.without(number);
            if next.flow.peak(&next.order) <= budget {
                left_out.push(number);
                *self = next;
            }
        }
        left_out.sort_unstable();
        left_out.into_iter().rev().for_each(|number| self.forget(number));
    }

    /// The program in which a second run is not in the order: who read its results reads those of the run before it.
    fn without(&self, number: usize) -> State {
        let mut next = self.clone();
        let place = self.order.iter().position(|&other| other == number).unwrap_or(self.order.len());
        let before = |value: usize| {
            let earlier = self.order[..place].iter().rev().flat_map(|&kernel| &self.flow.kernels[kernel].writes);
            earlier.copied().find(|&other| self.value_of[other] == self.value_of[value]).unwrap_or(value)
        };
        let replaced: Vec<(usize, usize)> =
            self.flow.kernels[number].writes.iter().map(|&value| (value, before(value))).collect();
        next.flow.kernels.iter_mut().for_each(|kernel| kernel.rename(&replaced));
        next.order.retain(|&other| other != number);
        next
    }

    /// Removes a kernel that is in no order. Its results stay as numbers that nobody uses.
    fn forget(&mut self, number: usize) {
        self.flow.kernels.remove(number);
        self.kernel_of.remove(number);
        self.order.iter_mut().for_each(|other| *other -= usize::from(*other > number));
    }

    /// Inserts second runs, given with the results wanted of them, before position `at`; later readers take theirs.
    fn insert(&self, at: usize, wanted: Vec<(usize, Vec<usize>)>) -> State {
        let mut next = self.clone();
        let mut version: Vec<(usize, usize)> = Vec::new();
        let renamed =
            |version: &[(usize, usize)], v: usize| version.iter().find(|(old, _)| *old == v).map_or(v, |&(_, new)| new);
        let mut clones = Vec::with_capacity(wanted.len());
        for (number, results) in wanted {
            let old = &self.flow.kernels[number];
            let mut fresh = Vec::with_capacity(results.len());
            // In the order of the kernel's results, as its needs are.
            let results: Vec<usize> = old.writes.iter().copied().filter(|v| results.contains(v)).collect();
            for &result in &results {
                next.flow.sizes.push(self.flow.sizes[result]);
                next.flow.kept.push(false);
                next.value_of.push(self.value_of[result]);
                next.maker.push(next.flow.kernels.len());
                fresh.push((result, next.flow.sizes.len() - 1));
            }
            let result_of = |v: usize| fresh.iter().find(|(old, _)| *old == v).map(|&(_, new)| new);
            let in_place = old.in_place.iter();
            let all = old.needs_of(&results);
            let needs = old.writes.iter().zip(&old.needs).filter(|(result, _)| results.contains(result));
            let renamed_needs = needs.map(|(_, needs)| super::flow::Needs {
                reads: needs.reads.iter().map(|&v| renamed(&version, v)).collect(),
                states: needs.states.clone(),
            });
            let kernel = Kernel {
                needs: renamed_needs.collect(),
                reads: all.reads.iter().map(|&v| renamed(&version, v)).collect(),
                writes: fresh.iter().map(|&(_, new)| new).collect(),
                in_place: in_place
                    .filter_map(|&(read, result)| Some((renamed(&version, read), result_of(result)?)))
                    .collect(),
                workspace: old.workspace,
                reads_states: all.states,
                writes_states: Vec::new(),
                outside: super::flow::Outside { reads: old.outside.reads.clone(), writes: Vec::new() },
            };
            version.extend(fresh);
            clones.push(next.flow.kernels.len());
            next.flow.kernels.push(kernel);
            next.kernel_of.push(self.kernel_of[number]);
        }
        for &reader in &self.order[at..] {
            next.flow.kernels[reader].rename(&version);
        }
        next.order.splice(at..at, clones);
        next
    }
}

/// Kernels that run again, in order, with the results wanted of each.
struct Segment<'a> {
    state: &'a State,
    places: &'a Places,
    /// Position before which they run.
    at: usize,
    /// Bytes that are to be saved.
    freed: u64,
    wanted: Vec<(usize, Vec<usize>)>,
}

impl Segment<'_> {
    /// Adds a result of a kernel, and whatever that needs and is gone. Nothing if it cannot run any more.
    fn want(&mut self, number: usize, value: usize) -> Option<()> {
        match self.wanted.iter().position(|(other, _)| *other == number) {
            Some(at) if self.wanted[at].1.contains(&value) => return Some(()),
            Some(at) => self.wanted[at].1.push(value),
            None if self.wanted.len() >= LONGEST => return None,
            None => self.wanted.push((number, vec![value])),
        }
        let needs = self.state.flow.kernels[number].needs_of(&[value]);
        if needs.states.iter().any(|&state| self.places.overwritten[state] < self.at) {
            return None;
        }
        for read in needs.reads {
            let alive = self.places.last[read] >= self.at;
            let small = self.state.flow.sizes[read] <= self.freed / SMALL;
            if !alive && !small {
                self.want(self.state.maker[read], read)?;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain of `n` kernels forward and as many backward, each of which reads the result of its twin.
    fn chain(n: usize) -> (Flow, Vec<usize>) {
        let forward = (0..n).map(|i| Kernel {
            reads: (i > 0).then(|| i - 1).into_iter().collect(),
            writes: vec![i],
            ..Kernel::default()
        });
        let backward = (0..n).map(|i| {
            let saved = n - 1 - i;
            Kernel {
                reads: if i == 0 { vec![saved] } else { vec![saved, n + i - 1] },
                writes: vec![n + i],
                ..Kernel::default()
            }
        });
        let kernels: Vec<Kernel> = forward.chain(backward).collect();
        let order = (0..2 * n).collect();
        (Flow { sizes: vec![64; 2 * n], kept: vec![false; 2 * n], kernels }, order)
    }

    #[test]
    fn a_chain_needs_about_the_square_root() {
        let (flow, order) = chain(64);
        assert_eq!(flow.peak(&order), 65 * 64);
        let times = vec![1; order.len()];
        // Chen et al. (2016): about 2 sqrt(64) values at once, for one more forward run.
        let found = within(&flow, &order, &times, 20 * 64);
        assert!(found.peak <= 20 * 64, "{}", found.peak);
        let repeated = found.order.len() - order.len();
        assert!(repeated <= 2 * 64, "{repeated} kernels are repeated");
    }

    /// `a` and `b` wait while `d` is made of `c`. `a` is quick to make again, and goes first; then `b`, which is slow, and
    /// without which the peak is far below the budget.
    #[test]
    fn what_later_runs_make_needless_is_left_out() {
        let kernel = |reads: &[usize], writes: &[usize]| Kernel {
            reads: reads.to_vec(),
            writes: writes.to_vec(),
            ..Kernel::default()
        };
        let kernels = vec![
            kernel(&[], &[0]),
            kernel(&[], &[1]),
            kernel(&[0, 1], &[2]),
            kernel(&[2], &[3]),
            kernel(&[0, 3], &[4]),
            kernel(&[1, 4], &[]),
        ];
        let flow = Flow { sizes: vec![64, 640, 64, 640, 64], kept: vec![false; 5], kernels };
        let order: Vec<usize> = (0..6).collect();
        let found = within(&flow, &order, &[1, 100, 1, 1, 1, 1], 832);
        assert_eq!(found.kernel_of[6..], [1]);
        assert_eq!(found.peak, 768);
    }

    #[test]
    fn nothing_is_repeated_within_the_budget() {
        let (flow, order) = chain(8);
        let found = within(&flow, &order, &[1; 16], 9 * 64);
        assert_eq!((found.order, found.peak), (order, 9 * 64));
    }

    #[test]
    fn an_impossible_budget_gives_the_least_found() {
        let (flow, order) = chain(8);
        let found = within(&flow, &order, &[1; 16], 64);
        assert!(found.peak > 64 && found.peak < 9 * 64, "{}", found.peak);
    }

    #[test]
    fn a_state_that_is_overwritten_is_not_read_again() {
        let (mut flow, order) = chain(4);
        for i in 0..4 {
            flow.kernels[i].reads_states = vec![0];
        }
        flow.kernels[3].writes_states = vec![0];
        assert_eq!(within(&flow, &order, &[1; 8], 64).order, order);
    }
}
