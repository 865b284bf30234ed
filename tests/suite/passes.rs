//! Passes: the example in each pass's documentation, the fixtures under `tests/ir/passes`, and the verdicts of `fuse`.

use std::collections::BTreeSet;

use kiln::Options;
use kiln::pass::fuse::Verdict;
use kiln::pass::specialize::Mode;
use kiln::pass::{Pass, Remarks};
use kiln::pipeline::{PASSES, Pipeline, by_name};
use kiln::testing::{Applied, apply, module};
use kiln_ir::text::{PrintOptions, print};
use kiln_ir::types::Bindings;
use kiln_rt::kernels::Level;
use kiln_tests::fixtures::{Fixture, fixtures, read};
use kiln_tests::snapshots;

const FOLDER: &str = "tests/ir/passes";
/// `passes`: the pass of the folder, after others. `mode`: of `specialize`. `bind`: `batch = 2, ...`. `verdict`: the
/// code that edges of `fuse` get. `budget`: bytes of `rematerialize`.
const DIRECTIVES: [&str; 5] = ["passes", "mode", "bind", "verdict", "budget"];

fn all() -> Vec<Fixture> {
    fixtures(FOLDER, &DIRECTIVES)
}

fn mode(fixture: &Fixture) -> Option<Mode> {
    fixture.directives.get("mode").map(|mode| match mode.as_str() {
        "training" => Mode::Training,
        "inference" => Mode::Inference,
        other => panic!("{}: there is no mode `{other}`", fixture.path),
    })
}

/// What the directives say to the passes. Without micro-kernels, whose scratch memory differs from machine to machine.
fn options(fixture: &Fixture) -> Options {
    let budget = fixture.directives.get("budget").map(|bytes| bytes.parse().unwrap());
    Options { mode: mode(fixture), memory_budget: budget, level: Level::None, ..Options::default() }
}

fn bindings(fixture: &Fixture) -> Bindings {
    let pairs = fixture.directives.get("bind").into_iter().flat_map(|text| text.split(','));
    pairs
        .map(|pair| {
            let (name, extent) = pair.split_once('=').unwrap_or_else(|| panic!("{}: `{pair}`", fixture.path));
            (name.trim().into(), extent.trim().parse().unwrap())
        })
        .collect()
}

/// Runs the passes before the last one, then the last one under the kit.
fn run(fixture: &Fixture) -> Applied {
    let mut module = module(&fixture.text, &bindings(fixture)).unwrap_or_else(|message| panic!("{message}"));
    let list = fixture.directives.get("passes").unwrap_or(&fixture.folder);
    let (before, last) = list.rsplit_once(',').unwrap_or(("", list));
    assert_eq!(last.trim(), fixture.folder, "{}: the last pass is that of the folder", fixture.path);
    let before = Pipeline::parse(before, &options(fixture)).unwrap();
    before.run(&mut module, &mut Remarks::default(), true, &mut |_| {}).unwrap();
    let pass = by_name(last.trim(), &options(fixture)).unwrap();
    apply(module, &*pass).unwrap_or_else(|message| panic!("{}: {message}", fixture.path))
}

fn key(fixture: &Fixture) -> String {
    format!("{}/{}", fixture.folder, fixture.name)
}

#[test]
fn fixtures_match_their_snapshots() {
    snapshots::each(&all(), key, |fixture| {
        snapshots::check(&format!("passes/{}", fixture.folder), &fixture.name, &run(fixture).to_string());
    });
}

#[test]
fn every_pass_has_fixtures_and_every_snapshot_has_one() {
    let all = all();
    for pass in PASSES {
        assert!(all.iter().filter(|f| f.folder == pass).count() >= 2, "`{pass}` has fewer than two fixtures");
    }
    assert!(all.iter().all(|f| PASSES.contains(&f.folder.as_str())), "a folder is named after no pass");
    assert_eq!(snapshots::unreferenced("passes", all.iter().map(key)), [] as [&str; 0]);
}

