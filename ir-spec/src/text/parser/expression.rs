//! Types and expressions.

use super::{DEPTH_LIMIT, Parsed, Parser};
use crate::diagnostic::Diagnostic;
use crate::text::ast::*;
use crate::text::lexer::TokenKind;
use crate::text::suggest::did_you_mean;
use crate::types::{DType, Layout};

/// An expression with the height of its tree: chains of operators make trees as high as brackets do.
type Tall = (Expr, u32);

impl Parser<'_> {
    /// `f32[batch, 64]@nChw16c`.
    pub(super) fn ty(&mut self) -> Parsed<TypeExpr> {
        let start = self.token().clone();
        let word = self.word("a type such as `f32[2, 3]`")?;
        let dtype = DType::parse(&word.name);
        if dtype.is_none() {
            let mut diagnostic = Diagnostic::error("type", format!("there is no element type `{}`", word.name));
            diagnostic.help = did_you_mean(&word.name, DType::ALL.iter().map(|d| d.name()))
                .or_else(|| Some("f32 f64 bf16 f16 i8 u8 i32 u32 i64 bool exist".to_owned()));
            self.report(diagnostic, word.span);
        }
        self.expect('[')?;
        let dims = self.bracketed(|p| p.separated(']', Self::expression))?;
        let mut layout = Layout::default();
        let end = self.position.saturating_sub(1);
        let mut last = self.token_at(end).clone();
        if let TokenKind::Global(name) = self.kind()
            && self.token().start == last.end
        {
            let parsed = parse_layout(name);
            last = self.token().clone();
            if parsed.is_none() {
                let message = format!("`@{name}` is not a layout; one is written like `nhwc` or `nChw16c`");
                self.report(Diagnostic::error("type", message), last.span);
            }
            layout = parsed.unwrap_or_default();
            self.bump();
        }
        let width = match last.span.line == start.span.line {
            true => last.span.column + last.span.width - start.span.column,
            false => start.span.width,
        };
        let span = Span { width, ..start.span };
        Ok(TypeExpr { dtype: dtype.unwrap_or(DType::F32), dims, layout, span })
    }

    /// Any expression.
    pub(super) fn expression(&mut self) -> Parsed<Expr> {
        let (expr, height) = self.sum(true)?;
        self.tallest = self.tallest.max(height);
        Ok(expr)
    }

    /// An operand that is a number: no record may follow a word, it would be the op's attributes.
    pub(super) fn scalar(&mut self) -> Parsed<Expr> {
        Ok(self.sum(false)?.0)
    }

    fn sum(&mut self, records: bool) -> Parsed<Tall> {
        self.chain(|p| p.product(records), |p| p.operator(&[BinaryOp::Add, BinaryOp::Sub]))
    }

    fn product(&mut self, records: bool) -> Parsed<Tall> {
        self.chain(|p| p.unary(records), |p| p.operator(&[BinaryOp::Mul, BinaryOp::Div, BinaryOp::Rem]))
    }

    fn chain(
        &mut self,
        part: impl Fn(&mut Self) -> Parsed<Tall>,
        operator: impl Fn(&mut Self) -> Option<BinaryOp>,
    ) -> Parsed<Tall> {
        let (mut left, mut height) = part(self)?;
        while let Some(op) = operator(self) {
            let (right, other) = part(self)?;
            height = height.max(other) + 1;
            if height > DEPTH_LIMIT {
                return Err(self.too_deep());
            }
            let span = join(left.span, right.span);
            left = Expr { kind: ExprKind::Binary(op, Box::new(left), Box::new(right)), span };
        }
        Ok((left, height))
    }

    /// Consumes one of `wanted`.
    fn operator(&mut self, wanted: &[BinaryOp]) -> Option<BinaryOp> {
        if self.brackets == 0 && !self.continues_line() {
            return None;
        }
        let op = match self.kind() {
            TokenKind::Punct('+') => BinaryOp::Add,
            TokenKind::Punct('-') => BinaryOp::Sub,
            TokenKind::Punct('*') => BinaryOp::Mul,
            TokenKind::Punct('/') => BinaryOp::Div,
            TokenKind::Punct('%') => BinaryOp::Rem,
            _ => return self.tight_remainder(wanted),
        };
        if !wanted.contains(&op) {
            return None;
        }
        self.bump();
        Some(op)
    }

    /// `a %4` and `a %b`: between brackets no value can follow an expression, so the sign is the remainder's.
    fn tight_remainder(&mut self, wanted: &[BinaryOp]) -> Option<BinaryOp> {
        let TokenKind::Value(name) = self.kind() else { return None };
        if self.brackets == 0 || !wanted.contains(&BinaryOp::Rem) {
            return None;
        }
        let kind = match name.parse::<u64>() {
            Ok(value) => TokenKind::Int(value),
            Err(_) => TokenKind::Word(name.clone()),
        };
        let position = self.position;
        if let Some(token) = self.tokens.get_mut(position) {
            token.kind = kind;
            token.start += 1;
            token.span.column += 1;
            token.span.width = token.span.width.saturating_sub(1).max(1);
        }
        Some(BinaryOp::Rem)
    }

    /// Parses a list or a record, and the height of a tree that holds it.
    fn measured<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<(T, u32)> {
        let outer = std::mem::take(&mut self.tallest);
        let parsed = parse(self)?;
        let height = std::mem::replace(&mut self.tallest, outer) + 1;
        Ok((parsed, height))
    }

    fn unary(&mut self, records: bool) -> Parsed<Tall> {
        let span = self.span();
        if !self.eat('-') {
            return self.primary(records);
        }
        if let TokenKind::Int(value) = *self.kind() {
            let width = self.span();
            self.bump();
            return match 0_i64.checked_sub_unsigned(value) {
                Some(value) => Ok((Expr { kind: ExprKind::Int(value), span: join(span, width) }, 0)),
                None => Err(self.error_at(width, "the integer is too large for 64 bits")),
            };
        }
        let (inner, height) = self.nested(|p| p.unary(records))?;
        let span = join(span, inner.span);
        let kind = match inner.kind {
            ExprKind::Float(value) => ExprKind::Float(-value),
            _ => ExprKind::Negate(Box::new(inner)),
        };
        Ok((Expr { kind, span }, height + 1))
    }

    fn primary(&mut self, records: bool) -> Parsed<Tall> {
        let span = self.span();
        let kind = match self.kind().clone() {
            TokenKind::Int(value) => match i64::try_from(value) {
                Ok(value) => ExprKind::Int(value),
                Err(_) => return Err(self.error_at(span, "the integer is too large for 64 bits with a sign")),
            },
            TokenKind::Float(value) => ExprKind::Float(value),
            TokenKind::Text(text) => ExprKind::Text(text),
            TokenKind::Global(name) => ExprKind::Global(name),
            TokenKind::Word(word) => return self.word_expression(&word, records),
            TokenKind::Punct('(') => {
                self.bump();
                return self.bracketed(|p| {
                    let inner = p.sum(true)?;
                    p.expect(')')?;
                    Ok(inner)
                });
            }
            TokenKind::Punct('[') => {
                self.bump();
                let list = |p: &mut Self| p.bracketed(|p| p.separated(']', Self::expression));
                let (items, height) = self.measured(list)?;
                return Ok((Expr { kind: ExprKind::List(items), span }, height));
            }
            TokenKind::Punct('{') if records => {
                let (record, height) = self.measured(|p| p.record(false))?;
                return Ok((Expr { kind: ExprKind::Record(None, record), span }, height));
            }
            _ => return Err(self.unexpected("an expression")),
        };
        self.bump();
        Ok((Expr { kind, span }, 0))
    }

    fn word_expression(&mut self, word: &str, records: bool) -> Parsed<Tall> {
        let ident = self.word("a word")?;
        let span = ident.span;
        let kind = match word {
            "true" => ExprKind::Bool(true),
            "false" => ExprKind::Bool(false),
            "inf" => ExprKind::Float(f64::INFINITY),
            "nan" if self.is('(') => return self.nan_payload(span),
            "nan" => ExprKind::Float(f64::NAN),
            _ if records && self.is('{') => {
                let (record, height) = self.measured(|p| p.record(false))?;
                return Ok((Expr { kind: ExprKind::Record(Some(ident), record), span }, height));
            }
            _ => ExprKind::Word(ident.name),
        };
        Ok((Expr { kind, span }, 0))
    }

    /// `nan(0xfff8000000000000)`: the bits of a NaN that is not the usual one.
    fn nan_payload(&mut self, span: Span) -> Parsed<Tall> {
        self.expect('(')?;
        let bits = match *self.kind() {
            TokenKind::Int(bits) if f64::from_bits(bits).is_nan() => bits,
            _ => return Err(self.unexpected("the bits of a NaN")),
        };
        self.bump();
        self.expect(')')?;
        Ok((Expr { kind: ExprKind::Float(f64::from_bits(bits)), span }, 0))
    }
}

