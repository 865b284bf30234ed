//! Modules to text: one line per node, the whole program, in the order of the module.
//!
//! `parse_module(print(m)) == m`. Two things are taken as given: the literals of a constant are values of its element
//! type, and dimension names are words.

use std::fmt::Write;

use crate::attribute::{AttrValue, write_float};
use crate::graph::{Graph, NodeData, Provenance, Value};
use crate::module::{Initializer, Module, Recipe, State};
use crate::op::Op;
use crate::text::lexer::{is_global_char, is_name_char};
use crate::types::{DType, Layout, Name, TensorType};

/// What the text shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct PrintOptions {
    /// Where each node comes from, at the end of its line.
    pub provenance: bool,
}

/// Longer lines of fields are broken, one field per line.
pub(crate) const WIDTH: usize = 120;

/// A module as text.
pub fn print(module: &Module, options: &PrintOptions) -> String {
    let mut printer = Printer { out: String::new(), options: *options };
    for (name, state) in &module.states {
        printer.state(name, state);
    }
    for graph in module.graphs.values() {
        printer.gap();
        printer.graph(graph);
    }
    if let Some(recipe) = &module.recipe {
        printer.recipe(recipe);
    }
    if printer.out.is_empty() {
        printer.out.push_str("# an empty module\n");
    }
    printer.out
}

/// One graph as text.
pub fn print_graph(graph: &Graph, options: &PrintOptions) -> String {
    let mut printer = Printer { out: String::new(), options: *options };
    printer.graph(graph);
    printer.out
}

/// One node of a graph as text, without a line end.
pub fn print_node(graph: &Graph, node: &NodeData, options: &PrintOptions) -> String {
    let mut printer = Printer { out: String::new(), options: *options };
    printer.node(graph, node, 0);
    printer.out.truncate(printer.out.trim_end().len());
    printer.out
}

struct Printer {
    out: String,
    options: PrintOptions,
}

