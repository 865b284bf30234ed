//! Diagnostics: what is wrong, where, and what to change.
//!
//! The rendering is rustc's: label and message, the place with its line and a caret, notes, and help.

use std::fmt::Write;

use crate::graph::Location;

/// One finding about a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable label of the violated rule: `conv.C3`, `syntax`, `V2`.
    pub label: String,
    /// Where, if the program came from a text or from Rust.
    pub at: Option<Location>,
    /// Number of characters that the caret line marks.
    pub width: u32,
    /// What is wrong.
    pub message: String,
    /// Facts that help to understand, a line each: operands with their types.
    pub notes: Vec<String>,
    /// What to change.
    pub help: Option<String>,
    /// Whether the program can still be used.
    pub severity: Severity,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The program has no meaning.
    Error,
    /// The program is valid and probably not what was meant.
    Warning,
}

impl Diagnostic {
    /// An error.
    pub fn error(label: impl Into<String>, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            label: label.into(),
            at: None,
            width: 1,
            message: message.into(),
            notes: Vec::new(),
            help: None,
            severity: Severity::Error,
        }
    }

    /// A warning.
    pub fn warning(label: impl Into<String>, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(label, message) }
    }

    /// At a place.
    pub fn at(mut self, at: Option<Location>) -> Diagnostic {
        self.at = at;
        self
    }

    /// Marks `width` characters from the place on.
    pub fn width(mut self, width: u32) -> Diagnostic {
        self.width = width.max(1);
        self
    }

    /// With a fact.
    pub fn note(mut self, note: impl Into<String>) -> Diagnostic {
        self.notes.push(note.into());
        self
    }

    /// With advice.
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// The finding as text; `source` gives the text of a file by name.
    pub fn render(&self, source: &dyn Fn(&str) -> Option<String>) -> String {
        let mut out = String::new();
        let kind = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let _ = writeln!(out, "{kind}[{}]: {}", self.label, self.message);
        if let Some(at) = &self.at {
            let margin = at.line.to_string().len();
            let _ = writeln!(out, "{:margin$}--> {at}", "");
            if let Some(line) = source(&at.file).and_then(|t| t.lines().nth(at.line as usize - 1).map(str::to_owned)) {
                let shown: String = line.chars().map(|c| if c == '\t' { ' ' } else { c }).take(200).collect();
                let _ = writeln!(out, "{:margin$} |", "");
                let _ = writeln!(out, "{} | {shown}", at.line);
                let column = (at.column as usize).saturating_sub(1);
                let room = shown.chars().count().saturating_sub(column).max(1);
                let carets = "^".repeat((self.width as usize).min(room));
                let _ = writeln!(out, "{:margin$} | {:column$}{carets}", "", "");
            }
        }
        for note in &self.notes {
            let _ = writeln!(out, "  = note: {note}");
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "  = help: {help}");
        }
        out
    }
}

/// All findings as one text.
pub fn render_all(diagnostics: &[Diagnostic], source: &dyn Fn(&str) -> Option<String>) -> String {
    diagnostics.iter().map(|d| d.render(source)).collect::<Vec<_>>().join("\n")
}
