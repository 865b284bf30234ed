//! The kit for people who write a pass, inside this repository or outside of it.
//!
//! [`run_pass`] takes a program as text and a pass, and returns one text that shows the module before and after, the
//! number of rewrites and the remarks: what a snapshot test pins down. On the way it holds the pass to its contract:
//! it leaves a verified module, says truthfully whether it changed anything, and changes no result. For the last, the
//! reference evaluator runs both modules on the same random inputs, see [`check_equivalent`].
//!
//! ```
//! use kiln::pass::eliminate_dead::EliminateDead;
//!
//! let text = kiln::testing::run_pass(
//!     "graph @f(%x: f32[2]) {
//!        %y: f32[2] = relu %x
//!        %unused: f32[2] = exp %x
//!        return %y
//!      }",
//!     &EliminateDead,
//! );
//! assert_eq!(
//!     text,
//!     "\
//! ### before: 2 nodes
//!
//! graph @f(%x: f32[2]) {
//!   %y: f32[2] = relu %x
//!   %unused: f32[2] = exp %x
//!   return %y
//! }
//!
//! ### after eliminate_dead: 1 node, 1 rewrite, same bits
//!
//! graph @f(%x: f32[2]) {
//!   %y: f32[2] = relu %x
//!   return %y
//! }
//! "
//! );
//! ```
//!
//! With [`assert_pass_snapshot!`](crate::assert_pass_snapshot) the text is a snapshot of the crate [insta], which the
//! calling crate depends on; Kiln itself does not.
//!
//! [insta]: https://insta.rs

mod derivative;
mod equivalence;
mod inputs;

use std::fmt;

use kiln_ir::diagnostic::render_all;
use kiln_ir::text::{PrintOptions, print};
use kiln_ir::types::Bindings;
use kiln_ir::verify::{Bound, verify};
use kiln_ir::{Diagnostic, Module, script};

use crate::pass::{Changed, Pass, Remarks};

pub use equivalence::{Equivalence, check_equivalent};

/// Runs a pass over a program in text form and returns before, after, rewrite count and remarks as one text.
///
/// # Panics
/// If the text is no program with numbers for all extents, if the pass fails or leaves a module that the verifier
/// rejects, if [`Changed`] is not true, or if a result differs. The message says which, with both modules.
#[track_caller]
pub fn run_pass(text: &str, pass: &dyn Pass) -> String {
    let applied = module(text, &Bindings::new()).and_then(|module| apply(module, pass));
    match applied {
        Ok(applied) => applied.to_string(),
        Err(message) => panic!("{message}"),
    }
}

/// Pins the outcome of a pass as a snapshot of the calling crate, which depends on `insta`.
///
/// ```text
/// kiln::assert_pass_snapshot!(MyPass, "graph @f(%x: f32[2]) { %y = relu %x return %y }");
/// ```
#[macro_export]
macro_rules! assert_pass_snapshot {
    ($pass:expr, $text:expr $(, @$inline:literal)?) => {{
        let passed = $crate::testing::run_pass($text, &$pass);
        ::insta::assert_snapshot!(passed $(, @$inline)?);
    }};
}

/// The module of a program in either form, verified, with `bindings` in place of dimension names.
///
/// # Errors
/// Every finding as text, with source lines.
pub fn module(text: &str, bindings: &Bindings) -> Result<Module, String> {
    let rendered = |found: Vec<Diagnostic>| render_all(&found, &|_| Some(text.to_owned()));
    let module = script::load("test.kiln", text, bindings).map_err(rendered)?;
    let found = verify(&module, Bound::Yes);
    if found.is_empty() { Ok(module) } else { Err(rendered(found)) }
}

/// What a pass did.
#[derive(Debug)]
pub struct Applied {
    /// Name of the pass.
    pub pass: &'static str,
    /// The module that it was given.
    pub before: Module,
    /// The module that it left.
    pub after: Module,
    /// What it said, and how often it rewrote something.
    pub remarks: Remarks,
    /// How its results compare; `None` for a pass that is meant to change them, see [`Pass::keeps_results`].
    pub equivalence: Option<Equivalence>,
}

/// Runs a pass over a verified module and holds it to its contract.
///
/// # Errors
/// What [`run_pass`] panics with.
pub fn apply(before: Module, pass: &dyn Pass) -> Result<Applied, String> {
    let name = pass.name();
    let mut after = before.clone();
    let mut remarks = Remarks::default();
    let rendered = |found: &[Diagnostic]| render_all(found, &|_| None);
    let changed =
        pass.run(&mut after, &mut remarks).map_err(|found| format!("`{name}` refuses:\n{}", rendered(&found)))?;
    let blame = |what: String| format!("pass `{name}`: {what}\n\n{}", both(&before, &after));
    let found = verify(&after, Bound::Yes);
    if !found.is_empty() {
        return Err(blame(format!("it leaves a module that is not sound:\n{}", rendered(&found))));
    }
    match (changed, before == after) {
        (Changed::Yes, true) => return Err(blame("it returns `Changed::Yes` and changed nothing".into())),
        (Changed::No, false) => return Err(blame("it returns `Changed::No` and changed the module".into())),
        _ => {}
    }
    let equivalence = match pass.keeps_results() {
        true => Some(check_equivalent(&before, &after).map_err(blame)?),
        false => None,
    };
    Ok(Applied { pass: name, before, after, remarks, equivalence })
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## before: {}\n", count(nodes(&self.before), "node"))?;
        write!(f, "{}", text(&self.before))?;
        let rewrites = count(self.remarks.rewrites(), "rewrite");
        let equivalence: &dyn fmt::Display = match &self.equivalence {
            Some(equivalence) => equivalence,
            None => &"other results by intent",
        };
        writeln!(f, "\n## after {}: {}, {rewrites}, {equivalence}\n", self.pass, count(nodes(&self.after), "node"))?;
        match self.before == self.after {
            true => writeln!(f, "unchanged")?,
            false => write!(f, "{}", text(&self.after))?,
        }
        if !self.remarks.list().is_empty() {
            writeln!(f, "\n## remarks\n")?;
        }
        self.remarks.list().iter().try_for_each(|remark| writeln!(f, "{remark}"))
    }
}

fn text(module: &Module) -> String {
    print(module, &PrintOptions::default())
}

fn both(before: &Module, after: &Module) -> String {
    format!("before:\n{}\nafter:\n{}", text(before), text(after))
}

fn nodes(module: &Module) -> usize {
    module.graphs.values().map(|graph| graph.nodes().len()).sum()
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests;
