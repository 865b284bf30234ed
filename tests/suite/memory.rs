//! Memory of whole programs: a budget costs time and changes no bit, and what does not fit is refused with reasons.

use std::sync::Arc;

use kiln::{CompileError, Options, compile};
use kiln_ir::types::Bindings;
use kiln_ir::{Module, script, text};
use kiln_rt::Tensor;
use kiln_rt::init::random_input;
use kiln_rt::kernels::Level;
use kiln_rt::session::Session;
use kiln_tests::fixtures::read;

/// The step graph of a script for a batch, with another optimizer.
fn step(path: &str, batch: usize, optimizer: Option<&str>) -> Module {
    let mut source = read(path);
    if let Some(optimizer) = optimizer {
        let start = source.find("optimizer = ").unwrap() + "optimizer = ".len();
        source.replace_range(start.., &format!("{optimizer}}}\n"));
    }
    let bindings = Bindings::from([("batch".into(), batch)]);
    let module = script::load(path, &source, &bindings).unwrap_or_else(|found| panic!("{path}: {found:?}"));
    let mut module = module.bind(&bindings).unwrap();
    module.graphs.retain(|name, _| &**name == "step0");
    module
}

/// Arena of the step, and all states and losses after some steps on a random batch.
fn train(module: &Module, memory_budget: Option<u64>, steps: usize) -> (u64, Vec<Vec<u8>>) {
    let options = Options { memory_budget, ..Options::default() }.for_training();
    let program = compile(module, &options).unwrap_or_else(|error| panic!("{error}"));
    let printed = text::print(&program.module, &Default::default());
    assert_eq!(text::parse_module("printed", &printed).unwrap(), program.module);
    let executable = &program.graphs["step0"].executable;
    let mut session = Session::new(2).unwrap();
    session.initialize(module, 7).unwrap();
    let id = session.load(Arc::clone(executable)).unwrap();
    let inputs: Vec<Tensor> = executable.inputs.iter().map(|input| random_input(input, 3).unwrap()).collect();
    let refs: Vec<&Tensor> = inputs.iter().collect();
    let mut outputs = session.outputs(id).unwrap();
    let mut bits = Vec::new();
    for _ in 0..steps {
        session.run(id, &refs, &mut outputs).unwrap();
        bits.push(outputs[0].bytes().to_vec());
    }
    bits.extend(session.states().iter().map(|(_, state)| state.bytes().to_vec()));
    (executable.arena_bytes as u64, bits)
}

/// ResNet-18 for 32 x 32 images: half of the memory, the same bits. No clipping over all gradients, which would keep
/// them all until the last one is there.
#[test]
fn resnet18_trains_to_the_same_bits_in_half_of_its_memory() {
    let module = step("examples/models/resnet18_cifar.kiln", 16, Some("adamw {rate = 0.001}"));
    let (unlimited, bits) = train(&module, None, 2);
    let budget = unlimited / 2 - 1;
    let (arena, again) = train(&module, Some(budget), 2);
    assert!(arena <= budget, "{arena} of {unlimited} bytes");
    assert!(bits == again, "a second run made other bits");
}

#[test]
fn a_budget_changes_no_bit_of_the_examples() {
    for (path, share) in [("examples/resnet_block.kiln", 70), ("examples/digits_cnn.kiln", 90)] {
        let module = step(path, 8, None);
        let (unlimited, bits) = train(&module, None, 3);
        let budget = unlimited * share / 100;
        let (arena, again) = train(&module, Some(budget), 3);
        assert!(arena <= budget && bits == again, "{path}: {arena} of {unlimited} bytes");
    }
}

#[test]
fn an_impossible_budget_is_refused_with_who_holds_the_peak() {
    let module = step("examples/digits_cnn.kiln", 8, None);
    let options = Options { memory_budget: Some(4096), ..Options::default() }.for_training();
    let CompileError::Program(found) = compile(&module, &options).unwrap_err() else {
        panic!("a budget is no defect");
    };
    assert_eq!(&*found[0].label, "memory.B1");
    let rendered = found[0].render(&|_| None);
    assert!(rendered.contains("the budget is 4096") && rendered.contains("held at step"), "{rendered}");
}

/// A graph in text, compiled without micro-kernels, whose scratch memory would count: kernels and bytes of the arena.
fn kernels_and_arena(text: &str) -> (usize, u64) {
    let module = text::parse_module("graph.kiln", text).unwrap_or_else(|found| panic!("{found:?}"));
    let options = Options { level: Level::None, ..Options::default() };
    let program = compile(&module, &options).unwrap_or_else(|error| panic!("{error}"));
    let compiled = &program.graphs["f"];
    (compiled.schedule.kernels.len(), compiled.placement.plan.peak)
}

