//! The order of passes, as a table of contents, and the one hook that watches them.

use std::time::{Duration, Instant};

use kiln_ir::verify::{Bound, verify};
use kiln_ir::{Diagnostic, Module};

use crate::autodiff::Autodiff;
use crate::compile::Options;
use crate::pass::canonicalize::Canonicalize;
use crate::pass::crop::Crop;
use crate::pass::decompose::Decompose;
use crate::pass::eliminate_common::EliminateCommon;
use crate::pass::eliminate_dead::EliminateDead;
use crate::pass::fold_batch_norm::fold_batch_norm;
use crate::pass::fold_constants::FoldConstants;
use crate::pass::fuse::Fuse;
use crate::pass::hoist::Hoist;
use crate::pass::join_slices::JoinSlices;
use crate::pass::optimizer::Optimizer;
use crate::pass::rematerialize::Rematerialize;
use crate::pass::specialize::{Mode, Specialize};
use crate::pass::{Changed, Pass, Remarks};

/// Passes in order.
pub struct Pipeline(Vec<Box<dyn Pass>>);

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Pipeline {
    /// From an expanded module to kernels. `mode` forces training or inference on every graph.
    pub fn standard(mode: Option<Mode>) -> Pipeline {
        Pipeline(vec![
            Box::new(Specialize { mode }),
            // Before autodiff: what is left out has no gradient either.
            Box::new(Crop),
            Box::new(Autodiff),
            // After autodiff: an update reads gradients.
            Box::new(Optimizer),
            Box::new(Canonicalize),
            Box::new(FoldConstants),
            Box::new(EliminateCommon),
            // Before decompose: what is dead need not be written out.
            Box::new(EliminateDead),
            // Before decompose: it looks for normalisations by name.
            Box::new(fold_batch_norm()),
            Box::new(Decompose),
            // Decompositions bring constants, casts and common parts of their own.
            Box::new(Canonicalize),
            Box::new(FoldConstants),
            Box::new(EliminateCommon),
            Box::new(EliminateDead),
            // After autodiff: a gradient by a slice keeps the product that reads it. In one form, slices are found.
            Box::new(JoinSlices),
            // After everything that makes values of states alone.
            Box::new(Hoist),
            // Last: only the schedule reads groups.
            Box::new(Fuse),
        ])
    }

    /// A pipeline by pass names, separated by commas, with what the options say to each pass.
    ///
    /// # Errors
    /// The first name that is no pass, with all names there are.
    pub fn parse(text: &str, options: &Options) -> Result<Pipeline, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| by_name(name, options)).collect::<Result<_, _>>().map(Pipeline)
    }

    /// The pipeline without a pass.
    pub fn without(mut self, name: &str) -> Pipeline {
        self.0.retain(|pass| pass.name() != name);
        self
    }

    /// Names in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|pass| pass.name()).collect()
    }

    /// The pipeline with a pass before the first one called `name`, or at the end if there is none.
    pub fn with(mut self, pass: Box<dyn Pass>, name: &str) -> Pipeline {
        let place = self.0.iter().position(|other| other.name() == name).unwrap_or(self.0.len());
        self.0.insert(place, pass);
        self
    }

    /// Runs every pass; `observe` sees the module after each.
    ///
    /// # Errors
    /// What a pass cannot do with the program, or what the verifier finds after a pass: then the pass is at fault.
    pub fn run(
        &self,
        module: &mut Module,
        remarks: &mut Remarks,
        verify_each: bool,
        observe: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), Vec<Diagnostic>> {
        for pass in &self.0 {
            let start = Instant::now();
            let changed = pass.run(module, remarks)?;
            observe(&Step { pass: pass.name(), changed, time: start.elapsed(), module });
            if verify_each && changed == Changed::Yes {
                let found = verify(module, Bound::Yes);
                if !found.is_empty() {
                    let blame = |d: Diagnostic| d.note(format!("after pass `{}`: a defect in Kiln", pass.name()));
                    return Err(found.into_iter().map(blame).collect());
                }
            }
        }
        Ok(())
    }
}

/// What an observer sees after a pass.
#[derive(Debug)]
pub struct Step<'a> {
    /// Name of the pass.
    pub pass: &'static str,
    /// Whether it changed anything.
    pub changed: Changed,
    /// How long it took.
    pub time: Duration,
    /// The module after it.
    pub module: &'a Module,
}

/// Every pass that a pipeline can name.
pub const PASSES: [&str; 13] = [
    "specialize",
    "crop",
    "autodiff",
    "optimizer",
    "canonicalize",
    "fold_constants",
    "eliminate_common",
    "eliminate_dead",
    "fold_batch_norm",
    "decompose",
    "join_slices",
    "hoist",
    "fuse",
    "rematerialize",
];

/// A pass by its name in [`PASSES`]; the options have the mode of `specialize` and the budget of `rematerialize`.
///
/// # Errors
/// If there is no such pass, with all names there are.
pub fn by_name(name: &str, options: &Options) -> Result<Box<dyn Pass>, String> {
    Ok(match name {
        "specialize" => Box::new(Specialize { mode: options.mode }),
        "crop" => Box::new(Crop),
        "autodiff" => Box::new(Autodiff),
        "optimizer" => Box::new(Optimizer),
        "canonicalize" => Box::new(Canonicalize),
        "fold_constants" => Box::new(FoldConstants),
        "eliminate_common" => Box::new(EliminateCommon),
        "eliminate_dead" => Box::new(EliminateDead),
        "fold_batch_norm" => Box::new(fold_batch_norm()),
        "decompose" => Box::new(Decompose),
        "join_slices" => Box::new(JoinSlices),
        "hoist" => Box::new(Hoist),
        "fuse" => Box::new(Fuse),
        "rematerialize" => Box::new(Rematerialize::of(options)),
        _ => return Err(format!("there is no pass `{name}`; there are: {}", PASSES.join(", "))),
    })
}
