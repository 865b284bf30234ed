//! One dimension: an integer polynomial over names, in normal form.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Name;

/// Values for dimension names, as given by `--bind batch=32`.
pub type Bindings = BTreeMap<Name, usize>;

/// A product of names with multiplicity, sorted: `batch*seq*seq`. Empty for the constant term.
type Monomial = Vec<Name>;

/// Extent of one dimension.
///
/// Equality is equality of extents: labels are not compared.
#[derive(Clone, Debug)]
pub struct Dim(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Known {
        extent: usize,
        label: Option<Name>,
    },
    /// Normal form: no zero coefficients, at least one name.
    Polynomial(Arc<BTreeMap<Monomial, i64>>),
}

/// Why a dimension cannot be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DimError {
    /// The quotient depends on names that are not bound.
    #[error("`{dividend}` divided by {divisor} has no value before `{name}` is bound; give it with --bind {name}=N")]
    Unbound {
        /// The polynomial.
        dividend: String,
        /// The constant divisor.
        divisor: i64,
        /// The first unbound name.
        name: Name,
    },
    /// A dimension came out negative or too large.
    #[error("the extent `{0}` is not a size")]
    NotASize(String),
}

impl Dim {
    /// A known extent that keeps `label` for messages.
    pub fn labeled(extent: usize, label: Name) -> Dim {
        Dim(Repr::Known { extent, label: Some(label) })
    }

    /// An extent given by a name that is bound later.
    pub fn named(name: impl Into<Name>) -> Dim {
        Dim::from_terms(BTreeMap::from([(vec![name.into()], 1)])).unwrap_or_else(|_| Dim::from(0))
    }

    /// The extent, if no name is left unbound.
    pub fn known(&self) -> Option<usize> {
        match &self.0 {
            Repr::Known { extent, .. } => Some(*extent),
            Repr::Polynomial(_) => None,
        }
    }

    /// The name a bound dimension had in the script.
    pub fn label(&self) -> Option<&Name> {
        match &self.0 {
            Repr::Known { label, .. } => label.as_ref(),
            Repr::Polynomial(_) => None,
        }
    }

