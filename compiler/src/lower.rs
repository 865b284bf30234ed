//! From a scheduled kernel to its loop nests.
//!
//! A contraction becomes calls of a micro-kernel, tile by tile, unless kernels are switched off; everything else, and
//! then contractions too, becomes loops of its own.

mod window;

use std::sync::Arc;

use kiln_ir::graph::{Graph, NodeData, Provenance, Value};
use kiln_ir::types::{DType, TensorType};
use kiln_rt::kernels::window::WindowPlan;
use kiln_rt::kernels::{ContractPlan, Kernels, Packed, Side};
use smallvec::SmallVec;

use crate::loops::build::contract::{ContractForm, contract_form};
use crate::loops::build::{self, CheckSite, Declined, region_of};
use crate::loops::nest::{Access, Arg, Index, LoopNest, NestBuilder, Place, Var};
use crate::schedule::Scheduled;

pub use window::{DEPTHWISE_GRAD_TILES, DEPTHWISE_TILES, POOL_GRAD_TILES, POOL_TILES};

/// Name by which nests call the contraction of one tile.
pub const CONTRACT_TILES: &str = "contract_tiles";
/// Name by which nests call the sum of partial results.
pub const CONTRACT_REDUCE: &str = "contract_reduce";

/// Name by which nests of `@prepare` call the packing of an operand.
pub const PACK_OPERAND: &str = "pack_operand";

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
    /// The plan of a kernel that goes over windows of planes.
    pub window: Option<Arc<WindowPlan>>,
    /// Operands that the kernel takes as panels.
    pub packs: Vec<Pack>,
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
    /// Descriptor of [`Lowered::window`].
    Window,
    /// Panels of an operand, packed ahead: number in [`Lowered::packs`].
    Packed(usize),
}

/// An operand that `@prepare` packs once, for a plan of a kernel.
#[derive(Clone, Debug)]
pub struct Pack {
    /// Operand of the kernel.
    pub operand: usize,
    /// Which operand of the plan it is.
    pub side: Side,
    /// The plan.
    pub plan: Arc<ContractPlan>,
}

/// Lowers one kernel. `lasting` says which values stay the same from run to run: a micro-kernel takes them as panels,
/// packed once by `@prepare`.
///
/// # Errors
/// [`Declined`] if the kernel is no nest: a defect of `fuse`.
pub fn lower(
    graph: &Graph,
    kernel: &Scheduled,
    kernels: Option<&Kernels>,
    lasting: &dyn Fn(Value) -> bool,
) -> Result<Lowered, Declined> {
    let data = graph.node(kernel.node);
    let region = wanted(region_of(graph, kernel.node), data, kernel);
    let name = graph.value_name(kernel.results[0]).to_string();
    let provenance = data.provenance.clone();
    if let Some(lowered) = kernels.and_then(|kernels| window::lower(&name, &region, kernels, &provenance)) {
        return Ok(lowered);
    }
    if let (Some(kernels), Some(Ok(mut form))) = (kernels, contract_form(&region)) {
        let [left, right] = [form.left, form.right].map(|operand| lasting(kernel.operands[operand]));
        form.spec.packed = Packed { left, right };
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
        window: None,
        packs: Vec::new(),
        provenance,
    })
}

/// The region with those results only that the kernel has: places of maxima that nobody reads are not computed.
fn wanted(mut region: Graph, data: &NodeData, kernel: &Scheduled) -> Graph {
    let pairs = data.results.iter().zip(region.returns().to_vec());
    let returns: Vec<Value> = pairs.filter(|(v, _)| kernel.results.contains(v)).map(|(_, inner)| inner).collect();
    region.set_returns(returns);
    region
}

fn contraction(
    name: String,
    region: &Graph,
    form: &ContractForm,
    plans: Vec<ContractPlan>,
    provenance: Provenance,
) -> Lowered {
    let plans: Vec<Arc<ContractPlan>> = plans.into_iter().map(Arc::new).collect();
    let mut launches = Vec::new();
    let mut packs = Vec::new();
    for (phase, plan) in plans.iter().enumerate() {
        let call = Call { region, form, phase, plan, first_pack: packs.len() };
        launches.push(call.nest(&name, CONTRACT_TILES, plan.tiles()));
        if plan.reduce_tiles() > 0 {
            launches.push(call.nest(&format!("{name}.sum"), CONTRACT_REDUCE, plan.reduce_tiles()));
        }
        let packed = call.packed().map(|(side, operand)| Pack { operand, side, plan: plan.clone() });
        packs.extend(packed);
    }
    let product = |extents: &[usize]| extents.iter().product::<usize>() as u64;
    let spec = &form.spec;
    let flops = 2 * product(&spec.batch) * product(&spec.m) * product(&spec.n) * product(&spec.k);
    Lowered {
        name,
        launches,
        // Phases run one after the other and share it.
        workspace_bytes: plans.iter().map(|plan| plan.partial_bytes()).max().unwrap_or(0),
        in_place: form.residual_in_place().map(|residual| (residual, 0)).into_iter().collect(),
        checks: Vec::new(),
        flops,
        contractions: plans,
        window: None,
        packs,
        provenance,
    }
}

