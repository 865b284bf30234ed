//! An order in which the kernels could run, kept valid while groups merge.
//!
//! A merger makes a cycle if a third group has to run between the two, and such a group lies between them in every order.
//! So only those are searched. Source: Pearce and Kelly, "A dynamic topological sort algorithm for directed acyclic
//! graphs", 2006.

/// Groups that a search looks at, at most: keeps a graph of one long chain linear.
const MOST_VISITED: usize = 256;

/// Places of groups, of which each is behind all that it waits for.
#[derive(Debug)]
pub(super) struct Order {
    place: Vec<usize>,
    /// Group at each place, if it has not become part of another.
    at: Vec<Option<usize>>,
    /// Search in which each group was seen last.
    seen: Vec<usize>,
    searches: usize,
}

impl Order {
    /// Groups in the order of their numbers.
    pub(super) fn new(groups: usize) -> Order {
        Order { place: (0..groups).collect(), at: (0..groups).map(Some).collect(), seen: vec![0; groups], searches: 0 }
    }

    /// Groups behind `from` that `to` waits for, or nothing if one of them waits for `from`, or there are too many to
    /// tell. `needs` gives the groups that a group reads.
    pub(super) fn between(
        &mut self,
        from: usize,
        to: usize,
        mut needs: impl FnMut(usize, &mut dyn FnMut(usize)),
    ) -> Option<Vec<usize>> {
        self.searches += 1;
        let Order { place, seen, searches, .. } = self;
        let first = place[from];
        let mut found = Vec::new();
        // What `to` itself reads of `from` is inside the union.
        seen[to] = *searches;
        let mut waits_for = |group: usize, found: &mut Vec<usize>, direct: bool| {
            let mut cyclic = false;
            needs(group, &mut |needed| {
                cyclic |= needed == from && !direct;
                if place[needed] > first && seen[needed] != *searches {
                    seen[needed] = *searches;
                    found.push(needed);
                }
            });
            cyclic
        };
        waits_for(to, &mut found, true);
        let mut next = 0;
        while let Some(&group) = found.get(next) {
            if waits_for(group, &mut found, false) || found.len() > MOST_VISITED {
                return None;
            }
            next += 1;
        }
        Some(found)
    }

    /// Makes `to` part of `from`, where `before` is what [`Order::between`] found.
    pub(super) fn merge(&mut self, from: usize, to: usize, mut before: Vec<usize>) {
        before.sort_unstable();
        let (begin, end) = (self.place[from], self.place[to]);
        let others = self.at[begin..=end].iter().flatten().copied().filter(|group| ![from, to].contains(group));
        let (first, last): (Vec<usize>, Vec<usize>) = others.partition(|group| before.binary_search(group).is_ok());
        let groups = first.into_iter().chain([from]).chain(last).map(Some).chain(std::iter::repeat(None));
        for (place, group) in (begin..=end).zip(groups) {
            self.at[place] = group;
            group.into_iter().for_each(|group| self.place[group] = place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Order;

    /// Edges from each group to those that it reads.
    fn between(order: &mut Order, edges: &[&[usize]], from: usize, to: usize) -> Option<Vec<usize>> {
        order.between(from, to, |group, take| edges[group].iter().for_each(|needed| take(*needed)))
    }

    #[test]
    fn a_group_in_between_is_a_cycle() {
        // 0 -> 1 -> 2, 0 -> 2
        let mut order = Order::new(3);
        assert_eq!(between(&mut order, &[&[], &[0], &[0, 1]], 0, 2), None);
        assert_eq!(between(&mut order, &[&[], &[0], &[0, 1]], 1, 2), Some(vec![]));
    }

    #[test]
    fn what_the_reader_waits_for_goes_before_the_union() {
        // 0 -> 4, 2 -> 4, 0 -> 1, 3 -> 5
        let edges: [&[usize]; 6] = [&[], &[0], &[], &[], &[0, 2], &[3]];
        let mut order = Order::new(6);
        assert_eq!(between(&mut order, &edges, 0, 4), Some(vec![2]));
        order.merge(0, 4, vec![2]);
        assert_eq!(order.at, [Some(2), Some(0), Some(1), Some(3), None, Some(5)]);
        assert_eq!(order.place[..4], [1, 2, 0, 3]);
        // 1 now waits for 2 by way of the union.
        let merged: [&[usize]; 6] = [&[2], &[0], &[], &[], &[], &[3, 2, 1]];
        assert_eq!(between(&mut order, &merged, 2, 5), None);
        assert_eq!(between(&mut order, &merged, 3, 5), Some(vec![]));
    }

    #[test]
    fn a_long_chain_that_is_not_in_between_is_not_walked() {
        // A chain of 1000, and a pair at its end that reads all of it.
        let needs = |group: usize, take: &mut dyn FnMut(usize)| match group {
            1001 => [999, 1000].into_iter().for_each(take),
            1000 => take(998),
            group => group.checked_sub(1).into_iter().for_each(take),
        };
        let mut order = Order::new(1002);
        assert_eq!(order.between(1000, 1001, needs), Some(vec![]));
        assert_eq!(order.between(0, 1001, needs), None);
    }
}
