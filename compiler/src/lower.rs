//! From a scheduled kernel to its loop nests.
//!
//! A contraction becomes calls of a micro-kernel, tile by tile, unless kernels are switched off; everything else, and
//! then contractions too, becomes loops of its own.

use std::sync::Arc;

use kiln_ir::graph::{Graph, Provenance};
use kiln_ir::types::DType;
use kiln_rt::kernels::{ContractPlan, Kernels};
use smallvec::SmallVec;

use crate::loops::build::contract::{ContractForm, contract_form};
use crate::loops::build::{self, CheckSite, Declined, region_of};
use crate::loops::nest::{Access, Arg, Index, LoopNest, NestBuilder, Place, Var};
use crate::schedule::Scheduled;

/// Name by which nests call the contraction of one tile.
pub const CONTRACT_TILES: &str = "contract_tiles";
/// Name by which nests call the sum of partial results.
pub const CONTRACT_REDUCE: &str = "contract_reduce";

/// A kernel as loops.
#[derive(Debug)]
pub struct Lowered {
    /// For profiles and messages.
    pub name: String,
    /// Nests that run one after the other, with what each of their buffers is.
    pub launches: Vec<(LoopNest, Vec<BufferUse>)>,
    /// Memory that the launches share, in bytes.
    pub workspace_bytes: usize,
    /// `(operand, result)` pairs that may share memory.
    pub in_place: SmallVec<[(usize, usize); 2]>,
    /// Checked indices, by site number from 1.
    pub checks: Vec<CheckSite>,
    /// Floating point operations.
    pub flops: u64,
    /// The micro-kernel's plans, if one is called: one per phase of a strided transposed convolution.
    pub contractions: Vec<Arc<ContractPlan>>,
    /// Script line.
    pub provenance: Provenance,
}

/// What a buffer of a nest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferUse {
    /// Operand of the kernel.
    Operand(usize),
    /// Result of the kernel.
    Result(usize),
    /// The kernel's workspace.
    Workspace,
    /// Descriptor of the micro-kernel's plan with this number.
    Descriptor(usize),
}

/// Lowers one kernel.
///
/// # Errors
/// [`Declined`] if the kernel is no nest: a defect of `fuse`.
pub fn lower(graph: &Graph, kernel: &Scheduled, kernels: Option<&Kernels>) -> Result<Lowered, Declined> {
    let data = graph.node(kernel.node);
    let region = region_of(graph, kernel.node);
    let name = graph.value_name(kernel.results[0]).to_string();
    let provenance = data.provenance.clone();
    if let (Some(kernels), Some(Ok(form))) = (kernels, contract_form(&region)) {
        let plans: Result<Vec<_>, _> =
            form.spec.phases().iter().map(|phase| ContractPlan::new(phase, kernels)).collect();
        if let Ok(plans) = plans {
            return Ok(contraction(name, &region, &form, plans, provenance));
        }
    }
    let built = build::build(&name, &region)?;
    let operands = (0..kernel.operands.len()).map(BufferUse::Operand);
    let uses = operands.chain((0..kernel.results.len()).map(BufferUse::Result)).collect();
    Ok(Lowered {
        name,
        launches: vec![(built.nest, uses)],
        workspace_bytes: 0,
        in_place: built.in_place,
        checks: built.checks,
        flops: built.flops,
        contractions: Vec::new(),
        provenance,
    })
}

fn contraction(
    name: String,
    region: &Graph,
    form: &ContractForm,
    plans: Vec<ContractPlan>,
    provenance: Provenance,
) -> Lowered {
    let mut launches = Vec::new();
    for (phase, plan) in plans.iter().enumerate() {
        launches.push(call(&name, CONTRACT_TILES, region, form, phase, plan, plan.tiles()));
        if plan.reduce_tiles() > 0 {
            let name = format!("{name}.sum");
            launches.push(call(&name, CONTRACT_REDUCE, region, form, phase, plan, plan.reduce_tiles()));
        }
    }
    let product = |extents: &[usize]| extents.iter().product::<usize>() as u64;
    let spec = &form.spec;
    let flops = 2 * product(&spec.batch) * product(&spec.m) * product(&spec.n) * product(&spec.k);
    Lowered {
        name,
        launches,
        // Phases run one after the other and share it.
        workspace_bytes: plans.iter().map(ContractPlan::partial_bytes).max().unwrap_or(0),
        in_place: form.residual_in_place().map(|residual| (residual, 0)).into_iter().collect(),
        checks: Vec::new(),
        flops,
        contractions: plans.into_iter().map(Arc::new).collect(),
        provenance,
    }
}

/// A nest whose tiles are calls of the micro-kernel.
fn call(
    name: &str,
    helper: &str,
    region: &Graph,
    form: &ContractForm,
    phase: usize,
    plan: &ContractPlan,
    tiles: u64,
) -> (LoopNest, Vec<BufferUse>) {
    let nest = NestBuilder::new(name);
    let mut uses = Vec::new();
    let mut declare = |name: &str, dtype, elements, access, what| {
        uses.push(what);
        nest.buffer(name, dtype, elements, access)
    };
    let descriptor = declare("descriptor", DType::U8, 64, Access::Read, BufferUse::Descriptor(phase));
    let mut operand = |param: usize| {
        let data = region.value(region.params()[param].value);
        let what = BufferUse::Operand(param);
        declare(&data.name, data.ty.dtype, data.ty.elements(), Access::Read, what)
    };
    let (left, right) = (operand(form.left), operand(form.right));
    let optional: Vec<Option<Place>> =
        [form.bias, form.scale, form.residual].into_iter().map(|param| param.map(&mut operand)).collect();
    let result = region.value(region.returns()[0]);
    let out = declare(&result.name, result.ty.dtype, result.ty.elements(), Access::ReadWrite, BufferUse::Result(0));
    let partials = (plan.partial_bytes() > 0)
        .then(|| declare("partials", DType::U8, plan.partial_bytes(), Access::ReadWrite, BufferUse::Workspace));
    let scratch = (plan.scratch_bytes() > 0).then(|| nest.scratch("panels", DType::U8, plan.scratch_bytes()));
    let address = |place| Arg::Address { place, index: Index::constant(0) };
    let or_null = |place: Option<Place>| place.map_or(Arg::Int(Index::constant(0)), address);
    let tile = Index::var(Var::TILE);
    let args = vec![
        address(descriptor),
        address(left),
        address(right),
        address(out),
        or_null(optional[0]),
        or_null(optional[1]),
        or_null(optional[2]),
        or_null(partials),
        or_null(scratch),
        Arg::Int(tile.clone()),
        Arg::Int(tile + 1i64),
    ];
    let call = nest.call(nest.helper(helper), args);
    (nest.finish(tiles, vec![call]), uses)
}

/// A nest that copies `bytes` from its first buffer to its second.
pub fn copy(name: &str, dtype: DType, elements: usize) -> LoopNest {
    let nest = NestBuilder::new(name);
    let from = nest.buffer("from", dtype, elements, Access::Read);
    let to = nest.buffer("to", dtype, elements, Access::Write);
    let tiling = crate::loops::tile::Tiling::new(elements as u64, 0.3, 64);
    let i = nest.var("i");
    let store = nest.store(to, Index::var(i), nest.load(from, Index::var(i)));
    let body = crate::loops::nest::Loop::range(i, tiling.begin(), tiling.end()).vector().body(vec![store]);
    nest.finish(tiling.tiles, vec![body])
}