impl Printer {
    fn gap(&mut self) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
    }

    fn indent(&mut self, depth: usize) {
        for _ in 0..depth {
            self.out.push_str("  ");
        }
    }

    fn state(&mut self, name: &str, state: &State) {
        self.out.push_str("state ");
        write_global(&mut self.out, name);
        self.out.push_str(": ");
        write_type(&mut self.out, &state.ty);
        let (init, fields) = initializer(state);
        let _ = write!(self.out, " = {} {init}", state.role.name());
        if !fields.is_empty() {
            self.out.push(' ');
            self.fields(fields.iter().map(|(name, value)| (*name, value)), None);
        }
        self.provenance(&Provenance { source: state.source.clone(), derived: None });
        self.out.push('\n');
    }

    fn graph(&mut self, graph: &Graph) {
        self.out.push_str("graph ");
        write_global(&mut self.out, graph.name());
        self.params(graph);
        self.out.push_str(" {\n");
        self.nodes(graph, 1);
        self.out.push_str("  return");
        self.values(graph, graph.returns());
        for (i, update) in graph.updates().iter().enumerate() {
            self.out.push_str(if i == 0 { " update " } else { ", " });
            write_global(&mut self.out, &update.state);
            self.out.push_str(" = ");
            self.value(graph, update.value);
        }
        self.out.push_str("\n}\n");
    }

    fn params(&mut self, graph: &Graph) {
        self.out.push('(');
        for (i, param) in graph.params().iter().enumerate() {
            if i > 0 {
                self.out.push_str(", ");
            }
            self.typed(graph, param.value);
            if let Some(bound) = param.below {
                let _ = write!(self.out, " below {bound}");
            }
        }
        self.out.push(')');
    }

    fn nodes(&mut self, graph: &Graph, depth: usize) {
        for (_, node) in graph.nodes() {
            self.node(graph, node, depth);
        }
    }

    fn node(&mut self, graph: &Graph, node: &NodeData, depth: usize) {
        self.indent(depth);
        for (i, &result) in node.results.iter().enumerate() {
            if i > 0 {
                self.out.push_str(", ");
            }
            self.typed(graph, result);
        }
        let _ = write!(self.out, " = {}", node.op.mnemonic());
        self.values(graph, &node.operands);
        match &node.op {
            Op::State(state) => {
                self.out.push(' ');
                write_global(&mut self.out, &state.name);
            }
            op => {
                let attributes = op.attributes();
                if !attributes.is_empty() {
                    // Only a constant's literal has an element type to be short in.
                    let dtype = if let Op::Const(constant) = op { Some(constant.ty.dtype) } else { None };
                    self.out.push(' ');
                    self.fields(attributes.iter().map(|(name, value)| (*name, value)), dtype);
                }
            }
        }
        for region in &node.regions {
            self.region(region, depth);
        }
        self.provenance(&node.provenance);
        self.out.push('\n');
    }

    fn region(&mut self, region: &Graph, depth: usize) {
        self.out.push_str(" { ");
        self.params(region);
        self.out.push_str(" ->\n");
        self.nodes(region, depth + 1);
        self.indent(depth + 1);
        self.out.push_str("yield");
        self.values(region, region.returns());
        self.out.push('\n');
        self.indent(depth);
        self.out.push('}');
    }

    fn values(&mut self, graph: &Graph, values: &[Value]) {
        for (i, &value) in values.iter().enumerate() {
            self.out.push_str(if i == 0 { " " } else { ", " });
            self.value(graph, value);
        }
    }

    fn value(&mut self, graph: &Graph, value: Value) {
        write_value(&mut self.out, graph.value_name(value));
    }

    fn typed(&mut self, graph: &Graph, value: Value) {
        self.value(graph, value);
        self.out.push_str(": ");
        write_type(&mut self.out, graph.ty(value));
    }

    fn fields<'a>(&mut self, fields: impl Iterator<Item = (&'a str, &'a AttrValue)>, dtype: Option<DType>) {
        self.out.push('{');
        for (i, (name, value)) in fields.enumerate() {
            let _ = write!(self.out, "{}{name} = ", if i > 0 { ", " } else { "" });
            write_attribute(&mut self.out, value, dtype);
        }
        self.out.push('}');
    }

    fn provenance(&mut self, provenance: &Provenance) {
        if !self.options.provenance {
            return;
        }
        if let Some(source) = &provenance.source {
            self.out.push(' ');
            write_global(&mut self.out, &source.file);
            let _ = write!(self.out, ":{}", source.line);
        }
        if let Some(derived) = &provenance.derived {
            self.out.push(' ');
            write_derived(&mut self.out, derived);
        }
    }

    /// `train {...}` and, under its own keyword, the map of foreign weight names.
    fn recipe(&mut self, recipe: &Recipe) {
        let weights = match recipe.get("weights") {
            Some(AttrValue::Record(word, fields)) if word.is_empty() => Some(fields),
            _ => None,
        };
        let train = recipe.entries.iter().filter(|(key, _)| weights.is_none() || &***key != "weights");
        let train: Vec<String> = train.map(|(key, value)| format!("{key} = {}", attribute(value))).collect();
        if !train.is_empty() || weights.is_none() {
            self.gap();
            write_record(&mut self.out, "train", &train);
        }
        if let Some(weights) = weights {
            let mut lines = Vec::new();
            for (key, value) in weights {
                lines.push(match value {
                    AttrValue::List(items) => match items.as_slice() {
                        [name, AttrValue::Word(flag)] => format!("{key} = {} {flag}", attribute(name)),
                        _ => format!("{key} = {}", attribute(value)),
                    },
                    _ => format!("{key} = {}", attribute(value)),
                });
            }
            self.gap();
            write_record(&mut self.out, "weights", &lines);
        }
    }
}

/// `keyword {a = 1, b = 2}`, broken into lines where it is too long.
pub(crate) fn write_record(out: &mut String, keyword: &str, fields: &[String]) {
    let line = format!("{keyword} {{{}}}\n", fields.join(", "));
    if line.chars().count() <= WIDTH {
        out.push_str(&line);
        return;
    }
    let _ = writeln!(out, "{keyword} {{");
    for field in fields {
        let _ = writeln!(out, "  {field},");
    }
    out.push_str("}\n");
}

/// Text name and attributes of a state's initialiser.
fn initializer(state: &State) -> (&'static str, Vec<(&'static str, AttrValue)>) {
    match state.init {
        Initializer::Constant(value) => ("constant", vec![("value", constant(value, state.ty.dtype))]),
        Initializer::Uniform { low, high } => {
            ("uniform", vec![("low", AttrValue::Float(low)), ("high", AttrValue::Float(high))])
        }
        Initializer::Normal { mean, deviation } => {
            ("normal", vec![("mean", AttrValue::Float(mean)), ("deviation", AttrValue::Float(deviation))])
        }
        Initializer::Glorot => ("glorot", Vec::new()),
        Initializer::He => ("he", Vec::new()),
        Initializer::Seed => ("seed", Vec::new()),
        Initializer::FanIn(fan) => ("fan_in", vec![("fan", AttrValue::Int(i64::try_from(fan).unwrap_or(i64::MAX)))]),
    }
}

