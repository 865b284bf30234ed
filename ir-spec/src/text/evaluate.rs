//! Expressions to values: integer and float arithmetic, and polynomials over dimension names.

use std::collections::BTreeMap;

use crate::attribute::AttrValue;
use crate::diagnostic::Diagnostic;
use crate::text::ast::{BinaryOp, Expr, ExprKind, Record, Span};
use crate::types::{Dim, DimError, Name};

/// Values of a block's attributes; `None` for a word that is none of them.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<AttrValue>;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq)]
pub struct Misfit {
    /// The part at fault.
    pub span: Span,
    /// What is wrong.
    pub message: String,
}

impl Misfit {
    fn new(span: Span, message: impl Into<String>) -> Misfit {
        Misfit { span, message: message.into() }
    }

    /// The finding in `file` under `label`.
    pub fn diagnostic(self, label: &str, file: &Name) -> Diagnostic {
        Diagnostic::error(label, self.message).at(Some(self.span.location(file))).width(self.span.width)
    }
}

/// No words are bound.
pub fn nothing(_: &str) -> Option<AttrValue> {
    None
}

/// The value of an expression. A word that `lookup` does not know stays a word, or is a dimension's name where it is
/// calculated with.
///
/// # Errors
/// The part that has no value: arithmetic on words, division by zero, overflow.
pub fn evaluate(expr: &Expr, lookup: Lookup<'_>) -> Result<AttrValue, Misfit> {
    Ok(match &expr.kind {
        ExprKind::Int(value) => AttrValue::Int(*value),
        ExprKind::Float(value) => AttrValue::Float(*value),
        ExprKind::Bool(value) => AttrValue::Bool(*value),
        ExprKind::Word(word) => lookup(word).unwrap_or_else(|| AttrValue::Word(word.clone())),
        ExprKind::Global(name) => AttrValue::Word(format!("@{name}").into()),
        ExprKind::Text(text) => AttrValue::Text(text.clone()),
        ExprKind::List(items) => {
            AttrValue::List(items.iter().map(|item| evaluate(item, lookup)).collect::<Result<_, _>>()?)
        }
        ExprKind::Record(word, record) => {
            let word = word.as_ref().map_or_else(|| "".into(), |word| word.name.clone());
            AttrValue::Record(word, evaluate_record(record, lookup)?)
        }
        ExprKind::Negate(_) | ExprKind::Binary(..) => number(expr, lookup)?.value(expr.span)?,
    })
}

/// The values of a record's fields.
///
/// # Errors
/// The first part that has no value, and keys that are given twice.
pub fn evaluate_record(record: &Record, lookup: Lookup<'_>) -> Result<Vec<(Name, AttrValue)>, Misfit> {
    let mut seen = std::collections::HashSet::new();
    let field = |field: &crate::text::ast::Field| {
        if !seen.insert(field.key.name.clone()) {
            return Err(Misfit::new(field.key.span, format!("`{}` is given twice", field.key.name)));
        }
        Ok((field.key.name.clone(), evaluate(&field.value, lookup)?))
    };
    record.fields.iter().map(field).collect()
}

/// The extent that an expression gives; words that `lookup` does not know are dimension names.
///
/// # Errors
/// What is not an integer polynomial, or a negative extent.
pub fn dim(expr: &Expr, lookup: Lookup<'_>) -> Result<Dim, Misfit> {
    match number(expr, lookup)? {
        Number::Polynomial(terms) => Dim::from_terms(terms).map_err(|error| misfit(expr.span, &error)),
        Number::Float(_) => Err(Misfit::new(expr.span, "an extent is an integer")),
    }
}

/// What arithmetic works on. An integer is a polynomial without names.
enum Number {
    Polynomial(Terms),
    Float(f64),
}

type Terms = BTreeMap<Vec<Name>, i64>;

/// Longer polynomials are not extents but attacks.
const TERM_LIMIT: usize = 256;
const DEGREE_LIMIT: usize = 16;

impl Number {
    fn value(self, span: Span) -> Result<AttrValue, Misfit> {
        match self {
            Number::Float(value) => Ok(AttrValue::Float(value)),
            Number::Polynomial(terms) => match constant(&terms) {
                Some(value) => Ok(AttrValue::Int(value)),
                None => Dim::from_terms(terms).map(AttrValue::Dim).map_err(|error| misfit(span, &error)),
            },
        }
    }

    fn float(&self) -> Option<f64> {
        match self {
            Number::Float(value) => Some(*value),
            Number::Polynomial(terms) => constant(terms).map(|value| value as f64),
        }
    }
}

fn misfit(span: Span, error: &DimError) -> Misfit {
    Misfit::new(span, error.to_string())
}

