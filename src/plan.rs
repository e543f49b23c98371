//! Which linear kernel a launch uses, with which grid and shared memory.
//!
//! Free of CUDA, so that it can be tested anywhere. What must stay true: a choice decides over bits only
//! through the kernel's arithmetic, the strips of a CTA and the K groups that it shares with others, and these
//! depend on the range of M, the columns, K and the machine alone; and on a table of the caller's, where there is one.

pub mod link;
pub mod reduce;
mod transform;
mod tuning;

pub use transform::{TransformShape, WORKSPACE_BYTES};
pub use tuning::{Call, Choices, Tuning, TuningEntry};

use crate::format::{Codebook, GROUP, TILE};
use crate::Arithmetic;

/// Threads of a CTA; `TRELLINK_LINEAR_THREADS` in csrc/params.h.
const THREADS: usize = 512;
const LANES: usize = 32;
const WARPS: usize = THREADS / LANES;
/// CTAs of a launch; `TRELLINK_MAX_CTAS` in csrc/params.h.
const MAX_CTAS: usize = 256;
/// Floats between the sums of two tokens; `kSumStride` in csrc/linear/shared_layout.cuh.
const SUM_STRIDE: usize = 20;
/// CTAs that share K where they do.
const K_SPLITS: usize = 2;
/// K groups from which on they do, as measured (docs/performance.md): with fewer, meeting takes longer than half
/// of the groups. Eight tokens begin earlier, having more input to transform than a few.
const SPLIT_GROUPS: usize = 32;
const WIDE_8_SPLIT_GROUPS: usize = 16;
/// K groups of a CTA from which on a warp of a wide kernel takes spans of four groups, and not of two. Weights that
/// begin in larger pieces are in the way of the transform ahead (docs/performance.md).
const LONG_SPAN_GROUPS: usize = 48;
/// Places of a CTA's rings at most; `RingPlaces::kMost` in csrc/linear/operand_ring.cuh.
const MAX_PLACES: usize = 32;
/// A linear kernel: one of `csrc/kernels/linear_*.cu`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum LinearKernel {
    /// mul1 as byte sums, 4 tokens a pass.
    Bytes4,
    /// Every codebook as formed fp16 weights and inputs in two columns, 4 tokens a pass.
    Formed4,
    /// Every codebook as formed fp16 weights, 8 tokens a pass.
    Wide8,
    /// Every codebook as formed fp16 weights, 16 tokens a pass.
    Wide16,
    /// Every codebook as formed fp16 weights, 32 tokens a pass.
    Wide32,
    /// Every codebook as formed fp16 weights, 64 tokens a pass; for MMAs of warpgroups alone.
    Wide64,
}

impl LinearKernel {
    /// All kernels.
    pub const ALL: [LinearKernel; 6] = [
        LinearKernel::Bytes4,
        LinearKernel::Formed4,
        LinearKernel::Wide8,
        LinearKernel::Wide16,
        LinearKernel::Wide32,
        LinearKernel::Wide64,
    ];

    /// The kernel for `rows` rows of layers with these codebooks, where a pass may have `most_tokens` tokens.
    ///
    /// The borders are where forming a weight once costs less than more MMAs for the same tokens. The wide
    /// kernels have one arithmetic, and it is the one for all rows where bits must not depend on their number.
    pub fn choose(
        arithmetic: Arithmetic,
        rows: usize,
        most_tokens: usize,
        codebooks: impl IntoIterator<Item = Codebook>,
    ) -> Self {
        let mul1_only = codebooks
            .into_iter()
            .all(|codebook| codebook == Codebook::Mul1);
        match arithmetic {
            Arithmetic::Fastest if rows <= 4 && mul1_only => LinearKernel::Bytes4,
            Arithmetic::Fastest if rows <= 4 => LinearKernel::Formed4,
            Arithmetic::Fastest if rows <= 8 => LinearKernel::Wide8,
            _ if rows <= 16 => LinearKernel::Wide16,
            _ if rows <= 32 || most_tokens < 64 => LinearKernel::Wide32,
            _ => LinearKernel::Wide64,
        }
    }

