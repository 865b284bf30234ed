//! From a module to executables: passes, schedule, loops, memory plan, code.

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use indexmap::{IndexMap, IndexSet};
use kiln_ir::attribute::Literal;
use kiln_ir::graph::{Graph, Value};
use kiln_ir::module::State;
use kiln_ir::op::Op;
use kiln_ir::scalar::Number;
use kiln_ir::types::{DType, Name, TensorType};
use kiln_ir::{Diagnostic, Module};
use kiln_rt::data::convert;
use kiln_rt::executable::{Binding, Executable, Launch, Site, Slot};
use kiln_rt::kernels::{self, Kernels, Level};

use crate::arrange::{Arranged, arrange};
use crate::codegen::jit::JitCode;
use crate::codegen::{CompiledKernel, TableSlot, Texts};
use crate::loops::build::CheckSite;
use crate::loops::nest::LoopNest;
use crate::lower::{self, BufferUse, Lowered, MicroKernels};
use crate::memory;
use crate::packing::{Lasting, PackedState, packed_states};
use crate::pass::hoist::PREPARE;
use crate::pass::rematerialize::{self, Rematerialize};
use crate::pass::specialize::Mode;
use crate::pass::{Pass, Remarks};
use crate::pipeline::{Pipeline, Step};
use crate::placement::{Home, Placement};
use crate::roofline::work;
use crate::schedule::Schedule;

/// How to compile.
#[derive(Clone, Debug)]
pub struct Options {
    /// Micro-kernels that may be called.
    pub level: Level,
    /// How far sums may be reordered and approximated.
    pub precision: Precision,
    /// Forces training or inference; `None` decides per graph.
    pub mode: Option<Mode>,
    /// Passes; `None` is the standard pipeline.
    pub passes: Option<String>,
    /// Whether the standard pipeline moves what depends on states alone to `@prepare`. Not while states change.
    pub hoist: bool,
    /// Whether the verifier runs after every pass.
    pub verify_each: bool,
    /// Budget of the exact memory search, in nodes.
    pub exact_nodes: u64,
    /// Bytes that the arena of every graph may have: values are computed twice if it takes more.
    pub memory_budget: Option<u64>,
    /// Texts to keep.
    pub texts: Texts,
}

/// What a kernel may do to be faster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Sums of products in f32, in the order that the tiles fix.
    Strict,
    /// Also algorithms with a bounded error: Winograd convolutions, whose largest error is below 5e-6 of the largest
    /// output for up to 512 channels of random data (the direct sum's is below 1.5e-6).
    #[default]
    Default,
    /// Also products in bf16, where a kernel has them; none has yet.
    Fast,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            level: level_from_environment(),
            precision: Precision::Default,
            mode: None,
            passes: None,
            hoist: true,
            verify_each: cfg!(debug_assertions),
            exact_nodes: memory::Options::default().exact_nodes,
            memory_budget: None,
            texts: Texts::default(),
        }
    }
}

/// The level that `KILN_KERNELS` caps, or the best the machine has.
pub fn level_from_environment() -> Level {
    let best = kernels::detect();
    match std::env::var("KILN_KERNELS").ok().and_then(|name| Level::from_name(&name)) {
        Some(level) if level.available() => level.min(best),
        _ => best,
    }
}

/// Why a module cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The program is at fault.
    #[error("{}", kiln_ir::diagnostic::render_all(.0, &|_| None))]
    Program(Vec<Diagnostic>),
    /// The pipeline's text names no pass.
    #[error("{0}")]
    Pipeline(String),
    /// Kiln is at fault.
    #[error("defect in Kiln: {0}; please report it with the script")]
    Defect(String),
}

