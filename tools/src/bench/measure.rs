//! Goes through what was asked for: every combination of weights, variant and M.

use super::accuracy;
use super::kit::Kit;
use super::load::{Bench, Load};
use super::record::Record;
use super::report::Report;
use super::shape::Shape;
use super::time;
use super::variant::{Circumstances, Selection, Setting, Variant};
use super::Args;
use crate::device::{self, Place};
use crate::nccl::Nccl;
use crate::output;
use crate::random::RandomLinear;
use anyhow::{bail, Result};
use half::{bf16, f16};
use indicatif::ProgressBar;
use std::sync::Arc;
use trellink::format::{Bits, Codebook, DType};
use trellink::weights::Linear;
use trellink::{ExchangePath, Split};

/// One set of weights.
#[derive(Clone, Copy)]
struct Weights {
    shape: Shape,
    bits: Bits,
    codebook: Codebook,
}

/// What all measurements of a run have in common.
struct Run<'a> {
    args: &'a Args,
    place: Place,
    world: usize,
    variants: Vec<Variant>,
    nccl: Option<Arc<Nccl>>,
    kits: Vec<Kit>,
    bar: ProgressBar,
    commit: String,
}

/// Measures everything.
pub fn all(args: &Args) -> Result<Report> {
    let place = device::choose(args.device, ExchangePath::Auto)?;
    let all = weights(args, &place)?;
    let (run, left_out) = Run::prepare(args, place, &all)?;
    let mut records = Vec::new();
    for weights in all {
        run.weights(weights, &mut records)?;
    }
    run.bar.finish_and_clear();
    Ok(Report {
        records,
        why: Some(run.place.why),
        left_out,
    })
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
            let codebooks = args.codebook.iter().filter(|c| c.supports(bits));
            all.extend(codebooks.map(|&codebook| Weights {
                shape,
                bits,
                codebook,
            }));
        }
    }
    if all.is_empty() {
        bail!("none of these bits with these codebooks; 1.5, 2.5 and 3.5 exist with mul1 only");
    }
    Ok(all)
}

impl<'a> Run<'a> {
    /// Chooses the variants and makes what they need; also says which are left out, and why. What
    /// fails here fails before anything is measured.
    fn prepare(args: &'a Args, place: Place, all: &[Weights]) -> Result<(Self, Vec<String>)> {
        let world = world(args, &place);
        let wants_nccl = args.variant.is_empty() || args.variant.iter().any(|v| v.uses_nccl());
        let nccl = match wants_nccl && !place.is_host() {
            true => Nccl::find(),
            false => Err("it was not looked for".into()),
        };
        let circumstances = Circumstances {
            on_host: place.is_host(),
            devices: place.devices.len(),
            world,
            smallest_k: all.iter().map(|w| w.shape.k).min().unwrap_or(0),
            no_direct: no_direct(&place),
            nccl: nccl.as_ref().map(drop).map_err(Clone::clone),
        };
        let Selection { measured, left_out } = Selection::of(&args.variant, &circumstances);
        if measured.is_empty() {
            bail!("nothing to measure; {}", left_out.join("; "));
        }
        let nccl = nccl.ok().filter(|_| measured.iter().any(|v| v.uses_nccl()));
        let reader = measured.contains(&Variant::Floor);
        let run = Run {
            args,
            world,
            kits: Kit::all(&place, world, reader, nccl.as_ref())?,
            bar: output::progress(all.len() * measured.len()),
            variants: measured,
            nccl,
            place,
            commit: commit(),
        };
        Ok((run, left_out))
    }

    /// All variants over one set of weights, which is loaded once for those that run alike.
    fn weights(&self, weights: Weights, records: &mut Vec<Record>) -> Result<()> {
        let Weights {
            shape,
            bits,
            codebook,
        } = weights;
        self.bar.set_message(format!("{shape} {bits} {codebook}"));
        let random = RandomLinear::new(shape.k, shape.n, bits, codebook);
        let linear = random.view()?;
        let rows = self.args.m.iter().copied().max().unwrap_or(1) as usize;
        let load = Load {
            linear,
            world: self.world,
            layers: self.layers(&linear)?,
            rows,
        };
        for setting in Setting::ALL {
            let mut variants = self
                .variants
                .iter()
                .filter(|v| v.setting() == setting)
                .peekable();
            if variants.peek().is_none() {
                continue;
            }
            let mut bench = Bench::load(&self.place, load, setting)?;
            for &variant in variants {
                for &m in &self.args.m {
                    let record = self.measure(weights, &linear, &mut bench, variant, m as usize)?;
                    records.push(record);
                }
                self.bar.inc(1);
            }
        }
        Ok(())
    }