    /// The kernel's file in csrc/kernels, and with `trellink_` before it its symbol.
    pub fn name(self) -> &'static str {
        match self {
            LinearKernel::Bytes4 => "linear_bytes_4",
            LinearKernel::Formed4 => "linear_formed_4",
            LinearKernel::Wide8 => "linear_wide_8",
            LinearKernel::Wide16 => "linear_wide_16",
            LinearKernel::Wide32 => "linear_wide_32",
            LinearKernel::Wide64 => "linear_wide_64",
        }
    }

    /// The formats, codebook and half bits, for which there are kernels that launches of [`LaunchShape::straight`]
    /// take; those of csrc/kernels. Every one that few tokens of mul1 may have, and of the rest the usual ones.
    pub const fn straight_formats(self) -> &'static [(Codebook, usize)] {
        const MUL1: Codebook = Codebook::Mul1;
        const MCG: Codebook = Codebook::Mcg;
        match self {
            LinearKernel::Bytes4 => &[
                (MUL1, 2),
                (MUL1, 3),
                (MUL1, 4),
                (MUL1, 5),
                (MUL1, 6),
                (MUL1, 7),
                (MUL1, 8),
                (MUL1, 10),
                (MUL1, 12),
                (MUL1, 14),
                (MUL1, 16),
            ],
            LinearKernel::Formed4 => &[(MCG, 8)],
            _ => &[(MUL1, 8), (MCG, 8)],
        }
    }

    /// Whether its arithmetic is one of those for few tokens; `kFewTokens` in csrc/linear.
    pub const fn few_tokens(self) -> bool {
        matches!(self, LinearKernel::Bytes4 | LinearKernel::Formed4)
    }

    /// What its arithmetic needs; the constants of csrc/linear/{bytes,formed_pairs,wide}.cuh.
    const fn needs(self) -> Needs {
        let (tokens, strips, together, paired_half_bits, token_group_bytes, scale_bytes) =
            match self {
                LinearKernel::Bytes4 => (4, 2, 1, 8, 2 * (GROUP * 4 + 64), 32),
                LinearKernel::Formed4 => (4, 1, 1, 0, 2 * (GROUP * 2 + 64), 4),
                LinearKernel::Wide8 => (8, 1, 1, 0, GROUP * 2, 4),
                LinearKernel::Wide16 => (16, 1, 4, 0, GROUP * 2, 4),
                LinearKernel::Wide32 => (32, 1, 4, 0, GROUP * 2, 4),
                LinearKernel::Wide64 => (64, 1, 4, 0, GROUP * 2, 4),
            };
        Needs {
            tokens,
            strips,
            together,
            paired_half_bits,
            token_group_bytes,
            scale_bytes,
            wide: !self.few_tokens(),
        }
    }
}

/// What an arithmetic needs of a launch.
struct Needs {
    /// Tokens of a pass.
    tokens: usize,
    /// Strips that a warp takes at once, at up to `paired_half_bits`.
    strips: usize,
    /// Warps that take neighbouring strips together.
    together: usize,
    /// Beyond, a warp takes one strip.
    paired_half_bits: usize,
    /// Shared memory for a group of one token's inputs.
    token_group_bytes: usize,
    /// What undoes the scaling of a token's group.
    scale_bytes: usize,
    /// Whether there are places for all tokens of a pass, spans of several groups, and inputs that another launch can
    /// make.
    wide: bool,
}

impl Needs {
    /// Shared memory for a group of the inputs of all tokens of a pass.
    fn group_bytes(&self, rows: usize) -> usize {
        let tokens = if self.wide {
            self.tokens
        } else {
            self.tokens.min(rows)
        };
        (tokens * self.scale_bytes).next_multiple_of(16) + tokens * self.token_group_bytes
    }

    /// Strips that a cluster has or has not.
    const fn unit(&self) -> usize {
        self.strips * self.together
    }

    /// Half bits up to which warps take strips in pairs. Not where each would have one span of groups: twice that of
    /// one strip is shorter code, of which all is new to the CTA (docs/performance.md).
    fn paired_half_bits(&self, work: &Work<'_>, shape: &LaunchShape) -> usize {
        let pairs = shape.units as usize + usize::from(shape.more_units > 0);
        let groups = work.k_groups.div_ceil(shape.k_splits as usize);
        if self.strips * pairs <= WARPS && groups <= WARPS / pairs.max(1) {
            0
        } else {
            self.paired_half_bits
        }
    }

    /// Whether the work of every cluster is one piece (csrc/linear/cut.cuh).
    fn is_one_piece(&self, work: &Work<'_>, shape: &LaunchShape) -> bool {
        let &[half_bits] = work.half_bits else {
            return false;
        };
        let units = shape.units + u32::from(shape.more_units > 0);
        let paired = half_bits <= shape.paired_half_bits as usize;
        let most_strips = WARPS * if paired { self.strips } else { 1 };
        self.unit() * units as usize <= most_strips && work.rows <= self.tokens
    }