/// A compiled module.
#[derive(Debug)]
pub struct Program {
    /// The module after all passes.
    pub module: Module,
    /// Its graphs, compiled.
    pub graphs: IndexMap<Name, Compiled>,
    /// What the passes decided.
    pub remarks: Remarks,
    /// Time of each pass.
    pub times: Vec<(&'static str, Duration)>,
}

/// A compiled graph with everything that an inspector asks for.
#[derive(Debug)]
pub struct Compiled {
    /// Ready to run.
    pub executable: Arc<Executable>,
    /// Order of kernels.
    pub schedule: Schedule,
    /// Kernels as loops.
    pub lowered: Vec<Lowered>,
    /// Memory.
    pub placement: Placement,
    /// Time of the memory planning: the search for an order, the offsets and their proof.
    pub planning: Duration,
    /// Code of all graphs of the program.
    pub code: Arc<JitCode>,
    /// Which of its kernels are the launches of this graph, in order.
    pub launches: std::ops::Range<usize>,
}

/// Compiles every graph of a bound module.
///
/// # Errors
/// [`CompileError::Program`] with all diagnostics; [`CompileError::Defect`] for what only Kiln can have done wrong.
pub fn compile(module: &Module, options: &Options) -> Result<Program, CompileError> {
    compile_observed(module, options, &mut |_| {})
}

/// As [`compile`]; `observe` sees the module after every pass.
///
/// # Errors
/// As [`compile`].
pub fn compile_observed(
    module: &Module,
    options: &Options,
    observe: &mut dyn FnMut(&Step<'_>),
) -> Result<Program, CompileError> {
    let pipeline = match &options.passes {
        Some(text) => Pipeline::parse(text, options).map_err(CompileError::Pipeline)?,
        None if options.hoist => Pipeline::standard(options.mode),
        None => Pipeline::standard(options.mode).without("hoist"),
    };
    compile_with(module, &budgeted(pipeline, options), options, observe)
}

/// The pipeline with what keeps it within the memory budget, if there is one and no pass of it does that.
pub fn budgeted(pipeline: Pipeline, options: &Options) -> Pipeline {
    let rematerialize = Rematerialize::of(options);
    match options.memory_budget.is_none() || pipeline.names().contains(&rematerialize.name()) {
        true => pipeline,
        // At the end: it repeats kernels.
        false => pipeline.with(Box::new(rematerialize), ""),
    }
}

/// As [`compile_observed`], by a pipeline of the caller's, who may have passes of their own. It ends with `fuse`: only
/// groups become kernels of several ops.
///
/// # Errors
/// As [`compile`].
pub fn compile_with(
    module: &Module,
    pipeline: &Pipeline,
    options: &Options,
    observe: &mut dyn FnMut(&Step<'_>),
) -> Result<Program, CompileError> {
    let mut module = module.clone();
    let mut remarks = Remarks::default();
    let mut times = Vec::new();
    let results = result_names(&module);
    pipeline
        .run(&mut module, &mut remarks, options.verify_each, &mut |step| {
            times.push((step.pass, step.time));
            observe(step);
        })
        .map_err(CompileError::Program)?;
    let graphs = generate(&mut module, &results, options)?;
    Ok(Program { module, graphs, remarks, times })
}

/// Names of every graph's results, as the program has them: passes may replace a result by an equal value of another
/// name, but whoever runs the graph asks for the program's.
type ResultNames = IndexMap<Name, Vec<Name>>;

fn result_names(module: &Module) -> ResultNames {
    let of = |graph: &Graph| graph.returns().iter().map(|&value| graph.value_name(value).clone()).collect();
    module.graphs.iter().map(|(name, graph)| (name.clone(), of(graph))).collect()
}

/// Graphs on their way to code.
struct Draft<'a> {
    graph: &'a Graph,
    schedule: Schedule,
    lowered: Vec<Lowered>,
    placement: Placement,
    planning: Duration,
    copies: Vec<LoopNest>,
    /// Operands that its kernels take as panels, by kernel.
    packed: Vec<Vec<PackedState>>,
    /// Operands that it packs for the others.
    packs: Vec<PackedState>,
}

fn generate(
    module: &mut Module,
    results: &ResultNames,
    options: &Options,
) -> Result<IndexMap<Name, Compiled>, CompileError> {
    let kernels = Kernels::for_level(options.level).map(|kernels| MicroKernels::new(kernels, options.precision));
    let lasting = if options.hoist { Lasting::of(module) } else { Lasting::nothing() };
    if options.hoist && module.graph(PREPARE).is_none() {
        module.add_graph(Graph::new(PREPARE));
    }
    let Module { graphs: sources, states, .. } = module;
    let mut drafts: Vec<Draft<'_>> =
        sources.values().map(|graph| draft(graph, kernels.as_ref(), &lasting, options)).collect::<Result<_, _>>()?;
    let packs: Vec<PackedState> = drafts.iter().flat_map(|d| d.packed.iter().flatten()).cloned().collect();
    states.extend(packs.iter().map(|packed| (packed.name.clone(), packed.state())));
    drafts.iter_mut().filter(|draft| draft.graph.name() == PREPARE).for_each(|draft| draft.packs = packs.clone());
    drafts.retain(|draft| draft.graph.name() != PREPARE || draft.nests().next().is_some());
    let halves: Vec<Diagnostic> = drafts.iter().flat_map(Draft::halves).collect();
    if !halves.is_empty() {
        return Err(CompileError::Program(halves));
    }
    let nests: Vec<LoopNest> = drafts.iter().flat_map(Draft::nests).cloned().collect();
    let code = JitCode::compile_at(&nests, options.level, options.texts)
        .map_err(|error| CompileError::Defect(error.to_string()))?;
    let code = Arc::new(code);
    let mut first = 0;
    let mut graphs = IndexMap::new();
    for draft in drafts {
        let mut executable = assemble(states, &draft, first, &code, options)?;
        let names = results.get(draft.graph.name()).into_iter().flatten();
        executable.outputs.iter_mut().zip(names).for_each(|(output, name)| output.name = name.clone());
        let launches = first..first + draft.nests().count();
        first = launches.end;
        graphs.insert(
            Name::from(draft.graph.name()),
            Compiled {
                executable: Arc::new(executable),
                schedule: draft.schedule,
                lowered: draft.lowered,
                placement: draft.placement,
                planning: draft.planning,
                code: code.clone(),
                launches,
            },
        );
    }
    Ok(graphs)
}

impl Draft<'_> {
    /// Kernels over half types, which have no machine code yet: a limit that the model's author can avoid.
    fn halves(&self) -> impl Iterator<Item = Diagnostic> {
        let computed =
            self.lowered.iter().flat_map(|l| l.launches.iter().map(|(nest, _)| (nest, &l.provenance.source)));
        computed.chain(self.copies.iter().map(|nest| (nest, &None))).filter_map(|(nest, source)| {
            let dtypes = nest.exprs.iter().map(|&(_, dtype)| dtype);
            let half = dtypes.into_iter().find(|dtype| matches!(dtype, DType::Bf16 | DType::F16))?;
            let message = format!("`{}` computes in {half}, for which there is no compiled code yet", nest.name);
            Some(Diagnostic::error("compile.K1", message).at(source.clone()).help("compute in f32"))
        })
    }

    fn nests(&self) -> impl Iterator<Item = &LoopNest> {
        let kernels = self.lowered.iter().flat_map(|l| l.launches.iter().map(|(nest, _)| nest));
        kernels.chain(&self.copies).chain(self.packs.iter().map(|packed| &packed.nest))
    }
}

fn draft<'a>(
    graph: &'a Graph,
    kernels: Option<&MicroKernels<'_>>,
    lasting: &Lasting,
    options: &Options,
) -> Result<Draft<'a>, CompileError> {
    let memory = memory::Options { exact_nodes: options.exact_nodes, ..memory::Options::default() };
    let Arranged { schedule, lowered, placement, planning } = arrange(graph, kernels, lasting, &memory)?;
    if let Some(budget) = options.memory_budget.filter(|&budget| placement.plan.peak > budget) {
        return Err(CompileError::Program(vec![rematerialize::refusal(graph, budget, &placement)]));
    }
    let copies = placement
        .copies
        .iter()
        .map(|copy| {
            let ty = graph.ty(copy.value);
            lower::copy(&format!("copy.{}", graph.value_name(copy.value)), ty.dtype, ty.elements())
        })
        .collect();
    let packed = packed_states(graph, &schedule, &lowered);
    Ok(Draft { graph, schedule, lowered, placement, planning, copies, packed, packs: Vec::new() })
}

