//! Diagnostics: what is wrong, where, and what to change.
//!
//! The rendering is rustc's: label and message, the place with its line and a caret, notes, and help.

use std::collections::HashMap;
use std::fmt::Write;
use std::ops::Range;

use crate::graph::Location;
use crate::types::Name;

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
        render_all(std::slice::from_ref(self), source)
    }

    fn write(&self, out: &mut String, sources: &mut Sources<'_>) {
        let kind = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{kind}[{}]: {}", self.label, self.message);
        if let Some(at) = &self.at {
            let margin = at.line.to_string().len();
            let _ = writeln!(out, "{:margin$}--> {at}", "");
            if let Some(line) = sources.line(&at.file, at.line) {
                let column = (at.column as usize).saturating_sub(1);
                // Of a long line the part around the place.
                let skipped = if column < LINE_SHOWN - 40 { 0 } else { column - LINE_SHOWN / 2 };
                let shown = line.chars().map(|c| if c == '\t' { ' ' } else { c }).skip(skipped).take(LINE_SHOWN);
                let shown: String = shown.collect();
                let column = column - skipped;
                let _ = writeln!(out, "{:margin$} |", "");
                let _ = writeln!(out, "{} | {shown}", at.line);
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
    }
}

/// Characters of a source line that are shown at most.
const LINE_SHOWN: usize = 200;

/// All findings as one text; `source` gives the text of a file by name and is asked once for each.
pub fn render_all(diagnostics: &[Diagnostic], source: &dyn Fn(&str) -> Option<String>) -> String {
    let mut sources = Sources { source, files: HashMap::new() };
    let mut out = String::new();
    for (i, diagnostic) in diagnostics.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        diagnostic.write(&mut out, &mut sources);
    }
    out
}

/// Texts by file name, with the place of every line: thousands of findings are no reason to count lines anew.
struct Sources<'a> {
    source: &'a dyn Fn(&str) -> Option<String>,
    files: HashMap<Name, (String, Vec<Range<usize>>)>,
}

impl Sources<'_> {
    /// A line, from 1.
    fn line(&mut self, file: &Name, line: u32) -> Option<&str> {
        let (text, lines) = self.files.entry(file.clone()).or_insert_with(|| {
            let text = (self.source)(file).unwrap_or_default();
            let mut start = 0;
            let place = |line: &str| {
                let begin = start;
                start += line.len();
                begin..begin + line.trim_end_matches(['\n', '\r']).len()
            };
            let lines = text.split_inclusive('\n').map(place).collect();
            (text, lines)
        });
        text.get(lines.get((line as usize).checked_sub(1)?)?.clone())
    }
}