#[test]
fn a_fixture_changes_something() {
    snapshots::each(&all(), key, |fixture| {
        let applied = run(fixture);
        let declined = fixture.directives.contains_key("verdict") || fixture.name.starts_with("keeps_");
        assert!(applied.before != applied.after || declined, "{}: nothing happens", fixture.path);
    });
}

/// A pass that has done its work finds nothing to do.
#[test]
fn passes_are_done_after_one_run() {
    snapshots::each(&all(), key, |fixture| {
        let applied = run(fixture);
        let pass = by_name(applied.pass, &options(fixture)).unwrap();
        let again = apply(applied.after, &*pass).unwrap_or_else(|message| panic!("{}: {message}", fixture.path));
        assert!(again.before == again.after, "{}: a second run changes it to\n{again}", fixture.path);
    });
}

#[test]
fn every_verdict_has_a_fixture_that_yields_exactly_it() {
    let mut seen = BTreeSet::new();
    for fixture in all().iter().filter(|f| f.folder == "fuse") {
        let Some(verdict) = fixture.directives.get("verdict") else { continue };
        let applied = run(fixture);
        let mut codes: BTreeSet<&str> = applied.remarks.list().iter().map(|remark| remark.code).collect();
        // Edges on the way there may fuse.
        if verdict != "fused" {
            codes.remove("fused");
        }
        assert_eq!(codes, BTreeSet::from([verdict.as_str()]), "{}\n{applied}", fixture.path);
        seen.insert(verdict.clone());
    }
    let codes: BTreeSet<String> = Verdict::CODES.iter().map(ToString::to_string).collect();
    assert_eq!(seen, codes);
}

/// The standard pipeline, pass by pass, over whole programs: training and prediction.
#[test]
fn every_pass_keeps_the_results_of_every_model() {
    snapshots::each(&fixtures("tests/ir/models", &[]), key, |fixture| {
        let bindings = Bindings::from([("batch".into(), 2)]);
        let mut module = module(&fixture.text, &bindings).unwrap_or_else(|message| panic!("{message}"));
        for name in Pipeline::standard(None).names() {
            let pass = by_name(name, &Options::default()).unwrap();
            module = apply(module, &*pass).unwrap_or_else(|message| panic!("{}: {message}", fixture.path)).after;
        }
    });
}

/// The `text` blocks of a file's module documentation.
fn blocks(path: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in read(path).lines().map_while(|line| line.strip_prefix("//!").map(str::to_owned)) {
        let line = line.strip_prefix(' ').unwrap_or(&line);
        match (&mut open, line) {
            (None, "```text") => open = Some(String::new()),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), line) => *block += &format!("{line}\n"),
            (None, _) => {}
        }
    }
    blocks
}

#[test]
fn documentation_shows_what_the_pass_does() {
    // The budget that the documentation of `rematerialize` names.
    let options = Options { memory_budget: Some(20 << 10), level: Level::None, ..Options::default() };
    snapshots::each(
        &PASSES,
        |pass| (*pass).to_owned(),
        |pass| {
            let path = match *pass {
                "autodiff" => "compiler/src/autodiff.rs".to_owned(),
                pass => format!("compiler/src/pass/{pass}.rs"),
            };
            let blocks = blocks(&path);
            let [before, after] = blocks.as_slice() else { panic!("{path}: {} blocks, not two", blocks.len()) };
            let program =
                |text: &str| module(text, &Bindings::new()).unwrap_or_else(|message| panic!("{path}: {message}"));
            let pass: Box<dyn Pass> = by_name(pass, &options).unwrap();
            let applied = apply(program(before), &*pass).unwrap_or_else(|message| panic!("{path}: {message}"));
            let found = print(&applied.after, &PrintOptions::default());
            assert!(module(after, &Bindings::new()) == Ok(applied.after), "{path} shows something else than\n{found}");
            assert_eq!(found, *after, "{path} is not in canonical form");
        },
    );
}
