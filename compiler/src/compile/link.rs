//! From drafts to executables: launches in order, with every buffer resolved to a slot.

use std::cmp::Reverse;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use kiln_ir::attribute::Literal;
use kiln_ir::graph::Value;
use kiln_ir::module::State;
use kiln_ir::op::Op;
use kiln_ir::scalar::Number;
use kiln_ir::types::{Name, TensorType};
use kiln_rt::data::convert;
use kiln_rt::executable::{Binding, Executable, Launch, Site, Slot};

use super::{CompileError, Draft, Options, fingerprint};
use crate::codegen::jit::JitCode;
use crate::codegen::{CompiledKernel, TableSlot};
use crate::loops::build::CheckSite;
use crate::loops::nest::LoopNest;
use crate::lower::{self, BufferUse};
use crate::placement::Home;
use crate::roofline::work;

/// The executable of a graph whose first nest is the `first` of `jit`.
pub(super) fn assemble(
    declared: &IndexMap<Name, State>,
    draft: &Draft<'_>,
    first: usize,
    jit: &Arc<JitCode>,
    options: &Options,
) -> Result<Executable, CompileError> {
    let graph = draft.graph;
    let mut linker = Linker { draft, constants: Vec::new(), offsets: IndexMap::new(), states: IndexSet::new() };
    let mut launches = Vec::new();
    let mut keep: Vec<Arc<dyn std::any::Any + Send + Sync>> = Vec::new();
    let mut entries = first..;
    for (step, lowered) in draft.lowered.iter().enumerate() {
        for plan in &lowered.contractions {
            keep.push(plan.clone());
        }
        if let Some(plan) = &lowered.window {
            keep.push(plan.clone());
        }
        for ((nest, uses), work) in lowered.launches.iter().zip(work::of_launches(lowered)) {
            let Some(entry) = entries.next() else { continue };
            let kernel = jit.kernel(entry);
            let homes = uses.iter().map(|what| linker.buffer(step, *what));
            let homes = homes.collect::<Vec<Slot>>();
            let slots = linker.slots(kernel, nest, &homes);
            launches.push(Launch {
                flops: work.flops,
                forks: lowered.decision.as_ref().and_then(|decision| decision.choice.forks),
                source: lowered.provenance.source.as_ref().map(ToString::to_string),
                sites: lowered.checks.iter().map(site).collect(),
                ..launch(nest, (entry, kernel), slots, work.bytes())
            });
        }
    }
    for (copy, nest) in draft.placement.copies.iter().zip(&draft.copies) {
        let Some(entry) = entries.next() else { continue };
        let kernel = jit.kernel(entry);
        let homes = [linker.home(&copy.from), linker.home(&copy.to)];
        let slots = linker.slots(kernel, nest, &homes);
        launches.push(launch(nest, (entry, kernel), slots, 2 * graph.ty(copy.value).bytes() as u64));
    }
    for packed in &draft.packs {
        let Some(entry) = entries.next() else { continue };
        let kernel = jit.kernel(entry);
        let homes =
            [Slot::Address(packed.pack.plan.descriptor()), linker.state(&packed.from), linker.state(&packed.name)];
        let slots = linker.slots(kernel, &packed.nest, &homes);
        keep.push(packed.pack.plan.clone());
        launches.push(launch(&packed.nest, (entry, kernel), slots, 2 * packed.ty().bytes() as u64));
    }
    let binding = |value: Value, below| Binding {
        below,
        ..Binding::new(graph.value_name(value).clone(), graph.ty(value).clone())
    };
    let Linker { constants, states, .. } = linker;
    Ok(Executable {
        name: graph.name().into(),
        inputs: graph.params().iter().map(|p| binding(p.value, p.below)).collect(),
        outputs: graph.returns().iter().map(|&v| binding(v, None)).collect(),
        states: states.iter().map(|name| state_binding(declared, name)).collect::<Result<_, _>>()?,
        launches: interleaved(launches, draft.packs.len()),
        constants,
        arena_bytes: draft.placement.plan.peak as usize,
        code: jit.clone(),
        keep,
        fingerprint: fingerprint(draft, options),
    })
}

