//! The examples of SPEC.md, as they stand and through the passes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kiln::Options;
use kiln::pass::Remarks;
use kiln::pass::specialize::Mode;
use kiln::pipeline::Pipeline;
use kiln_ir::diagnostic::render_all;
use kiln_ir::spec::{Example, examples};

/// The example's module after a pipeline, compared with the numbers it expects.
fn run(example: &Example, pipeline: &Pipeline) -> Result<(), String> {
    let mut module = example.module()?;
    // One file holds many examples; each goes its way alone.
    module.graphs.retain(|name, _| **name == *example.mnemonic);
    pipeline
        .run(&mut module, &mut Remarks::default(), true, &mut |_| {})
        .map_err(|found| render_all(&found, &|_| None))?;
    example.compare(&module)
}

fn run_all(pipeline: impl Fn(&Example) -> Pipeline) {
    let wrong: Vec<String> = examples()
        .iter()
        .filter_map(|example| {
            // A panic in one example must not hide the others.
            let outcome = catch_unwind(AssertUnwindSafe(|| run(example, &pipeline(example))));
            let message = outcome.unwrap_or_else(|_| Err("panicked".to_owned())).err()?;
            Some(format!("{} @{}: {message}", example.file, example.mnemonic))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_example_computes_what_it_says() {
    run_all(|example| {
        Pipeline::parse(&example.passes.join(","), &Options::default()).expect("passes of the example exist")
    });
}

#[test]
fn no_pass_changes_what_an_example_computes() {
    run_all(|_| Pipeline::standard(Some(Mode::Training)));
}
