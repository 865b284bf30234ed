//! Memory of whole programs: a budget costs time and changes no bit, and what does not fit is refused with reasons.

use std::sync::Arc;

use kiln::{CompileError, Options, compile};
use kiln_ir::types::Bindings;
use kiln_ir::{Module, script, text};
use kiln_rt::Tensor;
use kiln_rt::init::random_input;
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
