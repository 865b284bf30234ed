//! NumPy files: `.npy`, one array, and `.npz`, an archive of them.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use indexmap::IndexMap;
use kiln_ir::{DType, Shape, TensorType};
use npyz::{NpyHeader, Order};

use super::error::DataError;
use super::transpose::reverse_axes;
use crate::tensor::Tensor;

mod archive;
mod encoding;

pub use archive::Archive;
use encoding::{Encoding, Fault};

/// Longest header that is read: NumPy writes some hundred bytes for an array of numbers.
const LONGEST_HEADER: usize = 1 << 16;

/// Reads every array of an `.npz` file, in file order.
///
/// # Errors
/// [`DataError`]: the file is missing, damaged, or holds an array of another kind than numbers.
pub fn read_npz(path: &Path) -> Result<IndexMap<String, Tensor>, DataError> {
    let file = path.display().to_string();
    let mut archive = Archive::new(&file, BufReader::new(open(path)?))?;
    let names: Vec<String> = archive.names().map(str::to_owned).collect();
    names.into_iter().filter_map(|name| archive.read(&name).transpose().map(|array| Ok((name, array?)))).collect()
}

/// Reads an `.npy` file.
///
/// # Errors
/// As [`read_npz`].
pub fn read_npy(path: &Path) -> Result<Tensor, DataError> {
    let file = path.display().to_string();
    let opened = open(path)?;
    let metadata = opened.metadata().map_err(|source| DataError::Io { file: file.clone(), source })?;
    // A pipe does not say how much will come.
    let size = if metadata.is_file() { metadata.len() } else { u64::MAX };
    let array = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    read_array(&file, &array, size, &mut BufReader::new(opened))
}

/// Opens a file that is no directory.
pub(crate) fn open(path: &Path) -> Result<File, DataError> {
    let opened = File::open(path).and_then(|file| match file.metadata()?.is_dir() {
        true => Err(std::io::ErrorKind::IsADirectory.into()),
        false => Ok(file),
    });
    opened.map_err(|source| DataError::Io { file: path.display().to_string(), source })
}

/// Reads an array from `source`, which holds `size` bytes in the format of an `.npy` file. The elements go to the
/// tensor's memory without a copy on the way, unless the file has them in another order or of another size.
fn read_array(file: &str, array: &str, size: u64, source: &mut impl Read) -> Result<Tensor, DataError> {
    let fault = |what: String| DataError::DamagedArray { file: file.to_owned(), array: array.to_owned(), what };
    let bytes = read_header(source).map_err(fault)?;
    let header = NpyHeader::from_reader(&bytes[..]).map_err(|error| fault(error.to_string()))?;
    let unsupported =
        || DataError::Unsupported { file: file.to_owned(), array: array.to_owned(), found: header.dtype().descr() };
    let npyz::DType::Plain(code) = header.dtype() else { return Err(unsupported()) };
    let encoding = Encoding::of(&code).ok_or_else(unsupported)?;
    let extents: Option<Vec<usize>> = header.shape().iter().map(|&extent| usize::try_from(extent).ok()).collect();
    let mut extents = extents.ok_or_else(|| fault("an extent is too large".into()))?;
    let shape = Shape::from(&extents[..]);
    let needed = extents.iter().try_fold(encoding.bytes, |bytes, &extent| bytes.checked_mul(extent));
    let needed = needed.ok_or_else(|| fault(format!("its shape {shape} is too large")))? as u64;
    // Looked at before memory is asked for, which a damaged header could want in any amount.
    let short = |follow: u64| fault(format!("the shape {shape} needs {needed} bytes, but {follow} follow"));
    let follow = size.saturating_sub(bytes.len() as u64);
    if follow < needed {
        return Err(short(follow));
    }
    let turned = header.order() != Order::C && extents.len() > 1;
    if turned {
        extents.reverse();
    }
    let mut tensor = Tensor::zeros(TensorType::new(encoding.dtype, &extents[..]))?;
    encoding.read(source, tensor.bytes_mut()).map_err(|error| match error {
        Fault::Short { read } => short(read),
        Fault::Source(error) => fault(error.to_string()),
        Fault::TooLarge => fault("it holds a number above the largest i64".into()),
    })?;
    Ok(if turned { reverse_axes(&tensor)? } else { tensor })
}

/// The bytes before the elements, looked at for what [`NpyHeader`] takes for granted.
fn read_header(source: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut more = |bytes: &mut Vec<u8>, count: usize| {
        let read = source.take(count as u64).read_to_end(bytes).map_err(|error| error.to_string())?;
        if read == count { Ok(()) } else { Err("it ends within its header".to_owned()) }
    };
    more(&mut bytes, 8)?;
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err("it does not start as an array does".into());
    }
    // The length has two bytes in version 1, four after it.
    let digits = if bytes.get(6) == Some(&1) { 2 } else { 4 };
    more(&mut bytes, digits)?;
    let length = bytes.iter().skip(8).rev().fold(0_usize, |length, &byte| length << 8 | usize::from(byte));
    if length > LONGEST_HEADER {
        return Err(format!("its header claims {length} bytes"));
    }
    more(&mut bytes, length)?;
    check_shape(bytes.get(8 + digits..).unwrap_or_default())?;
    Ok(bytes)
}

/// Checks that the product of the extents is a number.
fn check_shape(header: &[u8]) -> Result<(), &'static str> {
    let text = String::from_utf8_lossy(header);
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
