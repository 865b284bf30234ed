//! Script form to module: blocks, layers, integer arithmetic and the recipe, expanded one way.
//!
//! A faulty statement leaves its names bound to a value that keeps later statements quiet, so one run reports every
//! finding. A block is expanded anew at each use, in a scope that holds its operands and attributes and nothing else.
//!
//! - script.S1: a value is defined above.
//! - script.S2: an op, layer, block, optimizer or schedule of this name exists.
//! - script.S3: an attribute or key of this name exists.
//! - script.S4: an attribute without default is given.
//! - script.S5: an attribute is of the kind that is asked for.
//! - script.S6: operands have the number and the kind that is asked for.
//! - script.S7: there are as many results as names for them.
//! - script.S8: blocks do not use themselves, are nested at most 64 deep and expand to at most 200000 statements.
//! - script.S9: arithmetic on attributes and extents has a result.
//! - script.S10: a name, key or statement is given once.
//! - script.S11: a statement stands where it may: `yield` at the end of a block, `predict`, `loss`, `metric` in a model.
//! - script.S12: a declared type is that of the value; typed ops have one.
//! - script.S13: a state of this name is declared.
//! - script.S14: the shapes of an elementwise op's operands repeat to one of them.
//! - script.S15: what `share` names stands above and has states; it excludes `name`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use indexmap::IndexMap;

use crate::attribute::AttrValue;
use crate::builder::{GraphBuilder, Tensor};
use crate::diagnostic::Diagnostic;
use crate::graph::{Location, Provenance, Value};
use crate::model::Train;
use crate::model::assemble::{self, Program, Root};
use crate::model::foreign::ForeignWeight;
use crate::module::Module;
use crate::text::ast::{self, ExprKind, Ident, Item, ItemKind, Span};
use crate::text::suggest::nearest;
use crate::types::{Bindings, Name};

mod application;
mod body;
mod expression;
mod training;

/// The module of a text in either form: parsed, expanded, with `bindings` in place of dimension names.
///
/// # Errors
/// Every finding, in the order of the text.
pub fn load(file: &str, text: &str, bindings: &Bindings) -> Result<Module, Vec<Diagnostic>> {
    expand(&crate::text::parse_source(file, text)?, bindings)
}

/// The module of a syntax tree. States and graphs stay as they are; a model with its blocks, `train` and `weights`
/// becomes states, `@predict`, `@eval`, `@step0` and the recipe.
///
/// # Errors
/// Every finding, in the order of the text.
pub fn expand(source: &ast::Source, bindings: &Bindings) -> Result<Module, Vec<Diagnostic>> {
    let script = |item: &&Item| matches!(item.kind, ItemKind::Model(_) | ItemKind::Block(_));
    if !source.items.iter().any(|item| script(&item)) {
        return lower(source, bindings);
    }
    let graph_form = |item: &&Item| matches!(item.kind, ItemKind::State(_) | ItemKind::Graph(_));
    let items: Vec<Item> = source.items.iter().filter(graph_form).cloned().collect();
    let given = match items.is_empty() {
        true => Module::default(),
        false => lower(&ast::Source { file: source.file.clone(), items, trailing: Vec::new() }, bindings)?,
    };
    let mut expander = Expander::new(source, bindings, &given);
    let expanded = expander.run(source);
    let faults = expander.faults;
    let expanded = match expanded {
        Some(expanded) if faults.is_empty() => expanded,
        _ => return Err(in_order(faults)),
    };
    Ok(merge(given, expanded))
}

/// The graph form, with the names that are bound.
fn lower(source: &ast::Source, bindings: &Bindings) -> Result<Module, Vec<Diagnostic>> {
    let (module, faults) = crate::text::lower(source, HashSet::new(), false);
    match faults.is_empty() {
        true if bindings.is_empty() => Ok(module),
        true => module.bind(bindings),
        false => Err(in_order(faults)),
    }
}

/// States and graphs of the graph form first, then what the script made.
fn merge(mut given: Module, expanded: Module) -> Module {
    for (name, state) in expanded.states {
        given.states.entry(name).or_insert(state);
    }
    given.graphs.extend(expanded.graphs);
    given.recipe = expanded.recipe;
    given
}