    /// Distinct weight tensors.
    fn layers(&self, linear: &Linear<'_>) -> Result<usize> {
        if let Some(layers) = self.args.layers {
            return Ok(layers as usize);
        }
        let default = match self.place.is_host() {
            true => 8_000_000,
            false => 400_000_000,
        };
        let shard = linear.rows(Split::even(linear.k(), self.world)?.range(0))?;
        let wanted = self.args.bytes.unwrap_or(default);
        Ok(wanted.div_ceil(shard.packed_bytes().max(1)).max(1))
    }

    fn measure(
        &self,
        weights: Weights,
        linear: &Linear<'_>,
        bench: &mut Bench,
        variant: Variant,
        m: usize,
    ) -> Result<Record> {
        let (kits, replays) = (&self.kits[..], self.args.replays as usize);
        let rel_err = self.relative_error(linear, bench, variant, m)?;
        let times = match self.args.residual {
            DType::F16 => time::replays::<f16>(bench, kits, variant, m, replays)?,
            _ => time::replays::<bf16>(bench, kits, variant, m, replays)?,
        };
        let reads = if variant.reads_weights() {
            bench.rank_bytes
        } else {
            0
        };
        let nccl = self.nccl.as_ref().filter(|_| variant.uses_nccl());
        Ok(Record {
            shape: weights.shape.to_string(),
            k: weights.shape.k,
            k_per_rank: Some(bench.ranges[0].len()),
            n: weights.shape.n,
            bits: weights.bits.half_bits() as f64 / 2.0,
            codebook: weights.codebook.name().into(),
            m,
            world: self.world,
            variant: variant.name().into(),
            times,
            rel_err,
            dtype: Some(self.args.residual.to_string()),
            layers: bench.layers.iter().map(Vec::len).max(),
            bytes_per_rank: Some(reads),
            nccl: nccl.map(|nccl| nccl.version().into()),
            device: self.place.describe(self.world),
            commit: self.commit.clone(),
        })
    }

    /// Of an f32 output, which shows what the kernel does; where an output is exchanged, of that, whose
    /// rounding is part of the variant.
    fn relative_error(
        &self,
        linear: &Linear<'_>,
        bench: &mut Bench,
        variant: Variant,
        m: usize,
    ) -> Result<Option<f64>> {
        let kits = &self.kits[..];
        let error = match self.args.residual {
            _ if !variant.computes() => return Ok(None),
            _ if !variant.uses_nccl() => accuracy::relative_error::<f32>,
            DType::F16 => accuracy::relative_error::<f16>,
            _ => accuracy::relative_error::<bf16>,
        };
        error(bench, kits, variant, linear, m).map(Some)
    }
}

/// Why packets do not go directly, if so.
fn no_direct(place: &Place) -> Option<String> {
    let detour = place.path.as_ref()?;
    (detour.path == ExchangePath::HostMemory).then(|| detour.why.clone())
}

fn world(args: &Args, place: &Place) -> usize {
    let default = match place.is_host() {
        true => 2,
        false => place.devices.len().min(trellink::MAX_WORLD),
    };
    args.world.map_or(default, usize::from)
}

/// What is measured: `TRELLINK_COMMIT`, else the commit of the working directory's repository.
fn commit() -> String {
    let named = std::env::var("TRELLINK_COMMIT")
        .ok()
        .filter(|name| !name.is_empty());
    named.or_else(head).unwrap_or_else(|| "unknown".into())
}

fn head() -> Option<String> {
    let mut git = std::process::Command::new("git");
    let output = git.args(["rev-parse", "--short", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
