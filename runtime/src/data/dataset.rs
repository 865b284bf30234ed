//! A data set: one array per input of the model, checked once.

use std::path::Path;

use indexmap::IndexMap;
use kiln_ir::{Name, TensorType};

use super::convert;
use super::error::DataError;
use super::npy::read_npz;
use super::range::first_outside;
use crate::executable::Binding;
use crate::tensor::Tensor;

/// Names that an array may have instead of the first and second input's.
const FALLBACKS: [&[&str]; 2] = [&["x"], &["y", "label"]];

/// Examples for the inputs of a model.
///
/// Elements are kept as the file has them and become the input's type by value when a batch is filled: an image of
/// bytes becomes floats from 0 to 255.
#[derive(Clone, Debug)]
pub struct Dataset {
    file: String,
    columns: Vec<Column>,
    examples: usize,
    checksum: u32,
}

#[derive(Clone, Debug)]
struct Column {
    input: Name,
    array: Tensor,
}

impl Dataset {
    /// Reads an `.npz` file for `inputs`, whose first dimension is the batch.
    ///
    /// An input takes the array of its name; the first input also `x`, the second also `y` or `label`.
    ///
    /// # Errors
    /// [`DataError`]: the file cannot be read, or an array is missing or does not fit its input.
    pub fn open(path: &Path, inputs: &[Binding]) -> Result<Dataset, DataError> {
        Dataset::new(&path.display().to_string(), read_npz(path)?, inputs)
    }

    /// A data set of arrays in memory; `file` names it in messages.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn new(file: &str, mut arrays: IndexMap<String, Tensor>, inputs: &[Binding]) -> Result<Dataset, DataError> {
        let mut chosen: Vec<(Name, String)> = Vec::new();
        let mut first: Option<(String, usize)> = None;
        for (i, input) in inputs.iter().enumerate() {
            if chosen.iter().any(|(other, _)| *other == input.name) {
                continue;
            }
            let name = find(file, &arrays, inputs, i)?;
            let array = arrays.get(&name).ok_or_else(|| missing(file, &arrays, input, i))?;
            let examples = check(file, &name, array, input)?;
            match &first {
                Some((first, count)) if *count != examples => {
                    return Err(DataError::Lengths {
                        file: file.into(),
                        first: first.clone(),
                        first_examples: *count,
                        second: name,
                        second_examples: examples,
                    });
                }
                Some(_) => {}
                None => first = Some((name.clone(), examples)),
            }
            chosen.push((input.name.clone(), name));
        }
        let examples = first.map_or(0, |(_, examples)| examples);
        if examples == 0 {
            let (file, what, help) = (file.into(), "there are no examples".into(), String::new());
            return Err(DataError::Empty { file, what, help });
        }
        let column = |(input, name): (Name, String)| Some(Column { input, array: arrays.shift_remove(&name)? });
        let columns: Vec<Column> = chosen.into_iter().filter_map(column).collect();
        let checksum = checksum(&columns);
        Ok(Dataset { file: file.into(), columns, examples, checksum })
    }

    /// Where it comes from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.examples
    }

    /// CRC-32 over names, types and elements of everything that is used.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Gathers the examples `indices` into `batch`, the tensor of the input `input`, whose first extent is their
    /// number.
    ///
    /// # Errors
    /// [`DataError::Missing`] if the data set was not opened for that input, [`DataError::Shape`] if the batch has
    /// another number of examples or another row.
    pub fn fill(&self, input: &Name, indices: &[usize], batch: &mut Tensor) -> Result<(), DataError> {
        let column = self.columns.iter().find(|column| column.input == *input).ok_or_else(|| DataError::Missing {
            file: self.file.clone(),
            input: input.clone(),
            wanted: format!("`{input}`"),
            found: self.columns.iter().map(|column| format!("`{}`", column.input)).collect::<Vec<_>>().join(", "),
        })?;
        let (from, to) = (column.array.dtype(), batch.dtype());
        let row = column.array.len() / self.examples;
        if batch.len() != row * indices.len() || indices.iter().any(|&index| index >= self.examples) {
            return Err(DataError::Shape {
                file: self.file.clone(),
                array: input.to_string(),
                found: format!("{} rows of {row} elements", indices.len()).into(),
                input: input.clone(),
                wanted: batch.ty().to_string().into(),
                help: "give a tensor of that many rows",
            });
        }
        let (source, target) = (row * from.bytes(), row * to.bytes());
        if row > 0 {
            for (&index, out) in indices.iter().zip(batch.bytes_mut().chunks_exact_mut(target)) {
                let bytes = column.array.bytes().get(index * source..(index + 1) * source).unwrap_or_default();
                convert::convert(from, bytes, to, out);
            }
        }
        Ok(())
    }
}

