//! Which linear kernel a launch uses, with which grid and shared memory.
//!
//! Free of CUDA, so that it can be tested anywhere. What must stay true: a choice decides over bits only
//! through the kernel's arithmetic and the strips of a CTA, and these depend on the range of M, the
//! columns and the SMs alone.

pub mod link;
pub mod reduce;

use crate::format::{Codebook, GROUP};
use crate::Arithmetic;

/// Threads of a CTA; `TRELLINK_LINEAR_THREADS` in csrc/params.h.
const THREADS: usize = 512;
const LANES: usize = 32;
const WARPS: usize = THREADS / LANES;
/// Between the scales and the input; `kAlignment` in csrc/linear/shared_layout.cuh.
const ALIGNMENT: usize = 16;
/// CTAs of a launch; `TRELLINK_MAX_CTAS` in csrc/params.h.
const MAX_CTAS: usize = 256;
/// Floats between the sums of two tokens; `kSumStride` in csrc/linear/shared_layout.cuh.
const SUM_STRIDE: usize = 20;

/// A linear kernel: one of `csrc/kernels/linear_*.cu`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum LinearKernel {
    /// mul1 as byte sums, 4 tokens a pass.
    Bytes4,
    /// Every codebook as formed fp16 weights and inputs in two columns, 4 tokens a pass.
    Formed4,
    /// Every codebook as formed fp16 weights, 8 tokens a pass.
    Formed8,
    /// Every codebook as formed fp16 weights, 16 tokens a pass.
    Formed16,
    /// Every codebook as formed fp16 weights, 32 tokens a pass.
    Formed32,
}

impl LinearKernel {
    /// All kernels.
    pub const ALL: [LinearKernel; 5] = [
        LinearKernel::Bytes4,
        LinearKernel::Formed4,
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
        let mul1_only = codebooks
            .into_iter()
            .all(|codebook| codebook == Codebook::Mul1);
        match arithmetic {
            Arithmetic::Fastest if rows <= 4 && mul1_only => LinearKernel::Bytes4,
            Arithmetic::Fastest if rows <= 4 => LinearKernel::Formed4,
            _ if rows <= 8 => LinearKernel::Formed8,
            _ if rows <= 16 => LinearKernel::Formed16,
            _ => LinearKernel::Formed32,
        }
    }

    /// The kernel's file in csrc/kernels, and with `trellink_` before it its symbol.
    pub fn name(self) -> &'static str {
        match self {
            LinearKernel::Bytes4 => "linear_bytes_4",
            LinearKernel::Formed4 => "linear_formed_4",
            LinearKernel::Formed8 => "linear_formed_8",
            LinearKernel::Formed16 => "linear_formed_16",
            LinearKernel::Formed32 => "linear_formed_32",
        }
    }

    /// What its arithmetic needs; the constants of csrc/linear/{bytes,formed,formed_pairs}.cuh.
    fn needs(self) -> Needs {
        let (tokens, strips, paired_half_bits, token_group_bytes, scale_bytes) = match self {
            LinearKernel::Bytes4 => (4, 2, 8, 2 * (GROUP * 4 + 64), 16),
            LinearKernel::Formed4 => (4, 1, 0, 2 * (GROUP * 2 + 32), 4),
            LinearKernel::Formed8 => (8, 1, 0, GROUP * 2 + 32, 4),
            LinearKernel::Formed16 => (16, 1, 0, GROUP * 2 + 32, 4),
            LinearKernel::Formed32 => (32, 1, 0, GROUP * 2 + 32, 4),
        };
        Needs {
            tokens,
            strips,
            paired_half_bits,
            token_group_bytes,
            scale_bytes,
        }
    }
}

/// What an arithmetic needs of a launch.
struct Needs {
    /// Tokens of a pass.
    tokens: usize,
    /// Strips that a warp takes at once, at up to `paired_half_bits`.
    strips: usize,
    /// Beyond, a warp takes one strip.
    paired_half_bits: usize,
    /// Shared memory for a group of one token's inputs.
    token_group_bytes: usize,
    /// Shared memory for what undoes its scaling.
    scale_bytes: usize,
}

impl Needs {
    /// Shared memory for a group of the inputs of all tokens of a pass.
    fn group_bytes(&self, rows: usize) -> usize {
        let tokens = self.tokens.min(rows);
        tokens.next_multiple_of(2) * self.scale_bytes + tokens * self.token_group_bytes
    }

    /// Shared memory for a warp's weights, and later its sums.
    fn warp_bytes(&self, half_bits: impl Iterator<Item = usize>) -> usize {
        let block = |half_bits: usize| half_bits * LANES * 4;
        let weights = half_bits
            .map(|half_bits| {
                let paired = half_bits <= self.paired_half_bits;
                block(half_bits) * if paired { self.strips } else { 1 }
            })
            .max();
        let sums = self.strips * self.tokens * SUM_STRIDE * 4;
        weights.unwrap_or(0).max(sums)
    }
}

