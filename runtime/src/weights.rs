//! Weights in files: `.safetensors` and `.npz` are read, `.safetensors` is written.
//!
//! Tensors are read one by one, into the memory that the session's states will have: loading needs no more memory than
//! the states, and one tensor on top if it is converted. (A mapped file would save a copy, but it is undefined
//! behaviour if somebody shortens or writes the file meanwhile.)

use std::path::Path;

use indexmap::{IndexMap, IndexSet};
use kiln_ir::attribute::AttrValue;
use kiln_ir::{DType, Module, Name, Recipe, Role, TensorType};

use crate::arena::OutOfMemory;
use crate::data::transpose::reverse_axes;
use crate::data::{DataError, convert};
use crate::error::LoadError;
use crate::session::Session;
use crate::tensor::Tensor;

mod file;
mod save;

use file::TensorFile;
pub use save::{save, write_safetensors};

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

/// Named tensors in a file, which stays open: each is read when it is asked for.
pub struct Weights {
    /// Where they come from.
    pub file: String,
    tensors: TensorFile,
    /// Whether [`save`] wrote them: then they are named after the states, whatever the script calls foreign ones.
    own: bool,
}

/// Entry of a file's metadata that marks it as [`save`]'s, and its value.
const OWN: (&str, &str) = ("names", "kiln states");

/// What a file has for the states of a module.
#[derive(Debug)]
pub struct Fitted {
    /// Tensors in the types of the states, in order of declaration.
    pub states: IndexMap<Name, Tensor>,
    /// Names of tensors that no state uses, in file order.
    pub unused: Vec<String>,
}

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

/// The tensor that a state gets.
struct Source<'a> {
    state: &'a Name,
    wanted: &'a TensorType,
    tensor: &'a str,
    transposed: bool,
}

impl Weights {
    /// Opens a `.safetensors` or `.npz` file; the content tells which. Of its tensors only names and places are read.
    ///
    /// # Errors
    /// [`WeightsError::Data`].
    pub fn open(path: &Path) -> Result<Weights, WeightsError> {
        let tensors = TensorFile::open(path)?;
        Ok(Weights { file: path.display().to_string(), own: tensors.metadata(OWN.0) == Some(OWN.1), tensors })
    }

    /// Names of the tensors, in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.names()
    }

    /// Reads a tensor; `None` if there is none of that name.
    ///
    /// # Errors
    /// [`WeightsError::Data`], [`WeightsError::OutOfMemory`].
    pub fn read(&mut self, name: &str) -> Result<Option<Tensor>, WeightsError> {
        Ok(self.tensors.read(name)?)
    }

    /// Reads what the states of a module need: every parameter and statistic must be there, other states may. A tensor
    /// that has a state's type is read into the memory that the state will have.
    ///
    /// # Errors
    /// [`WeightsError`].
    pub fn fit(&mut self, module: &Module) -> Result<Fitted, WeightsError> {
        let foreign = if self.own { Vec::new() } else { foreign_names(module.recipe.as_ref())? };
        let mut unused: IndexSet<&str> = self.tensors.names().collect();
        let mut missing = Vec::new();
        let mut sources = Vec::new();
        for (name, state) in &module.states {
            let mapped = foreign.iter().find(|entry| entry.state == *name);
            let tensor: &str = mapped.map_or(name, |entry| &entry.foreign);
            if self.tensors.has(tensor) {
                unused.shift_remove(tensor);
                let transposed = mapped.is_some_and(|entry| entry.transposed);
                sources.push(Source { state: name, wanted: &state.ty, tensor, transposed });
            } else if matches!(state.role, Role::Param | Role::Statistic) {
                missing.push(format!("`{tensor}`"));
            }
        }
        if !missing.is_empty() {
            return Err(WeightsError::Missing {
                file: self.file.clone(),
                missing: missing.join(", "),
                found: self.tensors.names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
            });
        }
        let unused = unused.into_iter().map(str::to_owned).collect();
        let states = sources.iter().map(|source| Ok((source.state.clone(), self.fitted(source)?)));
        Ok(Fitted { states: states.collect::<Result<_, WeightsError>>()?, unused })
    }

    /// [`Weights::fit`], and the session's states set so. Returns the names of tensors that nothing used. On error no
    /// state has changed.
    ///
    /// # Errors
    /// [`WeightsError`].
    pub fn apply(&mut self, session: &mut Session, module: &Module) -> Result<Vec<String>, WeightsError> {
        let Fitted { states, unused } = self.fit(module)?;
        session.put_states(states)?;
        Ok(unused)
    }

    /// Reads a tensor in the type of its state.
    fn fitted(&mut self, source: &Source<'_>) -> Result<Tensor, WeightsError> {
        let Source { state, wanted, tensor: name, transposed } = *source;
        let missing = || DataError::Damaged { file: self.file.clone(), what: format!("the tensor `{name}` is gone") };
        let mut tensor = self.tensors.read(name)?.ok_or_else(missing)?;
        if transposed {
            tensor = match tensor.ty().rank() {
                2 => reverse_axes(&tensor)?,
                _ => {
                    return Err(WeightsError::Mapping(format!(
                        "`{name}` is {}, not a matrix to transpose",
                        tensor.ty()
                    )));
                }
            };
        }
        if tensor.ty().shape != wanted.shape {
            let reversed = tensor.ty().extents().iter().rev().eq(wanted.extents().iter());
            return Err(WeightsError::Shape {
                file: self.file.clone(),
                tensor: name.to_owned(),
                found: Box::new(tensor.ty().clone()),
                state: state.clone(),
                wanted: Box::new(wanted.clone()),
                help: match reversed {
                    true => "it is the transpose: map it with `transposed`",
                    false => "use weights of the same model",
                },
            });
        }
        if tensor.ty() == wanted {
            return Ok(tensor);
        }
        convert::check(&tensor, wanted.dtype).map_err(|fault| WeightsError::Conversion {
            file: self.file.clone(),
            tensor: name.to_owned(),
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

impl std::fmt::Debug for Weights {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.names().collect();
        out.debug_struct("Weights").field("file", &self.file).field("tensors", &names).finish_non_exhaustive()
    }
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

#[cfg(test)]
#[path = "weights_tests.rs"]
mod tests;
