//! Which examples are held out, and in which order the others come.

use kiln_ir::module::stream;

use crate::philox::Philox;

/// Indices of the examples to train on and of those held out for the test, both ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// To train on.
    pub train: Vec<usize>,
    /// Held out.
    pub test: Vec<usize>,
}

impl Split {
    /// Holds out every example whose index leaves the remainder `fold` by `every`; none if `every` is 0.
    pub fn new(examples: usize, every: usize, fold: usize) -> Split {
        let held_out = |index: &usize| every > 0 && index % every == fold;
        let (test, train) = (0..examples).partition(held_out);
        Split { train, test }
    }
}

/// Order of the training examples in an epoch (counted from 0): a permutation by Fisher and Yates, a function of seed
/// and epoch alone; without `shuffle`, as they are.
pub fn epoch_order(train: &[usize], seed: u64, epoch: u64, shuffle: bool) -> Vec<usize> {
    let mut order = train.to_vec();
    if shuffle {
        let philox = Philox::new(stream("epoch order") ^ seed);
        for i in (1..order.len()).rev() {
            let below = philox.below((epoch << 32) + i as u64, i as u64 + 1);
            order.swap(i, usize::try_from(below).unwrap_or(i));
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fifth_example_is_held_out() {
        let split = Split::new(11, 5, 4);
        assert_eq!(split.test, [4, 9]);
        assert_eq!(split.train, [0, 1, 2, 3, 5, 6, 7, 8, 10]);
        assert_eq!(Split::new(7, 5, 0).test, [0, 5]);
        assert_eq!(Split::new(3, 0, 4), Split { train: vec![0, 1, 2], test: vec![] });
    }

    #[test]
    fn an_order_is_a_permutation_of_its_own_epoch_and_seed() {
        let train: Vec<usize> = (0..100).collect();
        let order = epoch_order(&train, 1, 0, true);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, train);
        assert_eq!(order, epoch_order(&train, 1, 0, true));
        assert_ne!(order, epoch_order(&train, 1, 1, true));
        assert_ne!(order, epoch_order(&train, 2, 0, true));
        assert_eq!(train, epoch_order(&train, 1, 0, false));
    }

    #[test]
    fn every_order_is_equally_likely() {
        // 6 orders of 3 examples over 6000 epochs: 1000 each, with a standard deviation of 29.
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            *counts.entry(epoch_order(&[0, 1, 2], 9, epoch, true)).or_insert(0) += 1;
        }
        assert!(counts.len() == 6 && counts.values().all(|count| (880..1120).contains(count)), "{counts:?}");
    }
}
