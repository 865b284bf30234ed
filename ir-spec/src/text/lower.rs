//! Syntax tree of the graph form to a module: names are resolved, types are checked against `infer`.

use std::collections::{HashMap, HashSet};

use crate::attribute::AttrValue;
use crate::diagnostic::Diagnostic;
use crate::module::{Initializer, Module, Recipe, Role, State};
use crate::text::ast::*;
use crate::text::evaluate::{self, Lookup};
use crate::text::lower::attributes::means;
use crate::text::suggest::did_you_mean;
use crate::types::{Dim, Name, Shape, TensorType};

mod attributes;
mod graph;

/// The module of a tree, and everything that is wrong with it.
pub(crate) fn lower(source: &Source, lost: HashSet<Name>, incomplete: bool) -> (Module, Vec<Diagnostic>) {
    let mut lowering =
        Lowering { file: source.file.clone(), module: Module::default(), errors: Vec::new(), lost, incomplete };
    // States first: a read may leave out the type that its declaration gives.
    for item in &source.items {
        if let ItemKind::State(state) = &item.kind {
            lowering.state(state);
        }
    }
    let mut recipe = RecipeItems::default();
    for item in &source.items {
        match &item.kind {
            ItemKind::State(_) => {}
            ItemKind::Graph(graph) => lowering.graph_item(graph),
            ItemKind::Train(record) => lowering.train(record, item.span, &mut recipe),
            ItemKind::Weights(record) => lowering.weights(record, item.span, &mut recipe),
            ItemKind::Model(_) => lowering.script_only(item.span, "model"),
            ItemKind::Block(_) => lowering.script_only(item.span, "block"),
        }
    }
    lowering.module.recipe = recipe.recipe;
    (lowering.module, lowering.errors)
}

/// The recipe of a file that is not lowered as a whole.
///
/// # Errors
/// Every finding in the `train` and `weights` items.
pub fn recipe(source: &Source, lookup: Lookup<'_>) -> Result<Option<Recipe>, Vec<Diagnostic>> {
    let file = source.file.clone();
    let mut lowering =
        Lowering { file, module: Module::default(), errors: Vec::new(), lost: HashSet::new(), incomplete: false };
    let mut recipe = RecipeItems::default();
    for item in &source.items {
        match &item.kind {
            ItemKind::Train(record) => lowering.train_with(record, item.span, &mut recipe, lookup),
            ItemKind::Weights(record) => lowering.weights(record, item.span, &mut recipe),
            _ => {}
        }
    }
    if lowering.errors.is_empty() { Ok(recipe.recipe) } else { Err(lowering.errors) }
}

/// The type that an expression declares; words that `lookup` does not know are dimension names.
///
/// # Errors
/// Each extent that has no value, under the label `type`.
pub fn tensor_type(ty: &TypeExpr, lookup: Lookup<'_>, file: &Name) -> Result<TensorType, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let mut dims = Vec::new();
    for dim in &ty.dims {
        match evaluate::dim(dim, lookup) {
            Ok(dim) => dims.push(dim),
            Err(misfit) => errors.push(misfit.diagnostic("type", file)),
        }
    }
    if let Some(message) = layout_fault(ty) {
        errors.push(Diagnostic::error("type", message).at(Some(ty.span.location(file))).width(ty.span.width));
    }
    if errors.is_empty() {
        Ok(TensorType { dtype: ty.dtype, shape: dims.into_iter().collect(), layout: ty.layout.clone() })
    } else {
        Err(errors)
    }
}

/// Why a layout does not fit the rank: it orders each dimension once.
fn layout_fault(ty: &TypeExpr) -> Option<String> {
    let rank = ty.dims.len();
    let mut order: Vec<usize> = ty.layout.order.iter().map(|&d| usize::from(d)).collect();
    order.sort_unstable();
    let fits = order.is_empty() || order == (0..rank).collect::<Vec<_>>();
    let blocks_fit = ty.layout.blocks.iter().all(|&(d, elements)| usize::from(d) < rank && elements > 0);
    (!fits || !blocks_fit).then(|| format!("the layout `@{}` does not fit {rank} dimensions", ty.layout))
}

