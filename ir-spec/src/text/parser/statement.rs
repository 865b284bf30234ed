//! Statements, calls, regions and provenance.

use super::{Parsed, Parser, STATEMENTS, Stop, without_blank_end, without_blank_start};
use crate::text::ast::*;
use crate::text::lexer::TokenKind;
use crate::types::Name;

impl Parser<'_> {
    /// `{ statements }`.
    pub(super) fn body(&mut self) -> Parsed<Block> {
        let open = self.expect('{')?;
        self.nested(|p| p.statements(open))
    }

    /// Statements up to `}`, which is consumed.
    fn statements(&mut self, open: Span) -> Parsed<Block> {
        let mut statements = Vec::new();
        let mut leading = without_blank_start(self.leading());
        while !self.is('}') {
            if *self.kind() == TokenKind::End || self.starts_item() {
                let end = self.span();
                self.error_at(end, format!("the body that starts in line {} has no `}}`", open.line));
                return Ok(Block { statements, trailing: without_blank_end(leading), end });
            }
            let start = self.position;
            let span = self.span();
            match self.statement().and_then(|kind| self.no_bad_tail(kind)) {
                Ok(kind) => {
                    let trivia = self.close(leading);
                    statements.push(Statement { kind, span, trivia });
                }
                Err(stop) if self.fatal => return Err(stop),
                Err(_) => self.skip_to_statement(start),
            }
            leading = self.leading();
        }
        let end = self.span();
        self.bump();
        Ok(Block { statements, trailing: without_blank_end(leading), end })
    }

    /// What could not be read behind a statement belongs to it.
    fn no_bad_tail<T>(&mut self, parsed: T) -> Parsed<T> {
        if *self.kind() == TokenKind::Bad && self.continues_line() { Err(Stop) } else { Ok(parsed) }
    }

    fn statement(&mut self) -> Parsed<StatementKind> {
        let word = match self.kind() {
            TokenKind::Value(_) => return self.definition(),
            TokenKind::Word(word) => word.clone(),
            _ => return Err(self.unexpected("a statement, `%name = ...` or `return`")),
        };
        if !STATEMENTS.contains(&&*word) {
            let help = self.keyword_help(&STATEMENTS);
            let stop = self.unexpected("a statement, `%name = ...` or `return`");
            if let Some(last) = self.errors.last_mut() {
                last.help = help.or_else(|| Some(format!("name its result: `%y = {word} ...`")));
            }
            return Err(stop);
        }
        self.bump();
        match &*word {
            "return" => self.returned(),
            "yield" => Ok(StatementKind::Yield(self.values()?)),
            "predict" => Ok(StatementKind::Predict(self.applied()?)),
            "loss" => Ok(StatementKind::Loss(self.applied()?)),
            _ => Ok(StatementKind::Metric(self.applied()?)),
        }
    }

    /// `%y: type, %z = value`.
    fn definition(&mut self) -> Parsed<StatementKind> {
        let mut results = Vec::new();
        loop {
            let name = self.value()?;
            let ty = if self.eat(':') { Some(self.ty()?) } else { None };
            results.push(ResultItem { name, ty });
            if !self.eat(',') {
                break;
            }
        }
        self.expect('=')?;
        let value = self.applied()?;
        let provenance = self.origin()?;
        Ok(StatementKind::Define { results, value, provenance })
    }

    fn returned(&mut self) -> Parsed<StatementKind> {
        let values = self.values()?;
        let mut updates = Vec::new();
        if self.is_word("update") {
            self.bump();
            loop {
                let state = self.global()?;
                self.expect('=')?;
                updates.push((state, self.value()?));
                if !self.eat(',') {
                    break;
                }
            }
        }
        Ok(StatementKind::Return { values, updates })
    }

    /// `%a, %b`, possibly none; the first on this line.
    fn values(&mut self) -> Parsed<Vec<Ident>> {
        let mut values = Vec::new();
        if matches!(self.kind(), TokenKind::Value(_)) && self.continues_line() {
            values.push(self.value()?);
            while self.eat(',') {
                values.push(self.value()?);
            }
        }
        Ok(values)
    }

    /// `%x` or a call.
    fn applied(&mut self) -> Parsed<Applied> {
        if matches!(self.kind(), TokenKind::Value(_)) {
            return Ok(Applied::Value(self.value()?));
        }
        let callee = self.word("an op or a value")?;
        let operands = self.operands()?;
        let mut call = Call { callee, operands, attributes: None, regions: Vec::new() };
        while self.is('{') {
            if *self.kind_after(1) == TokenKind::Punct('(') {
                call.regions.push(self.region()?);
            } else if call.attributes.is_none() && call.regions.is_empty() {
                call.attributes = Some(self.record(false)?);
            } else {
                return Err(self.unexpected("the end of the statement"));
            }
        }
        Ok(Applied::Call(call))
    }

    fn operands(&mut self) -> Parsed<Vec<Operand>> {
        let mut operands = Vec::new();
        if !self.continues_line() || !self.starts_operand() {
            return Ok(operands);
        }
        loop {
            operands.push(self.operand()?);
            if !self.eat(',') {
                break;
            }
        }
        // `relu %a %b`: not the start of the next statement, `%b = ...`, on the same line.
        let next_starts = matches!(self.kind_after(1), TokenKind::Punct('=' | ':' | ','));
        if matches!(self.kind(), TokenKind::Value(_)) && self.continues_line() && !next_starts {
            return Err(self.unexpected("`,` between operands"));
        }
        Ok(operands)
    }

    fn starts_operand(&self) -> bool {
        match self.kind() {
            TokenKind::Value(_) | TokenKind::Int(_) | TokenKind::Float(_) => true,
            // Not the provenance of an op without operands.
            TokenKind::Global(_) => !matches!(self.kind_after(1), TokenKind::Punct(':' | '(')),
            TokenKind::Punct(c) => matches!(c, '(' | '-'),
            TokenKind::Word(word) => !matches!(&**word, "yield" | "return" | "update"),
            _ => false,
        }
    }

    fn operand(&mut self) -> Parsed<Operand> {
        match self.kind() {
            TokenKind::Value(_) => Ok(Operand::Value(self.value()?)),
            TokenKind::Global(_) => Ok(Operand::State(self.global()?)),
            TokenKind::Punct('(') if matches!(self.kind_after(1), TokenKind::Value(_)) => {
                Err(self.unexpected("operands without parentheses, as in `relu %x`"))
            }
            _ if self.starts_operand() => Ok(Operand::Scalar(self.scalar()?)),
            _ => Err(self.unexpected("an operand")),
        }
    }

    /// `{ (%a: type) -> statements }`.
    fn region(&mut self) -> Parsed<Region> {
        let span = self.expect('{')?;
        let params = self.params()?;
        if *self.kind() != TokenKind::Arrow {
            return Err(self.unexpected("`->`"));
        }
        self.bump();
        let body = self.nested(|p| p.statements(span))?;
        Ok(Region { span, params, body })
    }

    /// `@file:line` and `@grad(%x, 0)` behind a statement.
    pub(super) fn origin(&mut self) -> Parsed<Origin> {
        let mut origin = Origin::default();
        while let TokenKind::Global(name) = self.kind() {
            if !self.continues_line() {
                break;
            }
            let name = name.clone();
            self.bump();
            match (self.kind(), self.kind_after(1)) {
                (TokenKind::Punct(':'), &TokenKind::Int(line)) => {
                    origin.source = Some((name, u32::try_from(line).unwrap_or(u32::MAX)));
                    self.bump();
                    self.bump();
                }
                (TokenKind::Punct('('), _) if self.continues_line() => origin.derived = Some(self.derived(&name)?),
                _ => origin.derived = Some(name),
            }
        }
        Ok(origin)
    }

    /// `(%x, 0)` behind `@grad`, as written.
    fn derived(&mut self, name: &str) -> Parsed<Name> {
        let start = self.token().start;
        let mut open = 0_u32;
        loop {
            match self.kind() {
                TokenKind::Punct('(') => open += 1,
                TokenKind::Punct(')') => open -= 1,
                TokenKind::End => return Err(self.unexpected("`)`")),
                _ => {}
            }
            let end = self.token().end;
            self.bump();
            if open == 0 {
                return Ok(format!("{name}{}", &self.text[start..end]).into());
            }
            if !self.continues_line() {
                return Err(self.unexpected("`)`"));
            }
        }
    }

    /// Goes to the next line that starts a statement, past records and regions that the failed one opened, or to the
    /// brace that closes the body.
    fn skip_to_statement(&mut self, start: usize) {
        let failed = self.position;
        self.position = start;
        // For each open brace whether it opens a region: statements within a failed region are not looked at.
        let mut open: Vec<bool> = Vec::new();
        loop {
            let reached = self.position > failed || (self.position == failed && failed > start);
            match self.kind() {
                TokenKind::End => return,
                TokenKind::Value(name) if !(reached && self.starts_statement()) || open.last() == Some(&true) => {
                    self.lost.insert(name.clone());
                }
                TokenKind::Punct('{') => open.push(self.opens_region()),
                TokenKind::Punct('}') if open.pop().is_none() => return,
                TokenKind::Punct('}') => {}
                _ if !reached => {}
                _ if self.starts_item() => return,
                _ if self.starts_statement() && open.last() != Some(&true) => return,
                _ => {}
            }
            self.bump();
        }
    }

    /// `{ (%a` or `{ ()`.
    fn opens_region(&self) -> bool {
        let parameter = matches!(self.kind_after(2), TokenKind::Value(_) | TokenKind::Punct(')'));
        *self.kind_after(1) == TokenKind::Punct('(') && parameter
    }

    fn starts_statement(&self) -> bool {
        let follows = self.kind_after(1);
        let fits = match self.kind() {
            TokenKind::Value(_) => matches!(follows, TokenKind::Punct('=' | ':' | ',')),
            TokenKind::Word(word) => STATEMENTS.contains(&&**word) && *follows != TokenKind::Punct('='),
            _ => false,
        };
        fits && self.token().first
    }
}
