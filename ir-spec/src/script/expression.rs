//! Attributes and extents: arithmetic over a block's attributes and the names of dimensions.

use super::{Expander, Scope};
use crate::attribute::AttrValue;
use crate::text::ast::{BinaryOp, Expr, ExprKind, Ident, Record, TypeExpr};
use crate::text::suggest::did_you_mean;
use crate::types::{Dim, Name, Shape, TensorType};

impl Expander<'_> {
    /// Value of an expression; `None` with a fault recorded. A record `word {key = value}` is the list
    /// `[word, [key, value], ...]`.
    pub(super) fn evaluate(&mut self, scope: &Scope, expr: &Expr) -> Option<AttrValue> {
        Some(match &expr.kind {
            ExprKind::Int(value) => AttrValue::Int(*value),
            ExprKind::Float(value) => AttrValue::Float(*value),
            ExprKind::Bool(value) => AttrValue::Bool(*value),
            ExprKind::Text(text) => AttrValue::Text(text.clone()),
            ExprKind::Global(name) => AttrValue::Word(format!("@{name}").into()),
            ExprKind::Word(word) => self.word(scope, word),
            ExprKind::List(items) => {
                let items: Vec<_> = items.iter().map(|item| self.evaluate(scope, item)).collect();
                AttrValue::List(items.into_iter().collect::<Option<_>>()?)
            }
            ExprKind::Record(word, record) => self.record(scope, word.as_ref(), record)?,
            ExprKind::Negate(inner) => {
                let value = self.evaluate(scope, inner)?;
                let zero = AttrValue::Int(0);
                match value {
                    AttrValue::Float(value) => AttrValue::Float(-value),
                    value => self.binary(expr, BinaryOp::Sub, zero, value)?,
                }
            }
            ExprKind::Binary(op, left, right) => {
                let (a, b) = (self.evaluate(scope, left), self.evaluate(scope, right));
                let (a, b) = (self.number(scope, left, a?), self.number(scope, right, b?));
                self.binary(expr, *op, a?, b?)?
            }
        })
    }

    fn record(&mut self, scope: &Scope, word: Option<&Ident>, record: &Record) -> Option<AttrValue> {
        let mut items: Vec<AttrValue> = word.map(|word| AttrValue::Word(word.name.clone())).into_iter().collect();
        let mut complete = true;
        for field in &record.fields {
            match self.evaluate(scope, &field.value) {
                Some(value) => items.push(AttrValue::List(vec![AttrValue::Word(field.key.name.clone()), value])),
                None => complete = false,
            }
        }
        complete.then_some(AttrValue::List(items))
    }

    /// A block's attribute, a bound name, or the word itself.
    fn word(&self, scope: &Scope, word: &Name) -> AttrValue {
        if let Some(value) = scope.attributes.get(word) {
            return value.clone();
        }
        match self.bindings.get(word) {
            Some(&extent) if self.dimensions.contains(word) => {
                AttrValue::Int(i64::try_from(extent).unwrap_or(i64::MAX))
            }
            _ => AttrValue::Word(word.clone()),
        }
    }

    /// An operand of arithmetic: words are names of dimensions.
    fn number(&mut self, scope: &Scope, expr: &Expr, value: AttrValue) -> Option<AttrValue> {
        match value {
            AttrValue::Int(_) | AttrValue::Float(_) | AttrValue::Dim(_) => Some(value),
            AttrValue::Word(word) if self.dimensions.contains(&word) => Some(AttrValue::Dim(Dim::named(word))),
            AttrValue::Word(word) => {
                let known = scope.attributes.keys().chain(&self.dimensions).map(|name| name.to_string());
                let known: Vec<String> = known.collect();
                let help = did_you_mean(&word, known.iter().map(String::as_str));
                let message = format!("`{word}` is neither an attribute of the block nor a dimension of an input");
                self.fault(expr.span, "script.S9", message).help_if(help);
                None
            }
            value => {
                self.fault(expr.span, "script.S9", format!("`{value}` is not a number"));
                None
            }
        }
    }

    fn binary(&mut self, expr: &Expr, op: BinaryOp, a: AttrValue, b: AttrValue) -> Option<AttrValue> {
        let found = match (&a, &b) {
            (AttrValue::Int(a), AttrValue::Int(b)) => integers(op, *a, *b).map(AttrValue::Int),
            (AttrValue::Dim(_), _) | (_, AttrValue::Dim(_)) => extents(op, &a, &b).map(AttrValue::Dim),
            _ => match (float(&a), float(&b)) {
                (Some(a), Some(b)) => Ok(AttrValue::Float(floats(op, a, b))),
                _ => Err(format!("`{a}` and `{b}` are not both numbers")),
            },
        };
        match found {
            Ok(AttrValue::Dim(dim)) => Some(match dim.known().and_then(|n| i64::try_from(n).ok()) {
                Some(extent) => AttrValue::Int(extent),
                None => AttrValue::Dim(dim),
            }),
            Ok(value) => Some(value),
            Err(message) => {
                self.fault(expr.span, "script.S9", message);
                None
            }
        }
    }

    /// A type with its extents evaluated.
    pub(super) fn ty(&mut self, scope: &Scope, ty: &TypeExpr) -> Option<TensorType> {
        let dims: Vec<Option<Dim>> = ty.dims.iter().map(|dim| self.extent(scope, dim)).collect();
        let shape: Shape = dims.into_iter().collect::<Option<Vec<Dim>>>()?.into_iter().collect();
        Some(TensorType { layout: ty.layout.clone(), ..TensorType::new(ty.dtype, shape) })
    }

    fn extent(&mut self, scope: &Scope, expr: &Expr) -> Option<Dim> {
        // A lone name keeps itself as label when it is bound.
        let value = match &expr.kind {
            ExprKind::Word(name) if !scope.attributes.contains_key(name) => AttrValue::Dim(Dim::named(name.clone())),
            _ => self.evaluate(scope, expr)?,
        };
        match value {
            AttrValue::Dim(dim) => Some(dim.bind(self.bindings)),
            AttrValue::Int(extent) if extent >= 0 => usize::try_from(extent).ok().map(Dim::from),
            value => {
                self.fault(expr.span, "script.S9", format!("`{value}` is not an extent"));
                None
            }
        }
    }

    /// Names of dimensions in an expression.
    pub(super) fn note_dimensions(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Word(name) => {
                self.dimensions.insert(name.clone());
            }
            ExprKind::Negate(inner) => self.note_dimensions(inner),
            ExprKind::Binary(_, a, b) => {
                self.note_dimensions(a);
                self.note_dimensions(b);
            }
            _ => {}
        }
    }
}

