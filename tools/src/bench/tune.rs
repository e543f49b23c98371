//! `trellink tune`: measures the choices that the library's plan leaves to a table, and writes the table.
//!
//! Each alternative is a table of its own, by which a group is built; what beats the model's choice by more than
//! noise becomes an entry.

use super::kit::Kit;
use super::load::{Bench, Load};
use super::shape::Shape;
use super::time;
use super::variant::{Setting, Variant};
use crate::device::{self, Choice};
use crate::failure::Outcome;
use crate::output;
use crate::random::RandomLinear;
use anyhow::{Context as _, Result};
use half::bf16;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use trellink::format::{Bits, Codebook};
use trellink::weights::Linear;
use trellink::{Choices, ExchangePath, Split, Tuning, TuningEntry};

/// Arguments of `tune`.
#[derive(clap::Args)]
pub struct Args {
    /// Whole row-parallel layers, K×N or presets as for `bench`; K is split over the ranks
    #[arg(long, value_delimiter = ',', value_name = "KxN", required = true)]
    shape: Vec<Shape>,
    /// Bits per weight
    #[arg(long, value_delimiter = ',', default_value = "4")]
    bits: Vec<Bits>,
    /// The codebook that is measured; entries are for all
    #[arg(long, default_value = "mul1")]
    codebook: Codebook,
    /// Rows, ascending; each stands for the rows above the one before it
    #[arg(long, value_delimiter = ',', default_value = "8,16,32,64", value_parser = clap::value_parser!(u32).range(1..=65536))]
    m: Vec<u32>,
    /// Ranks, 1 to 8. Default: one per GPU
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    world: Option<u8>,
    /// Packed bytes of distinct weights per rank, at least; a cache must not hold them
    #[arg(long, default_value_t = 400_000_000)]
    bytes: usize,
    /// Walks that are timed
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    replays: u32,
    /// Where the table is written
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// What is measured; the first is the model's choice.
const ALTERNATIVES: [Choices; 5] = [
    choices(None, None),
    choices(Some(1), Some(false)),
    choices(Some(1), Some(true)),
    choices(Some(2), Some(false)),
    choices(Some(2), Some(true)),
];

/// How much less time than the model's choice another must take to be taken.
const GAIN: f64 = 0.02;

const fn choices(k_splits: Option<usize>, transform: Option<bool>) -> Choices {
    Choices {
        k_splits,
        transform,
    }
}

/// A device and what of it a rank has.
type Share = (String, usize);

/// Runs `tune`.
pub fn run(args: &Args) -> Result<Outcome> {
    let place = device::choose(Choice::Cuda, ExchangePath::Auto)?;
    let default = place.devices.len().min(trellink::MAX_WORLD);
    let world = args.world.map_or(default, usize::from);
    let shares = shares(&place, world)?;
    let kits = Kit::all(&place, world, false, None)?;
    let weights = args.shape.len() * args.bits.len();
    let bar = output::progress(weights * ALTERNATIVES.len());
    let mut entries = Vec::new();
    for &shape in &args.shape {
        for &bits in &args.bits {
            let random = RandomLinear::new(shape.k, shape.n, bits, args.codebook);
            let linear = random.view()?;
            let mut times = Vec::new();
            for choices in ALTERNATIVES {
                let all = ranges(&args.m).map(|rows| (rows, choices));
                let tuning = table(&shares, &linear, world, all)?;
                times.push(measure(args, &place, &kits, (&linear, world), &tuning)?);
                bar.inc(1);
            }
            let best = ranges(&args.m).enumerate().map(|(at, rows)| {
                let times: Vec<f64> = times.iter().map(|times| times[at]).collect();
                (rows, ALTERNATIVES[best(&times)])
            });
            entries.extend(table(&shares, &linear, world, best)?.entries().to_vec());
        }
    }
    bar.finish_and_clear();
    let tuning = Tuning::new(entries)?;
    let path = || args.out.display().to_string();
    std::fs::write(&args.out, tuning.to_json()).with_context(path)?;
    let count = tuning.entries().len();
    output::print(&format!("{count} entries in {}", path()))?;
    Ok(Outcome::Good)
}

/// The rows that each M stands for.
fn ranges(m: &[u32]) -> impl Iterator<Item = RangeInclusive<usize>> + '_ {
    let before = std::iter::once(0).chain(m.iter().copied());
    before
        .zip(m)
        .map(|(before, &m)| before as usize + 1..=m as usize)
}

