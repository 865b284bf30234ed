//! A bound for every order: what lives while some kernel runs, whatever runs before and after it.
//!
//! A value has to live at a kernel if that kernel, or one that always runs before it, writes the value, and that kernel,
//! or one that always runs after it, reads it. The sum of these values is the least that any order needs at that kernel,
//! and the largest such sum is a bound for all of them.

use super::super::flow::{Flow, Kernel};

/// Kernels above which only what each needs by itself is counted: the sets below grow with the square.
const LARGEST: usize = 4096;

/// Bytes that are live at once in every order of the kernels. `before` is what [`Flow::dependencies`] found for `base`.
pub fn bound(flow: &Flow, base: &[usize], before: &[Vec<usize>]) -> u64 {
    if flow.kernels.len() > LARGEST {
        return flow.kernels.iter().map(|kernel| alone(flow, kernel)).max().unwrap_or(0);
    }
    let always = Always::new(base, before);
    let mut readers = vec![Vec::new(); flow.sizes.len()];
    for (number, kernel) in flow.kernels.iter().enumerate() {
        kernel.reads.iter().for_each(|&v| readers[v].push(number));
    }
    let mut live: Vec<u64> = flow.kernels.iter().map(|kernel| kernel.workspace).collect();
    for (number, kernel) in flow.kernels.iter().enumerate() {
        for &value in &kernel.writes {
            let size = flow.sizes[value];
            let mut lives = always.after(number);
            if !flow.kept[value] {
                lives.intersect(&always.until(&readers[value]));
            }
            lives.each(|other| live[other] += size);
            if !replaces(flow, kernel, value, |read| lasts(flow, &always, &readers, read, number)) {
                live[number] += size;
            }
        }
    }
    live.into_iter().max().unwrap_or(0)
}

/// Whether `value` of a kernel may take the bytes of something that the kernel reads and that need not last.
fn replaces(flow: &Flow, kernel: &Kernel, value: usize, lasts: impl Fn(usize) -> bool) -> bool {
    let pair =
        |&(read, result): &(usize, usize)| result == value && flow.sizes[read] == flow.sizes[value] && !lasts(read);
    kernel.in_place.iter().any(pair)
}

/// Whether something needs `value` after `kernel` has run, in every order.
fn lasts(flow: &Flow, always: &Always, readers: &[Vec<usize>], value: usize, kernel: usize) -> bool {
    flow.kept[value] || readers[value].iter().any(|&reader| always.after[kernel].has(reader))
}

/// Bytes that a kernel reads and writes.
fn alone(flow: &Flow, kernel: &Kernel) -> u64 {
    let writes = kernel.writes.iter().filter(|&&v| !replaces(flow, kernel, v, |_| false));
    kernel.reads.iter().chain(writes).map(|&v| flow.sizes[v]).sum::<u64>() + kernel.workspace
}

/// For each kernel those that run after it, and before it, in every order.
struct Always {
    after: Vec<Set>,
    before: Vec<Set>,
}

impl Always {
    fn new(base: &[usize], before: &[Vec<usize>]) -> Always {
        let mut always = Always { after: Vec::new(), before: vec![Set::empty(base.len()); base.len()] };
        always.after.clone_from(&always.before);
        for &kernel in base {
            let mut all = Set::empty(base.len());
            for &other in &before[kernel] {
                all.insert(other);
                all.unite(&always.before[other]);
            }
            always.before[kernel] = all;
        }
        for &kernel in base.iter().rev() {
            let mut all = std::mem::take(&mut always.after[kernel]);
            for &other in &before[kernel] {
                always.after[other].insert(kernel);
                always.after[other].unite(&all);
            }
            std::mem::swap(&mut always.after[kernel], &mut all);
        }
        always
    }

    fn after(&self, kernel: usize) -> Set {
        self.after[kernel].clone()
    }

    /// The kernels themselves, and what runs before one of them.
    fn until(&self, kernels: &[usize]) -> Set {
        let mut all = Set::empty(self.before.len());
        for &kernel in kernels {
            all.insert(kernel);
            all.unite(&self.before[kernel]);
        }
        all
    }
}

/// Numbers of kernels, a bit each.
#[derive(Clone, Default)]
struct Set(Vec<u64>);

impl Set {
    fn empty(count: usize) -> Set {
        Set(vec![0; count.div_ceil(64)])
    }

    fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    fn has(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }

