//! Weights in files: `.safetensors` and `.npz` are read, `.safetensors` is written.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use indexmap::IndexMap;
use kiln_ir::attribute::AttrValue;
use kiln_ir::{DType, Module, Name, Recipe, Role, TensorType};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::arena::OutOfMemory;
use crate::atomic_file::{WriteError, write_atomically};
use crate::data::{DataError, convert, npy};
use crate::error::LoadError;
use crate::session::Session;
use crate::states::StateStore;
use crate::tensor::{Tensor, TensorError};

/// Weights cannot be read or do not fit the model.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file is missing, damaged, or of another kind.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model has weights that the file does not.
    #[error(
        "{file}: there is no tensor {missing}; map foreign names with `weights {{state = \"name\"}}`, the file has {found}"
    )]
    Missing {
        /// The file.
        file: String,
        /// Names that were looked for.
        missing: String,
        /// Names in the file.
        found: String,
    },
    /// A tensor of another shape.
    #[error("{file}: tensor `{tensor}` is {found}, but the state @{state} is {wanted}; {help}")]
    Shape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: Box<TensorType>,
        /// The state.
        state: Name,
        /// The state's type.
        wanted: Box<TensorType>,
        /// What to change.
        help: &'static str,
    },
    /// A value that the state's type does not have.
    #[error(
        "{file}: tensor `{tensor}` holds {value} at position {position}, which is no {wanted}, the type of @{state}"
    )]
    Conversion {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The value.
        value: f64,
        /// Its position.
        position: usize,
        /// The state.
        state: Name,
        /// Its element type.
        wanted: DType,
    },
    /// The script's `weights` block is not understood.
    #[error("weights: {0}; write `state = \"name in the file\"`, with `transposed` after it if need be")]
    Mapping(String),
    /// The session's states are of another model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// No memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// Named tensors from a file.
#[derive(Clone, Debug)]
pub struct Weights {
    /// Where they come from.
    pub file: String,
    /// In file order.
    pub tensors: IndexMap<String, Tensor>,
    /// Whether [`save`] wrote them: then they are named after the states, whatever the script calls foreign ones.
    pub own: bool,
}

/// Entry of a file's metadata that marks it as [`save`]'s, and its value.
const OWN: (&str, &str) = ("names", "kiln states");

/// The name of a state in a foreign file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignName {
    /// The state.
    pub state: Name,
    /// Its name in the file.
    pub foreign: Name,
    /// Whether the file has the matrix transposed.
    pub transposed: bool,
}

impl Weights {
    /// Reads a `.safetensors` or `.npz` file; the content tells which.
    ///
    /// # Errors
    /// [`WeightsError::Data`].
    pub fn read(path: &Path) -> Result<Weights, WeightsError> {
        let file = path.display().to_string();
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_err(|source| DataError::Io { file: file.clone(), source })?;
        if bytes.starts_with(b"PK") {
            let tensors = npy::read_archive(&file, std::io::Cursor::new(bytes))?;
            return Ok(Weights { file, tensors, own: false });
        }
        let tensors = decode(&file, &bytes)?;
        let metadata = SafeTensors::read_metadata(&bytes).ok().and_then(|(_, metadata)| metadata.metadata().clone());
        let own = metadata.is_some_and(|entries| entries.get(OWN.0).is_some_and(|value| value == OWN.1));
        Ok(Weights { file, tensors, own })
    }

