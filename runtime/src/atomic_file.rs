//! Files that are either the old or the new one, whenever the process or the machine stops.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file could not be written; the previous one, if any, is unchanged.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {file}: {source}; {help}")]
pub struct WriteError {
    /// The file.
    pub file: String,
    /// The system's reason.
    pub source: io::Error,
    help: &'static str,
}

impl WriteError {
    fn new(path: &Path, source: io::Error) -> WriteError {
        let help = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "the disk is full: free some space; what was there before is unchanged"
            }
            io::ErrorKind::NotFound => "create the directory first",
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "choose a place that you may write to"
            }
            _ => "choose another place, or try again",
        };
        WriteError { file: path.display().to_string(), source, help }
    }
}

/// Writes a file by way of a temporary one in the same directory: write, sync, rename, sync the directory. If that
/// fails, the temporary file is removed; one that a killed process left is removed by the next write of the same file.
/// What exists and is no regular file (a device, a pipe) is written directly.
///
/// # Errors
/// [`WriteError`].
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<(), WriteError> {
    try_write(path, write).map_err(|source| WriteError::new(path, source))
}

fn try_write(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
    // A link stays a link: what it points to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(&target).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        return fill(&fs::OpenOptions::new().write(true).open(&target)?, write);
    }
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let prefix = prefix(&target)?;
    sweep(&directory, &prefix);
    let temporary = temporary(&directory, &prefix)?;
    // Tells a sweep that somebody is still writing. Where files cannot be locked, none can be swept either.
    let _ = temporary.as_file().try_lock();
    fill(temporary.as_file(), write)?;
    temporary.as_file().sync_all()?;
    temporary.persist(&target).map_err(|error| error.error)?;
    // Without this, the new name might not survive a power failure. Some file systems cannot, which is no loss.
    #[cfg(unix)]
    if let Ok(directory) = File::open(&directory) {
        let _ = directory.sync_all();
    }
    Ok(())
}

/// Puts a file of these bytes where `path` is, for caches: readers see the old or the new one, but nothing waits for the
/// disk, so that a failure of power can leave neither. A link is replaced, and not followed. What a killed process
/// leaves ends with [`SUFFIX`]: many may write one file here, so that nobody sweeps in passing.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let temporary = temporary(directory, &prefix(path)?)?;
    temporary.as_file().write_all(bytes)?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// What names of temporary files for `target` begin with.
fn prefix(target: &Path) -> io::Result<OsString> {
    let name = target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    Ok(prefix)
}

fn temporary(directory: &Path, prefix: &OsStr) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(SUFFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(directory)
}

/// What names of temporary files end with.
pub(crate) const SUFFIX: &str = ".partial";

/// Removes what killed processes have left: temporary files that nobody holds locked. A name that is no text is left alone.
fn sweep(directory: &Path, prefix: &OsStr) {
    let Some(prefix) = prefix.to_str() else { return };
    let random = |name: &str| name.len() == 6 && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let left = |name: &OsStr| {
        let name = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_suffix(SUFFIX));
        name.is_some_and(random)
    };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten().filter(|entry| left(&entry.file_name())) {
        let path = entry.path();
        // Whatever fails here costs nothing but disk space.
        if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(&path);
        }
    }
}

fn fill(file: &File, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_new_file_replaces_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.bin");
        for text in ["old", "new"] {
            write_atomically(&path, |out| out.write_all(text.as_bytes())).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(directory.path()), ["a.bin"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.bin");
        fs::write(&path, "old").unwrap();
        let error = write_atomically(&path, |out| {
            out.write_all(&[0; 100_000])?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(error.unwrap_err().to_string().ends_with("what was there before is unchanged"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(directory.path()), ["a.bin"]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let others =
            ["b.bin", ".a.bin.partial", ".a.bin.partial.partial", ".b.bin.AAAAAA.partial", ".a.bin.locked.partial"];
        for name in others.iter().chain(&[".a.bin.x9Yz01.partial"]) {
            fs::write(path(name), "half").unwrap();
        }
        let writing = File::open(path(".a.bin.locked.partial")).unwrap();
        writing.lock().unwrap();
        write_atomically(&path("a.bin"), |out| out.write_all(b"new")).unwrap();
        let mut left = names(directory.path());
        left.sort();
        assert_eq!(
            left,
            [
                ".a.bin.locked.partial",
                ".a.bin.partial",
                ".a.bin.partial.partial",
                ".b.bin.AAAAAA.partial",
                "a.bin",
                "b.bin"
            ]
        );
    }

    #[test]
    fn a_missing_directory_is_named() {
        let message = write_atomically(Path::new("no/such/a.bin"), |_| Ok(())).unwrap_err().to_string();
        assert!(message.starts_with("cannot write no/such/a.bin: "), "{message}");
        assert!(message.ends_with("create the directory first"), "{message}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_an_error_and_stays_a_device() {
        let error = write_atomically(Path::new("/dev/full"), |out| out.write_all(b"x")).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::StorageFull);
        assert!(!fs::metadata("/dev/full").unwrap().is_file());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_atomically(&link, |out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