/// Two products of 1 KiB that are concatenated, and read as one: 2 KiB and three kernels, where a copy would take 4 KiB.
#[test]
fn what_is_concatenated_is_computed_in_its_place() {
    let text = "graph @f(%x: f32[16, 8], %u: f32[8, 16], %v: f32[8, 16]) {\n  \
                %a: f32[16, 16] = dot %x, %u {a_contract = [1], b_contract = [0]}\n  \
                %b: f32[16, 16] = dot %x, %v {a_contract = [1], b_contract = [0]}\n  \
                %c: f32[32, 16] = concat %a, %b {dim = 0}\n  \
                %y: f32[16, 16] = dot %c, %c {a_contract = [0], b_contract = [0]}\n  return %y\n}\n";
    assert_eq!(kernels_and_arena(text), (3, 2048));
    // Rows of the second dimension do not lie together, rows of 60 bytes are not aligned, and what is returned is the
    // caller's.
    let columns = text.replace("f32[32, 16] = concat %a, %b {dim = 0}", "f32[16, 32] = concat %a, %b {dim = 1}");
    let columns = columns.replace("f32[16, 16] = dot %c, %c", "f32[32, 32] = dot %c, %c");
    assert_eq!(kernels_and_arena(&columns), (4, 4096));
    assert_eq!(kernels_and_arena(&text.replace("return %y", "return %y, %c")).0, 4);
    let narrow = text.replace("f32[16, 8]", "f32[3, 8]").replace("f32[16, 16] = dot %x", "f32[3, 16] = dot %x");
    assert_eq!(kernels_and_arena(&narrow.replace("f32[32, 16]", "f32[6, 16]")).0, 3);
    let narrow = narrow.replace("8, 16]", "8, 5]").replace("f32[3, 16]", "f32[3, 5]");
    let narrow = narrow.replace("f32[32, 16]", "f32[6, 5]").replace("f32[16, 16] = dot %c", "f32[5, 5] = dot %c");
    assert_eq!(kernels_and_arena(&narrow).0, 4);
}

/// The last half of a product of 2 KiB, read twice as it lies: 2 KiB and three kernels, where a copy would take 3 KiB. A
/// single reader that is a product finds its rows itself, whatever their step.
#[test]
fn a_slice_of_rows_is_a_view() {
    let text = "graph @f(%x: f32[32, 8], %u: f32[8, 16], %v: f32[16, 4]) {\n  \
                %a: f32[32, 16] = dot %x, %u {a_contract = [1], b_contract = [0]}\n  \
                %s: f32[16, 16] = slice %a {start = [16, 0], stop = [32, 16], step = [1, 1]}\n  \
                %y: f32[16, 4] = dot %s, %v {a_contract = [1], b_contract = [0]}\n  \
                %z: f32[16, 4] = dot %s, %v {a_contract = [0], b_contract = [0]}\n  return %y, %z\n}\n";
    let every_second =
        |text: &str| text.replace("[16, 0], stop = [32, 16], step = [1, 1]", "[0, 0], stop = [32, 16], step = [2, 1]");
    assert_eq!(kernels_and_arena(text), (3, 2048));
    assert_eq!(kernels_and_arena(&every_second(text)), (4, 3072));
    let once = text.replace("return %y, %z", "return %y");
    assert_eq!(kernels_and_arena(&once), (2, 2048));
    assert_eq!(kernels_and_arena(&every_second(&once)), (2, 2048));
}

/// A join holds the bytes of all of its parts from the first one on. Where that is worse, rows are moved as before: `a`
/// waits while `p` of 16 KiB becomes `q` of 1 KiB, beside which there is no room for the 4 KiB of `b`, made of `q`.
#[test]
fn rows_are_moved_where_that_takes_less_memory() {
    let text = "graph @f(%x: f32[1, 16], %u: f32[16, 16], %w: f32[16, 4096], %k: f32[256, 16], %m: f32[64, 16]) {\n  \
                %a: f32[1, 16] = dot %x, %u {a_contract = [1], b_contract = [0]}\n  \
                %p: f32[1, 4096] = dot %a, %w {a_contract = [1], b_contract = [0]}\n  \
                %r: f32[16, 256] = reshape %p\n  \
                %q: f32[16, 16] = dot %r, %k {a_contract = [1], b_contract = [0]}\n  \
                %b: f32[64, 16] = dot %m, %q {a_contract = [1], b_contract = [0]}\n  \
                %c: f32[65, 16] = concat %a, %b {dim = 0}\n  \
                %y: f32[16, 16] = dot %c, %c {a_contract = [0], b_contract = [0]}\n  return %y\n}\n";
    assert_eq!(kernels_and_arena(text), (6, 64 + (16 << 10) + (1 << 10)));
}
