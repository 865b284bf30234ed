//! Attributes and extents: arithmetic over a block's attributes and the names of dimensions.

use super::{Expander, Scope};
use crate::attribute::AttrValue;
use crate::text::ast::{Expr, ExprKind, TypeExpr};
use crate::text::evaluate::{Misfit, evaluate};
use crate::text::suggest::did_you_mean;
use crate::text::tensor_type;
use crate::types::{Dim, Name, TensorType};

impl Expander<'_> {
    /// Value of an expression, with numbers for the block's attributes and the names that are bound; `None` with a
    /// fault recorded.
    pub(super) fn evaluate(&mut self, scope: &Scope, expr: &Expr) -> Option<AttrValue> {
        let lookup = |word: &str| {
            let bound = || {
                let extent = self.dimensions.get(word).and_then(|name| self.bindings.get(name))?;
                Some(AttrValue::Int(i64::try_from(*extent).unwrap_or(i64::MAX)))
            };
            scope.attributes.get(word).cloned().or_else(bound)
        };
        match evaluate(expr, &lookup) {
            Ok(value) => self.check_names(scope, expr, &value).then_some(value),
            Err(Misfit { span, message }) => {
                self.fault(span, "script.S9", message);
                None
            }
        }
    }

    /// A name that is calculated with is a block's attribute or a dimension of an input.
    fn check_names(&mut self, scope: &Scope, expr: &Expr, value: &AttrValue) -> bool {
        let AttrValue::Dim(dim) = value else { return true };
        let unknown: Vec<Name> = dim.names().into_iter().filter(|name| !self.dimensions.contains(name)).collect();
        for name in &unknown {
            let known: Vec<&str> = scope.attributes.keys().chain(&self.dimensions).map(|name| &**name).collect();
            let help = did_you_mean(name, known);
            let message = format!("`{name}` is neither an attribute of the block nor a dimension of an input");
            self.fault(expr.span, "script.S9", message).help_if(help);
        }
        unknown.is_empty()
    }

    /// A type with its extents evaluated; a bound name stays as label.
    pub(super) fn ty(&mut self, scope: &Scope, declared: &TypeExpr) -> Option<TensorType> {
        let lookup = |word: &str| scope.attributes.get(word).cloned();
        match tensor_type(declared, &lookup, &self.file) {
            Ok(ty) => {
                let mut dims: Vec<Dim> = Vec::with_capacity(ty.shape.rank());
                for (dim, expr) in ty.shape.dims().iter().zip(&declared.dims) {
                    match dim.try_bind(self.bindings) {
                        Ok(bound) => dims.push(bound),
                        Err(error) => {
                            let given = self.bindings.iter().map(|(name, value)| format!("{name} = {value}"));
                            let bound = format!("bound: {}", given.collect::<Vec<_>>().join(", "));
                            self.fault(expr.span, "dim.size", format!("`{dim}`: {error}")).note(bound);
                            return None;
                        }
                    }
                }
                Some(TensorType { shape: dims.into_iter().collect(), ..ty })
            }
            Err(faults) => {
                self.faults.extend(faults);
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
