//! The documents are complete: the code map has every module, links of every page lead somewhere.

use std::collections::BTreeSet;

use kiln_tests::fixtures::{read, root};

const PAGES: [&str; 7] = [
    "README.md",
    "CHANGELOG.md",
    "ir-spec/SPEC.md",
    "examples/data/README.md",
    "compiler/src/codegen/README.md",
    "runtime/src/kernels/README.md",
    "tests/golden/README.md",
];

#[test]
fn every_module_of_note_is_in_the_code_map() {
    let page = read("README.md");
    let mut missing = Vec::new();
    for folder in ["ir-spec/src", "compiler/src", "runtime/src"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            // A folder stands for the file of its name.
            let stem = name.trim_end_matches(".rs");
            let listed =
                page.contains(&format!("`{folder}/{stem}.rs`")) || page.contains(&format!("`{folder}/{stem}/`"));
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
    let headings =
        page.lines().filter_map(|line| line.strip_prefix('#').map(|rest| rest.trim_start_matches('#').trim()));
    let kept = |c: &char| c.is_alphanumeric() || ['_', '-', ' '].contains(c);
    headings.map(|text| text.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn every_link_leads_somewhere() {
    for path in PAGES {
        let page = read(path);
        for target in links(&page).filter(|target| !target.starts_with("http")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let other =
                if file.is_empty() { root().join(path) } else { root().join(path).with_file_name("").join(file) };
            assert!(other.exists(), "{path}: {target}");
            if !anchor.is_empty() {
                let found = anchors(&std::fs::read_to_string(other).unwrap());
                assert!(found.contains(anchor), "{path}: {target}");
            }
        }
    }
}
