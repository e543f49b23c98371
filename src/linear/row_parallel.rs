//! The row-parallel layer: K is split over the ranks, outputs are summed over them.

use super::{
    check_dtype, check_len, check_rows, check_split, rows_in, traced, LoadOptions, Owner, Shards,
};
use crate::call::{Epilogue, Input, Output, Stream};
use crate::protocol::{digest_of_scales, Operation, OperationKind};
use crate::rank::Backend;
use crate::weights::Linear;
use crate::{Rank, Result, Split};

/// One rank's part of a row-parallel linear (attention output, MLP down).
///
/// With W the decoded matrix, every rank computes
/// `y = ((Σ_r ((x_r ⊙ suh_r)·H·W_r))·H) ⊙ svh + bias`, where r runs over the ranks in order and
/// x_r, suh_r, W_r are the rank's slices of K; then the output's epilogue is applied and the result
/// rounded once (`docs/exl3-format.md`, "Tensor parallelism"). All ranks get the same bits, in every
/// run; a row's bits do not depend on what the other rows hold, nor on its place among them. On M they
/// may depend, see [`Arithmetic`](super::Arithmetic).
///
/// On a GPU dropping a layer waits for everything that is enqueued on the device, calls of the layer included
/// ([`Group::new`](crate::Group::new) says for how long). A thread that is capturing a graph must not do it
/// ([why](crate#threads-streams-and-graphs)), and graphs that hold calls of the layer must not run afterwards
/// ([why](crate#safety)).
#[derive(Debug)]
pub struct RowParallel {
    owner: Owner,
    k: usize,
    n: usize,
    /// Tells layers apart: of the output scales, which all ranks hold.
    digest: u32,
    options: LoadOptions,
    shards: Shards,
}

impl RowParallel {
    /// Loads this rank's rows of `linear`, which `split` divides along K, with default options.
    ///
    /// Complete when it returns: weights are packed and, on a GPU, uploaded. Only the shard's part
    /// of the mapping is read. May run on all ranks at the same time; is not collective. Not on a thread that
    /// is capturing a graph ([why](crate#threads-streams-and-graphs)).
    ///
    /// # Errors
    /// [`InvalidSplit`](crate::Error::InvalidSplit) if `split` is not over `linear.k()` and the rank's world;
    /// [`Cuda`](crate::Error::Cuda) when the device has no memory left.
    pub fn load(rank: &Rank, linear: &Linear<'_>, split: &Split) -> Result<Self> {
        Self::load_with(rank, linear, split, LoadOptions::default())
    }

    /// [`load`](Self::load) with options.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(
        rank: &Rank,
        linear: &Linear<'_>,
        split: &Split,
        options: LoadOptions,
    ) -> Result<Self> {
        check_split(split, rank, linear, "input", linear.k())?;
        let shard = linear.rows(split.range(rank.rank))?;
        Ok(RowParallel {
            owner: Owner::of(rank),
            k: shard.k(),
            n: shard.n(),
            digest: digest_of_scales(linear.svh().iter().map(half::f16::to_bits)),
            options,
            shards: Shards::load(rank, &[shard])?,
        })
    }

    /// Input channels of this rank's shard; 0 for an empty one.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Output channels, of the whole layer.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The options it was loaded with.
    pub fn options(&self) -> LoadOptions {
        self.options
    }

    /// The shard in the memory of a device, and that device; for a rank on the host there is none.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_cuda(&self) -> Option<(usize, &crate::cuda::CudaLinear)> {
        match (self.owner.device, &self.shards) {
            (crate::Device::Cuda(ordinal), Shards::Cuda(shards)) => Some((ordinal, &shards[0])),
            _ => None,
        }
    }

    /// Runs the layer: `input` is `[M, k()]`, `output` is `[M, n()]` with its epilogue, and with the RMSNorm
    /// of its rows or the sums of their squares if asked for ([`Output::rms_norm`], [`Output::sums_of_squares`]).
    ///
    /// Collective: all ranks call it with the same M and dtypes, in the same order relative to other
    /// collective calls; a rank with an empty shard passes an empty input. M = 0 is a no-op and
    /// must be one on all ranks. Residuals and outputs are each rank's own copy, and so is the choice of
    /// the epilogue.
    ///
    /// On a GPU the call is enqueued on `stream` and returns at once; it neither allocates nor
    /// synchronises and may be captured in a CUDA graph, which may be replayed any number of times
    /// (all ranks replay the same calls). A rank's calls and replays must be ordered among
    /// themselves: use one stream, or order your streams with events.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::Error::InvalidArgument) for wrong lengths, dtypes, devices or alignment, or an
    /// RMSNorm of rows that do not fit a slot: nothing was launched and the group still works if the other ranks get the same error.
    /// [`PeerTimeout`](crate::Error::PeerTimeout), [`Mismatch`](crate::Error::Mismatch),
    /// [`PeerAhead`](crate::Error::PeerAhead), [`PeerLost`](crate::Error::PeerLost),
    /// [`GroupFailed`](crate::Error::GroupFailed): the group has failed, now or earlier, until
    /// [`Rank::reset`]; on a GPU failures of this call show in a later call or in [`Rank::check`].
    pub fn forward(
        &self,
        rank: &mut Rank,
        stream: Stream<'_>,
        input: Input<'_>,
        mut output: Output<'_>,
    ) -> Result<()> {
        self.owner.check(rank)?;
        let rows = rows_in("output", output.len(), self.n)?;
        check_rows(rows)?;
        check_dtype(&input)?;
        check_len("input", input.len(), rows, self.k)?;
        input.refuse_norm()?;
        if let Some(norm) = &output.norm {
            norm.check(rows, self.n)?;
        }
        output.check_squares(rows, self.n)?;
        let operation = Operation {
            kind: OperationKind::RowParallel,
            rows: rows as u32,
            columns: self.n as u64,
            input: input.dtype(),
            output: output.dtype(),
            epilogue: Epilogue::Store,
            layer: self.digest,
        };
        let result = match (&mut rank.backend, &self.shards) {
            (Backend::Host(host), Shards::Host(shards)) => {
                stream.require_host()?;
                host.row_parallel(&shards[0], operation, &input, &mut output)
            }
            #[cfg(feature = "cuda")]
            (Backend::Cuda(cuda), Shards::Cuda(shards)) => {
                let arithmetic = self.options.arithmetic;
                cuda.row_parallel(&shards[0], operation, arithmetic, &stream, &input, &output)
            }
            #[cfg(feature = "cuda")]
            _ => Err(super::other_back_end()),
        };
        traced(rank.rank, result)
    }
}
