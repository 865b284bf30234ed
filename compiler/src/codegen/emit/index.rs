//! Index arithmetic and addresses.
//!
//! Terms are added from the outermost variable inwards, so that a prefix of every sum is invariant in the inner loops and
//! was numbered before them; what is known at compile time goes into the displacement of the instruction.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use smallvec::SmallVec;

use super::analysis::Facts;
use super::function::{Emitted, Emitter, Key, Val};
use crate::loops::nest::{Atom, Index, Place, Var};

/// How an index runs along lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Along {
    /// The same in all lanes.
    Uniform,
    /// This much further in each lane.
    Step(i64),
    /// In no regular way.
    Any,
}

impl Emitter<'_, '_> {
    /// How an index runs along lanes.
    pub(super) fn along(&self, index: &Index) -> Along {
        let Some(lane) = self.lane else { return Along::Uniform };
        if self.single.is_some() {
            return Along::Uniform;
        }
        let mut step = 0;
        for (atom, coefficient) in &index.terms {
            if *atom == Atom::Var(lane) {
                step = *coefficient;
            } else if self.varies(atom) {
                return Along::Any;
            }
        }
        if step == 0 { Along::Uniform } else { Along::Step(step) }
    }

    fn varies(&self, atom: &Atom) -> bool {
        match atom {
            Atom::Var(var) => Some(*var) == self.lane,
            Atom::Local(local) => matches!(self.locals[local.0 as usize], Some(Val::Lanes(..))),
            Atom::Floor(index, _) | Atom::Modulo(index, _) | Atom::Min(index, _) => {
                index.terms.iter().any(|(atom, _)| self.varies(atom))
            }
        }
    }

    /// An index as `i64`; of the first lane, or of the lane that is computed by itself.
    pub(super) fn index_value(&mut self, index: &Index) -> Emitted<Value> {
        let (sum, known) = self.sum(None, index, 1, None)?;
        Ok(match sum {
            Some(sum) => self.add_imm(sum, known),
            None => self.int(known),
        })
    }

    /// An index as value and known rest.
    pub(super) fn index_parts(&mut self, index: &Index) -> Emitted<(Option<Value>, i64)> {
        self.sum(None, index, 1, None)
    }

    /// Address of an element as pointer and displacement.
    pub(super) fn address(&mut self, place: Place, index: &Index) -> Emitted<(Value, i32)> {
        let (base, offset) = self.base(place)?;
        let size = self.nest.place(place).map_or(1, |(dtype, _)| dtype.bytes() as i64);
        let (sum, known) = self.sum(Some(base), index, size, None)?;
        let sum = sum.unwrap_or(base);
        Ok(match i32::try_from(known + offset) {
            Ok(offset) => (sum, offset),
            Err(_) => (self.add_imm(sum, known + offset), 0),
        })
    }

    /// Numbers the part of an address that does not change in the loop.
    pub(super) fn address_before(&mut self, place: Place, index: &Index, changed: &Facts) -> Emitted<()> {
        let (base, _) = self.base(place)?;
        let size = self.nest.place(place).map_or(1, |(dtype, _)| dtype.bytes() as i64);
        self.sum(Some(base), index, size, Some(changed)).map(|_| ())
    }

    /// Numbers the part of an index that does not change in the loop.
    pub(super) fn index_before(&mut self, index: &Index, changed: &Facts) -> Emitted<()> {
        self.sum(None, index, 1, Some(changed)).map(|_| ())
    }

