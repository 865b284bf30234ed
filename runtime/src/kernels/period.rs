//! Indices whose outermost part only moves a tensor, as the image of a batch does: tables hold a few of its steps, so
//! that building them does not depend on how many there are.

use super::spec::AffineRead;

/// Index `i` is index `i % len` of a table, `i / len * stride` elements further.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) len: usize,
    pub(crate) stride: isize,
}

/// Shorter tables are not worth the splitting of packed ranges.
const LEAST: usize = 4096;

impl Period {
    /// How far index `i` moves the tensor, and its place in the table.
    #[inline(always)]
    pub(crate) fn split(&self, i: usize) -> (isize, usize) {
        if i < self.len {
            return (0, i);
        }
        ((i / self.len) as isize * self.stride, i % self.len)
    }
}

/// How many of `extents[0]` steps make a table in whole panels of `width`; all of them if there is no smaller number
/// that divides them.
pub(crate) fn steps(extents: &[usize], width: usize) -> usize {
    let Some((&outer, inner)) = extents.split_first() else { return 1 };
    let inner: usize = inner.iter().product();
    let fits = |&steps: &usize| {
        let len = steps * inner;
        outer.is_multiple_of(steps) && len.is_multiple_of(width) && len >= LEAST
    };
    (1..outer).find(fits).unwrap_or(outer)
}

/// Elements that one step of loop dimension `index` moves a read, if it does nothing else.
pub(crate) fn stride_of(read: &AffineRead, index: usize, extent: usize) -> Option<isize> {
    let mut stride = 0;
    for dim in read.dims.iter().filter(|dim| dim.terms.iter().any(|term| term.0 == index)) {
        let &[(_, coefficient)] = dim.terms.as_slice() else { return None };
        let last = (extent as i64 - 1) * coefficient + dim.offset;
        let inside = 0..dim.extent as i64;
        if dim.divisor != 1 || !inside.contains(&dim.offset) || !inside.contains(&last) {
            return None;
        }
        stride += coefficient * dim.stride;
    }
    isize::try_from(stride).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_whole_panels_of_few_images() {
        assert_eq!(steps(&[64, 224, 224], 32), 1);
        // 98 images of 49 pixels are 4802, in panels of 14; 84 would be 4116 and do not divide 196.
        assert_eq!(steps(&[196, 7, 7], 14), 98);
        assert_eq!(steps(&[128, 7, 7], 16), 128);
        assert_eq!(steps(&[256, 7, 7], 16), 128);
        // No number of images that divides 3 makes whole panels of 32.
        assert_eq!(steps(&[3, 65, 65], 32), 3);
        assert_eq!(steps(&[], 32), 1);
    }

    #[test]
    fn an_index_is_its_place_and_a_distance() {
        let period = Period { len: 10, stride: 100 };
        assert_eq!([period.split(9), period.split(10), period.split(37)], [(0, 9), (100, 0), (300, 7)]);
    }
}
