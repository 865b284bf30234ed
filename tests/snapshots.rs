//! Snapshots of fixtures: one file per fixture, none that no fixture refers to.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::fixtures::files;

/// Where all snapshots lie.
pub const FOLDER: &str = "tests/snapshots";

/// Compares `text` with `tests/snapshots/<folder>/<name>.snap`, or writes it with `INSTA_UPDATE=always`. `folder` is
/// empty for `tests/snapshots` itself.
///
/// # Panics
/// If they differ; the difference is on stdout.
pub fn check(folder: &str, name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    // Relative to this file.
    settings.set_snapshot_path(format!("snapshots/{folder}").trim_end_matches('/'));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Runs `check` for each item and panics with the names of all that failed.
///
/// # Panics
/// If one failed.
pub fn each<T>(items: &[T], name: impl Fn(&T) -> String, check: impl Fn(&T)) {
    let failed = |item: &&T| catch_unwind(AssertUnwindSafe(|| check(item))).is_err();
    let wrong: Vec<String> = items.iter().filter(failed).map(&name).collect();
    assert!(wrong.is_empty(), "{} of {} failed: {}", wrong.len(), items.len(), wrong.join(", "));
}

/// Snapshots below `tests/snapshots/<folder>` that are not in `expected`, given as paths below it without `.snap`.
///
/// # Panics
/// If the folder cannot be read.
pub fn unreferenced(folder: &str, expected: impl IntoIterator<Item = String>) -> Vec<String> {
    let folder = format!("{FOLDER}/{folder}");
    let expected: BTreeSet<String> = expected.into_iter().map(|name| format!("{folder}/{name}.snap")).collect();
    files(&folder, "snap").into_iter().filter(|path| !expected.contains(path)).collect()
}
