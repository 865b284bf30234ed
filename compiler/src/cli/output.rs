//! Where results go: stdout, or a file.

use std::io::{ErrorKind, Write};
use std::path::Path;

use kiln_rt::atomic_file::write_atomically;
use serde_json::Value;

use super::failure::Failure;

/// Writes to stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Input(format!("cannot write to stdout: {error}")),
    })
}

/// One JSON object as the last line of stdout.
pub(crate) fn print_json(object: &Value) -> Result<(), Failure> {
    print(&format!("{object}\n"))
}

/// Writes to a file, or to stdout without one.
pub(crate) fn write(path: Option<&Path>, text: &str) -> Result<(), Failure> {
    match path {
        None => print(text),
        Some(path) => Ok(write_atomically(path, |out| out.write_all(text.as_bytes()))?),
    }
}

/// `1 error`, `2 errors`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
