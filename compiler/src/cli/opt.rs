//! `kiln opt`: what the compiler makes of a model, at every level.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use kiln::codegen::Texts;
use kiln::pass::specialize::Mode;
use kiln::pass::{Changed, Remarks};
use kiln::pipeline::{Pipeline, Step};
use kiln::{CompileError, Compiled, Options, Program, explain, memory};
use kiln_ir::graph::{Def, Graph};
use kiln_ir::text::{PrintOptions, print as print_module};
use kiln_ir::{Module, Name};

use super::failure::Failure;
use super::load::{Script, bindings, parse_binding};
use super::machine;
use super::output;
use super::precision::Numerics;

/// Runs the passes and shows the result at any level.
#[derive(Debug, Args)]
pub(crate) struct Opt {
    /// Script, or `-` for stdin.
    model: String,
    /// Compiles for inference (no step graphs) or training (only step graphs, if there are any); else for both.
    #[arg(long, value_enum)]
    pipeline: Option<PipelineKind>,
    /// Runs these passes instead, in this order.
    #[arg(long, value_name = "A,B,C")]
    passes: Option<String>,
    /// Prints the module after each pass, and on stderr the pass, whether it changed anything, and its time.
    #[arg(long)]
    after_each: bool,
    /// What to print.
    #[arg(long, value_enum, value_name = "WHAT", default_value = "module")]
    emit: Emit,
    /// Shows where each op comes from.
    #[arg(long)]
    provenance: bool,
    /// Only this graph.
    #[arg(long, value_name = "@NAME")]
    graph: Option<String>,
    /// Writes to a file.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Binds a dimension's name.
    #[arg(long, value_name = "NAME=N", value_parser = parse_binding)]
    bind: Vec<(Name, usize)>,
    #[command(flatten)]
    numerics: Numerics,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PipelineKind {
    Inference,
    Training,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// The module after all passes.
    Module,
    /// Order of the kernels.
    Schedule,
    /// Certificate and chart of the memory plan.
    Memory,
    /// The memory plan as `id,lower,upper,size,offset,alias_of`.
    #[value(name = "memory.csv")]
    MemoryCsv,
    /// The memory plan as a drawing: time across, offset up, a box per buffer, the peak marked.
    #[value(name = "memory.svg")]
    MemorySvg,
    /// Kernels as loops.
    Loops,
    /// Cranelift's intermediate form.
    Clif,
    /// Disassembly.
    Asm,
    /// Graphs for Graphviz.
    Dot,
}

impl Opt {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let script = Script::open(&self.model)?;
        let all = script.outline()?.complete(&bindings(&self.bind))?;
        let mut module = script.module(&all)?;
        self.select(&mut module)?;
        let text = match self.emit {
            Emit::Module | Emit::Dot => self.passes_only(&script, module)?,
            _ => self.compiled(&script, &module)?,
        };
        output::write(self.output.as_deref(), &text)
    }

    /// Leaves the graphs that were asked for.
    fn select(&self, module: &mut Module) -> Result<(), Failure> {
        let trains = |graph: &Graph| kiln::pass::specialize::mode_of(graph) == Mode::Training;
        if module.graphs.values().any(trains) {
            match self.pipeline {
                Some(PipelineKind::Inference) => module.graphs.retain(|_, graph| !trains(graph)),
                Some(PipelineKind::Training) => module.graphs.retain(|_, graph| trains(graph)),
                None => {}
            }
        }
        let Some(wanted) = &self.graph else { return Ok(()) };
        let wanted = wanted.strip_prefix('@').unwrap_or(wanted);
        let names: Vec<String> = module.graphs.keys().map(|name| format!("@{name}")).collect();
        module.graphs.retain(|name, _| &**name == wanted);
        match module.graphs.is_empty() {
            true => Err(Failure::Usage(format!("there is no graph `@{wanted}`; there are: {}", names.join(", ")))),
            false => Ok(()),
        }
    }

