//! NumPy files: `.npy`, one array, and `.npz`, an archive of them.

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;

use indexmap::IndexMap;
use kiln_ir::{DType, Shape, TensorType};
use npyz::{NpyHeader, Order, TypeChar, TypeStr};

use super::error::DataError;
use crate::tensor::Tensor;

/// Most that DEFLATE can expand data; an entry that claims more is damaged.
const LARGEST_EXPANSION: u64 = 1032;

/// Reads every array of an `.npz` file, in file order.
///
/// # Errors
/// [`DataError`]: the file is missing, damaged, or holds an array of another kind than numbers.
pub fn read_npz(path: &Path) -> Result<IndexMap<String, Tensor>, DataError> {
    let file = open(path)?;
    read_archive(&path.display().to_string(), BufReader::new(file))
}

/// Reads an `.npy` file.
///
/// # Errors
/// As [`read_npz`].
pub fn read_npy(path: &Path) -> Result<Tensor, DataError> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(|source| DataError::Io { file: name.clone(), source })?;
    let array = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    decode(&name, &array, &bytes)
}

fn open(path: &Path) -> Result<File, DataError> {
    let opened = File::open(path).and_then(|file| match file.metadata()?.is_dir() {
        true => Err(std::io::ErrorKind::IsADirectory.into()),
        false => Ok(file),
    });
    opened.map_err(|source| DataError::Io { file: path.display().to_string(), source })
}

/// Reads every array of an archive; `file` names it in messages.
pub(crate) fn read_archive(file: &str, source: impl Read + Seek) -> Result<IndexMap<String, Tensor>, DataError> {
    let damaged = |what: String| DataError::Damaged { file: file.to_owned(), what };
    let mut archive =
        npyz::npz::NpzArchive::new(source).map_err(|error| damaged(format!("no .npz archive: {error}")))?;
    let archive = archive.zip_archive();
    let mut arrays = IndexMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| damaged(error.to_string()))?;
        let Some(array) = npyz::npz::array_name_from_file_name(entry.name()).map(str::to_owned) else { continue };
        let fault = |what: String| DataError::DamagedArray { file: file.to_owned(), array: array.clone(), what };
        let limit = entry.compressed_size().saturating_mul(LARGEST_EXPANSION).saturating_add(1 << 16);
        let size = entry.size();
        if size > limit {
            return Err(fault(format!("it claims {size} bytes in {} compressed ones", entry.compressed_size())));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let read = entry.by_ref().take(size.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| fault(error.to_string()))?;
        let tensor = decode(file, &array, &bytes)?;
        arrays.insert(array, tensor);
    }
    match arrays.is_empty() {
        true => Err(damaged("the archive holds no arrays".into())),
        false => Ok(arrays),
    }
}

/// Decodes an array from the bytes of an `.npy` file.
pub(crate) fn decode(file: &str, array: &str, bytes: &[u8]) -> Result<Tensor, DataError> {
    let fault = |what: String| DataError::DamagedArray { file: file.to_owned(), array: array.to_owned(), what };
    check_header(bytes).map_err(|what| fault(what.to_owned()))?;
    let mut data = bytes;
    let header = NpyHeader::from_reader(&mut data).map_err(|error| fault(error.to_string()))?;
    let unsupported =
        || DataError::Unsupported { file: file.to_owned(), array: array.to_owned(), found: header.dtype().descr() };
    let npyz::DType::Plain(element) = header.dtype() else { return Err(unsupported()) };
    let source = Source::of(&element).ok_or_else(unsupported)?;
    let extents: Option<Vec<usize>> = header.shape().iter().map(|&extent| usize::try_from(extent).ok()).collect();
    let extents = extents.ok_or_else(|| fault("an extent is too large".into()))?;
    let size = extents.iter().try_fold(source.bytes, |bytes, &extent| bytes.checked_mul(extent));
    let size = size.ok_or_else(|| fault(format!("its shape {} is too large", Shape::from(&extents[..]))))?;
    let Some(data) = data.get(..size) else {
        let shape = Shape::from(&extents[..]);
        return Err(fault(format!("the shape {shape} needs {size} bytes, but {} follow", data.len())));
    };
    let mut tensor = Tensor::zeros(TensorType::new(source.dtype, &extents[..]))?;
    let size = source.dtype.bytes();
    let outs = tensor.bytes_mut().chunks_exact_mut(size);
    let elements = data.chunks_exact(source.bytes);
    if header.order() == Order::C || extents.len() < 2 {
        for (element, out) in elements.zip(outs) {
            source.decode(element, out).ok_or_else(|| fault("it holds a number above the largest i64".into()))?;
        }
        return Ok(tensor);
    }
    for (position, out) in outs.enumerate() {
        let element = data.get(column_major(position, &extents) * source.bytes..).and_then(|d| d.get(..source.bytes));
        let decoded = element.and_then(|element| source.decode(element, out));
        decoded.ok_or_else(|| fault("it holds a number above the largest i64".into()))?;
    }
    Ok(tensor)
}

