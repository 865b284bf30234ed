//! Tokens to syntax tree, by recursive descent.
//!
//! A statement ends where the next one starts, so line ends matter in two places only: the first operand stands on
//! the line of its op, and after an error the parser goes on at the next statement or item that starts a line.

use std::collections::HashSet;

use crate::diagnostic::Diagnostic;
use crate::text::ast::*;
use crate::text::lexer::{Lexed, Note, NoteKind, Token, TokenKind};
use crate::text::suggest::did_you_mean;
use crate::types::Name;

mod expression;
#[cfg(test)]
pub(crate) use expression::parse_layout as layout;
mod item;
mod statement;

/// How deep brackets, regions and operators nest. Recursion stays far below the 2 MiB stack of a thread.
pub const DEPTH_LIMIT: u32 = 256;

/// The diagnostic is already recorded.
pub(crate) struct Stop;

type Parsed<T> = Result<T, Stop>;

/// Words that start an item.
const ITEMS: [&str; 6] = ["state", "graph", "model", "block", "train", "weights"];

/// Words that start a statement.
const STATEMENTS: [&str; 5] = ["return", "yield", "predict", "loss", "metric"];

/// The tree of a token list, and everything that is wrong with it.
pub(crate) fn parse(file: &Name, text: &str, lexed: Lexed) -> super::Parsed {
    let mut parser = Parser {
        file: file.clone(),
        text,
        tokens: lexed.tokens,
        position: 0,
        notes: lexed.notes,
        note: 0,
        errors: lexed.errors,
        depth: 0,
        tallest: 0,
        brackets: 0,
        fatal: false,
        lost: HashSet::new(),
    };
    let (items, trailing) = parser.items();
    let mut errors = parser.errors;
    errors.sort_by_key(|d| d.at.as_ref().map(|at| (at.line, at.column)));
    super::Parsed { source: Source { file: file.clone(), items, trailing }, errors, lost: parser.lost }
}

struct Parser<'a> {
    file: Name,
    text: &'a str,
    /// Ends with [`TokenKind::End`].
    tokens: Vec<Token>,
    position: usize,
    notes: Vec<Note>,
    note: usize,
    errors: Vec<Diagnostic>,
    depth: u32,
    /// Height of the tallest expression of the list or record at hand.
    tallest: u32,
    /// Open round and square brackets and records: line ends mean nothing within.
    brackets: u32,
    /// Nesting was too deep: nothing after it can be trusted.
    fatal: bool,
    /// Values of statements that were skipped: their uses are no errors of their own.
    lost: HashSet<Name>,
}

