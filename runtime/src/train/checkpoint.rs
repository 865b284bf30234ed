//! Checkpoints: everything that the rest of a training depends on, in one file.
//!
//! ```text
//! magic "KILNCKPT", version u32, length of the file u64
//! identity: count u32, then (name, u64) each
//! position: epoch, step in epoch, step, examples in epoch, each u64; sums f64s; first losses f64s
//! history:  names of the train and test series; epochs u64, then the f64s of train and test each
//! states:   count u32, then (name, dtype, extents u64s, bytes) each
//! CRC-32 of all the above
//! ```
//! Numbers are little-endian; texts, lists and bytes start with their length as u64. Elements of states are in the
//! machine's order: Kiln runs on little-endian machines only.

use std::io::{self, Write};
use std::path::Path;

use kiln_ir::{DType, Name, Shape, TensorType};

use super::report::{EpochSummary, History};
use crate::atomic_file::{WriteError, write_atomically};
use crate::error::LoadError;
use crate::session::Session;
use crate::states::StateStore;
use crate::tensor::Tensor;

const MAGIC: &[u8; 8] = b"KILNCKPT";
const VERSION: u32 = 1;
/// Magic, version and length.
const HEADER: usize = 20;

/// A checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("{file}: {source}; check the path given to --resume")]
    Io {
        /// The file.
        file: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another kind of file.
    #[error("{file}: this is no checkpoint; give --resume a file that --checkpoint wrote")]
    NotACheckpoint {
        /// The file.
        file: String,
    },
    /// Written by another version of Kiln.
    #[error("{file}: the checkpoint has format {found}, this Kiln reads {VERSION}; resume with the Kiln that wrote it")]
    Version {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
    },
    /// Some of it is missing.
    #[error("{file}: the checkpoint was cut short, it has {found} of {expected} bytes; resume from another copy")]
    Truncated {
        /// The file.
        file: String,
        /// Its length.
        found: u64,
        /// The length it should have.
        expected: u64,
    },
    /// It was changed after it was written.
    #[error("{file}: the checkpoint is damaged, its checksum does not match; resume from another copy")]
    Damaged {
        /// The file.
        file: String,
    },
    /// It belongs to another training.
    #[error("{file}: the checkpoint was made with another {part}; {help}")]
    Differs {
        /// The file.
        file: String,
        /// What differs.
        part: String,
        /// What to do.
        help: &'static str,
    },
    /// It has no such state.
    #[error("{file}: the checkpoint has no state @{state}; resume with the script that it was made with")]
    MissingState {
        /// The file.
        file: String,
        /// The state.
        state: Name,
    },
    /// A state of another type.
    #[error("{file}: {source}")]
    State {
        /// The file.
        file: String,
        /// What differs.
        source: LoadError,
    },
}

/// What must be the same for a training to go on bit by bit, in the order in which it is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity(pub Vec<(Name, u64)>);

/// What to do if a part of the [`Identity`] differs.
fn help(part: &str) -> &'static str {
    match part {
        "script" => "resume with the script that it was made with, or start anew without --resume",
        "data" => "resume with the data that it was made with, or start anew without --resume",
        "seed" => "give the same --seed",
        "batch size" => "give the same --batch",
        "order of examples" => "give --no-shuffle, or leave it out, as before",
        "test split" => "give the same --test-fold",
        _ => "resume with the same Kiln, processor and options, since they choose kernels that round differently",
    }
}

/// Where a training stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Position {
    /// Complete epochs.
    pub epoch: u64,
    /// Complete steps of the current epoch.
    pub step_in_epoch: u64,
    /// Complete steps in all.
    pub step: u64,
    /// Examples of the current epoch that are done.
    pub examples: u64,
    /// Sums over those examples, one per training series.
    pub sums: Vec<f64>,
    /// Losses of the first steps, for each batch one of every step program.
    pub losses: Vec<f64>,
    /// Means of the complete epochs.
    pub history: History,
}

impl Position {
    /// Means over the examples of the current epoch, one per training series.
    pub(crate) fn train_means(&self) -> impl Iterator<Item = f64> {
        self.sums.iter().map(|sum| sum / self.examples.max(1) as f64)
    }
}

