//! What all tests of the program share: running it, and the golden files.

// Each test file uses a part of it.
#![allow(dead_code)]

use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a run of the program left.
pub struct Run {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub error: String,
}

/// The program, to be run with these arguments: where the environment says that it is, else where it was built.
pub fn command<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let carried = std::env::var_os("CARGO_BIN_EXE_trellink");
    let program = carried.unwrap_or_else(|| env!("CARGO_BIN_EXE_trellink").into());
    let mut command = Command::new(program);
    command.args(args).env("RUST_BACKTRACE", "1");
    command
}

/// Runs the program to its end.
pub fn run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Run {
    let output = command(args).output().unwrap();
    Run {
        status: output.status.code().expect("no signal ended the program"),
        out: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Run {
    /// Standard output as JSON, after a run that must have ended with `status`.
    pub fn json(&self, status: i32) -> Value {
        assert_eq!(self.status, status, "{}{}", self.out, self.error);
        serde_json::from_str(&self.out).unwrap()
    }

    /// Asserts that the run refused its input in one line that holds `text`.
    pub fn assert_refused(&self, text: &str) {
        let error = &self.error;
        assert_eq!(self.status, 2, "{}{error}", self.out);
        assert_eq!(self.out, "");
        assert!(
            error.starts_with("error: ") && error.ends_with('\n'),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(text), "`{text}` in {error}");
    }
}

/// A folder of the repository's test data: of what `TRELLINK_TEST_DATA` names, else of the sources.
pub fn data(name: &str) -> PathBuf {
    let carried = std::env::var_os("TRELLINK_TEST_DATA").map(PathBuf::from);
    let sources = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
    carried.unwrap_or_else(sources).join(name)
}

/// All golden files.
pub fn golden_files() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(data("golden")).unwrap();
    let files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 27);
    files
}

/// A golden file's bytes after `damage`, which gets them and where the data of `tensor` begins.
pub fn damaged(name: &str, tensor: &str, damage: impl Fn(&mut Vec<u8>, usize)) -> Vec<u8> {
    let mut bytes = std::fs::read(data("golden").join(name)).unwrap();
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_bytes]).unwrap();
    let begin = header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    damage(&mut bytes, 8 + header_bytes + begin);
    bytes
}