    /// `start + size * index` as value and known rest; with `changed`, only terms that it leaves alone.
    fn sum(
        &mut self,
        start: Option<Value>,
        index: &Index,
        size: i64,
        changed: Option<&Facts>,
    ) -> Emitted<(Option<Value>, i64)> {
        let mut known = index.constant * size;
        let mut terms: SmallVec<[(u32, &Atom, i64); 4]> =
            index.terms.iter().map(|(atom, coefficient)| (self.atom_depth(atom), atom, coefficient * size)).collect();
        terms.sort_by_key(|(depth, ..)| *depth);
        let mut sum = start;
        for (_, atom, factor) in terms {
            if changed.is_some_and(|changed| Facts::atom(atom).meets(changed)) {
                break;
            }
            let (value, more) = self.atom(atom)?;
            known += more * factor;
            if let Some(value) = value {
                let scaled = self.scale(value, factor);
                sum = Some(match sum {
                    Some(sum) => self.numbered(Key::Add(sum, scaled), |e| e.b.ins().iadd(sum, scaled)),
                    None => scaled,
                });
            }
        }
        Ok((sum, known))
    }

    fn atom_depth(&self, atom: &Atom) -> u32 {
        match atom {
            Atom::Var(var) => self.vars[var.0 as usize].depth,
            Atom::Local(local) => self.local_depth[local.0 as usize],
            Atom::Floor(index, _) | Atom::Modulo(index, _) | Atom::Min(index, _) => {
                index.terms.iter().map(|(atom, _)| self.atom_depth(atom)).max().unwrap_or(0)
            }
        }
    }

    /// An atom as value and known rest.
    fn atom(&mut self, atom: &Atom) -> Emitted<(Option<Value>, i64)> {
        match atom {
            Atom::Var(var) => Ok(self.var(*var)),
            Atom::Local(local) => match self.locals[local.0 as usize] {
                Some(Val::One(value)) => Ok((Some(value), 0)),
                Some(Val::Lanes(low, high)) => {
                    let lane = self.single.unwrap_or(0);
                    let register = if lane < 2 { low } else { high.unwrap_or(low) };
                    Ok((Some(self.lane_of(register, lane % 2)), 0))
                }
                None => Err(format!("{local:?} has no value")),
            },
            Atom::Floor(index, divisor) => match self.index_parts(index)? {
                (None, known) => Ok((None, known.div_euclid(*divisor))),
                _ => Ok((Some(self.floor(index, *divisor)?), 0)),
            },
            Atom::Modulo(index, divisor) => {
                if let (None, known) = self.index_parts(index)? {
                    return Ok((None, known.rem_euclid(*divisor)));
                }
                let (value, quotient) = (self.index_value(index)?, self.floor(index, *divisor)?);
                let whole = self.scale(quotient, -*divisor);
                Ok((Some(self.numbered(Key::Add(value, whole), |e| e.b.ins().iadd(value, whole))), 0))
            }
            Atom::Min(index, limit) => {
                if let (None, known) = self.index_parts(index)? {
                    return Ok((None, known.min(*limit)));
                }
                let value = self.index_value(index)?;
                let least = self.numbered(Key::Min(value, *limit), |e| {
                    let limit = e.int(*limit);
                    e.b.ins().smin(value, limit)
                });
                Ok((Some(least), 0))
            }
        }
    }

    fn var(&self, var: Var) -> (Option<Value>, i64) {
        let state = self.vars[var.0 as usize];
        let lane = if Some(var) == self.lane { i64::from(self.single.unwrap_or(0)) } else { 0 };
        (state.value, state.known + lane)
    }

    /// One lane of a register.
    pub(super) fn lane_of(&mut self, register: Value, lane: u8) -> Value {
        self.numbered(Key::Lane(register, lane), |e| e.b.ins().extractlane(register, lane))
    }

    /// `value + constant`.
    pub(super) fn add_imm(&mut self, value: Value, constant: i64) -> Value {
        if constant == 0 {
            return value;
        }
        self.numbered(Key::AddImm(value, constant), |e| e.b.ins().iadd_imm_s(value, constant))
    }

    /// `value * factor`.
    fn scale(&mut self, value: Value, factor: i64) -> Value {
        if factor == 1 {
            return value;
        }
        self.numbered(Key::MulImm(value, factor), |e| match factor {
            _ if factor > 0 && factor.count_ones() == 1 => {
                let shift = e.b.ins().iconst(types::I8, i64::from(factor.trailing_zeros()));
                e.b.ins().ishl(value, shift)
            }
            _ => e.b.ins().imul_imm_s(value, factor),
        })
    }

