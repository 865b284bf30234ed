//! Choices that are being tried.

use std::collections::HashMap;

use super::{Choice, Measured, Rounding, Table, Tuned};

/// A table in memory.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    rounding: Rounding,
    choices: HashMap<String, Choice>,
}

impl Trial {
    /// These choices; with [`Rounding::Kept`], as far as they keep every bit.
    pub fn new(rounding: Rounding, choices: impl IntoIterator<Item = (String, Choice)>) -> Trial {
        Trial { rounding, choices: choices.into_iter().collect() }
    }
}

impl Table for Trial {
    fn find(&self, kernel: &str) -> Option<Tuned> {
        let choice = self.choices.get(kernel).copied();
        choice.map(|choice| Tuned { choice: Some(choice), rounding: self.rounding, measured: Measured::default() })
    }
}
