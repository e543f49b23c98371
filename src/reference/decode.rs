//! From trellis words to weights, bit for bit as the format defines it.
//!
//! What must stay true: every value is rounded exactly once, to the nearest fp16, ties to even.
//! Both codebook functions are therefore evaluated exactly in f32 first; each says why that is
//! possible.

use crate::format::{Bits, Codebook, TILE, TILE_WEIGHTS};
use crate::weights::Linear;
use half::f16;
use std::sync::OnceLock;

/// The weight that `codebook` assigns to a 16-bit `state`.
pub fn decode_state(codebook: Codebook, state: u16) -> f16 {
    let state = state as u32;
    match codebook {
        Codebook::ThreeInst => {
            sum_of_halves(state.wrapping_mul(89_226_354).wrapping_add(64_248_484))
        }
        Codebook::Mcg => sum_of_halves(state.wrapping_mul(0xCBAC_1FED)),
        Codebook::Mul1 => affine_of_byte_sum(state.wrapping_mul(0x83DC_D12D)),
    }
}

/// fp16(low half) + fp16(high half) of the masked word.
///
/// The mask leaves the exponent fields of both halves between 12 and 15: magnitudes below 2 and
/// multiples of 2^−13. Their sum is a multiple of 2^−13 below 4 and exact in f32, so the conversion
/// is the only rounding.
fn sum_of_halves(x: u32) -> f16 {
    let x = (x & 0x8fff_8fff) ^ 0x3b60_3b60;
    let low = f16::from_bits(x as u16);
    let high = f16::from_bits((x >> 16) as u16);
    f16::from_f32(low.to_f32() + high.to_f32())
}

/// fma(1024 + b, fp16 0x1eee, fp16 0xc931), b being the sum of the word's four bytes.
///
/// The constants are 1774·2^−18 and −1329·2^−7, so the exact result is an integer times 2^−18. The
/// integer stays below 2^20 in magnitude, the multiplication by a power of two is exact, and again
/// the conversion is the only rounding. An fp16 product followed by an fp16 sum would round twice.
fn affine_of_byte_sum(x: u32) -> f16 {
    let b: i32 = x.to_le_bytes().into_iter().map(i32::from).sum();
    let numerator = (1024 + b) * 1774 - (1329 << 11);
    f16::from_f32(numerator as f32 * (-18f32).exp2())
}

/// The 256 weights of a tile, row-major: weight (k, n) of the tile is `[16·k + n]`.
///
/// # Panics
/// If `tile` is not [`Bits::tile_bytes`] long.
pub fn decode_tile(codebook: Codebook, bits: Bits, tile: &[u8]) -> [f16; TILE_WEIGHTS] {
    assert_eq!(tile.len(), bits.tile_bytes(), "bytes of a tile");
    let table = table(codebook);
    let stream: Vec<u32> = tile
        .chunks_exact(4)
        .map(|bytes| u32::from_le_bytes(bytes.try_into().expect("chunks of four")))
        .collect();
    let mut weights = [f16::ZERO; TILE_WEIGHTS];
    for t in 0..TILE_WEIGHTS {
        let (row, column) = position(t);
        weights[row * TILE + column] = table[window(&stream, bits.window_end(t)) as usize];
    }
    weights
}

/// All weights of a linear, row-major [K, N], in the basis between the two transforms.
pub fn decode(linear: &Linear) -> Vec<f16> {
    let n = linear.n();
    let mut weights = vec![f16::ZERO; linear.k() * n];
    for kt in 0..linear.k() / TILE {
        for nt in 0..n / TILE {
            let bytes = linear.trellis().tile(kt, nt);
            let tile = decode_tile(linear.codebook(), linear.bits(), bytes);
            for (row, values) in tile.chunks_exact(TILE).enumerate() {
                let start = (kt * TILE + row) * n + nt * TILE;
                weights[start..start + TILE].copy_from_slice(values);
            }
        }
    }
    weights
}

/// The 16 bits of the stream that end before bit `end`, the first one most significant. A window
/// that would begin before the stream takes its first bits from the stream's end.
fn window(stream: &[u32], end: usize) -> u16 {
    let stream_bits = 32 * stream.len();
    let start = (end + stream_bits - 16) % stream_bits;
    let next = (start / 32 + 1) % stream.len();
    let pair = (stream[start / 32] as u64) << 32 | stream[next] as u64;
    (pair >> (48 - start % 32)) as u16
}

/// Row (k) and column (n) of weight `t` in its tile.
fn position(t: usize) -> (usize, usize) {
    let (lane, j) = (t / 8, t % 8);
    let row = 2 * (lane % 4) + (j & 1) + 8 * (j >> 1 & 1);
    let column = lane / 4 + 8 * (j >> 2);
    (row, column)
}

