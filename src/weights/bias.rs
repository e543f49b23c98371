//! The bias of one linear in whichever floating-point type the file has.
//!
//! What must stay true: the byte count is a whole number of elements.

use crate::format::DType;
use crate::{Error, Result};
use half::{bf16, f16};
use std::ops::Range;

/// The bias of a linear: one value per out-feature, little-endian, unaligned, f16, bf16 or f32.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bias<'a> {
    bytes: &'a [u8],
    dtype: DType,
}

impl<'a> Bias<'a> {
    /// A bias of `bytes.len() / dtype.size()` channels.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `bytes` is no whole number of elements.
    pub fn new(bytes: &'a [u8], dtype: DType) -> Result<Self> {
        if !bytes.len().is_multiple_of(dtype.size()) {
            return Err(Error::argument(
                "bias",
                format!("{} bytes", bytes.len()),
                format!("a multiple of {} bytes ({dtype})", dtype.size()),
            ));
        }
        Ok(Bias { bytes, dtype })
    }

    /// Number of channels.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether there is no channel.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The type in which the values are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The bias of channel `i`, widened to f32 without loss.
    ///
    /// # Panics
    /// If `i >= len()`.
    pub fn get(&self, i: usize) -> f32 {
        let size = self.dtype.size();
        match (self.dtype, &self.bytes[i * size..][..size]) {
            (DType::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            (DType::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            (DType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            _ => unreachable!("the slice above has dtype.size() bytes"),
        }
    }

    /// The bias of all channels, in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = f32> + 'a {
        (0..self.len()).map(move |i| self.get(i))
    }

    /// The bias of all channels as f32.
    pub fn to_vec(&self) -> Vec<f32> {
        self.iter().collect()
    }

    /// The bias of `channels`, which the caller has checked to lie within `len()`.
    pub(super) fn slice(&self, channels: Range<usize>) -> Self {
        let size = self.dtype.size();
        Bias {
            bytes: &self.bytes[channels.start * size..channels.end * size],
            dtype: self.dtype,
        }
    }
}

/// Length and type only: the values of a real layer would flood a log.
impl std::fmt::Debug for Bias<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bias({} x {})", self.len(), self.dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_reads_back_from_unaligned_bytes() {
        let values = [0.5f32, -3.0, 256.0];
        for dtype in DType::ALL {
            let mut bytes = vec![0xAA];
            for v in values {
                match dtype {
                    DType::F16 => bytes.extend(f16::from_f32(v).to_le_bytes()),
                    DType::Bf16 => bytes.extend(bf16::from_f32(v).to_le_bytes()),
                    DType::F32 => bytes.extend(v.to_le_bytes()),
                }
            }
            let bias = Bias::new(&bytes[1..], dtype).unwrap();
            assert_eq!(bias.to_vec(), values);
            assert_eq!(bias.slice(1..3).to_vec(), values[1..]);
            assert!(Bias::new(&bytes[..1], dtype).is_err());
        }
    }
}