/// The alternative that is taken, by the µs of each.
fn best(times: &[f64]) -> usize {
    let by_time = |a: &usize, b: &usize| times[*a].total_cmp(&times[*b]);
    let fastest = (0..times.len()).min_by(by_time).unwrap_or(0);
    match times[fastest] < times[0] * (1.0 - GAIN) {
        true => fastest,
        false => 0,
    }
}

/// A table for the shards of `linear` on these devices; where the choice is the model's, there is no entry.
fn table(
    shares: &[Share],
    linear: &Linear<'_>,
    world: usize,
    rows: impl Iterator<Item = (RangeInclusive<usize>, Choices)>,
) -> Result<Tuning> {
    let split = Split::even(linear.k(), world)?;
    let mut places: Vec<(&Share, usize)> = Vec::new();
    for (share, range) in shares.iter().zip(split.iter()) {
        let place = (share, range.len());
        if !range.is_empty() && !places.contains(&place) {
            places.push(place);
        }
    }
    let mut entries = Vec::new();
    for (rows, choices) in rows.filter(|(_, choices)| *choices != Choices::default()) {
        entries.extend(places.iter().map(|((device, sms), k)| TuningEntry {
            device: device.clone(),
            sms: *sms,
            k: *k,
            n: linear.n(),
            bits: linear.bits(),
            rows: rows.clone(),
            choices,
        }));
    }
    Ok(Tuning::new(entries)?)
}

/// µs per call for each M.
fn measure(
    args: &Args,
    place: &device::Place,
    kits: &[Kit],
    (linear, world): (&Linear<'_>, usize),
    tuning: &Tuning,
) -> Result<Vec<f64>> {
    let shard = linear.rows(Split::even(linear.k(), world)?.range(0))?;
    let load = Load {
        linear: *linear,
        world,
        layers: args.bytes.div_ceil(shard.packed_bytes().max(1)).max(1),
        rows: args.m.iter().copied().max().unwrap_or(1) as usize,
        rank: None,
        tuning,
    };
    let setting = Setting::Together(ExchangePath::Auto);
    let mut bench = Bench::load(place, load, setting)?;
    let replays = args.replays as usize;
    let time = |&m: &u32| {
        let seconds = time::replays::<bf16>(&mut bench, kits, Variant::Fused, m as usize, replays)?;
        Ok(time::summary(&seconds, load.layers).median)
    };
    args.m.iter().map(time).collect()
}

/// By rank.
#[cfg(feature = "cuda")]
fn shares(place: &device::Place, world: usize) -> Result<Vec<Share>> {
    let devices = trellink::cuda::devices()?;
    let of_ranks = place.of_ranks(world);
    let share = |device: &trellink::Device| {
        let sharers = of_ranks.iter().filter(|other| *other == device).count();
        let info = devices
            .iter()
            .find(|info| trellink::Device::Cuda(info.ordinal) == *device);
        let info = info.context("a device has gone")?;
        Ok((info.name.clone(), info.sm_count / sharers))
    };
    of_ranks.iter().map(share).collect()
}

#[cfg(not(feature = "cuda"))]
fn shares(_: &device::Place, _: usize) -> Result<Vec<Share>> {
    anyhow::bail!("tuning needs the `cuda` feature")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_m_stands_for_the_rows_above_the_one_before() {
        let ranges: Vec<_> = ranges(&[1, 8, 16]).collect();
        assert_eq!(ranges, [1..=1, 2..=8, 9..=16]);
    }

    #[test]
    fn only_what_is_clearly_faster_than_the_model_is_taken() {
        assert_eq!(best(&[10.0, 9.9, 11.0]), 0);
        assert_eq!(best(&[10.0, 9.7, 9.5]), 2);
        assert_eq!(best(&[10.0, f64::NAN, 12.0]), 0);
    }

    #[test]
    fn a_table_has_an_entry_for_each_kind_of_shard_that_differs_from_the_model() {
        let random = RandomLinear::new(384, 256, "4".parse().unwrap(), Codebook::Mul1);
        let linear = random.view().unwrap();
        let shares = vec![("a".to_owned(), 132); 2];
        let rows = [(1..=8, ALTERNATIVES[0]), (9..=16, ALTERNATIVES[3])];
        // 256 and 128 input channels.
        let tuning = table(&shares, &linear, 2, rows.into_iter()).unwrap();
        let mut found: Vec<_> = tuning
            .entries()
            .iter()
            .map(|e| (e.k, e.rows.clone()))
            .collect();
        found.sort_by_key(|(k, _)| *k);
        assert_eq!(found, [(128, 9..=16), (256, 9..=16)]);
    }
}