/// A launch that computes nothing, as copies do.
fn launch(nest: &LoopNest, (entry, kernel): (usize, &CompiledKernel), slots: Vec<Slot>, bytes: u64) -> Launch {
    Launch {
        name: nest.name.clone(),
        entry,
        slots,
        tiles: nest.tiles,
        forks: None,
        scratch_bytes: kernel.scratch_bytes,
        flops: 0,
        bytes,
        source: None,
        sites: Vec::new(),
    }
}

/// The launches, with each of the last `packs` moved behind the last kernel that has to do with the state it packs. A
/// session that runs them for the last time can then free a state as soon as it is packed, instead of holding all. Large
/// ones come first: until one is packed its state and its panels are there, beside what earlier ones left.
fn interleaved(launches: Vec<Launch>, packs: usize) -> Vec<Launch> {
    let kernels = launches.len() - packs;
    let mut last: IndexMap<Slot, usize> = IndexMap::new();
    for (number, launch) in launches.iter().take(kernels).enumerate() {
        last.extend(launch.slots.iter().filter(|slot| matches!(slot, Slot::State(_))).map(|slot| (*slot, number)));
    }
    // A pack of a state that no kernel touches comes before all of them.
    let place = |number: usize, launch: &Launch| match number < kernels {
        true => 2 * number + 1,
        false => launch.slots.iter().filter_map(|slot| last.get(slot)).max().map_or(0, |kernel| 2 * kernel + 2),
    };
    let mut placed: Vec<(usize, Launch)> =
        launches.into_iter().enumerate().map(|(number, launch)| (place(number, &launch), launch)).collect();
    placed.sort_by_key(|(place, launch)| (*place, Reverse(launch.bytes)));
    placed.into_iter().map(|(_, launch)| launch).collect()
}

fn site(check: &CheckSite) -> Site {
    Site {
        op: check.mnemonic.to_owned(),
        source: check.provenance.source.as_ref().map(ToString::to_string),
        what: format!("index of `{}`", check.mnemonic),
        limit: check.limit.max(0) as u64,
    }
}

fn state_binding(declared: &IndexMap<Name, State>, name: &Name) -> Result<Binding, CompileError> {
    let state = declared.get(name);
    let state = state.ok_or_else(|| CompileError::Defect(format!("state @{name} is not declared")))?;
    Ok(Binding::new(name.clone(), state.ty.clone()))
}

/// Resolves buffers to slots.
struct Linker<'a> {
    draft: &'a Draft<'a>,
    constants: Vec<u8>,
    offsets: IndexMap<Value, usize>,
    /// States that launches use: not those that are only read as panels.
    states: IndexSet<Name>,
}