/// A checkpoint in memory.
#[derive(Debug)]
pub struct Checkpoint {
    file: String,
    /// What it belongs to.
    pub identity: Identity,
    /// Where it stands.
    pub position: Position,
    states: Vec<(Name, Tensor)>,
}

/// Writes a checkpoint, atomically, and without a second copy of it in memory.
///
/// # Errors
/// [`WriteError`]; an older checkpoint then stays.
pub fn save(path: &Path, identity: &Identity, position: &Position, states: &StateStore) -> Result<(), WriteError> {
    write_atomically(path, |out| encode(out, identity, position, states))
}

impl Checkpoint {
    /// Reads a checkpoint and checks that it is whole.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn read(path: &Path) -> Result<Checkpoint, CheckpointError> {
        let file = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| CheckpointError::Io { file: file.clone(), source })?;
        Checkpoint::decode(file, &bytes)
    }

    fn decode(file: String, bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
        let found = bytes.len() as u64;
        let magic = bytes.get(..MAGIC.len()).unwrap_or(bytes);
        if !MAGIC.starts_with(magic) {
            return Err(CheckpointError::NotACheckpoint { file });
        }
        let mut header = Reader { rest: bytes.get(MAGIC.len()..).unwrap_or_default() };
        let expected = HEADER as u64;
        let (Some(version), Some(length)) = (header.u32(), header.u64()) else {
            return Err(CheckpointError::Truncated { file, found, expected });
        };
        if version != VERSION {
            return Err(CheckpointError::Version { file, found: version });
        }
        if found < length {
            return Err(CheckpointError::Truncated { file, found, expected: length });
        }
        let body = bytes.split_last_chunk::<4>().filter(|_| found == length);
        let Some((body, checksum)) = body.filter(|(body, crc)| crc32fast::hash(body) == u32::from_le_bytes(**crc))
        else {
            return Err(CheckpointError::Damaged { file });
        };
        let _ = checksum;
        let mut reader = Reader { rest: body.get(HEADER..).unwrap_or_default() };
        match (reader.identity(), reader.position(), reader.states()) {
            (Some(identity), Some(position), Some(states)) if reader.rest.is_empty() => {
                Ok(Checkpoint { file, identity, position, states })
            }
            _ => Err(CheckpointError::Damaged { file }),
        }
    }

    /// Checks part by part that this checkpoint belongs to the training with that identity.
    ///
    /// # Errors
    /// [`CheckpointError::Differs`] with the first part that does not.
    pub fn check(&self, identity: &Identity) -> Result<(), CheckpointError> {
        for (part, value) in &identity.0 {
            let own = self.identity.0.iter().find(|(name, _)| name == part).map(|(_, value)| value);
            if own != Some(value) {
                let (file, part) = (self.file.clone(), part.to_string());
                return Err(CheckpointError::Differs { file, help: help(&part), part });
            }
        }
        Ok(())
    }

    /// Sets every state of the session.
    ///
    /// # Errors
    /// [`CheckpointError::MissingState`], [`CheckpointError::State`].
    pub fn restore(&self, session: &mut Session) -> Result<(), CheckpointError> {
        let names: Vec<Name> = session.states().iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some((_, tensor)) = self.states.iter().find(|(other, _)| *other == name) else {
                return Err(CheckpointError::MissingState { file: self.file.clone(), state: name });
            };
            let set = session.set_state(&name, tensor);
            set.map_err(|source| CheckpointError::State { file: self.file.clone(), source })?;
        }
        Ok(())
    }
}

/// Twice: the length stands before what it is of.
fn encode(out: impl Write, identity: &Identity, position: &Position, states: &StateStore) -> io::Result<()> {
    let length = Writer::new(io::sink()).file(0, identity, position, states)?;
    Writer::new(out).file(length, identity, position, states).map(drop)
}