/// Message and help about a key that does not belong where it stands.
type Refusal = (String, Option<String>);

#[derive(Default)]
struct RecipeItems {
    recipe: Option<Recipe>,
    train: Option<Span>,
    weights: Option<Span>,
}

struct Lowering {
    file: Name,
    module: Module,
    errors: Vec<Diagnostic>,
    /// Values of statements that could not be read.
    lost: HashSet<Name>,
    /// Something could not be read.
    incomplete: bool,
}

impl Lowering {
    fn report(&mut self, diagnostic: Diagnostic, span: Span) {
        self.errors.push(diagnostic.at(Some(span.location(&self.file))).width(span.width));
    }

    fn error(&mut self, label: &str, span: Span, message: impl Into<String>) {
        self.report(Diagnostic::error(label, message), span);
    }

    fn script_only(&mut self, span: Span, word: &str) {
        let diagnostic = Diagnostic::error("syntax", format!("`{word}` belongs to the script form"));
        self.report(diagnostic.help("expand the script first: what passes read is the graph form"), span);
    }

    /// A type, or after an error one that is only a stand-in.
    fn ty(&mut self, ty: &TypeExpr) -> Option<TensorType> {
        match tensor_type(ty, &evaluate::nothing, &self.file) {
            Ok(ty) => Some(ty),
            Err(errors) => {
                self.errors.extend(errors);
                None
            }
        }
    }

    fn state(&mut self, item: &StateItem) {
        let stand_in = TensorType::new(item.ty.dtype, Shape::from_iter(std::iter::empty::<Dim>()));
        let ty = self.ty(&item.ty).unwrap_or(stand_in);
        let role = Role::ALL.into_iter().find(|role| role.name() == &*item.role.name);
        if role.is_none() {
            let mut diagnostic = Diagnostic::error("name", format!("there is no role `{}`", item.role.name));
            diagnostic.help = did_you_mean(&item.role.name, Role::ALL.iter().map(|role| role.name()))
                .or_else(|| Some("param moment statistic counter exist".to_owned()));
            self.report(diagnostic, item.role.span);
        }
        let init = self.initializer(item);
        if let Some(first) = self.module.states.get(&item.name.name) {
            let line = first.source.as_ref().map_or(0, |source| source.line);
            let message = format!("state @{} is declared twice, first in line {line}", item.name.name);
            return self.error("name", item.name.span, message);
        }
        let place = item.name.span.location(&self.file);
        let source = match &item.provenance.source {
            Some((file, line)) => crate::graph::Location { file: file.clone(), line: *line, column: 1 },
            None => place,
        };
        let role = role.unwrap_or(Role::Param);
        self.module.states.insert(item.name.name.clone(), State { ty, role, init, source: Some(source) });
    }

