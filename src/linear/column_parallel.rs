//! The column-parallel layer: N is split over the ranks; several layers over one input.

use super::{
    check_dtype, check_len, check_rows, check_split, rows_in, traced, LoadOptions, Owner, Shards,
};
#[cfg(feature = "cuda")]
use crate::call::Epilogue;
use crate::call::{Input, Output, Stream};
#[cfg(feature = "cuda")]
use crate::format::DType;
#[cfg(feature = "cuda")]
use crate::protocol::{Operation, OperationKind};
use crate::rank::Backend;
use crate::weights::Linear;
use crate::{Error, Rank, Result, Split};

/// Linears of one [`ColumnParallel`] at most.
pub const MAX_LAYERS: usize = 8;

/// One rank's part of one or several column-parallel linears over the same input (q, k and v; gate
/// and up), computed in one launch.
///
/// The linears may differ in N, bits, codebook, scales and bias; K is the same. Each computes
/// `y = ((x ⊙ suh)·H·W·H) ⊙ svh + bias` for the rank's columns, followed by its output's epilogue.
/// Nothing is exchanged between ranks.
#[derive(Debug)]
pub struct ColumnParallel {
    owner: Owner,
    k: usize,
    columns: Vec<usize>,
    options: LoadOptions,
    shards: Shards,
}

impl ColumnParallel {
    /// Loads this rank's columns of each linear, which its split divides along N, with default
    /// options. Complete when it returns; not collective.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no or more than 8 linears, or different K;
    /// [`Error::InvalidSplit`] if a split is not over its linear's N and the rank's world;
    /// [`Error::Cuda`] when the device has no memory left.
    pub fn load(rank: &Rank, linears: &[(&Linear<'_>, &Split)]) -> Result<Self> {
        Self::load_with(rank, linears, LoadOptions::default())
    }

    /// [`load`](Self::load) with options.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(
        rank: &Rank,
        linears: &[(&Linear<'_>, &Split)],
        options: LoadOptions,
    ) -> Result<Self> {
        let k = common_k(linears)?;
        let mut columns = Vec::new();
        let mut shards = Vec::new();
        for (linear, split) in linears {
            check_split(split, rank, linear, "output", linear.n())?;
            let shard = linear.columns(split.range(rank.rank))?;
            columns.push(shard.n());
            shards.push(shard);
        }
        Ok(ColumnParallel {
            owner: Owner::of(rank),
            k,
            columns,
            options,
            shards: Shards::load(rank, &shards)?,
        })
    }

    /// Input channels.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Output channels of each linear on this rank, in the order of loading.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The options it was loaded with.
    pub fn options(&self) -> LoadOptions {
        self.options
    }

    /// Runs the layers: `input` is `[M, k()]`, `outputs[i]` is `[M, columns()[i]]`.
    ///
    /// Not collective, but takes the rank by `&mut`: its calls have one order. On a GPU the call is
    /// enqueued on `stream`, under the same rules as [`RowParallel::forward`](super::RowParallel::forward).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for wrong lengths, dtypes, devices or alignment;
    /// the group's first failure, as [`Rank::check`] tells it, if it failed earlier.
    pub fn forward(
        &self,
        rank: &mut Rank,
        stream: Stream<'_>,
        input: Input<'_>,
        outputs: &mut [Output<'_>],
    ) -> Result<()> {
        self.owner.check(rank)?;
        let rows = rows_in("input", input.len(), self.k)?;
        check_rows(rows)?;
        check_dtype(&input)?;
        if outputs.len() != self.columns.len() {
            let expected = format!("{}, one per linear", self.columns.len());
            return Err(Error::argument(
                "outputs",
                outputs.len().to_string(),
                expected,
            ));
        }
        for (output, &columns) in outputs.iter().zip(&self.columns) {
            output.refuse_norm("outputs")?;
            check_len("outputs", output.len(), rows, columns)?;
        }
        let result = match (&mut rank.backend, &self.shards) {
            (Backend::Host(host), Shards::Host(shards)) => {
                stream.require_host()?;
                host.column_parallel(shards, &input, rows, outputs)
            }
            #[cfg(feature = "cuda")]
            (Backend::Cuda(cuda), Shards::Cuda(shards)) => {
                let arithmetic = self.options.arithmetic;
                let operation = self.operation(rows, &input, outputs);
                cuda.column_parallel(shards, operation, arithmetic, &stream, &input, outputs)
            }
            #[cfg(feature = "cuda")]
            _ => Err(super::other_back_end()),
        };
        traced(rank.rank, result)
    }
}

#[cfg(feature = "cuda")]
impl ColumnParallel {
    /// What a call is, for the report of one that ends badly.
    fn operation(&self, rows: usize, input: &Input<'_>, outputs: &[Output<'_>]) -> Operation {
        Operation {
            kind: OperationKind::ColumnParallel,
            rows: rows as u32,
            columns: self.columns.iter().sum::<usize>() as u64,
            input: input.dtype(),
            output: outputs.first().map_or(DType::F32, Output::dtype),
            epilogue: Epilogue::Store,
            layer: 0,
        }
    }
}

fn common_k(linears: &[(&Linear<'_>, &Split)]) -> Result<usize> {
    let expected = format!("1 to {MAX_LAYERS} linears with the same input channels");
    let Some((first, _)) = linears.first() else {
        return Err(Error::argument("linears", "none", expected));
    };
    if linears.len() > MAX_LAYERS {
        return Err(Error::argument(
            "linears",
            linears.len().to_string(),
            expected,
        ));
    }
    match linears.iter().find(|(linear, _)| linear.k() != first.k()) {
        None => Ok(first.k()),
        Some((other, _)) => Err(Error::argument(
            "linears",
            format!(
                "`{}` with {} and `{}` with {}",
                first.name(),
                first.k(),
                other.name(),
                other.k()
            ),
            expected,
        )),
    }
}
