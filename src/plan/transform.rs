//! When a launch of its own transforms the input of a linear launch, and how it is shaped.
//!
//! It changes no bits: the arithmetic is that by which a CTA transforms for itself.

use super::{LinearKernel, Machine, Work, WARPS};

/// Memory for transformed inputs that a rank has for each of its exchanges: for eight layers, 64 rows of 16384
/// channels.
pub const WORKSPACE_BYTES: usize = 8 * operand_bytes(64, 128);

/// Threads of a CTA; `TRELLINK_TRANSFORM_THREADS` in csrc/params.h.
const THREADS: usize = 128;
/// CTAs of a cluster, where there are clusters: the device spreads them over SMs, even where some SMs are idle and could
/// take many, which would then take longer.
const CLUSTER: usize = 8;
/// Tokens of a group that a warp transforms at a time; `kMmaColumns` in csrc/linear/shared_layout.cuh.
const ITEM_TOKENS: usize = 8;
/// From how many rounds of a CTA's warps on the input is transformed once for all CTAs where these take it in chunks.
/// Fewer take less time than another launch does; with rings no transform of a CTA does (docs/performance.md).
const MIN_ROUNDS: usize = 2;

/// The shape of a launch of a transform kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransformShape {
    /// CTAs, as many as there is work for, in whole clusters: they wait for no other rank, so a share of the device does
    /// not bound them.
    pub grid: u32,
    /// CTAs of a cluster; 1 without clusters.
    pub cluster: u32,
    /// Tokens of a pass of the linear kernel.
    pub pass_tokens: u32,
    /// Bytes from a segment's operands to the next one's; of all segments together at most
    /// [`WORKSPACE_BYTES`].
    pub operand_stride: u64,
}

impl TransformShape {
    /// Tokens of the passes that there are kernels for.
    pub const PASSES: [u32; 4] = [8, 16, 32, 64];

    /// The place of its pass among [`PASSES`](Self::PASSES).
    pub fn pass(&self) -> usize {
        (self.pass_tokens / Self::PASSES[0]).ilog2() as usize
    }

    /// The shape of the launch, or nothing where CTAs with `groups` K groups do better by themselves, which takes
    /// that all of them fit their shared memory.
    pub(super) fn new(
        kernel: LinearKernel,
        work: &Work<'_>,
        groups: usize,
        fit: bool,
        machine: Machine,
    ) -> Option<Self> {
        let needs = kernel.needs();
        if !needs.wide {
            return None;
        }
        let pass_tokens = needs.tokens;
        let rounds = rounds(pass_tokens.min(work.rows), groups);
        let segments = work.half_bits.len();
        let operand_stride = operand_bytes(work.rows.next_multiple_of(pass_tokens), work.k_groups);
        // What does not fit comes by a ring, and what the kernel cannot transform.
        let must = !fit || kernel == LinearKernel::Wide64;
        let pays = machine.rings || rounds >= MIN_ROUNDS;
        let wanted = must || work.choices.transform.unwrap_or(pays);
        // An empty shard has no input.
        if !wanted || work.k_groups == 0 || segments * operand_stride > WORKSPACE_BYTES {
            return None;
        }
        // A CTA has neighbouring groups of the same tokens.
        let ctas = work.k_groups.div_ceil(THREADS / super::LANES);
        let grid = segments * work.rows.div_ceil(ITEM_TOKENS) * ctas;
        let cluster = if machine.cluster_pairs > 0 {
            CLUSTER
        } else {
            1
        };
        Some(TransformShape {
            grid: grid.next_multiple_of(cluster) as u32,
            cluster: cluster as u32,
            pass_tokens: pass_tokens as u32,
            operand_stride: operand_stride as u64,
        })
    }
}

/// Rounds in which the warps of a CTA transform `groups` K groups of rows of one pass by MMAs.
fn rounds(rows: usize, groups: usize) -> usize {
    (groups * rows.div_ceil(ITEM_TOKENS)).div_ceil(WARPS)
}

/// What a segment's operands take, for rows of whole passes; csrc/linear/operands.cuh.
const fn operand_bytes(rows: usize, k_groups: usize) -> usize {
    let needs = LinearKernel::Wide64.needs();
    k_groups * rows * (needs.token_group_bytes + needs.scale_bytes)
}