impl Linker<'_> {
    fn buffer(&mut self, step: usize, what: BufferUse) -> Slot {
        let kernel = &self.draft.schedule.kernels[step];
        let placement = &self.draft.placement;
        match what {
            BufferUse::Operand(number) => self.home(placement.home(kernel.operands[number])),
            BufferUse::Result(number) => self.home(placement.home(kernel.results[number])),
            BufferUse::Workspace(offset) => {
                let buffer = placement.workspaces[step].unwrap_or(0);
                Slot::Arena(placement.plan.offsets[buffer] as usize + offset)
            }
            BufferUse::Descriptor(phase) => {
                let plan = self.draft.lowered[step].contractions.get(phase);
                Slot::Address(plan.map_or(0, |plan| plan.descriptor()))
            }
            BufferUse::Window => {
                let plan = self.draft.lowered[step].window.as_ref();
                Slot::Address(plan.map_or(0, |plan| plan.descriptor()))
            }
            BufferUse::Packed(number) => {
                let packed = &self.draft.packed[step][number];
                self.state(&packed.name)
            }
        }
    }

    fn state(&mut self, name: &Name) -> Slot {
        Slot::State(self.states.insert_full(name.clone()).0)
    }

    fn home(&mut self, home: &Home) -> Slot {
        let placement = &self.draft.placement;
        match home {
            Home::Input(number) => Slot::Input(*number),
            Home::Output(number) => Slot::Output(*number),
            Home::State(name) => self.state(name),
            Home::Constant(value) => Slot::Constant(self.constant(*value)),
            Home::Buffer(buffer) => Slot::Arena(placement.plan.offsets[*buffer] as usize),
        }
    }

    fn constant(&mut self, value: Value) -> usize {
        if let Some(&offset) = self.offsets.get(&value) {
            return offset;
        }
        let offset = self.constants.len().next_multiple_of(64);
        self.constants.resize(offset, 0);
        if let Some(Op::Const(constant)) = self.draft.graph.producer(value).map(|(_, data)| &data.op) {
            write_constant(&mut self.constants, &constant.ty, &constant.value);
        }
        self.offsets.insert(value, offset);
        offset
    }

    /// The table of a kernel, without the two slots that belong to the worker.
    fn slots(&self, kernel: &CompiledKernel, nest: &LoopNest, homes: &[Slot]) -> Vec<Slot> {
        let slot = |slot: &TableSlot| match slot {
            TableSlot::Scratch | TableSlot::Status => None,
            TableSlot::Buffer(number) => Some(homes[*number as usize]),
            TableSlot::Helper(number) => {
                Some(Slot::Address(lower::helper_address(&nest.helpers[*number as usize].name)))
            }
            TableSlot::Math(function) => Some(Slot::Address(function.address() as usize)),
        };
        kernel.table.iter().filter_map(slot).collect()
    }
}

fn write_constant(bytes: &mut Vec<u8>, ty: &TensorType, literal: &Literal) {
    for position in 0..ty.elements() {
        let start = bytes.len();
        bytes.resize(start + ty.dtype.bytes(), 0);
        match literal.at(position).unwrap_or(Number::Int(0)) {
            Number::Float(value) => convert::encode_float(ty.dtype, value, &mut bytes[start..]),
            Number::Int(value) => convert::encode_integer(ty.dtype, value, &mut bytes[start..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_ir::types::DType;

    use super::*;

    #[test]
    fn a_state_is_packed_right_after_it_is_computed() {
        let launch = |name: &str, slots: &[usize], bytes| Launch {
            name: name.into(),
            entry: 0,
            slots: slots.iter().map(|&state| Slot::State(state)).collect(),
            tiles: 1,
            forks: None,
            scratch_bytes: 0,
            flops: 0,
            bytes,
            source: None,
            sites: Vec::new(),
        };
        // Kernels fold @0 into @1 and @2 into @3; @4 and @5 are packed as they are.
        let launches = vec![
            launch("fold1", &[0, 1], 8),
            launch("fold3", &[2, 3], 8),
            launch("pack4", &[4, 14], 8),
            launch("pack1", &[1, 11], 8),
            launch("pack5", &[5, 15], 9),
            launch("pack3", &[3, 13], 8),
        ];
        let order: Vec<String> = interleaved(launches, 4).into_iter().map(|launch| launch.name).collect();
        assert_eq!(order, ["pack5", "pack4", "fold1", "pack1", "fold3", "pack3"]);
    }

    #[test]
    fn constants_are_rounded_to_their_type() {
        let mut bytes = Vec::new();
        // 1 + 2^-8 is halfway between two bf16 and goes to the even one; 0.1 in f16 is 0x2e66 (IEEE 754).
        for (dtype, value) in [(DType::Bf16, 1.003_906_25), (DType::F16, 0.1)] {
            write_constant(&mut bytes, &TensorType::new(dtype, [1]), &Literal::Splat(Number::Float(value)));
        }
        assert_eq!(bytes, [0x3f80_u16.to_ne_bytes(), 0x2e66_u16.to_ne_bytes()].concat());
    }
}