fn float(value: &AttrValue) -> Option<f64> {
    <f64 as crate::attribute::Attribute>::from_value(value)
}

fn integers(op: BinaryOp, a: i64, b: i64) -> Result<i64, String> {
    let value = match op {
        BinaryOp::Add => a.checked_add(b),
        BinaryOp::Sub => a.checked_sub(b),
        BinaryOp::Mul => a.checked_mul(b),
        BinaryOp::Div | BinaryOp::Rem if b == 0 => return Err(format!("`{a} {} 0` divides by zero", op.symbol())),
        BinaryOp::Div => floor_div(a, b),
        BinaryOp::Rem => floor_div(a, b).map(|quotient| a.wrapping_sub(quotient.wrapping_mul(b))),
    };
    value.ok_or_else(|| format!("`{a} {} {b}` does not fit into 64 bits", op.symbol()))
}

fn floor_div(a: i64, b: i64) -> Option<i64> {
    let quotient = a.checked_div(b)?;
    let below = a.checked_rem(b)? != 0 && (a < 0) != (b < 0);
    Some(if below { quotient - 1 } else { quotient })
}

fn floats(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Rem => a - (a / b).floor() * b,
    }
}

/// Arithmetic with names that are not bound.
fn extents(op: BinaryOp, a: &AttrValue, b: &AttrValue) -> Result<Dim, String> {
    let text = format!("{a} {} {b}", op.symbol());
    let later = || format!("`{text}` has no value before its names are bound; give them with --bind");
    let known = |value: &AttrValue| match value {
        AttrValue::Dim(dim) => Some(dim.clone()),
        AttrValue::Int(value) => usize::try_from(*value).ok().map(Dim::from),
        _ => None,
    };
    let result = match (op, a, b) {
        (BinaryOp::Sub, AttrValue::Dim(a), AttrValue::Int(b)) => a.offset(b.checked_neg().ok_or_else(later)?),
        (BinaryOp::Add, AttrValue::Dim(a), AttrValue::Int(b))
        | (BinaryOp::Add, AttrValue::Int(b), AttrValue::Dim(a)) => a.offset(*b),
        (BinaryOp::Div, AttrValue::Dim(a), AttrValue::Int(b)) if *b > 0 => a.floor_div(*b),
        (BinaryOp::Add | BinaryOp::Mul, a, b) => match (known(a), known(b)) {
            (Some(a), Some(b)) if op == BinaryOp::Add => a.add(&b),
            (Some(a), Some(b)) => a.mul(&b),
            _ => return Err(later()),
        },
        _ => return Err(later()),
    };
    result.map_err(|error| error.to_string())
}
