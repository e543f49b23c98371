//! Which linear kernel a launch uses, with which grid and shared memory.
//!
//! Free of CUDA, so that it can be tested anywhere. What must stay true: a choice decides over bits only
//! through the kernel's arithmetic and the strips of a CTA, and these depend on the range of M, the
//! columns and the SMs alone.

pub mod reduce;

use crate::format::{Codebook, GROUP};
use crate::Arithmetic;

/// Threads of a CTA; `TRELLINK_LINEAR_THREADS` in csrc/params.h.
const THREADS: usize = 512;
const WARPS: usize = THREADS / 32;
/// Floats between the sums of two tokens; `kSumStride` in csrc/linear/shared_layout.cuh.
const SUM_STRIDE: usize = 20;

/// A linear kernel: one of `csrc/kernels/linear_*.cu`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum LinearKernel {
    /// mul1 as byte sums, 4 tokens a pass.
    Bytes4,
    /// mul1 as byte sums, 8 tokens a pass.
    Bytes8,
    /// 3inst and mcg as two halves, 8 tokens a pass.
    Halves8,
    /// 3inst and mcg as two halves, 16 tokens a pass.
    Halves16,
    /// Every codebook as formed fp16 weights, 8 tokens a pass.
    Formed8,
    /// Every codebook as formed fp16 weights, 16 tokens a pass.
    Formed16,
    /// Every codebook as formed fp16 weights, 32 tokens a pass.
    Formed32,
}

impl LinearKernel {
    /// All kernels.
    pub const ALL: [LinearKernel; 7] = [
        LinearKernel::Bytes4,
        LinearKernel::Bytes8,
        LinearKernel::Halves8,
        LinearKernel::Halves16,
        LinearKernel::Formed8,
        LinearKernel::Formed16,
        LinearKernel::Formed32,
    ];

    /// The kernel for `rows` rows of layers with these codebooks.
    ///
    /// The borders are where forming a weight once costs less than more MMAs for the same tokens.
    pub fn choose(
        arithmetic: Arithmetic,
        rows: usize,
        codebooks: impl IntoIterator<Item = Codebook>,
    ) -> Self {
        let (mut mul1, mut halves) = (false, false);
        for codebook in codebooks {
            *(if codebook == Codebook::Mul1 {
                &mut mul1
            } else {
                &mut halves
            }) = true;
        }
        match (arithmetic, mul1, halves) {
            (Arithmetic::Fastest, true, false) if rows <= 4 => LinearKernel::Bytes4,
            (Arithmetic::Fastest, true, false) if rows <= 8 => LinearKernel::Bytes8,
            (Arithmetic::Fastest, false, true) if rows <= 8 => LinearKernel::Halves8,
            (Arithmetic::Fastest, false, true) if rows <= 16 => LinearKernel::Halves16,
            _ if rows <= 8 => LinearKernel::Formed8,
            _ if rows <= 16 => LinearKernel::Formed16,
            _ => LinearKernel::Formed32,
        }
    }

    /// The kernel's file in csrc/kernels, and with `trellink_` before it its symbol.
    pub fn name(self) -> &'static str {
        match self {
            LinearKernel::Bytes4 => "linear_bytes_4",
            LinearKernel::Bytes8 => "linear_bytes_8",
            LinearKernel::Halves8 => "linear_halves_8",
            LinearKernel::Halves16 => "linear_halves_16",
            LinearKernel::Formed8 => "linear_formed_8",
            LinearKernel::Formed16 => "linear_formed_16",
            LinearKernel::Formed32 => "linear_formed_32",
        }
    }

    /// What its arithmetic needs; the constants of csrc/linear/{bytes,halves,formed}.cuh.
    fn needs(self) -> Needs {
        let (tokens, strips, token_group_bytes, scale_bytes) = match self {
            LinearKernel::Bytes4 => (4, 2, 2 * (GROUP * 4 + 64), 16),
            LinearKernel::Bytes8 => (8, 1, 2 * (GROUP * 4 + 64), 16),
            LinearKernel::Halves8 => (8, 2, GROUP * 4 + 64, 4),
            LinearKernel::Halves16 => (16, 1, GROUP * 4 + 64, 4),
            LinearKernel::Formed8 => (8, 1, GROUP * 2 + 32, 4),
            LinearKernel::Formed16 => (16, 1, GROUP * 2 + 32, 4),
            LinearKernel::Formed32 => (32, 1, GROUP * 2 + 32, 4),
        };
        Needs {
            tokens,
            strips,
            token_group_bytes,
            scale_bytes,
        }
    }
}