    fn unite(&mut self, other: &Set) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }

    fn intersect(&mut self, other: &Set) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine &= theirs);
    }

    fn each(&self, mut visit: impl FnMut(usize)) {
        for (place, &word) in self.0.iter().enumerate() {
            let mut rest = word;
            while rest != 0 {
                visit(64 * place + rest.trailing_zeros() as usize);
                rest &= rest - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::programs::Random;
    use super::*;

    fn kernel(reads: &[usize], writes: &[usize]) -> Kernel {
        Kernel { reads: reads.to_vec(), writes: writes.to_vec(), ..Kernel::default() }
    }

    fn bound_of(flow: &Flow) -> u64 {
        let base: Vec<usize> = (0..flow.kernels.len()).collect();
        bound(flow, &base, &flow.dependencies(&base))
    }

    /// `a` has to wait for the backward pass while the middle of the chain runs, though none of its kernels touches it.
    #[test]
    fn what_waits_in_every_order_counts() {
        let chain =
            vec![kernel(&[], &[0]), kernel(&[0], &[1]), kernel(&[1], &[2]), kernel(&[2], &[3]), kernel(&[0, 3], &[])];
        let flow = Flow { sizes: vec![1000, 10, 20, 5], kept: vec![false; 4], kernels: chain };
        assert_eq!(bound_of(&flow), 1000 + 10 + 20);
        // What is kept stays for everything behind its kernel.
        let flow = Flow { kept: vec![false, true, false, false], ..flow };
        assert_eq!(bound_of(&flow), 1000 + 10 + 20 + 5);
    }

    /// Two results that nobody orders need not be there together.
    #[test]
    fn what_can_be_avoided_does_not_count() {
        let kernels = vec![kernel(&[], &[0]), kernel(&[], &[1]), kernel(&[0], &[]), kernel(&[1], &[])];
        let flow = Flow { sizes: vec![64, 128], kept: vec![false; 2], kernels };
        assert_eq!(bound_of(&flow), 128);
    }

    /// Peaks of all orders.
    fn all_peaks(flow: &Flow, before: &[Vec<usize>], order: &mut Vec<usize>, peaks: &mut Vec<u64>) {
        if order.len() == flow.kernels.len() {
            peaks.push(flow.peak(order));
        }
        for next in 0..flow.kernels.len() {
            if !order.contains(&next) && before[next].iter().all(|other| order.contains(other)) {
                order.push(next);
                all_peaks(flow, before, order, peaks);
                order.pop();
            }
        }
    }

    /// Of small programs every order is tried: none is below the bound, and many reach it.
    #[test]
    fn no_order_is_below_the_bound() {
        let mut random = Random::new(5);
        let (mut reached, mut widest) = (0, 0);
        for _ in 0..400 {
            let flow = random_flow(&mut random, 6);
            let base: Vec<usize> = (0..6).collect();
            let before = flow.dependencies(&base);
            let mut all = Vec::new();
            all_peaks(&flow, &before, &mut Vec::new(), &mut all);
            let (least, bound) = (all.into_iter().min(), bound(&flow, &base, &before));
            assert!(Some(bound) <= least, "{bound} {least:?} {flow:?}");
            reached += usize::from(Some(bound) == least);
            widest += usize::from(flow.kernels.iter().map(|k| alone(&flow, k)).max() == least);
        }
        assert!(reached > 300 && widest < reached, "{reached} bounds are reached, {widest} by one kernel alone");
    }

    /// Kernels that read up to two earlier values; some overwrite one in place, some keep theirs.
    fn random_flow(random: &mut Random, count: usize) -> Flow {
        let sizes: Vec<u64> = (0..count).map(|_| 64 * (1 + random.below(4)) as u64).collect();
        let kernels = (0..count).map(|i| {
            let mut reads: Vec<usize> = (0..random.below(3)).filter(|_| i > 0).map(|_| random.below(i)).collect();
            reads.sort_unstable();
            reads.dedup();
            let in_place = reads.first().filter(|_| random.below(2) == 0).map(|&read| (read, i)).into_iter().collect();
            Kernel { in_place, workspace: 64 * random.below(2) as u64, ..kernel(&reads, &[i]) }
        });
        let kernels = kernels.collect();
        Flow { kernels, kept: (0..count).map(|_| random.below(8) == 0).collect(), sizes }
    }

    #[test]
    fn a_result_may_take_the_place_of_what_dies() {
        let in_place = Kernel { in_place: vec![(0, 1)], ..kernel(&[0], &[1]) };
        let mut flow = Flow {
            sizes: vec![64, 64],
            kept: vec![false; 2],
            kernels: vec![kernel(&[], &[0]), in_place, kernel(&[1], &[])],
        };
        assert_eq!(bound_of(&flow), 64);
        flow.kernels[2].reads = vec![0, 1];
        assert_eq!(bound_of(&flow), 128);
    }
}
