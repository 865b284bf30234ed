//! SPEC.md, generated: the preface by hand, everything else from where it is true.
//!
//! The preface says where the generated parts go, `<!-- grammar -->` and the like. Sentences, operands and attributes
//! come from the tables of ops and layers, constraints and labels from the doc comments above the code that checks
//! them, formulas and decompositions from the bodies, examples from `spec/examples/*.kiln`. An example is a graph named
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
mod labels;
mod render;
mod script;

pub use example::{Example, examples};
#[cfg(test)]
use labels::is_label;
use labels::labelled;
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
    "Attention" "attention" ["attention.rs"];
    "Losses" "loss" ["loss.rs"];
    "Optimizer updates" "optimizer" ["optimizer.rs"];
    "Control" "control" ["control.rs"];
    "States, constants, random numbers" "creation" ["creation.rs"];
    "Elementwise" "elementwise" ["elementwise.rs"];
}

/// Rust sources of the layers' rules.
const LAYER_SOURCES: [&str; 6] = [
    include_str!("layer.rs"),
    include_str!("layer/attention.rs"),
    include_str!("layer/dense.rs"),
    include_str!("layer/window.rs"),
    include_str!("layer/normalization.rs"),
    include_str!("layer/readout.rs"),
];

/// Constraints of all layers, `dense.L1`.
pub(crate) fn layer_constraints() -> Vec<Constraint> {
    LAYER_SOURCES.iter().flat_map(|source| labelled(source)).collect()
}

/// Labels of scripts, models and layers in general: `script.S1`, `model.C1`, `layer.L1`.
pub(crate) fn script_labels() -> Vec<Constraint> {
    let sources = [include_str!("script.rs"), include_str!("model.rs"), include_str!("layer.rs")];
    sources.iter().flat_map(|source| labelled(source)).collect()
}

/// Invariants of the verifier, `V1`.
pub(crate) fn invariants() -> Vec<Constraint> {
    labelled(include_str!("verify.rs"))
}

/// A constraint as the doc comment of a rule states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// `conv.C3`.
    pub label: String,
    /// What must hold.
    pub text: String,
}

/// Every constraint, in the order of SPEC.md.
pub fn constraints() -> Vec<Constraint> {
    FAMILIES.iter().flat_map(Family::constraints).collect()
}

#[cfg(test)]
mod tests;
