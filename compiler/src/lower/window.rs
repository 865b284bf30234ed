//! Depthwise convolutions as calls of their kernels.

use std::sync::Arc;

use kiln_ir::graph::{Graph, Provenance};
use kiln_ir::types::DType;
use kiln_rt::kernels::Kernels;
use kiln_rt::kernels::window::{DepthwisePlan, WindowPlan};

use super::{BufferUse, Lowered, start_of};
use crate::loops::build::depthwise::{DepthwiseForm, depthwise_form};
use crate::loops::nest::{Access, Arg, Index, NestBuilder, Place, Var};

/// Name by which nests call the planes of a depthwise convolution.
pub const DEPTHWISE_TILES: &str = "depthwise_tiles";

/// The kernel of a region whose planes a window kernel computes, if there is one.
pub(super) fn lower(name: &str, region: &Graph, kernels: &Kernels, provenance: &Provenance) -> Option<Lowered> {
    let form = depthwise_form(region)?.ok()?;
    let plan = DepthwisePlan::new(&form.spec, kernels).ok()?;
    Some(depthwise(name, region, &form, plan, provenance))
}

fn depthwise(
    name: &str,
    region: &Graph,
    form: &DepthwiseForm,
    plan: DepthwisePlan,
    provenance: &Provenance,
) -> Lowered {
    let plan = WindowPlan::Depthwise(plan);
    let mut call = Call::new(name);
    let operands = [Some(form.x), Some(form.w)].map(|param| call.operand(region, param));
    let out = call.result(region, 0, Access::ReadWrite);
    let vectors = [form.bias, form.scale, form.residual].map(|param| call.operand(region, param));
    let places = operands.into_iter().chain([out]).chain(vectors);
    let spec = &form.spec;
    let macs = spec.planes * spec.rows.output * spec.columns.output * spec.rows.kernel * spec.columns.kernel;
    let launch = call.finish(DEPTHWISE_TILES, places, plan.tiles());
    Lowered {
        name: name.to_owned(),
        launches: vec![launch],
        workspace_bytes: 0,
        in_place: form.residual_in_place().map(|residual| (residual, 0)).into_iter().collect(),
        checks: Vec::new(),
        flops: 2 * macs as u64,
        contractions: Vec::new(),
        window: Some(Arc::new(plan)),
        packs: Vec::new(),
        provenance: provenance.clone(),
    }
}

/// A nest whose tiles are calls of a window kernel: descriptor, buffers, begin, end.
struct Call {
    nest: NestBuilder,
    uses: Vec<BufferUse>,
    descriptor: Place,
}

impl Call {
    fn new(name: &str) -> Call {
        let nest = NestBuilder::new(name);
        let descriptor = nest.buffer("descriptor", DType::U8, 64, Access::Read);
        Call { nest, uses: vec![BufferUse::Window], descriptor }
    }

    /// A parameter of the region; null if there is none.
    fn operand(&mut self, region: &Graph, param: Option<usize>) -> Arg {
        let Some(param) = param else { return Arg::Int(Index::constant(0)) };
        let data = region.value(region.params()[param].value);
        self.uses.push(BufferUse::Operand(param));
        start_of(self.nest.buffer(&*data.name, data.ty.dtype, data.ty.elements(), Access::Read))
    }

    fn result(&mut self, region: &Graph, number: usize, access: Access) -> Arg {
        let data = region.value(region.returns()[number]);
        self.uses.push(BufferUse::Result(number));
        start_of(self.nest.buffer(&*data.name, data.ty.dtype, data.ty.elements(), access))
    }

    fn finish(
        self,
        helper: &str,
        places: impl IntoIterator<Item = Arg>,
        tiles: u64,
    ) -> (crate::loops::nest::LoopNest, Vec<BufferUse>) {
        let tile = Index::var(Var::TILE);
        let ends = [Arg::Int(tile.clone()), Arg::Int(tile + 1i64)];
        let args = std::iter::once(start_of(self.descriptor)).chain(places).chain(ends).collect();
        let call = self.nest.call(self.nest.helper(helper), args);
        (self.nest.finish(tiles, vec![call]), self.uses)
    }
}
