//! The micro-kernels of a compilation: each made once, as the cost model wants it or as was measured.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use kiln_rt::kernels::window::WindowPlan;
use kiln_rt::kernels::{ContractError, ContractSpec, Kernels};

use super::alternatives;
use super::micro_kernel::MicroKernel;
use crate::compile::Precision;
use crate::tuning::{Choice, Decision, Rounding, Tuned, Tuning, Way};

/// What a contraction was compiled to.
#[derive(Clone, Debug)]
pub struct Made {
    /// The micro-kernels that together compute it: one, or one per phase of a strided gradient.
    pub plans: Vec<Arc<MicroKernel>>,
    /// What was chosen, where somebody has chosen or wants to know.
    pub decision: Option<Arc<Decision>>,
}

/// The micro-kernels of a compilation. Contractions that are the same share plan and tables: a network repeats its
/// blocks, and working out the tables is a good part of compiling it.
pub struct MicroKernels<'a> {
    /// The kernels of the level.
    pub kernels: &'a Kernels,
    pub(super) precision: Precision,
    tuning: Tuning,
    made: RefCell<HashMap<ContractSpec, Result<Made, ContractError>>>,
}

impl<'a> MicroKernels<'a> {
    /// None yet.
    pub fn new(kernels: &'a Kernels, precision: Precision, tuning: &Tuning) -> MicroKernels<'a> {
        MicroKernels { kernels, precision, tuning: tuning.clone(), made: RefCell::default() }
    }

    /// The micro-kernels for `spec`.
    ///
    /// # Errors
    /// [`ContractError`] when there are none.
    pub fn of(&self, spec: &ContractSpec) -> Result<Made, ContractError> {
        self.made.borrow_mut().entry(spec.clone()).or_insert_with(|| self.make(spec)).clone()
    }

    fn make(&self, spec: &ContractSpec) -> Result<Made, ContractError> {
        let (winograd, declined) = MicroKernel::winograd(spec, self.kernels, self.precision);
        let phases = spec.phases();
        if let ([phase], true) = (phases.as_slice(), self.tuning.is_used()) {
            return self.decided(phase, winograd, &declined);
        }
        let direct = |phase: &ContractSpec| MicroKernel::direct_sum(phase, self.kernels, &declined);
        let plans = match winograd {
            Some(kernel) => vec![kernel],
            None => phases.iter().map(direct).collect::<Result<_, _>>()?,
        };
        Ok(Made { plans: plans.into_iter().map(Arc::new).collect(), decision: None })
    }

    /// The kernel of a measured choice if there is one; else the cost model's, which is a Winograd kernel or a direct sum.
    fn decided(
        &self,
        spec: &ContractSpec,
        winograd: Option<MicroKernel>,
        declined: &Option<String>,
    ) -> Result<Made, ContractError> {
        let key = self.key("contraction", &format!("{spec:?}"));
        let tuned = self.tuning.find(&key);
        let taken = tuned.and_then(|tuned| self.tuned(spec, winograd.as_ref(), declined, &tuned));
        let in_force = tuned.filter(|tuned| taken.is_some() || tuned.choice.is_none());
        let kernel = match taken.or(winograd) {
            Some(kernel) => kernel,
            None => MicroKernel::direct_sum(spec, self.kernels, declined)?,
        };
        let forks = in_force.and_then(|tuned| tuned.choice).and_then(|choice| choice.forks);
        let choice = Choice { way: kernel.way(), forks };
        let of = |rounding| alternatives::of_contraction(self, spec, &kernel, choice, rounding);
        let alternatives = self.tuning.alternatives().map(of).unwrap_or_default();
        let tuned = in_force.map(|tuned| tuned.measured);
        let decision = Decision { kernel: key, choice, tuned, alternatives };
        Ok(Made { plans: vec![Arc::new(kernel)], decision: Some(Arc::new(decision)) })
    }

    /// The micro-kernel of a measured choice, unless it would change bits and may not.
    fn tuned(
        &self,
        spec: &ContractSpec,
        winograd: Option<&MicroKernel>,
        declined: &Option<String>,
        tuned: &Tuned,
    ) -> Option<MicroKernel> {
        let kernel = MicroKernel::chosen(spec, self.kernels, self.precision, &tuned.choice?.way, declined)?;
        let same = match (&kernel, winograd) {
            (MicroKernel::Direct(plan, _), None) => plan.keeps_bits(),
            (MicroKernel::Direct(..), Some(_)) => false,
            (kernel, winograd) => winograd.is_some_and(|usual| usual.order() == kernel.order()),
        };
        (same || tuned.rounding == Rounding::Tuned).then_some(kernel)
    }

    /// Cuts the planes of a window kernel as a measurement says, if there is one.
    pub(super) fn cut(&self, plan: &mut WindowPlan) -> Option<Arc<Decision>> {
        if !self.tuning.is_used() {
            return None;
        }
        let key = self.key("window", &format!("{} {}", plan.kernel(), plan.spec()));
        let tuned = self.tuning.find(&key);
        let choice = tuned.and_then(|tuned| tuned.choice);
        let tiles = choice.and_then(|choice| if let Way::Window(tiles) = choice.way { Some(tiles) } else { None });
        if let Some(tiles) = tiles {
            plan.cut(tiles);
        }
        let forks = choice.and_then(|choice| choice.forks);
        let choice = Choice { way: Way::Window(plan.tiles()), forks };
        let alternatives = self.tuning.alternatives().map(|_| alternatives::of_window(plan, choice));
        let alternatives = alternatives.unwrap_or_default();
        let tuned = tuned.map(|tuned| tuned.measured);
        Some(Arc::new(Decision { kernel: key, choice, tuned, alternatives }))
    }

    fn key(&self, kind: &str, spec: &str) -> String {
        format!("{kind}, level {}, precision {:?}: {spec}", self.kernels.level, self.precision)
    }
}
