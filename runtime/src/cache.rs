//! Small results that take time to find again, in a folder that several processes, users and machines may share.
//!
//! An entry is a file, named after the hash of its key:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `KILNENTR` |
//! | 4 | CRC-32 of all that follows |
//! | 3 x 4 | lengths of the version of Kiln that wrote it, of the key, of the content; little endian |
//! | | version, key, content |
//!
//! An entry that is anything else (truncated, altered, of another version or another key, no regular file, unreadable) is
//! [ignored](Lookup::Ignored) and written anew by the next [`Cache::put`]: a cache can make nothing fail. Entries are written to
//! a temporary file and renamed, so that readers see whole ones however many write; of two writers of one key the
//! last one wins. The checksum finds accidents, not forgery: whoever may write to the folder decides what the entries say,
//! so that content has to be checked for meaning by whoever uses it, and must never be code or an address.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::atomic_file::{SUFFIX as PARTIAL, replace};

/// Name of the environment variable that says where the cache is: a folder, or nothing for no cache.
pub const FOLDER_VARIABLE: &str = "KILN_CACHE_DIR";

const MAGIC: &[u8; 8] = b"KILNENTR";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Magic, checksum, three lengths.
const HEADER: usize = 8 + 4 + 12;
/// Ending of an entry's name.
const SUFFIX: &str = ".entry";
/// Length of an entry's name: the hash in hexadecimal digits, and the ending.
const ENTRY_NAME: usize = 16 + SUFFIX.len();
/// A temporary file that is older belongs to a process that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);
/// Larger files are no entries.
const LARGEST: u64 = 1 << 20;
/// All entries together; an entry of a kernel has about 500 bytes.
const CAPACITY: u64 = 16 << 20;
/// A use is noted if the last one was so long ago: reading must not become writing.
const NOTED_AFTER: Duration = Duration::from_secs(3600);

/// A folder of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
    capacity: u64,
}

/// What a cache has for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The content that was put there last.
    Found(Vec<u8>),
    /// No entry.
    Missing,
    /// An entry that is not to be used, and why: for those who ask.
    Ignored(String),
}

impl Cache {
    /// The cache in a folder, which [`Cache::put`] makes if it is not there.
    pub fn new(folder: impl Into<PathBuf>) -> Cache {
        Cache { folder: folder.into(), capacity: CAPACITY }
    }

    /// As [`Cache::new`], in at most `bytes`: a [`Cache::put`] that exceeds them removes what was not used for longest.
    pub fn with_capacity(folder: impl Into<PathBuf>, bytes: u64) -> Cache {
        Cache { folder: folder.into(), capacity: bytes }
    }

