//! What can be wrong with data.

use kiln_ir::{DType, Name};

use crate::arena::OutOfMemory;

/// Data cannot be read, or does not fit the model. Each message names file and array, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file cannot be read.
    #[error("{file}: {source}; check the path, and that the file may be read")]
    Io {
        /// The file.
        file: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not what its name says, or is damaged.
    #[error("{file}: {what}; the file is damaged or was cut short, write or copy it again")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// One array of the file is damaged.
    #[error("{file}: array `{array}`: {what}; the file is damaged or was cut short, write or copy it again")]
    DamagedArray {
        /// The file.
        file: String,
        /// The array.
        array: String,
        /// What is wrong.
        what: String,
    },
    /// An element type that Kiln does not have.
    #[error("{file}: array `{array}` has elements of type {found}; save it as a float, integer or boolean array")]
    Unsupported {
        /// The file.
        file: String,
        /// The array.
        array: String,
        /// The type as the file describes it.
        found: String,
    },
    /// No array for an input of the model.
    #[error("{file}: there is no array for the input %{input}; save one as {wanted}, the file has {found}")]
    Missing {
        /// The file.
        file: String,
        /// The input.
        input: Name,
        /// Names that would do.
        wanted: String,
        /// Names in the file.
        found: String,
    },
    /// Extents that do not fit the input.
    #[error("{file}: array `{array}` is {found}, but %{input} needs {wanted}; {help}")]
    Shape {
        /// The file.
        file: String,
        /// The array.
        array: String,
        /// Its shape.
        found: Box<str>,
        /// The input.
        input: Name,
        /// The shape that would fit.
        wanted: Box<str>,
        /// What to change.
        help: &'static str,
    },
    /// Arrays of different lengths.
    #[error(
        "{file}: array `{first}` has {first_examples} examples, but `{second}` has {second_examples}; every array needs \
         one entry per example"
    )]
    Lengths {
        /// The file.
        file: String,
        /// One array.
        first: String,
        /// Its first extent.
        first_examples: usize,
        /// Another array.
        second: String,
        /// Its first extent.
        second_examples: usize,
    },
    /// No examples.
    #[error("{file}: {what}; add examples{help}")]
    Empty {
        /// The file.
        file: String,
        /// Which part is empty.
        what: String,
        /// Another way out.
        help: String,
    },
    /// A value outside of the input's declared bound.
    #[error(
        "{file}: array `{array}` holds {value} at position {position} (example {example}), but %{input} is declared below \
         {limit}; correct the data, or raise the bound in the script"
    )]
    OutOfRange {
        /// The file.
        file: String,
        /// The array.
        array: String,
        /// Linear position of the first such value.
        position: usize,
        /// Index of its example.
        example: usize,
        /// The value.
        value: i64,
        /// The input.
        input: Name,
        /// Values must lie in `0..limit`.
        limit: u64,
    },
    /// A value that the input's element type does not have.
    #[error(
        "{file}: array `{array}` holds {value} at position {position} (example {example}), which is no {wanted}, the \
         type of %{input}; correct the data, or declare another type in the script"
    )]
    Conversion {
        /// The file.
        file: String,
        /// The array.
        array: String,
        /// Linear position of the first such value.
        position: usize,
        /// Index of its example.
        example: usize,
        /// The value.
        value: f64,
        /// The input.
        input: Name,
        /// Its element type.
        wanted: DType,
    },
    /// An input that data cannot feed.
    #[error("the input %{input} is {ty}; an input fed with data needs the batch as its first dimension")]
    NoBatch {
        /// The input.
        input: Name,
        /// Its type.
        ty: String,
    },
    /// No memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}
