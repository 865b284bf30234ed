//! The documents say what is there: paths of the README exist, links of every page lead somewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const PAGES: [&str; 5] =
    ["README.md", "CHANGELOG.md", "ir-spec/SPEC.md", "examples/data/README.md", "runtime/src/kernels/README.md"];

/// Text in backquotes, outside of indented code.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    let prose = page.lines().filter(|line| !line.starts_with("    "));
    prose.flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn every_path_in_the_readme_exists() {
    let page = read("README.md");
    let folders = ["ir-spec/", "runtime/", "compiler/", "tests/", "examples/"];
    let is_path = |text: &&str| folders.iter().any(|folder| text.starts_with(folder)) && !text.contains(['<', ' ', '*']);
    let paths: BTreeSet<&str> = quoted(&page).filter(is_path).collect();
    // Files to be written by who adds something.
    let missing: Vec<_> =
        paths.iter().filter(|path| !path.ends_with("/name.rs") && !root().join(path).exists()).collect();
    assert!(missing.is_empty() && paths.len() > 50, "{missing:?}");
}

#[test]
fn every_module_of_note_is_in_the_code_map() {
    let page = read("README.md");
    let mut missing = Vec::new();
    for folder in ["ir-spec/src", "compiler/src", "runtime/src"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            // A folder stands for the file of its name.
            let stem = name.trim_end_matches(".rs");
            let listed = page.contains(&format!("`{folder}/{stem}.rs`")) || page.contains(&format!("`{folder}/{stem}/`"));
            if !listed && !["lib", "main"].contains(&stem) && !stem.ends_with("_tests") {
                missing.push(format!("{folder}/{name}"));
            }
        }
    }
    assert!(missing.is_empty(), "the code map of README.md lacks {missing:?}");
}

/// Targets of `[text](target)`.
fn links(page: &str) -> impl Iterator<Item = &str> {
    page.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

/// Anchors as GitHub makes them from headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter_map(|line| line.strip_prefix('#').map(|rest| rest.trim_start_matches('#').trim()));
    let kept = |c: &char| c.is_alphanumeric() || ['_', '-', ' '].contains(c);
    headings.map(|text| text.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn every_link_leads_somewhere() {
    for path in PAGES {
        let page = read(path);
        for target in links(&page).filter(|target| !target.starts_with("http")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let other = if file.is_empty() { root().join(path) } else { root().join(path).with_file_name("").join(file) };
            assert!(other.exists(), "{path}: {target}");
            if !anchor.is_empty() {
                let found = anchors(&std::fs::read_to_string(other).unwrap());
                assert!(found.contains(anchor), "{path}: {target}");
            }
        }
    }
}

/// Dependencies run one way, and each heavy library is known to one crate.
#[test]
fn crates_depend_on_what_the_readme_says() {
    let dependencies = |manifest: &str| -> BTreeSet<String> {
        let text = read(manifest);
        let lines = text.lines().skip_while(|line| !line.starts_with("[dependencies]")).skip(1);
        let lines = lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.trim().is_empty());
        lines.map(|line| line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned()).collect()
    };
    let all = ["ir-spec", "runtime", "compiler", "tests"].map(|c| (c, dependencies(&format!("{c}/Cargo.toml"))));
    let allowed = |crate_name: &str| -> &[&str] {
        match crate_name {
            "kiln-ir" => &["runtime", "compiler", "tests"],
            "kiln-rt" => &["compiler", "tests"],
            "kiln" | "insta" => &["tests"],
            name if name == "petgraph" || name.starts_with("cranelift") => &["compiler"],
            _ => &["ir-spec", "runtime", "compiler", "tests"],
        }
    };
    for (user, names) in &all {
        assert!(!names.is_empty(), "{user}");
        for name in names {
            assert!(allowed(name).contains(user), "{user} must not depend on {name}");
        }
    }
}
