//! `model.safetensors.index.json`: which tensor lies in which file.
//!
//! What must stay true: an index comes with a downloaded model, so the files it names must lie in
//! its own directory. A link in that directory may point anywhere; download caches rely on it.

use super::shorten;
use crate::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Longest index that is read. That of a model with a million tensors has this order of size.
const MAX_INDEX_BYTES: u64 = 100_000_000;

/// A parsed index.
pub(super) struct Index {
    path: PathBuf,
    /// The file of each tensor, by the tensor's name.
    promises: BTreeMap<String, PathBuf>,
}

impl Index {
    /// Reads the index at `path` and resolves the files it names.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = read_bounded(path)?;
        let mut index: Value = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(path, format!("the index is no valid JSON: {error}")))?;
        let Some(Value::Object(map)) = index.get_mut("weight_map").map(Value::take) else {
            return Err(invalid(path, "found no object `weight_map` in the index"));
        };
        if map.is_empty() {
            return Err(invalid(path, "found an empty `weight_map` in the index"));
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        let mut promises = BTreeMap::new();
        for (tensor, file) in map {
            let file = resolve(path, directory, &tensor, &file)?;
            promises.insert(tensor, file);
        }
        Ok(Index {
            path: path.into(),
            promises,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Each tensor with the file that should hold it.
    pub(super) fn promises(&self) -> impl Iterator<Item = (&str, &PathBuf)> {
        self.promises
            .iter()
            .map(|(name, file)| (name.as_str(), file))
    }
}

/// The path of the file that the index names for `tensor`.
fn resolve(path: &Path, directory: &Path, tensor: &str, file: &Value) -> Result<PathBuf> {
    let Value::String(file) = file else {
        return Err(invalid(
            path,
            format!("tensor `{tensor}`: found {file} in `weight_map`, expected a file name"),
        ));
    };
    let inside = Path::new(file)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if file.is_empty() || !inside {
        return Err(invalid(
            path,
            format!(
                "tensor `{tensor}`: found the file `{file}`, expected one inside the directory of \
                 the index"
            ),
        ));
    }
    Ok(directory.join(file))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let io = |source| Error::Io {
        path: path.into(),
        source,
    };
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() || metadata.len() > MAX_INDEX_BYTES {
        return Err(invalid(
            path,
            format!(
                "this is no regular file of at most {MAX_INDEX_BYTES} bytes, expected an index"
            ),
        ));
    }
    std::fs::read(path).map_err(io)
}

fn invalid(path: &Path, reason: impl Into<String>) -> Error {
    Error::InvalidFile {
        path: path.into(),
        reason: shorten(reason.into()),
    }
}
