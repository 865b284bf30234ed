//! Minimal filtering in a training: which kernels it takes, on any number of threads, beside sums of products.

use std::sync::Arc;

use kiln::compile::Precision;
use kiln::{Options, Program, compile};
use kiln_ir::{Bindings, Module, script};
use kiln_rt::Session;
use kiln_rt::init::random_input;

/// Planes whose sizes no tile divides: 17, 13 and 11.
const SCRIPT: &str = "
    model @taps(%x: f32[batch, 16, 17, 17], %label: i64[batch] below 10) {
      %h = conv %x {filters = 32, kernel = 5, padding = same, activation = relu}
      %h = conv %h {filters = 48, kernel = 5, activation = relu}
      %h = conv %h {filters = 64, kernel = 3, activation = relu}
      %h = flatten %h
      %logits = dense %h {units = 10}
      predict %logits
      loss cross_entropy %logits, %label
    }
    train {data = \"none.npz\", batch = 12, epochs = 1, optimizer = momentum {rate = 0.01, momentum = 0.9}}
";

fn step() -> Module {
    let bindings = Bindings::from([("batch".into(), 12)]);
    let module = script::load("winograd.kiln", SCRIPT, &bindings).unwrap();
    let mut module = module.bind(&bindings).unwrap();
    module.keep_graphs(&["step0".into()]);
    module
}

fn compiled(module: &Module, precision: Precision) -> Program {
    compile(module, &Options { precision, ..Options::default().for_training() }).unwrap()
}

fn kernels(program: &Program) -> Vec<&str> {
    let lowered = program.graphs.values().flat_map(|compiled| &compiled.lowered);
    lowered.flat_map(|lowered| &lowered.contractions).map(|plan| plan.name()).collect()
}

/// Bits of the losses and of all states after three steps.
fn train(program: &Program, threads: usize) -> Vec<f32> {
    let mut session = Session::new(threads).unwrap();
    session.initialize(&program.module, 7).unwrap();
    let executable = &program.graphs["step0"].executable;
    let inputs: Vec<_> = executable.inputs.iter().map(|input| random_input(input, 3).unwrap()).collect();
    let id = session.load(Arc::clone(executable)).unwrap();
    let mut numbers = Vec::new();
    let mut keep =
        |bytes: &[u8]| numbers.extend(bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])));
    for _ in 0..3 {
        let mut outputs = session.outputs(id).unwrap();
        session.run(id, &inputs.iter().collect::<Vec<_>>(), &mut outputs).unwrap();
        keep(outputs[0].bytes());
    }
    for (_, state) in session.states().iter().filter(|(_, state)| state.dtype() == kiln_ir::DType::F32) {
        keep(state.bytes());
    }
    numbers
}

#[test]
fn each_algorithm_runs_forwards_and_backwards() {
    let module = step();
    let program = compiled(&module, Precision::Default);
    let found = kernels(&program);
    for taps in [3, 5] {
        let of = |grad: bool| {
            let named =
                found.iter().filter(|name| name.starts_with("winograd-") && name.contains(&format!("x{taps}-")));
            named.filter(|name| name.contains("-grad-") == grad).count()
        };
        assert!(of(false) >= 2 && of(true) >= 1, "{taps} x {taps}: {found:?}");
    }
    let strict = compiled(&module, Precision::Strict);
    assert!(kernels(&strict).iter().all(|name| !name.starts_with("winograd")));
}

#[test]
fn threads_change_no_bit_and_sums_of_products_are_near() {
    let module = step();
    let program = compiled(&module, Precision::Default);
    let bits = |threads: usize| train(&program, threads).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let one = bits(1);
    for threads in 2..=4 {
        assert_eq!(one, bits(threads), "{threads} threads");
    }
    let (found, sums) = (train(&program, 2), train(&compiled(&module, Precision::Strict), 2));
    assert_eq!(found.len(), sums.len());
    for (a, b) in found.iter().zip(&sums) {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} and {b}");
    }
}
