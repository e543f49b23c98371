//! The consumption layout: one linear's trellis in the order in which a warp reads it.
//!
//! The file keeps 16×16 tiles in row-major order. Kernels read *blocks*: eight tiles that follow
//! one another in K, 128 × 16 weights. For a shard of K × N channels with `KG = K/128` groups and
//! `N/16` strips, block (strip s, group g) is number `s·KG + g`, so a warp that walks along K reads
//! consecutive memory.
//!
//! Lane l of a warp owns weights 8l to 8l+7 of every tile. Those are the bits
//! `[window_end(8l−1), window_end(8l+7))` of the tile's stream, called a *piece* here: 4·half_bits
//! bits at position 4·half_bits·l, the same formula at whole and half bitrates. The lane's eight
//! pieces, one per tile and most significant bit first, make exactly `half_bits` u32 words.
//! A block stores word w of all lanes side by side, in chunks as wide as loads can be:
//!
//! | words of a lane | chunk | where lane l finds them |
//! |---|---|---|
//! | four at a time | 16 bytes × 32 lanes | chunk base + 4·l |
//! | then two, if half_bits mod 4 ≥ 2 | 8 bytes × 32 lanes | chunk base + 2·l |
//! | then one, if half_bits is odd | 4 bytes × 32 lanes | chunk base + l |
//!
//! What must stay true: the map is a permutation of bits, a function of the bitrate alone, and
//! this file is the only place on the Rust side that knows it.

use super::{Bits, GROUP, TILE};

/// Threads of a warp, each of which owns eight weights of every tile.
pub const LANES: usize = 32;

/// Tiles of a block: the 128 channels of a transform group.
pub const BLOCK_TILES: usize = GROUP / TILE;

/// u32 words of the largest tile (8 bits per weight).
const MAX_TILE_WORDS: usize = 64;

/// u32 words that one lane owns of the largest block.
const MAX_LANE_WORDS: usize = 16;

/// Packed words that are worth a thread: a millisecond's work or so.
const THREAD_WORDS: usize = 1 << 18;

/// The order of the words of a block at one bitrate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockLayout {
    bits: Bits,
}

impl BlockLayout {
    /// The layout of blocks at `bits` per weight.
    pub fn new(bits: Bits) -> Self {
        BlockLayout { bits }
    }

    /// The bitrate this layout belongs to.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// u32 words that each lane owns of a block.
    pub fn words_per_lane(&self) -> usize {
        self.bits.half_bits()
    }

    /// u32 words of a block: 64·bits.
    pub fn words_per_block(&self) -> usize {
        LANES * self.words_per_lane()
    }

    /// Bits of a piece: what one lane owns of one tile.
    pub fn piece_bits(&self) -> usize {
        4 * self.bits.half_bits()
    }

    /// u32 words of a shard of `k` × `n` channels.
    pub fn words(&self, k: usize, n: usize) -> usize {
        (k / GROUP) * (n / TILE) * self.words_per_block()
    }

    /// Number of the block of 16-column strip `strip` and 128-row group `group` in a shard of
    /// `k` rows.
    pub fn block_index(&self, k: usize, strip: usize, group: usize) -> usize {
        strip * (k / GROUP) + group
    }

    /// Where word `word` of lane `lane` lies in its block, in u32 words from the block's start.
    pub fn word_index(&self, lane: usize, word: usize) -> usize {
        debug_assert!(lane < LANES && word < self.words_per_lane());
        word_index(self.bits.half_bits(), lane, word)
    }

