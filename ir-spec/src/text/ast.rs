//! Syntax tree of both forms, with places and comments.
//!
//! The tree says what was written and nothing more: names are not resolved, expressions are not evaluated
//! ([`super::evaluate`] does that), layers are not told from ops. [`super::parse_module`] reads the graph form from
//! it, `script` expands the rest, [`super::format()`] prints it back.

use crate::graph::Location;
use crate::types::{DType, Layout, Name};

/// A piece of one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// In characters, at least 1.
    pub width: u32,
}

impl Span {
    /// The place in `file`.
    pub fn location(self, file: &Name) -> Location {
        Location { file: file.clone(), line: self.line, column: self.column }
    }
}

/// A whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Name as given, for places.
    pub file: Name,
    /// Items in order.
    pub items: Vec<Item>,
    /// What stands after the last item.
    pub trailing: Vec<Line>,
}

/// A line that is not code, before an item, a statement or a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// One or more empty lines.
    Blank,
    /// `# text`, without `#` and the space around it.
    Comment(Name),
}

/// What surrounds an item, a statement or a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trivia {
    /// Lines above it, in order.
    pub leading: Vec<Line>,
    /// Comment behind it on its last line.
    pub trailing: Option<Name>,
}

/// A name with its place. Sigils (`%`, `@`) are not part of the name but of the span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ident {
    /// Name without sigil.
    pub name: Name,
    /// With sigil.
    pub span: Span,
}

/// One item of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Its keyword.
    pub span: Span,
    /// Comments around it.
    pub trivia: Trivia,
}

/// What an item is.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemKind {
    /// `state @w: f32[2] = param glorot`; graph form.
    State(StateItem),
    /// `graph @f(...) { ... return ... }`; graph form.
    Graph(GraphItem),
    /// `model @digits(...) { ... }`; script form, same syntax as a graph.
    Model(GraphItem),
    /// `block residual(%x, filters, stride = 1) { ... yield %y }`; script form.
    Block(BlockItem),
    /// `train {key = value, ...}`; both forms.
    Train(Record),
    /// `weights {conv1.weight = "net.0.weight", fc.weight = "fc" transposed}`; both forms. A value followed by a word
    /// is [`ExprKind::List`] of the two.
    Weights(Record),
}

/// `state @name: type = role initializer {attributes}`.
#[derive(Clone, Debug, PartialEq)]
pub struct StateItem {
    /// Name.
    pub name: Ident,
    /// Type.
    pub ty: TypeExpr,
    /// `param`, `moment`, `statistic` or `counter`; not checked yet.
    pub role: Ident,
    /// `glorot`, `constant`, ...; not checked yet.
    pub init: Ident,
    /// Attributes of the initialiser.
    pub attributes: Option<Record>,
    /// `@file:line` behind it.
    pub provenance: Origin,
}

/// A graph or a model.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphItem {
    /// Name.
    pub name: Ident,
    /// Parameters.
    pub params: Vec<ParamItem>,
    /// Statements.
    pub body: Block,
}

/// `%x: type below N`.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamItem {
    /// Name.
    pub name: Ident,
    /// Type.
    pub ty: TypeExpr,
    /// Bound of the elements.
    pub below: Option<u64>,
}

/// A named subgraph of the script form.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockItem {
    /// Name, without sigil in the text.
    pub name: Ident,
    /// `%x`; come first.
    pub operands: Vec<Ident>,
    /// `filters`, `stride = 1`.
    pub attributes: Vec<BlockAttribute>,
    /// Statements, ended by `yield`.
    pub body: Block,
}

/// An attribute parameter of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockAttribute {
    /// Name.
    pub name: Ident,
    /// Value if the use gives none.
    pub default: Option<Expr>,
}

/// Statements between braces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// In order.
    pub statements: Vec<Statement>,
    /// What stands between the last statement and `}`.
    pub trailing: Vec<Line>,
    /// The closing brace.
    pub end: Span,
}

/// One line of a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// What it is.
    pub kind: StatementKind,
    /// Its first token.
    pub span: Span,
    /// Comments around it.
    pub trivia: Trivia,
}

