//! Measured choices: whatever is chosen, results keep their bits, unless rounding may change.

use std::sync::Arc;

use kiln::lower::Lowered;
use kiln::training::TrainGraphs;
use kiln::tuning::{Choice, Decision, Rounding, Trial, Tuning};
use kiln::{Options, Program, compile};
use kiln_ir::{Bindings, Module, Name, script};
use kiln_rt::philox::Philox;
use kiln_rt::{Session, Tensor};
use kiln_tests::fixtures::read;

/// A script, its graphs, and the batch.
const MODELS: [(&str, bool, usize); 5] = [
    ("examples/digits_cnn.kiln", false, 3),
    ("examples/digits_cnn.kiln", true, 48),
    ("examples/digits_gan.kiln", true, 16),
    ("examples/models/cnn.kiln", false, 2),
    ("examples/models/cnn.kiln", true, 4),
];

fn load(path: &str, training: bool, batch: usize) -> (Module, Vec<Name>) {
    let bindings = Bindings::from([("batch".into(), batch)]);
    let module = script::load(path, &read(path), &bindings).unwrap();
    let mut module = module.bind(&bindings).unwrap();
    let steps = module.recipe.as_ref().map(|recipe| TrainGraphs::of(recipe).steps);
    let graphs = if training { steps.unwrap() } else { vec!["predict".into()] };
    module.keep_graphs(&graphs);
    (module, graphs)
}

fn options(training: bool, tuning: Tuning) -> Options {
    let options = Options { tuning, ..Options::default() };
    if training { options.for_training() } else { options }
}

fn lowered(program: &Program) -> impl Iterator<Item = &Lowered> {
    program.graphs.values().flat_map(|compiled| &compiled.lowered)
}

fn decisions(program: &Program) -> impl Iterator<Item = &Decision> {
    lowered(program).filter_map(|lowered| lowered.decision.as_deref())
}

/// Numbers in 0..1 for floats, classes 0 and 1 for integers.
fn inputs(module: &Module, graph: &Name) -> Vec<Tensor> {
    let graph = module.graph(graph).unwrap();
    let one = |(seed, param): (usize, &kiln_ir::graph::Param)| {
        let ty = graph.ty(param.value).clone();
        let draw = |at: usize| Philox::new(seed as u64).block(at as u64)[0];
        let count = ty.elements();
        let extents = ty.extents().to_vec();
        match ty.dtype.is_float() {
            true => {
                let values: Vec<f32> = (0..count).map(|at| draw(at) as f32 / u32::MAX as f32).collect();
                Tensor::from_vec(&extents[..], values).unwrap()
            }
            false => Tensor::from_vec(&extents[..], (0..count).map(|at| i64::from(draw(at) & 1)).collect::<Vec<_>>())
                .unwrap(),
        }
    };
    graph.params().iter().enumerate().map(one).collect()
}

/// Everything that two runs leave behind: results and states, as bytes.
fn results(program: &Program, graphs: &[Name], threads: usize) -> Vec<Vec<u8>> {
    let mut session = Session::new(threads).unwrap();
    session.initialize(&program.module, 5).unwrap();
    let run = |session: &mut Session, graph: &str, inputs: &[Tensor]| {
        let id = session.load(program.graphs[graph].executable.clone()).unwrap();
        let mut outputs = session.outputs(id).unwrap();
        session.run(id, &inputs.iter().collect::<Vec<_>>(), &mut outputs).unwrap();
        outputs
    };
    if program.graphs.contains_key("prepare") {
        run(&mut session, "prepare", &[]);
    }
    let mut bytes = Vec::new();
    for graph in graphs.iter().chain(graphs) {
        let outputs = run(&mut session, graph, &inputs(&program.module, graph));
        bytes.extend(outputs.iter().map(|tensor| tensor.bytes().to_vec()));
    }
    // Panels are not results: their layout follows the choice.
    let states = program.module.states.keys().filter(|name| !name.starts_with("packed."));
    bytes.extend(states.filter_map(|name| session.states().get(name)).map(|state| state.bytes().to_vec()));
    bytes
}

