//! The kernels of `csrc/host/tile_kernels.cpp`, in the instruction sets that this machine has.
//!
//! What must stay true: this file is the boundary to C++. The C++ side checks the lengths that it
//! is told against one another and writes nothing beyond them; this side passes the lengths of
//! real slices, and calls a variant only on a machine that has its instructions.

use crate::format::{Bits, Codebook, GROUP, TILE};
use std::sync::OnceLock;

type Multiply = unsafe extern "C" fn(
    codebook: u32,
    half_bits: u32,
    groups: usize,
    rows: usize,
    blocks: *const u32,
    blocks_len: usize,
    x: *const f32,
    x_len: usize,
    sums: *mut f32,
    sums_len: usize,
) -> bool;

type Decode = unsafe extern "C" fn(
    codebook: u32,
    half_bits: u32,
    blocks: *const u32,
    blocks_len: usize,
    weights: *mut f32,
    weights_len: usize,
) -> bool;

mod ffi {
    macro_rules! variant {
        ($multiply:ident, $decode:ident) => {
            extern "C" {
                pub fn $multiply(
                    codebook: u32,
                    half_bits: u32,
                    groups: usize,
                    rows: usize,
                    blocks: *const u32,
                    blocks_len: usize,
                    x: *const f32,
                    x_len: usize,
                    sums: *mut f32,
                    sums_len: usize,
                ) -> bool;
                pub fn $decode(
                    codebook: u32,
                    half_bits: u32,
                    blocks: *const u32,
                    blocks_len: usize,
                    weights: *mut f32,
                    weights_len: usize,
                ) -> bool;
            }
        };
    }

    variant!(
        trellink_host_multiply_baseline,
        trellink_host_decode_baseline
    );
    #[cfg(target_arch = "x86_64")]
    variant!(trellink_host_multiply_avx2, trellink_host_decode_avx2);
    #[cfg(target_arch = "x86_64")]
    variant!(trellink_host_multiply_avx512, trellink_host_decode_avx512);
}

/// The kernels of one instruction set. A value of this type exists only where they can run.
#[derive(Debug)]
pub(super) struct Kernels {
    pub(super) name: &'static str,
    multiply: Multiply,
    decode: Decode,
}

/// How the weights of a linear are coded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    pub(super) codebook: Codebook,
    pub(super) bits: Bits,
}

impl Format {
    /// u32 words of a block.
    pub(super) fn block_words(self) -> usize {
        crate::format::layout::BlockLayout::new(self.bits).words_per_block()
    }

    fn half_bits(self) -> u32 {
        self.bits.half_bits() as u32
    }
}

impl Kernels {
    /// Those of the widest instruction set of this machine.
    pub(super) fn best() -> &'static Kernels {
        Self::available()
            .last()
            .expect("the baseline runs everywhere")
    }

    /// Every variant that this machine can run, narrowest first.
    pub(super) fn available() -> &'static [Kernels] {
        static AVAILABLE: OnceLock<Vec<Kernels>> = OnceLock::new();
        AVAILABLE.get_or_init(detect)
    }

    /// The sums of `rows` rows of prepared inputs with the strips of `blocks`.
    ///
    /// | slice | shape |
    /// |---|---|
    /// | `blocks` | [strip, group] blocks, each [word, lane] |
    /// | `x` | [group, row, 128], as [`input::prepare`](super::input::prepare) orders it |
    /// | `sums` | [strip, row, 16] |
    ///
    /// # Panics
    /// If the lengths do not fit together or `rows` is 0.
    pub(super) fn multiply(
        &self,
        format: Format,
        rows: usize,
        blocks: &[u32],
        x: &[f32],
        sums: &mut [f32],
    ) {
        // SAFETY: the pointers and lengths are those of live slices, the function writes only to
        // `sums`, which is borrowed mutably, and `detect` has found its instructions on this machine.
        let done = unsafe {
            (self.multiply)(
                format.codebook.number(),
                format.half_bits(),
                x.len() / GROUP / rows,
                rows,
                blocks.as_ptr(),
                blocks.len(),
                x.as_ptr(),
                x.len(),
                sums.as_mut_ptr(),
                sums.len(),
            )
        };
        assert!(done, "{format:?}: {rows} rows, {} words", blocks.len());
    }

    /// The weights of `blocks` as [block, row 128, column 16].
    pub(super) fn decode(&self, format: Format, blocks: &[u32]) -> Vec<f32> {
        let mut weights = vec![0.0; blocks.len() / format.block_words() * GROUP * TILE];
        // SAFETY: as in `multiply`; the function writes only to `weights`.
        let done = unsafe {
            (self.decode)(
                format.codebook.number(),
                format.half_bits(),
                blocks.as_ptr(),
                blocks.len(),
                weights.as_mut_ptr(),
                weights.len(),
            )
        };
        assert!(done, "{format:?}: {} words", blocks.len());
        weights
    }
}

fn detect() -> Vec<Kernels> {
    #[allow(unused_mut)]
    let mut found = vec![Kernels {
        name: "baseline",
        multiply: ffi::trellink_host_multiply_baseline,
        decode: ffi::trellink_host_decode_baseline,
    }];
    // The lists are those of the compiler flags in build/host.rs.
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx2") && has!("fma") {
            found.push(Kernels {
                name: "avx2",
                multiply: ffi::trellink_host_multiply_avx2,
                decode: ffi::trellink_host_decode_avx2,
            });
        }
        let avx512 = has!("avx512f") && has!("avx512dq") && has!("avx512bw") && has!("avx512vl");
        if avx512 && has!("fma") {
            found.push(Kernels {
                name: "avx512",
                multiply: ffi::trellink_host_multiply_avx512,
                decode: ffi::trellink_host_decode_avx512,
            });
        }
    }
    found
}
