//! How a launch of the linear kernel is shaped: its pass, grid and shared memory.
//!
//! Free of CUDA, so that it can be tested anywhere. What must stay true: the shape never decides
//! over bits except through the strips of a CTA, which depend on the columns and the SMs alone,
//! not on the rows.

use crate::format::GROUP;

/// Threads of a CTA; `TRELLINK_LINEAR_THREADS` in csrc/params.h.
const THREADS: usize = 512;
const WARPS: usize = THREADS / 32;
/// Floats between the sums of two tokens; `kSumStride` in csrc/linear/shared_layout.cuh.
const SUM_STRIDE: usize = 20;
/// Tokens of a pass of the kernel for few rows, and of the other one.
const PASSES: [usize; 2] = [8, 32];

/// The shape of one launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaunchShape {
    /// Tokens that the kernel takes in a pass: names the kernel.
    pub pass: usize,
    /// CTAs.
    pub grid: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

impl LaunchShape {
    /// The shape for `rows` rows, `strips` 16-column strips and `k_groups` groups of 128 inputs, on
    /// a share of `sms` SMs with `max_shared_bytes` of shared memory for a CTA.
    ///
    /// The grid never exceeds the share: all CTAs are resident while they wait for peers. K is cut
    /// into chunks by the kernel where its input does not fit the shared memory.
    pub fn new(
        rows: usize,
        strips: usize,
        k_groups: usize,
        sms: usize,
        max_shared_bytes: usize,
    ) -> Self {
        let pass = PASSES[usize::from(rows > PASSES[0])];
        let strips_per_cta = strips.div_ceil(sms.max(1)).max(1);
        // As shared_layout.cuh lays it out: sums, then per group scales and input.
        let sums = WARPS * pass * SUM_STRIDE * 4;
        let group = pass * 4 + pass.min(rows) * GROUP * 2;
        let wanted = sums + group * k_groups.max(1);
        LaunchShape {
            pass,
            grid: strips.div_ceil(strips_per_cta) as u32,
            shared_bytes: wanted.min(max_shared_bytes) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_fits_the_share_and_no_cta_has_two_strips_more_than_another() {
        for sms in [1, 7, 16, 33, 66, 132] {
            for strips in (8..2000).step_by(8) {
                let grid = LaunchShape::new(1, strips, 4, sms, 1 << 17).grid as usize;
                assert!(grid >= 1 && grid <= sms, "{strips} strips on {sms} SMs");
                let of = |cta: usize| strips * (cta + 1) / grid - strips * cta / grid;
                assert!((0..grid).all(|cta| of(cta).abs_diff(of(0)) <= 1 && of(cta) > 0));
            }
        }
    }

    #[test]
    fn the_grid_does_not_depend_on_the_rows() {
        let grid = |rows| LaunchShape::new(rows, 256, 16, 132, 1 << 17).grid;
        assert!((1..100).all(|rows| grid(rows) == grid(1)));
    }

    #[test]
    fn shared_memory_is_what_is_needed_but_never_more_than_there_is() {
        let bytes = |rows, groups| LaunchShape::new(rows, 8, groups, 8, 99 << 10).shared_bytes;
        assert_eq!(bytes(1, 16), 16 * 8 * 20 * 4 + 16 * (8 * 4 + 256));
        assert_eq!(bytes(100, 224), 99 << 10);
        assert_eq!(
            bytes(1, 0),
            bytes(1, 1),
            "an empty shard still adds up its zeros"
        );
    }
}
