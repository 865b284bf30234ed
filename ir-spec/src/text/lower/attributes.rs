//! Attributes of a call against the op's row in the table.

use crate::attribute::{AttrValue, Attribute, Literal};
use crate::diagnostic::Diagnostic;
use crate::op::{Op, OpEntry, OpError};
use crate::text::ast::{Call, Operand, Record, Span};
use crate::text::lower::Lowering;
use crate::text::suggest::did_you_mean;
use crate::types::{DType, Name, TensorType};

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
            Ok(op) => self.literals(op, &fields),
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
            let written = call.attributes.as_ref().is_some_and(|record| record.get(name).is_some());
            written || fields.iter().any(|(field, ..)| &**field == name)
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

    /// The numbers of a constant as values of its element type: `1` is `1.0` for a float.
    fn literals(&mut self, op: Op, fields: &[(Name, AttrValue, Span)]) -> Option<Op> {
        let Op::Const(mut constant) = op else { return Some(op) };
        let dtype = constant.ty.dtype;
        let numbers = match &constant.value {
            Literal::Splat(number) => std::slice::from_ref(number),
            Literal::Dense(numbers) => numbers,
        };
        let broken = |n: &&crate::scalar::Number| !dtype.is_float() && n.to_f64() != n.to_dtype(dtype).to_f64();
        if let Some(number) = numbers.iter().find(broken) {
            let span = fields.first().map_or(Span::default(), |(.., span)| *span);
            let kind = if dtype == DType::Bool { "true or false" } else { "an integer" };
            self.error("attribute", span, format!("an element of {dtype} is {kind}, not {}", number.to_f64()));
            return None;
        }
        constant.value = match &constant.value {
            Literal::Splat(number) => Literal::Splat(number.to_dtype(dtype)),
            Literal::Dense(numbers) => Literal::Dense(numbers.iter().map(|n| n.to_dtype(dtype)).collect()),
        };
        Some(Op::Const(constant))
    }
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
