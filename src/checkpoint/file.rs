//! The bytes of one safetensors file: mapped from disk, or handed over by the caller.

use crate::{Error, Result};
use memmap2::Mmap;
use std::path::{Path, PathBuf};

/// One file of a checkpoint.
pub(super) struct File {
    path: PathBuf,
    content: Content,
}

enum Content {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl File {
    /// Maps the file at `path` for reading.
    pub(super) fn map(path: &Path) -> Result<Self> {
        let io = |source| Error::Io {
            path: path.into(),
            source,
        };
        // Asked before opening: opening a FIFO would wait for a writer.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(Error::InvalidFile {
                path: path.into(),
                reason: "this is not a regular file, expected a safetensors file".into(),
            });
        }
        let file = std::fs::File::open(path).map_err(io)?;
        // SAFETY: the mapping is read-only and lives as long as every slice taken from it. That
        // nobody changes the file meanwhile is the caller's promise (the contract of
        // `Checkpoint`). Only u8 is ever read through it, for which every value is valid, and
        // headers are copied before they are parsed, so a broken promise cannot make a `str`
        // invalid or an offset unchecked.
        let mapped = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(File {
            path: path.into(),
            content: Content::Mapped(mapped),
        })
    }

    /// Takes over a file's content.
    pub(super) fn from_bytes(path: PathBuf, bytes: Vec<u8>) -> Self {
        File {
            path,
            content: Content::Owned(bytes),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(mapped) => mapped,
            Content::Owned(bytes) => bytes,
        }
    }
}
