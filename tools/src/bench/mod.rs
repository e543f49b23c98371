//! `trellink bench`: µs per call of row-parallel layers with random weights.
//!
//! `shape` and `Args` say what is measured, `load` brings the weights to the ranks, `time` runs and
//! times them on either back end, `accuracy` checks one call, `report` prints.

mod accuracy;
mod load;
mod report;
mod shape;
mod time;

use crate::device::{self, Choice, Place};
use crate::failure::Outcome;
use crate::output;
use crate::random::RandomLinear;
use anyhow::{bail, Result};
use half::{bf16, f16};
use load::{Bench, Variant};
use report::{Report, Row};
use shape::Shape;
use trellink::format::{Bits, Codebook, DType};

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Whole layers: K×N (multiples of 128), 8b-o, 8b-down, 70b-o or 70b-down; K is split over the
    /// ranks. Default: all four on CUDA, 8b-o on the host
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
    /// Where the ranks run
    #[arg(long, value_enum, default_value_t)]
    device: Choice,
    /// Element type of the residual that outputs are added to: f16 or bf16
    #[arg(long, default_value = "bf16", value_parser = residual)]
    residual: DType,
    /// Distinct weight tensors that each rank walks through
    #[arg(long, conflicts_with = "bytes", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    layers: Option<u32>,
    /// Or their packed bytes per rank, at least; a cache must not hold them. Default: 400000000 on
    /// CUDA, 8000000 on the host
    #[arg(long)]
    bytes: Option<usize>,
    /// Walks that are timed
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    replays: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn residual(name: &str) -> Result<DType, String> {
    match name.parse() {
        Ok(dtype @ (DType::F16 | DType::Bf16)) => Ok(dtype),
        _ => Err("expected f16 or bf16".into()),
    }
}

/// One set of weights.
#[derive(Clone, Copy)]
struct Weights {
    shape: Shape,
    bits: Bits,
    codebook: Codebook,
}

/// Runs `bench`.
pub fn run(args: &Args) -> Result<Outcome> {
    let place = device::choose(args.device)?;
    let all = weights(args, &place)?;
    let mut report = Report::new(&place, world(args, &place));
    let bar = output::progress(all.len() * Variant::ALL.len());
    for weights in all {
        bar.set_message(format!(
            "{} {} {}",
            weights.shape, weights.bits, weights.codebook
        ));
        let random = RandomLinear::new(
            weights.shape.k,
            weights.shape.n,
            weights.bits,
            weights.codebook,
        );
        for variant in Variant::ALL {
            measure(args, &place, weights, &random, variant, &mut report)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    report.print(args.json)?;
    Ok(Outcome::Good)
}

fn world(args: &Args, place: &Place) -> usize {
    let default = if place.is_host() {
        2
    } else {
        place.devices.len().min(trellink::MAX_WORLD)
    };
    args.world.map_or(default, usize::from)
}

/// Every combination of what was asked for that the format has.
fn weights(args: &Args, place: &Place) -> Result<Vec<Weights>> {
    let shapes = match &args.shape[..] {
        [] if place.is_host() => &Shape::PRESETS[..1],
        [] => &Shape::PRESETS,
        shapes => shapes,
    };
    let mut all = Vec::new();
    for &shape in shapes {
        for &bits in &args.bits {
            for &codebook in args
                .codebook
                .iter()
                .filter(|codebook| codebook.supports(bits))
            {
                all.push(Weights {
                    shape,
                    bits,
                    codebook,
                });
            }
        }
    }
    if all.is_empty() {
        bail!("none of these bits with these codebooks; 1.5, 2.5 and 3.5 exist with mul1 only");
    }
    Ok(all)
}

/// All M of one variant, over weights that are loaded once.
fn measure(
    args: &Args,
    place: &Place,
    weights: Weights,
    random: &RandomLinear,
    variant: Variant,
    report: &mut Report,
) -> Result<()> {
    let world = world(args, place);
    let largest_m = args.m.iter().copied().max().unwrap_or(1) as usize;
    let linear = variant.linear(random.view()?, world)?;
    let layers = layers(
        args,
        place,
        linear.packed_bytes() / variant.ranks_per_group(world),
    );
    let mut bench = Bench::load(place, variant, world, &linear, layers, largest_m)?;
    for &m in &args.m {
        let m = m as usize;
        let rel_err = accuracy::relative_error(&mut bench, &linear, m)?;
        let replays = args.replays as usize;
        let times = match args.residual {
            DType::F16 => time::replays::<f16>(&mut bench, m, replays)?,
            _ => time::replays::<bf16>(&mut bench, m, replays)?,
        };
        report.add(Row::new(weights, &bench, m, times, rel_err));
    }
    Ok(())
}

/// Distinct weight tensors of `bytes` bytes each.
fn layers(args: &Args, place: &Place, bytes: usize) -> usize {
    let default = if place.is_host() {
        8_000_000
    } else {
        400_000_000
    };
    let wanted = args.bytes.unwrap_or(default);
    args.layers
        .map_or(wanted.div_ceil(bytes.max(1)).max(1), |layers| {
            layers as usize
        })
}