fn number(expr: &Expr, lookup: Lookup<'_>) -> Result<Number, Misfit> {
    match &expr.kind {
        ExprKind::Int(value) => Ok(integer(*value)),
        ExprKind::Float(value) => Ok(Number::Float(*value)),
        ExprKind::Word(word) => match lookup(word) {
            None => Ok(Number::Polynomial(Terms::from([(vec![word.clone()], 1)]))),
            Some(AttrValue::Int(value)) => Ok(integer(value)),
            Some(AttrValue::Float(value)) => Ok(Number::Float(value)),
            Some(AttrValue::Dim(dim)) => Ok(Number::Polynomial(dim.terms())),
            Some(other) => Err(Misfit::new(expr.span, format!("`{word}` is {other}, not a number"))),
        },
        ExprKind::Negate(inner) => match number(inner, lookup)? {
            Number::Float(value) => Ok(Number::Float(-value)),
            other => binary(expr.span, BinaryOp::Sub, integer(0), other),
        },
        ExprKind::Binary(op, a, b) => binary(expr.span, *op, number(a, lookup)?, number(b, lookup)?),
        _ => Err(Misfit::new(expr.span, "not a number")),
    }
}

fn integer(value: i64) -> Number {
    Number::Polynomial(Terms::from([(Vec::new(), value)]))
}

fn constant(terms: &Terms) -> Option<i64> {
    let named = terms.iter().any(|(names, coefficient)| !names.is_empty() && *coefficient != 0);
    (!named).then(|| terms.get(&Vec::new()).copied().unwrap_or(0))
}

fn binary(span: Span, op: BinaryOp, a: Number, b: Number) -> Result<Number, Misfit> {
    match (a, b) {
        (Number::Polynomial(a), Number::Polynomial(b)) => polynomial(span, op, &a, &b).map(Number::Polynomial),
        (a, b) => match (a.float(), b.float()) {
            (Some(a), Some(b)) => Ok(Number::Float(match op {
                BinaryOp::Add => a + b,
                BinaryOp::Sub => a - b,
                BinaryOp::Mul => a * b,
                BinaryOp::Div => a / b,
                BinaryOp::Rem => a - b * (a / b).floor(),
            })),
            _ => Err(Misfit::new(span, "a float and a dimension's name do not combine")),
        },
    }
}

fn polynomial(span: Span, op: BinaryOp, a: &Terms, b: &Terms) -> Result<Terms, Misfit> {
    let overflow = || Misfit::new(span, "the integer is too large for 64 bits");
    let mut out = match op {
        BinaryOp::Add | BinaryOp::Sub => {
            let mut sum = a.clone();
            for (names, &coefficient) in b {
                let slot = sum.entry(names.clone()).or_insert(0);
                let next =
                    if op == BinaryOp::Add { slot.checked_add(coefficient) } else { slot.checked_sub(coefficient) };
                *slot = next.ok_or_else(overflow)?;
            }
            sum
        }
        BinaryOp::Mul => {
            let mut product = Terms::new();
            for (x, &p) in a {
                for (y, &q) in b {
                    let mut names: Vec<Name> = x.iter().chain(y).cloned().collect();
                    names.sort();
                    let slot = product.entry(names).or_insert(0);
                    let term = p.checked_mul(q).and_then(|term| slot.checked_add(term));
                    *slot = term.ok_or_else(overflow)?;
                }
            }
            product
        }
        BinaryOp::Div | BinaryOp::Rem => divide(span, op, a, b)?,
    };
    out.retain(|names, coefficient| *coefficient != 0 || names.is_empty());
    if out.len() > TERM_LIMIT || out.keys().any(|names| names.len() > DEGREE_LIMIT) {
        return Err(Misfit::new(span, "the polynomial has too many terms"));
    }
    Ok(out)
}

/// Division that rounds down, by a constant that divides every coefficient but the constant one.
fn divide(span: Span, op: BinaryOp, a: &Terms, b: &Terms) -> Result<Terms, Misfit> {
    let divisor = match constant(b) {
        Some(0) => return Err(Misfit::new(span, "division by zero")),
        Some(divisor) => divisor,
        None => return Err(Misfit::new(span, "the divisor depends on a dimension's name that is not bound")),
    };
    let mut quotient = Terms::new();
    let mut remainder = 0;
    for (names, &coefficient) in a {
        let overflow = || Misfit::new(span, "the integer is too large for 64 bits");
        let (down, rest) = floor_division(coefficient, divisor).ok_or_else(overflow)?;
        if !names.is_empty() && rest != 0 {
            let name = &names[0];
            let message = format!("the quotient has no value before `{name}` is bound; give it with --bind {name}=N");
            return Err(Misfit::new(span, message));
        }
        quotient.insert(names.clone(), down);
        remainder += rest;
    }
    Ok(if op == BinaryOp::Div { quotient } else { Terms::from([(Vec::new(), remainder)]) })
}

fn floor_division(a: i64, b: i64) -> Option<(i64, i64)> {
    let (quotient, rest) = (a.checked_div(b)?, a.checked_rem(b)?);
    let down = rest != 0 && (rest < 0) != (b < 0);
    Some(if down { (quotient - 1, rest + b) } else { (quotient, rest) })
}
