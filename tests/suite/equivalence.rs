//! Every executor computes what the reference evaluator says, on every case.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kiln::Program;
use kiln_ir::{Graph, Module, op};
use kiln_tests::cases::{self, Case};
use kiln_tests::compare;
use kiln_tests::executors::{Executor, Outcome, differentiated, run_program};

/// The case's graph with its gradients expanded, which is what the reference can evaluate.
fn expanded(case: &Case) -> Module {
    let mut module = case.module.clone();
    let graph = differentiated(case.graph()).unwrap_or_else(|found| panic!("@{}: {found:?}", case.name));
    module.add_graph(graph);
    module
}

/// What the reference says: in binary64, but in the program's own types where numbers leave the range of those.
fn truth(case: &Case, seed: u64) -> Result<Outcome, String> {
    let evaluator = if case.is_special() { Executor::Reference } else { Executor::Truth };
    evaluator.run_module(&expanded(case), &case.name, &case.inputs(seed), &case.states(seed))
}

/// One program of many cases: compiling them together takes half the time.
fn joined(cases: &[Case]) -> Module {
    let mut module = Module::default();
    for case in cases {
        module.states.extend(case.module.states.clone());
        module.add_graph(case.graph().clone());
    }
    module
}

fn check(case: &Case, executor: Executor, program: &Program, seed: u64) -> Result<(), String> {
    let found = run_program(program, executor.threads(), &case.name, &case.inputs(seed), &case.states(seed));
    match (&case.error, truth(case, seed), found) {
        (None, Ok(want), Ok(have)) => compare::same(&want, &have, case.tolerance),
        (None, want, have) => Err(format!("reference: {:?}, executor: {:?}", want.err(), have.err())),
        (Some(_), Ok(_), _) => Err("the reference does not fail".to_owned()),
        (Some(_), _, Ok(_)) => Err("it does not fail".to_owned()),
        (Some(part), Err(_), Err(message)) if message.contains(part.as_str()) => Ok(()),
        (Some(part), _, Err(message)) => Err(format!("`{message}` does not say `{part}`")),
    }
}

/// What goes wrong with `cases` on `executor`.
fn faults(cases: &[Case], executor: Executor) -> Vec<String> {
    let attempt = |case: &Case, program: &Program, seed| {
        let outcome = catch_unwind(AssertUnwindSafe(|| check(case, executor, program, seed)));
        outcome.unwrap_or_else(|_| Err("panicked".to_owned()))
    };
    let wrong = |case: &Case, message: String| format!("@{} on {executor:?}: {message}", case.name);
    let compile = |cases: &[Case]| {
        let outcome = catch_unwind(AssertUnwindSafe(|| executor.compile(&joined(cases))));
        outcome.unwrap_or_else(|_| Err("the compiler panicked".to_owned()))
    };
    if let Ok(program) = compile(cases) {
        return cases.iter().filter_map(|case| Some(wrong(case, attempt(case, &program, 1).err()?))).collect();
    }
    let alone = |case: &Case| match compile(std::slice::from_ref(case)) {
        Ok(program) => Some(wrong(case, attempt(case, &program, 1).err()?)),
        Err(message) => Some(wrong(case, message)),
    };
    cases.iter().filter_map(alone).collect()
}

fn check_all(cases: &[Case]) {
    let wrong: Vec<String> = Executor::compiled().into_iter().flat_map(|executor| faults(cases, executor)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_of_cases() {
    for file in cases::files() {
        let cases = cases::of_file(&file);
        assert!(!cases.is_empty(), "{}", file.display());
    }
    let cases: Vec<Case> = cases::files().iter().flat_map(|file| cases::of_file(file)).collect();
    check_all(&cases);
}

#[test]
fn every_elementwise_op_on_every_type() {
    check_all(&cases::of_elementwise());
}

/// Ops of a graph and of its regions.
fn mnemonics(graph: &Graph, into: &mut BTreeSet<&'static str>) {
    for (_, data) in graph.nodes() {
        into.insert(data.op.mnemonic());
        data.regions.iter().for_each(|region| mnemonics(region, into));
    }
}

#[test]
fn every_op_has_a_case_of_its_name() {
    let cases = cases::all();
    let missing: Vec<&str> = op::table()
        .map(|entry| entry.mnemonic)
        .filter(|mnemonic| {
            !cases.iter().any(|case| {
                let mut ops = BTreeSet::new();
                mnemonics(case.graph(), &mut ops);
                case.name.split('.').next() == Some(mnemonic) && ops.contains(mnemonic)
            })
        })
        .collect();
    assert!(missing.is_empty(), "ops without a case in tests/cases: {missing:?}");
}

/// No two cases share a name: the second would replace the first.
#[test]
fn names_of_cases_are_unique() {
    let mut seen = BTreeSet::new();
    for case in cases::all() {
        assert!(seen.insert(case.name.clone()), "@{} is there twice", case.name);
    }
}
