//! An ordered map from bytes to values, kept as disjoint ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// Maps some bytes to values. Filling a range overwrites what was there; every operation costs O(log n) plus what it
/// removes or visits.
pub(crate) struct ByteMap<V> {
    /// Start of each range, to its end and value.
    ranges: BTreeMap<u64, (u64, V)>,
}

impl<V> Default for ByteMap<V> {
    fn default() -> Self {
        Self { ranges: BTreeMap::new() }
    }
}

impl<V: Copy + PartialEq> ByteMap<V> {
    /// Maps all of `bytes` to `value`.
    pub(crate) fn fill(&mut self, bytes: Range<u64>, value: V) {
        self.clear_if(bytes.clone(), |_| true);
        if bytes.start < bytes.end {
            self.ranges.insert(bytes.start, (bytes.end, value));
        }
    }

    /// Unmaps those of `bytes` whose value satisfies `condition`.
    pub(crate) fn clear_if(&mut self, bytes: Range<u64>, condition: impl Fn(V) -> bool) {
        let touched: Vec<(u64, u64, V)> = self.overlapping(&bytes).collect();
        for (start, end, value) in touched.into_iter().filter(|&(_, _, value)| condition(value)) {
            self.ranges.remove(&start);
            if start < bytes.start {
                self.ranges.insert(start, (bytes.start, value));
            }
            if end > bytes.end {
                self.ranges.insert(bytes.end, (end, value));
            }
        }
    }

    /// The values found in `bytes`, from the lowest byte up, each once unless others lie between.
    pub(crate) fn values(&self, bytes: Range<u64>) -> impl Iterator<Item = V> {
        let mut last = None;
        let values = self.overlapping(&bytes).map(|(_, _, value)| value);
        values.filter(move |&value| last.replace(value) != Some(value))
    }

    /// All of `bytes` in pieces of one value or of none, from the lowest byte up.
    pub(crate) fn pieces(&self, bytes: Range<u64>) -> impl Iterator<Item = (Range<u64>, Option<V>)> {
        let mut at = bytes.start;
        let mut mapped = self.overlapping(&bytes).peekable();
        std::iter::from_fn(move || {
            if at >= bytes.end {
                return None;
            }
            let (end, value) = match mapped.peek() {
                Some(&(start, _, _)) if start > at => (start, None),
                Some(&(_, end, value)) => {
                    mapped.next();
                    (end.min(bytes.end), Some(value))
                }
                None => (bytes.end, None),
            };
            let piece = at..end;
            at = end;
            Some((piece, value))
        })
    }

    /// The ranges that share a byte with `bytes`, as start, end and value.
    fn overlapping(&self, bytes: &Range<u64>) -> impl Iterator<Item = (u64, u64, V)> + use<'_, V> {
        let bytes = bytes.clone();
        let before = self.ranges.range(..bytes.start).next_back().filter(|&(_, &(end, _))| end > bytes.start);
        let inside = self.ranges.range(bytes.start..bytes.end.max(bytes.start));
        let wanted = bytes.start < bytes.end;
        before.into_iter().chain(inside).filter(move |_| wanted).map(|(&start, &(end, value))| (start, end, value))
    }
}
