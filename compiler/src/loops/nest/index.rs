//! Index arithmetic: affine sums of variables, with quotients, remainders and minima by constants.

use std::ops::{Add, Mul, Sub};

use smallvec::SmallVec;

use super::{Local, Var};

/// `constant + sum of coefficient * atom`, an `i64`. Equal sums of equal atoms are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Index {
    /// Sorted by atom, no atom twice, no coefficient zero.
    pub terms: SmallVec<[(Atom, i64); 2]>,
    /// The rest.
    pub constant: i64,
}

/// What an index depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    /// A loop variable.
    Var(Var),
    /// An `i64` local: a loaded index.
    Local(Local),
    /// Quotient by a positive constant, rounded down.
    Floor(Box<Index>, i64),
    /// `index - floor(index / divisor) * divisor`, never negative.
    Modulo(Box<Index>, i64),
    /// The smaller of an index and a constant: the end of the last tile.
    Min(Box<Index>, i64),
}

impl Index {
    /// A number.
    pub fn constant(constant: i64) -> Index {
        Index { terms: SmallVec::new(), constant }
    }

    /// A loop variable.
    pub fn var(var: Var) -> Index {
        Index::atom(Atom::Var(var))
    }

    /// An `i64` local.
    pub fn local(local: Local) -> Index {
        Index::atom(Atom::Local(local))
    }

    /// One atom.
    pub fn atom(atom: Atom) -> Index {
        Index { terms: SmallVec::from_iter([(atom, 1)]), constant: 0 }
    }

    /// Quotient by a positive constant, rounded down. Terms that divide evenly are taken out: `(c*32 + h) / 32` is
    /// `c + h / 32`.
    pub fn floor_div(&self, divisor: i64) -> Index {
        let (whole, rest) = self.split(divisor);
        let rest = match rest.as_constant() {
            Some(constant) => Index::constant(constant.div_euclid(divisor)),
            None => Index::atom(Atom::Floor(Box::new(rest), divisor)),
        };
        if divisor == 1 { self.clone() } else { whole + rest }
    }

    /// Remainder of [`Index::floor_div`]. Terms that divide evenly vanish.
    pub fn modulo(&self, divisor: i64) -> Index {
        let (_, rest) = self.split(divisor);
        match rest.as_constant() {
            _ if divisor == 1 => Index::constant(0),
            Some(constant) => Index::constant(constant.rem_euclid(divisor)),
            None => Index::atom(Atom::Modulo(Box::new(rest), divisor)),
        }
    }

    /// The smaller of the index and a constant.
    pub fn at_most(&self, limit: i64) -> Index {
        match self.as_constant() {
            Some(constant) => Index::constant(constant.min(limit)),
            None => Index::atom(Atom::Min(Box::new(self.clone()), limit)),
        }
    }

    /// The number, if it depends on nothing.
    pub fn as_constant(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }

    /// Factor of a variable outside quotients, remainders and minima.
    pub fn coefficient(&self, var: Var) -> i64 {
        self.terms.iter().find(|(atom, _)| *atom == Atom::Var(var)).map_or(0, |(_, coefficient)| *coefficient)
    }

    /// The index with variables replaced.
    pub fn substitute(&self, value: &mut dyn FnMut(Var) -> Index) -> Index {
        let mut sum = Index::constant(self.constant);
        for (atom, coefficient) in &self.terms {
            let atom = match atom {
                Atom::Var(var) => value(*var),
                Atom::Local(local) => Index::local(*local),
                Atom::Floor(index, divisor) => index.substitute(value).floor_div(*divisor),
                Atom::Modulo(index, divisor) => index.substitute(value).modulo(*divisor),
                Atom::Min(index, limit) => index.substitute(value).at_most(*limit),
            };
            sum = sum + atom * *coefficient;
        }
        sum
    }

    /// Calls `visit` for every variable and local, inside quotients too.
    pub fn visit(&self, visit: &mut dyn FnMut(&Atom)) {
        for (atom, _) in &self.terms {
            match atom {
                Atom::Var(_) | Atom::Local(_) => visit(atom),
                Atom::Floor(index, _) | Atom::Modulo(index, _) | Atom::Min(index, _) => index.visit(visit),
            }
        }
    }

    /// `self = whole * divisor + rest`, with whatever divides evenly in `whole`.
    fn split(&self, divisor: i64) -> (Index, Index) {
        let (mut whole, mut rest) = (Index::default(), Index::default());
        whole.constant = self.constant.div_euclid(divisor);
        rest.constant = self.constant.rem_euclid(divisor);
        for (atom, coefficient) in &self.terms {
            match coefficient % divisor {
                0 => whole.terms.push((atom.clone(), coefficient / divisor)),
                _ => rest.terms.push((atom.clone(), *coefficient)),
            }
        }
        (whole, rest)
    }

    fn add_term(&mut self, atom: &Atom, coefficient: i64) {
        match self.terms.binary_search_by(|(other, _)| other.cmp(atom)) {
            Ok(place) => {
                if let Some((_, sum)) = self.terms.get_mut(place) {
                    *sum += coefficient;
                    if *sum == 0 {
                        self.terms.remove(place);
                    }
                }
            }
            Err(place) if coefficient != 0 => self.terms.insert(place, (atom.clone(), coefficient)),
            Err(_) => {}
        }
    }
}

impl From<i64> for Index {
    fn from(constant: i64) -> Index {
        Index::constant(constant)
    }
}

impl From<usize> for Index {
    fn from(constant: usize) -> Index {
        Index::constant(i64::try_from(constant).unwrap_or(i64::MAX))
    }
}

impl From<Var> for Index {
    fn from(var: Var) -> Index {
        Index::var(var)
    }
}

impl<T: Into<Index>> Add<T> for Index {
    type Output = Index;

    fn add(mut self, other: T) -> Index {
        let other = other.into();
        for (atom, coefficient) in &other.terms {
            self.add_term(atom, *coefficient);
        }
        self.constant += other.constant;
        self
    }
}

impl<T: Into<Index>> Sub<T> for Index {
    type Output = Index;

    fn sub(self, other: T) -> Index {
        self + other.into() * -1
    }
}

impl Mul<i64> for Index {
    type Output = Index;

    fn mul(mut self, factor: i64) -> Index {
        if factor == 0 {
            return Index::default();
        }
        self.terms.iter_mut().for_each(|(_, coefficient)| *coefficient *= factor);
        self.constant *= factor;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_canonical() {
        let (a, b) = (Index::var(Var(1)), Index::var(Var(2)));
        assert_eq!(b.clone() * 3 + a.clone() + 4i64, a.clone() + 4i64 + b.clone() * 3);
        assert_eq!((a.clone() + b.clone()) - a, b);
    }

    #[test]
    fn even_terms_leave_quotients() {
        let (c, h) = (Index::var(Var(1)), Index::var(Var(2)));
        let flat = c.clone() * 32 + h.clone() + 33i64;
        assert_eq!(flat.floor_div(32), c + 1i64 + (h.clone() + 1i64).floor_div(32));
        assert_eq!(flat.modulo(32), (h + 1i64).modulo(32));
        assert_eq!(Index::constant(-1).floor_div(4), Index::constant(-1));
        assert_eq!(Index::constant(-1).modulo(4), Index::constant(3));
    }
}