/// Findings in the order of the text, each once: a block used twice has its faults twice.
fn in_order(mut faults: Vec<Diagnostic>) -> Vec<Diagnostic> {
    faults.sort_by_key(|fault| fault.at.as_ref().map(|at| (at.line, at.column)));
    faults.dedup_by(|a, b| a.label == b.label && a.at == b.at && a.message == b.message);
    faults
}

/// What a name means where a statement stands.
#[derive(Debug, Default)]
struct Scope {
    values: BTreeMap<Name, Tensor>,
    /// Attributes of the block at hand.
    attributes: BTreeMap<Name, AttrValue>,
}

struct Expander<'a> {
    file: Name,
    bindings: &'a Bindings,
    blocks: IndexMap<Name, &'a ast::BlockItem>,
    builder: GraphBuilder,
    /// Names of dimensions, from the model's inputs.
    dimensions: BTreeSet<Name>,
    /// Blocks being expanded, outermost first, with the line of their use.
    uses: Vec<(Name, u32)>,
    /// Statements expanded so far.
    expanded: usize,
    /// How often the author gave each name: `%h` is `h`, then `h.1`, `h.2`.
    names: BTreeMap<Name, usize>,
    faults: Vec<Diagnostic>,
    predict: Option<Root>,
    losses: Vec<Root>,
    metrics: Vec<Root>,
}