    /// Whether every cluster has whole groups of columns.
    fn has_whole_groups(&self, shape: &LaunchShape) -> bool {
        let strips = self.unit() * shape.units as usize;
        shape.more_units == 0 && strips.is_multiple_of(GROUP / TILE)
    }

    /// K groups of the input that fit beside the weights of spans of `span` groups: at least a span, for which every
    /// machine has room (a test sees to it), and whole ones.
    fn groups_that_fit(&self, work: &Work<'_>, span: usize, machine: Machine) -> usize {
        let fixed = WARPS * self.warp_bytes(work.half_bits, span);
        let room = machine.max_shared_bytes.saturating_sub(fixed);
        (room / self.group_bytes(work.rows) / span * span).max(span)
    }

    /// Shared memory for a warp's weights, spans of `span` groups, and later its sums.
    fn warp_bytes(&self, half_bits: &[usize], span: usize) -> usize {
        let block = |half_bits: usize| half_bits * LANES * 4 * span;
        let weights = half_bits
            .iter()
            .map(|&half_bits| {
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
    /// What is not left to the model.
    pub choices: Choices,
}

/// What a rank has of its device.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// SMs that its kernels may occupy.
    pub sms: usize,
    /// Dynamic shared memory of a CTA at most, in bytes.
    pub max_shared_bytes: usize,
    /// Clusters of two CTAs that are resident at once, whatever their shared memory; 0 without clusters.
    pub cluster_pairs: usize,
    /// Tokens of a pass at most.
    pub most_tokens: usize,
    /// Whether kernels take what was transformed ahead from rings and not in chunks; `TRELLINK_RINGS` in csrc/linear.
    pub rings: bool,
}

/// The shape of one launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaunchShape {
    /// The kernel: the one that was asked for, or one with fewer tokens a pass.
    pub kernel: LinearKernel,
    /// CTAs.
    pub grid: u32,
    /// CTAs of a cluster, which share K; 1 without clusters.
    pub k_splits: u32,
    /// Runs of strips that warps keep together, for every cluster.
    pub units: u32,
    /// Clusters that have one more.
    pub more_units: u32,
    /// Half bits up to which a warp takes two strips at once, where its arithmetic knows that.
    pub paired_half_bits: u32,
    /// Whether that is whole groups of 128 columns for every cluster, in one piece: then a cluster finishes what it
    /// adds up.
    pub whole_groups: bool,
    /// Whether every CTA has one piece, and one chunk of the input or rings of it: then a kernel of
    /// [`LinearKernel::straight_formats`] can serve.
    pub straight: bool,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// Of these, for each warp's weights and sums.
    pub warp_bytes: u32,
    /// K groups whose input is held at a time, where the CTAs transform it.
    pub chunk_groups: u32,
    /// log2 of the K groups of a span.
    pub span_log2: u32,
    /// Spans that a slice of K has places for, where the input is transformed ahead.
    pub places: u32,
    /// The launch ahead of it that transforms its input, if the CTAs do not by themselves.
    pub transform: Option<TransformShape>,
}

impl LaunchShape {
    /// The shape for some work on a machine.
    ///
    /// The grid never exceeds the share: all CTAs are resident while they wait for peers. K is cut
    /// into chunks by the kernel where its input does not fit the shared memory beside the weights.
    pub fn new(
        kernel: LinearKernel,
        arithmetic: Arithmetic,
        work: &Work<'_>,
        machine: Machine,
    ) -> Self {
        let needs = kernel.needs();
        let units = work.strips / needs.unit();
        let sms = machine.sms.clamp(1, MAX_CTAS);
        let pairs = machine.cluster_pairs.min(sms / K_SPLITS);
        let splits = match kernel {
            LinearKernel::Bytes4 | LinearKernel::Formed4 => work.k_groups >= SPLIT_GROUPS,
            LinearKernel::Wide8 => work.k_groups >= WIDE_8_SPLIT_GROUPS,
            // Few units leave half of the SMs idle.
            LinearKernel::Wide16 | LinearKernel::Wide32 | LinearKernel::Wide64 => {
                work.k_groups >= SPLIT_GROUPS || units <= pairs
            }
        };
        let splits = match work.choices.k_splits {
            Some(chosen) => chosen == K_SPLITS,
            None => splits,
        };
        let (k_splits, most) = if splits && pairs > 0 {
            (K_SPLITS, pairs)
        } else {
            (1, sms)
        };
        let units_per_cluster = units.div_ceil(most).max(1);
        let clusters = units.div_ceil(units_per_cluster).max(1);
        let mut shape = LaunchShape {
            kernel,
            grid: (clusters * k_splits) as u32,
            k_splits: k_splits as u32,
            units: (units / clusters) as u32,
            more_units: (units % clusters) as u32,
            paired_half_bits: 0,
            whole_groups: false,
            straight: false,
            shared_bytes: 0,
            warp_bytes: 0,
            chunk_groups: 0,
            span_log2: 0,
            places: 0,
            transform: None,
        };
        shape.paired_half_bits = needs.paired_half_bits(work, &shape) as u32;
        let one_piece = needs.is_one_piece(work, &shape);
        shape.whole_groups = one_piece && needs.has_whole_groups(&shape);
        shape.hold_input(arithmetic, work, machine);
        shape.straight = one_piece && shape.has_one_chunk(work, machine);
        if kernel == LinearKernel::Wide64 && shape.transform.is_none() && work.k_groups > 0 {
            // It has no registers for transforming by itself.
            return LaunchShape::new(LinearKernel::Wide32, arithmetic, work, machine);
        }
        shape
    }

