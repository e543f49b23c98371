//! `trellink bench`: µs per call of layers with random weights, by default row-parallel ones.
//!
//! `shape` and `variant` say what can be measured, `measure` goes through what was asked for. `load`
//! brings the weights to the ranks, `call` is what a rank enqueues, with its `kit` where that is more
//! than the layer; `time` runs and times calls on either back end, `accuracy` checks one. Each
//! measurement is a `record`; `report` prints and `plot` draws them, also those stored earlier. Where
//! ranks are `processes`, each goes through the same with its own part, and the times come together here.

mod accuracy;
mod call;
mod columns;
mod kit;
mod load;
mod measure;
mod plot;
mod processes;
mod record;
mod report;
mod shape;
mod sweep;
mod time;
pub mod tune;
mod variant;

use crate::device::Choice;
use crate::failure::Outcome;
use anyhow::Result;
use report::Report;
use shape::Shape;
use std::path::PathBuf;
use trellink::format::{Bits, Codebook, DType};
use variant::Variant;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Whole layers: K×N (multiples of 128), 8b-o, 8b-down, 70b-o or 70b-down; K is split over the
    /// ranks. Default: all four on CUDA, 8b-o on the host. With --column-parallel 8b-gate and 70b-gate
    #[arg(long, value_delimiter = ',', value_name = "KxN")]
    shape: Vec<Shape>,
    /// Bits per weight
    #[arg(long, value_delimiter = ',', default_value = "4")]
    bits: Vec<Bits>,
    /// Codebooks: 3inst, mcg, mul1
    #[arg(long, value_delimiter = ',', default_value = "mul1")]
    codebook: Vec<Codebook>,
    /// Rows of the input, 1 to 65536
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=65536))]
    m: Vec<u32>,
    /// Ranks, 1 to 8. Default: one per GPU, 2 on the host
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    world: Option<u8>,
    /// Run each rank in a process of its own
    #[arg(long)]
    processes: bool,
    /// Where the ranks run
    #[arg(long, value_enum, default_value_t, overrides_with = "device")]
    device: Choice,
    /// Element type of the residual that outputs are added to, and of outputs that NCCL sums: f16 or
    /// bf16
    #[arg(long, default_value = "bf16", value_parser = residual)]
    residual: DType,
    /// Distinct weight tensors that each rank walks through
    #[arg(long, conflicts_with = "bytes", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    layers: Option<u32>,
    /// Or their packed bytes per rank, at least; a cache must not hold them. Default: 400000000 on
    /// CUDA, 8000000 on the host
    #[arg(long)]
    bytes: Option<usize>,
    /// What is measured: fused, fused+norm, fused+squares, fused-host-memory, gemm, gemm+allreduce, allreduce,
    /// gemm+nccl, nccl, floor. Default: all that apply
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    variant: Vec<Variant>,
    /// Measure all-reduces alone instead, of so many bytes on every rank: 2k,64k,1m
    #[arg(long, value_delimiter = ',', value_name = "BYTES", value_parser = sweep::bytes, conflicts_with_all = [
        "shape", "bits", "codebook", "m", "layers", "bytes", "variant", "svg",
    ])]
    all_reduce_bytes: Vec<usize>,
    /// Measure pairs of column-parallel layers (gate and up) instead, each of the given shapes, N split
    /// over the ranks: two outputs or SwiGLU, of an input as it is or normalised
    #[arg(long, conflicts_with_all = ["variant", "svg", "all_reduce_bytes"])]
    column_parallel: bool,
    /// Shape the launches of row-parallel layers by a table that `trellink tune` wrote
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all_reduce_bytes", "column_parallel"])]
    tuning: Option<PathBuf>,
    /// Walks that are timed
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    replays: u32,
    /// Measure nothing: print and plot what `--json` printed earlier
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with_all = [
        "shape", "bits", "codebook", "m", "world", "device", "residual", "layers", "bytes", "replays",
        "processes", "rank", "all_reduce_bytes", "column_parallel", "tuning",
    ])]
    from_json: Vec<PathBuf>,
    /// Write a plot: over M, and over bits where there are several
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Be a rank of a `--processes` run, whose parent is at the other end of the pipes
    #[arg(long, hide = true, requires = "world")]
    rank: Option<u8>,
    /// Why packets do not go directly, as its parent has found out
    #[arg(long, hide = true, requires = "rank")]
    no_direct: Option<String>,
}

fn residual(name: &str) -> Result<DType, String> {
    match name.parse() {
        Ok(dtype @ (DType::F16 | DType::Bf16)) => Ok(dtype),
        _ => Err("expected f16 or bf16".into()),
    }
}

/// Runs `bench`.
pub fn run(args: &Args) -> Result<Outcome> {
    if let Some(rank) = args.rank {
        return processes::be_rank(args, rank.into());
    }
    if !args.all_reduce_bytes.is_empty() {
        return sweep::run(args).map(|()| Outcome::Good);
    }
    if args.column_parallel {
        return columns::run(args).map(|()| Outcome::Good);
    }
    let report = match &args.from_json[..] {
        [] => measure::all(args)?,
        files => stored(files, &args.variant)?,
    };
    // The figures first: a plot that cannot be written must not take them along.
    report.print(args.json)?;
    if let Some(path) = &args.svg {
        plot::write(path, &report.records)?;
    }
    Ok(Outcome::Good)
}

/// The records of these files, of all variants or of those chosen.
fn stored(files: &[PathBuf], variants: &[Variant]) -> Result<Report> {
    let mut report = Report::default();
    for file in files {
        report.records.append(&mut record::read(file)?);
    }
    let is_chosen = |name: &str| variants.iter().any(|variant| variant.name() == name);
    if !variants.is_empty() {
        report.records.retain(|record| is_chosen(&record.variant));
    }
    Ok(report)
}