/// From the start of `a` to the end of `b`, if they share a line.
fn join(a: Span, b: Span) -> Span {
    if a.line == b.line && b.column >= a.column { Span { width: b.column + b.width - a.column, ..a } } else { a }
}

/// Inverse of the layout's text: `nhwc`, `nChw16c`.
pub(crate) fn parse_layout(text: &str) -> Option<Layout> {
    let dim = |c: char| "nchwdefg".find(c.to_ascii_lowercase()).and_then(|d| u8::try_from(d).ok());
    let mut layout = Layout::default();
    let mut blocked = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next().filter(char::is_ascii_alphabetic) {
        let d = dim(c)?;
        if c.is_ascii_uppercase() {
            blocked.push(d);
        }
        layout.order.push(d);
        rest = &rest[1..];
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let elements = rest[..digits].parse::<u8>().ok()?;
        let c = rest[digits..].chars().next().filter(char::is_ascii_lowercase)?;
        layout.blocks.push((dim(c)?, elements));
        rest = &rest[digits + 1..];
    }
    let agree = blocked.iter().all(|d| layout.blocks.iter().any(|(b, _)| b == d))
        && layout.blocks.iter().all(|(b, _)| layout.order.is_empty() || blocked.contains(b));
    (agree && !(layout.order.is_empty() && layout.blocks.is_empty())).then_some(layout)
}
