//! Layers: loaded once per rank, called per token.

mod column_parallel;
mod options;
mod row_parallel;

pub use column_parallel::ColumnParallel;
pub use options::{Arithmetic, LoadOptions};
pub use row_parallel::RowParallel;

use crate::call::Input;
use crate::format::DType;
use crate::rank::Backend;
use crate::weights::Linear;
use crate::{Device, Error, Rank, Result, Split};

/// The shards of a layer, on the back end of its rank.
#[derive(Debug)]
enum Shards {
    Host(Vec<crate::host::HostLinear>),
    #[cfg(feature = "cuda")]
    Cuda(Vec<crate::cuda::CudaLinear>),
}

impl Shards {
    fn load(rank: &Rank, linears: &[Linear<'_>]) -> Result<Self> {
        crate::trace::span!(debug_span, "load", rank = rank.rank, device = %rank.device, linears = ?names(linears));
        match &rank.backend {
            Backend::Host(_) => {
                let shards = linears.iter().map(crate::host::HostLinear::load);
                Ok(Shards::Host(shards.collect::<Result<_>>()?))
            }
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => {
                let load = |linear| crate::cuda::CudaLinear::load(cuda, linear);
                Ok(Shards::Cuda(
                    linears.iter().map(load).collect::<Result<_>>()?,
                ))
            }
        }
    }
}

#[cfg(feature = "tracing")]
fn names<'a>(linears: &[Linear<'a>]) -> Vec<&'a str> {
    linears.iter().map(Linear::name).collect()
}

/// Passes a call's result on; a failure of the group leaves an event.
#[cfg_attr(not(feature = "tracing"), allow(unused_variables))]
pub(crate) fn traced(rank: usize, result: Result<()>) -> Result<()> {
    result.inspect_err(|error| {
        use Error::{GroupFailed, Mismatch, PeerAhead, PeerTimeout};
        if let PeerTimeout { .. } | PeerAhead { .. } | Mismatch { .. } | GroupFailed { .. } = error
        {
            crate::trace::event!(error, rank, %error, "the group has failed");
        }
    })
}

/// The rank that a layer was loaded for; calls must come from the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owner {
    rank: usize,
    world: usize,
    device: Device,
}

impl Owner {
    fn of(rank: &Rank) -> Self {
        Owner {
            rank: rank.rank,
            world: rank.world,
            device: rank.device,
        }
    }

    fn check(&self, rank: &Rank) -> Result<()> {
        let found = Owner::of(rank);
        if *self == found {
            return Ok(());
        }
        let show = |o: &Owner| format!("rank {} of {} on {}", o.rank, o.world, o.device);
        let expected = format!("{}, for which the layer was loaded", show(self));
        Err(Error::argument("rank", show(&found), expected))
    }
}

/// Fails unless `split` divides the `channels` (input or output, as `side` says) of `linear` over the
/// rank's world.
fn check_split(
    split: &Split,
    rank: &Rank,
    linear: &Linear<'_>,
    side: &str,
    channels: usize,
) -> Result<()> {
    if split.world() == rank.world && split.channels() == channels {
        return Ok(());
    }
    Err(Error::InvalidSplit {
        found: format!("{} channels over {} ranks", split.channels(), split.world()),
        expected: format!(
            "the {channels} {side} channels of `{}` over {} ranks",
            linear.name(),
            rank.world
        ),
    })
}

/// The number of rows in `len` elements of rows of `columns`.
fn rows_in(argument: &'static str, len: usize, columns: usize) -> Result<usize> {
    if columns == 0 {
        return if len == 0 {
            Ok(0)
        } else {
            Err(Error::argument(
                argument,
                format!("{len} elements"),
                "none, since this rank's shard is empty",
            ))
        };
    }
    if !len.is_multiple_of(columns) {
        return Err(Error::argument(
            argument,
            format!("{len} elements"),
            format!("a multiple of {columns}, whole rows"),
        ));
    }
    Ok(len / columns)
}

/// Fails unless `len` is that of `rows` rows of `columns`.
fn check_len(argument: &'static str, len: usize, rows: usize, columns: usize) -> Result<()> {
    if rows.checked_mul(columns) == Some(len) {
        return Ok(());
    }
    Err(Error::argument(
        argument,
        format!("{len} elements"),
        format!("{rows} rows of {columns}"),
    ))
}

/// Fails for an input that only an all-reduce takes.
fn check_dtype(input: &Input<'_>) -> Result<()> {
    match input.dtype() {
        DType::F16 | DType::Bf16 => Ok(()),
        DType::F32 => Err(Error::argument("input", "f32", "f16 or bf16")),
    }
}

/// Rows of one call at most: kernels number rows and items with 32 bits.
const MAX_ROWS: usize = 1 << 20;

fn check_rows(rows: usize) -> Result<()> {
    if rows <= MAX_ROWS {
        return Ok(());
    }
    let expected = format!("at most {MAX_ROWS} rows in a call; split the batch");
    Err(Error::argument("input", format!("{rows} rows"), expected))
}

/// [`Owner::check`] has compared devices, so this cannot be seen from outside.
#[cfg(feature = "cuda")]
fn other_back_end() -> Error {
    Error::argument(
        "rank",
        "another back end",
        "the one the layer was loaded for",
    )
}