/// What is to be computed in one launch.
#[derive(Clone, Debug)]
pub struct Work<'a> {
    /// Rows of the input.
    pub rows: usize,
    /// 16-column strips, a multiple of 8.
    pub strips: usize,
    /// Groups of 128 inputs.
    pub k_groups: usize,
    /// Twice the bits per weight of every segment.
    pub half_bits: &'a [usize],
}

/// What a rank has of its device.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// SMs that its kernels may occupy.
    pub sms: usize,
    /// Dynamic shared memory of a CTA at most, in bytes.
    pub max_shared_bytes: usize,
}

/// The shape of one launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaunchShape {
    /// CTAs.
    pub grid: u32,
    /// Runs of strips that warps keep together, for every CTA.
    pub units: u32,
    /// CTAs that have one more.
    pub more_units: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// Of these, for each warp's weights and sums.
    pub warp_bytes: u32,
    /// K groups whose input is held at a time.
    pub chunk_groups: u32,
}

impl LaunchShape {
    /// The shape for some work on a machine.
    ///
    /// The grid never exceeds the share: all CTAs are resident while they wait for peers. K is cut
    /// into chunks by the kernel where its input does not fit the shared memory beside the weights.
    pub fn new(kernel: LinearKernel, work: &Work<'_>, machine: Machine) -> Self {
        let needs = kernel.needs();
        let units = work.strips / needs.strips;
        let sms = machine.sms.clamp(1, MAX_CTAS);
        let units_per_cta = units.div_ceil(sms).max(1);
        let group = needs.group_bytes(work.rows);
        let warp_bytes = needs.warp_bytes(work.half_bits.iter().copied());
        let fixed = WARPS * warp_bytes + ALIGNMENT;
        let shared_bytes = (fixed + group * work.k_groups.max(1)).min(machine.max_shared_bytes);
        let grid = units.div_ceil(units_per_cta).max(1);
        LaunchShape {
            grid: grid as u32,
            units: (units / grid) as u32,
            more_units: (units % grid) as u32,
            shared_bytes: shared_bytes as u32,
            warp_bytes: warp_bytes as u32,
            chunk_groups: (shared_bytes.saturating_sub(fixed) / group) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(kernel: LinearKernel, work: [usize; 4], sms: usize, shared: usize) -> LaunchShape {
        let [rows, strips, k_groups, half_bits] = work;
        let work = Work {
            rows,
            strips,
            k_groups,
            half_bits: &[half_bits],
        };
        let machine = Machine {
            sms,
            max_shared_bytes: shared,
        };
        LaunchShape::new(kernel, &work, machine)
    }

    #[test]
    fn a_grid_fits_the_share_and_every_cta_has_work() {
        for kernel in LinearKernel::ALL {
            for sms in [1, 7, 16, 33, 66, 132] {
                for strips in (8..2000).step_by(8) {
                    let shape = shape(kernel, [1, strips, 4, 8], sms, 1 << 17);
                    let (grid, units) = (shape.grid as usize, strips / kernel.needs().strips);
                    assert!(grid >= 1 && grid <= sms, "{strips} strips on {sms} SMs");
                    assert!(grid <= units);
                }
            }
        }
    }

    #[test]
    fn the_grid_does_not_depend_on_the_rows() {
        for kernel in LinearKernel::ALL {
            let grid = |rows| shape(kernel, [rows, 256, 16, 8], 132, 1 << 17).grid;
            assert!((1..100).all(|rows| grid(rows) == grid(1)));
        }
    }

    #[test]
    fn every_kernel_has_room_for_a_group_in_the_smallest_shared_memory() {
        // sm_86, sm_89 and sm_120 allow 99 KiB a CTA.
        for kernel in LinearKernel::ALL {
            for half_bits in [2, 8, 16] {
                let shape = shape(kernel, [100, 8, 1, half_bits], 8, 99 << 10);
                assert!(shape.chunk_groups >= 1, "{kernel:?}");
            }
        }
    }

    #[test]
    fn shared_memory_is_what_is_needed_but_never_more_than_there_is() {
        let of = |rows, groups, shared| {
            let shape = shape(LinearKernel::Formed8, [rows, 8, groups, 8], 8, shared);
            (shape.shared_bytes, shape.chunk_groups)
        };
        assert_eq!(of(1, 16, 227 << 10), (16 * 1024 + 16 + 16 * (8 + 288), 16));
        assert_eq!(of(100, 224, 99 << 10), (99 << 10, 36));
        assert_eq!(
            of(1, 0, 99 << 10),
            of(1, 1, 99 << 10),
            "an empty shard still adds up its zeros"
        );
    }

    #[test]
    fn one_token_of_the_widest_layer_takes_one_chunk_on_hopper() {
        let shape = shape(
            LinearKernel::Bytes4,
            [1, 512, 112, 8],
            132,
            (227 << 10) - 192,
        );
        assert_eq!(shape.chunk_groups, 112);
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
        assert_eq!(chosen, LinearKernel::Formed4);
    }
}