    /// Copies the weights into the session's states: every parameter and statistic of the module must be there, other
    /// states may. Returns the names of tensors that nothing used, in file order. On error nothing is copied.
    ///
    /// # Errors
    /// [`WeightsError`].
    pub fn apply(&self, session: &mut Session, module: &Module) -> Result<Vec<String>, WeightsError> {
        let foreign = if self.own { Vec::new() } else { foreign_names(module.recipe.as_ref())? };
        let mut unused: IndexMap<&str, ()> = self.tensors.keys().map(|name| (name.as_str(), ())).collect();
        let mut missing = Vec::new();
        let mut found = Vec::new();
        for (name, state) in &module.states {
            let mapped = foreign.iter().find(|entry| entry.state == *name);
            let tensor_name = mapped.map_or(name, |entry| &entry.foreign);
            match self.tensors.get(&**tensor_name) {
                Some(tensor) => {
                    unused.shift_remove(&**tensor_name);
                    let transposed = mapped.is_some_and(|entry| entry.transposed);
                    found.push((name, self.fit(tensor_name, tensor, name, &state.ty, transposed)?));
                }
                None if matches!(state.role, Role::Param | Role::Statistic) => missing.push(format!("`{tensor_name}`")),
                None => {}
            }
        }
        if !missing.is_empty() {
            return Err(WeightsError::Missing {
                file: self.file.clone(),
                missing: missing.join(", "),
                found: self.tensors.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
            });
        }
        for (name, tensor) in found {
            session.put_state(name.clone(), tensor)?;
        }
        Ok(unused.into_keys().map(str::to_owned).collect())
    }

    /// A tensor in the type of a state.
    fn fit(
        &self,
        tensor_name: &str,
        tensor: &Tensor,
        state: &Name,
        wanted: &TensorType,
        transposed: bool,
    ) -> Result<Tensor, WeightsError> {
        let turned = if transposed { transpose(tensor)? } else { None };
        if transposed && turned.is_none() {
            return Err(WeightsError::Mapping(format!(
                "`{tensor_name}` is {}, not a matrix to transpose",
                tensor.ty()
            )));
        }
        let tensor = turned.as_ref().unwrap_or(tensor);
        if tensor.ty().shape != wanted.shape {
            let reversed = tensor.ty().extents().iter().rev().eq(wanted.extents().iter());
            return Err(WeightsError::Shape {
                file: self.file.clone(),
                tensor: tensor_name.to_owned(),
                found: Box::new(tensor.ty().clone()),
                state: state.clone(),
                wanted: Box::new(wanted.clone()),
                help: match reversed {
                    true => "it is the transpose: map it with `transposed`",
                    false => "use weights of the same model",
                },
            });
        }
        convert::check(tensor, wanted.dtype).map_err(|fault| WeightsError::Conversion {
            file: self.file.clone(),
            tensor: tensor_name.to_owned(),
            value: fault.value,
            position: fault.position,
            state: state.clone(),
            wanted: wanted.dtype,
        })?;
        let mut fitted = Tensor::zeros(wanted.clone())?;
        convert::convert(tensor.dtype(), tensor.bytes(), wanted.dtype, fitted.bytes_mut());
        Ok(fitted)
    }
}

/// The transpose of a matrix; `None` of anything else.
fn transpose(tensor: &Tensor) -> Result<Option<Tensor>, OutOfMemory> {
    let &[rows, columns] = &tensor.ty().extents()[..] else { return Ok(None) };
    let size = tensor.dtype().bytes();
    let mut turned = Tensor::zeros(tensor.ty().with_shape([columns, rows]))?;
    for (position, out) in turned.bytes_mut().chunks_exact_mut(size).enumerate() {
        let (row, column) = (position % rows, position / rows);
        if let Some(element) = tensor.bytes().get((row * columns + column) * size..).and_then(|rest| rest.get(..size)) {
            out.copy_from_slice(element);
        }
    }
    Ok(Some(turned))
}

/// The `weights` block of a script.
///
/// # Errors
/// [`WeightsError::Mapping`].
pub fn foreign_names(recipe: Option<&Recipe>) -> Result<Vec<ForeignName>, WeightsError> {
    let entries = match recipe.and_then(|recipe| recipe.get("weights")) {
        None => return Ok(Vec::new()),
        Some(AttrValue::Record(_, entries)) => entries,
        Some(other) => return Err(WeightsError::Mapping(format!("`{other}` is no block of names"))),
    };
    let named = |(state, value): &(Name, AttrValue)| {
        foreign_name(state, value).ok_or_else(|| WeightsError::Mapping(format!("`{state} = {value}`")))
    };
    entries.iter().map(named).collect()
}