    /// Packs a whole shard of `k` × `n` channels.
    ///
    /// `tile(kt, nt)` gives the bytes of the tile at rows 16·kt and columns 16·nt, exactly
    /// [`Bits::tile_bytes`] of them, as in the file. Large shards are packed by as many threads as
    /// there are cores.
    ///
    /// # Panics
    /// If `k` is not a multiple of 128 or `n` not of 16, or a tile has another length.
    pub fn pack<'a>(
        &self,
        k: usize,
        n: usize,
        tile: impl Fn(usize, usize) -> &'a [u8] + Sync,
    ) -> Vec<u32> {
        let mut packed = vec![0; self.words(k, n)];
        self.pack_into(k, n, tile, &mut packed);
        packed
    }

    /// [`pack`](Self::pack) into memory of the caller, [`words`](Self::words) long.
    ///
    /// # Panics
    /// As `pack`, and if `packed` has another length.
    pub fn pack_into<'a>(
        &self,
        k: usize,
        n: usize,
        tile: impl Fn(usize, usize) -> &'a [u8] + Sync,
        packed: &mut [u32],
    ) {
        self.check_shape(k, n, packed.len());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(packed.len() / THREAD_WORDS).max(1);
        self.pack_by(threads, k, &tile, packed);
    }

    /// [`pack_into`](Self::pack_into) by so many threads, each of which takes neighbouring strips.
    fn pack_by<'a>(
        &self,
        threads: usize,
        k: usize,
        tile: &(impl Fn(usize, usize) -> &'a [u8] + Sync),
        packed: &mut [u32],
    ) {
        if packed.is_empty() {
            return;
        }
        let strip_words = self.words(k, TILE);
        let strips = (packed.len() / strip_words).div_ceil(threads);
        let parts = packed.chunks_mut(strips * strip_words).enumerate();
        let pack = |(i, part)| self.pack_strips(k, i * strips, tile, part);
        if threads == 1 {
            parts.for_each(pack);
        } else {
            std::thread::scope(|scope| {
                for part in parts {
                    scope.spawn(move || pack(part));
                }
            });
        }
    }

    /// Packs the strips from the `first` one on that `packed` has room for.
    fn pack_strips<'a>(
        &self,
        k: usize,
        first: usize,
        tile: &impl Fn(usize, usize) -> &'a [u8],
        packed: &mut [u32],
    ) {
        let block_words = self.words_per_block();
        let strips = packed.len() / self.words(k, TILE);
        // Groups outside: then the eight tile rows of a group are read as eight forward streams.
        for group in 0..k / GROUP {
            for strip in 0..strips {
                let start = self.block_index(k, strip, group) * block_words;
                let tiles = std::array::from_fn(|i| tile(group * BLOCK_TILES + i, first + strip));
                self.pack_block(tiles, &mut packed[start..start + block_words]);
            }
        }
    }

    /// Packs the eight tiles of one block, first along K first.
    ///
    /// # Panics
    /// If a tile or `block` has another length than the bitrate demands.
    pub fn pack_block(&self, tiles: [&[u8]; BLOCK_TILES], block: &mut [u32]) {
        assert_eq!(block.len(), self.words_per_block(), "words of a block");
        for tile in tiles {
            assert_eq!(tile.len(), self.bits.tile_bytes(), "bytes of a tile");
        }
        // With the bitrate as a constant, shifts and positions fold and the piece loop unrolls.
        match self.bits.half_bits() {
            2 => pack_block::<2>(tiles, block),
            3 => pack_block::<3>(tiles, block),
            4 => pack_block::<4>(tiles, block),
            5 => pack_block::<5>(tiles, block),
            6 => pack_block::<6>(tiles, block),
            7 => pack_block::<7>(tiles, block),
            8 => pack_block::<8>(tiles, block),
            10 => pack_block::<10>(tiles, block),
            12 => pack_block::<12>(tiles, block),
            14 => pack_block::<14>(tiles, block),
            16 => pack_block::<16>(tiles, block),
            other => unreachable!("no bitrate has {other} half bits"),
        }
    }

    /// The inverse of [`pack`](Self::pack): the shard's tiles as the file orders them, row-major
    /// over (K/16, N/16), [`Bits::tile_bytes`] each.
    ///
    /// # Panics
    /// As `pack`, and if `packed` is not [`words`](Self::words) long.
    pub fn unpack(&self, k: usize, n: usize, packed: &[u32]) -> Vec<u8> {
        self.check_shape(k, n, packed.len());
        let tile_bytes = self.bits.tile_bytes();
        let n_tiles = n / TILE;
        let mut tiles = vec![0; (k / TILE) * n_tiles * tile_bytes];
        for (index, block) in packed.chunks_exact(self.words_per_block()).enumerate() {
            let (strip, group) = (index / (k / GROUP), index % (k / GROUP));
            for i in 0..BLOCK_TILES {
                let number = (group * BLOCK_TILES + i) * n_tiles + strip;
                let tile = &mut tiles[number * tile_bytes..][..tile_bytes];
                self.unpack_tile(block, i, tile);
            }
        }
        tiles
    }

    /// Writes tile `i` of `block` as the file has it.
    fn unpack_tile(&self, block: &[u32], i: usize, tile: &mut [u8]) {
        let mut stream = BitWriter::default();
        let mut bytes = tile.chunks_exact_mut(4);
        for lane in 0..LANES {
            let words = self.lane_words(block, lane);
            let piece = read_bits(&words, i * self.piece_bits(), self.piece_bits());
            stream.push(piece, self.piece_bits(), |word| {
                let bytes = bytes.next().expect("32 pieces fill a tile exactly");
                bytes.copy_from_slice(&word.to_le_bytes());
            });
        }
    }

    /// The words of one lane in the order of its stream, then zeros for [`read_bits`] to run into.
    fn lane_words(&self, block: &[u32], lane: usize) -> [u32; MAX_LANE_WORDS + 2] {
        let mut words = [0; MAX_LANE_WORDS + 2];
        for (w, word) in words[..self.words_per_lane()].iter_mut().enumerate() {
            *word = block[self.word_index(lane, w)];
        }
        words
    }

    fn check_shape(&self, k: usize, n: usize, words: usize) {
        assert!(
            k.is_multiple_of(GROUP) && n.is_multiple_of(TILE),
            "a shard of {k} × {n} channels does not consist of 128 × 16 blocks"
        );
        assert_eq!(words, self.words(k, n), "words of a packed shard");
    }
}

