//! Bits per weight, in halves.

use std::fmt;

/// Bits per weight of one linear: 1 to 8, or 1.5, 2.5 and 3.5 (which only the mul1 codebook has).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(u8);

impl Bits {
    /// Every bitrate of the format, ascending.
    pub const ALL: [Bits; 11] = [
        Bits(2),
        Bits(3),
        Bits(4),
        Bits(5),
        Bits(6),
        Bits(7),
        Bits(8),
        Bits(10),
        Bits(12),
        Bits(14),
        Bits(16),
    ];

    /// A bitrate from its number of half bits (8 is 4 bits per weight), if the format has it.
    pub fn from_half_bits(half_bits: usize) -> Option<Bits> {
        Self::ALL.into_iter().find(|b| b.half_bits() == half_bits)
    }

    /// The bitrate of a tile of `words` u16 words, if the format has it.
    ///
    /// A tile holds 256 weights, so it has 16 u16 words per bit: `16·bits`, or `16·KA + 8` for
    /// `KA + 0.5` bits.
    pub fn from_tile_words(words: usize) -> Option<Bits> {
        words
            .is_multiple_of(8)
            .then(|| Self::from_half_bits(words / 8))?
    }

    /// Twice the bits per weight: always a whole number.
    pub fn half_bits(self) -> usize {
        self.0 as usize
    }

    /// Whether the bitrate is KA + 0.5.
    pub fn is_half(self) -> bool {
        self.0 % 2 == 1
    }

    /// u16 words in one 16×16 tile.
    pub fn tile_words(self) -> usize {
        self.half_bits() * 8
    }

    /// Bytes of one 16×16 tile.
    pub fn tile_bytes(self) -> usize {
        self.tile_words() * 2
    }

    /// Position in the tile's bit stream at which the window of weight `t` (0 to 255) ends.
    ///
    /// `(t+1)·bits`, and `(t+1)·KA + ⌊(t+1)/2⌋` for `KA + 0.5`: both are `⌊(t+1)·half_bits/2⌋`.
    pub fn window_end(self, t: usize) -> usize {
        (t + 1) * self.half_bits() / 2
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0 / 2;
        if self.is_half() {
            write!(f, "{whole}.5")
        } else {
            write!(f, "{whole}")
        }
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bits({self})")
    }
}

impl std::str::FromStr for Bits {
    type Err = crate::Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|b| b.to_string() == s || format!("{b}.0") == s)
            .ok_or_else(|| {
                crate::Error::argument("bits", format!("`{s}`"), "1 to 8, or 1.5, 2.5, 3.5")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tile_words_and_bits_are_inverse() {
        for bits in Bits::ALL {
            assert_eq!(Bits::from_tile_words(bits.tile_words()), Some(bits));
            assert_eq!(bits.to_string().parse::<Bits>().unwrap(), bits);
            assert_eq!(bits.window_end(255), bits.tile_words() * 16);
        }
        for words in [0, 8, 17, 9, 72, 136, 1000] {
            assert_eq!(Bits::from_tile_words(words), None, "{words}");
        }
    }
}
