//! Memory before there is a plan: kernels that read and write values, as plain numbers. For any order of the kernels it
//! says how many bytes are live when, which is the lower bound of the plan to come.

/// Kernels with what they read and write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flow {
    /// Reserved bytes of each value in the arena.
    pub sizes: Vec<u64>,
    /// Values that stay until the end: they are copied out then.
    pub kept: Vec<bool>,
    /// Kernels, by number.
    pub kernels: Vec<Kernel>,
}

/// One kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Values that it reads, each once.
    pub reads: Vec<usize>,
    /// Values that it writes.
    pub writes: Vec<usize>,
    /// `(read, written)` values that may share their bytes.
    pub in_place: Vec<(usize, usize)>,
    /// Bytes that it needs while it runs.
    pub workspace: u64,
    /// States outside the arena whose old value it reads.
    pub reads_states: Vec<usize>,
    /// States outside the arena that it overwrites: whoever reads them runs before.
    pub writes_states: Vec<usize>,
    /// Values outside the arena that it reads and writes, by numbers of their own.
    pub outside: Outside,
    /// What each of [`Kernel::writes`] needs, where that is known: a second run may make some of them only.
    pub needs: Vec<Needs>,
}

/// What one result of a kernel depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Values, of those that the kernel reads.
    pub reads: Vec<usize>,
    /// States, of those that the kernel reads.
    pub states: Vec<usize>,
}

/// Values that lie in outputs or states: they take no bytes, and still order the kernels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outside {
    /// Those read.
    pub reads: Vec<usize>,
    /// Those written.
    pub writes: Vec<usize>,
}

impl Kernel {
    /// Reads other values, given as `(old, new)`.
    pub(crate) fn rename(&mut self, values: &[(usize, usize)]) {
        let renamed = |v: &mut usize| *v = values.iter().find(|(old, _)| old == v).map_or(*v, |&(_, new)| new);
        self.reads.iter_mut().for_each(renamed);
        self.in_place.iter_mut().for_each(|(read, _)| renamed(read));
        self.needs.iter_mut().flat_map(|needs| &mut needs.reads).for_each(renamed);
    }

    /// What some of its results depend on.
    pub fn needs_of(&self, results: &[usize]) -> Needs {
        if self.needs.is_empty() {
            return Needs { reads: self.reads.clone(), states: self.reads_states.clone() };
        }
        let mut all = Needs::default();
        let wanted = self.writes.iter().zip(&self.needs).filter(|(result, _)| results.contains(result));
        for (_, needs) in wanted {
            all.reads.extend(&needs.reads);
            all.states.extend(&needs.states);
        }
        all.reads.sort_unstable();
        all.reads.dedup();
        all.states.sort_unstable();
        all.states.dedup();
        all
    }
}

impl Flow {
    /// Live bytes while each kernel runs, for kernels in `order`.
    pub fn profile(&self, order: &[usize]) -> Vec<u64> {
        let last = self.last_uses(order);
        let mut taken = vec![false; self.sizes.len()];
        let mut live = 0u64;
        let mut profile = Vec::with_capacity(order.len());
        for (position, &kernel) in order.iter().enumerate() {
            let kernel = &self.kernels[kernel];
            for &written in &kernel.writes {
                let dies =
                    |&&(read, result): &&(usize, usize)| result == written && last[read] == position && !taken[read];
                match kernel.in_place.iter().find(dies) {
                    Some(&(read, _)) if self.sizes[read] == self.sizes[written] => taken[read] = true,
                    _ => live += self.sizes[written],
                }
            }
            profile.push(live + kernel.workspace);
            let dead = |v: usize| if last[v] == position && !taken[v] { self.sizes[v] } else { 0 };
            live -= kernel.reads.iter().chain(&kernel.writes).map(|&v| dead(v)).sum::<u64>();
        }
        profile
    }

    /// Most live bytes for kernels in `order`.
    pub fn peak(&self, order: &[usize]) -> u64 {
        self.profile(order).into_iter().max().unwrap_or(0)
    }

