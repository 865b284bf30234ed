//! Canonical form of a text, comments kept: `kiln fmt`.
//!
//! Works on the syntax tree, so it needs no meaning: scripts with unknown layers are formatted too. Formatting twice
//! changes nothing, and the printed form of a module is already formatted.

use crate::diagnostic::Diagnostic;
use crate::text::ast::*;
use crate::text::lexer::is_name_char;
use crate::text::printer::{WIDTH, write_derived, write_global, write_number, write_text, write_value};
use crate::types::Layout;

/// The canonical form of a text in either form.
///
/// # Errors
/// Every syntax error, as [`super::parse_source`] reports them; the text is then left as it is. A text of nothing but
/// comments is fine.
pub fn format(text: &str) -> Result<String, Vec<Diagnostic>> {
    format_file("<text>", text)
}

/// [`format()`] with the file's name for the diagnostics.
///
/// # Errors
/// Every syntax error.
pub fn format_file(file: &str, text: &str) -> Result<String, Vec<Diagnostic>> {
    Ok(source(&super::parse_source(file, text)?))
}

/// The canonical text of a tree.
pub fn source(source: &Source) -> String {
    let mut writer = Writer { out: String::new(), depth: 0 };
    let mut previous: Option<&ItemKind> = None;
    for item in &source.items {
        let apart = previous.is_some_and(|previous| !both_states(previous, &item.kind));
        if apart && item.trivia.leading.first() != Some(&Line::Blank) {
            writer.out.push('\n');
        }
        writer.leading(&item.trivia, 0);
        writer.item(&item.kind);
        writer.trailing(&item.trivia);
        previous = Some(&item.kind);
    }
    writer.lines(&source.trailing, 0);
    writer.out
}

fn both_states(a: &ItemKind, b: &ItemKind) -> bool {
    matches!((a, b), (ItemKind::State(_), ItemKind::State(_)))
}

struct Writer {
    out: String,
    /// Of the line at hand.
    depth: usize,
}

impl Writer {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn indent(&mut self, depth: usize) {
        for _ in 0..depth {
            self.push("  ");
        }
    }

    fn leading(&mut self, trivia: &Trivia, depth: usize) {
        self.lines(&trivia.leading, depth);
    }

    fn lines(&mut self, lines: &[Line], depth: usize) {
        for line in lines {
            if let Line::Comment(text) = line {
                self.indent(depth);
                self.comment(text);
            }
            self.push("\n");
        }
    }

    fn comment(&mut self, text: &str) {
        self.push(if text.is_empty() { "#" } else { "# " });
        self.push(text);
    }

    fn trailing(&mut self, trivia: &Trivia) {
        if let Some(text) = &trivia.trailing {
            self.push(" ");
            self.comment(text);
        }
        self.push("\n");
    }

    fn item(&mut self, item: &ItemKind) {
        match item {
            ItemKind::State(state) => self.state(state),
            ItemKind::Graph(graph) => self.graph("graph ", graph),
            ItemKind::Model(graph) => self.graph("model ", graph),
            ItemKind::Block(block) => self.block_item(block),
            ItemKind::Train(record) => self.long_record("train ", record, false),
            ItemKind::Weights(record) => self.long_record("weights ", record, true),
        }
    }

    fn state(&mut self, state: &StateItem) {
        self.push("state ");
        write_global(&mut self.out, &state.name.name);
        self.push(": ");
        self.ty(&state.ty);
        self.push(" = ");
        self.push(&state.role.name);
        self.push(" ");
        self.push(&state.init.name);
        self.attributes(state.attributes.as_ref());
        self.origin(&state.provenance);
    }

    fn graph(&mut self, keyword: &str, graph: &GraphItem) {
        self.push(keyword);
        write_global(&mut self.out, &graph.name.name);
        self.params(&graph.params);
        self.push(" {\n");
        self.body(&graph.body, 0);
    }

    fn block_item(&mut self, block: &BlockItem) {
        self.push("block ");
        self.push(&block.name.name);
        self.push("(");
        self.separated(&block.operands, |w, operand| write_value(&mut w.out, &operand.name));
        if !block.operands.is_empty() && !block.attributes.is_empty() {
            self.push(", ");
        }
        self.separated(&block.attributes, |w, attribute| {
            w.push(&attribute.name.name);
            if let Some(default) = &attribute.default {
                w.push(" = ");
                w.expr(default);
            }
        });
        self.push(") {\n");
        self.body(&block.body, 0);
    }

