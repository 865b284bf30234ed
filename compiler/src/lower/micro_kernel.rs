//! What covers a contraction: the direct sum, or Winograd's minimal filtering, forwards or transposed, where that is
//! faster and allowed.

use kiln_rt::kernels::{
    self, ContractError, ContractPlan, ContractSpec, Kernels, Packed, Side, SumOrder, WinogradError,
    WinogradGradientPlan, WinogradOrder, WinogradPlan,
};

use crate::compile::Precision;
use crate::tuning::Way;

/// Name by which nests call the contraction of one tile.
pub const CONTRACT_TILES: &str = "contract_tiles";
/// Name by which nests empty the panels that tiles of a contraction share.
pub const CONTRACT_BEGIN: &str = "contract_begin";
/// Name by which nests call the sum of partial results.
pub const CONTRACT_REDUCE: &str = "contract_reduce";
/// Name by which nests call the packing of an operand.
pub const PACK_OPERAND: &str = "pack_operand";
/// Name by which nests call the transform of weights.
pub const WINOGRAD_PACK: &str = "winograd_pack";
/// Name by which nests call the transform of an input that several tiles use.
pub const WINOGRAD_INPUT: &str = "winograd_input";
/// Name by which nests call one tile of a Winograd convolution.
pub const WINOGRAD_TILES: &str = "winograd_tiles";
/// Name by which nests call the transform of operands that several tiles of a Winograd gradient use.
pub const WINOGRAD_GRADIENT_INPUT: &str = "winograd_gradient_input";
/// Name by which nests call one tile of a Winograd gradient.
pub const WINOGRAD_GRADIENT_TILES: &str = "winograd_gradient_tiles";
/// Name by which nests call the sum of partial Winograd gradients.
pub const WINOGRAD_GRADIENT_SUM: &str = "winograd_gradient_sum";

/// Address of what a nest calls by one of the names above.
pub(super) fn helper_address(name: &str) -> Option<usize> {
    match name {
        CONTRACT_TILES => Some(kernels::entry::contract_tiles_entry as *const () as usize),
        CONTRACT_BEGIN => Some(kernels::entry::contract_begin_entry as *const () as usize),
        CONTRACT_REDUCE => Some(kernels::entry::contract_reduce_entry as *const () as usize),
        PACK_OPERAND => Some(kernels::pack_operand as *const () as usize),
        WINOGRAD_PACK => Some(kernels::winograd_pack as *const () as usize),
        WINOGRAD_INPUT => Some(kernels::entry::winograd_input_entry as *const () as usize),
        WINOGRAD_TILES => Some(kernels::entry::winograd_tiles_entry as *const () as usize),
        WINOGRAD_GRADIENT_INPUT => Some(kernels::entry::winograd_gradient_input_entry as *const () as usize),
        WINOGRAD_GRADIENT_TILES => Some(kernels::entry::winograd_gradient_tiles_entry as *const () as usize),
        WINOGRAD_GRADIENT_SUM => Some(kernels::entry::winograd_gradient_sum_entry as *const () as usize),
        _ => None,
    }
}

/// A compiled contraction, whichever algorithm it is.
#[derive(Debug)]
pub enum MicroKernel {
    /// Sums of products in the order of the tiles; with the reason why it is no Winograd convolution, if it might be.
    Direct(Box<ContractPlan>, Option<String>),
    /// Minimal filtering.
    Winograd(WinogradPlan),
    /// Minimal filtering of the gradient by the weights.
    WinogradGradient(WinogradGradientPlan),
}

/// What decides the bits of a micro-kernel, beside what it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Of a sum of products.
    Direct(SumOrder),
    /// Of minimal filtering.
    Winograd(WinogradOrder),
    /// Of minimal filtering of a gradient.
    WinogradGradient([usize; 5]),
}

/// One launch of a micro-kernel.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// What is appended to the kernel's name.
    pub suffix: &'static str,
    /// Which function is called.
    pub helper: &'static str,
    /// How many tiles it has.
    pub tiles: u64,
}