/// [`BlockLayout::word_index`] as a pure function, which `pack_block` evaluates at compile time
/// but for the lane.
#[inline(always)]
fn word_index(half_bits: usize, lane: usize, word: usize) -> usize {
    let in_quads = half_bits / 4 * 4;
    let in_pairs = in_quads + half_bits % 4 / 2 * 2;
    // Every chunk before this one holds 32 lanes, hence LANES times the words before it.
    let (before, width) = if word < in_quads {
        (word / 4 * 4, 4)
    } else if word < in_pairs {
        (in_quads, 2)
    } else {
        (in_pairs, 1)
    };
    before * LANES + lane * width + (word - before)
}

fn pack_block<const HALF_BITS: usize>(tiles: [&[u8]; BLOCK_TILES], block: &mut [u32]) {
    let streams = tiles.map(tile_stream::<HALF_BITS>);
    let piece_bits = 4 * HALF_BITS;
    for lane in 0..LANES {
        let mut stream = BitWriter::default();
        let mut word = 0;
        for tile in &streams {
            let piece = read_bits(tile, piece_bits * lane, piece_bits);
            stream.push(piece, piece_bits, |value| {
                block[word_index(HALF_BITS, lane, word)] = value;
                word += 1;
            });
        }
    }
}

/// A tile as the words of its bit stream, then zeros for [`read_bits`] to run into.
#[inline(always)]
fn tile_stream<const HALF_BITS: usize>(tile: &[u8]) -> [u32; MAX_TILE_WORDS + 2] {
    let mut words = [0; MAX_TILE_WORDS + 2];
    for (word, bytes) in words[..4 * HALF_BITS].iter_mut().zip(tile.chunks_exact(4)) {
        *word = u32::from_le_bytes(bytes.try_into().expect("chunks of four"));
    }
    words
}

/// Bits `[start, start + count)` of a stream of big-endian u32 words, `count` ≤ 64.
///
/// Reads the word after the last one it needs, so streams carry two words of padding.
#[inline(always)]
fn read_bits(words: &[u32], start: usize, count: usize) -> u64 {
    let (first, shift) = (start / 32, start % 32);
    let pair = (words[first] as u64) << 32 | words[first + 1] as u64;
    if count <= 32 {
        return (pair << shift) >> (64 - count);
    }
    // Up to 64 bits at an offset of up to 31 span three words; a shift by 32 − 0 stays in range.
    let next = words[first + 2] as u64;
    let aligned = (pair << shift) | (next >> (32 - shift));
    aligned >> (64 - count)
}

/// Concatenates pieces, most significant bit first, and hands out whole u32 words.
#[derive(Default)]
struct BitWriter {
    /// Bits not handed out yet, in the low `filled` bits; above them may be rubbish.
    pending: u128,
    filled: usize,
}