/// What a statement is.
#[derive(Clone, Debug, PartialEq)]
pub enum StatementKind {
    /// `%y: type, %z = value`.
    Define {
        /// Names and declared types.
        results: Vec<ResultItem>,
        /// What they are.
        value: Applied,
        /// `@file:line @grad(%x, 0)` behind it.
        provenance: Origin,
    },
    /// `return %a, %b update @s = %c`; ends a graph.
    Return {
        /// Results.
        values: Vec<Ident>,
        /// State and its next value.
        updates: Vec<(Ident, Ident)>,
    },
    /// `yield %a, %b`; ends a block or a region.
    Yield(Vec<Ident>),
    /// `predict value`; script form.
    Predict(Applied),
    /// `loss value`; script form.
    Loss(Applied),
    /// `metric value`; script form.
    Metric(Applied),
}

/// `%y: type`.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultItem {
    /// Name.
    pub name: Ident,
    /// Declared type.
    pub ty: Option<TypeExpr>,
}

/// A value, or one application of an op, a layer or a block.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// `%x`.
    Value(Ident),
    /// `relu %x`.
    Call(Call),
}

/// `mnemonic operands {attributes} { (%a: type) -> ... }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Op, layer or block.
    pub callee: Ident,
    /// Operands in order.
    pub operands: Vec<Operand>,
    /// Attributes.
    pub attributes: Option<Record>,
    /// Nested graphs.
    pub regions: Vec<Region>,
}

/// One operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// `%x`.
    Value(Ident),
    /// `@w`, of `state @w`.
    State(Ident),
    /// A number in script form: `0.5`, `filters * 2`.
    Scalar(Expr),
}

impl Operand {
    /// Where it stands.
    pub fn span(&self) -> Span {
        match self {
            Operand::Value(ident) | Operand::State(ident) => ident.span,
            Operand::Scalar(expr) => expr.span,
        }
    }
}

/// `{ (%a: type) -> statements }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Opening brace.
    pub span: Span,
    /// Parameters.
    pub params: Vec<ParamItem>,
    /// Statements, ended by `yield`.
    pub body: Block,
}

/// Provenance as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// `@file:line`.
    pub source: Option<(Name, u32)>,
    /// `@grad(%x, 0)`, without `@`.
    pub derived: Option<Name>,
}

/// `f32[batch, 64]@nChw16c`.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeExpr {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub dims: Vec<Expr>,
    /// Layout, row-major by default.
    pub layout: Layout,
    /// The whole type, or its first line.
    pub span: Span,
}

/// `{key = value, ...}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Opening brace.
    pub span: Span,
    /// In order; a key may stand twice, readers report it.
    pub fields: Vec<Field>,
    /// What stands between the last field and `}`.
    pub trailing: Vec<Line>,
}

impl Record {
    /// The first field of a name.
    pub fn get(&self, key: &str) -> Option<&Field> {
        self.fields.iter().find(|field| &*field.key.name == key)
    }
}

/// `key = value`.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name; may hold dots.
    pub key: Ident,
    /// Value.
    pub value: Expr,
    /// Comments around it.
    pub trivia: Trivia,
}

/// An expression of an attribute or an extent.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Its first token, or all of it where it lies on one line.
    pub span: Span,
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// `3`, `-1`.
    Int(i64),
    /// `0.5`, `1e-3`, `inf`, `nan`.
    Float(f64),
    /// `true`, `false`.
    Bool(bool),
    /// `same`, a block's attribute or a dimension's name.
    Word(Name),
    /// `@step0`: a graph or a state, without `@`.
    Global(Name),
    /// `"text"`, unescaped.
    Text(Name),
    /// `[a, b]`.
    List(Vec<Expr>),
    /// `adam {rate = 0.001}`, or `{...}` without the word.
    Record(Option<Ident>, Record),
    /// `-a`.
    Negate(Box<Expr>),
    /// `a + b`.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
}

/// Arithmetic of the text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// `+`.
    Add,
    /// `-`.
    Sub,
    /// `*`.
    Mul,
    /// `/`; rounds down for integers.
    Div,
    /// `%`; the remainder of the division that rounds down.
    Rem,
}

impl BinaryOp {
    /// As written.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Rem => "%",
        }
    }

    /// Products bind tighter than sums.
    pub fn is_product(self) -> bool {
        matches!(self, BinaryOp::Mul | BinaryOp::Div | BinaryOp::Rem)
    }
}
