//! A checkpoint on disk: its files mapped, every tensor checked, its EXL3 linears ready as views.
//!
//! `locate` finds the files, `file` maps one, `header` reads what it holds, `catalogue` joins the
//! files into one set of names, `check` holds the rules of an EXL3 linear. What must stay true: a
//! [`Checkpoint`] that exists has passed every check, so nothing that follows from the bytes of its
//! headers can fail or panic later, and no bytes whatever can panic at opening.

mod catalogue;
mod check;
mod file;
mod header;
mod index;
mod locate;
mod natural;

pub use catalogue::Tensor;
pub use check::LinearInfo;

use crate::weights::Linear;
use crate::{Error, Result};
use catalogue::Catalogue;
use file::File;
use locate::Located;
use std::path::{Path, PathBuf};

/// The tensors of one safetensors checkpoint, memory-mapped.
///
/// ```no_run
/// use trellink::Checkpoint;
///
/// let checkpoint = Checkpoint::open("models/llama-3bpw")?;
/// for info in checkpoint.linears() {
///     println!("{}: {} x {}, {} bits, {}", info.name, info.k, info.n, info.bits, info.codebook);
/// }
/// let q_proj = checkpoint.linear("model.layers.0.self_attn.q_proj")?;
/// let shard = q_proj.columns(0..128)?;
/// # Ok::<(), trellink::Error>(())
/// ```
///
/// # Contract: the files must not change
///
/// The files are mapped, not read. Until the checkpoint is dropped, nobody may write to them or
/// shorten them, in this process or another. Reading behind the end of a file that was shortened
/// kills the process (`SIGBUS`); bytes that change give wrong weights, and formally a data race.
/// To replace a checkpoint under a running program, write new files and rename them over the old
/// ones. Where this cannot be promised, read the file and use [`Checkpoint::from_bytes`].
///
/// The headers are parsed from a copy, so what was checked at opening stays checked.
pub struct Checkpoint {
    tensors: Catalogue,
    /// Sorted by [`natural::compare`] of their names.
    linears: Vec<LinearInfo>,
}

impl Checkpoint {
    /// Opens the checkpoint at `path` and checks all of it.
    ///
    /// `path` is one of
    /// - a directory with `model.safetensors`, else with `model.safetensors.index.json`, else with
    ///   any `*.safetensors`, all of which are then taken;
    /// - an index, whose name ends in `.json`;
    /// - a safetensors file.
    ///
    /// The files must not change while the checkpoint lives: see [`Checkpoint`].
    ///
    /// # Errors
    /// - [`Error::Io`] if a file cannot be opened or mapped;
    /// - [`Error::InvalidFile`] for a broken header or index, a directory without a checkpoint, an
    ///   index that names a file which is absent or outside its directory;
    /// - [`Error::MissingTensor`] if a linear lacks a part or a file lacks what the index promises;
    /// - [`Error::InvalidTensor`] if a tensor's place, dtype, shape or value is not what the format
    ///   demands, or if two files hold the same name.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        crate::trace::span!(info_span, "Checkpoint::open", path = %path.as_ref().display());
        let Located { files, index } = locate::locate(path.as_ref())?;
        let checkpoint = Self::open_files(files)?;
        if let Some(index) = index {
            checkpoint.tensors.check_promises(&index)?;
        }
        Ok(checkpoint)
    }

    /// Opens safetensors files as one checkpoint and checks all of it. The tensors of one linear
    /// may lie in different files.
    ///
    /// The files must not change while the checkpoint lives: see [`Checkpoint`].
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`], and [`Error::InvalidArgument`] if there is no path.
    pub fn open_files<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self> {
        let files = paths
            .into_iter()
            .map(|path| File::map(path.as_ref()))
            .collect::<Result<Vec<_>>>()?;
        if files.is_empty() {
            return Err(Error::argument("paths", "no path", "at least one file"));
        }
        Self::from_files(files)
    }

    /// Takes the content of one safetensors file from memory. `path` only names it in errors and
    /// in [`files`](Self::files).
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`] that concern the content of a file.
    pub fn from_bytes(path: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self> {
        Self::from_files(vec![File::from_bytes(path.into(), bytes)])
    }

    fn from_files(files: Vec<File>) -> Result<Self> {
        let tensors = Catalogue::new(files)?;
        let linears = check::linears(&tensors)?;
        crate::trace::event!(
            debug,
            tensors = tensors.entries().len(),
            linears = linears.len(),
            "checkpoint is valid"
        );
        Ok(Checkpoint { tensors, linears })
    }

    /// The EXL3 linears, in natural order of their names (layer 2 before layer 10).
    pub fn linears(&self) -> &[LinearInfo] {
        &self.linears
    }

    /// The EXL3 linear `name`, for example `model.layers.0.self_attn.q_proj`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no EXL3 linear of that name.
    pub fn linear(&self, name: &str) -> Result<Linear<'_>> {
        let found = self
            .linears
            .binary_search_by(|info| natural::compare(&info.name, name));
        match found {
            Ok(at) => self.linears[at].view(&self.tensors),
            Err(_) => Err(self.no_linear(name)),
        }
    }

    fn no_linear(&self, name: &str) -> Error {
        let weight = format!("{name}.weight");
        let hint = if self.tensors.find(&weight).is_some() {
            format!("the tensor `{weight}` is there, so the layer is not quantised")
        } else {
            match self.linears.first() {
                Some(first) => format!("it has {}, from `{}` on", self.linears.len(), first.name),
                None => "it has none at all".into(),
            }
        };
        Error::NotFound {
            kind: "EXL3 linear",
            name: name.into(),
            hint,
        }
    }

    /// Any tensor by its full name, for example `model.norm.weight`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no tensor of that name.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let found = self.tensors.find(name);
        found
            .map(|entry| self.tensors.view(entry))
            .ok_or_else(|| Error::NotFound {
                kind: "tensor",
                name: name.into(),
                hint: format!("it has {}", self.tensors.entries().len()),
            })
    }

    /// The names of all tensors, in natural order.
    pub fn tensor_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.entries().iter().map(|e| e.name.as_str())
    }

    /// The files of the checkpoint.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.tensors.files().iter().map(|file| file.path())
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("files", &self.files().collect::<Vec<_>>())
            .field("tensors", &self.tensors.entries().len())
            .field("linears", &self.linears.len())
            .finish()
    }
}

/// `text` without what follows a limit: names, shapes and values in a file may be megabytes long,
/// and a message should not.
fn shorten(mut text: String) -> String {
    const MAX_CHARS: usize = 300;
    if let Some((cut, _)) = text.char_indices().nth(MAX_CHARS) {
        text.truncate(cut);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_can_be_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Checkpoint>();
        shared::<Linear<'static>>();
        shared::<Tensor<'static>>();
    }
}
