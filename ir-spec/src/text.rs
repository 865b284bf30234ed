//! The text of a program, in two forms under one grammar.
//!
//! *Graph form* is what passes see and leave: `parse_module(print(m)) == m` for every module, and
//! `print(parse_module(s)) == s` for canonical `s`. *Script form* adds models, blocks and layers;
//! [`crate::script`] expands it. [`format()`] brings both to their canonical form.
//!
//! ```
//! let text = "graph @f(%x: f32[batch, 3]) {\n  %y: f32[batch, 3] = relu %x\n  return %y\n}\n";
//! let module = kiln_ir::text::parse_module("f.kiln", text).unwrap();
//! assert_eq!(kiln_ir::text::print(&module, &kiln_ir::text::PrintOptions::default()), text);
//! ```
//!
//! # Grammar
//!
//! `#` starts a comment that ends with its line. Elsewhere the end of a line is space, with three exceptions: the
//! first operand, the first value after `return` or `yield`, and provenance stand on the line of what they belong to.
//! A comma may stand before `]`, `)` and `}`.
//!
//! ```text
//! file       = { item } .
//! item       = state | graph | model | block | train | weights .
//! state      = "state" global ":" type "=" role word [ record ] [ provenance ] .
//! role       = "param" | "moment" | "statistic" | "counter" | "derived" .
//! graph      = "graph" global params body .
//! model      = "model" global params body .                             (* script form *)
//! block      = "block" word "(" [ value { "," value } ] { "," word [ "=" expr ] } ")" body .
//! train      = "train" record .
//! weights    = "weights" "{" [ foreign { "," foreign } ] "}" .
//! foreign    = ( word | text ) "=" text [ word ] .                      (* text as key in script form only *)
//!
//! params     = "(" [ param { "," param } ] ")" .
//! param      = value ":" type [ "below" integer ] .
//! body       = "{" { statement } "}" .
//! statement  = results "=" applied [ provenance ]
//!            | "return" [ values ] [ "update" global "=" value { "," global "=" value } ]
//!            | "yield" [ values ]
//!            | ( "predict" | "loss" | "metric" ) applied .              (* script form *)
//! results    = value [ ":" type ] { "," value [ ":" type ] } .
//! values     = value { "," value } .
//! applied    = value | word [ operand { "," operand } ] [ record ] { region } .
//! operand    = value | global | expr .                                  (* numbers in script form only *)
//! region     = "{" params "->" { statement } "}" .
//! provenance = [ "@" name ":" integer ] [ "@" name [ "(" ... ")" ] ] .
//!
//! type       = dtype "[" [ expr { "," expr } ] "]" [ layout ] .
//! layout     = "@" { letter } { integer letter } .                      (* @nhwc, @nChw16c *)
//! record     = "{" [ word "=" expr { "," word "=" expr } ] "}" .
//! expr       = product { ( "+" | "-" ) product } .
//! product    = unary { ( "*" | "/" | "%" ) unary } .
//! unary      = "-" unary | primary .
//! primary    = integer | float | text | global | word [ record ] | "(" expr ")" | list | record .
//! list       = "[" [ expr { "," expr } ] "]" .
//!
//! value      = "%" name .
//! global     = "@" name .                                               (* also "/" and "-" *)
//! name       = ( letter | digit | "_" | "." ) { letter | digit | "_" | "." } | text .
//! word       = ( letter | "_" ) { letter | digit | "_" | "." } .
//! integer    = digit { digit } | "0x" hexdigit { hexdigit } .
//! float      = digit { digit } "." digit { digit } [ exponent ] | digit { digit } exponent
//!            | "inf" | "nan" [ "(" integer ")" ] .
//! exponent   = ( "e" | "E" ) [ "+" | "-" ] digit { digit } .
//! text       = '"' { character | "\" escape } '"' .
//! ```
//!
//! Words in expressions are `true`, `false`, a block's attributes, dimension names, or just words (`same`). `/` and
//! `%` round down. Brackets, regions and operators nest [`DEPTH_LIMIT`] deep.
//!
//! # Findings
//!
//! Reading never stops at the first error. Labels: `syntax`, `syntax.depth`, `name` (undefined or taken), `op.unknown`,
//! `attribute`, `type`, `V3` (number of operands or results), and those of the ops' own constraints.

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
pub use parser::DEPTH_LIMIT;
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests;
