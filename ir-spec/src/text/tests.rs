//! The laws of the text: both round trips, the place of every error, the limits.

mod binding;
mod errors;
mod formatting;
mod limits;
mod round_trip;

use super::*;

/// Label, line, column and width of every finding.
fn places(errors: &[Diagnostic]) -> Vec<(&str, u32, u32, u32)> {
    let place = |d: &Diagnostic| d.at.as_ref().map_or((0, 0), |at| (at.line, at.column));
    errors.iter().map(|d| (&*d.label, place(d).0, place(d).1, d.width)).collect()
}

/// The findings of a text in graph form.
fn findings(text: &str) -> Vec<Diagnostic> {
    parse_module("t.kiln", text).err().unwrap_or_default()
}

/// The module of a text that must be right.
fn module(text: &str) -> Module {
    match parse_module("t.kiln", text) {
        Ok(module) => module,
        Err(errors) => panic!("{}", crate::diagnostic::render_all(&errors, &|_| Some(text.to_owned()))),
    }
}
