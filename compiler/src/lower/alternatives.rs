//! The choices that are worth measuring for a micro-kernel, beside the one in force.

use kiln_rt::kernels::window::WindowPlan;
use kiln_rt::kernels::{ContractPlan, ContractSpec, WinogradPlan, WinogradTile};

use super::micro_kernel::MicroKernel;
use super::micro_kernels::MicroKernels;
use crate::tuning::{Choice, Rounding, Way};

/// Winograd cuts that are tried for each size of tiles.
const CUTS: usize = 10;
/// Numbers of tiles that are tried for a window kernel.
const TILES: [u64; 8] = [1, 2, 4, 8, 12, 16, 32, 64];

/// Those of a contraction without phases. What changes rounding comes first: what is best among the rest depends on it.
pub(super) fn of_contraction(
    micro: &MicroKernels<'_>,
    spec: &ContractSpec,
    kernel: &MicroKernel,
    choice: Choice,
    rounding: Rounding,
) -> Vec<Choice> {
    let mut ways = Vec::new();
    if rounding == Rounding::Tuned {
        ways.extend(other_algorithms(micro, spec, kernel));
    }
    match kernel {
        MicroKernel::Direct(plan, _) => {
            let found = plan.alternatives(micro.kernels, rounding == Rounding::Tuned);
            ways.extend(found.into_iter().map(Way::Direct));
        }
        MicroKernel::Winograd(plan) => ways.extend(plan.alternatives().into_iter().take(CUTS).map(Way::Winograd)),
        MicroKernel::WinogradGradient(_) => {}
    }
    with_forks(ways, choice)
}

/// Those of a window kernel.
pub(super) fn of_window(plan: &WindowPlan, choice: Choice) -> Vec<Choice> {
    let ways = TILES.into_iter().filter(|&tiles| tiles != plan.tiles()).map(Way::Window);
    with_forks(ways.collect(), choice)
}

/// Other ways, and the way in force shared among the threads or not.
fn with_forks(ways: Vec<Way>, choice: Choice) -> Vec<Choice> {
    let shared = [Some(true), Some(false)].into_iter().filter(|&forks| forks != choice.forks);
    let shared = shared.map(|forks| Choice { forks, ..choice });
    shared.chain(ways.into_iter().map(|way| Choice { way, ..choice })).collect()
}

/// The usual cut of each algorithm that the kernel is not, as far as the precision allows.
fn other_algorithms(micro: &MicroKernels<'_>, spec: &ContractSpec, kernel: &MicroKernel) -> Vec<Way> {
    let mut ways = Vec::new();
    for tile in [WinogradTile::Two, WinogradTile::Four] {
        ways.extend(WinogradPlan::new(spec, tile, micro.kernels).ok().map(|plan| Way::Winograd(plan.choice())));
        ways.push(Way::WinogradGradient(tile));
    }
    ways.extend(ContractPlan::new(spec, micro.kernels).ok().map(|plan| Way::Direct(plan.choice())));
    let made = |way: &Way| MicroKernel::chosen(spec, micro.kernels, micro.precision, way, &None);
    ways.retain(|way| made(way).is_some_and(|other| other.order() != kernel.order()));
    ways
}
