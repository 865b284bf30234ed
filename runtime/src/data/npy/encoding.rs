//! How elements lie in a file, and as what a tensor holds them.

use std::io::{ErrorKind, Read};

use kiln_ir::DType;
use npyz::{TypeChar, TypeStr};

/// Bytes that are read at once: few enough that the checksum behind the reader still finds them in the L2 cache.
const CHUNK: usize = 128 << 10;

/// The encoding of a file's elements. Integers of 16 bit widen to `i32`, unsigned ones of 64 bit become `i64`.
pub(super) struct Encoding {
    kind: TypeChar,
    /// Bytes of an element in the file.
    pub(super) bytes: usize,
    big_endian: bool,
    /// What they become.
    pub(super) dtype: DType,
}

/// Why elements cannot be read.
pub(super) enum Fault {
    /// The source ends early.
    Short {
        /// Bytes of elements that it had.
        read: u64,
    },
    /// The source fails.
    Source(std::io::Error),
    /// An unsigned integer that has no place in an `i64`.
    TooLarge,
}

impl Encoding {
    /// The encoding that NumPy describes; `None` of what Kiln has no type for.
    pub(super) fn of(code: &TypeStr) -> Option<Encoding> {
        let bytes = code.num_bytes()?;
        let dtype = match (code.type_char(), bytes) {
            (TypeChar::Bool, 1) => DType::Bool,
            (TypeChar::Float, 2) => DType::F16,
            (TypeChar::Float, 4) => DType::F32,
            (TypeChar::Float, 8) => DType::F64,
            (TypeChar::Int, 1) => DType::I8,
            (TypeChar::Uint, 1) => DType::U8,
            (TypeChar::Int | TypeChar::Uint, 2) | (TypeChar::Int, 4) => DType::I32,
            (TypeChar::Uint, 4) => DType::U32,
            (TypeChar::Int | TypeChar::Uint, 8) => DType::I64,
            _ => return None,
        };
        let big_endian = code.endianness() == npyz::Endianness::Big;
        Some(Encoding { kind: code.type_char(), bytes, big_endian, dtype })
    }

    /// Whether the bytes of the file are the bytes of the tensor.
    fn is_native(&self) -> bool {
        let same_order = self.bytes == 1 || self.big_endian == cfg!(target_endian = "big");
        let same_values = !matches!((self.kind, self.bytes), (TypeChar::Bool, _) | (TypeChar::Uint, 8));
        same_order && same_values && self.bytes == self.dtype.bytes()
    }

    /// Reads as many elements as `out` has room for, into its memory.
    pub(super) fn read(&self, source: &mut impl Read, out: &mut [u8]) -> Result<(), Fault> {
        let mut read = 0;
        if self.is_native() {
            return out.chunks_mut(CHUNK).try_for_each(|chunk| fill(source, chunk, &mut read));
        }
        let mut buffer = [0_u8; 4096];
        let per_buffer = buffer.len() / self.bytes;
        for outs in out.chunks_mut(per_buffer * self.dtype.bytes()) {
            let count = outs.len() / self.dtype.bytes();
            let elements = buffer.get_mut(..count * self.bytes).unwrap_or_default();
            fill(source, elements, &mut read)?;
            for (element, out) in elements.chunks_exact(self.bytes).zip(outs.chunks_exact_mut(self.dtype.bytes())) {
                self.decode(element, out).ok_or(Fault::TooLarge)?;
            }
        }
        Ok(())
    }

    /// Stores one element in the machine's order; `None` if it has no place in the type.
    fn decode(&self, element: &[u8], out: &mut [u8]) -> Option<()> {
        let mut word = [0_u8; 8];
        for (i, &byte) in element.iter().enumerate() {
            let place = if self.big_endian { element.len() - 1 - i } else { i };
            *word.get_mut(place)? = byte;
        }
        let bits = u64::from_le_bytes(word);
        let bits = match (self.kind, self.bytes) {
            (TypeChar::Bool, _) => u64::from(bits != 0),
            (TypeChar::Int, 2) => i64::from(bits as u16 as i16) as u64,
            (TypeChar::Uint, 8) => u64::try_from(i64::try_from(bits).ok()?).ok()?,
            _ => bits,
        };
        match out.len() {
            1 => out.copy_from_slice(&(bits as u8).to_ne_bytes()),
            2 => out.copy_from_slice(&(bits as u16).to_ne_bytes()),
            4 => out.copy_from_slice(&(bits as u32).to_ne_bytes()),
            _ => out.copy_from_slice(&bits.to_ne_bytes()),
        }
        Some(())
    }
}

/// Fills `out`, and counts what was read.
fn fill(source: &mut impl Read, out: &mut [u8], read: &mut u64) -> Result<(), Fault> {
    let mut rest = out;
    while !rest.is_empty() {
        match source.read(rest) {
            Ok(0) => return Err(Fault::Short { read: *read }),
            Ok(count) => {
                *read += count as u64;
                rest = rest.get_mut(count..).unwrap_or_default();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Fault::Source(error)),
        }
    }
    Ok(())
}