/// Name of the array for input number `i`.
fn find(file: &str, arrays: &IndexMap<String, Tensor>, inputs: &[Binding], i: usize) -> Result<String, DataError> {
    let Some(input) = inputs.get(i) else { return Err(DataError::Damaged { file: file.into(), what: String::new() }) };
    let name: &str = &input.name;
    if arrays.contains_key(name) {
        return Ok(name.to_owned());
    }
    // An array that carries another input's name is not a stand-in.
    let taken = |candidate: &str| inputs.iter().any(|other| &*other.name == candidate);
    let fallbacks = FALLBACKS.get(i).copied().unwrap_or_default();
    let found = fallbacks.iter().find(|fallback| arrays.contains_key(**fallback) && !taken(fallback));
    found.map(|&found| found.to_owned()).ok_or_else(|| missing(file, arrays, input, i))
}

fn missing(file: &str, arrays: &IndexMap<String, Tensor>, input: &Binding, i: usize) -> DataError {
    let quote = |name: &dyn std::fmt::Display| format!("`{name}`");
    let fallbacks = FALLBACKS.get(i).copied().unwrap_or_default();
    let mut wanted = vec![quote(&input.name)];
    wanted.extend(fallbacks.iter().filter(|name| **name != &*input.name).map(|name| quote(name)));
    DataError::Missing {
        file: file.into(),
        input: input.name.clone(),
        wanted: wanted.join(" or "),
        found: arrays.keys().map(|name| quote(name)).collect::<Vec<_>>().join(", "),
    }
}

/// Checks shape, values and bounds of an array; returns its number of examples.
fn check(file: &str, name: &str, array: &Tensor, input: &Binding) -> Result<usize, DataError> {
    let wanted = input.ty.extents();
    let Some((_, row)) = wanted.split_first() else {
        return Err(DataError::NoBatch { input: input.name.clone(), ty: input.ty.to_string() });
    };
    let extents = array.ty().extents();
    // Extents of 1 hold no information: images [n, 8, 8] do for an input [batch, 1, 8, 8].
    let essential = |extents: &[usize]| extents.iter().copied().filter(|&extent| extent != 1).collect::<Vec<_>>();
    let fits = extents.split_first().is_some_and(|(_, found)| essential(found) == essential(row));
    if !fits {
        return Err(shape_error(file, name, array.ty(), input, row));
    }
    let width: usize = row.iter().product::<usize>().max(1);
    convert::check(array, input.ty.dtype).map_err(|fault| DataError::Conversion {
        file: file.into(),
        array: name.into(),
        position: fault.position,
        example: fault.position / width,
        value: fault.value,
        input: input.name.clone(),
        wanted: input.ty.dtype,
    })?;
    check_bound(file, name, array, input, width)?;
    Ok(extents.first().copied().unwrap_or(0))
}

fn shape_error(file: &str, name: &str, found: &TensorType, input: &Binding, row: &[usize]) -> DataError {
    let extents = found.extents();
    let rows = extents.split_first().map(|(_, rest)| rest.iter().product::<usize>());
    let help = if rows == Some(row.iter().product()) {
        "the number of elements agrees: reshape or transpose the array, or declare its shape in the script"
    } else {
        "save the array in that shape, or declare its shape in the script"
    };
    let mut wanted = String::from("[examples");
    row.iter().for_each(|extent| wanted.push_str(&format!(", {extent}")));
    DataError::Shape {
        file: file.into(),
        array: name.into(),
        found: found.shape.to_string().into(),
        input: input.name.clone(),
        wanted: (wanted + "]").into(),
        help,
    }
}

/// Checks the declared bound. Values are compared in the input's type, so whole floats may be labels too.
fn check_bound(file: &str, name: &str, array: &Tensor, input: &Binding, width: usize) -> Result<(), DataError> {
    let Some(limit) = input.below else { return Ok(()) };
    let mut converted = Tensor::zeros(TensorType::new(input.ty.dtype, array.ty().shape.clone()))?;
    convert::convert(array.dtype(), array.bytes(), input.ty.dtype, converted.bytes_mut());
    match first_outside(&converted, limit) {
        None => Ok(()),
        Some((position, value)) => Err(DataError::OutOfRange {
            file: file.into(),
            array: name.into(),
            position,
            example: position / width,
            value,
            input: input.name.clone(),
            limit,
        }),
    }
}

fn checksum(columns: &[Column]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for column in columns {
        hasher.update(column.input.as_bytes());
        hasher.update(column.array.ty().to_string().as_bytes());
        hasher.update(column.array.bytes());
    }
    hasher.finalize()
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