fn choices(program: &Program, round: usize) -> Vec<(String, Choice)> {
    let of = |decision: &Decision| Some((decision.kernel.clone(), *decision.alternatives.get(round)?));
    decisions(program).filter_map(of).collect()
}

fn with(module: &Module, training: bool, rounding: Rounding, choices: Vec<(String, Choice)>) -> Program {
    let tuning = Tuning::of(Arc::new(Trial::new(rounding, choices)));
    compile(module, &options(training, tuning)).unwrap()
}

#[test]
fn exact_choices_keep_every_bit_and_the_fingerprint() {
    for (path, training, batch) in MODELS {
        let (module, graphs) = load(path, training, batch);
        let usual = compile(&module, &options(training, Tuning::default().exploring(Rounding::Kept))).unwrap();
        let expected = results(&usual, &graphs, 1);
        let most = decisions(&usual).map(|decision| decision.alternatives.len()).max().unwrap();
        assert!(most > 2, "{path} has nothing to tune");
        // The first ones are about threads; of the others every third.
        for (round, threads) in (0..most).step_by(3).chain([0, 1]).zip([1, 2, 3].into_iter().cycle()) {
            let program = with(&module, training, Rounding::Kept, choices(&usual, round));
            assert!(decisions(&program).any(|decision| decision.tuned.is_some()));
            let same = results(&program, &graphs, threads) == expected;
            assert!(same, "{path}, round {round}, {threads} threads: {:?}", choices(&usual, round));
            for graph in &graphs {
                let fingerprint = |program: &Program| program.graphs[graph].executable.fingerprint;
                assert_eq!(fingerprint(&program), fingerprint(&usual), "{path}: a training could not go on");
            }
        }
    }
}

/// A cache that was copied or forged may hold such choices, too, where only exact ones belong.
#[test]
fn choices_that_change_bits_are_dropped_unless_they_are_allowed() {
    let (module, graphs) = load("examples/models/cnn.kiln", true, 4);
    let usual = compile(&module, &options(true, Tuning::default().exploring(Rounding::Tuned))).unwrap();
    let expected = results(&usual, &graphs, 2);
    let most = decisions(&usual).map(|decision| decision.alternatives.len()).max().unwrap();
    let mut changed = 0;
    for round in 0..most.min(8) {
        let found = choices(&usual, round);
        let kept = with(&module, true, Rounding::Kept, found.clone());
        assert!(results(&kept, &graphs, 2) == expected, "round {round}: {found:?}");
        let tuned = with(&module, true, Rounding::Tuned, found);
        let bits = results(&tuned, &graphs, 1);
        assert!(results(&tuned, &graphs, 3) == bits, "round {round}: threads have changed bits");
        let fingerprint = |program: &Program| program.graphs[&graphs[0]].executable.fingerprint;
        let noticed = fingerprint(&tuned) != fingerprint(&usual);
        assert!(noticed || bits == expected, "round {round}: other bits, and the same fingerprint");
        changed += usize::from(bits != expected);
    }
    assert!(changed > 0, "no choice has changed a bit");
}

#[test]
fn senseless_choices_make_no_difference() {
    let (module, graphs) = load("examples/digits_cnn.kiln", true, 48);
    let usual = compile(&module, &options(true, Tuning::default().exploring(Rounding::Kept))).unwrap();
    let expected = results(&usual, &graphs, 1);
    let texts = [
        "direct rows=left columns=7 tiles=0x0x0 k=0 ahead=both",
        "direct rows=right columns=32 tiles=99999x1x99999 k=99999999 ahead=left fork=yes",
        "winograd tile=4 groups=0 parts=99999",
        "winograd-gradient tile=2",
        "window tiles=0",
        "window tiles=18446744073709551615 fork=yes",
    ];
    for text in texts {
        let choice: Choice = text.parse().unwrap();
        let all = decisions(&usual).map(|decision| (decision.kernel.clone(), choice)).collect();
        let program = with(&module, true, Rounding::Kept, all);
        assert!(results(&program, &graphs, 2) == expected, "{text}");
    }
}
