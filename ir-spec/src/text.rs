//! The text of a program, in two forms under one grammar.

use std::collections::HashSet;

use crate::diagnostic::Diagnostic;
use crate::graph::Location;
use crate::module::Module;
use crate::types::Name;

pub mod ast;
pub mod evaluate;
pub mod format;
mod lexer;
mod lower;
mod parser;
mod printer;
pub mod suggest;

pub use format::format;
pub(crate) use lower::lower;
pub use lower::{recipe, tensor_type};
pub use printer::{PrintOptions, print, print_graph, print_node};

/// The syntax tree of a text in either form. Nothing is resolved yet.
///
/// # Errors
/// Every finding under the labels `syntax`, `syntax.depth` and `type`, in the order of the text.
pub fn parse_source(file: impl Into<Name>, text: &str) -> Result<ast::Source, Vec<Diagnostic>> {
    let Parsed { source, errors, .. } = parse_tree(&file.into(), text);
    if errors.is_empty() { Ok(source) } else { Err(errors) }
}

/// The module of a text in graph form. Declared types are checked against `infer`.
///
/// # Errors
/// Every finding: what [`parse_source`] reports, `name`, `op.unknown`, `attribute`, `type`, `V3` for the number of
/// operands or results, and the labels of the ops' constraints.
pub fn parse_module(file: impl Into<Name>, text: &str) -> Result<Module, Vec<Diagnostic>> {
    let Parsed { source, mut errors, lost } = parse_tree(&file.into(), text);
    let (module, found) = lower::lower(&source, lost, !errors.is_empty());
    errors.extend(found);
    errors.sort_by_key(|d| d.at.as_ref().map(|at| (at.line, at.column)));
    if errors.is_empty() { Ok(module) } else { Err(errors) }
}

/// The text of a file's bytes.
///
/// # Errors
/// `syntax` at the first byte that is not UTF-8.
pub fn decode(file: impl Into<Name>, bytes: &[u8]) -> Result<&str, Vec<Diagnostic>> {
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let before = String::from_utf8_lossy(valid);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let at = Location { file: file.into(), line: number(line), column: number(column) };
        let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        vec![Diagnostic::error("syntax", format!("the byte {byte:#04x} is not UTF-8 text")).at(Some(at))]
    })
}

/// [`parse_source`] of a file's bytes.
///
/// # Errors
/// Those of [`decode`] and [`parse_source`].
pub fn parse_bytes(file: impl Into<Name>, bytes: &[u8]) -> Result<ast::Source, Vec<Diagnostic>> {
    let file = file.into();
    parse_source(file.clone(), decode(file, bytes)?)
}

/// What could be read of a text.
struct Parsed {
    source: ast::Source,
    errors: Vec<Diagnostic>,
    /// Values of statements that could not be read.
    lost: HashSet<Name>,
}

fn parse_tree(file: &Name, text: &str) -> Parsed {
    let lexed = lexer::lex(file, text);
    let blank = lexed.tokens.len() <= 1 && lexed.notes.iter().all(|n| matches!(n.kind, lexer::NoteKind::Blank));
    let mut parsed = parser::parse(file, text, lexed);
    if blank && parsed.errors.is_empty() {
        let at = ast::Span { line: 1, column: 1, width: 1 }.location(file);
        parsed.errors.push(Diagnostic::error("syntax", "the text is empty").at(Some(at)));
    }
    parsed
}