    fn initializer(&mut self, item: &StateItem) -> Initializer {
        const ATTRIBUTES: [(&str, &[&str]); 7] = [
            ("constant", &["value"]),
            ("uniform", &["low", "high"]),
            ("normal", &["mean", "deviation"]),
            ("glorot", &[]),
            ("he", &[]),
            ("fan_in", &["fan"]),
            ("seed", &[]),
        ];
        let word = &*item.init.name;
        let Some((_, wanted)) = ATTRIBUTES.iter().find(|(name, _)| *name == word) else {
            let mut diagnostic = Diagnostic::error("name", format!("there is no initialiser `{word}`"));
            diagnostic.help = did_you_mean(word, ATTRIBUTES.iter().map(|(name, _)| *name))
                .or_else(|| Some("constant uniform normal glorot he fan_in seed exist".to_owned()));
            self.report(diagnostic, item.init.span);
            return Initializer::Glorot;
        };
        let empty = Record::default();
        let record = item.attributes.as_ref().unwrap_or(&empty);
        let fields = self.fields(record, &|key| {
            (!wanted.contains(&key))
                .then(|| (format!("`{word}` has no attribute `{key}`"), did_you_mean(key, wanted.iter().copied())))
        });
        let mut number = |key: &str| match fields.iter().find(|(name, ..)| &**name == key) {
            Some((_, AttrValue::Int(value), _)) => *value as f64,
            Some((_, AttrValue::Float(value), _)) => *value,
            Some((_, value, span)) => {
                self.error("attribute", *span, format!("`{key}` is a number, not `{value}`"));
                0.0
            }
            None if means(record.fields.iter().map(|f| &*f.key.name), key, wanted.iter().copied()) => 0.0,
            None => {
                let help = format!(
                    "{word} {{{}}}",
                    wanted.iter().map(|w| format!("{w} = ...")).collect::<Vec<_>>().join(", ")
                );
                self.report(
                    Diagnostic::error("attribute", format!("`{word}` needs `{key}`")).help(help),
                    item.init.span,
                );
                0.0
            }
        };
        match word {
            "constant" => Initializer::Constant(number("value")),
            "uniform" => Initializer::Uniform { low: number("low"), high: number("high") },
            "normal" => Initializer::Normal { mean: number("mean"), deviation: number("deviation") },
            "he" => Initializer::He,
            "seed" => Initializer::Seed,
            "fan_in" => {
                let fan = number("fan");
                if !(fan >= 0.0 && fan.fract() == 0.0) {
                    self.error("attribute", item.init.span, "`fan` is a number of elements");
                }
                Initializer::FanIn(fan as u64)
            }
            _ => Initializer::Glorot,
        }
    }

    /// Values of a record's fields with the places of the values; `refuse` says which keys do not belong here.
    fn fields(&mut self, record: &Record, refuse: &dyn Fn(&str) -> Option<Refusal>) -> Vec<(Name, AttrValue, Span)> {
        let mut fields: Vec<(Name, AttrValue, Span)> = Vec::new();
        let mut seen: HashMap<&str, ()> = HashMap::new();
        for field in &record.fields {
            if seen.insert(&field.key.name, ()).is_some() {
                self.error("attribute", field.key.span, format!("`{}` is given twice", field.key.name));
                continue;
            }
            if let Some((message, help)) = refuse(&field.key.name) {
                let mut diagnostic = Diagnostic::error("attribute", message);
                diagnostic.help = help;
                self.report(diagnostic, field.key.span);
                continue;
            }
            match evaluate::evaluate(&field.value, &evaluate::nothing) {
                Ok(value) => fields.push((field.key.name.clone(), value, field.value.span)),
                Err(misfit) => self.errors.push(misfit.diagnostic("attribute", &self.file)),
            }
        }
        fields
    }

    fn train(&mut self, record: &Record, span: Span, into: &mut RecipeItems) {
        self.train_with(record, span, into, &evaluate::nothing);
    }

    fn train_with(&mut self, record: &Record, span: Span, into: &mut RecipeItems, lookup: Lookup<'_>) {
        if let Some(first) = into.train.replace(span) {
            return self.error("name", span, format!("`train` stands twice, first in line {}", first.line));
        }
        match evaluate::evaluate_record(record, lookup) {
            Ok(fields) => into.recipe.get_or_insert_default().entries.extend(fields),
            Err(misfit) => self.errors.push(misfit.diagnostic("attribute", &self.file)),
        }
    }

    fn weights(&mut self, record: &Record, span: Span, into: &mut RecipeItems) {
        if let Some(first) = into.weights.replace(span) {
            return self.error("name", span, format!("`weights` stands twice, first in line {}", first.line));
        }
        for field in record.fields.iter().filter(|field| field.key.name.contains('{')) {
            self.error("attribute", field.key.span, "patterns of names are for models, graphs have them written out");
        }
        match evaluate::evaluate_record(record, &evaluate::nothing) {
            Ok(fields) => {
                let value = AttrValue::Record("".into(), fields);
                into.recipe.get_or_insert_default().entries.insert("weights".into(), value);
            }
            Err(misfit) => self.errors.push(misfit.diagnostic("attribute", &self.file)),
        }
    }
}
