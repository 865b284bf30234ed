//! `train {...}`: optimizer and schedule, which become part of the step graph, and the recipe's entries.

use super::{Expander, Scope};
use crate::attribute::{AttrValue, Attribute};
use crate::layer::LayerError;
use crate::model::{OPTIMIZERS, Optimizer, RECIPE_KEYS, STEP_KEYS, Train};
use crate::op;
use crate::text::ast::{Expr, ExprKind, Field, Record, Span};
use crate::text::suggest::did_you_mean;
use crate::types::Name;

impl Expander<'_> {
    /// How to train; `None` with faults recorded.
    pub(super) fn train(&mut self, span: Span, record: &Record) -> Option<Train> {
        let faults = self.faults.len();
        let mut optimizer = None;
        let (mut cosine, mut clip) = (None, None);
        let mut entries: Vec<(Name, AttrValue)> = Vec::new();
        for (i, field) in record.fields.iter().enumerate() {
            let key = &*field.key.name;
            if record.fields.iter().take(i).any(|other| other.key.name == field.key.name) {
                self.fault(field.key.span, "script.S10", format!("`{key}` is given twice"));
                continue;
            }
            match key {
                "optimizer" => optimizer = self.optimizer(field),
                "schedule" => cosine = self.schedule(field),
                "clip" => clip = self.clip(field),
                _ => entries.extend(self.recipe_entry(field)),
            }
        }
        if record.get("optimizer").is_none() {
            self.fault(span, "script.S4", "`train` needs an optimizer")
                .help("add it: `optimizer = adam {rate = 0.001}`".to_owned());
        }
        let mut train = Train::with(optimizer?).at(span.location(&self.file));
        train.cosine = cosine;
        train.clip = clip;
        train.entries.extend(entries);
        (self.faults.len() == faults).then_some(train)
    }

    fn recipe_entry(&mut self, field: &Field) -> Option<(Name, AttrValue)> {
        let (key, at) = (&field.key.name, field.value.span);
        let value = self.evaluate(&Scope::default(), &field.value)?;
        let Some(known) = RECIPE_KEYS.iter().find(|known| known.name == &**key) else {
            let all = || RECIPE_KEYS.iter().map(|known| known.name).chain(STEP_KEYS.map(|key| key.name));
            let help = did_you_mean(key, all());
            let list = all().collect::<Vec<_>>().join(", ");
            self.fault(field.key.span, "script.S3", format!("`train` has no key `{key}`"))
                .help_if(help.or(Some(format!("it has {list}"))));
            return None;
        };
        if !(known.accepts)(&value) {
            self.wrong_kind(at, known.name, known.kind, Some(&value), &["true", "false"]);
            return None;
        }
        Some((key.clone(), value))
    }

    /// `adam`, or `adam {rate = 0.001, ...}`.
    fn optimizer(&mut self, field: &Field) -> Option<Optimizer> {
        let (word, span, record) = self.called(field, "an optimizer, such as `adam {rate = 0.001}`")?;
        let attributes = self.fields(record);
        let errors = match Optimizer::parse(&word, &attributes) {
            Ok(optimizer) => return Some(optimizer),
            Err(errors) => errors,
        };
        let place = |name: &str| record.and_then(|record| record.get(name));
        for error in &errors {
            match error {
                LayerError::Unknown => {
                    let names = OPTIMIZERS.map(|(name, _)| name);
                    let help = did_you_mean(&word, names).unwrap_or_else(|| format!("there are {}", names.join(", ")));
                    self.fault(span, "script.S2", format!("there is no optimizer `{word}`")).help(help);
                }
                LayerError::Unexpected(name) => {
                    let keys = Optimizer::keys(&word);
                    let help = did_you_mean(name, keys.iter().copied());
                    let at = place(name).map_or(span, |field| field.key.span);
                    self.fault(at, "script.S3", format!("`{word}` has no attribute `{name}`"))
                        .help_if(help.or_else(|| Some(format!("it has {}", keys.join(", ")))));
                }
                LayerError::WrongKind(name) | LayerError::Missing(name) => {
                    let row = op::entry(&word).and_then(|entry| entry.attributes.iter().find(|a| a.name == *name));
                    let kind = row.map_or("a number above 0", |row| row.kind);
                    let given = attributes.iter().find(|(key, _)| &**key == *name).map(|(_, value)| value);
                    let at = place(name).map_or(span, |field| field.value.span);
                    self.wrong_kind(at, name, kind, given, &["true", "false"]);
                }
            }
        }
        None
    }

    /// `constant`, or `cosine {steps = 1000, floor = 0}`.
    fn schedule(&mut self, field: &Field) -> Option<(i64, f64)> {
        let (word, span, record) = self.called(field, "a schedule, such as `cosine {steps = 1000}`")?;
        let attributes = self.fields(record);
        let known: &[&str] = match &*word {
            "constant" => &[],
            "cosine" => &["steps", "floor"],
            _ => {
                let help = did_you_mean(&word, ["constant", "cosine"]);
                self.fault(span, "script.S2", format!("there is no schedule `{word}`"))
                    .help_if(help.or_else(|| Some("there are constant and cosine".to_owned())));
                return None;
            }
        };
        for (name, _) in attributes.iter().filter(|(name, _)| !known.contains(&&**name)) {
            let at = record.and_then(|record| record.get(name)).map_or(span, |field| field.key.span);
            let help = did_you_mean(name, known.iter().copied());
            self.fault(at, "script.S3", format!("`{word}` has no attribute `{name}`")).help_if(help);
        }
        if &*word == "constant" {
            return None;
        }
        let get = |name: &str| attributes.iter().find(|(key, _)| &**key == name).map(|(_, value)| value);
        let steps = get("steps").and_then(i64::from_value).filter(|steps| *steps >= 1);
        if steps.is_none() {
            self.fault(span, "script.S4", "`cosine` needs `steps`, an integer of at least 1")
                .help("the rate reaches its floor after that many steps: `cosine {steps = 1000}`".to_owned());
        }
        let floor = match get("floor") {
            None => Some(0.0),
            Some(value) => f64::from_value(value).filter(|floor| *floor >= 0.0),
        };
        if floor.is_none() {
            let at = record.and_then(|record| record.get("floor")).map_or(span, |field| field.value.span);
            self.wrong_kind(at, "floor", "a number of at least 0", get("floor"), &[]);
        }
        Some((steps?, floor?))
    }

    fn clip(&mut self, field: &Field) -> Option<f64> {
        let value = self.evaluate(&Scope::default(), &field.value)?;
        let norm = f64::from_value(&value).filter(|norm| *norm > 0.0);
        if norm.is_none() {
            self.wrong_kind(field.value.span, "clip", "a number above 0, the largest norm", Some(&value), &[]);
        }
        norm
    }

    /// A word with its record, if it has one.
    fn called<'f>(&mut self, field: &'f Field, kind: &str) -> Option<(Name, Span, Option<&'f Record>)> {
        let Expr { kind: found, span } = &field.value;
        match found {
            ExprKind::Word(word) => Some((word.clone(), *span, None)),
            ExprKind::Record(Some(word), record) => Some((word.name.clone(), word.span, Some(record))),
            _ => {
                self.fault(*span, "script.S5", format!("`{}` takes {kind}", field.key.name));
                None
            }
        }
    }

    fn fields(&mut self, record: Option<&Record>) -> Vec<(Name, AttrValue)> {
        let mut attributes: Vec<(Name, AttrValue)> = Vec::new();
        for field in record.iter().flat_map(|record| &record.fields) {
            if attributes.iter().any(|(name, _)| *name == field.key.name) {
                self.fault(field.key.span, "script.S10", format!("`{}` is given twice", field.key.name));
            } else if let Some(value) = self.evaluate(&Scope::default(), &field.value) {
                attributes.push((field.key.name.clone(), value));
            }
        }
        attributes
    }
}