/// What the nests of one plan have in common.
struct Call<'a> {
    region: &'a Graph,
    form: &'a ContractForm,
    phase: usize,
    plan: &'a ContractPlan,
    /// Number of the plan's first pack.
    first_pack: usize,
}

impl Call<'_> {
    /// The operands taken as panels.
    fn packed(&self) -> impl Iterator<Item = (Side, usize)> {
        let Packed { left, right } = self.form.spec.packed;
        let sides = [(left, Side::Left, self.form.left), (right, Side::Right, self.form.right)];
        sides.into_iter().filter(|(packed, ..)| *packed).map(|(_, side, operand)| (side, operand))
    }

    /// A nest whose tiles are calls of the micro-kernel.
    fn nest(&self, name: &str, helper: &str, tiles: u64) -> (LoopNest, Vec<BufferUse>) {
        let Call { region, form, phase, plan, first_pack } = *self;
        let nest = NestBuilder::new(name);
        let mut uses = Vec::new();
        let mut declare = |name: &str, dtype, elements, access, what| {
            uses.push(what);
            nest.buffer(name, dtype, elements, access)
        };
        let descriptor = declare("descriptor", DType::U8, 64, Access::Read, BufferUse::Descriptor(phase));
        let mut factor = |side: Side, param: usize| {
            let data = region.value(region.params()[param].value);
            match self.packed().position(|(packed, _)| packed == side) {
                Some(number) => {
                    let (name, what) = (format!("{}.panels", data.name), BufferUse::Packed(first_pack + number));
                    declare(&name, DType::U8, plan.packed_bytes(side), Access::Read, what)
                }
                None => declare(&data.name, data.ty.dtype, data.ty.elements(), Access::Read, BufferUse::Operand(param)),
            }
        };
        let (left, right) = (factor(Side::Left, form.left), factor(Side::Right, form.right));
        let mut operand = |param: usize| {
            let data = region.value(region.params()[param].value);
            declare(&data.name, data.ty.dtype, data.ty.elements(), Access::Read, BufferUse::Operand(param))
        };
        let optional: Vec<Option<Place>> =
            [form.bias, form.scale, form.residual].into_iter().map(|param| param.map(&mut operand)).collect();
        let result = region.value(region.returns()[0]);
        let out = declare(&result.name, result.ty.dtype, result.ty.elements(), Access::ReadWrite, BufferUse::Result(0));
        let partials = (plan.partial_bytes() > 0)
            .then(|| declare("partials", DType::U8, plan.partial_bytes(), Access::ReadWrite, BufferUse::Workspace));
        let scratch = (plan.scratch_bytes() > 0).then(|| nest.scratch("panels", DType::U8, plan.scratch_bytes()));
        let or_null = |place: Option<Place>| place.map_or(Arg::Int(Index::constant(0)), start_of);
        let tile = Index::var(Var::TILE);
        let args = vec![
            start_of(descriptor),
            start_of(left),
            start_of(right),
            start_of(out),
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
}

fn start_of(place: Place) -> Arg {
    Arg::Address { place, index: Index::constant(0) }
}

/// The nest that packs an operand of type `from`; its buffers are the plan's descriptor, the operand and the panels.
pub fn pack(name: &str, pack: &Pack, from: &TensorType) -> LoopNest {
    let nest = NestBuilder::new(name);
    let descriptor = nest.buffer("descriptor", DType::U8, 64, Access::Read);
    let operand = nest.buffer("operand", from.dtype, from.elements(), Access::Read);
    let panels = nest.buffer("panels", DType::U8, pack.plan.packed_bytes(pack.side), Access::Write);
    let tile = Index::var(Var::TILE);
    let args = vec![
        start_of(descriptor),
        Arg::Int(Index::constant(pack.side.code() as i64)),
        start_of(operand),
        start_of(panels),
        Arg::Int(tile.clone()),
        Arg::Int(tile + 1i64),
    ];
    let call = nest.call(nest.helper(PACK_OPERAND), args);
    nest.finish(pack.plan.pack_tiles(pack.side), vec![call])
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