impl Parser<'_> {
    fn token_at(&self, position: usize) -> &Token {
        let last = self.tokens.len().saturating_sub(1);
        &self.tokens[position.min(last)]
    }

    fn token(&self) -> &Token {
        self.token_at(self.position)
    }

    fn kind(&self) -> &TokenKind {
        &self.token().kind
    }

    fn kind_after(&self, steps: usize) -> &TokenKind {
        &self.token_at(self.position + steps).kind
    }

    fn span(&self) -> Span {
        self.token().span
    }

    fn bump(&mut self) {
        self.position = (self.position + 1).min(self.tokens.len().saturating_sub(1));
    }

    fn is(&self, punct: char) -> bool {
        *self.kind() == TokenKind::Punct(punct)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.kind(), TokenKind::Word(name) if &**name == word)
    }

    fn eat(&mut self, punct: char) -> bool {
        let found = self.is(punct);
        if found {
            self.bump();
        }
        found
    }

    fn expect(&mut self, punct: char) -> Parsed<Span> {
        let span = self.span();
        if self.eat(punct) { Ok(span) } else { Err(self.unexpected(&format!("`{punct}`"))) }
    }

    /// Whether the token stands on the line of the one before.
    fn continues_line(&self) -> bool {
        !self.token().first
    }

    /// `%name`.
    fn value(&mut self) -> Parsed<Ident> {
        match self.kind() {
            TokenKind::Value(name) => {
                let ident = Ident { name: name.clone(), span: self.span() };
                self.bump();
                Ok(ident)
            }
            _ => Err(self.unexpected("a value `%name`")),
        }
    }

    /// `@name`.
    fn global(&mut self) -> Parsed<Ident> {
        match self.kind() {
            TokenKind::Global(name) => {
                let ident = Ident { name: name.clone(), span: self.span() };
                self.bump();
                Ok(ident)
            }
            _ => Err(self.unexpected("a name `@name`")),
        }
    }

    fn word(&mut self, what: &str) -> Parsed<Ident> {
        match self.kind() {
            TokenKind::Word(name) => {
                let ident = Ident { name: name.clone(), span: self.span() };
                self.bump();
                Ok(ident)
            }
            _ => Err(self.unexpected(what)),
        }
    }

    /// Records that `wanted` should stand here.
    fn unexpected(&mut self, wanted: &str) -> Stop {
        let found = match self.kind() {
            TokenKind::Bad => return Stop,
            TokenKind::End => "the end of the text".to_owned(),
            _ => {
                let token = self.token();
                let shown: String = self.text[token.start..token.end].chars().take(40).collect();
                format!("`{shown}`")
            }
        };
        self.error_at(self.span(), format!("expected {wanted}, found {found}"))
    }

    fn error_at(&mut self, span: Span, message: impl Into<String>) -> Stop {
        self.report(Diagnostic::error("syntax", message), span)
    }

    fn report(&mut self, diagnostic: Diagnostic, span: Span) -> Stop {
        self.errors.push(diagnostic.at(Some(span.location(&self.file))).width(span.width));
        Stop
    }

    /// Parses one level deeper.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH_LIMIT {
            return Err(self.too_deep());
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Parses between brackets, where line ends mean nothing.
    fn bracketed<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.brackets += 1;
        let parsed = self.nested(parse);
        self.brackets -= 1;
        parsed
    }

    fn too_deep(&mut self) -> Stop {
        self.fatal = true;
        let message = format!("brackets, regions or operators are nested deeper than {DEPTH_LIMIT}");
        let help = "take out brackets that change nothing, or give a part a line and a name of its own";
        self.report(Diagnostic::error("syntax.depth", message).help(help), self.span())
    }

    /// Comments and empty lines before the current token.
    fn leading(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some(note) = self.notes.get(self.note).filter(|note| note.at <= self.position) {
            lines.push(match &note.kind {
                NoteKind::Blank => Line::Blank,
                NoteKind::Line(text) | NoteKind::Behind(text) => Line::Comment(text.clone()),
            });
            self.note += 1;
        }
        lines
    }

    /// Completes the trivia of what ended before the current token: comments within move above it, a comment behind
    /// it stays.
    fn close(&mut self, leading: Vec<Line>) -> Trivia {
        let mut trivia = Trivia { leading, trailing: None };
        while let Some(note) = self.notes.get(self.note) {
            match &note.kind {
                NoteKind::Behind(text) if note.at == self.position => {
                    trivia.trailing = Some(text.clone());
                    self.note += 1;
                    break;
                }
                _ if note.at >= self.position => break,
                NoteKind::Blank => {}
                NoteKind::Line(text) | NoteKind::Behind(text) => trivia.leading.push(Line::Comment(text.clone())),
            }
            self.note += 1;
        }
        trivia
    }

    /// Advice for a misspelt keyword.
    fn keyword_help(&self, words: &[&'static str]) -> Option<String> {
        match self.kind() {
            TokenKind::Word(name) => did_you_mean(name, words.iter().copied()),
            _ => None,
        }
    }
}

/// Empty lines at the start of a body are not kept.
fn without_blank_start(mut lines: Vec<Line>) -> Vec<Line> {
    if lines.first() == Some(&Line::Blank) {
        lines.remove(0);
    }
    lines
}

/// Empty lines at the end of a body are not kept.
fn without_blank_end(mut lines: Vec<Line>) -> Vec<Line> {
    if lines.last() == Some(&Line::Blank) {
        lines.pop();
    }
    lines
}
