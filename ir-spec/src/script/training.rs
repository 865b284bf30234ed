//! `train {...}`: steps with their optimizers and schedules, which become graphs, and the recipe's entries.

use indexmap::IndexMap;

use super::{Expander, Scope};
use crate::attribute::{AttrValue, Attribute};
use crate::layer::LayerError;
use crate::model::{OPTIMIZERS, Optimizer, RECIPE_KEYS, STEP_KEYS, Step, Train};
use crate::op;
use crate::text::ast::{Expr, ExprKind, Field, Record, Span};
use crate::text::suggest::did_you_mean;
use crate::types::Name;

/// How gradients change parameters.
#[derive(Clone, Debug, Default)]
struct Rules {
    optimizer: Option<Optimizer>,
    cosine: Option<(i64, f64)>,
    clip: Option<f64>,
}

impl Rules {
    const KEYS: [&str; 3] = ["optimizer", "schedule", "clip"];

    /// A step that follows them, if they have an optimizer.
    fn step(self, name: Option<Name>) -> Option<Step> {
        let Rules { optimizer, cosine, clip } = self;
        Some(Step { name, cosine, clip, ..Step::only(optimizer?) })
    }
}

impl Expander<'_> {
    /// How to train; `None` with faults recorded.
    pub(super) fn train(&mut self, span: Span, record: &Record) -> Option<Train> {
        let faults = self.faults.len();
        let mut rules = Rules::default();
        let mut entries: Vec<(Name, AttrValue)> = Vec::new();
        for (i, field) in record.fields.iter().enumerate() {
            if self.is_repeated(record, i) {
                continue;
            }
            match &*field.key.name {
                "steps" => {}
                key if Rules::KEYS.contains(&key) => self.rule(field, &mut rules),
                _ => entries.extend(self.recipe_entry(field)),
            }
        }
        let steps = match record.get("steps") {
            Some(field) => self.steps(field, &rules),
            None if record.get("optimizer").is_none() => {
                self.fault(span, "script.S4", "`train` needs an optimizer")
                    .help("add it: `optimizer = adam {rate = 0.001}`".to_owned());
                None
            }
            None => rules.step(None).map(|step| vec![step]),
        };
        let mut train = Train { steps: steps?, entries: IndexMap::new(), at: None }.at(span.location(&self.file));
        train.entries.extend(entries);
        (self.faults.len() == faults).then_some(train)
    }

    /// `[d {loss = d_loss, trains = d, optimizer = adam}, g {...}]`; what a step does not say is as in `train`.
    fn steps(&mut self, field: &Field, rules: &Rules) -> Option<Vec<Step>> {
        let items = match &field.value.kind {
            ExprKind::List(items) if !items.is_empty() => items,
            _ => {
                self.fault(field.value.span, "script.S5", "`steps` takes a list of steps")
                    .help("write `steps = [first {loss = first_loss, trains = block1}, second {...}]`".to_owned());
                return None;
            }
        };
        let steps: Vec<Option<Step>> = items.iter().map(|item| self.step(item, rules)).collect();
        steps.into_iter().collect()
    }

    fn step(&mut self, item: &Expr, rules: &Rules) -> Option<Step> {
        let ExprKind::Record(Some(name), record) = &item.kind else {
            self.fault(item.span, "script.S5", "a step is its name with what it does")
                .help("write `name {loss = ..., trains = ..., optimizer = ...}`".to_owned());
            return None;
        };
        let faults = self.faults.len();
        let mut rules = rules.clone();
        let (mut loss, mut trains) = (None, Vec::new());
        for (i, field) in record.fields.iter().enumerate() {
            if self.is_repeated(record, i) {
                continue;
            }
            match &*field.key.name {
                "loss" => loss = self.word(&field.value, "loss", "the name of a loss"),
                "trains" => {
                    trains = self.words(&field.value, "trains", "the name of a block's use, or a list of names")
                }
                key if Rules::KEYS.contains(&key) => self.rule(field, &mut rules),
                key => {
                    let known = || ["loss", "trains"].into_iter().chain(Rules::KEYS);
                    let list = known().collect::<Vec<_>>().join(", ");
                    let help = did_you_mean(key, known()).unwrap_or_else(|| format!("it has {list}"));
                    self.fault(field.key.span, "script.S3", format!("a step has no key `{key}`")).help(help);
                }
            }
        }
        if rules.optimizer.is_none() && self.faults.len() == faults {
            self.fault(name.span, "script.S4", format!("step `{}` needs an optimizer", name.name)).help(
                "add it: `optimizer = adam {rate = 0.001}`; one in `train` itself is that of all steps".to_owned(),
            );
        }
        let step = rules.step(Some(name.name.clone()))?;
        Some(Step { loss, trains, at: Some(name.span.location(&self.file)), ..step })
    }

    /// Reports a key that stands in the record twice.
    fn is_repeated(&mut self, record: &Record, i: usize) -> bool {
        let Some(field) = record.fields.get(i) else { return false };
        let repeated = record.fields.iter().take(i).any(|other| other.key.name == field.key.name);
        if repeated {
            self.fault(field.key.span, "script.S10", format!("`{}` is given twice", field.key.name));
        }
        repeated
    }

    fn rule(&mut self, field: &Field, rules: &mut Rules) {
        match &*field.key.name {
            "optimizer" => rules.optimizer = self.optimizer(field),
            "schedule" => rules.cosine = self.schedule(field),
            _ => rules.clip = self.clip(field),
        }
    }

    fn words(&mut self, value: &Expr, key: &str, kind: &str) -> Vec<Name> {
        match &value.kind {
            ExprKind::List(items) => items.iter().filter_map(|item| self.word(item, key, kind)).collect(),
            _ => self.word(value, key, kind).into_iter().collect(),
        }
    }

    fn word(&mut self, value: &Expr, key: &str, kind: &str) -> Option<Name> {
        match &value.kind {
            ExprKind::Word(word) | ExprKind::Text(word) => Some(word.clone()),
            _ => {
                self.fault(value.span, "script.S5", format!("`{key}` takes {kind}"));
                None
            }
        }
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
