//! From the path a user gives to the files of the checkpoint.

use super::index::Index;
use super::natural;
use crate::{Error, Result};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// The files of a checkpoint.
pub(super) struct Located {
    /// Each file once, in natural order.
    pub(super) files: Vec<PathBuf>,
    /// The index that named them, if one did.
    pub(super) index: Option<Index>,
}

/// The files that `path` stands for; [`super::Checkpoint::open`] documents the rules.
pub(super) fn locate(path: &Path) -> Result<Located> {
    let io = |source| Error::Io {
        path: path.into(),
        source,
    };
    if !std::fs::metadata(path).map_err(io)?.is_dir() {
        return if path.extension() == Some(OsStr::new("json")) {
            through_index(path)
        } else {
            Ok(without_index(vec![path.into()]))
        };
    }
    let single = path.join(SINGLE_FILE);
    let index = path.join(INDEX_FILE);
    if single.exists() {
        Ok(without_index(vec![single]))
    } else if index.exists() {
        through_index(&index)
    } else {
        Ok(without_index(all_in(path)?))
    }
}

fn without_index(files: Vec<PathBuf>) -> Located {
    Located { files, index: None }
}

fn through_index(path: &Path) -> Result<Located> {
    let index = Index::read(path)?;
    let mut files: Vec<PathBuf> = index.promises().map(|(_, file)| file.clone()).collect();
    sort(&mut files);
    files.dedup();
    for file in &files {
        if !file.exists() {
            return Err(Error::InvalidFile {
                path: path.into(),
                reason: format!(
                    "the index names the file {}, which is absent",
                    file.display()
                ),
            });
        }
    }
    Ok(Located {
        files,
        index: Some(index),
    })
}

/// All safetensors files directly in `directory`.
fn all_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let io = |source| Error::Io {
        path: directory.into(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension() == Some(OsStr::new("safetensors")) && !is_hidden(&path) {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::InvalidFile {
            path: directory.into(),
            reason: format!(
                "found no checkpoint in this directory, expected {SINGLE_FILE}, {INDEX_FILE} or \
                 other *.safetensors files"
            ),
        });
    }
    sort(&mut files);
    Ok(files)
}

/// Archives made on macOS carry a `._x.safetensors` beside each `x.safetensors`.
fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn sort(files: &mut [PathBuf]) {
    // Names that are no UTF-8 may look alike to the first comparison.
    files.sort_by(|a, b| {
        natural::compare(&a.to_string_lossy(), &b.to_string_lossy()).then_with(|| a.cmp(b))
    });
}
