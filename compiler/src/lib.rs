//! The decisions of Kiln: passes, autodiff, memory plan, loops and code.
//!
//! [`compile()`] makes a module executable, [`train()`] trains one as its recipe says. Here is one small model at every
//! stage on the way; each stage is one function and prints, here and with `kiln opt --emit`.
//!
//! # Script to module
//!
//! [`kiln_ir::script::load`] expands layers and blocks into states and ops, and binds names of dimensions. The printed
//! text is the whole module.
//!
//! ```
//! let script = "
//! model @m(%x: f32[batch, 3]) {
//!   %h = dense %x {units = 4, activation = relu}
//!   predict softmax %h
//! }";
//! let module = kiln_ir::script::load("m.kiln", script, &[("batch".into(), 2)].into()).unwrap();
//! assert_eq!(
//!     kiln_ir::text::print(&module, &Default::default()),
//!     "\
//! state @dense1.weight: f32[3, 4] = param glorot
//! state @dense1.bias: f32[4] = param constant {value = 0.0}
//!
//! graph @predict(%x: f32[2, 3]) {
//!   %dense1.weight: f32[3, 4] = state @dense1.weight
//!   %dense1.dot: f32[2, 4] = dot %x, %dense1.weight {a_contract = [1], b_contract = [0], a_batch = [], b_batch = []}
//!   %dense1.bias: f32[4] = state @dense1.bias
//!   %dense1.bias.wide: f32[2, 4] = broadcast %dense1.bias {dims = [1]}
//!   %dense1.add: f32[2, 4] = add %dense1.dot, %dense1.bias.wide
//!   %h: f32[2, 4] = relu %dense1.add
//!   %y: f32[2, 4] = softmax %h {dim = 1}
//!   return %y
//! }
//! "
//! );
//! ```
//!
//! # Passes
//!
//! [`pipeline::Pipeline::standard`] is what [`compile()`] runs. `decompose` writes out what softmax is, `fuse` forms the
//! kernels: here two, a contraction with its epilogue, and a program of rows.
//!
//! ```
//! # let script = "model @m(%x: f32[batch, 3]) { %h = dense %x {units = 4, activation = relu} predict softmax %h }";
//! # let module = kiln_ir::script::load("m.kiln", script, &[("batch".into(), 2)].into()).unwrap();
//! # let mut module = module;
//! let pipeline = kiln::pipeline::Pipeline::standard(None);
//! let mut remarks = kiln::pass::Remarks::default();
//! pipeline.run(&mut module, &mut remarks, true, &mut |_| {}).unwrap();
//! assert_eq!(
//!     kiln_ir::text::print_graph(module.graph("predict").unwrap(), &Default::default()),
//!     "\
//! graph @predict(%x: f32[2, 3]) {
//!   %dense1.weight: f32[3, 4] = state @dense1.weight
//!   %dense1.bias: f32[4] = state @dense1.bias
//!   %h: f32[2, 4] = fused %x, %dense1.weight, %dense1.bias {kind = \"contraction\"} { \
//! (%x: f32[2, 3], %dense1.weight: f32[3, 4], %dense1.bias: f32[4]) ->
//!     %dense1.dot: f32[2, 4] = dot %x, %dense1.weight {a_contract = [1], b_contract = [0], a_batch = [], b_batch = []}
//!     %dense1.bias.wide: f32[2, 4] = broadcast %dense1.bias {dims = [1]}
//!     %dense1.add: f32[2, 4] = add %dense1.dot, %dense1.bias.wide
//!     %h: f32[2, 4] = relu %dense1.add
//!     yield %h
//!   }
//!   %y: f32[2, 4] = fused %h {kind = \"map\"} { (%h: f32[2, 4]) ->
//!     %y.reduce_max: f32[2] = reduce_max %h {dims = [1]}
//!     %y.broadcast: f32[2, 4] = broadcast %y.reduce_max {dims = [0]}
//!     %y.sub: f32[2, 4] = sub %h, %y.broadcast
//!     %y.exp: f32[2, 4] = exp %y.sub
//!     %y.reduce_sum: f32[2] = reduce_sum %y.exp {dims = [1]}
//!     %y.broadcast.1: f32[2, 4] = broadcast %y.reduce_sum {dims = [0]}
//!     %y: f32[2, 4] = div %y.exp, %y.broadcast.1
//!     yield %y
//!   }
//!   return %y
//! }
//! "
//! );
//! let verdicts: Vec<String> = remarks.list().iter().map(ToString::to_string).collect();
//! assert!(verdicts.contains(
//!     &"fuse: @predict %y.reduce_max [epilogue] with %h: the kernels have no such epilogue".to_owned()
//! ));
//! ```
//!
//! # Schedule
//!
//! [`schedule::schedule()`] lists the kernels in order; [`lower::lower()`] and [`placement::place()`] do the next two stages.
//!
//! ```
//! # let script = "model @m(%x: f32[batch, 3]) { %h = dense %x {units = 4, activation = relu} predict softmax %h }";
//! # let module = kiln_ir::script::load("m.kiln", script, &[("batch".into(), 2)].into()).unwrap();
//! # let options = kiln::Options { level: kiln_rt::kernels::Level::None, ..kiln::Options::default() };
//! # let program = kiln::compile(&module, &options).unwrap();
//! # let predict = &program.graphs["predict"];
//! assert_eq!(
//!     predict.schedule.to_string(),
//!     "\
//! schedule @predict {
//!   0: %h: f32[2, 4] = fused(dot broadcast add relu) %x, %dense1.weight, %dense1.bias
//!   1: %y: f32[2, 4] = fused(reduce_max broadcast sub exp reduce_sum broadcast div) %h
//! }
//! "
//! );
//! ```
//!
//! # Loops
//!
//! A contraction is a call of a micro-kernel per tile where the machine has one; without, as here, it has loops like
//! everything else. `%y.exp` is a row of scratch and never leaves the kernel.
//!
//! ```
//! # let script = "model @m(%x: f32[batch, 3]) { %h = dense %x {units = 4, activation = relu} predict softmax %h }";
//! # let module = kiln_ir::script::load("m.kiln", script, &[("batch".into(), 2)].into()).unwrap();
//! # let options = kiln::Options { level: kiln_rt::kernels::Level::None, ..kiln::Options::default() };
//! # let program = kiln::compile(&module, &options).unwrap();
//! # let predict = &program.graphs["predict"];
//! let (nest, _) = &predict.lowered[1].launches[0];
//! assert_eq!(
//!     nest.to_string(),
//!     "\
//! nest y tiles 1 {
//!   read h: f32[8]
//!   write y: f32[8]
//!   scratch y.exp: f32[4]
//!   for row in tile*2..2 {
//!     vector for r in 0..4 with y.reduce_max: f32 = -inf by max {
//!       set y.reduce_max = max(y.reduce_max, h[row*4 + r])
//!     }
//!     vector for r2 in 0..4 with y.reduce_sum: f32 = 0.0 by add {
//!       let y.exp: f32 = exp(sub(h[row*4 + r2], y.reduce_max))
//!       y.exp[r2] = y.exp
//!       set y.reduce_sum = add(y.reduce_sum, y.exp)
//!     }
//!     vector for r3 in 0..4 {
//!       y[row*4 + r3] = div(y.exp[r3], y.reduce_sum)
//!     }
//!   }
//! }
//! "
//! );
//! ```
//!
//! # Memory
//!
//! Inputs, outputs and states have memory of their own; all else lies in one arena, planned by [`memory`] and checked by
//! code that shares nothing with the solver.
//!
//! ```
//! # let script = "model @m(%x: f32[batch, 3]) { %h = dense %x {units = 4, activation = relu} predict softmax %h }";
//! # let module = kiln_ir::script::load("m.kiln", script, &[("batch".into(), 2)].into()).unwrap();
//! # let options = kiln::Options { level: kiln_rt::kernels::Level::None, ..kiln::Options::default() };
//! # let program = kiln::compile(&module, &options).unwrap();
//! # let predict = &program.graphs["predict"];
//! let plan = &predict.placement.plan;
//! assert_eq!((plan.lower_bound, plan.peak), (64, 64));
//! assert_eq!(
//!     kiln::memory::csv::write_plan(&predict.placement.problem, plan),
//!     "id,lower,upper,size,offset,alias_of\nh,0,2,64,0,\n"
//! );
//! ```
//!
//! # Code, and a run
//!
//! [`codegen`] makes machine code of the nests, and the table of a kernel names its memory: `h` reads an input and two
//! states and writes to the arena. A [`kiln_rt::Session`] owns states, arena and threads.
//!
//! ```
//! # let script = "model @m(%x: f32[batch, 3]) { %h = dense %x {units = 4, activation = relu} predict softmax %h }";
//! # let module = kiln_ir::script::load("m.kiln", script, &[("batch".into(), 2)].into()).unwrap();
//! # let options = kiln::Options { level: kiln_rt::kernels::Level::None, ..kiln::Options::default() };
//! # let program = kiln::compile(&module, &options).unwrap();
//! # let predict = &program.graphs["predict"];
//! use kiln_rt::{Session, Slot, Tensor};
//!
//! let executable = &predict.executable;
//! assert_eq!(executable.launches[0].slots, [Slot::Input(0), Slot::State(0), Slot::State(1), Slot::Arena(0)]);
//!
//! let mut session = Session::new(2)?;
//! session.initialize(&program.module, 0)?;
//! session.set_state("dense1.weight", &Tensor::from_vec([3, 4], vec![1.0_f32; 12])?)?;
//! let id = session.load(executable.clone())?;
//! let mut outputs = session.outputs(id)?;
//! session.run(id, &[&Tensor::from_vec([2, 3], vec![1.0_f32, 2.0, 3.0, 0.0, 0.0, 0.0])?], &mut outputs)?;
//! assert_eq!(outputs[0].as_slice::<f32>()?, [0.25; 8]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to go on
//!
//! A pass is a [`pass::Pass`] or a [`rewrite::Rewrite`]; [`testing`] pins down what it does. README.md has the map of the
//! code and how to add things, `ir-spec/SPEC.md` the language.

mod arrange;
pub mod autodiff;
pub mod codegen;
pub mod compile;
pub mod explain;
pub mod loops;
pub mod lower;
pub mod memory;
pub mod packing;
pub mod pass;
pub mod pipeline;
pub mod placement;
pub mod rewrite;
pub mod roofline;
pub mod schedule;
pub mod testing;
pub mod training;
pub mod tuning;

pub use compile::{CompileError, Compiled, Options, Precision, Program, compile};
pub use training::{Trained, TrainingError, train};