    /// Decides how the input comes to the CTAs and what they hold of it.
    fn hold_input(&mut self, arithmetic: Arithmetic, work: &Work<'_>, machine: Machine) {
        let needs = self.kernel.needs();
        let groups = work.k_groups.div_ceil(self.k_splits as usize).max(1);
        let slices = self.most_slices(needs.unit(), work);
        self.span_log2 = span_log2(self.kernel, arithmetic, work, groups, slices, machine) as u32;
        let span = 1 << self.span_log2;
        let all = groups.next_multiple_of(span);
        let fit = needs.groups_that_fit(work, span, machine);
        self.transform = TransformShape::new(self.kernel, work, groups, fit >= all, machine);
        let held = if self.transform.is_some() {
            let spans = (all / span).div_ceil(slices);
            let places = (fit / span / slices).min(spans).min(MAX_PLACES / slices);
            self.places = places.max(1) as u32;
            // Before Hopper there are no rings, but chunks.
            slices * places.max(1) * span
        } else {
            fit.min(all)
        };
        let warp_bytes = needs.warp_bytes(work.half_bits, span);
        self.chunk_groups = held as u32;
        self.warp_bytes = warp_bytes as u32;
        self.shared_bytes = (WARPS * warp_bytes + held * needs.group_bytes(work.rows)) as u32;
    }

    /// Whether CTAs have all of their input at once or by rings; where there are rings, wide kernels for one format know
    /// nothing else. An empty shard has no input.
    fn has_one_chunk(&self, work: &Work<'_>, machine: Machine) -> bool {
        if machine.rings && !self.kernel.few_tokens() {
            return self.transform.is_some() || work.k_groups == 0;
        }
        work.k_groups.div_ceil(self.k_splits as usize) <= self.chunk_groups as usize
    }

