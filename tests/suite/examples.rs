//! The shipped scripts as programs: what is printed is the whole program, and threads do not change a bit.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln::Options;
use kiln_ir::types::Bindings;
use kiln_ir::{Module, script, text};
use kiln_rt::Tensor;
use kiln_rt::init::random_input;
use kiln_rt::session::Session;

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut scripts: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "kiln")).collect();
    scripts.sort();
    assert!(scripts.len() >= 5, "the examples are gone");
    scripts
}

/// The step graphs of a script, bound to a small batch.
fn steps(path: &Path) -> Module {
    let source = std::fs::read_to_string(path).unwrap();
    let bindings = Bindings::from([("batch".into(), 4)]);
    let module = script::load(&path.display().to_string(), &source, &bindings).unwrap();
    let mut module = module.bind(&bindings).unwrap();
    module.graphs.retain(|name, _| name.starts_with("step"));
    module
}

/// States after three batches of all steps on the same random examples, and the losses and metrics.
fn train(module: &Module, options: &Options, threads: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let program = kiln::compile(module, options).unwrap();
    let mut session = Session::new(threads).unwrap();
    session.initialize(module, 7).unwrap();
    let programs = program.graphs.values().map(|compiled| {
        let inputs = compiled.executable.inputs.iter().map(|input| random_input(input, 3).unwrap());
        (session.load(Arc::clone(&compiled.executable)).unwrap(), inputs.collect::<Vec<Tensor>>())
    });
    let programs: Vec<_> = programs.collect();
    let mut losses = Vec::new();
    for (id, inputs) in programs.iter().cycle().take(3 * programs.len()) {
        let mut outputs = session.outputs(*id).unwrap();
        session.run(*id, &inputs.iter().collect::<Vec<_>>(), &mut outputs).unwrap();
        losses.extend(outputs.iter().map(|output| output.bytes().to_vec()));
    }
    let states = session.states().iter().flat_map(|(_, state)| state.bytes().to_vec()).collect();
    (states, losses)
}

#[test]
fn an_optimized_module_prints_parses_and_trains_to_the_same_bits() {
    for path in scripts() {
        let module = steps(&path);
        let program = kiln::compile(&module, &Options::default()).unwrap();
        let printed = text::print(&program.module, &Default::default());
        let parsed = text::parse_module("printed", &printed).unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
        assert_eq!(parsed, program.module, "{}", path.display());
        let again = train(&parsed, &Options::default(), 1);
        assert_eq!(train(&module, &Options::default(), 1), again, "{}", path.display());
    }
}

#[test]
fn training_is_bit_exact_at_any_thread_count() {
    for path in scripts() {
        let module = steps(&path);
        let one = train(&module, &Options::default(), 1);
        for threads in [1, 2, 3] {
            assert_eq!(one, train(&module, &Options::default(), threads), "{} on {threads}", path.display());
        }
    }
}

#[test]
fn loops_alone_train_to_the_same_losses() {
    for path in scripts() {
        let module = steps(&path);
        let loss = |bytes: &[u8]| f32::from_ne_bytes(bytes.try_into().unwrap());
        let (_, kernels) = train(&module, &Options::default(), 2);
        let options = Options { level: kiln_rt::kernels::Level::None, ..Options::default() };
        let (_, loops) = train(&module, &options, 2);
        for (a, b) in kernels.iter().zip(&loops) {
            let (a, b) = (loss(a), loss(b));
            assert!((a - b).abs() <= 1e-4 * a.abs(), "{}: {a} with kernels, {b} without", path.display());
        }
    }
}

#[test]
fn every_memory_plan_of_the_examples_is_at_its_lower_bound() {
    for path in scripts() {
        let program = kiln::compile(&steps(&path), &Options::default()).unwrap();
        for (name, graph) in &program.graphs {
            let plan = &graph.placement.plan;
            assert_eq!(plan.peak, plan.lower_bound, "{} @{name}", path.display());
        }
    }
}