    fn mode(&self) -> Option<Mode> {
        self.pipeline.map(|kind| match kind {
            PipelineKind::Inference => Mode::Inference,
            PipelineKind::Training => Mode::Training,
        })
    }

    /// Runs the passes and nothing after them.
    fn passes_only(&self, script: &Script, mut module: Module) -> Result<String, Failure> {
        let options = Options { mode: self.mode(), ..self.numerics.untuned() };
        let pipeline = match &self.passes {
            Some(passes) => Pipeline::parse(passes, &options).map_err(Failure::Usage)?,
            None => Pipeline::standard(options.mode),
        };
        let pipeline = kiln::compile::budgeted(pipeline, &options);
        let mut text = String::new();
        let mut observe = |step: &Step<'_>| self.observe(step, &mut text);
        let done = pipeline.run(&mut module, &mut Remarks::default(), true, &mut observe);
        done.map_err(|found| script.compile_failure(CompileError::Program(found)))?;
        if self.emit == Emit::Dot {
            text.extend(module.graphs.values().map(dot));
        } else if !self.after_each {
            text = print_module(&module, &self.print_options());
        }
        Ok(text)
    }

    fn observe(&self, step: &Step<'_>, text: &mut String) {
        if self.after_each {
            let changed = if step.changed == Changed::Yes { "changed" } else { "unchanged" };
            eprintln!("{:<18} {changed:<9} {:>9.3} ms", step.pass, step.time.as_secs_f64() * 1e3);
            text.push_str(&format!("# after {}\n{}\n", step.pass, print_module(step.module, &self.print_options())));
        }
    }

    fn print_options(&self) -> PrintOptions {
        PrintOptions { provenance: self.provenance }
    }

    /// Compiles to machine code and shows a stage after the passes.
    fn compiled(&self, script: &Script, module: &Module) -> Result<String, Failure> {
        let texts = Texts { clif: self.emit == Emit::Clif, asm: self.emit == Emit::Asm };
        let options = self.numerics.options(machine::threads(None));
        let options = Options { mode: self.mode(), passes: self.passes.clone(), texts, ..options };
        let mut text = String::new();
        let start = Instant::now();
        let compiled = kiln::compile::compile_observed(module, &options, &mut |step| self.observe(step, &mut text));
        let elapsed = start.elapsed();
        let program = compiled.map_err(|error| match error {
            // A pipeline of one's own need not end in something that has loops.
            CompileError::Defect(message) if self.passes.is_some() => Failure::Input(format!(
                "the passes given leave nothing that can be compiled: {message}; end them with `decompose,fuse`"
            )),
            error => script.compile_failure(error),
        })?;
        if self.emit == Emit::Memory {
            note_planning(&program, elapsed);
        }
        for (name, compiled) in self.shown(&program) {
            self.stage(&mut text, name, compiled);
        }
        if self.emit == Emit::Clif || self.emit == Emit::Asm {
            code(&mut text, &program, self.emit);
        }
        Ok(text)
    }

    /// The graphs to show: a table for other programs, or a drawing, is of one graph, the one that decides the size of
    /// the arena.
    fn shown<'a>(&self, program: &'a Program) -> Vec<(&'a Name, &'a Compiled)> {
        let all = program.graphs.iter();
        if !matches!(self.emit, Emit::MemoryCsv | Emit::MemorySvg) {
            return all.collect();
        }
        // Of equals the first.
        let largest = all.rev().max_by_key(|(_, compiled)| compiled.executable.arena_bytes);
        if let Some((name, _)) = largest.filter(|_| program.graphs.len() > 1) {
            eprintln!("note: the plan of @{name}, the largest; choose another with --graph");
        }
        largest.into_iter().collect()
    }

    fn stage(&self, text: &mut String, name: &Name, compiled: &Compiled) {
        let placement = &compiled.placement;
        // Writing to a String cannot fail; the same holds for every `let _` below.
        let _ = match self.emit {
            Emit::Schedule => write!(text, "{}", compiled.schedule),
            Emit::Memory => {
                write!(text, "memory of @{name}\n{}\n", explain::memory(placement))
            }
            Emit::MemoryCsv => {
                text.push_str(&memory::csv::write_plan(&placement.problem, &placement.plan));
                Ok(())
            }
            Emit::MemorySvg => {
                text.push_str(&memory::chart::svg(&placement.problem, &placement.plan));
                Ok(())
            }
            Emit::Loops => {
                let nests = compiled.lowered.iter().flat_map(|kernel| &kernel.launches);
                let _ = writeln!(text, "# @{name}");
                nests.into_iter().try_for_each(|(nest, _)| writeln!(text, "{nest}"))
            }
            _ => Ok(()),
        };
    }
}