fn assemble(
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
                name: nest.name.clone(),
                entry,
                slots,
                tiles: nest.tiles,
                scratch_bytes: kernel.scratch_bytes,
                flops: work.flops,
                bytes: work.bytes(),
                source: lowered.provenance.source.as_ref().map(ToString::to_string),
                sites: lowered.checks.iter().map(site).collect(),
            });
        }
    }
    for (copy, nest) in draft.placement.copies.iter().zip(&draft.copies) {
        let Some(entry) = entries.next() else { continue };
        let kernel = jit.kernel(entry);
        let homes = [linker.home(&copy.from), linker.home(&copy.to)];
        let slots = linker.slots(kernel, nest, &homes);
        let bytes = 2 * graph.ty(copy.value).bytes() as u64;
        launches.push(Launch {
            name: nest.name.clone(),
            entry,
            slots,
            tiles: nest.tiles,
            scratch_bytes: kernel.scratch_bytes,
            flops: 0,
            bytes,
            source: None,
            sites: Vec::new(),
        });
    }
    for packed in &draft.packs {
        let Some(entry) = entries.next() else { continue };
        let kernel = jit.kernel(entry);
        let homes =
            [Slot::Address(packed.pack.plan.descriptor()), linker.state(&packed.from), linker.state(&packed.name)];
        let slots = linker.slots(kernel, &packed.nest, &homes);
        keep.push(packed.pack.plan.clone());
        launches.push(Launch {
            name: packed.nest.name.clone(),
            entry,
            slots,
            tiles: packed.nest.tiles,
            scratch_bytes: kernel.scratch_bytes,
            flops: 0,
            bytes: 2 * packed.ty().bytes() as u64,
            source: None,
            sites: Vec::new(),
        });
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

/// Hash of what decides the bits: the kernels' loops and the micro-kernels they call.
fn fingerprint(draft: &Draft<'_>, options: &Options) -> u64 {
    let mut hasher = DefaultHasher::new();
    options.level.name().hash(&mut hasher);
    options.precision.hash(&mut hasher);
    draft.nests().for_each(|nest| nest.hash(&mut hasher));
    for plan in draft.lowered.iter().flat_map(|l| &l.contractions) {
        plan.name().hash(&mut hasher);
    }
    for plan in draft.lowered.iter().filter_map(|l| l.window.as_ref()) {
        plan.kernel().hash(&mut hasher);
    }
    hasher.finish()
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
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    #[test]
    fn half_types_are_refused_with_their_line() {
        let text = "graph @f(%x: bf16[4]) {\n  %y: bf16[4] = relu %x\n  return %y\n}\n";
        let module = kiln_ir::text::parse_module("half.kiln", text).unwrap();
        let CompileError::Program(found) = compile(&module, &Options::default()).unwrap_err() else {
            panic!("a limit is no defect");
        };
        assert_eq!((&*found[0].label, found[0].at.as_ref().unwrap().line), ("compile.K1", 2));
    }

    /// Three convolutions of one shape, the last without its relu, in a script that binds nothing.
    fn three_convolutions() -> Program {
        let text = "model @m(%x: f32[2, 16, 9, 9]) {\n  %h = conv %x {filters = 16, kernel = 3, padding = same}\n  \
                    %h = relu %h\n  %h = conv %h {filters = 16, kernel = 3, padding = same}\n  %h = relu %h\n  \
                    %h = conv %h {filters = 16, kernel = 3, padding = same}\n  predict %h\n}\n";
        let module = kiln_ir::script::load("three.kiln", text, &kiln_ir::Bindings::new()).unwrap();
        compile(&module, &Options::default()).unwrap()
    }

    #[test]
    fn the_same_contraction_twice_has_one_plan() {
        let program = three_convolutions();
        let lowered = &program.graphs["predict"].lowered;
        let plans: Vec<_> = lowered.iter().flat_map(|kernel| &kernel.contractions).collect();
        let [first, second, third] = plans[..] else { panic!("{} plans", plans.len()) };
        assert!(Arc::ptr_eq(first, second));
        assert!(!Arc::ptr_eq(second, third), "another epilogue is another plan");
    }

    #[test]
    fn a_state_is_packed_right_after_it_is_computed() {
        let launch = |name: &str, slots: &[usize], bytes| Launch {
            name: name.into(),
            entry: 0,
            slots: slots.iter().map(|&state| Slot::State(state)).collect(),
            tiles: 1,
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