/// `"name"`, or the list of the name and the word `transposed`.
fn foreign_name(state: &Name, value: &AttrValue) -> Option<ForeignName> {
    let (foreign, transposed) = match value {
        AttrValue::Text(foreign) => (foreign, false),
        AttrValue::List(parts) => match &parts[..] {
            [AttrValue::Text(foreign), AttrValue::Word(word)] if &**word == "transposed" => (foreign, true),
            _ => return None,
        },
        _ => return None,
    };
    Some(ForeignName { state: state.clone(), foreign: foreign.clone(), transposed })
}

fn decode(file: &str, bytes: &[u8]) -> Result<IndexMap<String, Tensor>, WeightsError> {
    let damaged = |what: String| DataError::Damaged { file: file.to_owned(), what };
    let parsed =
        SafeTensors::deserialize(bytes).map_err(|error| damaged(format!("neither .safetensors nor .npz: {error}")))?;
    let mut views: Vec<(&str, TensorView<'_>)> = parsed.iter().collect();
    views.sort_by_key(|(name, view)| (view.data().as_ptr() as usize, *name));
    let mut tensors = IndexMap::new();
    for (name, view) in views {
        let dtype = dtype_of(view.dtype()).ok_or_else(|| DataError::Unsupported {
            file: file.to_owned(),
            array: name.to_owned(),
            found: format!("{:?}", view.dtype()),
        })?;
        let ty = TensorType::new(dtype, view.shape());
        let tensor = Tensor::from_bytes(ty, view.data()).map_err(|error| match error {
            TensorError::OutOfMemory(error) => WeightsError::OutOfMemory(error),
            error => damaged(format!("tensor `{name}`: {error}")).into(),
        })?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

fn dtype_of(dtype: Dtype) -> Option<DType> {
    DType::ALL.into_iter().find(|&ours| file_dtype(ours) == dtype)
}

fn file_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::Bf16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        DType::I8 => Dtype::I8,
        DType::U8 => Dtype::U8,
        DType::I32 => Dtype::I32,
        DType::U32 => Dtype::U32,
        DType::I64 => Dtype::I64,
        DType::Bool => Dtype::BOOL,
    }
}

/// Writes the parameters and statistics of a module, atomically: on any failure the old file stays.
///
/// # Errors
/// [`WriteError`].
pub fn save(path: &Path, states: &StateStore, module: &Module) -> Result<(), WriteError> {
    let kept = module.states.iter().filter(|(_, state)| matches!(state.role, Role::Param | Role::Statistic));
    let tensors = kept.filter_map(|(name, _)| states.get(name).map(|tensor| (&**name, tensor)));
    write(path, tensors, Some([OWN].map(|(key, value)| (key.to_owned(), value.to_owned())).into()))
}

/// Writes named tensors as `.safetensors`, atomically.
///
/// # Errors
/// [`WriteError`].
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> Result<(), WriteError> {
    write(path, tensors, None)
}

fn write<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
    metadata: Option<HashMap<String, String>>,
) -> Result<(), WriteError> {
    let tensors: Vec<(&str, &Tensor)> = tensors.collect();
    write_atomically(path, |out| {
        let views: Result<Vec<_>, _> = tensors.iter().map(|(name, tensor)| Ok((*name, view(tensor)?))).collect();
        let bytes = views.and_then(|views| safetensors::serialize(views, metadata));
        std::io::Write::write_all(out, &bytes.map_err(std::io::Error::other)?)
    })
}

fn view(tensor: &Tensor) -> Result<TensorView<'_>, safetensors::SafeTensorError> {
    TensorView::new(file_dtype(tensor.dtype()), tensor.ty().extents().to_vec(), tensor.bytes())
}

#[cfg(test)]
#[path = "weights_tests.rs"]
mod tests;
