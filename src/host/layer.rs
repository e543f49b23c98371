//! A linear, or a rank's shard of one, as the host's kernels read it.
//!
//! What must stay true: a block holds the bits of the block of
//! [`BlockLayout`](crate::format::layout::BlockLayout), with the words as [word, lane], so that a
//! vector loads one word of neighbouring lanes; blocks are [strip, group]. The sums of a strip do
//! not depend on which thread computes it.

use super::input;
use super::kernels::{Format, Kernels};
use crate::call::Input;
use crate::format::layout::{BlockLayout, BLOCK_TILES, LANES};
use crate::format::{GROUP, TILE};
use crate::weights::Linear;
use crate::Result;

/// A shard that has been loaded for the host.
pub(crate) struct HostLinear {
    k: usize,
    n: usize,
    format: Format,
    blocks: Vec<u32>,
    pub(super) suh: Vec<f32>,
    pub(super) svh: Vec<f32>,
    pub(super) bias: Option<Vec<f32>>,
}

impl HostLinear {
    /// Repacks a linear or a shard of one; K or N may be 0.
    pub(crate) fn load(linear: &Linear<'_>) -> Result<Self> {
        let format = Format {
            codebook: linear.codebook(),
            bits: linear.bits(),
        };
        Ok(HostLinear {
            k: linear.k(),
            n: linear.n(),
            format,
            blocks: pack(linear),
            suh: linear.suh().iter().map(f32::from).collect(),
            svh: linear.svh().iter().map(f32::from).collect(),
            bias: linear.bias().map(|bias| bias.to_vec()),
        })
    }

    /// In-features of the shard.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Out-features of the shard.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// The weights as [strip, group, row 128, column 16].
    pub(super) fn decode(&self, kernels: &Kernels) -> Vec<f32> {
        kernels.decode(self.format, &self.blocks)
    }

    /// The raw sums (x ⊙ suh)·H·Wq of `rows` rows, by up to `threads` threads.
    pub(super) fn partial(
        &self,
        kernels: &Kernels,
        threads: usize,
        input: &Input<'_>,
        rows: usize,
    ) -> Sums {
        debug_assert_eq!(input.len(), rows * self.k(), "the caller checks lengths");
        let mut sums = Sums::zeros(rows, self.n);
        // The zeros stand if there is nothing to add to them.
        if rows == 0 || self.k == 0 || self.n == 0 {
            return sums;
        }
        let x = input::prepare(input, &self.suh, rows);
        self.multiply(kernels, self.useful_threads(threads, rows), &x, &mut sums);
        sums
    }

    /// Starting a thread costs some 20 µs; every thread shall have at least a few times that to do.
    fn useful_threads(&self, threads: usize, rows: usize) -> usize {
        const WEIGHTS_PER_THREAD: usize = 1 << 19;
        const ROWS_AS_DEAR_AS_DECODING: usize = 8;
        let work = self.k * self.n * (1 + rows / ROWS_AS_DEAR_AS_DECODING);
        threads.min(work / WEIGHTS_PER_THREAD).max(1)
    }

    fn multiply(&self, kernels: &Kernels, threads: usize, x: &[f32], sums: &mut Sums) {
        let rows = sums.rows;
        let strips = (self.n / TILE).div_ceil(threads);
        let strip_words = self.k / GROUP * self.format.block_words();
        let blocks = self.blocks.chunks(strips * strip_words);
        let mut shares = blocks.zip(sums.values.chunks_mut(strips * rows * TILE));
        let own = shares.next();
        std::thread::scope(|scope| {
            for (blocks, sums) in shares {
                scope.spawn(|| kernels.multiply(self.format, rows, blocks, x, sums));
            }
            if let Some((blocks, sums)) = own {
                kernels.multiply(self.format, rows, blocks, x, sums);
            }
        });
    }
}

/// Shapes only: a layer's weights would flood a log.
impl std::fmt::Debug for HostLinear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Format { codebook, bits } = self.format;
        write!(f, "HostLinear({} x {}, {codebook} {bits})", self.k, self.n)
    }
}

/// Raw sums [rows, n], stored by strip: [n/16, rows, 16], so that threads write apart.
pub(super) struct Sums {
    values: Vec<f32>,
    rows: usize,
}

impl Sums {
    fn zeros(rows: usize, n: usize) -> Self {
        Sums {
            values: vec![0.0; rows * n],
            rows,
        }
    }

    /// The sums of one row and the 16 columns of one strip.
    pub(super) fn strip(&self, row: usize, strip: usize) -> &[f32] {
        &self.values[(strip * self.rows + row) * TILE..][..TILE]
    }
}

fn pack(linear: &Linear<'_>) -> Vec<u32> {
    let layout = BlockLayout::new(linear.bits());
    let (groups, strips) = (linear.k() / GROUP, linear.n() / TILE);
    let block_words = layout.words_per_block();
    let mut packed = vec![0; layout.words(linear.k(), linear.n())];
    let mut block = vec![0; block_words];
    // Groups outside: then the tile rows are read forwards.
    for group in 0..groups {
        let rows: [_; BLOCK_TILES] =
            std::array::from_fn(|i| linear.trellis().tile_row(group * BLOCK_TILES + i));
        for strip in 0..strips {
            let tile_bytes = linear.bits().tile_bytes();
            layout.pack_block(
                rows.map(|row| &row[strip * tile_bytes..][..tile_bytes]),
                &mut block,
            );
            let start = layout.block_index(linear.k(), strip, group) * block_words;
            by_word(&layout, &block, &mut packed[start..start + block_words]);
        }
    }
    packed
}

/// From the order in which a warp reads a block to [word, lane].
fn by_word(layout: &BlockLayout, block: &[u32], out: &mut [u32]) {
    for (word, lanes) in out.chunks_exact_mut(LANES).enumerate() {
        for (lane, value) in lanes.iter_mut().enumerate() {
            *value = block[layout.word_index(lane, word)];
        }
    }
}
