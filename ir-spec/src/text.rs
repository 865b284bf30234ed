//! The text of a program, in two forms under one grammar.

use crate::diagnostic::Diagnostic;
use crate::types::Name;

pub mod ast;
mod lexer;
mod parser;
pub mod suggest;

/// The syntax tree of a text in either form. Nothing is resolved yet.
///
/// # Errors
/// Every finding under the labels `syntax`, `syntax.depth` and `type`, in the order of the text.
pub fn parse_source(file: impl Into<Name>, text: &str) -> Result<ast::Source, Vec<Diagnostic>> {
    let (source, errors) = parse_tree(&file.into(), text);
    if errors.is_empty() { Ok(source) } else { Err(errors) }
}

/// The tree of what could be read, and every finding.
fn parse_tree(file: &Name, text: &str) -> (ast::Source, Vec<Diagnostic>) {
    let lexed = lexer::lex(file, text);
    let blank = lexed.tokens.len() <= 1 && lexed.notes.iter().all(|n| matches!(n.kind, lexer::NoteKind::Blank));
    let (source, mut errors) = parser::parse(file, text, lexed);
    if blank && errors.is_empty() {
        let at = ast::Span { line: 1, column: 1, width: 1 }.location(file);
        errors.push(Diagnostic::error("syntax", "the text is empty").at(Some(at)));
    }
    (source, errors)
}