    /// Quotient rounded down, without a division: Granlund and Montgomery, "Division by invariant integers using
    /// multiplication", PLDI 1994.
    fn floor(&mut self, index: &Index, divisor: i64) -> Emitted<Value> {
        let value = self.index_value(index)?;
        let negative = self.range(index).is_none_or(|(least, _)| least < 0);
        Ok(self.numbered(Key::Floor(value, divisor), |e| {
            if divisor.count_ones() == 1 {
                let shift = e.b.ins().iconst(types::I8, i64::from(divisor.trailing_zeros()));
                return e.b.ins().sshr(value, shift);
            }
            // floor(n / d) of a negative n is the complement of the quotient of its complement.
            let sign = negative.then(|| {
                let shift = e.b.ins().iconst(types::I8, 63);
                e.b.ins().sshr(value, shift)
            });
            let magnitude = sign.map_or(value, |sign| e.b.ins().bxor(value, sign));
            let (factor, shift) = reciprocal(divisor as u64);
            let factor = e.int(factor as i64);
            let high = e.b.ins().umulhi(magnitude, factor);
            let shift = e.b.ins().iconst(types::I8, i64::from(shift));
            let quotient = e.b.ins().ushr(high, shift);
            sign.map_or(quotient, |sign| e.b.ins().bxor(quotient, sign))
        }))
    }

    /// Least and greatest value, if known.
    pub(super) fn range(&self, index: &Index) -> Option<(i64, i64)> {
        let (mut least, mut greatest) = (index.constant, index.constant);
        for (atom, coefficient) in &index.terms {
            let (low, high) = match atom {
                Atom::Var(var) => {
                    let state = self.vars[var.0 as usize];
                    (state.least?, state.greatest?)
                }
                Atom::Local(_) => return None,
                Atom::Floor(index, divisor) => {
                    let (low, high) = self.range(index)?;
                    (low.div_euclid(*divisor), high.div_euclid(*divisor))
                }
                Atom::Modulo(_, divisor) => (0, divisor - 1),
                Atom::Min(index, limit) => {
                    let (low, high) = self.range(index)?;
                    (low.min(*limit), high.min(*limit))
                }
            };
            let (a, b) = (low.checked_mul(*coefficient)?, high.checked_mul(*coefficient)?);
            least = least.checked_add(a.min(b))?;
            greatest = greatest.checked_add(a.max(b))?;
        }
        Some((least, greatest))
    }

    /// `0 <= value < limit` as one unsigned comparison.
    pub(super) fn below(&mut self, value: Value, limit: i64) -> Value {
        let limit = self.int(limit.max(0));
        self.b.ins().icmp(IntCC::UnsignedLessThan, value, limit)
    }
}

/// `(factor, shift)` such that `n / divisor = (n * factor >> 64) >> shift` for `0 <= n < 2^63`; the divisor is above 2
/// and no power of two.
fn reciprocal(divisor: u64) -> (u64, u32) {
    let bits = 64 - (divisor - 1).leading_zeros();
    let factor = (1u128 << (63 + bits)) / u128::from(divisor) + 1;
    (factor as u64, bits - 1)
}

#[cfg(test)]
mod tests {
    use super::reciprocal;

    #[test]
    fn reciprocals_divide() {
        for divisor in (3u64..200).chain([641, 1 << 33, (1 << 33) + 1, i64::MAX as u64]) {
            if divisor.is_power_of_two() {
                continue;
            }
            let (factor, shift) = reciprocal(divisor);
            for near in
                [0, 1, divisor, 5 * (divisor.min(1 << 60)), i64::MAX as u64 / divisor * divisor, i64::MAX as u64]
            {
                for n in [near.saturating_sub(1), near, near.saturating_add(1).min(i64::MAX as u64)] {
                    let quotient = ((u128::from(n) * u128::from(factor)) >> 64) as u64 >> shift;
                    assert_eq!(quotient, n / divisor, "{n} / {divisor}");
                }
            }
        }
    }
}