struct Writer<W> {
    out: W,
    written: u64,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Writer<W> {
    fn new(out: W) -> Self {
        Writer { out, written: 0, checksum: crc32fast::Hasher::new() }
    }

    /// A whole file, said to have `length` bytes; returns how many it has.
    fn file(mut self, length: u64, identity: &Identity, position: &Position, states: &StateStore) -> io::Result<u64> {
        self.bytes(MAGIC)?;
        self.u32(VERSION)?;
        self.u64(length)?;
        self.u32(identity.0.len() as u32)?;
        for (name, value) in &identity.0 {
            self.text(name)?;
            self.u64(*value)?;
        }
        for value in [position.epoch, position.step_in_epoch, position.step, position.examples] {
            self.u64(value)?;
        }
        self.floats(&position.sums)?;
        self.floats(&position.losses)?;
        self.history(&position.history)?;
        self.u32(states.len() as u32)?;
        for (name, tensor) in states.iter() {
            self.text(name)?;
            self.text(tensor.dtype().name())?;
            let extents = tensor.ty().extents();
            self.u64(extents.len() as u64)?;
            extents.iter().try_for_each(|&extent| self.u64(extent as u64))?;
            self.data(tensor.bytes())?;
        }
        let checksum = self.checksum.clone().finalize();
        self.u32(checksum)?;
        Ok(self.written)
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn u32(&mut self, value: u32) -> io::Result<()> {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> io::Result<()> {
        self.bytes(&value.to_le_bytes())
    }

    fn data(&mut self, data: &[u8]) -> io::Result<()> {
        self.u64(data.len() as u64)?;
        self.bytes(data)
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.data(text.as_bytes())
    }

    fn floats(&mut self, values: &[f64]) -> io::Result<()> {
        self.u64(values.len() as u64)?;
        values.iter().try_for_each(|value| self.u64(value.to_bits()))
    }

    fn history(&mut self, history: &History) -> io::Result<()> {
        for names in [&history.train_names, &history.test_names] {
            self.u64(names.len() as u64)?;
            names.iter().try_for_each(|name| self.text(name))?;
        }
        self.u64(history.epochs.len() as u64)?;
        for epoch in &history.epochs {
            self.floats(&epoch.train)?;
            self.floats(&epoch.test)?;
        }
        Ok(())
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(bytes).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn data(&mut self) -> Option<&'a [u8]> {
        let bytes = self.u64()?;
        self.take(bytes)
    }

    fn text(&mut self) -> Option<Name> {
        std::str::from_utf8(self.data()?).ok().map(Name::from)
    }

    /// A list with its length in front. Nothing is reserved: the length may be a lie.
    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.u64()?;
        (0..length).map(|_| item(self)).collect()
    }

    fn floats(&mut self) -> Option<Vec<f64>> {
        self.list(|reader| reader.u64().map(f64::from_bits))
    }

    fn identity(&mut self) -> Option<Identity> {
        let count = self.u32()?;
        (0..count).map(|_| Some((self.text()?, self.u64()?))).collect::<Option<_>>().map(Identity)
    }

    fn position(&mut self) -> Option<Position> {
        Some(Position {
            epoch: self.u64()?,
            step_in_epoch: self.u64()?,
            step: self.u64()?,
            examples: self.u64()?,
            sums: self.floats()?,
            losses: self.floats()?,
            history: History {
                train_names: self.list(Reader::text)?,
                test_names: self.list(Reader::text)?,
                epochs: self.list(|reader| Some(EpochSummary { train: reader.floats()?, test: reader.floats()? }))?,
            },
        })
    }

    fn states(&mut self) -> Option<Vec<(Name, Tensor)>> {
        let count = self.u32()?;
        (0..count).map(|_| self.state()).collect()
    }

    fn state(&mut self) -> Option<(Name, Tensor)> {
        let name = self.text()?;
        let dtype = DType::parse(&self.text()?)?;
        let extents = self.list(|reader| usize::try_from(reader.u64()?).ok())?;
        let data = self.data()?;
        let size = extents.iter().try_fold(dtype.bytes(), |size, &extent| size.checked_mul(extent))?;
        if size != data.len() {
            return None;
        }
        let ty = TensorType::new(dtype, Shape::from(&extents[..]));
        Some((name, Tensor::from_bytes(ty, data).ok()?))
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