    fn separated<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Writer, &T)) {
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.push(", ");
            }
            write(self, item);
        }
    }

    fn params(&mut self, params: &[ParamItem]) {
        self.push("(");
        self.separated(params, |w, param| {
            write_value(&mut w.out, &param.name.name);
            w.push(": ");
            w.ty(&param.ty);
            if let Some(bound) = param.below {
                w.push(&format!(" below {bound}"));
            }
        });
        self.push(")");
    }

    /// Statements and the closing brace of a body at `depth`.
    fn body(&mut self, body: &Block, depth: usize) {
        for statement in &body.statements {
            self.leading(&statement.trivia, depth + 1);
            self.indent(depth + 1);
            self.statement(&statement.kind, depth + 1);
            self.trailing(&statement.trivia);
        }
        self.lines(&body.trailing, depth + 1);
        self.indent(depth);
        self.push("}");
    }

    fn statement(&mut self, statement: &StatementKind, depth: usize) {
        self.depth = depth;
        match statement {
            StatementKind::Define { results, value, provenance } => {
                self.separated(results, |w, result| {
                    write_value(&mut w.out, &result.name.name);
                    if let Some(ty) = &result.ty {
                        w.push(": ");
                        w.ty(ty);
                    }
                });
                self.push(" = ");
                self.applied(value, depth);
                self.origin(provenance);
            }
            StatementKind::Return { values, updates } => {
                self.push("return");
                self.values(values);
                for (i, (state, value)) in updates.iter().enumerate() {
                    self.push(if i == 0 { " update " } else { ", " });
                    write_global(&mut self.out, &state.name);
                    self.push(" = ");
                    write_value(&mut self.out, &value.name);
                }
            }
            StatementKind::Yield(values) => {
                self.push("yield");
                self.values(values);
            }
            StatementKind::Predict(value) => self.marked("predict ", value, depth),
            StatementKind::Loss(value) => self.marked("loss ", value, depth),
            StatementKind::Metric(value) => self.marked("metric ", value, depth),
        }
    }

    fn marked(&mut self, keyword: &str, value: &Applied, depth: usize) {
        self.push(keyword);
        self.applied(value, depth);
    }

    fn values(&mut self, values: &[Ident]) {
        if !values.is_empty() {
            self.push(" ");
        }
        self.separated(values, |w, value| write_value(&mut w.out, &value.name));
    }

    fn applied(&mut self, applied: &Applied, depth: usize) {
        let call = match applied {
            Applied::Value(value) => return write_value(&mut self.out, &value.name),
            Applied::Call(call) => call,
        };
        self.push(&call.callee.name);
        if !call.operands.is_empty() {
            self.push(" ");
        }
        self.separated(&call.operands, |w, operand| match operand {
            Operand::Value(name) => write_value(&mut w.out, &name.name),
            Operand::State(name) => write_global(&mut w.out, &name.name),
            Operand::Scalar(expr) => w.expr(expr),
        });
        self.attributes(call.attributes.as_ref());
        for region in &call.regions {
            self.push(" { ");
            self.params(&region.params);
            self.push(" ->\n");
            self.body(&region.body, depth);
        }
    }

    fn origin(&mut self, origin: &Origin) {
        if let Some((file, line)) = &origin.source {
            self.push(" ");
            write_global(&mut self.out, file);
            self.push(&format!(":{line}"));
        }
        if let Some(derived) = &origin.derived {
            self.push(" ");
            write_derived(&mut self.out, derived);
        }
    }

    fn attributes(&mut self, record: Option<&Record>) {
        if let Some(record) = record.filter(|record| !record.fields.is_empty()) {
            self.push(" ");
            self.record(record, false);
        }
    }

    /// A record on one line, unless comments forbid it.
    fn record(&mut self, record: &Record, flags: bool) {
        if has_comments(record) {
            return self.broken_record(record, flags);
        }
        self.push("{");
        self.separated(&record.fields, |w, field| w.field(field, flags));
        self.push("}");
    }

    /// A record on one line if it fits and has no comments, else one field per line.
    fn long_record(&mut self, keyword: &str, record: &Record, flags: bool) {
        self.depth = 0;
        let mut line = Writer { out: keyword.to_owned(), depth: 0 };
        line.record(record, flags);
        if has_comments(record) || line.out.chars().count() <= WIDTH {
            return self.push(&line.out);
        }
        self.push(keyword);
        self.broken_record(record, flags);
    }

    fn broken_record(&mut self, record: &Record, flags: bool) {
        let depth = self.depth;
        self.depth += 1;
        self.push("{\n");
        for field in &record.fields {
            self.leading(&field.trivia, depth + 1);
            self.indent(depth + 1);
            self.field(field, flags);
            self.push(",");
            self.trailing(&field.trivia);
        }
        self.lines(&record.trailing, depth + 1);
        self.depth = depth;
        self.indent(depth);
        self.push("}");
    }

    fn field(&mut self, field: &Field, flags: bool) {
        match field.key.name.chars().all(is_name_char) {
            true => self.push(&field.key.name),
            false => write_text(&mut self.out, &field.key.name),
        }
        self.push(" = ");
        match &field.value.kind {
            ExprKind::List(items) if flags => match items.as_slice() {
                [value, Expr { kind: ExprKind::Word(flag), .. }] => {
                    self.expr(value);
                    self.push(" ");
                    self.push(flag);
                }
                _ => self.expr(&field.value),
            },
            _ => self.expr(&field.value),
        }
    }

    fn ty(&mut self, ty: &TypeExpr) {
        self.push(ty.dtype.name());
        self.push("[");
        self.separated(&ty.dims, |w, dim| w.operation(dim, 0, ""));
        self.push("]");
        if ty.layout != Layout::default() {
            self.push(&format!("@{}", ty.layout));
        }
    }

    fn expr(&mut self, expr: &Expr) {
        self.operation(expr, 0, " ");
    }

    /// An expression under an operator of `binding` 1 (sum), 2 (right of a sum, or product), 3 (right of a product);
    /// `gap` stands around the signs of products.
    fn operation(&mut self, expr: &Expr, binding: u32, gap: &str) {
        match &expr.kind {
            ExprKind::Int(value) => self.push(&value.to_string()),
            ExprKind::Float(value) => write_number(&mut self.out, *value, None),
            ExprKind::Bool(value) => self.push(&value.to_string()),
            ExprKind::Word(word) => self.push(word),
            ExprKind::Global(name) => write_global(&mut self.out, name),
            ExprKind::Text(text) => write_text(&mut self.out, text),
            ExprKind::List(items) => {
                self.push("[");
                self.separated(items, |w, item| w.operation(item, 0, gap));
                self.push("]");
            }
            ExprKind::Record(word, record) => {
                if let Some(word) = word {
                    self.push(&word.name);
                    self.push(" ");
                }
                self.record(record, false);
            }
            ExprKind::Negate(inner) => {
                self.push("-");
                self.operation(inner, 3, gap);
            }
            ExprKind::Binary(op, a, b) => {
                let own = if op.is_product() { 2 } else { 1 };
                let wrap = own < binding;
                self.push(if wrap { "(" } else { "" });
                self.operation(a, own, gap);
                let gap_here = if op.is_product() { gap } else { " " };
                // `a %b` would read as a value: the remainder always stands free.
                let gap_here = if *op == BinaryOp::Rem { " " } else { gap_here };
                self.push(gap_here);
                self.push(op.symbol());
                self.push(gap_here);
                self.operation(b, own + 1, gap);
                self.push(if wrap { ")" } else { "" });
            }
        }
    }
}

fn has_comments(record: &Record) -> bool {
    let comments = |lines: &[Line]| lines.iter().any(|line| matches!(line, Line::Comment(_)));
    let field = |field: &Field| {
        comments(&field.trivia.leading) || field.trivia.trailing.is_some() || value_has_comments(&field.value)
    };
    record.fields.iter().any(field) || comments(&record.trailing)
}

fn value_has_comments(value: &Expr) -> bool {
    match &value.kind {
        ExprKind::Record(_, record) => has_comments(record),
        ExprKind::List(items) => items.iter().any(value_has_comments),
        _ => false,
    }
}
