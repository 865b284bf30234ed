//! Attributes of a call against the op's row in the table.

use crate::attribute::{AttrValue, Attribute, Literal};
use crate::diagnostic::Diagnostic;
use crate::op::{Op, OpEntry, OpError};
use crate::scalar::Number;
use crate::text::ast::{Call, Operand, Record, Span};
use crate::text::lower::Lowering;
use crate::text::suggest::{did_you_mean, nearest};
use crate::types::{Name, TensorType};

impl Lowering {
    /// The op of a call, or `None` after reporting what its attributes lack.
    pub(super) fn op(&mut self, entry: &'static OpEntry, call: &Call, ty: Option<&TensorType>) -> Option<Op> {
        let before = self.errors.len();
        let mut fields = self.op_fields(entry, call);
        if entry.mnemonic == "state" {
            fields.extend(self.state_operand(call));
        }
        self.missing(entry, call, &fields);
        if self.errors.len() > before {
            return None;
        }
        let attrs: Vec<(Name, AttrValue)> = fields.iter().map(|(n, value, _)| (n.clone(), value.clone())).collect();
        match Op::parse(entry.mnemonic, ty, &attrs) {
            Ok(op) => Some(literals(op)),
            Err(error) => {
                self.op_error(entry, call, error, &fields);
                None
            }
        }
    }

    fn op_fields(&mut self, entry: &'static OpEntry, call: &Call) -> Vec<(Name, AttrValue, Span)> {
        let empty = Record::default();
        let record = call.attributes.as_ref().unwrap_or(&empty);
        self.fields(record, &|key| {
            if entry.attributes.iter().any(|attribute| attribute.name == key) {
                return None;
            }
            let help = did_you_mean(key, entry.attributes.iter().map(|a| a.name)).unwrap_or_else(|| row(entry));
            Some((format!("`{}` has no attribute `{key}`", entry.mnemonic), Some(help)))
        })
    }

    /// `state @w` is the text of `state {name = "w"}`.
    fn state_operand(&mut self, call: &Call) -> Option<(Name, AttrValue, Span)> {
        match call.operands.as_slice() {
            [Operand::State(name)] => Some(("name".into(), AttrValue::Text(name.name.clone()), name.span)),
            _ => None,
        }
    }

    fn missing(&mut self, entry: &'static OpEntry, call: &Call, fields: &[(Name, AttrValue, Span)]) {
        let given = |name: &str| {
            let keys = call.attributes.iter().flat_map(|record| &record.fields).map(|field| &*field.key.name);
            means(keys, name, entry.attributes.iter().map(|a| a.name))
                || fields.iter().any(|(field, ..)| &**field == name)
        };
        let absent = entry.attributes.iter().filter(|a| a.default.is_none() && !given(a.name));
        for attribute in absent.collect::<Vec<_>>() {
            let message = format!("`{}` needs `{}`, {}", entry.mnemonic, attribute.name, attribute.kind);
            self.report(Diagnostic::error("attribute", message).help(row(entry)), call.callee.span);
        }
    }

    fn op_error(&mut self, entry: &'static OpEntry, call: &Call, error: OpError, fields: &[(Name, AttrValue, Span)]) {
        let (span, message) = match error {
            OpError::WrongKind(name, kind) => {
                let field = fields.iter().find(|(field, ..)| &**field == name);
                let span = field.map_or(call.callee.span, |(.., span)| *span);
                let given = field.map(|(_, value, _)| format!(", not `{value}`")).unwrap_or_default();
                let mut diagnostic = Diagnostic::error("attribute", format!("`{name}` is {kind}{given}"));
                if let Some((_, AttrValue::Word(word), _)) = field
                    && kind == bool::KIND
                {
                    diagnostic.help = did_you_mean(word, ["true", "false"]);
                }
                return self.report(diagnostic, span);
            }
            OpError::Missing("type") => {
                (call.callee.span, format!("`{}` needs its result type: `%y: f32[...] = {0}`", entry.mnemonic))
            }
            OpError::Missing(name) => (call.callee.span, format!("`{}` needs `{name}`", entry.mnemonic)),
            OpError::Unexpected(name) => (call.callee.span, format!("`{}` has no attribute `{name}`", entry.mnemonic)),
            OpError::Unknown => (call.callee.span, format!("there is no op `{}`", entry.mnemonic)),
        };
        let label = if message.contains("result type") { "type" } else { "attribute" };
        self.error(label, span, message);
    }
}

/// Whether one of `keys` is `name`, or misspelt so that the advice is `name`: that is one error, not two.
pub(super) fn means<'a>(
    mut keys: impl Iterator<Item = &'a str>,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> bool {
    keys.any(|key| key == name || (!known.clone().any(|k| k == key) && nearest(key, known.clone()) == Some(name)))
}

/// The numbers of a constant as values of its element type: `1` is `1.0` for a float. What is no such value stays, for
/// `infer` to report.
fn literals(op: Op) -> Op {
    let Op::Const(mut constant) = op else { return op };
    let dtype = constant.ty.dtype;
    let convert = |number: &Number| match number.to_dtype(dtype) {
        exact if dtype.is_float() || exact.to_f64() == number.to_f64() => exact,
        _ => *number,
    };
    constant.value = match &constant.value {
        Literal::Splat(number) => Literal::Splat(convert(number)),
        Literal::Dense(numbers) => Literal::Dense(numbers.iter().map(convert).collect()),
    };
    Op::Const(constant)
}

/// The op's row as advice: `conv x, w {strides, padding, dilation, groups = 1}`.
pub(super) fn row(entry: &OpEntry) -> String {
    let operands = entry.operands.join(", ");
    let attributes = entry.attributes.iter().map(|a| match a.default {
        Some(default) => format!("{} = {}", a.name, default.replace("Ints::new()", "[]")),
        None => a.name.to_owned(),
    });
    let attributes = attributes.collect::<Vec<_>>().join(", ");
    let gap = if operands.is_empty() { "" } else { " " };
    let record = if attributes.is_empty() { String::new() } else { format!(" {{{attributes}}}") };
    format!("its row is `{}{gap}{operands}{record}`", entry.mnemonic)
}