impl<'a> Expander<'a> {
    fn new(source: &'a ast::Source, bindings: &'a Bindings, given: &Module) -> Expander<'a> {
        let builder = GraphBuilder::new("model");
        for (name, state) in &given.states {
            builder.declare_state(name, state.clone());
        }
        Expander {
            file: source.file.clone(),
            bindings,
            blocks: IndexMap::new(),
            builder,
            dimensions: BTreeSet::new(),
            uses: Vec::new(),
            expanded: 0,
            names: BTreeMap::new(),
            faults: Vec::new(),
            predict: None,
            losses: Vec::new(),
            metrics: Vec::new(),
        }
    }

    /// Expands everything; `None` with faults recorded if nothing came of it.
    fn run(&mut self, source: &'a ast::Source) -> Option<Module> {
        let mut model = None;
        let mut training: Option<Option<Train>> = None;
        let mut weights = None;
        for item in &source.items {
            match &item.kind {
                ItemKind::Block(block) => self.declare_block(block),
                ItemKind::Model(_) if model.is_some() => {
                    self.fault(item.span, "script.S10", "a file has one model, this is the second");
                }
                ItemKind::Model(graph) => model = Some(graph),
                ItemKind::Train(_) if training.is_some() => {
                    self.fault(item.span, "script.S10", "`train` is given twice");
                }
                ItemKind::Train(record) => training = Some(self.train(item.span, record)),
                ItemKind::Weights(_) if weights.is_some() => {
                    self.fault(item.span, "script.S10", "`weights` is given twice");
                }
                ItemKind::Weights(record) => weights = Some(record),
                ItemKind::State(_) | ItemKind::Graph(_) => {}
            }
        }
        match model {
            Some(model) => self.model(model),
            None => {
                let span = source.items.first().map(|item| item.span).unwrap_or_default();
                self.fault(span, "script.S11", "the file has blocks and no model")
                    .help("add `model @name(%x: f32[batch, 4]) { ... }`".to_owned());
            }
        }
        // A broken recipe and a broken model are both reported; the rest needs a whole model.
        if let (Some(model), None, true, true) = (model, &self.predict, self.losses.is_empty(), self.faults.is_empty())
        {
            self.fault(model.name.span, "model.C2", "the model has no result")
                .help("say what it computes: `predict %y`, `loss cross_entropy %y, %label`".to_owned());
        }
        let fine = self.faults.is_empty();
        let program = Program {
            builder: self.builder.clone(),
            predict: self.predict.take(),
            losses: std::mem::take(&mut self.losses),
            metrics: std::mem::take(&mut self.metrics),
            training: training.flatten(),
            weights: weights.map(|record| self.weights(record)).unwrap_or_default(),
        };
        if !fine || !self.faults.is_empty() {
            return None;
        }
        match assemble::assemble(program) {
            Ok(module) => Some(module),
            Err(faults) => {
                self.faults.extend(faults);
                None
            }
        }
    }

    fn declare_block(&mut self, block: &'a ast::BlockItem) {
        let name = &block.name.name;
        if crate::op::entry(name).is_some() || crate::layer::entry(name).is_some() {
            self.fault(block.name.span, "script.S10", format!("`{name}` is an op or a layer already"))
                .help("give the block another name".to_owned());
        }
        if let Some(first) = self.blocks.get(name) {
            let line = first.name.span.line;
            self.fault(block.name.span, "script.S10", format!("block `{name}` is declared twice"))
                .note(format!("first in line {line}"));
            return;
        }
        self.blocks.insert(name.clone(), block);
    }

    /// Records a fault; what is returned takes notes and help.
    fn fault(&mut self, span: Span, label: &str, message: impl Into<String>) -> FaultRef<'_> {
        let mut fault = Diagnostic::error(label, message).at(Some(span.location(&self.file))).width(span.width);
        if let Some((block, line)) = self.uses.last() {
            fault = fault.note(format!("in block `{block}`, used in line {line}"));
        }
        self.faults.push(fault);
        FaultRef(self.faults.last_mut())
    }

    /// Moves what the builder found at `span` here.
    fn collect(&mut self, span: Span) {
        for mut fault in self.builder.take_faults() {
            fault.width = span.width.max(1);
            if let Some((block, line)) = self.uses.last() {
                fault = fault.note(format!("in block `{block}`, used in line {line}"));
            }
            self.faults.push(fault);
        }
    }

    /// Nodes from now on belong to `span`, and to the uses of the blocks around it.
    fn place(&self, span: Span) {
        let uses: Vec<String> = self.uses.iter().map(|(name, line)| format!("{name} at {line}")).collect();
        let derived = (!uses.is_empty()).then(|| format!("block({})", uses.join(", ")).into());
        let source = Some(span.location(&self.file));
        self.builder.set_provenance(Some(Provenance { source, derived }));
    }

    fn location(&self, span: Span) -> Option<Location> {
        Some(span.location(&self.file))
    }

    /// The value that keeps later statements quiet.
    fn poison(&self) -> Tensor {
        self.builder.tensor(Value::INVALID)
    }

    fn lookup(&mut self, scope: &Scope, ident: &Ident) -> Tensor {
        if let Some(value) = scope.values.get(&ident.name) {
            return value.clone();
        }
        let near = nearest(&ident.name, scope.values.keys().map(|name| &**name));
        self.fault(ident.span, "script.S1", format!("there is no value `%{}` here", ident.name))
            .help_if(near.map(|name| format!("did you mean `%{name}`?")));
        self.poison()
    }

    /// `weights {state = "foreign", "block{i}.state" = "foreign.{i}" transposed}`.
    fn weights(&mut self, record: &ast::Record) -> Vec<ForeignWeight> {
        let mut entries = Vec::new();
        for field in &record.fields {
            let state = &field.key.name;
            let entry = match &field.value.kind {
                ExprKind::Text(foreign) => Some((foreign, false)),
                ExprKind::List(items) => match items.as_slice() {
                    [ast::Expr { kind: ExprKind::Text(foreign), .. }, ast::Expr { kind: ExprKind::Word(word), .. }]
                        if &**word == "transposed" =>
                    {
                        Some((foreign, true))
                    }
                    _ => None,
                },
                _ => None,
            };
            match entry {
                Some((foreign, transposed)) => entries.push(ForeignWeight {
                    state: state.clone(),
                    foreign: foreign.clone(),
                    transposed,
                    at: self.location(field.key.span),
                    width: field.key.span.width,
                }),
                None => {
                    self.fault(field.value.span, "script.S5", format!("`{state}` takes a name in quotes")).help(
                        format!("write `{state} = \"net.0.weight\"`, with `transposed` behind it if the matrix is"),
                    );
                }
            }
        }
        entries
    }
}

/// The fault just recorded.
struct FaultRef<'a>(Option<&'a mut Diagnostic>);

impl FaultRef<'_> {
    fn note(mut self, note: String) -> Self {
        if let Some(fault) = &mut self.0 {
            fault.notes.push(note);
        }
        self
    }

    fn help(self, help: String) {
        self.help_if(Some(help));
    }

    fn help_if(self, help: Option<String>) {
        if let (Some(fault), Some(help)) = (self.0, help) {
            fault.help = Some(help);
        }
    }
}

#[cfg(test)]
mod tests;
