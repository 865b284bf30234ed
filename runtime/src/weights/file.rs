//! Files of named tensors, opened and read tensor by tensor.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use indexmap::IndexMap;
use kiln_ir::{DType, TensorType};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::data::DataError;
use crate::data::npy::{self, Archive};
use crate::tensor::Tensor;

/// Bytes before the header of a `.safetensors` file: its length.
const LENGTH: u64 = 8;

/// An open file of named tensors.
pub(super) enum TensorFile {
    Npz(Archive<Source>),
    Safetensors(Safetensors),
}

/// Where bytes come from; large reads pass the buffer by.
type Source = BufReader<Box<dyn ReadSeek>>;

pub(super) trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

impl TensorFile {
    /// Opens a file; its first bytes tell of which kind it is.
    ///
    /// # Errors
    /// [`DataError`].
    pub(super) fn open(path: &Path) -> Result<TensorFile, DataError> {
        let name = path.display().to_string();
        let io = |source| DataError::Io { file: name.clone(), source };
        let file = npy::open(path)?;
        let mut source = BufReader::new(seekable(file).map_err(io)?);
        let mut magic = Vec::new();
        source.by_ref().take(2).read_to_end(&mut magic).map_err(io)?;
        source.rewind().map_err(io)?;
        match &magic[..] {
            b"PK" => Archive::new(&name, source).map(TensorFile::Npz),
            _ => Safetensors::open(name, source).map(TensorFile::Safetensors),
        }
    }

    /// Names in file order.
    pub(super) fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            TensorFile::Npz(archive) => Box::new(archive.names()),
            TensorFile::Safetensors(file) => Box::new(file.tensors.keys().map(String::as_str)),
        }
    }

    /// Whether there is a tensor of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            TensorFile::Npz(archive) => archive.has(name),
            TensorFile::Safetensors(file) => file.tensors.contains_key(name),
        }
    }

    /// An entry of the file's metadata.
    pub(super) fn metadata(&self, key: &str) -> Option<&str> {
        match self {
            TensorFile::Npz(_) => None,
            TensorFile::Safetensors(file) => file.metadata.metadata().as_ref()?.get(key).map(String::as_str),
        }
    }

    /// Reads a tensor; `None` if there is none of that name.
    ///
    /// # Errors
    /// [`DataError`].
    pub(super) fn read(&mut self, name: &str) -> Result<Option<Tensor>, DataError> {
        match self {
            TensorFile::Npz(archive) => archive.read(name),
            TensorFile::Safetensors(file) => file.read(name),
        }
    }
}

/// What cannot be searched, such as a pipe, is read into memory.
fn seekable(mut file: File) -> std::io::Result<Box<dyn ReadSeek>> {
    if file.metadata()?.is_file() {
        return Ok(Box::new(file));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Box::new(Cursor::new(bytes)))
}

/// An open `.safetensors` file.
pub(super) struct Safetensors {
    file: String,
    source: Source,
    metadata: Metadata,
    /// Type and place of each tensor, in the order of the places.
    tensors: IndexMap<String, TensorInfo>,
    /// Where the elements begin.
    data: u64,
}

impl Safetensors {
    fn open(file: String, mut source: Source) -> Result<Safetensors, DataError> {
        let io = |source| DataError::Io { file: file.clone(), source };
        let damaged = |what: String| DataError::Damaged { file: file.clone(), what };
        let unknown = |what: &str| damaged(format!("neither .safetensors nor .npz: {what}"));
        let length = source.seek(SeekFrom::End(0)).map_err(io)?;
        source.rewind().map_err(io)?;
        let mut count = [0; LENGTH as usize];
        if length < LENGTH {
            return Err(unknown("it is too short"));
        }
        source.read_exact(&mut count).map_err(io)?;
        let count = u64::from_le_bytes(count);
        if count > length - LENGTH {
            return Err(unknown("the header is longer than the file"));
        }
        let mut header = Vec::new();
        source.by_ref().take(count).read_to_end(&mut header).map_err(io)?;
        // Parsing also checks that the places follow one upon the other, and that sizes are those of the shapes.
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| unknown(&error.to_string()))?;
        let data = LENGTH + count;
        let follow = length - data;
        if metadata.data_len() as u64 != follow {
            return Err(damaged(format!("the tensors have {} bytes, but {follow} follow", metadata.data_len())));
        }
        let names = metadata.offset_keys().into_iter();
        let tensors = names.filter_map(|name| metadata.info(&name).cloned().map(|info| (name, info))).collect();
        Ok(Safetensors { source, metadata, tensors, data, file })
    }

    fn read(&mut self, name: &str) -> Result<Option<Tensor>, DataError> {
        let Some(info) = self.tensors.get(name) else { return Ok(None) };
        let dtype = dtype_of(info.dtype).ok_or_else(|| DataError::Unsupported {
            file: self.file.clone(),
            array: name.to_owned(),
            found: format!("{:?}", info.dtype),
        })?;
        let mut tensor = Tensor::zeros(TensorType::new(dtype, &info.shape[..]))?;
        let start = SeekFrom::Start(self.data + info.data_offsets.0 as u64);
        let read = self.source.seek(start).and_then(|_| self.source.read_exact(tensor.bytes_mut()));
        read.map_err(|source| DataError::Io { file: self.file.clone(), source })?;
        Ok(Some(tensor))
    }
}

fn dtype_of(dtype: Dtype) -> Option<DType> {
    DType::ALL.into_iter().find(|&ours| file_dtype(ours) == dtype)
}

/// An element type as the file names it.
pub(super) fn file_dtype(dtype: DType) -> Dtype {
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