/// All 65536 values of a codebook, computed once.
fn table(codebook: Codebook) -> &'static [f16] {
    static TABLES: [OnceLock<Vec<f16>>; 3] = [const { OnceLock::new() }; 3];
    let slot = match codebook {
        Codebook::ThreeInst => 0,
        Codebook::Mcg => 1,
        Codebook::Mul1 => 2,
    };
    TABLES[slot].get_or_init(|| {
        (0..=u16::MAX)
            .map(|state| decode_state(codebook, state))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fp16 nearest to `numerator`·2^−48, ties to even, in integers only; normal range.
    fn round_to_f16(numerator: i128) -> u16 {
        let sign = if numerator < 0 { 0x8000 } else { 0 };
        let magnitude = numerator.unsigned_abs();
        if magnitude == 0 {
            return sign;
        }
        // One unit in the last place of the result, as a power of two over 2^48.
        let exponent = (magnitude.ilog2() as i32 - 48).max(-14);
        let shift = (exponent + 48 - 10) as u32;
        let (quotient, rest) = (magnitude >> shift, magnitude & ((1 << shift) - 1));
        let half = 1u128 << (shift - 1);
        let up = rest > half || (rest == half && quotient & 1 == 1);
        // A carry out of the mantissa, or into a normal number, increments the exponent by itself.
        let encoded = (((exponent + 14) as u128) << 10) + quotient + u128::from(up);
        sign | encoded as u16
    }

    /// An fp16 as an exact multiple of 2^−24.
    fn fixed_24(bits: u16) -> i128 {
        let (exponent, mantissa) = ((bits >> 10 & 31) as u32, (bits & 1023) as i128);
        let magnitude = match exponent {
            0 => mantissa,
            _ => (1024 + mantissa) << (exponent - 1),
        };
        if bits >> 15 == 1 {
            -magnitude
        } else {
            magnitude
        }
    }

    fn word(codebook: Codebook, state: u16) -> u32 {
        match codebook {
            Codebook::ThreeInst => (state as u32).wrapping_mul(89226354).wrapping_add(64248484),
            Codebook::Mcg | Codebook::Mul1 => {
                (state as u32).wrapping_mul(codebook.marker().unwrap())
            }
        }
    }

    #[test]
    fn every_state_is_the_exact_value_rounded_once() {
        for codebook in Codebook::ALL {
            for state in 0..=u16::MAX {
                let x = word(codebook, state);
                let exact = if codebook == Codebook::Mul1 {
                    let b: u32 = (0..4).map(|i| x >> (8 * i) & 255).sum();
                    ((1024 + b as i128) << 24) * fixed_24(0x1eee) + (fixed_24(0xc931) << 24)
                } else {
                    let x = (x & 0x8fff8fff) ^ 0x3b603b60;
                    (fixed_24(x as u16) + fixed_24((x >> 16) as u16)) << 24
                };
                let got = decode_state(codebook, state).to_bits();
                assert_eq!(got, round_to_f16(exact), "{codebook} state {state:#06x}");
            }
        }
    }

    #[test]
    fn the_rounding_of_the_test_is_that_of_the_half_crate() {
        for bits in 0..0x7c00u16 {
            for bits in [bits, bits | 0x8000] {
                if bits == 0x8000 {
                    continue; // −0 has no sign as an integer.
                }
                assert_eq!(round_to_f16(fixed_24(bits) << 24), bits);
            }
        }
        let tie = f16::from_bits(0x3c01).to_f32() + (-11f32).exp2();
        let fixed = (tie as f64 * 48f64.exp2()) as i128;
        assert_eq!(round_to_f16(fixed), f16::from_f32(tie).to_bits());
        assert_eq!(round_to_f16(fixed), 0x3c02);
    }

    #[test]
    fn mul1_is_not_a_rounded_product_plus_an_offset() {
        let twice = |state: u16| {
            let b: u32 = word(Codebook::Mul1, state)
                .to_le_bytes()
                .iter()
                .map(|&b| b as u32)
                .sum();
            let product = f16::from_f32((1024 + b) as f32 * f16::from_bits(0x1eee).to_f32());
            f16::from_f32(product.to_f32() + f16::from_bits(0xc931).to_f32())
        };
        let differ = (0..=u16::MAX).any(|s| twice(s) != decode_state(Codebook::Mul1, s));
        assert!(
            differ,
            "a fused multiply-add must be told from a rounded product"
        );
    }

    #[test]
    fn positions_cover_the_tile_once() {
        let mut seen = [false; TILE_WEIGHTS];
        for t in 0..TILE_WEIGHTS {
            let (row, column) = position(t);
            assert!(!std::mem::replace(&mut seen[row * TILE + column], true));
        }
    }

    #[test]
    fn windows_agree_with_reading_bit_by_bit() {
        for bits in Bits::ALL {
            let words = bits.tile_words() / 2;
            let stream: Vec<u32> = (1..=words as u32)
                .map(|i| i.wrapping_mul(0x9E37_79B9))
                .collect();
            let bit = |i: usize| stream[i / 32 % words] >> (31 - i % 32) & 1;
            for t in 0..TILE_WEIGHTS {
                let end = bits.window_end(t);
                let want = (end + 32 * words - 16..end + 32 * words)
                    .fold(0, |state, i| state << 1 | bit(i % (32 * words)));
                assert_eq!(window(&stream, end) as u32, want, "{bits} weight {t}");
            }
        }
    }
}
