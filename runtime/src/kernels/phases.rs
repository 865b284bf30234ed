//! Exact divisions taken apart: the backward pass of a convolution with stride `s` reads a gradient at
//! `(y + p - i) / s`, which exists for one tap in `s` only. Outputs of equal `y mod s` use the same taps, so each such
//! phase is a contraction of its own without a division, and none multiplies by zeros.

use super::spec::{Along, ContractSpec};

/// One loop dimension restricted to indices `period * i + first`.
#[derive(Clone, Copy)]
struct Restriction {
    dim: usize,
    period: i64,
    first: i64,
}

impl ContractSpec {
    /// Contractions whose outputs partition those of `self` and that divide nowhere; `self` alone if it does not
    /// divide, or divides in a way that has no phases.
    ///
    /// Each is compiled and run by itself, on the same buffers, in any order.
    pub fn phases(&self) -> Vec<Self> {
        let mut done = Vec::new();
        let mut open = vec![self.clone()];
        while let Some(spec) = open.pop() {
            match spec.split_one() {
                Some(parts) => open.extend(parts.into_iter().rev()),
                None => done.push(spec),
            }
        }
        done
    }

    /// Splits along the first division that can be.
    fn split_one(&self) -> Option<Vec<Self>> {
        let inner = self.batch.len() + self.m.len() + self.n.len();
        let dims = self.left.dims.iter().chain(&self.right.dims);
        let (dim, free, tap) = dims.filter(|dim| dim.divisor > 1).find_map(|dim| {
            let &[a, b] = dim.terms.as_slice() else {
                return None;
            };
            let (free, tap) = if a.0 < b.0 { (a, b) } else { (b, a) };
            (free.0 >= self.batch.len() && free.0 < inner && tap.0 >= inner).then_some((dim, free, tap))
        })?;
        // Vectors of the epilogue are contiguous by flat index, which a phase is not.
        let side = if free.0 < self.batch.len() + self.m.len() { Along::M } else { Along::N };
        if [self.epilogue.bias, self.epilogue.scale].contains(&Some(side)) {
            return None;
        }
        let s = dim.divisor;
        let period = |coefficient: i64| s / gcd(s, coefficient.rem_euclid(s));
        let (free_period, tap_period) = (period(free.1), period(tap.1));
        let mut parts = Vec::new();
        for first in 0..free_period.min(*self.extent(free.0)? as i64) {
            let at = dim.offset + free.1 * first;
            let fits = (0..tap_period).find(|tap_first| (at + tap.1 * tap_first) % s == 0);
            let mut part = self.clone();
            part.restrict(Restriction { dim: free.0, period: free_period, first })?;
            part.restrict(Restriction { dim: tap.0, period: tap_period, first: fits.unwrap_or(0) })?;
            if fits.is_none() {
                // No tap reaches this phase: an empty sum, which reads nothing and so needs no division.
                *part.extent_mut(tap.0)? = 0;
                part.drop_divisors_of(tap.0);
            }
            part.divide_out();
            parts.push(part);
        }
        Some(parts)
    }

    /// Replaces loop index `i` of one dimension by `period * i + first` everywhere.
    fn restrict(&mut self, to: Restriction) -> Option<()> {
        let extent = self.extent_mut(to.dim)?;
        *extent = extent.saturating_sub(to.first as usize).div_ceil(to.period as usize);
        for dim in self.left.dims.iter_mut().chain(&mut self.right.dims) {
            for (index, coefficient) in &mut dim.terms {
                if *index == to.dim {
                    dim.offset += *coefficient * to.first;
                    *coefficient *= to.period;
                }
            }
        }
        if let Some(stride) = self.out_strides.get_mut(to.dim) {
            self.out_offset += *stride * to.first;
            *stride *= to.period;
        }
        Some(())
    }

    /// Drops divisors that divide every term.
    fn divide_out(&mut self) {
        for dim in self.left.dims.iter_mut().chain(&mut self.right.dims) {
            let s = dim.divisor;
            if s > 1 && dim.offset % s == 0 && dim.terms.iter().all(|term| term.1 % s == 0) {
                dim.divisor = 1;
                dim.offset /= s;
                dim.terms.iter_mut().for_each(|term| term.1 /= s);
            }
        }
    }

    fn drop_divisors_of(&mut self, loop_dim: usize) {
        for dim in self.left.dims.iter_mut().chain(&mut self.right.dims) {
            if dim.terms.iter().any(|term| term.0 == loop_dim) {
                dim.divisor = 1;
            }
        }
    }

    fn extent(&self, dim: usize) -> Option<&usize> {
        self.batch.iter().chain(&self.m).chain(&self.n).chain(&self.k).nth(dim)
    }

    fn extent_mut(&mut self, dim: usize) -> Option<&mut usize> {
        let outer = self.batch.iter_mut().chain(&mut self.m).chain(&mut self.n);
        outer.chain(&mut self.k).nth(dim)
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