/// How much of the compilation went into the memory plans: on stderr, for it is another time in every run.
fn note_planning(program: &Program, compilation: Duration) {
    let planning: Duration = program.graphs.values().map(|compiled| compiled.planning).sum();
    let share = 100.0 * planning.as_secs_f64() / compilation.as_secs_f64().max(f64::MIN_POSITIVE);
    let milliseconds = |time: Duration| 1e3 * time.as_secs_f64();
    eprintln!(
        "note: the plans took {:.3} of {:.1} ms of compilation, {share:.2} %",
        milliseconds(planning),
        milliseconds(compilation)
    );
}

/// Code of the distinct kernels.
fn code(text: &mut String, program: &Program, emit: Emit) {
    let Some(compiled) = program.graphs.values().next() else { return };
    for kernel in compiled.code.kernels() {
        let body = if emit == Emit::Clif { &kernel.clif } else { &kernel.asm };
        let body = body.as_deref().unwrap_or("not available on this target");
        let _ = writeln!(text, "; kernel {}, {} bytes\n{}\n", kernel.name, kernel.code.len(), body.trim_end());
    }
}

/// A graph for Graphviz: a box per op, an edge per use.
fn dot(graph: &Graph) -> String {
    let mut text = format!("digraph {} {{\n  node [shape=box, fontname=monospace];\n", quoted(graph.name()));
    let id = |value| match graph.value(value).def {
        Def::Param(number) => format!("in{number}"),
        Def::Result(node, _) => format!("n{}", node.index()),
    };
    for (number, param) in graph.params().iter().enumerate() {
        let label = format!("%{}: {}", graph.value_name(param.value), graph.ty(param.value));
        let _ = writeln!(text, "  in{number} [shape=ellipse, label={}];", quoted(&label));
    }
    for (node, data) in graph.nodes() {
        let results: Vec<String> =
            data.results.iter().map(|&v| format!("%{}: {}", graph.value_name(v), graph.ty(v))).collect();
        let members = data.regions.iter().flat_map(Graph::nodes).map(|(_, member)| member.op.mnemonic());
        let members = members.collect::<Vec<_>>().join(" ");
        let what = if members.is_empty() { String::new() } else { format!("({members})") };
        let label = format!("{}{what}\\n{}", data.op.mnemonic(), results.join("\\n"));
        let _ = writeln!(text, "  n{} [label={}];", node.index(), quoted(&label));
        for &operand in &data.operands {
            let name = quoted(&format!("%{}", graph.value_name(operand)));
            let _ = writeln!(text, "  {} -> n{} [label={name}];", id(operand), node.index());
        }
    }
    for (number, &value) in graph.returns().iter().enumerate() {
        let label = quoted(&format!("return %{}", graph.value_name(value)));
        let _ = writeln!(text, "  out{number} [shape=ellipse, label={label}];\n  {} -> out{number};", id(value));
    }
    for update in graph.updates() {
        let state = quoted(&format!("@{}", update.state));
        let _ = writeln!(text, "  {state} [shape=cylinder];\n  {} -> {state};", id(update.value));
    }
    text.push_str("}\n");
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\\\""))
}
