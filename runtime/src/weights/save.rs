//! Writing weights as `.safetensors`.

use std::collections::HashMap;
use std::path::Path;

use kiln_ir::{Module, Role};
use safetensors::tensor::TensorView;

use super::OWN;
use super::file::file_dtype;
use crate::atomic_file::{WriteError, write_atomically};
use crate::states::StateStore;
use crate::tensor::Tensor;

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
