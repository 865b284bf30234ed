//! Depthwise convolutions, pools and gradients of pools as calls of their kernels.

use std::sync::Arc;

use kiln_ir::graph::{Graph, Provenance, Value};
use kiln_ir::types::DType;
use kiln_rt::kernels::window::{
    self, DepthwiseGradPlan, DepthwisePlan, PoolGradPlan, PoolGradSpec, PoolPlan, PoolSpec, WindowPlan,
};

use super::{BufferUse, Lowered, MicroKernels, start_of};
use crate::loops::build::depthwise::{DepthwiseForm, depthwise_form};
use crate::loops::build::depthwise_grad::{DepthwiseGradForm, depthwise_grad_form};
use crate::loops::build::pool::{PoolForm, pool_form};
use crate::loops::nest::{Access, Arg, Index, NestBuilder, Place, Var};

/// Name by which nests call the planes of a depthwise convolution.
const DEPTHWISE_TILES: &str = "depthwise_tiles";
/// Name by which nests call the filters of a depthwise convolution's gradient.
const DEPTHWISE_GRAD_TILES: &str = "depthwise_grad_tiles";
/// Name by which nests call the planes of a pool.
const POOL_TILES: &str = "pool_tiles";
/// Name by which nests call the planes of a pool's gradient.
const POOL_GRAD_TILES: &str = "pool_grad_tiles";

/// Address of what a nest calls by one of the names above.
pub(super) fn helper_address(name: &str) -> Option<usize> {
    match name {
        DEPTHWISE_TILES => Some(window::depthwise_tiles as *const () as usize),
        DEPTHWISE_GRAD_TILES => Some(window::depthwise_grad_tiles as *const () as usize),
        POOL_TILES => Some(window::pool_tiles as *const () as usize),
        POOL_GRAD_TILES => Some(window::pool_grad_tiles as *const () as usize),
        _ => None,
    }
}

/// The kernel of a region whose planes a window kernel computes, if there is one.
pub(super) fn lower(name: &str, region: &Graph, micro: &MicroKernels<'_>, provenance: &Provenance) -> Option<Lowered> {
    let kernels = micro.kernels;
    let call = Call::new(name, region, micro);
    let mut lowered = if let Some(form) = depthwise_form(region) {
        let form = form.ok()?;
        let plan = DepthwisePlan::new(&form.spec, kernels).ok()?;
        depthwise(call, &form, WindowPlan::Depthwise(plan))
    } else if let Some(form) = depthwise_grad_form(region) {
        let plan = DepthwiseGradPlan::new(&form.spec, kernels).ok()?;
        depthwise_grad(call, &form, WindowPlan::DepthwiseGrad(plan))
    } else {
        match pool_form(region)?.ok()? {
            PoolForm::Pool { spec, x, results } => {
                let plan = PoolPlan::new(&spec, kernels).ok()?;
                pool(call, &spec, x, results, WindowPlan::Pool(plan))
            }
            PoolForm::Grad { spec, dy, place, gate } => {
                let plan = PoolGradPlan::new(&spec, kernels).ok()?;
                pool_grad(call, &spec, [Some(dy), place, gate], WindowPlan::PoolGrad(plan))
            }
        }
    };
    lowered.provenance = provenance.clone();
    Some(lowered)
}

fn depthwise(mut call: Call<'_>, form: &DepthwiseForm, plan: WindowPlan) -> Lowered {
    let operands = [Some(form.x), Some(form.w)].map(|param| call.operand(param));
    let out = call.result(Some(0), Access::ReadWrite);
    let vectors = [form.bias, form.scale, form.residual].map(|param| call.operand(param));
    let args = operands.into_iter().chain([out]).chain(vectors);
    let spec = &form.spec;
    let macs = spec.planes * spec.rows.output * spec.columns.output * spec.rows.kernel * spec.columns.kernel;
    let in_place = form.residual_in_place();
    call.finish(DEPTHWISE_TILES, args.collect(), plan, 2 * macs, in_place)
}

