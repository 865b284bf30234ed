//! From a module to executables: passes, schedule, loops, memory plan, code.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use kiln_ir::graph::Graph;
use kiln_ir::types::Name;
use kiln_ir::{Diagnostic, Module};
use kiln_rt::executable::Executable;
use kiln_rt::kernels::{self, Kernels, Level};

mod link;

use self::link::assemble;
use crate::arrange::{Arranged, arrange};
use crate::codegen::Texts;
use crate::codegen::jit::JitCode;
use crate::loops::nest::LoopNest;
use crate::lower::{self, Lowered, MicroKernels};
use crate::memory;
use crate::packing::{self, Lasting, PackedState, packed_states};
use crate::pass::hoist::PREPARE;
use crate::pass::rematerialize::{self, Rematerialize};
use crate::pass::specialize::Mode;
use crate::pass::{Pass, Remarks};
use crate::pipeline::{Pipeline, Step};
use crate::placement::Placement;
use crate::schedule::Schedule;
use crate::tuning::Tuning;

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
    /// Measured choices that replace those of the cost model.
    pub tuning: Tuning,
    /// Texts to keep.
    pub texts: Texts,
}

/// What a kernel may do to be faster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Sums of products in f32, in the order that the tiles fix.
    Strict,
    /// Also algorithms with a bounded error: Winograd convolutions, whose largest error is below 5e-6 of the largest
    /// output for up to 512 channels of random data (the direct sum's is below 1.5e-6), below 1e-5 for the gradient by the
    /// weights of 5 x 5 taps, below half of these along one dimension.
    #[default]
    Default,
    /// Also products in bf16, where a kernel has them (AVX512_BF16): operands in f32 are rounded to 8 significant bits, sums
    /// are taken in f32.
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
            tuning: Tuning::default(),
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
    let kernels =
        Kernels::for_level(options.level).map(|kernels| MicroKernels::new(kernels, options.precision, &options.tuning));
    let lasting = if options.hoist { Lasting::of(module) } else { Lasting::nothing() };
    if options.hoist && module.graph(PREPARE).is_none() {
        module.add_graph(Graph::new(PREPARE));
    }
    let Module { graphs: sources, states, .. } = module;
    let mut drafts: Vec<Draft<'_>> =
        sources.values().map(|graph| draft(graph, kernels.as_ref(), &lasting, options)).collect::<Result<_, _>>()?;
    let packs = packing::distinct(drafts.iter().flat_map(|draft| draft.packed.iter().flatten()));
    states.extend(packs.iter().map(|packed| (packed.name.clone(), packed.state())));
    drafts.iter_mut().filter(|draft| draft.graph.name() == PREPARE).for_each(|draft| draft.packs = packs.clone());
    drafts.retain(|draft| draft.graph.name() != PREPARE || draft.nests().next().is_some());
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

/// Hash of what decides the bits: the loops of kernels, and which micro-kernels add in which order of sums. How those are
/// cut is no part of it, nor is what follows from the memory that the cuts need: the order of the kernels, and whether
/// rows are moved. So a training may go on from a checkpoint after its kernels were tuned.
fn fingerprint(draft: &Draft<'_>, options: &Options) -> u64 {
    let mut kernels: Vec<u64> = draft.lowered.iter().filter(|lowered| lowered.flops > 0).map(bits_of).collect();
    kernels.sort_unstable();
    let mut hasher = DefaultHasher::new();
    (options.level.name(), options.precision, kernels).hash(&mut hasher);
    hasher.finish()
}

fn bits_of(lowered: &Lowered) -> u64 {
    let mut hasher = DefaultHasher::new();
    match (&lowered.window, lowered.contractions.as_slice()) {
        (Some(plan), _) => (plan.kernel(), plan.spec()).hash(&mut hasher),
        (None, []) => lowered.launches.iter().for_each(|(nest, _)| nest.hash(&mut hasher)),
        (None, plans) => plans.iter().for_each(|plan| (plan.order(), plan.multiply_adds()).hash(&mut hasher)),
    }
    hasher.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

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
}
