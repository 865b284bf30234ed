//! From a scheduled kernel to its loop nests.
//!
//! A contraction becomes calls of a micro-kernel, tile by tile, unless kernels are switched off; everything else, and
//! then contractions too, becomes loops of its own.

mod alternatives;
mod empty_phase;
mod window;

use std::sync::Arc;

use kiln_ir::graph::{Graph, NodeData, Provenance, Value};
use kiln_ir::op::Op;
use kiln_ir::types::{DType, TensorType};
use kiln_rt::kernels::window::WindowPlan;
use kiln_rt::kernels::{Packed, Side};
use smallvec::SmallVec;

use crate::loops::build::contract::{ContractForm, contract_form};
use crate::loops::build::{self, CheckSite, Declined, PartBuffer, region_of};
use crate::loops::nest::{Access, Arg, Index, LoopNest, NestBuilder, Place, Var};
use crate::schedule::Scheduled;
use crate::tuning::Decision;

pub mod micro_kernel;
mod micro_kernels;

pub use micro_kernel::{MicroKernel, Stage};
pub use micro_kernels::{Made, MicroKernels};

/// Address of a function that nests call by its name; 0 if there is none.
pub fn helper_address(name: &str) -> usize {
    micro_kernel::helper_address(name).or_else(|| window::helper_address(name)).unwrap_or(0)
}

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
    /// The micro-kernels, if any is called: one, or one per phase of a strided transposed convolution.
    pub contractions: Vec<Arc<MicroKernel>>,
    /// The plan of a kernel that goes over windows of planes.
    pub window: Option<Arc<WindowPlan>>,
    /// Operands that the kernel takes as panels.
    pub packs: Vec<Pack>,
    /// How a micro-kernel is computed and who has chosen that, if anybody asks.
    pub decision: Option<Arc<Decision>>,
    /// Script line.
    pub provenance: Provenance,
}

/// Bytes of states that stay in the third-level cache from run to run, transformed weights (four times as much) included.
const NEAR_BYTES: usize = 2 << 20;

/// Whether all states of a graph stay in the caches.
pub(crate) fn stays_near(graph: &Graph) -> bool {
    let states = graph.nodes().filter(|(_, data)| matches!(data.op, Op::State(_)));
    states.map(|(_, data)| graph.ty(data.results[0]).bytes()).sum::<usize>() <= NEAR_BYTES
}

/// What a buffer of a nest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferUse {
    /// Operand of the kernel.
    Operand(usize),
    /// Result of the kernel.
    Result(usize),
    /// The kernel's workspace, from this byte on.
    Workspace(usize),
    /// Descriptor of the micro-kernel's plan with this number.
    Descriptor(usize),
    /// Descriptor of [`Lowered::window`].
    Window,
    /// Panels of an operand that `@prepare` packs: number in [`Lowered::packs`].
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
    pub plan: Arc<MicroKernel>,
}

