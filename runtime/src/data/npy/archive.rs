//! The arrays of an `.npz` archive, read one by one.

use std::io::{Read, Seek, SeekFrom};

use indexmap::IndexMap;
use npyz::npz::{NpzArchive, array_name_from_file_name};

use super::{DataError, read_array};
use crate::tensor::Tensor;

/// Most that DEFLATE can expand data; an entry that claims more is damaged.
const LARGEST_EXPANSION: u64 = 1032;

/// An open `.npz` archive. Stored entries are read straight into the memory of tensors, compressed ones are expanded
/// there; either way the checksum of the entry is compared.
pub struct Archive<R: Read + Seek> {
    file: String,
    archive: NpzArchive<R>,
    /// Length of the whole file in bytes.
    length: u64,
    /// Index of each array's entry, in file order.
    entries: IndexMap<String, usize>,
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the directory of an archive; `file` names it in messages.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::Damaged`].
    pub fn new(file: &str, mut source: R) -> Result<Archive<R>, DataError> {
        let damaged = |what: String| DataError::Damaged { file: file.to_owned(), what };
        let length = source.seek(SeekFrom::End(0)).and_then(|length| source.rewind().map(|()| length));
        let length = length.map_err(|source| DataError::Io { file: file.to_owned(), source })?;
        let mut archive = NpzArchive::new(source).map_err(|error| damaged(format!("no .npz archive: {error}")))?;
        let mut entries = IndexMap::new();
        for index in 0..archive.zip_archive().len() {
            let entry = archive.zip_archive().by_index_raw(index).map_err(|error| damaged(error.to_string()))?;
            if let Some(array) = array_name_from_file_name(entry.name()) {
                entries.insert(array.to_owned(), index);
            }
        }
        match entries.is_empty() {
            true => Err(damaged("the archive holds no arrays".into())),
            false => Ok(Archive { file: file.to_owned(), archive, length, entries }),
        }
    }

    /// Names of the arrays, in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is an array of that name.
    pub fn has(&self, array: &str) -> bool {
        self.entries.contains_key(array)
    }

    /// Reads an array; `None` if there is none of that name.
    ///
    /// # Errors
    /// [`DataError`]: the entry is damaged, or holds something else than numbers.
    pub fn read(&mut self, array: &str) -> Result<Option<Tensor>, DataError> {
        let Some(&index) = self.entries.get(array) else { return Ok(None) };
        let file = &self.file;
        let damaged = |what: String| DataError::DamagedArray { file: file.clone(), array: array.to_owned(), what };
        let mut entry = self.archive.zip_archive().by_index(index).map_err(|error| damaged(error.to_string()))?;
        let (size, compressed) = (entry.size(), entry.compressed_size());
        if compressed > self.length || size > compressed.saturating_mul(LARGEST_EXPANSION).saturating_add(1 << 16) {
            return Err(damaged(format!("it claims {size} bytes in {compressed} compressed ones")));
        }
        let tensor = read_array(file, array, size, &mut entry)?;
        // The checksum is compared where the entry ends.
        let rest = std::io::copy(&mut entry.by_ref().take(size), &mut std::io::sink());
        rest.map_err(|error| damaged(error.to_string()))?;
        Ok(Some(tensor))
    }
}
