//! The states of a session: named tensors that outlive a run and are shared by all programs.

use std::collections::HashSet;

use indexmap::IndexMap;
use kiln_ir::{Name, TensorType};

use crate::arena::OutOfMemory;
use crate::error::LoadError;
use crate::tensor::Tensor;

/// Named tensors in order of declaration.
///
/// A tensor that is in the store stays where it is: programs hold its address. So there is no way to exchange one; a
/// session sets a state by copying, and removes one only when no program uses it.
#[derive(Debug, Default)]
pub struct StateStore {
    tensors: IndexMap<Name, Tensor>,
}

impl StateStore {
    /// A state by name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// States in order of declaration.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Name, &Tensor)> {
        self.tensors.iter()
    }

    /// Number of states.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Sum of the sizes in bytes.
    pub fn bytes(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.bytes().len()).sum()
    }

    /// Adds states, and sets those that are there. On error none has changed.
    ///
    /// # Errors
    /// [`LoadError::StateType`] if a state of that name has another type.
    pub(crate) fn put(&mut self, tensors: impl IntoIterator<Item = (Name, Tensor)>) -> Result<(), LoadError> {
        let tensors: Vec<(Name, Tensor)> = tensors.into_iter().collect();
        for (name, tensor) in &tensors {
            if self.tensors.contains_key(name) {
                self.typed(name, tensor.ty())?;
            }
        }
        for (name, tensor) in tensors {
            match self.tensors.get_mut(&name) {
                Some(state) => state.bytes_mut().copy_from_slice(tensor.bytes()),
                None => _ = self.tensors.insert(name, tensor),
            }
        }
        Ok(())
    }

    /// Frees the memory of a state; its name stays until [`StateStore::forget`]. No loaded program may use it again.
    pub(crate) fn free(&mut self, name: &str) -> Result<(), OutOfMemory> {
        if let Some(state) = self.tensors.get_mut(name) {
            *state = Tensor::zeros(TensorType::new(state.dtype(), [0]))?;
        }
        Ok(())
    }

    /// Removes freed states, all at once: each for itself would move those behind it.
    pub(crate) fn forget(&mut self, freed: &HashSet<&Name>) {
        self.tensors.retain(|name, _| !freed.contains(name));
    }

    /// Copies a tensor into a state.
    ///
    /// # Errors
    /// [`LoadError::UnknownState`], [`LoadError::StateType`].
    pub(crate) fn set(&mut self, name: &str, tensor: &Tensor) -> Result<(), LoadError> {
        let state = self.typed(name, tensor.ty())?;
        state.bytes_mut().copy_from_slice(tensor.bytes());
        Ok(())
    }

    /// The state of that name, if it has that type.
    ///
    /// # Errors
    /// [`LoadError::UnknownState`], [`LoadError::StateType`].
    pub(crate) fn typed(&mut self, name: &str, wanted: &TensorType) -> Result<&mut Tensor, LoadError> {
        let state = self.tensors.get_mut(name).ok_or_else(|| LoadError::UnknownState { state: name.into() })?;
        if state.ty() != wanted {
            return Err(LoadError::StateType {
                state: name.into(),
                found: Box::new(state.ty().clone()),
                wanted: Box::new(wanted.clone()),
            });
        }
        Ok(state)
    }
}