/// Looks at what the header's reader takes for granted: that the product of the extents is a number.
fn check_header(bytes: &[u8]) -> Result<(), &'static str> {
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err("it does not start as an array does");
    }
    let header = bytes.get(10..bytes.len().min(4096)).unwrap_or_default();
    let line = header.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    let shape = text.split_once("'shape'").or_else(|| text.split_once("\"shape\""));
    let shape = shape.and_then(|(_, rest)| rest.split_once('(')).and_then(|(_, rest)| rest.split_once(')'));
    let (shape, _) = shape.ok_or("its header has no shape")?;
    let extents =
        shape.split(',').map(|extent| extent.trim().trim_end_matches('L')).filter(|extent| !extent.is_empty());
    let product = extents.map(|extent| extent.parse::<u32>().ok().map(u64::from)).try_fold(1_u64, |product, extent| {
        // An empty array has strides too, so no extent counts as zero.
        product.checked_mul(extent?.max(1))
    });
    product.map(|_| ()).ok_or("its shape is not one of an array in memory")
}

/// Position in a column-major array of the element at a row-major position.
fn column_major(mut position: usize, extents: &[usize]) -> usize {
    let mut stride = extents.iter().product::<usize>();
    let mut found = 0;
    for &extent in extents.iter().rev() {
        stride /= extent.max(1);
        found += position % extent.max(1) * stride;
        position /= extent.max(1);
    }
    found
}

/// How elements lie in a file. Integers of 16 bit widen to `i32`, unsigned ones of 64 bit become `i64`.
struct Source {
    kind: TypeChar,
    bytes: usize,
    big_endian: bool,
    dtype: DType,
}

impl Source {
    fn of(element: &TypeStr) -> Option<Source> {
        let bytes = element.num_bytes()?;
        let dtype = match (element.type_char(), bytes) {
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
        Some(Source {
            kind: element.type_char(),
            bytes,
            big_endian: element.endianness() == npyz::Endianness::Big,
            dtype,
        })
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

/// Writes a tensor as an `.npy` file of version 1.0; `bf16`, which NumPy does not have, as `f32`.
///
/// # Errors
/// The system's.
pub fn write_npy(out: &mut dyn Write, tensor: &Tensor) -> std::io::Result<()> {
    let (code, dtype) = match tensor.dtype() {
        DType::F32 | DType::Bf16 => ("<f4", DType::F32),
        DType::F64 => ("<f8", DType::F64),
        DType::F16 => ("<f2", DType::F16),
        DType::I8 => ("|i1", DType::I8),
        DType::U8 => ("|u1", DType::U8),
        DType::I32 => ("<i4", DType::I32),
        DType::U32 => ("<u4", DType::U32),
        DType::I64 => ("<i8", DType::I64),
        DType::Bool => ("|b1", DType::Bool),
    };
    let extents: String = tensor.ty().extents().iter().map(|extent| format!("{extent}, ")).collect();
    let dict = format!("{{'descr': '{code}', 'fortran_order': False, 'shape': ({}), }}", extents.trim_end());
    let padded = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&u16::try_from(padded).unwrap_or(u16::MAX).to_le_bytes())?;
    writeln!(out, "{dict:<width$}", width = padded - 1)?;
    let mut data = vec![0; tensor.len() * dtype.bytes()];
    super::convert::convert(tensor.dtype(), tensor.bytes(), dtype, &mut data);
    if cfg!(target_endian = "big") {
        data.chunks_exact_mut(dtype.bytes()).for_each(<[u8]>::reverse);
    }
    out.write_all(&data)
}

#[cfg(test)]
#[path = "npy_tests.rs"]
pub(crate) mod tests;