/// What an arithmetic needs of a launch.
struct Needs {
    /// Tokens of a pass.
    tokens: usize,
    /// Strips that are kept together.
    strips: usize,
    /// Shared memory for a group of one token's inputs.
    token_group_bytes: usize,
    /// Shared memory for what undoes its scaling, reserved for every token of a pass.
    scale_bytes: usize,
}

/// The shape of one launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaunchShape {
    /// CTAs.
    pub grid: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

impl LaunchShape {
    /// The shape for `rows` rows, `strips` 16-column strips (a multiple of 8) and `k_groups` groups of
    /// 128 inputs, on a share of `sms` SMs with `max_shared_bytes` of shared memory for a CTA.
    ///
    /// The grid never exceeds the share: all CTAs are resident while they wait for peers. K is cut
    /// into chunks by the kernel where its input does not fit the shared memory.
    pub fn new(
        kernel: LinearKernel,
        rows: usize,
        strips: usize,
        k_groups: usize,
        sms: usize,
        max_shared_bytes: usize,
    ) -> Self {
        let needs = kernel.needs();
        let units = strips / needs.strips;
        let units_per_cta = units.div_ceil(sms.max(1)).max(1);
        // As shared_layout.cuh lays it out: sums, then per group scales and input.
        let sums = WARPS * needs.strips * needs.tokens * SUM_STRIDE * 4;
        let group =
            needs.tokens * needs.scale_bytes + needs.tokens.min(rows) * needs.token_group_bytes;
        let wanted = sums + group * k_groups.max(1);
        LaunchShape {
            grid: units.div_ceil(units_per_cta) as u32,
            shared_bytes: wanted.min(max_shared_bytes) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_fits_the_share_and_no_cta_has_two_units_more_than_another() {
        for kernel in LinearKernel::ALL {
            for sms in [1, 7, 16, 33, 66, 132] {
                for strips in (8..2000).step_by(8) {
                    let shape = LaunchShape::new(kernel, 1, strips, 4, sms, 1 << 17);
                    let (grid, units) = (shape.grid as usize, strips / kernel.needs().strips);
                    assert!(grid >= 1 && grid <= sms, "{strips} strips on {sms} SMs");
                    let of = |cta: usize| units * (cta + 1) / grid - units * cta / grid;
                    assert!((0..grid).all(|cta| of(cta).abs_diff(of(0)) <= 1 && of(cta) > 0));
                }
            }
        }
    }

    #[test]
    fn the_grid_does_not_depend_on_the_rows() {
        for kernel in LinearKernel::ALL {
            let grid = |rows| LaunchShape::new(kernel, rows, 256, 16, 132, 1 << 17).grid;
            assert!((1..100).all(|rows| grid(rows) == grid(1)));
        }
    }

    #[test]
    fn every_kernel_has_room_for_a_group_in_the_smallest_shared_memory() {
        // sm_86, sm_89 and sm_120 allow 99 KiB a CTA.
        for kernel in LinearKernel::ALL {
            let whole = LaunchShape::new(kernel, 100, 8, 1, 8, usize::MAX).shared_bytes;
            assert!(whole <= 99 << 10, "{kernel:?} needs {whole}");
        }
    }

    #[test]
    fn shared_memory_is_what_is_needed_but_never_more_than_there_is() {
        let bytes = |rows, groups| {
            LaunchShape::new(LinearKernel::Formed8, rows, 8, groups, 8, 99 << 10).shared_bytes
        };
        assert_eq!(bytes(1, 16), 16 * 8 * 20 * 4 + 16 * (8 * 4 + 288));
        assert_eq!(bytes(100, 224), 99 << 10);
        assert_eq!(
            bytes(1, 0),
            bytes(1, 1),
            "an empty shard still adds up its zeros"
        );
    }

    #[test]
    fn uniform_arithmetic_is_the_formed_one_for_every_number_of_rows() {
        for codebook in Codebook::ALL {
            for rows in 1..100 {
                let kernel = LinearKernel::choose(Arithmetic::Uniform, rows, [codebook]);
                assert!(kernel.name().contains("formed"));
                assert!(kernel.needs().tokens >= rows.min(32));
            }
        }
    }

    #[test]
    fn a_launch_of_both_families_takes_the_kernel_that_serves_both() {
        let both = [Codebook::Mul1, Codebook::Mcg];
        let chosen = LinearKernel::choose(Arithmetic::Fastest, 1, both);
        assert_eq!(chosen, LinearKernel::Formed8);
    }
}