    /// The cache of the user: `$KILN_CACHE_DIR`, else `kiln` in `$XDG_CACHE_HOME`, else in `$HOME/.cache` (XDG Base
    /// Directory Specification: a relative path there counts as unset). `None` if `KILN_CACHE_DIR` is empty, or there is no
    /// home.
    pub fn of_user() -> Option<Cache> {
        folder_of_user(|name| std::env::var_os(name)).map(Cache::new)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The cache in a folder within this one.
    pub fn within(&self, name: &str) -> Cache {
        Cache { folder: self.folder.join(name), capacity: self.capacity }
    }

    /// Looks `key` up.
    pub fn get(&self, key: &str) -> Lookup {
        let path = self.path(key);
        match read(&path) {
            Ok(bytes) => match content(&bytes, key) {
                Ok(content) => Lookup::Found(content.to_vec()),
                Err(why) => Lookup::Ignored(format!("{}: {why}", path.display())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Lookup::Missing,
            Err(error) => Lookup::Ignored(format!("{}: {error}", path.display())),
        }
    }

    /// Enters `content` for `key`, in place of what was there.
    ///
    /// # Errors
    /// The system's; the cache is as before.
    pub fn put(&self, key: &str, content: &[u8]) -> io::Result<()> {
        make_folder(&self.folder)?;
        replace(&self.path(key), &entry(key, content)?)?;
        self.trim();
        Ok(())
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{:016x}{SUFFIX}", fnv1a(key.as_bytes())))
    }

    /// Removes what killed processes have left, and entries, those first that were not used for longest, until the rest
    /// fits. What cannot be removed stays.
    fn trim(&self) {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for file in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = file.file_name();
            let Some((name, metadata)) = name.to_str().zip(file.metadata().ok()) else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let entry = is_entry_name(name.strip_prefix('.').and_then(|name| name.get(..ENTRY_NAME)).unwrap_or(name));
            if entry && name.ends_with(PARTIAL) && used.elapsed().is_ok_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(file.path());
            } else if is_entry_name(name) && metadata.is_file() {
                entries.push((used, metadata.len(), file.path()));
            }
        }
        let mut bytes: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        // The name decides between equal times, as file systems with coarse clocks have them.
        entries.sort();
        for (_, size, path) in entries {
            if bytes <= self.capacity {
                break;
            }
            if fs::remove_file(path).is_ok() {
                bytes -= size;
            }
        }
    }
}

fn is_entry_name(name: &str) -> bool {
    name.strip_suffix(SUFFIX).is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn folder_of_user(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(folder) = variable(FOLDER_VARIABLE) {
        return (!folder.is_empty()).then(|| folder.into());
    }
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("kiln"))
}

/// Makes the folder for its owner alone, as the XDG specification asks; one that is there keeps its permissions.
fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// The bytes of a regular file of moderate size. Opening a pipe would wait for a writer.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let refused = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()));
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return refused("not a regular file");
    }
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    (&file).take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return refused("larger than any entry");
    }
    note_use(&file, &metadata);
    Ok(bytes)
}

/// The time of modification tells when an entry was used last. A folder that cannot be written to has nothing removed.
fn note_use(file: &File, metadata: &fs::Metadata) {
    let now = SystemTime::now();
    let long_ago = metadata.modified().is_ok_and(|used| now.duration_since(used).is_ok_and(|ago| ago > NOTED_AFTER));
    if long_ago {
        let _ = file.set_modified(now);
    }
}

/// An entry as a file has it.
fn entry(key: &str, content: &[u8]) -> io::Result<Vec<u8>> {
    let parts = [VERSION.as_bytes(), key.as_bytes(), content];
    let size = HEADER + parts.iter().map(|part| part.len()).sum::<usize>();
    if size as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any entry"));
    }
    let lengths = parts.iter().flat_map(|part| (part.len() as u32).to_le_bytes());
    let body: Vec<u8> = lengths.chain(parts.iter().flat_map(|part| part.iter().copied())).collect();
    let checksum = crc32fast::hash(&body).to_le_bytes();
    Ok([&MAGIC[..], &checksum, &body].concat())
}

/// The content of an entry for `key`, or why it is none.
fn content<'a>(bytes: &'a [u8], key: &str) -> Result<&'a [u8], &'static str> {
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or("truncated")?;
    if magic != MAGIC {
        return Err("not an entry of a cache of Kiln");
    }
    let (checksum, body) = rest.split_first_chunk::<4>().ok_or("truncated")?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return Err("truncated or altered: the checksum is another");
    }
    let (version, rest) = body.split_first_chunk::<4>().ok_or("truncated")?;
    let (key_length, rest) = rest.split_first_chunk::<4>().ok_or("truncated")?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("truncated")?;
    let [version, key_length, length] = [version, key_length, length].map(|bytes| u32::from_le_bytes(*bytes) as usize);
    let (version, rest) = rest.split_at_checked(version).ok_or("its lengths exceed it")?;
    let (written, content) = rest.split_at_checked(key_length).ok_or("its lengths exceed it")?;
    if version != VERSION.as_bytes() {
        return Err("written by another version of Kiln");
    }
    if written != key.as_bytes() {
        return Err("for another key of the same hash");
    }
    if content.len() == length { Ok(content) } else { Err("its lengths are not its own") }
}

/// Fowler, Noll and Vo's hash, variant 1a of 64 bits: the same on every machine and in every version. Collisions are
/// misses, since entries hold their keys.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
