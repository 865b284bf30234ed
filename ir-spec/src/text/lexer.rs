//! Text to tokens, with comments and empty lines kept beside them.
//!
//! The lexer never stops: what it cannot read becomes one diagnostic and a [`TokenKind::Bad`], which the parser skips
//! without a second message.

use std::collections::HashMap;

use crate::diagnostic::Diagnostic;
use crate::text::ast::Span;
use crate::types::Name;

/// One token.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) span: Span,
    /// Bytes `start..end` of the text.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Whether it is the first of its line.
    pub(crate) first: bool,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TokenKind {
    /// `%name`.
    Value(Name),
    /// `@name`.
    Global(Name),
    /// `name`.
    Word(Name),
    /// `12`.
    Int(u64),
    /// `0.5`.
    Float(f64),
    /// `"text"`.
    Text(Name),
    /// One of `( ) [ ] { } , : = + - * / %`.
    Punct(char),
    /// `->`.
    Arrow,
    /// Already reported.
    Bad,
    /// After the last one.
    End,
}

/// A comment or an empty line before the token of number `at`.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) at: usize,
    pub(crate) kind: NoteKind,
}

/// What a note is.
#[derive(Clone, Debug)]
pub(crate) enum NoteKind {
    Blank,
    /// On a line of its own.
    Line(Name),
    /// Behind a token.
    Behind(Name),
}

/// What the lexer made of a text.
#[derive(Debug)]
pub(crate) struct Lexed {
    pub(crate) tokens: Vec<Token>,
    pub(crate) notes: Vec<Note>,
    pub(crate) errors: Vec<Diagnostic>,
}

/// Whether `c` may stand in a name that is written without quotes.
pub(crate) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

/// Whether `c` may stand in `@name`; state names and file names hold slashes and dashes.
pub(crate) fn is_global_char(c: char) -> bool {
    is_name_char(c) || c == '/' || c == '-'
}

/// All tokens of a text.
pub(crate) fn lex(file: &Name, text: &str) -> Lexed {
    let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut lexer = Lexer {
        file,
        text,
        at: start,
        line: 1,
        column: 1,
        first: true,
        empty_lines: 0,
        names: HashMap::new(),
        out: Lexed { tokens: Vec::new(), notes: Vec::new(), errors: Vec::new() },
    };
    while lexer.step() {}
    lexer.out
}

struct Lexer<'a> {
    file: &'a Name,
    text: &'a str,
    at: usize,
    line: u32,
    column: u32,
    /// No token yet on this line.
    first: bool,
    empty_lines: u32,
    /// One allocation per distinct name.
    names: HashMap<&'a str, Name>,
    out: Lexed,
}

/// Place of the next character.
#[derive(Clone, Copy)]
struct Mark {
    at: usize,
    line: u32,
    column: u32,
}

impl<'a> Lexer<'a> {
    /// One token or one note; `false` after the last.
    fn step(&mut self) -> bool {
        let mark = self.mark();
        let Some(c) = self.peek() else {
            self.push(mark, TokenKind::End);
            return false;
        };
        match c {
            '\n' => self.newline(),
            ' ' | '\t' | '\r' => self.bump(),
            '#' => self.comment(),
            '"' => {
                let text = self.quoted(mark);
                self.push(mark, text.map_or(TokenKind::Bad, |t| TokenKind::Text(t.into())));
            }
            '%' => self.sigil(mark, is_name_char, TokenKind::Value),
            '@' => self.sigil(mark, is_global_char, TokenKind::Global),
            '-' if self.rest().starts_with("->") => {
                self.bump();
                self.bump();
                self.push(mark, TokenKind::Arrow);
            }
            '(' | ')' | '[' | ']' | '{' | '}' | ',' | ':' | '=' | '+' | '-' | '*' | '/' => {
                self.bump();
                self.push(mark, TokenKind::Punct(c));
            }
            '0'..='9' => self.number(mark),
            c if c.is_alphabetic() || c == '_' => {
                let word = self.take_while(is_name_char);
                let name = self.name(word);
                self.push(mark, TokenKind::Word(name));
            }
            c => {
                self.take_while(|other| other == c);
                self.error(mark, format!("unexpected character `{}`", c.escape_debug()));
                self.push(mark, TokenKind::Bad);
            }
        }
        true
    }

    fn newline(&mut self) {
        self.bump();
        if self.first {
            self.empty_lines += 1;
        }
        self.first = true;
    }

    fn comment(&mut self) {
        self.flush_empty_lines();
        let text = self.take_while(|c| c != '\n');
        let text = text[1..].trim();
        let text = self.name(text);
        let kind = if self.first { NoteKind::Line(text) } else { NoteKind::Behind(text) };
        self.out.notes.push(Note { at: self.out.tokens.len(), kind });
        // The line counts as used: its end makes no empty line.
        if self.peek().is_some() {
            self.bump();
        }
        self.first = true;
    }