    /// Slices of K of a CTA at most: as many as its warps make of the fewest strips that a piece may have.
    fn most_slices(&self, unit: usize, work: &Work<'_>) -> usize {
        let strips = unit * self.units as usize;
        let more = unit * usize::from(self.more_units > 0);
        // Pieces end where segments do, and where all warps have a strip.
        let whole = work.half_bits.len() == 1 && strips + more <= WARPS;
        WARPS / if whole { strips.max(1) } else { unit }.min(WARPS)
    }
}

/// log2 of the K groups of a span. Decides over bits: for one arithmetic for every M it must not depend on the kernel.
fn span_log2(
    kernel: LinearKernel,
    arithmetic: Arithmetic,
    work: &Work<'_>,
    groups: usize,
    slices: usize,
    machine: Machine,
) -> usize {
    if !kernel.needs().wide {
        return 0;
    }
    let widest = match arithmetic {
        Arithmetic::Fastest => kernel,
        Arithmetic::Uniform if machine.most_tokens < 64 => LinearKernel::Wide32,
        Arithmetic::Uniform => LinearKernel::Wide64,
    };
    let longest = if groups >= LONG_SPAN_GROUPS { 2 } else { 1 };
    // One to use and one that comes, for every slice, or all there are.
    let fits = |&log2: &usize| {
        let spans = groups.div_ceil(1 << log2);
        let fit = widest.needs().groups_that_fit(work, 1 << log2, machine) >> log2;
        fit >= (2 * slices).min(spans.next_multiple_of(slices))
    };
    (0..=longest).rev().find(fits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOPPER: Machine = Machine {
        sms: 132,
        max_shared_bytes: 227 << 10,
        cluster_pairs: 66,
        most_tokens: 64,
        rings: true,
    };

    fn shape(kernel: LinearKernel, work: [usize; 4], sms: usize, shared: usize) -> LaunchShape {
        clustered(kernel, work, sms, shared, 0)
    }

    fn clustered(
        kernel: LinearKernel,
        work: [usize; 4],
        sms: usize,
        shared: usize,
        cluster_pairs: usize,
    ) -> LaunchShape {
        let machine = Machine {
            sms,
            max_shared_bytes: shared,
            cluster_pairs,
            most_tokens: 64,
            rings: cluster_pairs > 0,
        };
        launch(kernel, work, Choices::default(), machine)
    }

    /// Of one segment: rows, strips, K groups, half bits.
    fn launch(
        kernel: LinearKernel,
        [rows, strips, k_groups, half_bits]: [usize; 4],
        choices: Choices,
        machine: Machine,
    ) -> LaunchShape {
        let work = Work {
            rows,
            strips,
            k_groups,
            half_bits: &[half_bits],
            choices,
        };
        LaunchShape::new(kernel, Arithmetic::Fastest, &work, machine)
    }

    #[test]
    fn a_grid_fits_the_share_and_every_cta_has_work() {
        for kernel in LinearKernel::ALL {
            for sms in [1, 7, 16, 33, 66, 132] {
                for strips in (8..2000).step_by(8) {
                    let shape = shape(kernel, [1, strips, 4, 8], sms, 1 << 17);
                    let (grid, units) = (shape.grid as usize, strips / kernel.needs().unit());
                    assert!(grid >= 1 && grid <= sms, "{strips} strips on {sms} SMs");
                    assert!(grid <= units);
                }
            }
        }
    }

    #[test]
    fn clusters_fit_what_the_machine_holds_and_every_one_has_work() {
        for kernel in [LinearKernel::Wide8, LinearKernel::Wide32] {
            let unit = kernel.needs().unit();
            for pairs in [1, 5, 66, 200] {
                for strips in (8..2000).step_by(8) {
                    let shape = clustered(kernel, [1, strips, 48, 8], 132, 1 << 17, pairs);
                    let clusters = (shape.grid / 2) as usize;
                    assert_eq!((shape.k_splits, shape.grid % 2), (2, 0));
                    assert!(
                        clusters >= 1 && clusters <= pairs.min(66),
                        "{strips} strips"
                    );
                    let units = clusters * shape.units as usize + shape.more_units as usize;
                    assert_eq!(units * unit, strips);
                    assert!(shape.units >= 1 && (shape.more_units as usize) < clusters);
                }
            }
        }
    }

    #[test]
    fn many_groups_are_shared_and_only_where_there_are_clusters() {
        let splits = |kernel, strips, groups, pairs| {
            clustered(kernel, [1, strips, groups, 8], 132, 1 << 17, pairs).k_splits == 2
        };
        for kernel in LinearKernel::ALL {
            let eight = kernel == LinearKernel::Wide8;
            assert!(splits(kernel, 512, 32, 66));
            assert_eq!(splits(kernel, 512, 31, 66), eight);
            assert_eq!(splits(kernel, 512, 16, 66), eight);
            assert!(!splits(kernel, 512, 15, 66));
            // Units that leave every other SM without one.
            assert_eq!(splits(kernel, 256, 15, 66), kernel.needs().together == 4);
            assert!(!splits(kernel, 512, 112, 0));
        }
    }

    #[test]
    fn what_is_chosen_goes_before_the_model_where_the_machine_can() {
        let shape = |kernel, groups, pairs, k_splits, transform| {
            let choices = Choices {
                k_splits,
                transform,
            };
            let work = Work {
                rows: 16,
                strips: 512,
                k_groups: groups,
                half_bits: &[8],
                choices,
            };
            let machine = Machine {
                sms: 132,
                max_shared_bytes: 1 << 19,
                cluster_pairs: pairs,
                most_tokens: 64,
                rings: pairs > 0,
            };
            let shape = LaunchShape::new(kernel, Arithmetic::Fastest, &work, machine);
            (shape.k_splits, shape.transform.is_some())
        };
        let wide = LinearKernel::Wide16;
        assert_eq!(shape(wide, 112, 66, None, None), (2, true), "the model");
        assert_eq!(shape(wide, 112, 66, Some(1), None), (1, true));
        assert_eq!(shape(wide, 112, 66, None, Some(false)), (2, false));
        assert_eq!(shape(wide, 8, 66, None, None), (1, true), "the model");
        assert_eq!(shape(wide, 8, 66, Some(2), Some(false)), (2, false));
        assert_eq!(shape(wide, 8, 0, None, None), (1, false), "the model");
        assert_eq!(shape(wide, 8, 0, None, Some(true)), (1, true));
        // What cannot be is not.
        assert_eq!(shape(wide, 112, 0, Some(2), None), (1, true));
        assert_eq!(shape(wide, 5000, 66, None, Some(true)), (2, false));
        assert_eq!(
            shape(LinearKernel::Wide64, 8, 66, None, Some(false)),
            (1, true)
        );
        assert_eq!(
            shape(LinearKernel::Bytes4, 8, 66, Some(2), Some(true)),
            (2, false)
        );
    }

    #[test]
    fn a_cta_of_a_cluster_holds_the_greater_half_of_k() {
        let shape = clustered(LinearKernel::Wide8, [8, 256, 29, 8], 132, 1 << 20, 66);
        // And whole spans.
        assert_eq!(shape.chunk_groups, 16);
    }

    #[test]
    fn the_input_is_transformed_ahead_of_rings_and_else_from_two_rounds_of_a_cta_on() {
        let transform = |kernel, rows, groups, pairs| {
            clustered(kernel, [rows, 256, groups, 8], 132, 227 << 10, pairs).transform
        };
        // Groups times blocks of eight tokens over 16 warps.
        assert_eq!(transform(LinearKernel::Wide16, 9, 8, 0), None);
        assert!(transform(LinearKernel::Wide16, 9, 9, 0).is_some());
        // There are rings where there are clusters here.
        assert!(transform(LinearKernel::Wide16, 9, 1, 66).is_some());
        assert!(transform(LinearKernel::Wide8, 1, 1, 66).is_some());
        assert!(transform(LinearKernel::Wide32, 64, 13, 0).is_some());
        // Or where it does not fit.
        let tight = |groups, kib: usize| {
            let work = [9, 256, groups, 8];
            shape(LinearKernel::Wide16, work, 132, kib << 10).transform
        };
        assert_eq!(tight(8, 99), None);
        assert!(tight(8, 48).is_some());
        assert_eq!(transform(LinearKernel::Wide8, 8, 16, 0), None);
        assert!(transform(LinearKernel::Wide8, 1, 17, 0).is_some());
        for kernel in [LinearKernel::Bytes4, LinearKernel::Formed4] {
            assert_eq!(transform(kernel, 4, 112, 0), None);
        }
        // What cannot do it by itself.
        assert!(transform(LinearKernel::Wide64, 64, 1, 0).is_some());
    }

    #[test]
    fn clusters_finish_their_own_columns_where_these_are_whole_groups_in_one_piece() {
        let whole = |kernel, rows, strips, groups, half_bits| {
            let work = [rows, strips, groups, half_bits];
            clustered(kernel, work, 132, 227 << 10, 66).whole_groups
        };
        for kernel in LinearKernel::ALL {
            let rows = kernel.needs().tokens;
            // 64 clusters of 8 strips.
            assert!(whole(kernel, rows, 512, 32, 8));
            assert!(whole(kernel, 1, 512, 112, 8));
            // 64 of 4.
            assert!(!whole(kernel, rows, 256, 32, 8));
            // Two passes are two pieces.
            assert!(!whole(kernel, rows + 1, 512, 32, 8));
            // So are strips that the warps do not take at once, of which 2048 / 66 in eights are 32.
            let pairs = kernel == LinearKernel::Bytes4;
            assert_eq!(whole(kernel, 1, 2048, 32, 8), pairs);
            assert!(!whole(kernel, 1, 2048, 32, 10));
        }
    }

    #[test]
    fn launches_go_straight_where_no_cta_does_anything_twice() {
        let straight =
            |kernel: LinearKernel, work, choices| launch(kernel, work, choices, HOPPER).straight;
        let model = Choices::default();
        for kernel in LinearKernel::ALL {
            let rows = kernel.needs().tokens;
            for (strips, groups) in [(256, 16), (256, 56), (512, 32), (512, 112)] {
                // All tokens of a pass where they have places, else one: the input of four would be in chunks.
                let fit = if kernel.few_tokens() { 1 } else { rows };
                assert!(straight(kernel, [fit, strips, groups, 8], model));
            }
            assert!(!straight(kernel, [rows + 1, 512, 32, 8], model), "passes");
            assert!(!straight(kernel, [1, 4096, 32, 8], model), "pieces");
        }
        let by_itself = Choices {
            transform: Some(false),
            ..model
        };
        let of_chunks = Machine {
            rings: false,
            ..HOPPER
        };
        // Of wide kernels those for one format know rings alone, or chunks alone.
        let wide = LinearKernel::Wide16;
        assert!(!straight(wide, [16, 512, 8, 8], by_itself));
        assert!(launch(wide, [16, 512, 8, 8], by_itself, of_chunks).straight);
        // Chunks of the input: four rows of 56 groups.
        assert!(!straight(LinearKernel::Bytes4, [4, 512, 224, 8], model));
        // More spans than there are places for: straight through rings alone.
        for (machine, straight) in [(HOPPER, true), (of_chunks, false)] {
            let shape = launch(LinearKernel::Wide32, [32, 512, 112, 8], model, machine);
            assert_eq!(shape.straight, straight);
        }
        let two_segments = Work {
            rows: 1,
            strips: 512,
            k_groups: 32,
            half_bits: &[8, 8],
            choices: model,
        };
        let bytes = LinearKernel::Bytes4;
        let shape = LaunchShape::new(bytes, Arithmetic::Fastest, &two_segments, HOPPER);
        assert!(!shape.straight);
    }

    #[test]
    fn a_launch_with_a_format_of_its_own_kernel_is_one_that_the_codebook_has() {
        for kernel in LinearKernel::ALL {
            for &(codebook, half_bits) in kernel.straight_formats() {
                let bits = crate::format::Bits::from_half_bits(half_bits).unwrap();
                assert!(codebook.supports(bits));
                let rows = if kernel.few_tokens() { 1 } else { 64 };
                let chosen = LinearKernel::choose(Arithmetic::Fastest, rows, 64, [codebook]);
                assert_eq!(chosen.few_tokens(), kernel.few_tokens());
            }
        }
    }

    #[test]
    fn strips_are_taken_in_pairs_but_where_a_warp_would_have_one_span() {
        let paired = |strips, groups, pairs| {
            clustered(
                LinearKernel::Bytes4,
                [1, strips, groups, 8],
                132,
                227 << 10,
                pairs,
            )
            .paired_half_bits
        };
        assert_eq!(paired(256, 16, 66), 0);
        assert_eq!(paired(256, 17, 66), 8);
        assert_eq!(paired(512, 8, 66), 0);
        assert_eq!(paired(512, 9, 66), 8);
        // 16 groups of a CTA, four pairs of strips.
        assert_eq!(paired(512, 32, 66), 8);
        // More strips than warps are a piece only in pairs.
        assert_eq!(paired(132 * 18, 1, 66), 8);
    }

    #[test]
    fn every_slice_of_k_has_places_for_two_spans_or_all() {
        // Strips of a CTA: 8, 4, 4; groups: 56, 28, 8.
        let rings = |kernel, strips, groups| {
            let work = [64, strips, groups, 8];
            let shape = clustered(kernel, work, 132, 227 << 10, 66);
            assert!(shape.transform.is_some());
            (shape.span_log2, shape.places)
        };
        assert_eq!(rings(LinearKernel::Wide64, 512, 112), (1, 2));
        assert_eq!(rings(LinearKernel::Wide64, 256, 56), (0, 2));
        assert_eq!(rings(LinearKernel::Wide64, 256, 16), (1, 1));
        assert_eq!(rings(LinearKernel::Wide32, 512, 112), (2, 2));
        assert_eq!(rings(LinearKernel::Wide32, 256, 56), (1, 2));
        assert_eq!(rings(LinearKernel::Wide16, 512, 112), (2, 5));
    }

    #[test]
    fn places_are_for_the_most_slices_that_a_piece_may_have() {
        // Two segments: where they meet, a piece of one unit may be left.
        let work = Work {
            rows: 64,
            strips: 512,
            k_groups: 112,
            half_bits: &[8, 8],
            choices: Choices::default(),
        };
        let shape = LaunchShape::new(LinearKernel::Wide64, Arithmetic::Fastest, &work, HOPPER);
        let group = 64 * 260;
        assert_eq!((shape.span_log2, shape.places), (0, 2));
        assert_eq!(shape.shared_bytes, shape.warp_bytes * 16 + 4 * 2 * group);
    }

    #[test]
    fn one_arithmetic_for_every_m_has_the_same_spans_for_every_m() {
        for (strips, groups) in [(512, 112), (256, 56), (256, 16), (512, 32), (320, 27)] {
            for half_bits in [2, 8, 16] {
                let spans = |kernel| {
                    let work = Work {
                        rows: 1,
                        strips,
                        k_groups: groups,
                        half_bits: &[half_bits],
                        choices: Choices::default(),
                    };
                    LaunchShape::new(kernel, Arithmetic::Uniform, &work, HOPPER).span_log2
                };
                let all = [
                    LinearKernel::Wide16,
                    LinearKernel::Wide32,
                    LinearKernel::Wide64,
                ];
                assert!(all.iter().all(|&kernel| spans(kernel) == spans(all[0])));
            }
        }
    }

    #[test]
    fn sixty_four_tokens_a_pass_are_taken_only_where_their_input_fits_or_is_transformed_ahead() {
        let kernel = |rows, groups| {
            shape(LinearKernel::Wide64, [rows, 256, groups, 8], 132, 227 << 10).kernel
        };
        assert_eq!(kernel(64, 112), LinearKernel::Wide64);
        assert_eq!(kernel(512, 128), LinearKernel::Wide64);
        // More than the workspace holds.
        assert_eq!(kernel(513, 128), LinearKernel::Wide32);
        assert_eq!(kernel(4096, 4), LinearKernel::Wide64);
    }

    #[test]
    fn the_transform_has_a_warp_for_every_item_and_four_of_the_same_tokens_a_cta() {
        let transform = |rows, groups| {
            shape(LinearKernel::Wide32, [rows, 256, groups, 8], 132, 1 << 17).transform
        };
        let of = |grid, operand_stride| TransformShape {
            grid,
            cluster: 1,
            pass_tokens: 32,
            operand_stride,
        };
        assert_eq!(transform(18, 50), Some(of(39, 50 * 32 * 260)));
        assert_eq!(transform(512, 128), Some(of(2048, WORKSPACE_BYTES as u64)));
        assert_eq!(transform(513, 128), None, "more than the workspace holds");
        // In whole clusters, where there are clusters.
        let work = [18, 256, 50, 8];
        let shape = clustered(LinearKernel::Wide32, work, 132, 1 << 17, 66).transform;
        assert_eq!(shape.map(|t| (t.grid, t.cluster)), Some((40, 8)));
    }

    #[test]
    fn the_grid_does_not_depend_on_the_rows() {
        for kernel in LinearKernel::ALL {
            for (groups, pairs) in [(16, 0), (16, 66), (32, 66), (112, 60)] {
                let cut = |rows| {
                    let shape = clustered(kernel, [rows, 256, groups, 8], 132, 1 << 17, pairs);
                    (shape.grid, shape.k_splits, shape.units, shape.more_units)
                };
                assert!((1..100).all(|rows| cut(rows) == cut(1)));
            }
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
            let shape = shape(LinearKernel::Formed4, [rows, 8, groups, 8], 8, shared);
            (shape.shared_bytes, shape.chunk_groups)
        };
        assert_eq!(of(1, 16, 227 << 10), (16 * 1024 + 16 * (16 + 640), 16));
        assert_eq!(
            of(100, 224, 99 << 10),
            (16 * 1024 + 32 * (16 + 4 * 640), 32)
        );
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
    fn uniform_arithmetic_is_the_wide_one_for_every_number_of_rows() {
        for codebook in Codebook::ALL {
            for rows in 1..100 {
                let kernel = LinearKernel::choose(Arithmetic::Uniform, rows, 64, [codebook]);
                assert!(kernel.needs().wide);
                assert!(kernel.needs().tokens >= rows.min(64));
            }
        }
    }

    #[test]
    fn a_launch_of_both_families_takes_the_kernel_that_serves_both() {
        let both = [Codebook::Mul1, Codebook::Mcg];
        let chosen = LinearKernel::choose(Arithmetic::Fastest, 1, 64, both);
        assert_eq!(chosen, LinearKernel::Formed4);
    }
}
