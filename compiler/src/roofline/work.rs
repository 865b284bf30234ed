//! What each launch of a kernel must do at least: operations, and bytes of each of its buffers.
//!
//! A kernel may be several launches: the phases of a strided gradient, and for each the sum of its partial results. Each
//! is credited with its own work only, so that a launch's GFLOP/s are those it reaches.

use kiln_rt::kernels::{ContractPlan, Side};

use crate::loops::nest::{BufferDecl, ExprNode, LoopNest, Place};
use crate::loops::walk::{Visit, walk};
use crate::lower::micro_kernel::{
    CONTRACT_BEGIN, CONTRACT_REDUCE, CONTRACT_TILES, PACK_OPERAND, WINOGRAD_GRADIENT_INPUT, WINOGRAD_GRADIENT_SUM,
    WINOGRAD_INPUT, WINOGRAD_PACK,
};
use crate::lower::{BufferUse, Lowered};

/// Work of one launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Floating point operations; a multiply-add is two.
    pub flops: u64,
    /// Bytes of each buffer of the nest: what is needed read once, what is left behind written once.
    pub buffers: Vec<u64>,
}

impl Work {
    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().sum()
    }
}

/// Work of the launches of a kernel, in order.
pub fn of_launches(lowered: &Lowered) -> Vec<Work> {
    let known: Vec<Option<Work>> =
        lowered.launches.iter().map(|(nest, uses)| contraction(lowered, nest, uses)).collect();
    // What helpers do that are not known here is what is left of the kernel's operations.
    let opaque = known.iter().zip(&lowered.launches).filter(|(work, (nest, _))| work.is_none() && calls(nest)).count();
    let credited: u64 = known.iter().flatten().map(|work| work.flops).sum();
    let share = lowered.flops.saturating_sub(credited) / opaque.max(1) as u64;
    let works = known.into_iter().zip(&lowered.launches);
    works
        .map(|(work, (nest, uses))| match work {
            Some(work) => work,
            None if calls(nest) => Work { flops: share, ..loops(nest, uses) },
            None => loops(nest, uses),
        })
        .collect()
}

/// The work of a nest that calls a contraction's micro-kernel, or sums its partial results.
fn contraction(lowered: &Lowered, nest: &LoopNest, uses: &[BufferUse]) -> Option<Work> {
    let [helper] = nest.helpers.as_slice() else { return None };
    let &BufferUse::Descriptor(phase) = uses.first()? else { return None };
    const MOVES: [&str; 5] =
        [PACK_OPERAND, WINOGRAD_PACK, WINOGRAD_INPUT, WINOGRAD_GRADIENT_INPUT, WINOGRAD_GRADIENT_SUM];
    if MOVES.contains(&&*helper.name) {
        let bytes = |(number, buffer): (usize, &BufferDecl)| {
            if number == 0 { 0 } else { (buffer.elements * buffer.dtype.bytes()) as u64 }
        };
        return Some(Work { flops: 0, buffers: nest.buffers.iter().enumerate().map(bytes).collect() });
    }
    let plan = lowered.contractions.get(phase)?.direct()?;
    let splits = plan.tiling().k_splits as u64;
    match &*helper.name {
        CONTRACT_BEGIN => Some(Work { flops: 0, buffers: vec![0; nest.buffers.len()] }),
        CONTRACT_TILES => {
            let buffers = factors(plan, nest).chain(others(plan, nest, uses, splits == 1)).collect();
            Some(Work { flops: 2 * plan.multiply_adds(), buffers })
        }
        CONTRACT_REDUCE => {
            let buffers = [0; 3].into_iter().chain(others(plan, nest, uses, true)).collect();
            Some(Work { flops: splits.saturating_sub(1) * plan.outputs(), buffers })
        }
        _ => None,
    }
}

/// Descriptor, left and right operand of a call. A phase reads some taps of the weights only, and a convolution with a
/// stride some pixels.
fn factors<'a>(plan: &'a ContractPlan, nest: &'a LoopNest) -> impl Iterator<Item = u64> + 'a {
    let sides = [Side::Left, Side::Right].into_iter().zip(nest.buffers.iter().skip(1));
    let read = |(side, buffer): (Side, &BufferDecl)| {
        let most = (buffer.elements * buffer.dtype.bytes()) as u64;
        most.min(plan.read_bytes(side))
    };
    std::iter::once(0).chain(sides.map(read))
}

/// Operands of the epilogue, result and partial sums of a call; `finishes` if it stores the result.
fn others<'a>(
    plan: &'a ContractPlan,
    nest: &'a LoopNest,
    uses: &'a [BufferUse],
    finishes: bool,
) -> impl Iterator<Item = u64> + 'a {
    let outputs = plan.output_bytes();
    nest.buffers.iter().zip(uses).skip(3).map(move |(buffer, what)| match what {
        BufferUse::Workspace(_) => plan.partial_bytes() as u64,
        _ if finishes => outputs.min((buffer.elements * buffer.dtype.bytes()) as u64),
        _ => 0,
    })
}

/// Whether a nest calls helpers.
fn calls(nest: &LoopNest) -> bool {
    !nest.helpers.is_empty()
}

