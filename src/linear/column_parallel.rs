//! The column-parallel layer: N is split over the ranks; several layers over one input.

use super::{
    check_dtype, check_len, check_rows, check_split, rows_in, traced, LoadOptions, Owner, Shards,
};
#[cfg(feature = "cuda")]
use crate::call::Epilogue;
use crate::call::{Columns, Input, Output, Stream};
#[cfg(feature = "cuda")]
use crate::format::DType;
#[cfg(feature = "cuda")]
use crate::protocol::{Operation, OperationKind};
use crate::rank::Backend;
use crate::weights::{Linear, Scales};
use crate::{Error, Rank, Result, Split};

/// Linears of one [`ColumnParallel`] at most.
pub const MAX_LAYERS: usize = 8;

/// One rank's part of one or several column-parallel linears over the same input (q, k and v; gate
/// and up), computed in one launch.
///
/// The linears may differ in N, bits, codebook, scales and bias; K is the same. Each computes
/// `y = ((x ⊙ suh)·H·W·H) ⊙ svh + bias` for the rank's columns, followed by its output's epilogue.
/// Nothing is exchanged between ranks. [`forward_swiglu`](Self::forward_swiglu) makes one output of two linears.
///
/// Dropping it on a GPU is as with a [`RowParallel`](crate::RowParallel).
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
    /// options. Complete when it returns; not collective. Not on a thread that is capturing a graph, as with
    /// [`RowParallel::load`](crate::RowParallel::load).
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
        Self::load_shards(rank, linears, options)
    }

    /// [`load_with`](Self::load_with) for linears whose input is multiplied by `weight`, channel by channel: the weight of
    /// the RMSNorm ahead of them, whose other half is [`Input::rms_norm`].
    ///
    /// `weight` is `[K]`; where a model multiplies by 1 + w, pass that. It is multiplied into each linear's input scales
    /// `suh`, once, and the product rounded to f16. That changes a channel's weights by up to 2^-11 of them (more where a product is
    /// below 2^-14), which is what a separate RMSNorm's rounding to f16 does to its output; powers of two lose nothing.
    ///
    /// # Errors
    /// As [`load`](Self::load), and [`Error::InvalidArgument`] for a weight of another length or a product that is no finite f16.
    pub fn load_normalised(
        rank: &Rank,
        linears: &[(&Linear<'_>, &Split)],
        weight: &[f32],
        options: LoadOptions,
    ) -> Result<Self> {
        let products = linears.iter().map(|(linear, _)| linear.suh().times(weight));
        let products = products.collect::<Result<Vec<_>>>()?;
        let mut normalised = Vec::new();
        for ((linear, split), suh) in linears.iter().zip(&products) {
            normalised.push((linear.with_suh(Scales::from_f16_bytes(suh)?), *split));
        }
        let normalised: Vec<_> = normalised.iter().map(|(l, split)| (l, *split)).collect();
        Self::load_shards(rank, &normalised, options)
    }

    fn load_shards(
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

    /// Runs the layers: `input` is `[M, k()]`, normalised if [asked for](Input::rms_norm), `outputs[i]` is `[M, columns()[i]]`.
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
        let rows = self.check_input(rank, &input)?;
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
        self.run(rank, &stream, &input, rows, Columns::Each(outputs))
    }

    /// Runs two layers, a gate and what it lets through (`up`), loaded in this order and with as many columns:
    /// `out = epilogue(silu(gate(x)) ⊙ up(x))` in the same launch, with silu(g) = g / (1 + exp(−g)).
    ///
    /// `input` is as for [`forward`](Self::forward), `output` is `[M, columns()[0]]`, f16, bf16 or f32. Everything is f32 until the
    /// epilogue has been applied, and rounded once. silu has a relative error below 2^-21 + |g|·2^-24, and is 0 for g < −88, where its
    /// magnitude is below 1e-36. A row's bits depend on nothing but the row, as in `forward`; on a GPU and on the host they
    /// may differ. Both linears' splits must give the rank the same columns.
    ///
    /// ```
    /// # use half::f16;
    /// # use trellink::format::{Bits, Codebook};
    /// # use trellink::weights::{Linear, Scales};
    /// # use trellink::{ColumnParallel, Group, Input, Output, Split, Stream};
    /// # let (trellis, scales) = (vec![0x5A; 8 * 16 * 64], [0x00, 0x3C].repeat(256));
    /// # let (suh, svh) = (Scales::from_f16_bytes(&scales[..256])?, Scales::from_f16_bytes(&scales)?);
    /// # let bits: Bits = "2".parse()?;
    /// # let gate = Linear::from_parts("gate", 128, 256, bits, Codebook::Mul1, &trellis, suh, svh, None)?;
    /// # let up = gate;
    /// # let mut rank = Group::on_host(1).build()?.remove(0);
    /// let split = Split::even(gate.n(), rank.world())?;
    /// let mlp = ColumnParallel::load(&rank, &[(&gate, &split), (&up, &split)])?;
    /// let x = vec![f16::ONE; 3 * mlp.k()]; // [rows, K]
    /// let mut y = vec![f16::ZERO; 3 * mlp.columns()[0]]; // [rows, this rank's columns]
    /// let (input, output) = (Input::from(&x[..]), Output::from(&mut y[..]));
    /// mlp.forward_swiglu(&mut rank, Stream::host(), input, output)?;
    /// # Ok::<(), trellink::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Error::InvalidArgument`] unless the layer has two linears with the same
    /// columns, a row of which fit a [slot](crate::Group::slot_values) together.
    pub fn forward_swiglu(
        &self,
        rank: &mut Rank,
        stream: Stream<'_>,
        input: Input<'_>,
        mut output: Output<'_>,
    ) -> Result<()> {
        let rows = self.check_input(rank, &input)?;
        let columns = self.gated_columns()?;
        output.refuse_norm("output")?;
        check_len("output", output.len(), rows, columns)?;
        self.run(rank, &stream, &input, rows, Columns::Gated(&mut output))
    }

    /// The number of rows of an input that fits.
    fn check_input(&self, rank: &Rank, input: &Input<'_>) -> Result<usize> {
        self.owner.check(rank)?;
        let rows = rows_in("input", input.len(), self.k)?;
        check_rows(rows)?;
        check_dtype(input)?;
        if let Some(norm) = &input.norm {
            norm.check(rows, self.k)?;
        }
        Ok(rows)
    }

    fn gated_columns(&self) -> Result<usize> {
        match self.columns[..] {
            [gate, up] if gate == up => Ok(gate),
            _ => Err(Error::argument(
                "self",
                format!("linears of {:?} columns", self.columns),
                "two of the same columns, gate and up",
            )),
        }
    }

    fn run(
        &self,
        rank: &mut Rank,
        stream: &Stream<'_>,
        input: &Input<'_>,
        rows: usize,
        columns: Columns<'_, '_>,
    ) -> Result<()> {
        let result = match (&mut rank.backend, &self.shards) {
            (Backend::Host(host), Shards::Host(shards)) => {
                stream.require_host()?;
                host.column_parallel(shards, input, rows, columns)
            }
            #[cfg(feature = "cuda")]
            (Backend::Cuda(cuda), Shards::Cuda(shards)) => {
                let arithmetic = self.options.arithmetic;
                let operation = self.operation(rows, input, columns.outputs());
                cuda.column_parallel(shards, operation, arithmetic, stream, input, &columns)
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
