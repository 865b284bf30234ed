//! The house rules that a program can check.

use std::collections::BTreeSet;
use std::path::Path;

use kiln_ir::text::format;
use kiln_tests::fixtures::{files, read, root};

/// What may lie at the top.
const TOP: [&str; 13] = [
    ".ci",
    ".gitignore",
    ".rustfmt.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "compiler",
    "examples",
    "ir-spec",
    "runtime",
    "tests",
    "target",
];

const PACKAGES: [&str; 4] = ["ir-spec", "runtime", "compiler", "tests"];

/// Files that may hold unsafe code: memory that is shared or executable, and the micro-kernels.
const UNSAFE: [&str; 12] = [
    "compiler/benches/codegen.rs",
    "compiler/src/codegen/emit/tests",
    "compiler/src/codegen/jit.rs",
    "runtime/benches",
    "runtime/src/arena.rs",
    "runtime/src/executable.rs",
    "runtime/src/kernels",
    "runtime/src/launch.rs",
    "runtime/src/pool.rs",
    "runtime/src/session",
    "runtime/src/tensor.rs",
    "runtime/src/train/fit_tests.rs",
];

/// Fixtures that are wrong on the level of text, so that there is nothing to format.
const UNFORMATTED: [&str; 3] =
    ["tests/ir/invalid/syntax.kiln", "tests/ir/invalid/syntax.depth.kiln", "tests/ir/invalid/type.kiln"];

fn sources() -> Vec<String> {
    let mut all: Vec<String> = PACKAGES.iter().chain(&["examples"]).flat_map(|folder| files(folder, "rs")).collect();
    all.retain(|path| !path.contains("/target/"));
    all
}

/// The names in a manifest's tables of dependencies.
fn dependencies(package: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut inside = false;
    for line in read(&format!("{package}/Cargo.toml")).lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        } else if let (true, Some((name, _))) = (inside, line.split_once(['.', '=', ' '])) {
            found.insert(name.trim().to_owned());
        }
    }
    found
}

#[test]
fn dependencies_run_one_way() {
    let ours = |package: &str| -> Vec<String> {
        dependencies(package).into_iter().filter(|name| *name == "kiln" || name.starts_with("kiln-")).collect()
    };
    assert_eq!(ours("ir-spec"), [] as [&str; 0]);
    assert_eq!(ours("runtime"), ["kiln-ir"]);
    assert_eq!(ours("compiler"), ["kiln-ir", "kiln-rt"]);
    assert_eq!(ours("tests"), ["kiln", "kiln-ir", "kiln-rt"]);
}

#[test]
fn libraries_stay_in_their_layer() {
    let only = |library: &str, owner: &str| {
        for package in PACKAGES.iter().filter(|package| **package != owner) {
            let found: Vec<String> =
                dependencies(package).into_iter().filter(|name| name.starts_with(library)).collect();
            assert!(found.is_empty(), "{package} depends on {found:?}");
        }
    };
    only("petgraph", "compiler");
    only("cranelift", "compiler");
    only("insta", "tests");
}

#[test]
fn fixtures_and_examples_are_in_canonical_form() {
    let folders = ["tests/ir", "examples", "ir-spec/spec"];
    let all = folders.iter().flat_map(|folder| files(folder, "kiln"));
    let wrong: Vec<String> = all
        .filter(|path| !UNFORMATTED.contains(&path.as_str()))
        .filter(|path| format(&read(path)).map_or(true, |formatted| formatted != read(path)))
        .collect();
    assert!(wrong.is_empty(), "write them with `kiln fmt -w`: {}", wrong.join(" "));
}

