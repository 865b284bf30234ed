//! Items: states, graphs, models, blocks, recipes.

use super::{ITEMS, Parsed, Parser, without_blank_end, without_blank_start};
use crate::text::ast::*;
use crate::text::lexer::TokenKind;

impl Parser<'_> {
    /// All items of the file, and what stands behind the last.
    pub(super) fn items(&mut self) -> (Vec<Item>, Vec<Line>) {
        let mut items = Vec::new();
        let mut leading = without_blank_start(self.leading());
        while *self.kind() != TokenKind::End && !self.fatal {
            let span = self.span();
            let start = self.position;
            match self.item() {
                Ok(kind) => {
                    let trivia = self.close(leading);
                    items.push(Item { kind, span, trivia });
                }
                Err(_) if self.fatal => break,
                Err(_) => self.skip_to_item(start),
            }
            leading = self.leading();
        }
        (items, without_blank_end(leading))
    }

    fn item(&mut self) -> Parsed<ItemKind> {
        let word = match self.kind() {
            TokenKind::Word(name) => name.clone(),
            _ => return Err(self.unexpected("an item: state, graph, model, block, train or weights")),
        };
        if !ITEMS.contains(&&*word) {
            let help = self.keyword_help(&ITEMS);
            let stop = self.unexpected("an item: state, graph, model, block, train or weights");
            if let Some(last) = self.errors.last_mut() {
                last.help = help;
            }
            return Err(stop);
        }
        self.bump();
        match &*word {
            "state" => self.state().map(ItemKind::State),
            "graph" => self.graph().map(ItemKind::Graph),
            "model" => self.graph().map(ItemKind::Model),
            "block" => self.block_item().map(ItemKind::Block),
            "train" => self.record(false).map(ItemKind::Train),
            _ => self.record(true).map(ItemKind::Weights),
        }
    }

    /// Goes to the next line that starts an item.
    fn skip_to_item(&mut self, start: usize) {
        if self.position == start {
            self.bump();
        }
        while *self.kind() != TokenKind::End && !self.starts_item() {
            self.bump();
        }
    }

    /// Whether a line starts here that can only be an item.
    pub(super) fn starts_item(&self) -> bool {
        let TokenKind::Word(word) = self.kind() else { return false };
        let fits = match &**word {
            "state" | "graph" | "model" => matches!(self.kind_after(1), TokenKind::Global(_)),
            "block" => matches!(self.kind_after(1), TokenKind::Word(_)),
            "train" | "weights" => *self.kind_after(1) == TokenKind::Punct('{'),
            _ => false,
        };
        fits && self.token().first
    }

    fn state(&mut self) -> Parsed<StateItem> {
        let name = self.global()?;
        self.expect(':')?;
        let ty = self.ty()?;
        self.expect('=')?;
        let role = self.word("a role: param, moment, statistic or counter")?;
        let init = self.word("an initialiser: constant, uniform, normal, glorot, he or fan_in")?;
        let attributes = if self.is('{') { Some(self.record(false)?) } else { None };
        let provenance = self.origin()?;
        Ok(StateItem { name, ty, role, init, attributes, provenance })
    }

    fn graph(&mut self) -> Parsed<GraphItem> {
        let name = self.global()?;
        let params = self.params()?;
        let body = self.body()?;
        Ok(GraphItem { name, params, body })
    }

    /// `(%x: type below N, ...)`.
    pub(super) fn params(&mut self) -> Parsed<Vec<ParamItem>> {
        self.expect('(')?;
        self.bracketed(|p| p.separated(')', Self::param))
    }

    fn param(&mut self) -> Parsed<ParamItem> {
        let name = self.value()?;
        self.expect(':')?;
        let ty = self.ty()?;
        let mut below = None;
        if self.is_word("below") {
            self.bump();
            match *self.kind() {
                TokenKind::Int(bound) => below = Some(bound),
                _ => return Err(self.unexpected("the bound, a positive integer")),
            }
            self.bump();
        }
        Ok(ParamItem { name, ty, below })
    }

    fn block_item(&mut self) -> Parsed<BlockItem> {
        let name = self.word("the block's name")?;
        self.expect('(')?;
        let mut operands = Vec::new();
        let mut attributes = Vec::new();
        self.bracketed(|p| {
            p.separated(')', |p| {
                if attributes.is_empty() && matches!(p.kind(), TokenKind::Value(_)) {
                    operands.push(p.value()?);
                } else {
                    let name = p.word("an attribute of the block (operands `%name` come first)")?;
                    let default = if p.eat('=') { Some(p.expression()?) } else { None };
                    attributes.push(BlockAttribute { name, default });
                }
                Ok(())
            })
        })?;
        let body = self.body()?;
        Ok(BlockItem { name, operands, attributes, body })
    }

    /// Elements separated by commas up to `close`, which is consumed; a comma may stand before it.
    pub(super) fn separated<T>(
        &mut self,
        close: char,
        mut element: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        let mut elements = Vec::new();
        while !self.eat(close) {
            elements.push(element(self)?);
            if !self.eat(',') && !self.is(close) {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
        Ok(elements)
    }

    /// `{key = value, ...}`; with `flags` a value may be followed by a word, and a key may be a pattern in quotes.
    pub(super) fn record(&mut self, flags: bool) -> Parsed<Record> {
        let span = self.expect('{')?;
        self.bracketed(|p| {
            let mut fields = Vec::new();
            let mut leading = without_blank_start(p.leading());
            while !p.is('}') {
                let key = p.key(flags)?;
                p.expect('=')?;
                let value = p.field_value(flags)?;
                let comma = p.eat(',');
                if !comma && !p.is('}') {
                    return Err(p.unexpected("`,` or `}`"));
                }
                let trivia = p.close(leading);
                fields.push(Field { key, value, trivia });
                leading = p.leading();
            }
            p.bump();
            Ok(Record { span, fields, trailing: without_blank_end(leading) })
        })
    }

    fn key(&mut self, flags: bool) -> Parsed<Ident> {
        match self.kind() {
            TokenKind::Text(name) if flags && name.contains('{') => {
                let ident = Ident { name: name.clone(), span: self.span() };
                self.bump();
                Ok(ident)
            }
            _ => self.word("a name or `}`"),
        }
    }

    fn field_value(&mut self, flags: bool) -> Parsed<Expr> {
        let value = self.expression()?;
        let flag = match self.kind() {
            TokenKind::Word(word) if flags => Expr { kind: ExprKind::Word(word.clone()), span: self.span() },
            _ => return Ok(value),
        };
        self.bump();
        let span = value.span;
        Ok(Expr { kind: ExprKind::List(vec![value, flag]), span })
    }
}
