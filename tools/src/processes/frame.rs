//! Bytes between the program and the processes of its ranks, in frames of a length and the rest.

use anyhow::{bail, Context as _, Result};
use serde::{de::DeserializeOwned, Serialize};
use std::io::{Read, Write};

/// What is said of a process that closes its pipes too early.
pub const GONE: &str = "the other process has gone";

/// Writes one frame, at once.
pub fn write(mut pipe: impl Write, bytes: &[u8]) -> Result<()> {
    let length = bytes.len() as u64;
    let frame = [&length.to_le_bytes()[..], bytes].concat();
    let written = pipe.write_all(&frame).and_then(|()| pipe.flush());
    written.context(GONE)
}

/// Reads one frame.
pub fn read(mut pipe: impl Read) -> Result<Vec<u8>> {
    let mut length = [0; 8];
    pipe.read_exact(&mut length).context(GONE)?;
    let length = u64::from_le_bytes(length);
    let mut bytes = Vec::new();
    // Not allocated before it is there.
    let read = pipe.take(length).read_to_end(&mut bytes)?;
    if read as u64 != length {
        bail!("{GONE} in the middle of its answer");
    }
    Ok(bytes)
}

/// Writes a value as one frame.
pub fn write_value(pipe: impl Write, value: &impl Serialize) -> Result<()> {
    write(pipe, &serde_json::to_vec(value).context("JSON")?)
}

/// Reads a value from one frame.
pub fn read_value<T: DeserializeOwned>(pipe: impl Read) -> Result<T> {
    serde_json::from_slice(&read(pipe)?).context("JSON from another process")
}
