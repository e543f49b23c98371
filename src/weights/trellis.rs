//! The packed tiles of one linear as a strided view.
//!
//! What must stay true: `bytes` begins at the view's first tile and ends with its last, so every
//! tile within `k_tiles` × `n_tiles` lies inside it; a view without tiles holds no bytes.

use crate::format::Bits;
use crate::{Error, Result};
use std::ops::Range;

/// The packed 16×16 tiles of one linear or of a shard of it: `k_tiles` × `n_tiles`, row-major.
///
/// A tile is `bits.tile_bytes()` bytes of little-endian u16 words. The bytes need no alignment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trellis<'a> {
    bytes: &'a [u8],
    bits: Bits,
    k_tiles: usize,
    n_tiles: usize,
    /// Tiles from one row of tiles to the next: `n_tiles` of the linear this was cut from.
    row_stride: usize,
}

impl<'a> Trellis<'a> {
    /// A view of `k_tiles` × `n_tiles` contiguous tiles of `bits` bits per weight.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `bytes` has exactly `k_tiles · n_tiles ·
    /// bits.tile_bytes()` bytes.
    pub fn new(bytes: &'a [u8], bits: Bits, k_tiles: usize, n_tiles: usize) -> Result<Self> {
        let expected = k_tiles
            .checked_mul(n_tiles)
            .and_then(|tiles| tiles.checked_mul(bits.tile_bytes()));
        if expected != Some(bytes.len()) {
            return Err(Error::argument(
                "trellis",
                format!("{} bytes", bytes.len()),
                format!(
                    "{k_tiles} x {n_tiles} tiles of {} bytes each ({bits} bits)",
                    bits.tile_bytes()
                ),
            ));
        }
        Ok(Trellis {
            bytes,
            bits,
            k_tiles,
            n_tiles,
            row_stride: n_tiles,
        })
    }

    /// Tiles along K: in-features of the view / 16.
    pub fn k_tiles(&self) -> usize {
        self.k_tiles
    }

    /// Tiles along N: out-features of the view / 16.
    pub fn n_tiles(&self) -> usize {
        self.n_tiles
    }

    /// Bits per weight.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Bytes of all tiles of the view.
    pub fn packed_bytes(&self) -> usize {
        self.k_tiles * self.n_tiles * self.bits.tile_bytes()
    }

    /// The bytes of the tile whose first weight is row `16·kt`, column `16·nt` of the view:
    /// `bits.tile_bytes()` bytes, little-endian u16 words.
    ///
    /// # Panics
    /// If `kt >= k_tiles()` or `nt >= n_tiles()`.
    pub fn tile(&self, kt: usize, nt: usize) -> &'a [u8] {
        // Without this, a column past the view would read a neighbouring rank's tile.
        assert!(
            nt < self.n_tiles,
            "tile column {nt} of {n}",
            n = self.n_tiles
        );
        let tile_bytes = self.bits.tile_bytes();
        &self.tile_row(kt)[nt * tile_bytes..][..tile_bytes]
    }

    /// The bytes of row `kt` of tiles: `n_tiles()` tiles that follow one another in N.
    ///
    /// # Panics
    /// If `kt >= k_tiles()`.
    pub fn tile_row(&self, kt: usize) -> &'a [u8] {
        assert!(kt < self.k_tiles, "tile row {kt} of {k}", k = self.k_tiles);
        if self.n_tiles == 0 {
            return &[];
        }
        let tile_bytes = self.bits.tile_bytes();
        &self.bytes[kt * self.row_stride * tile_bytes..][..self.n_tiles * tile_bytes]
    }

    /// The tiles of `k` × `n`, in tiles. The caller has checked both ranges.
    pub(super) fn slice(&self, k: Range<usize>, n: Range<usize>) -> Self {
        debug_assert!(k.end <= self.k_tiles && n.end <= self.n_tiles);
        let bytes = if k.is_empty() || n.is_empty() {
            // An empty range may start past the last byte that a view without tiles still has.
            &[]
        } else {
            let tile_bytes = self.bits.tile_bytes();
            let first = k.start * self.row_stride + n.start;
            let last = (k.end - 1) * self.row_stride + n.end;
            &self.bytes[first * tile_bytes..last * tile_bytes]
        };
        Trellis {
            bytes,
            k_tiles: k.len(),
            n_tiles: n.len(),
            ..*self
        }
    }
}

/// Shapes only: the bytes of a real layer would flood a log.
impl std::fmt::Debug for Trellis<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Trellis({} x {} tiles, {} bits)",
            self.k_tiles, self.n_tiles, self.bits
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(half: usize) -> Bits {
        Bits::from_half_bits(half).unwrap()
    }

    #[test]
    fn a_slice_sees_the_tiles_of_the_whole() {
        let bits = bits(3);
        let bytes: Vec<u8> = (0..4 * 5 * bits.tile_bytes()).map(|i| i as u8).collect();
        let whole = Trellis::new(&bytes, bits, 4, 5).unwrap();
        let part = whole.slice(1..4, 2..4).slice(1..3, 1..2);
        assert_eq!((part.k_tiles(), part.n_tiles()), (2, 1));
        assert_eq!(part.packed_bytes(), 2 * bits.tile_bytes());
        for kt in 0..2 {
            assert_eq!(part.tile(kt, 0), whole.tile(kt + 2, 3));
            assert_eq!(part.tile_row(kt), whole.tile(kt + 2, 3));
        }
    }

    #[test]
    fn empty_slices_can_be_sliced_again() {
        let bytes = vec![0; 4 * bits(2).tile_bytes()];
        let whole = Trellis::new(&bytes, bits(2), 2, 2).unwrap();
        let no_rows = whole.slice(2..2, 0..2).slice(0..0, 1..2);
        assert_eq!((no_rows.k_tiles(), no_rows.n_tiles()), (0, 1));
        let no_columns = whole.slice(0..2, 2..2);
        assert_eq!(no_columns.tile_row(1), &[] as &[u8]);
        assert_eq!(no_columns.packed_bytes(), 0);
    }

    #[test]
    fn a_byte_count_that_overflows_is_an_error() {
        assert!(Trellis::new(&[], bits(16), usize::MAX, 2).is_err());
        assert!(Trellis::new(&[0; 31], bits(2), 1, 1).is_err());
    }

    #[test]
    #[should_panic(expected = "tile column 1 of 1")]
    fn a_shard_does_not_show_its_neighbours_tiles() {
        let bytes = vec![0; 4 * bits(2).tile_bytes()];
        let whole = Trellis::new(&bytes, bits(2), 2, 2).unwrap();
        whole.slice(0..2, 0..1).tile(0, 1);
    }
}