/// Work of a nest of loops. No buffer counts for more than its size, nor for more than the accesses to it: a lookup reads a
/// few rows of its table. A result that is also loaded counts once, as it is the kernel's own.
fn loops(nest: &LoopNest, uses: &[BufferUse]) -> Work {
    let mut loads = vec![0.0; nest.buffers.len()];
    let mut stores = vec![0.0; nest.buffers.len()];
    let mut flops = 0.0;
    let count = |counts: &mut Vec<f64>, place: &Place, times: f64| {
        if let Place::Buffer(number) = place
            && let Some(count) = counts.get_mut(*number as usize)
        {
            *count += times;
        }
    };
    walk(nest, &mut |visit, times| match visit {
        Visit::Expr(expr) => match nest.node(expr) {
            ExprNode::Load(place, _) | ExprNode::GuardedLoad { place, .. } => count(&mut loads, place, times),
            ExprNode::Unary(..) | ExprNode::Binary(..) if nest.dtype(expr).is_float() => flops += times,
            ExprNode::MulAdd(..) => flops += 2.0 * times,
            _ => {}
        },
        Visit::Store(place) => count(&mut stores, place, times),
        // Whatever a helper does to it, it does to all of it.
        Visit::Address(place) => count(&mut stores, place, f64::INFINITY),
    });
    let sizes = nest.buffers.iter().map(|buffer| (buffer.elements as f64, buffer.dtype.bytes() as f64));
    let counts = loads.iter().zip(&stores).zip(uses);
    let touched = sizes.zip(counts).map(|((elements, bytes), ((loads, stores), what))| {
        let (loads, stores) = (loads.min(elements), stores.min(elements));
        let touched = match what {
            BufferUse::Descriptor(_) => 0.0,
            BufferUse::Result(_) => stores,
            _ => loads.max(stores),
        };
        (touched * bytes) as u64
    });
    Work { flops: flops as u64, buffers: touched.collect() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use kiln_rt::kernels::Level;

    use crate::compile::{Compiled, Options, compile};

    fn compiled(text: &str) -> Compiled {
        let module = kiln_ir::text::parse_module("m.kiln", text).unwrap();
        let options = Options { level: Level::Portable, ..Options::default() };
        compile(&module, &options).unwrap().graphs.swap_remove("f").unwrap()
    }

    #[test]
    fn the_sum_of_splits_is_credited_with_its_own_additions() {
        let (m, n, k) = (16, 32, 65536);
        let found = compiled(&format!(
            "graph @f(%a: f32[{m}, {k}], %b: f32[{k}, {n}]) {{\n  %y: f32[{m}, {n}] = dot %a, %b \
             {{a_contract = [1], b_contract = [0]}}\n  return %y\n}}\n"
        ));
        let [tiles, sum] = found.executable.launches.as_slice() else { panic!("one product in splits") };
        let splits = found.lowered[0].contractions[0].direct().unwrap().tiling().k_splits as u64;
        assert!(splits > 1);
        assert_eq!((tiles.flops, sum.flops), (2 * m * n * k, (splits - 1) * m * n));
        assert_eq!(tiles.bytes, 4 * (m * k + k * n + splits * m * n));
        assert_eq!(sum.bytes, 4 * (splits * m * n + m * n));
    }

    #[test]
    fn phases_of_a_strided_gradient_do_the_work_of_its_convolution_together() {
        // 2 x 2 pixels of 8 filters, each from 3 x 3 pixels of 4 channels, without padding: 5 x 5 pixels of input.
        let found = compiled(
            "graph @f(%dy: f32[1, 8, 2, 2], %w: f32[8, 4, 3, 3]) {\n  %dx: f32[1, 4, 5, 5] = conv_grad_input %dy, %w \
             {strides = [2, 2], padding = [0, 0, 0, 0], dilation = [1, 1], groups = 1}\n  return %dx\n}\n",
        );
        let flops: Vec<u64> = found.executable.launches.iter().map(|launch| launch.flops).collect();
        assert_eq!(flops.len(), 4);
        // The first phase has 3 x 3 outputs and 2 x 2 of the taps, the last 2 x 2 outputs and one tap: sums over taps
        // that fall outside are counted as a convolution counts those on its padding.
        let phase = |outputs: u64, taps: u64| 2 * 4 * outputs * 8 * taps;
        assert_eq!(flops.iter().sum::<u64>(), phase(9, 4) + phase(6, 2) + phase(6, 2) + phase(4, 1));
    }

    #[test]
    fn what_is_done_once_a_row_counts_once_a_row() {
        // A sum of 64 and a product for each of 32 rows.
        let found = compiled(
            "graph @f(%x: f32[32, 64], %w: f32[32]) {\n  %s: f32[32] = reduce_sum %x {dims = [1]}\n  \
             %y: f32[32] = mul %s, %w\n  return %y\n}\n",
        );
        let [launch] = found.executable.launches.as_slice() else { panic!("one kernel") };
        assert!((32 * 64..=32 * 64 + 32 * 8).contains(&launch.flops), "{}", launch.flops);
        assert_eq!(launch.bytes, 4 * (32 * 64 + 32 + 32));
    }

    #[test]
    fn a_lookup_reads_the_rows_it_needs() {
        let found = compiled(
            "graph @f(%table: f32[1000, 4], %ids: i64[3] below 1000) {\n  %y: f32[3, 4] = gather %table, %ids\n  \
             return %y\n}\n",
        );
        assert_eq!(found.executable.launches[0].bytes, 3 * 16 + 3 * 8 + 3 * 16);
    }
}
