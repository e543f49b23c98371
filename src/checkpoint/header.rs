//! The header of one safetensors file: which tensors lie where.
//!
//! The `safetensors` crate decides whether a header is valid: every tensor's offsets fit its dtype
//! and shape, and the tensors lie side by side. This file frames the header, compares its end with
//! the end of the file, and, for a header that was refused, finds out which tensor is to blame.

use super::file::File;
use super::shorten;
use crate::{Error, Result};
use safetensors::tensor::{Metadata, SafeTensorError, TensorInfo};
use serde_json::{Map, Value};
use std::ops::Range;

/// Bytes of the header's length at the start of a file, a little-endian u64.
const LENGTH_BYTES: usize = 8;

/// Longest header that is read: the limit of the reference implementation.
const MAX_HEADER_BYTES: usize = 100_000_000;

/// Where one tensor lies in its file.
pub(super) struct Placed {
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    /// Within the bytes of the file: `parse` has checked it.
    pub(super) bytes: Range<usize>,
}

/// All tensors of `file`, in no particular order.
pub(super) fn parse(file: &File) -> Result<Vec<Placed>> {
    let header = read(file)?;
    // Not `SafeTensors::read_metadata`: it adds the end of the last tensor, which the file chose,
    // to the header's length, and that sum overflows.
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| explain(file, &header, &error))?;
    let data_start = LENGTH_BYTES + header.len();
    let present = file.bytes().len() - data_start;
    if metadata.data_len() != present {
        return Err(wrong_length(file, &metadata, present));
    }
    let tensors = metadata.tensors().into_iter();
    Ok(tensors
        .map(|(name, info)| Placed {
            name,
            dtype: info.dtype.to_string(),
            shape: info.shape.clone(),
            bytes: data_start + info.data_offsets.0..data_start + info.data_offsets.1,
        })
        .collect())
}

/// A copy of the header, which stays as it is should the file change while it is parsed.
fn read(file: &File) -> Result<Vec<u8>> {
    let bytes = file.bytes();
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(invalid_file(
            file,
            format!(
                "found {} bytes, expected a safetensors file, which begins with the 8-byte length \
                 of its header",
                bytes.len()
            ),
        ));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length)
        .ok()
        .filter(|&length| length <= MAX_HEADER_BYTES)
        .and_then(|length| rest.get(..length));
    header.map(<[u8]>::to_vec).ok_or_else(|| {
        invalid_file(
            file,
            format!(
                "found a header length of {length} bytes, expected at most the {} bytes that \
                 follow and at most {MAX_HEADER_BYTES}",
                rest.len()
            ),
        )
    })
}

/// The error for data that is longer or shorter than the header says.
fn wrong_length(file: &File, metadata: &Metadata, present: usize) -> Error {
    let claimed = metadata.data_len();
    let tensors = metadata.tensors();
    let beyond = tensors
        .iter()
        .filter(|(_, info)| info.data_offsets.1 > present)
        .min_by_key(|(_, info)| info.data_offsets);
    match beyond {
        Some((name, info)) => invalid_tensor(
            file,
            name,
            format!("data up to byte {}", info.data_offsets.1),
            format!("an end within the {present} bytes of data in the file; is it truncated?"),
        ),
        None => invalid_file(
            file,
            format!("found {present} bytes of data, expected the {claimed} that the header lists"),
        ),
    }
}

/// Why the header was refused, with the tensor to blame where there is one.
fn explain(file: &File, header: &[u8], error: &serde_json::Error) -> Error {
    let reason = || invalid_file(file, format!("the safetensors header is invalid: {error}"));
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(header) else {
        return reason();
    };
    let mut infos = Vec::new();
    for (name, value) in fields {
        if name == "__metadata__" {
            continue;
        }
        match serde_json::from_value::<TensorInfo>(value.clone()) {
            Ok(info) => infos.push((name, info)),
            Err(error) => {
                let expected = format!("dtype, shape and data_offsets ({error})");
                return invalid_tensor(file, &name, value.to_string(), expected);
            }
        }
    }
    infos.sort_by_key(|(_, info)| info.data_offsets);
    misplaced(file, &infos).unwrap_or_else(reason)
}

/// The first tensor that does not begin where the one before it ends, or does not fill its place.
fn misplaced(file: &File, infos: &[(String, TensorInfo)]) -> Option<Error> {
    let mut end_of_previous = 0;
    for (name, info) in infos {
        let (start, end) = info.data_offsets;
        if start != end_of_previous {
            let found = format!("data_offsets [{start}, {end}]");
            let expected = format!("a start at {end_of_previous}, where the data before it ends");
            return Some(invalid_tensor(file, name, found, expected));
        }
        let size = data_bytes(info);
        if size.is_none() || end.checked_sub(start) != size {
            let found = format!(
                "data_offsets [{start}, {end}] for {} of shape {:?}",
                info.dtype, info.shape
            );
            let expected = match size {
                Some(size) => format!("{size} bytes"),
                None => SafeTensorError::ValidationOverflow.to_string(),
            };
            return Some(invalid_tensor(file, name, found, expected));
        }
        end_of_previous = end;
    }
    None
}

/// Bytes of a tensor's data; `None` if they overflow or are not whole.
fn data_bytes(info: &TensorInfo) -> Option<usize> {
    let elements = info
        .shape
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))?;
    let bits = elements.checked_mul(info.dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

fn invalid_file(file: &File, reason: String) -> Error {
    Error::InvalidFile {
        path: file.path().into(),
        reason: shorten(reason),
    }
}

fn invalid_tensor(file: &File, tensor: &str, found: String, expected: String) -> Error {
    Error::InvalidTensor {
        path: file.path().into(),
        tensor: shorten(tensor.into()),
        found: shorten(found),
        expected: shorten(expected),
    }
}
