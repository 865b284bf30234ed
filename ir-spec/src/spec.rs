//! SPEC.md, generated: the preface by hand, everything else from where it is true.
//!
//! Sentences, operands and attributes come from the op table, constraints from the doc comments above the rules,
//! formulas and decompositions from the bodies, examples from `spec/examples/*.kiln`. An example is a graph named
//! after its op, with its input and expected numbers as comment lines:
//!
//! ```text
//! # What it shows.
//! # input %x = [-1.0, 2.0]
//! # expect %y = [0.0, 2.0]
//! graph @relu(%x: f32[2]) {
//!   %y = relu %x
//!   return %y
//! }
//! ```
//!
//! `# state @w = [...]` gives a state its value, `# passes autodiff` names passes that run first, `# tolerance 1e-5`
//! replaces the tolerance of [`Example::compare`].

mod example;
mod render;

pub use example::{Example, examples};
pub use render::render;

/// A family of ops: one file of rules and one of examples.
#[derive(Debug)]
pub(crate) struct Family {
    /// Heading.
    pub(crate) title: &'static str,
    /// File name of the examples.
    pub(crate) file: &'static str,
    /// Text of the examples.
    pub(crate) examples: &'static str,
    /// Rust sources of the rules.
    pub(crate) sources: &'static [&'static str],
}

macro_rules! families {
    ($($title:literal $file:literal [$($source:literal),*];)*) => {
        /// Every family, in the order of SPEC.md.
        pub(crate) static FAMILIES: &[Family] = &[$(Family {
            title: $title,
            file: concat!($file, ".kiln"),
            examples: include_str!(concat!("../spec/examples/", $file, ".kiln")),
            sources: &[$(include_str!(concat!("op/", $source))),*],
        }),*];
    };
}

families! {
    "Contractions" "contraction" ["contraction.rs", "contraction/dot.rs", "contraction/conv.rs"];
    "Windows" "window" ["window.rs", "window/geometry.rs", "window/max_pool.rs", "window/pool.rs"];
    "Elementwise, with attributes" "parametric" ["parametric.rs"];
    "Movement" "movement" ["movement.rs", "movement/concat.rs", "movement/retype.rs"];
    "Reductions" "reduction" ["reduction.rs", "reduction/arg.rs", "reduction/product.rs"];
    "Indexing" "indexing" ["indexing.rs"];
    "Softmax and normalisation" "normalization" ["normalization.rs"];
    "Losses" "loss" ["loss.rs"];
    "Optimizer updates" "optimizer" ["optimizer.rs"];
    "Control" "control" ["control.rs"];
    "States, constants, random numbers" "creation" ["creation.rs"];
    "Elementwise" "elementwise" ["elementwise.rs"];
}

/// A constraint as the doc comment of a rule states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// `conv.C3`.
    pub label: String,
    /// What must hold.
    pub text: String,
}

impl Family {
    /// The constraints that the doc comments number, in the order of the sources, each label once.
    pub(crate) fn constraints(&self) -> Vec<Constraint> {
        let mut found: Vec<Constraint> = Vec::new();
        for source in self.sources {
            let mut open = false;
            for line in source.lines() {
                let doc = line.trim_start().strip_prefix("///").or_else(|| line.trim_start().strip_prefix("//!"));
                let Some(doc) = doc else {
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
}

impl Family {
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

/// Every constraint, in the order of SPEC.md.
pub fn constraints() -> Vec<Constraint> {
    FAMILIES.iter().flat_map(Family::constraints).collect()
}

/// ``1. `conv.C3`: text``.
fn parse_constraint(doc: &str) -> Option<Constraint> {
    let (number, rest) = doc.split_once(". `")?;
    let (label, text) = rest.split_once("`: ")?;
    let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (numbered && is_label(label)).then(|| Constraint { label: label.to_owned(), text: text.to_owned() })
}

/// `word.C1`.
fn is_label(text: &str) -> bool {
    let Some((word, number)) = text.split_once(".C") else {
        return false;
    };
    let word_fits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    word_fits && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests;