    /// Position of the last kernel of `order` that touches each value; past the end for those kept.
    pub fn last_uses(&self, order: &[usize]) -> Vec<usize> {
        let mut last = vec![0; self.sizes.len()];
        for (position, &kernel) in order.iter().enumerate() {
            let kernel = &self.kernels[kernel];
            kernel.reads.iter().chain(&kernel.writes).for_each(|&v| last[v] = position);
        }
        last.iter_mut().zip(&self.kept).filter(|(_, kept)| **kept).for_each(|(last, _)| *last = order.len());
        last
    }

    /// For each kernel those that have to run before it, `base` being an order that works. A state is overwritten after
    /// those that read it before it is overwritten in `base`.
    pub fn dependencies(&self, base: &[usize]) -> Vec<Vec<usize>> {
        let mut before = vec![Vec::new(); self.kernels.len()];
        let mut writer = vec![usize::MAX; self.sizes.len()];
        let outside = self.kernels.iter().flat_map(|k| k.outside.reads.iter().chain(&k.outside.writes));
        let mut writer_outside = vec![usize::MAX; outside.max().map_or(0, |&most| most + 1)];
        let states = self.kernels.iter().flat_map(|k| k.reads_states.iter().chain(&k.writes_states));
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); states.max().map_or(0, |&most| most + 1)];
        for &number in base {
            let kernel = &self.kernels[number];
            let writers = kernel.reads.iter().map(|&v| writer[v]);
            let writers = writers.chain(kernel.outside.reads.iter().map(|&v| writer_outside[v]));
            before[number].extend(writers.filter(|&writer| writer != usize::MAX));
            let overwritten = kernel.writes_states.iter().flat_map(|&state| &readers[state]);
            before[number].extend(overwritten.copied());
            kernel.reads_states.iter().for_each(|&state| readers[state].push(number));
            kernel.writes.iter().for_each(|&v| writer[v] = number);
            kernel.outside.writes.iter().for_each(|&v| writer_outside[v] = number);
        }
        for (number, list) in before.iter_mut().enumerate() {
            list.sort_unstable();
            list.dedup();
            list.retain(|&other| other != number);
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(reads: &[usize], writes: &[usize]) -> Kernel {
        Kernel { reads: reads.to_vec(), writes: writes.to_vec(), ..Kernel::default() }
    }

    /// `a = ..; b = f(a)` in place; `c = g(b)` with scratch; `b` is read once more.
    fn example() -> Flow {
        let in_place = Kernel { in_place: vec![(0, 1)], ..kernel(&[0], &[1]) };
        let scratch = Kernel { workspace: 8, ..kernel(&[1], &[2]) };
        Flow {
            sizes: vec![64, 64, 32],
            kept: vec![false; 3],
            kernels: vec![kernel(&[], &[0]), in_place, scratch, kernel(&[1], &[])],
        }
    }

    #[test]
    fn a_profile_counts_sharing_scratch_and_deaths() {
        // `c` is read by nobody and dies at once.
        assert_eq!(example().profile(&[0, 1, 2, 3]), [64, 64, 64 + 32 + 8, 64]);
        let mut kept = example();
        kept.kept[2] = true;
        assert_eq!(kept.profile(&[0, 1, 2, 3]), [64, 64, 104, 96]);
        // The reader of `a` after `b` keeps both.
        kept.kernels[3].reads = vec![0, 1];
        assert_eq!(kept.profile(&[0, 1, 2, 3]), [64, 128, 168, 160]);
    }

    #[test]
    fn states_are_overwritten_after_their_readers() {
        let mut flow = example();
        flow.kernels[0].reads_states = vec![0];
        flow.kernels[3].writes_states = vec![0];
        assert_eq!(flow.dependencies(&[0, 1, 2, 3]), [vec![], vec![0], vec![1], vec![0, 1]]);
    }
}