fn depthwise_grad(mut call: Call<'_>, form: &DepthwiseGradForm, plan: WindowPlan) -> Lowered {
    let operands = [Some(form.x), Some(form.dy)].map(|param| call.operand(param));
    let out = call.result(Some(0), Access::Write);
    let spec = &form.spec;
    let macs = spec.planes * spec.rows.output * spec.columns.output * spec.rows.kernel * spec.columns.kernel;
    call.finish(DEPTHWISE_GRAD_TILES, operands.into_iter().chain([out]).collect(), plan, 2 * macs, None)
}

fn pool(
    mut call: Call<'_>,
    spec: &PoolSpec,
    x: usize,
    (value, place): (usize, Option<usize>),
    plan: WindowPlan,
) -> Lowered {
    let x = call.operand(Some(x));
    let results = [Some(value), place].map(|number| call.result(number, Access::Write));
    let args = [x].into_iter().chain(results);
    let steps = spec.planes * spec.rows.output * spec.columns.output * spec.rows.kernel * spec.columns.kernel;
    call.finish(POOL_TILES, args.collect(), plan, steps, None)
}

fn pool_grad(mut call: Call<'_>, spec: &PoolGradSpec, operands: [Option<usize>; 3], plan: WindowPlan) -> Lowered {
    let [dy, place, gate] = operands;
    let args = operands.map(|param| call.operand(param));
    let out = call.result(Some(0), Access::Write);
    let steps = spec.planes * spec.rows.output * spec.columns.output * spec.rows.kernel * spec.columns.kernel;
    // A gate is read where the result is then written.
    let in_place = gate.filter(|_| gate != dy && gate != place);
    call.finish(POOL_GRAD_TILES, args.into_iter().chain([out]).collect(), plan, steps, in_place)
}

/// A nest whose tiles are calls of a window kernel: descriptor, buffers, begin, end.
struct Call<'a> {
    name: &'a str,
    region: &'a Graph,
    micro: &'a MicroKernels<'a>,
    nest: NestBuilder,
    uses: Vec<BufferUse>,
    descriptor: Place,
}

impl<'a> Call<'a> {
    fn new(name: &'a str, region: &'a Graph, micro: &'a MicroKernels<'a>) -> Call<'a> {
        let nest = NestBuilder::new(name);
        let descriptor = nest.buffer("descriptor", DType::U8, 64, Access::Read);
        Call { name, region, micro, nest, uses: vec![BufferUse::Window], descriptor }
    }

    /// A parameter of the region; null if there is none.
    fn operand(&mut self, param: Option<usize>) -> Arg {
        let Some(param) = param else { return Arg::Int(Index::constant(0)) };
        self.buffer(self.region.params()[param].value, Access::Read, BufferUse::Operand(param))
    }

    /// A result of the region; null if there is none.
    fn result(&mut self, number: Option<usize>, access: Access) -> Arg {
        let Some(number) = number else { return Arg::Int(Index::constant(0)) };
        self.buffer(self.region.returns()[number], access, BufferUse::Result(number))
    }

    fn buffer(&mut self, value: Value, access: Access, what: BufferUse) -> Arg {
        let data = self.region.value(value);
        self.uses.push(what);
        start_of(self.nest.buffer(&*data.name, data.ty.dtype, data.ty.elements(), access))
    }

    /// `in_place`: an operand over which the first result may be computed.
    fn finish(
        self,
        helper: &str,
        args: Vec<Arg>,
        mut plan: WindowPlan,
        flops: usize,
        in_place: Option<usize>,
    ) -> Lowered {
        let decision = self.micro.cut(&mut plan);
        let tile = Index::var(Var::TILE);
        let ends = [Arg::Int(tile.clone()), Arg::Int(tile + 1i64)];
        let args = std::iter::once(start_of(self.descriptor)).chain(args).chain(ends).collect();
        let call = self.nest.call(self.nest.helper(helper), args);
        Lowered {
            name: self.name.to_owned(),
            launches: vec![(self.nest.finish(plan.tiles(), vec![call]), self.uses)],
            workspace_bytes: 0,
            in_place: in_place.map(|operand| (operand, 0)).into_iter().collect(),
            checks: Vec::new(),
            flops: flops as u64,
            contractions: Vec::new(),
            window: Some(Arc::new(plan)),
            packs: Vec::new(),
            decision,
            provenance: Provenance::default(),
        }
    }
}