    /// Names that are not bound, sorted.
    pub fn names(&self) -> Vec<Name> {
        let Repr::Polynomial(terms) = &self.0 else { return Vec::new() };
        let mut names: Vec<Name> = terms.keys().flatten().cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// `self + other`.
    pub fn add(&self, other: &Dim) -> Result<Dim, DimError> {
        let mut terms = self.terms();
        for (monomial, coefficient) in other.terms() {
            let slot = terms.entry(monomial).or_insert(0);
            *slot = slot.saturating_add(coefficient);
        }
        Dim::from_terms(terms)
    }

    /// `self - other`.
    pub fn sub(&self, other: &Dim) -> Result<Dim, DimError> {
        let mut terms = self.terms();
        for (monomial, coefficient) in other.terms() {
            let slot = terms.entry(monomial).or_insert(0);
            *slot = slot.saturating_sub(coefficient);
        }
        Dim::from_terms(terms)
    }

    /// `self + constant`.
    pub fn offset(&self, constant: i64) -> Result<Dim, DimError> {
        let mut terms = self.terms();
        let slot = terms.entry(Vec::new()).or_insert(0);
        *slot = slot.saturating_add(constant);
        Dim::from_terms(terms)
    }

    /// `self * other`.
    pub fn mul(&self, other: &Dim) -> Result<Dim, DimError> {
        let mut terms: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (a, x) in self.terms() {
            for (b, y) in other.terms() {
                let mut monomial = a.clone();
                monomial.extend(b);
                monomial.sort();
                let slot = terms.entry(monomial).or_insert(0);
                *slot = slot.saturating_add(x.saturating_mul(y));
            }
        }
        Dim::from_terms(terms)
    }

    /// `floor(self / divisor)`. Where the dimension is not known, every coefficient must be divisible, the constant
    /// term excepted: `(2*n + 1) / 2 = n`.
    ///
    /// # Errors
    /// [`DimError::Unbound`] where the quotient is not a polynomial.
    pub fn floor_div(&self, divisor: i64) -> Result<Dim, DimError> {
        let mut terms = self.terms();
        for (monomial, coefficient) in &mut terms {
            if !monomial.is_empty() && *coefficient % divisor != 0 {
                return Err(DimError::Unbound { dividend: self.to_string(), divisor, name: monomial[0].clone() });
            }
            *coefficient = coefficient.div_euclid(divisor);
        }
        Dim::from_terms(terms)
    }

    /// The dimension with names replaced by their values; what it was stays as label. An extent that comes out
    /// negative is 0; [`Dim::try_bind`] reports it.
    pub fn bind(&self, bindings: &Bindings) -> Dim {
        self.try_bind(bindings).unwrap_or_else(|_| Dim::labeled(0, self.to_string().into()))
    }

    /// The dimension with names replaced by their values; what it was stays as label.
    ///
    /// # Errors
    /// [`DimError::NotASize`] if the extent comes out negative.
    pub fn try_bind(&self, bindings: &Bindings) -> Result<Dim, DimError> {
        let Repr::Polynomial(terms) = &self.0 else { return Ok(self.clone()) };
        let mut bound: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (monomial, coefficient) in terms.iter() {
            let mut value = *coefficient;
            let mut left = Vec::new();
            for name in monomial {
                match bindings.get(name) {
                    Some(&n) => value = value.saturating_mul(i64::try_from(n).unwrap_or(i64::MAX)),
                    None => left.push(name.clone()),
                }
            }
            let slot = bound.entry(left).or_insert(0);
            *slot = slot.saturating_add(value);
        }
        let dim = Dim::from_terms(bound)?;
        Ok(match dim.known() {
            Some(extent) => Dim::labeled(extent, self.to_string().into()),
            None => dim,
        })
    }

    /// The polynomial as coefficients of its monomials.
    pub(crate) fn terms(&self) -> BTreeMap<Monomial, i64> {
        match &self.0 {
            Repr::Known { extent, .. } => BTreeMap::from([(Vec::new(), i64::try_from(*extent).unwrap_or(i64::MAX))]),
            Repr::Polynomial(terms) => (**terms).clone(),
        }
    }

    /// Inverse of [`Dim::terms`].
    pub(crate) fn from_terms(mut terms: BTreeMap<Monomial, i64>) -> Result<Dim, DimError> {
        terms.retain(|_, coefficient| *coefficient != 0);
        if terms.keys().all(Vec::is_empty) {
            let constant = terms.values().sum::<i64>();
            return match usize::try_from(constant) {
                Ok(extent) => Ok(Dim::from(extent)),
                Err(_) => Err(DimError::NotASize(constant.to_string())),
            };
        }
        Ok(Dim(Repr::Polynomial(Arc::new(terms))))
    }
}

impl From<usize> for Dim {
    fn from(extent: usize) -> Dim {
        Dim(Repr::Known { extent, label: None })
    }
}

/// A name that is bound later.
impl From<&str> for Dim {
    fn from(name: &str) -> Dim {
        Dim::named(name)
    }
}

impl PartialEq for Dim {
    fn eq(&self, other: &Dim) -> bool {
        match (&self.0, &other.0) {
            (Repr::Known { extent: a, .. }, Repr::Known { extent: b, .. }) => a == b,
            (Repr::Polynomial(a), Repr::Polynomial(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Dim {}

/// Highest degree first, the constant last: `batch*4 + 1`.
impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = match &self.0 {
            Repr::Known { extent, .. } => return write!(f, "{extent}"),
            Repr::Polynomial(terms) => terms,
        };
        let mut sorted: Vec<_> = terms.iter().collect();
        sorted.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.0.cmp(b.0)));
        for (i, (monomial, &coefficient)) in sorted.into_iter().enumerate() {
            match (i, coefficient < 0) {
                (0, true) => f.write_str("-")?,
                (0, false) => {}
                (_, true) => f.write_str(" - ")?,
                (_, false) => f.write_str(" + ")?,
            }
            let size = coefficient.unsigned_abs();
            if monomial.is_empty() {
                write!(f, "{size}")?;
            } else {
                f.write_str(&monomial.join("*"))?;
                if size != 1 {
                    write!(f, "*{size}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Dim {
        Dim::named("batch")
    }

    #[test]
    fn prints_highest_degree_first() {
        let dim = batch().mul(&Dim::from(4)).and_then(|d| d.offset(1));
        assert_eq!(dim.map(|d| d.to_string()), Ok("batch*4 + 1".to_owned()));
    }

    #[test]
    fn floor_division_needs_a_binding_when_a_coefficient_is_not_divisible() {
        let even = batch().mul(&Dim::from(2)).and_then(|d| d.offset(1)).and_then(|d| d.floor_div(2));
        assert_eq!(even, Ok(batch()));
        assert!(matches!(batch().floor_div(2), Err(DimError::Unbound { .. })));
    }

    #[test]
    fn a_bound_dimension_keeps_its_name_as_label() {
        let bound = batch().bind(&Bindings::from([("batch".into(), 32)]));
        assert_eq!(bound.known(), Some(32));
        assert_eq!(bound.label().map(|l| &**l), Some("batch"));
        assert_eq!(bound, Dim::from(32));
    }

    #[test]
    fn negative_extents_are_errors() {
        assert_eq!(Dim::from(3).offset(-5), Err(DimError::NotASize("-2".to_owned())));
    }
}