impl MicroKernel {
    /// Minimal filtering where the cost model wants it, or why it does not.
    pub(super) fn winograd(
        spec: &ContractSpec,
        kernels: &Kernels,
        precision: Precision,
    ) -> (Option<MicroKernel>, Option<String>) {
        let mut declined = None;
        if precision != Precision::Strict {
            let made = [
                WinogradPlan::choose(spec, kernels).map(MicroKernel::Winograd),
                WinogradGradientPlan::choose(spec, kernels).map(MicroKernel::WinogradGradient),
            ];
            for made in made {
                match made {
                    Ok(kernel) => return (Some(kernel), None),
                    Err(WinogradError::Slower(estimate)) => declined = Some(estimate.to_string()),
                    Err(few @ WinogradError::Few(_)) => declined = Some(few.to_string()),
                    Err(_) => {}
                }
            }
        }
        (None, declined)
    }

    pub(super) fn direct_sum(
        spec: &ContractSpec,
        kernels: &Kernels,
        declined: &Option<String>,
    ) -> Result<MicroKernel, ContractError> {
        Ok(MicroKernel::Direct(Box::new(ContractPlan::new(spec, kernels)?), declined.clone()))
    }

    /// The kernel of a choice; `None` where the choice is none for this contraction.
    pub(super) fn chosen(
        spec: &ContractSpec,
        kernels: &Kernels,
        precision: Precision,
        way: &Way,
        declined: &Option<String>,
    ) -> Option<MicroKernel> {
        let winograd = precision != Precision::Strict;
        match way {
            Way::Direct(choice) => {
                let plan = ContractPlan::with(spec, kernels, choice).ok()?;
                Some(MicroKernel::Direct(Box::new(plan), declined.clone()))
            }
            Way::Winograd(choice) if winograd => {
                WinogradPlan::with(spec, choice, kernels).ok().map(MicroKernel::Winograd)
            }
            Way::WinogradGradient(tile) if winograd => {
                WinogradGradientPlan::long(spec, *tile, kernels).ok().map(MicroKernel::WinogradGradient)
            }
            Way::Winograd(_) | Way::WinogradGradient(_) | Way::Window(_) => None,
        }
    }

    /// How it is computed.
    pub fn way(&self) -> Way {
        match self {
            MicroKernel::Direct(plan, _) => Way::Direct(plan.choice()),
            MicroKernel::Winograd(plan) => Way::Winograd(plan.choice()),
            MicroKernel::WinogradGradient(plan) => Way::WinogradGradient(plan.tile()),
        }
    }

    /// In which order it adds: two kernels of one contraction with equal orders compute equal bits.
    pub fn order(&self) -> Order {
        match self {
            MicroKernel::Direct(plan, _) => Order::Direct(plan.order()),
            MicroKernel::Winograd(plan) => Order::Winograd(plan.order()),
            MicroKernel::WinogradGradient(plan) => Order::WinogradGradient(plan.order()),
        }
    }

    /// The plan of sums of products, if it is one.
    pub fn direct(&self) -> Option<&ContractPlan> {
        match self {
            MicroKernel::Direct(plan, _) => Some(plan),
            MicroKernel::Winograd(_) | MicroKernel::WinogradGradient(_) => None,
        }
    }

    /// Multiply-adds of the sums of products, however many the algorithm does.
    pub fn multiply_adds(&self) -> u64 {
        match self {
            MicroKernel::Direct(plan, _) => plan.multiply_adds(),
            MicroKernel::Winograd(plan) => plan.multiply_adds(),
            MicroKernel::WinogradGradient(plan) => plan.multiply_adds(),
        }
    }

    /// Address of the descriptor.
    pub fn descriptor(&self) -> usize {
        match self {
            MicroKernel::Direct(plan, _) => plan.descriptor() as usize,
            MicroKernel::Winograd(plan) => plan.descriptor() as usize,
            MicroKernel::WinogradGradient(plan) => plan.descriptor() as usize,
        }
    }

    /// Algorithm, level, element and register block.
    pub fn name(&self) -> &str {
        match self {
            MicroKernel::Direct(plan, _) => plan.kernel(),
            MicroKernel::Winograd(plan) => plan.kernel(),
            MicroKernel::WinogradGradient(plan) => plan.kernel(),
        }
    }