    /// `%name`, `@"odd name"`, or the remainder sign.
    fn sigil(&mut self, mark: Mark, accept: fn(char) -> bool, kind: fn(Name) -> TokenKind) {
        let sigil = self.peek().unwrap_or('%');
        self.bump();
        let kind = match self.peek() {
            Some('"') => {
                let inner = self.mark();
                self.quoted(inner).map_or(TokenKind::Bad, |text| kind(text.into()))
            }
            Some(c) if accept(c) => {
                let word = self.take_while(accept);
                kind(self.name(word))
            }
            _ if sigil == '%' => TokenKind::Punct('%'),
            _ => {
                self.error(mark, format!("a name must follow `{sigil}`"));
                TokenKind::Bad
            }
        };
        self.push(mark, kind);
    }

    /// A quoted text with the escapes that the printer writes.
    fn quoted(&mut self, mark: Mark) -> Option<String> {
        self.bump();
        let mut text = String::new();
        let mut good = true;
        loop {
            let here = self.mark();
            match self.peek() {
                None | Some('\n') => {
                    self.error(mark, "the text has no closing `\"` on its line");
                    return None;
                }
                Some('"') => {
                    self.bump();
                    return good.then_some(text);
                }
                Some('\\') => match self.escape() {
                    Some(c) => text.push(c),
                    None => {
                        self.error(
                            here,
                            "unknown escape; `\\\"`, `\\\\`, `\\n`, `\\r`, `\\t`, `\\0`, `\\u{1f600}` exist",
                        );
                        good = false;
                    }
                },
                Some(c) => {
                    text.push(c);
                    self.bump();
                }
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        self.bump();
        let c = self.peek().filter(|&c| c != '\n')?;
        self.bump();
        Some(match c {
            '"' | '\\' | '\'' => c,
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '0' => '\0',
            'u' if self.peek() == Some('{') => {
                self.bump();
                let digits = self.take_while(|c| c.is_ascii_hexdigit());
                let value = u32::from_str_radix(digits, 16).ok()?;
                if self.peek() != Some('}') {
                    return None;
                }
                self.bump();
                char::from_u32(value)?
            }
            _ => return None,
        })
    }

    /// `12`, `0x7ff8`, `1.5`, `1e-3`.
    fn number(&mut self, mark: Mark) {
        let digit = |c: char| c.is_ascii_digit();
        if self.rest().starts_with("0x") {
            self.bump();
            self.bump();
            let digits = self.take_while(|c| c.is_alphanumeric());
            let value = u64::from_str_radix(digits, 16);
            return self
                .finish_number(mark, value.map(TokenKind::Int).map_err(|_| "not a hexadecimal number of 64 bits"));
        }
        self.take_while(digit);
        let mut float = false;
        if self.rest().starts_with('.') && self.rest()[1..].starts_with(digit) {
            self.bump();
            self.take_while(digit);
            float = true;
        }
        let exponent = self.rest().strip_prefix(['e', 'E']).map(|rest| rest.strip_prefix(['-', '+']).unwrap_or(rest));
        if exponent.is_some_and(|rest| rest.starts_with(digit)) {
            self.bump();
            self.bump();
            self.take_while(digit);
            float = true;
        }
        let tail = self.peek().is_some_and(is_name_char);
        if tail {
            self.take_while(is_name_char);
        }
        let text = &self.text[mark.at..self.at];
        let kind = if tail {
            Err("not a number; names start with a letter")
        } else if float {
            match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(TokenKind::Float(value)),
                _ => Err("the number is too large for a binary64; write `inf` for infinity"),
            }
        } else {
            text.parse::<u64>().map(TokenKind::Int).map_err(|_| "the integer is too large for 64 bits")
        };
        self.finish_number(mark, kind);
    }

    fn finish_number(&mut self, mark: Mark, kind: Result<TokenKind, &str>) {
        let kind = kind.unwrap_or_else(|message| {
            self.error(mark, message);
            TokenKind::Bad
        });
        self.push(mark, kind);
    }

    fn push(&mut self, mark: Mark, kind: TokenKind) {
        self.flush_empty_lines();
        let span = self.span(mark);
        self.out.tokens.push(Token { kind, span, start: mark.at, end: self.at, first: self.first });
        self.first = false;
    }

    fn flush_empty_lines(&mut self) {
        if std::mem::take(&mut self.empty_lines) > 0 {
            self.out.notes.push(Note { at: self.out.tokens.len(), kind: NoteKind::Blank });
        }
    }

    fn error(&mut self, mark: Mark, message: impl Into<String>) {
        let span = self.span(mark);
        let diagnostic = Diagnostic::error("syntax", message).at(Some(span.location(self.file))).width(span.width);
        self.out.errors.push(diagnostic);
    }

    fn span(&self, mark: Mark) -> Span {
        Span { line: mark.line, column: mark.column, width: self.column.saturating_sub(mark.column).max(1) }
    }

    fn name(&mut self, text: &'a str) -> Name {
        self.names.entry(text).or_insert_with(|| text.into()).clone()
    }

    fn mark(&self) -> Mark {
        Mark { at: self.at, line: self.line, column: self.column }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) {
        match self.peek() {
            Some('\n') => {
                self.at += 1;
                self.line = self.line.saturating_add(1);
                self.column = 1;
            }
            Some(c) => {
                self.at += c.len_utf8();
                self.column = self.column.saturating_add(1);
            }
            None => {}
        }
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(&accept) {
            self.bump();
        }
        &self.text[start..self.at]
    }
}