/// Lowers one kernel. `lasting` says which values stay the same from run to run: a micro-kernel takes them as panels,
/// packed once by `@prepare`; `near` whether all states of the graph stay in the caches.
///
/// # Errors
/// [`Declined`] if the kernel is no nest: a defect of `fuse`.
pub fn lower(
    graph: &Graph,
    kernel: &Scheduled,
    kernels: Option<&MicroKernels<'_>>,
    lasting: &dyn Fn(Value) -> bool,
    near: bool,
) -> Result<Lowered, Declined> {
    let data = graph.node(kernel.node);
    let region = wanted(region_of(graph, kernel.node), data, kernel);
    let name = graph.value_name(kernel.results[0]).to_string();
    let provenance = data.provenance.clone();
    if let Some(lowered) = kernels.and_then(|micro| window::lower(&name, &region, micro, &provenance)) {
        return Ok(lowered);
    }
    if let (Some(kernels), Some(Ok(mut form))) = (kernels, contract_form(&region)) {
        let [left, right] = [form.left, form.right].map(|operand| lasting(kernel.operands[operand]));
        form.spec.packed = Packed { left, right };
        form.spec.shares_panels = true;
        form.spec.near = near;
        if let Ok(made) = kernels.of(&form.spec) {
            return Ok(contraction(name, &region, &form, made, provenance));
        }
    }
    let built = build::build(&name, &region)?;
    let what = |buffer: PartBuffer| match buffer {
        PartBuffer::Param(operand) => BufferUse::Operand(operand),
        PartBuffer::Result(result) => BufferUse::Result(result),
        PartBuffer::Workspace(offset) => BufferUse::Workspace(offset),
    };
    let launch = |part: build::Part| (part.nest, part.buffers.into_iter().map(what).collect());
    Ok(Lowered {
        name,
        launches: built.launches.into_iter().map(launch).collect(),
        workspace_bytes: built.workspace_bytes,
        in_place: built.in_place,
        checks: built.checks,
        flops: built.flops,
        contractions: Vec::new(),
        window: None,
        packs: Vec::new(),
        decision: None,
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
    Made { plans, decision }: Made,
    provenance: Provenance,
) -> Lowered {
    let mut launches = Vec::new();
    let mut packs = Vec::new();
    let mut workspace_bytes = 0;
    let phases = if plans.len() > 1 { form.spec.phases() } else { Vec::new() };
    for (phase, plan) in plans.iter().enumerate() {
        if let Some(copy) = phases.get(phase).and_then(|spec| empty_phase::nest(&name, region, form, spec)) {
            launches.push(copy);
            continue;
        }
        let mut call = Call { region, form, phase, plan, panels: [None; 2] };
        let mut end = plan.partial_bytes().next_multiple_of(64);
        for side in [Side::Left, Side::Right].into_iter().filter(|&side| plan.packed().side(side)) {
            let pack = Pack { operand: call.operand(side), side, plan: plan.clone() };
            call.panels[side.code() as usize] = Some(if form.spec.packed.side(side) {
                packs.push(pack);
                BufferUse::Packed(packs.len() - 1)
            } else {
                // Weights of a Winograd convolution are transformed in every run that may change them.
                let panels = BufferUse::Workspace(end);
                end += plan.packed_bytes(side).next_multiple_of(64);
                let from = region.value(region.params()[pack.operand].value);
                let nest = self::pack(&format!("{name}{}", plan.pack_stage(side).suffix), &pack, &from.ty);
                launches.push((nest, vec![BufferUse::Descriptor(phase), BufferUse::Operand(pack.operand), panels]));
                panels
            });
        }
        // Phases run one after the other and share it.
        workspace_bytes = workspace_bytes.max(end);
        launches.extend(plan.stages().into_iter().map(|stage| call.nest(&name, stage)));
    }
    let flops = plans.iter().map(|plan| 2 * plan.multiply_adds()).sum();
    Lowered {
        name,
        launches,
        workspace_bytes,
        in_place: form.residual_in_place().map(|residual| (residual, 0)).into_iter().collect(),
        checks: Vec::new(),
        flops,
        contractions: plans,
        window: None,
        packs,
        decision,
        provenance,
    }
}

/// What the nests of one plan have in common.
struct Call<'a> {
    region: &'a Graph,
    form: &'a ContractForm,
    phase: usize,
    plan: &'a MicroKernel,
    /// Where the panels of packed operands are, by the code of the side.
    panels: [Option<BufferUse>; 2],
}

impl Call<'_> {
    /// Operand of the kernel that is the plan's left or right one.
    fn operand(&self, side: Side) -> usize {
        match side {
            Side::Left => self.form.left,
            Side::Right => self.form.right,
        }
    }

    /// A nest whose tiles are calls of the micro-kernel.
    fn nest(&self, name: &str, stage: Stage) -> (LoopNest, Vec<BufferUse>) {
        let Call { region, form, phase, plan, panels } = *self;
        let nest = NestBuilder::new(format!("{name}{}", stage.suffix));
        let mut uses = Vec::new();
        let mut declare = |name: &str, dtype, elements, access, what| {
            uses.push(what);
            nest.buffer(name, dtype, elements, access)
        };
        let descriptor = declare("descriptor", DType::U8, 64, Access::Read, BufferUse::Descriptor(phase));
        let mut factor = |side: Side| {
            let param = self.operand(side);
            let data = region.value(region.params()[param].value);
            match panels[side.code() as usize] {
                Some(what) => {
                    declare(&format!("{}.panels", data.name), DType::U8, plan.packed_bytes(side), Access::Read, what)
                }
                None => declare(&data.name, data.ty.dtype, data.ty.elements(), Access::Read, BufferUse::Operand(param)),
            }
        };
        let (left, right) = (factor(Side::Left), factor(Side::Right));
        let mut operand = |param: usize| {
            let data = region.value(region.params()[param].value);
            declare(&data.name, data.ty.dtype, data.ty.elements(), Access::Read, BufferUse::Operand(param))
        };
        let optional: Vec<Option<Place>> =
            [form.bias, form.scale, form.residual].into_iter().map(|param| param.map(&mut operand)).collect();
        let result = region.value(region.returns()[0]);
        let out = declare(&result.name, result.ty.dtype, result.ty.elements(), Access::ReadWrite, BufferUse::Result(0));
        let partials = (plan.partial_bytes() > 0)
            .then(|| declare("partials", DType::U8, plan.partial_bytes(), Access::ReadWrite, BufferUse::Workspace(0)));
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
        let call = nest.call(nest.helper(stage.helper), args);
        (nest.finish(stage.tiles, vec![call]), uses)
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
    let stage = pack.plan.pack_stage(pack.side);
    let call = nest.call(nest.helper(stage.helper), args);
    nest.finish(stage.tiles, vec![call])
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
