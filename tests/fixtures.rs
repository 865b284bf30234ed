//! Fixtures under `tests/ir`: found by walking, with directives in the comments at their top.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A program with what a test has to know about it.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// Where it is, from the root of the workspace, with `/`.
    pub path: String,
    /// Name of its folder.
    pub folder: String,
    /// File name without `.kiln`.
    pub name: String,
    /// Its text.
    pub text: String,
    /// `# key: value` lines at the top.
    pub directives: BTreeMap<String, String>,
}

/// The root of the workspace.
///
/// # Panics
/// If this package has no folder above it.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or_else(|| panic!("{} has no parent", package.display())).to_path_buf()
}

/// Every file below `folder` that ends in `.extension`, sorted, as paths from the root with `/`.
///
/// # Panics
/// If a folder cannot be read.
pub fn files(folder: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut work = vec![folder.to_owned()];
    while let Some(folder) = work.pop() {
        let entries = std::fs::read_dir(root().join(&folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
        for entry in entries {
            let entry = entry.unwrap_or_else(|error| panic!("{folder}: {error}"));
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            match entry.path() {
                path_buf if path_buf.is_dir() => work.push(path),
                _ if path.ends_with(&format!(".{extension}")) => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// The text of a file of the workspace.
///
/// # Panics
/// If it cannot be read.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The fixtures below `folder`, whose directives are all among `known`.
///
/// # Panics
/// For a directive that is not known.
pub fn fixtures(folder: &str, known: &[&str]) -> Vec<Fixture> {
    files(folder, "kiln").into_iter().map(|path| fixture(path, known)).collect()
}

fn fixture(path: String, known: &[&str]) -> Fixture {
    let text = read(&path);
    let mut directives = BTreeMap::new();
    for line in text.lines().map_while(|line| line.strip_prefix('#')) {
        let Some((key, value)) = directive(line.trim()) else { continue };
        assert!(known.contains(&key), "{path}: there is no directive `{key}`; there are: {}", known.join(", "));
        assert!(directives.insert(key.to_owned(), value.to_owned()).is_none(), "{path}: `{key}` is given twice");
    }
    let parts: Vec<&str> = path.trim_end_matches(".kiln").rsplit('/').collect();
    let (name, folder) = (parts[0].to_owned(), parts[1].to_owned());
    Fixture { path, folder, name, text, directives }
}

/// `key: value`, where the key is one word of small letters: prose has no colon after its first word.
fn directive(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let word = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    word.then(|| (key, value.trim()))
}
