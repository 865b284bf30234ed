//! Programs with one fault: each yields its label and no other, in a message that a snapshot pins.

use kiln::pass::Remarks;
use kiln::pipeline::Pipeline;
use kiln_ir::diagnostic::render_all;
use kiln_ir::types::Bindings;
use kiln_ir::verify::{Bound, verify};
use kiln_ir::{Diagnostic, script, spec};
use kiln_tests::fixtures::{Fixture, fixtures};
use kiln_tests::snapshots;

const FOLDER: &str = "tests/ir/invalid";

/// Labels that no program in text form can earn: a `fused` without region is refused as syntax before anybody asks for
/// its type.
const NOT_IN_TEXT: [&str; 1] = ["fused.C1"];

fn all() -> Vec<Fixture> {
    fixtures(FOLDER, &["bind"])
}

/// What the compiler finds on the way to kernels.
fn findings(fixture: &Fixture) -> Vec<Diagnostic> {
    let file = format!("{}.kiln", fixture.name);
    let bindings: Bindings = match fixture.directives.get("bind") {
        Some(batch) => Bindings::from([("batch".into(), batch.parse().unwrap())]),
        None => Bindings::new(),
    };
    let mut module = match script::load(&file, &fixture.text, &bindings) {
        Ok(module) => module,
        Err(found) => return found,
    };
    let found = verify(&module, Bound::Yes);
    if !found.is_empty() {
        return found;
    }
    let outcome = Pipeline::standard(None).run(&mut module, &mut Remarks::default(), true, &mut |_| {});
    outcome.err().unwrap_or_default()
}

#[test]
fn every_program_yields_its_label_and_no_other() {
    snapshots::each(
        &all(),
        |fixture| fixture.name.clone(),
        |fixture| {
            let found = findings(fixture);
            let text = render_all(&found, &|_| Some(fixture.text.clone()));
            let labels: Vec<&str> = found.iter().map(|d| d.label.as_str()).collect();
            assert!(!labels.is_empty(), "{}: nothing is found", fixture.path);
            assert!(labels.iter().all(|label| *label == fixture.name), "{}: {labels:?}\n{text}", fixture.path);
            snapshots::check("invalid", &fixture.name, &text);
        },
    );
}

#[test]
fn every_constraint_of_the_spec_has_a_program_that_violates_it() {
    let names: Vec<String> = all().into_iter().map(|fixture| fixture.name).collect();
    let labels = spec::constraints().into_iter().map(|constraint| constraint.label);
    let missing: Vec<String> =
        labels.filter(|label| !names.contains(label) && !NOT_IN_TEXT.contains(&label.as_str())).collect();
    assert_eq!(missing, [] as [&str; 0]);
    assert_eq!(snapshots::unreferenced("invalid", names), [] as [&str; 0]);
}