    /// Memory that its launches share.
    pub fn partial_bytes(&self) -> usize {
        match self {
            MicroKernel::Direct(plan, _) => plan.partial_bytes(),
            MicroKernel::Winograd(plan) => plan.partial_bytes(),
            MicroKernel::WinogradGradient(plan) => plan.partial_bytes(),
        }
    }

    /// Memory of each worker.
    pub fn scratch_bytes(&self) -> usize {
        match self {
            MicroKernel::Direct(plan, _) => plan.scratch_bytes(),
            MicroKernel::Winograd(plan) => plan.scratch_bytes(),
            MicroKernel::WinogradGradient(plan) => plan.scratch_bytes(),
        }
    }

    /// Operands that it takes as panels.
    pub fn packed(&self) -> Packed {
        match self {
            MicroKernel::Direct(plan, _) => plan.packed(),
            MicroKernel::Winograd(plan) => {
                let left = plan.weights() == Side::Left;
                Packed { left, right: !left }
            }
            MicroKernel::WinogradGradient(_) => Packed::default(),
        }
    }

    /// Bytes of an operand's panels.
    pub fn packed_bytes(&self, side: Side) -> usize {
        match self {
            MicroKernel::Direct(plan, _) => plan.packed_bytes(side),
            MicroKernel::Winograd(plan) => plan.packed_bytes(),
            MicroKernel::WinogradGradient(_) => 0,
        }
    }

    /// The launch that packs an operand.
    pub fn pack_stage(&self, side: Side) -> Stage {
        match self {
            MicroKernel::Direct(plan, _) => {
                Stage { suffix: ".pack", helper: PACK_OPERAND, tiles: plan.pack_tiles(side) }
            }
            MicroKernel::Winograd(plan) => {
                Stage { suffix: ".weights", helper: WINOGRAD_PACK, tiles: plan.pack_tiles() }
            }
            MicroKernel::WinogradGradient(_) => Stage { suffix: ".pack", helper: PACK_OPERAND, tiles: 0 },
        }
    }

    /// The launches after packing, in order.
    pub fn stages(&self) -> Vec<Stage> {
        let mut stages = match self {
            MicroKernel::Direct(plan, _) => vec![
                Stage { suffix: ".begin", helper: CONTRACT_BEGIN, tiles: u64::from(plan.shares_panels()) },
                Stage { suffix: "", helper: CONTRACT_TILES, tiles: plan.tiles() },
                Stage { suffix: ".sum", helper: CONTRACT_REDUCE, tiles: plan.reduce_tiles() },
            ],
            MicroKernel::Winograd(plan) => vec![
                Stage { suffix: ".input", helper: WINOGRAD_INPUT, tiles: plan.input_tiles() },
                Stage { suffix: "", helper: WINOGRAD_TILES, tiles: plan.tiles() },
            ],
            MicroKernel::WinogradGradient(plan) => vec![
                Stage { suffix: ".input", helper: WINOGRAD_GRADIENT_INPUT, tiles: plan.input_tiles() },
                Stage { suffix: "", helper: WINOGRAD_GRADIENT_TILES, tiles: plan.tiles() },
                Stage { suffix: ".sum", helper: WINOGRAD_GRADIENT_SUM, tiles: plan.sum_tiles() },
            ],
        };
        stages.retain(|stage| stage.tiles > 0);
        stages
    }

    /// How it is cut and packed, for humans.
    pub fn describe(&self) -> String {
        match self {
            MicroKernel::Direct(plan, declined) => {
                let t = plan.tiling();
                let (left, right) = plan.packing();
                let declined = declined.as_ref().map(|why| format!("; no Winograd, {why}")).unwrap_or_default();
                format!(
                    "micro-kernel {}, block {} x {}, macro tile {} x {}, k block {}, tiles {} x {} x {} splits; packs \
                     {left} and {right}{declined}",
                    plan.kernel(),
                    t.mr,
                    t.nr,
                    t.mc,
                    t.nc,
                    t.kc,
                    t.m_tiles,
                    t.n_tiles,
                    t.k_splits
                )
            }
            MicroKernel::Winograd(plan) => format!("micro-kernel {}, {}", plan.kernel(), plan.describe()),
            MicroKernel::WinogradGradient(plan) => format!("micro-kernel {}, {}", plan.kernel(), plan.describe()),
        }
    }
}
