//! The tensors of all files of a checkpoint under their names.
//!
//! What must stay true: `entries` is sorted by `natural::compare` and every name occurs once; the
//! byte range of an entry lies within its file.

use super::file::File;
use super::index::Index;
use super::{header, natural, shorten};
use crate::{Error, Result};
use std::ops::Range;
use std::path::Path;

/// A tensor of the checkpoint as raw bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tensor<'a> {
    name: &'a str,
    dtype: &'a str,
    shape: &'a [usize],
    bytes: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// The full name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The element type as safetensors writes it: `F16`, `BF16`, `F32`, `I16` and so on.
    pub fn dtype(&self) -> &'a str {
        self.dtype
    }

    /// The dimensions; empty for a scalar.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The elements, little-endian and row-major, at any alignment.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Without the bytes, which would flood a log.
impl std::fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({} {} {:?})", self.name, self.dtype, self.shape)
    }
}

/// Where one tensor lies.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    /// Index into the catalogue's files.
    file: usize,
    bytes: Range<usize>,
}

/// All files and all tensors of a checkpoint.
pub(super) struct Catalogue {
    files: Vec<File>,
    entries: Vec<Entry>,
}

impl Catalogue {
    /// Reads each file's header once.
    pub(super) fn new(files: Vec<File>) -> Result<Self> {
        let mut entries = Vec::new();
        for (index, file) in files.iter().enumerate() {
            entries.extend(header::parse(file)?.into_iter().map(|placed| Entry {
                name: placed.name,
                dtype: placed.dtype,
                shape: placed.shape,
                file: index,
                bytes: placed.bytes,
            }));
        }
        entries.sort_by(|a, b| natural::compare(&a.name, &b.name).then(a.file.cmp(&b.file)));
        let catalogue = Catalogue { files, entries };
        catalogue.refuse_duplicates()?;
        Ok(catalogue)
    }

    fn refuse_duplicates(&self) -> Result<()> {
        for pair in self.entries.windows(2) {
            if pair[0].name == pair[1].name {
                return Err(self.invalid(
                    &pair[1],
                    format!(
                        "a second tensor of this name; {} has one",
                        self.path_of(&pair[0])
                    ),
                    "each name once in all files of a checkpoint",
                ));
            }
        }
        Ok(())
    }

    /// Checks that every tensor is in the file in which the index promises it.
    pub(super) fn check_promises(&self, index: &Index) -> Result<()> {
        for (tensor, path) in index.promises() {
            let holder = self.find(tensor).map(|entry| self.path(entry));
            if holder == Some(path.as_path()) {
                continue;
            }
            let elsewhere = match holder {
                Some(holder) => format!(", but {} has it", holder.display()),
                None => String::new(),
            };
            return Err(Error::MissingTensor {
                path: path.clone(),
                tensor: shorten(tensor.into()),
                reason: format!("{} promises it here{elsewhere}", index.path().display()),
            });
        }
        Ok(())
    }

    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn find(&self, name: &str) -> Option<&Entry> {
        let found = self
            .entries
            .binary_search_by(|entry| natural::compare(&entry.name, name));
        found.ok().map(|at| &self.entries[at])
    }

    pub(super) fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.files[entry.file].bytes()[entry.bytes.clone()]
    }

    pub(super) fn view<'a>(&'a self, entry: &'a Entry) -> Tensor<'a> {
        Tensor {
            name: &entry.name,
            dtype: &entry.dtype,
            shape: &entry.shape,
            bytes: self.bytes(entry),
        }
    }

    pub(super) fn path(&self, entry: &Entry) -> &Path {
        self.files[entry.file].path()
    }

    fn path_of(&self, entry: &Entry) -> String {
        self.path(entry).display().to_string()
    }

    /// The error for a tensor that is not what the format demands.
    pub(super) fn invalid(
        &self,
        entry: &Entry,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Error {
        Error::InvalidTensor {
            path: self.path(entry).into(),
            tensor: shorten(entry.name.clone()),
            found: shorten(found.into()),
            expected: expected.into(),
        }
    }
}
