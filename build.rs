//! Builds `csrc/`: the host library always, one fatbin per kernel file with the `cuda` feature,
//! and the bindings of `csrc/params.h` with the `bindgen` feature.
//!
//! What the crate gets from here:
//!
//! | name | with | content |
//! |---|---|---|
//! | library `trellink_host` | always | `csrc/host/*.cpp`, the tile kernels once per instruction set |
//! | `OUT_DIR/fatbins.rs` | always | `FATBINS: &[(&str, &[u8])]`, empty without `cuda` and on docs.rs |
//! | env `TRELLINK_CUDA_ARCHS` | always | the architectures in the fatbins, as in `CUDA_COMPUTE_CAP` |
//! | env `TRELLINK_NVCC_VERSION` | always | the release of nvcc, empty when nvcc was not used |
//! | env `TRELLINK_BINDINGS` | `bindgen` | path of the bindings generated from `csrc/params.h` |

use std::env;
use std::path::PathBuf;

#[cfg(feature = "bindgen")]
#[path = "build/bindings.rs"]
mod bindings;
#[path = "build/device.rs"]
mod device;
#[path = "build/host.rs"]
mod host;
#[path = "build/nvcc.rs"]
mod nvcc;

/// A failure is a text for the person who builds; nobody matches on it.
type Result<T> = std::result::Result<T, String>;

fn main() {
    if let Err(message) = run() {
        // Cargo fails on these by itself. A failing exit status would bury them in everything
        // else that was printed. One per line: an instruction ends where the line does.
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn run() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=csrc");

    let csrc = PathBuf::from(env_var("CARGO_MANIFEST_DIR")?).join("csrc");
    let out_dir = PathBuf::from(env_var("OUT_DIR")?);
    host::build(&csrc, &out_dir)?;
    if env::var_os("CARGO_FEATURE_CUDA").is_some() && env_flag("DOCS_RS").is_none() {
        device::build(&csrc, &out_dir)?;
    } else {
        device::build_nothing(&out_dir)?;
    }
    #[cfg(feature = "bindgen")]
    bindings::generate(&csrc, &out_dir)?;
    Ok(())
}

/// A variable that cargo always sets.
fn env_var(name: &str) -> Result<String> {
    env::var(name).map_err(|e| format!("{name}: {e}; build scripts are run by cargo"))
}

/// A variable that a person may set: declared to cargo, and absent when empty.
fn env_flag(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The files of a folder with one extension, in the same order everywhere; none if it is absent.
fn files_with_extension(folder: &std::path::Path, extension: &str) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = folder
        .read_dir()
        .map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|e| format!("{}: {e}", folder.display()))?
            .path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