#[test]
fn unsafe_code_is_where_it_may_be() {
    // Written in two parts, so that this file is no exception.
    let forms = ["{", "fn", "impl", "extern"].map(|after| format!("{} {after}", concat!("un", "safe")));
    let is_unsafe = |line: &str| !line.trim_start().starts_with("//") && forms.iter().any(|form| line.contains(form));
    let files = || sources().into_iter().filter(|path| read(path).lines().any(is_unsafe));
    let covers = |entry: &str, path: &str| {
        path.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
    };
    let found: Vec<String> = files().filter(|path| !UNSAFE.iter().any(|entry| covers(entry, path))).collect();
    assert_eq!(found, [] as [&str; 0], "unsafe code outside of the list");
    let idle: Vec<&&str> = UNSAFE.iter().filter(|entry| !files().any(|path| covers(entry, &path))).collect();
    assert_eq!(idle, [] as [&&str; 0], "nothing unsafe is left there");
    assert!(read("ir-spec/src/lib.rs").contains("#![forbid(unsafe_code)]"));
}

/// A closure has none of the target features of the function around it: where the compiler does not inline it, each intrinsic
/// within becomes a call, and every register that is alive is spilled around it.
#[test]
fn no_closure_holds_vector_operations() {
    let takes = [".map(|", ".for_each(|", ".fold(", "from_fn(|"];
    let vectors = ["S::splat", "S::load", "S::row", "_mm256_", "_mm512_", "lanes32(", "mul_add("];
    let mut found = Vec::new();
    for path in files("runtime/src/kernels", "rs").into_iter().filter(|path| !path.contains("/tests")) {
        let text = read(&path);
        for (at, _) in takes.iter().flat_map(|take| text.match_indices(take)) {
            let closure = text[at..].lines().take(4).collect::<Vec<_>>().join(" ");
            if vectors.iter().any(|vector| closure.contains(vector)) {
                found.push(format!("{path}:{}", text[..at].lines().count()));
            }
        }
    }
    assert_eq!(found, [] as [&str; 0], "write these as loops");
}

#[test]
fn exceptions_to_lints_have_a_reason() {
    for path in sources() {
        let text = read(&path);
        let attributes = ["#[", "#!["].map(|open| format!("{open}allow("));
        for (at, _) in attributes.iter().flat_map(|open| text.match_indices(open)) {
            let end = text[at..].find(")]").map_or(text.len(), |end| at + end);
            let line = text[..at].lines().count();
            assert!(text[at..end].contains("reason ="), "{path}:{line}: an exception without a reason");
        }
    }
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    let texts = ["rs", "kiln", "md", "toml", "snap"];
    let folders = PACKAGES.iter().chain(&["examples", ".ci"]);
    let all = folders.flat_map(|folder| texts.iter().flat_map(move |ending| files(folder, ending)));
    // Written in two parts, so that this file is no exception.
    let places = [
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("C:", "\\"),
    ];
    for path in all {
        let text = read(&path);
        let found = places.iter().find(|place| text.contains(**place));
        assert_eq!(found, None, "{path}");
    }
}

#[test]
fn nothing_else_lies_at_the_top() {
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let known = TOP.contains(&name.as_str()) || name.starts_with("LICENSE") || name == ".git";
        // What a training has written here is no part of the project: `.gitignore` names the same endings.
        let written = [".safetensors", ".svg"].iter().any(|ending| name.ends_with(ending));
        let known = known || written;
        assert!(known, "`{name}` has no place at the top");
    }
}

/// Every path in a package that the README writes in backticks or links to exists.
#[test]
fn the_readme_names_what_exists() {
    let text = read("README.md");
    let quoted = text.split('`').skip(1).step_by(2);
    let linked = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let is_path = |word: &&str| {
        let first = word.split('/').next().unwrap_or_default();
        // `name` stands for whatever the reader adds.
        PACKAGES.contains(&first)
            && word.contains('/')
            && !word.contains("/name")
            && !word.contains([' ', '<', '*', '{', '@'])
    };
    for path in quoted.chain(linked).filter(is_path) {
        let path = path.split('#').next().unwrap_or_default();
        assert!(Path::new(&root()).join(path).exists(), "README.md names `{path}`, which does not exist");
    }
}