impl BitWriter {
    #[inline(always)]
    fn push(&mut self, piece: u64, count: usize, mut emit: impl FnMut(u32)) {
        self.pending = self.pending << count | piece as u128;
        self.filled += count;
        while self.filled >= 32 {
            self.filled -= 32;
            emit((self.pending >> self.filled) as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shard_tiles(bits: Bits, k: usize, n: usize, seed: u64) -> Vec<u8> {
        use rand::{RngCore, SeedableRng};
        let mut bytes = vec![0; (k / TILE) * (n / TILE) * bits.tile_bytes()];
        rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }

    fn pack(bits: Bits, k: usize, n: usize, tiles: &[u8]) -> Vec<u32> {
        BlockLayout::new(bits).pack(k, n, |kt, nt| {
            &tiles[(kt * (n / TILE) + nt) * bits.tile_bytes()..][..bits.tile_bytes()]
        })
    }

    #[test]
    fn word_indices_of_a_block_are_a_permutation() {
        for bits in Bits::ALL {
            let layout = BlockLayout::new(bits);
            let mut seen = vec![false; layout.words_per_block()];
            for lane in 0..LANES {
                for word in 0..layout.words_per_lane() {
                    let index = layout.word_index(lane, word);
                    assert!(!std::mem::replace(&mut seen[index], true), "{bits} {index}");
                }
            }
            assert_eq!(layout.words_per_block() * 2, 64 * bits.half_bits());
        }
    }

    #[test]
    fn chunks_are_quads_then_a_pair_then_a_single() {
        let at = |half_bits, lane, word| {
            BlockLayout::new(Bits::from_half_bits(half_bits).unwrap()).word_index(lane, word)
        };
        // 3.5 bits: one quad, one pair, one single.
        assert_eq!(at(7, 5, 3), 5 * 4 + 3);
        assert_eq!(at(7, 5, 4), 128 + 5 * 2);
        assert_eq!(at(7, 5, 6), 128 + 64 + 5);
        // 2.5 bits: one quad, one single. 8 bits: four quads.
        assert_eq!(at(5, 31, 4), 128 + 31);
        assert_eq!(at(16, 2, 13), 3 * 128 + 2 * 4 + 1);
    }

    #[test]
    fn a_lane_finds_the_pieces_of_its_eight_tiles_in_order() {
        for bits in Bits::ALL {
            let layout = BlockLayout::new(bits);
            let tiles = shard_tiles(bits, GROUP, TILE, 7);
            let block = pack(bits, GROUP, TILE, &tiles);
            let tile_bit = |tile: usize, bit: usize| {
                let word = &tiles[tile * bits.tile_bytes() + bit / 32 * 4..][..4];
                u32::from_le_bytes(word.try_into().unwrap()) >> (31 - bit % 32) & 1
            };
            for lane in 0..LANES {
                let begin = if lane == 0 {
                    0
                } else {
                    bits.window_end(8 * lane - 1)
                };
                let end = bits.window_end(8 * lane + 7);
                assert_eq!(end - begin, layout.piece_bits());
                let want = (0..BLOCK_TILES)
                    .flat_map(|tile| (begin..end).map(move |bit| tile_bit(tile, bit)));
                for (bit, want) in want.enumerate() {
                    let word = block[layout.word_index(lane, bit / 32)];
                    assert_eq!(
                        word >> (31 - bit % 32) & 1,
                        want,
                        "{bits} lane {lane} bit {bit}"
                    );
                }
            }
        }
    }

    #[test]
    fn blocks_of_a_strip_follow_one_another_along_k() {
        let bits = Bits::from_half_bits(8).unwrap();
        let (k, n) = (3 * GROUP, 2 * TILE);
        let tiles = shard_tiles(bits, k, n, 1);
        let packed = pack(bits, k, n, &tiles);
        let words = BlockLayout::new(bits).words_per_block();
        // Rows 128 to 255 of the second strip are block 1·3 + 1.
        let group: Vec<u8> = (8..16)
            .flat_map(|kt| &tiles[(kt * 2 + 1) * bits.tile_bytes()..][..bits.tile_bytes()])
            .copied()
            .collect();
        assert_eq!(
            packed[4 * words..5 * words],
            pack(bits, GROUP, TILE, &group)
        );
    }

    #[test]
    fn an_empty_shard_packs_to_nothing() {
        let bits = Bits::from_half_bits(3).unwrap();
        assert!(pack(bits, 0, 256, &[]).is_empty());
        assert!(BlockLayout::new(bits).unpack(0, 256, &[]).is_empty());
        assert!(pack(bits, 256, 0, &[]).is_empty());
    }

    #[test]
    fn threads_pack_what_one_alone_does() {
        let bits = Bits::from_half_bits(7).unwrap();
        let layout = BlockLayout::new(bits);
        let (k, n) = (256, 16 * 11);
        let tiles = shard_tiles(bits, k, n, 5);
        let tile = |kt: usize, nt: usize| {
            &tiles[(kt * 11 + nt) * bits.tile_bytes()..][..bits.tile_bytes()]
        };
        let pack = |threads| {
            let mut packed = vec![0; layout.words(k, n)];
            layout.pack_by(threads, k, &tile, &mut packed);
            packed
        };
        for threads in [2, 3, 4, 11, 30] {
            assert_eq!(pack(threads), pack(1), "{threads} threads");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn unpacking_undoes_packing(
            bits in prop::sample::select(Bits::ALL.to_vec()),
            groups in 1usize..4,
            strips in 1usize..5,
            seed: u64,
        ) {
            let (k, n) = (groups * GROUP, strips * TILE);
            let tiles = shard_tiles(bits, k, n, seed);
            let packed = pack(bits, k, n, &tiles);
            prop_assert_eq!(BlockLayout::new(bits).unpack(k, n, &packed), tiles);
        }
    }
}