/// The start of an integer state reads as an integer where that loses nothing.
fn constant(value: f64, dtype: DType) -> AttrValue {
    let integer = value as i64;
    let same = (integer as f64).to_bits() == value.to_bits() && integer.unsigned_abs() < 1 << 53;
    if !dtype.is_float() && same { AttrValue::Int(integer) } else { AttrValue::Float(value) }
}

/// `%name`, quoted where the name is not made of letters, digits, `_` and `.`.
pub(crate) fn write_value(out: &mut String, name: &str) {
    out.push('%');
    write_name(out, name, is_name_char);
}

/// `@name`, quoted where needed.
pub(crate) fn write_global(out: &mut String, name: &str) {
    out.push('@');
    write_name(out, name, is_global_char);
}

fn write_name(out: &mut String, name: &str, plain: fn(char) -> bool) {
    if !name.is_empty() && name.chars().all(plain) {
        out.push_str(name);
    } else {
        write_text(out, name);
    }
}

/// `"text"`.
pub(crate) fn write_text(out: &mut String, text: &str) {
    let _ = write!(out, "\"{}\"", text.escape_debug());
}

/// `@grad(%x, 0)`, quoted where it would not read back.
pub(crate) fn write_derived(out: &mut String, derived: &Name) {
    let (head, call) = derived.split_at(derived.find('(').unwrap_or(derived.len()));
    let inner = call.strip_prefix('(').and_then(|c| c.strip_suffix(')'));
    let plain_head = !head.is_empty() && head.chars().all(is_global_char);
    let plain_call =
        inner.is_some_and(|i| i.chars().all(|c| is_name_char(c) || ", %".contains(c)) && !i.contains("%,"));
    if plain_head && (call.is_empty() || plain_call) {
        let _ = write!(out, "@{derived}");
    } else {
        out.push('@');
        write_text(out, derived);
    }
}

/// `f32[batch, 64]@nChw16c`; any layout but the default is shown, so that it reads back equal.
pub(crate) fn write_type(out: &mut String, ty: &TensorType) {
    let _ = write!(out, "{}{}", ty.dtype, ty.shape);
    if ty.layout != Layout::default() {
        let _ = write!(out, "@{}", ty.layout);
    }
}

fn attribute(value: &AttrValue) -> String {
    let mut out = String::new();
    write_attribute(&mut out, value, None);
    out
}

/// An attribute so that it reads back bit-equal; floats of an f32 constant in the digits that f32 needs.
fn write_attribute(out: &mut String, value: &AttrValue, dtype: Option<DType>) {
    match value {
        AttrValue::Float(value) => write_number(out, *value, dtype),
        AttrValue::Text(text) => write_text(out, text),
        AttrValue::Word(word) => match word.strip_prefix('@') {
            Some(name) => write_global(out, name),
            None => out.push_str(word),
        },
        AttrValue::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_attribute(out, item, dtype);
            }
            out.push(']');
        }
        AttrValue::Record(word, fields) => {
            let _ = write!(out, "{word}{}{{", if word.is_empty() { "" } else { " " });
            for (i, (name, value)) in fields.iter().enumerate() {
                let _ = write!(out, "{}{name} = ", if i > 0 { ", " } else { "" });
                write_attribute(out, value, dtype);
            }
            out.push('}');
        }
        AttrValue::Int(_) | AttrValue::Bool(_) | AttrValue::Dim(_) => {
            let _ = write!(out, "{value}");
        }
    }
}

/// A float so that it reads back bit-equal.
pub(crate) fn write_number(out: &mut String, value: f64, dtype: Option<DType>) {
    if value.is_nan() && value.to_bits() != f64::NAN.to_bits() {
        let _ = write!(out, "nan({:#018x})", value.to_bits());
        return;
    }
    if dtype == Some(DType::F32) && value.is_finite() {
        let short = (value as f32).to_string();
        // The digits of the f32 pass through a binary64 when they are read.
        if let Ok(wide) = short.parse::<f64>()
            && f64::from(wide as f32).to_bits() == value.to_bits()
        {
            let _ = write_float(out, wide);
            return;
        }
    }
    let _ = write_float(out, value);
}
