//! `weights {...}`: the names that states have in weights made elsewhere.
//!
//! A name with `{i}` in it is a pattern: it stands for every state that has a number there, and the foreign name takes
//! the number over, or a neighbour of it, `{i - 1}`. The recipe holds what patterns stand for, one entry per state.

use std::collections::BTreeSet;

use crate::attribute::AttrValue;
use crate::diagnostic::Diagnostic;
use crate::graph::Location;
use crate::text::suggest::did_you_mean;
use crate::types::Name;

/// One entry as written.
#[derive(Clone, Debug)]
pub(crate) struct ForeignWeight {
    pub(crate) state: Name,
    pub(crate) foreign: Name,
    pub(crate) transposed: bool,
    pub(crate) at: Option<Location>,
    pub(crate) width: u32,
}

/// Entries of the recipe: patterns expanded, in the order of the entries and then of the states.
pub(crate) fn resolve(entries: &[ForeignWeight], states: &[&Name]) -> Result<Vec<(Name, AttrValue)>, Vec<Diagnostic>> {
    let mut resolved = Vec::new();
    let mut named = BTreeSet::new();
    let mut faults = Vec::new();
    for entry in entries {
        let fault = |label, message: String| Diagnostic::error(label, message).at(entry.at.clone()).width(entry.width);
        let pairs = match pairs(entry, states) {
            Ok(pairs) => pairs,
            Err(message) => {
                let help = "write `\"encoder{i}.weight\" = \"layers.{i - 1}.weight\"`: a name in braces, in the foreign \
                            name also plus or minus a number";
                faults.push(fault("script.S5", message).help(help));
                continue;
            }
        };
        if pairs.is_empty() {
            let mut missing = fault("script.S13", format!("the model has no state `@{}`", entry.state));
            missing.help = did_you_mean(&entry.state, states.iter().map(|name| &***name));
            faults.push(missing);
        }
        for (state, foreign) in pairs {
            if !named.insert(state.clone()) {
                faults.push(fault("script.S10", format!("`{state}` is given twice")));
            }
            let foreign = AttrValue::Text(foreign);
            let value = match entry.transposed {
                true => AttrValue::List(vec![foreign, AttrValue::Word("transposed".into())]),
                false => foreign,
            };
            resolved.push((state, value));
        }
    }
    if faults.is_empty() { Ok(resolved) } else { Err(faults) }
}

/// The states that an entry stands for, with their foreign names.
fn pairs(entry: &ForeignWeight, states: &[&Name]) -> Result<Vec<(Name, Name)>, String> {
    if !entry.state.contains(['{', '}']) {
        let there = states.iter().filter(|state| **state == &entry.state);
        return Ok(there.map(|state| ((*state).clone(), entry.foreign.clone())).collect());
    }
    let pattern = Pattern::parse(&entry.state)?;
    let foreign = Pattern::parse(&entry.foreign)?;
    if pattern.holes().any(|(_, offset)| offset != 0) {
        return Err(format!("`{}` calculates with a number that it has to find", entry.state));
    }
    if let Some((unknown, _)) = foreign.holes().find(|(name, _)| pattern.holes().all(|(known, _)| known != *name)) {
        return Err(format!("`{}` has no `{{{unknown}}}` that `{}` could take over", entry.state, entry.foreign));
    }
    let mut pairs = Vec::new();
    for state in states {
        if let Some(numbers) = pattern.find(state) {
            pairs.push(((*state).clone(), foreign.fill(&numbers)?));
        }
    }
    Ok(pairs)
}

/// Text with numbers in it.
struct Pattern<'a>(Vec<Part<'a>>);

enum Part<'a> {
    Text(&'a str),
    /// Name and what is added to its number.
    Hole(&'a str, i64),
}

impl<'a> Pattern<'a> {
    fn parse(text: &'a str) -> Result<Pattern<'a>, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, inside)) = rest.split_once('{') {
            let (hole, behind) = inside.split_once('}').ok_or_else(|| format!("`{text}` has no `}}` for a `{{`"))?;
            parts.push(Part::Text(before));
            parts.push(parse_hole(hole).ok_or_else(|| format!("`{{{hole}}}` is no name, and no name with an offset"))?);
            rest = behind;
        }
        parts.push(Part::Text(rest));
        match parts.iter().any(|part| matches!(part, Part::Text(text) if text.contains('}'))) {
            true => Err(format!("`{text}` has a `}}` without a `{{`")),
            false => Ok(Pattern(parts)),
        }
    }

    fn holes(&self) -> impl Iterator<Item = (&'a str, i64)> {
        self.0.iter().filter_map(|part| match *part {
            Part::Hole(name, offset) => Some((name, offset)),
            Part::Text(_) => None,
        })
    }

    /// The numbers at which `text` fits; a hole takes all digits that there are.
    fn find(&self, text: &str) -> Option<Vec<(&'a str, i64)>> {
        let mut numbers: Vec<(&str, i64)> = Vec::new();
        let mut rest = text;
        for part in &self.0 {
            match *part {
                Part::Text(wanted) => rest = rest.strip_prefix(wanted)?,
                Part::Hole(name, _) => {
                    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                    let (digits, behind) = rest.split_at(end);
                    let number: i64 = digits.parse().ok()?;
                    if numbers.iter().any(|&(other, value)| other == name && value != number) {
                        return None;
                    }
                    numbers.push((name, number));
                    rest = behind;
                }
            }
        }
        rest.is_empty().then_some(numbers)
    }

    fn fill(&self, numbers: &[(&str, i64)]) -> Result<Name, String> {
        let mut text = String::new();
        for part in &self.0 {
            match *part {
                Part::Text(part) => text.push_str(part),
                Part::Hole(name, offset) => {
                    let number = numbers.iter().find(|(known, _)| *known == name).map_or(0, |(_, number)| *number);
                    let sum = number.checked_add(offset).filter(|sum| *sum >= 0);
                    let sum = sum.ok_or_else(|| format!("`{{{name}}}` is {number}, which leaves no number"))?;
                    text.push_str(&sum.to_string());
                }
            }
        }
        Ok(text.into())
    }
}

/// `i`, `i + 1`, `i - 1`.
fn parse_hole(text: &str) -> Option<Part<'_>> {
    let (name, offset) = match text.split_once(['+', '-']) {
        None => (text.trim(), 0),
        Some((name, number)) => {
            let number: i64 = number.trim().parse().ok().filter(|number| *number >= 0)?;
            (name.trim(), if text.contains('-') { -number } else { number })
        }
    };
    let mut letters = name.chars();
    let fits = letters.next().is_some_and(char::is_alphabetic) && letters.all(|c| c.is_alphanumeric() || c == '_');
    fits.then_some(Part::Hole(name, offset))
}
