//! Constraints as the doc comments state them: each text stands once, above the code that checks it.

use super::{Constraint, Family};

/// Items `- label: text` of the doc comments of a source, with the lines that continue them.
pub(crate) fn labelled(source: &str) -> Vec<Constraint> {
    let mut found: Vec<Constraint> = Vec::new();
    let mut open = false;
    for line in source.lines() {
        let item = doc(line).and_then(parse_item);
        match (item, doc(line), found.last_mut()) {
            (Some(constraint), ..) => {
                open = true;
                found.push(constraint);
            }
            (None, Some(doc), Some(last)) if open && doc.starts_with("   ") => {
                last.text.push(' ');
                last.text.push_str(doc.trim());
            }
            _ => open = false,
        }
    }
    found
}

/// What stands behind `///` or `//!`.
fn doc(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))
}

/// ` - script.S1: text`.
fn parse_item(doc: &str) -> Option<Constraint> {
    let (label, text) = doc.strip_prefix(" - ")?.split_once(": ")?;
    let (word, number) = label.rsplit_once(['C', 'L', 'S', 'V'])?;
    let fits = word.is_empty() || word.ends_with('.');
    let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (fits && numbered).then(|| Constraint { label: label.to_owned(), text: text.to_owned() })
}

impl Family {
    /// The constraints that the doc comments number, in the order of the sources, each label once.
    pub(crate) fn constraints(&self) -> Vec<Constraint> {
        let mut found: Vec<Constraint> = Vec::new();
        for source in self.sources {
            let mut open = false;
            for line in source.lines() {
                let Some(doc) = doc(line) else {
                    open = false;
                    continue;
                };
                match (parse_constraint(doc.trim()), found.last_mut()) {
                    (Some(constraint), _) => {
                        open = found.iter().all(|c| c.label != constraint.label);
                        if open {
                            found.push(constraint);
                        }
                    }
                    (None, Some(last)) if open && doc.starts_with("    ") => {
                        last.text.push(' ');
                        last.text.push_str(doc.trim());
                    }
                    _ => open = false,
                }
            }
        }
        found
    }

    /// What the doc comment of an op's rule says about constraints it shares: the sentence after `Constraints`.
    pub(crate) fn shared_constraints(&self, mnemonic: &str) -> Option<&'static str> {
        let plain = mnemonic.replace('_', "");
        for source in self.sources {
            let mut sentence = None;
            for line in source.lines() {
                if let Some(doc) = line.strip_prefix("///") {
                    let text = doc.trim().strip_prefix("Constraints").map(|rest| rest.trim_start_matches(':').trim());
                    sentence = sentence.or(text.and_then(|text| text.split_once('.').map(|_| first_sentence(text))));
                } else {
                    let named = line.strip_prefix("impl OpSpec for super::").and_then(|rest| rest.split_once(' '));
                    match named {
                        Some((name, _)) if name.to_ascii_lowercase() == plain => return sentence,
                        _ => sentence = None,
                    }
                }
            }
        }
        None
    }
}

fn first_sentence(text: &str) -> &str {
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.')
}

/// ``1. `conv.C3`: text``.
fn parse_constraint(doc: &str) -> Option<Constraint> {
    let (number, rest) = doc.split_once(". `")?;
    let (label, text) = rest.split_once("`: ")?;
    let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (numbered && is_label(label)).then(|| Constraint { label: label.to_owned(), text: text.to_owned() })
}

/// `word.C1`.
pub(crate) fn is_label(text: &str) -> bool {
    let Some((word, number)) = text.split_once(".C") else {
        return false;
    };
    let word_fits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    word_fits && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}
