//! The scales on one side of a linear: f16 values, or the sign bits of older files.
//!
//! What must stay true: f16 bytes come in whole values and sign bits in whole words, and a slice
//! begins and ends at a multiple of 16 channels, so that it is a slice of bytes in both forms.

use crate::{Error, Result};
use half::f16;
use std::ops::Range;

/// Channels in one word of sign bits.
const SIGNS_PER_WORD: usize = 16;

/// The input scales (`suh`, one per in-feature) or output scales (`svh`, one per out-feature).
///
/// Stored as f16, or in older files as sign bits (`su`, `sv`), which are read as −1 and +1.
/// The bytes are little-endian and need no alignment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scales<'a> {
    bytes: &'a [u8],
    encoding: Encoding,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    F16,
    Signs,
}

impl<'a> Scales<'a> {
    /// Scales of `bytes.len() / 2` channels, stored as little-endian f16.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the byte count is odd.
    pub fn from_f16_bytes(bytes: &'a [u8]) -> Result<Self> {
        Self::new(bytes, Encoding::F16)
    }

    /// Scales of `8 · bytes.len()` channels, stored as sign bits in little-endian i16 words: bit
    /// `i` of word `j` belongs to channel `16·j + i`; set means −1, clear means +1.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the byte count is odd.
    pub fn from_sign_bytes(bytes: &'a [u8]) -> Result<Self> {
        Self::new(bytes, Encoding::Signs)
    }

    fn new(bytes: &'a [u8], encoding: Encoding) -> Result<Self> {
        if !bytes.len().is_multiple_of(2) {
            return Err(Error::argument(
                "scales",
                format!("{} bytes", bytes.len()),
                "an even number of bytes: f16 values or 16-bit words of signs",
            ));
        }
        Ok(Scales { bytes, encoding })
    }

    /// Number of channels.
    pub fn len(&self) -> usize {
        match self.encoding {
            Encoding::F16 => self.bytes.len() / 2,
            Encoding::Signs => self.bytes.len() / 2 * SIGNS_PER_WORD,
        }
    }

    /// Whether there is no channel.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether these are the sign bits of an older file rather than f16 values.
    pub fn is_signs(&self) -> bool {
        self.encoding == Encoding::Signs
    }

    /// The scale of channel `i`.
    ///
    /// # Panics
    /// If `i >= len()`.
    pub fn get(&self, i: usize) -> f16 {
        match self.encoding {
            Encoding::F16 => f16::from_bits(self.word(i)),
            Encoding::Signs if self.word(i / SIGNS_PER_WORD) >> (i % SIGNS_PER_WORD) & 1 == 1 => {
                f16::NEG_ONE
            }
            Encoding::Signs => f16::ONE,
        }
    }

    /// The scales of all channels, in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = f16> + 'a {
        (0..self.len()).map(move |i| self.get(i))
    }

    /// The scales of all channels as f16, whichever way they are stored.
    pub fn to_vec(&self) -> Vec<f16> {
        self.iter().collect()
    }

    /// These scales times a factor for each channel, rounded to f16: bytes for [`from_f16_bytes`](Self::from_f16_bytes).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless there is one factor per channel and every product is a finite f16.
    pub(crate) fn times(&self, weight: &[f32]) -> Result<Vec<u8>> {
        if weight.len() != self.len() {
            return Err(Error::argument(
                "weight",
                format!("{} elements", weight.len()),
                format!("{}, one per input channel", self.len()),
            ));
        }
        let mut bytes = Vec::with_capacity(2 * weight.len());
        for (i, (scale, &weight)) in self.iter().zip(weight).enumerate() {
            let product = f16::from_f32(scale.to_f32() * weight);
            if !product.is_finite() {
                return Err(Error::argument(
                    "weight",
                    format!("{weight} for channel {i}, whose input scale is {scale}"),
                    "a product of the two that is a finite f16",
                ));
            }
            bytes.extend(product.to_le_bytes());
        }
        Ok(bytes)
    }

    /// The scales of `channels`: multiples of 16 within `len()`, which the caller has checked.
    pub(super) fn slice(&self, channels: Range<usize>) -> Self {
        debug_assert!(channels.start.is_multiple_of(SIGNS_PER_WORD));
        debug_assert!(channels.end.is_multiple_of(SIGNS_PER_WORD));
        let bytes = match self.encoding {
            Encoding::F16 => channels.start * 2..channels.end * 2,
            Encoding::Signs => channels.start / 8..channels.end / 8,
        };
        Scales {
            bytes: &self.bytes[bytes],
            encoding: self.encoding,
        }
    }

    fn word(&self, j: usize) -> u16 {
        u16::from_le_bytes([self.bytes[2 * j], self.bytes[2 * j + 1]])
    }
}

/// Length and encoding only: the values of a real layer would flood a log.
impl std::fmt::Debug for Scales<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_signs() { "signs" } else { "f16" };
        write!(f, "Scales({} x {kind})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_bits_are_minus_one_where_set() {
        let mut bytes = [0u8; 32];
        bytes[0] = 0b0000_0101; // channels 0 and 2
        bytes[3] = 0b1000_0000; // channel 31
        let scales = Scales::from_sign_bytes(&bytes).unwrap();
        assert_eq!(scales.len(), 256);
        let negative: Vec<usize> = (0..256).filter(|&i| scales.get(i) < f16::ZERO).collect();
        assert_eq!(negative, [0, 2, 31]);
        assert!(scales
            .iter()
            .all(|s| s.to_f32().abs().to_bits() == 1f32.to_bits()));
    }

    #[test]
    fn slices_agree_with_the_whole_in_both_encodings() {
        let bytes: Vec<u8> = (0..512).map(|i| (i * 37 % 251) as u8).collect();
        for scales in [
            Scales::from_f16_bytes(&bytes).unwrap(),
            Scales::from_sign_bytes(&bytes[..64]).unwrap(),
        ] {
            let part = scales.slice(128..256);
            assert_eq!(part.len(), 128);
            for i in 0..128 {
                assert_eq!(part.get(i).to_bits(), scales.get(128 + i).to_bits());
            }
            assert!(scales.slice(256..256).is_empty());
        }
    }

    #[test]
    fn factors_are_multiplied_in_and_rounded_to_f16() {
        let bytes = [1.5f32, -2.0]
            .map(|scale| f16::from_f32(scale).to_le_bytes())
            .concat();
        let scales = Scales::from_f16_bytes(&bytes).unwrap();
        let product = scales.times(&[3.0, 1.0 + 2f32.powi(-12)]).unwrap();
        let product = Scales::from_f16_bytes(&product).unwrap().to_vec();
        assert_eq!(product, [4.5, -2.0].map(f16::from_f32));
    }

    #[test]
    fn factors_that_do_not_fit_are_refused() {
        let bytes = f16::from_f32(2.0).to_le_bytes().repeat(2);
        let scales = Scales::from_f16_bytes(&bytes).unwrap();
        let refused = |weight: &[f32]| scales.times(weight).unwrap_err().to_string();
        assert!(refused(&[1.0]).contains("2, one per input channel"));
        assert!(refused(&[1.0, 33000.0]).contains("channel 1"));
        assert!(refused(&[f32::NAN, 1.0]).contains("NaN for channel 0"));
    }

    #[test]
    fn odd_byte_counts_are_refused() {
        assert!(Scales::from_f16_bytes(&[0; 3]).is_err());
        assert!(Scales::from_sign_bytes(&[0; 3]).is_err());
    }
}
