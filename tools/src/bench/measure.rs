//! Goes through what was asked for: every combination of weights, variant and M.

use super::accuracy;
use super::kit::Kit;
use super::load::{Bench, Load};
use super::processes;
use super::record::{Ranks, Record};
use super::report::Report;
use super::shape::Shape;
use super::time::{self, Times};
use super::variant::{Circumstances, Selection, Setting, Variant};
use super::Args;
use crate::device::{self, Place};
use crate::nccl::Nccl;
use crate::output;
use crate::processes::steps;
use crate::random::RandomLinear;
use anyhow::{bail, Context as _, Result};
use half::{bf16, f16};
use serde::{de::DeserializeOwned, Deserialize, Serialize};
use std::sync::Arc;
use trellink::format::{Bits, Codebook, DType};
use trellink::weights::Linear;
use trellink::{ExchangePath, Group, Split, Tuning};

/// One set of weights.
#[derive(Clone, Copy)]
pub struct Weights {
    pub shape: Shape,
    pub bits: Bits,
    pub codebook: Codebook,
}

/// What is to be measured, and where: the same for all ranks.
pub struct Plan<'a> {
    pub args: &'a Args,
    pub place: Place,
    pub world: usize,
    all: Vec<Weights>,
    variants: Vec<Variant>,
    /// What was asked for and is not measured, with the reason.
    pub left_out: Vec<String>,
    nccl: Option<Arc<Nccl>>,
    tuning: Tuning,
    commit: String,
}

/// A measurement before the times of all ranks have come together.
#[derive(Serialize, Deserialize)]
pub struct Part<T> {
    /// Without its times.
    pub record: T,
    /// Of each replay, by rank of this process.
    pub seconds: Vec<Vec<f64>>,
    /// In each replay.
    pub calls: usize,
}

/// What is measured in µs per call.
pub trait Timed {
    /// Sets them.
    fn set_times(&mut self, times: Times);
}

impl Timed for Record {
    fn set_times(&mut self, times: Times) {
        self.times = times;
    }
}

/// A plan being carried out by all ranks, or by that of this process.
struct Run<'a> {
    plan: &'a Plan<'a>,
    rank: Option<usize>,
    kits: Vec<Kit>,
}

/// Measures everything.
pub fn all(args: &Args) -> Result<Report> {
    let plan = Plan::new(args)?;
    let name = |record: &Record| format!("{} {} bits", record.shape, record.bits);
    let (place, count) = (&plan.place, plan.measurements());
    let records = collect(args, place, plan.world, count, name, |add| {
        plan.run(None, add)
    })?;
    Ok(Report {
        records,
        why: Some(plan.place.why),
        left_out: plan.left_out,
    })
}

/// All `count` measurements of a plan, made by processes or else by `run`, with a progress bar that says their names.
pub fn collect<T: Timed + DeserializeOwned>(
    args: &Args,
    place: &Place,
    world: usize,
    count: usize,
    name: impl Fn(&T) -> String,
    run: impl FnOnce(&mut dyn FnMut(Part<T>) -> Result<()>) -> Result<()>,
) -> Result<Vec<T>> {
    let mut all = Vec::new();
    let bar = output::progress(count);
    let mut add = |parts: Vec<Part<T>>| {
        let record = Part::together(parts)?;
        bar.set_message(name(&record));
        bar.inc(1);
        all.push(record);
        Ok(())
    };
    match args.processes {
        true => processes::lead(args, place, world, &mut add)?,
        false => run(&mut |part| add(vec![part]))?,
    }
    bar.finish_and_clear();
    Ok(all)
}

/// Who has measured where, with which build.
pub fn heading(args: &Args, place: &Place, world: usize) -> String {
    let ranks = Ranks::of(args).describe(world);
    let (device, why) = (place.describe(world), &place.why);
    format!("{ranks} on {device}, because {why}; commit {}", commit())
}

impl<T: Timed> Part<T> {
    /// The measurement of all ranks: what the first has to say of it, with everybody's times.
    pub fn together(parts: Vec<Self>) -> Result<T> {
        let seconds: Vec<_> = parts.iter().flat_map(|part| part.seconds.clone()).collect();
        let first = parts.into_iter().next().context("no rank has measured")?;
        let mut record = first.record;
        record.set_times(time::summary(&seconds, first.calls));
        Ok(record)
    }
}

/// Every combination of what was asked for that the format has; without shapes, of `presets`.
pub fn weights(args: &Args, place: &Place, presets: &[Shape]) -> Result<Vec<Weights>> {
    let shapes = match &args.shape[..] {
        [] if place.is_host() => &presets[..1],
        [] => presets,
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

impl<'a> Plan<'a> {
    /// Chooses the variants; also says which are left out, and why.
    pub fn new(args: &'a Args) -> Result<Self> {
        let place = place(args)?;
        let all = weights(args, &place, &Shape::PRESETS)?;
        let world = world(args, &place);
        let wants_nccl = args.variant.is_empty() || args.variant.iter().any(|v| v.uses_nccl());
        let nccl = match wants_nccl && !place.is_host() && !args.processes {
            true => Nccl::find(),
            false => Err("it was not looked for".into()),
        };
        let circumstances = Circumstances {
            on_host: place.is_host(),
            devices: place.devices.len(),
            world,
            processes: args.processes,
            smallest_k: all.iter().map(|w| w.shape.k).min().unwrap_or(0),
            no_direct: args.no_direct.clone().or_else(|| no_direct(&place)),
            nccl: nccl.as_ref().map(drop).map_err(Clone::clone),
        };
        let Selection { measured, left_out } = Selection::of(&args.variant, &circumstances);
        if measured.is_empty() {
            bail!("nothing to measure; {}", left_out.join("; "));
        }
        Ok(Plan {
            args,
            world,
            all,
            nccl: nccl.ok().filter(|_| measured.iter().any(|v| v.uses_nccl())),
            variants: measured,
            left_out,
            place,
            tuning: tuning(args)?,
            commit: commit(),
        })
    }

    fn measurements(&self) -> usize {
        self.all.len() * self.variants.len() * self.args.m.len()
    }

    /// Measures with all ranks, or with that of this process. What the variants need is made first: what
    /// fails there fails before anything is measured.
    pub fn run(
        &self,
        rank: Option<usize>,
        add: &mut dyn FnMut(Part<Record>) -> Result<()>,
    ) -> Result<()> {
        let reader = self.variants.contains(&Variant::Floor);
        let (place, world) = match rank {
            None => (self.place.clone(), self.world),
            Some(rank) => (self.place.of_rank(rank), 1),
        };
        let mut kits = Kit::all(&place, world, reader, self.nccl.as_ref())?;
        if self.variants.contains(&Variant::GemmAllReduce) {
            let group = Group::new(self.place.of_ranks(self.world));
            let ranks = match rank {
                None => group.build()?,
                Some(rank) => vec![steps::join(rank, group)?],
            };
            for (kit, rank) in kits.iter_mut().zip(ranks) {
                kit.reduce_with(rank);
            }
        }
        let run = Run {
            plan: self,
            rank,
            kits,
        };
        self.all.iter().try_for_each(|&one| run.weights(one, add))
    }
}

impl Run<'_> {
    /// All variants over one set of weights, which is loaded once for those that run alike.
    fn weights(
        &self,
        weights: Weights,
        add: &mut dyn FnMut(Part<Record>) -> Result<()>,
    ) -> Result<()> {
        let Plan { args, world, .. } = *self.plan;
        let Weights {
            shape,
            bits,
            codebook,
        } = weights;
        let random = RandomLinear::new(shape.k, shape.n, bits, codebook);
        let linear = random.view()?;
        let rows = args.m.iter().copied().max().unwrap_or(1) as usize;
        let load = Load {
            linear,
            world,
            layers: self.layers(&linear)?,
            rows,
            rank: self.rank,
            tuning: &self.plan.tuning,
        };
        for setting in Setting::ALL {
            let mut variants = self
                .plan
                .variants
                .iter()
                .filter(|v| v.setting() == setting)
                .peekable();
            if variants.peek().is_none() {
                continue;
            }
            let mut bench = Bench::load(&self.plan.place, load, setting)?;
            for &variant in variants {
                for &m in &args.m {
                    add(self.measure(weights, &linear, &mut bench, variant, m as usize)?)?;
                }
            }
        }
        Ok(())
    }

    /// Distinct weight tensors.
    fn layers(&self, linear: &Linear<'_>) -> Result<usize> {
        let Plan { args, world, .. } = *self.plan;
        let shard = linear.rows(Split::even(linear.k(), world)?.range(0))?;
        Ok(walk_length(args, &self.plan.place, shard.packed_bytes()))
    }

    fn measure(
        &self,
        weights: Weights,
        linear: &Linear<'_>,
        bench: &mut Bench,
        variant: Variant,
        m: usize,
    ) -> Result<Part<Record>> {
        let Plan { args, world, .. } = *self.plan;
        let (kits, replays) = (&self.kits[..], args.replays as usize);
        let rel_err = self.relative_error(linear, bench, variant, m)?;
        let seconds = match args.residual {
            DType::F16 => time::replays::<f16>(bench, kits, variant, m, replays)?,
            _ => time::replays::<bf16>(bench, kits, variant, m, replays)?,
        };
        let reads = if variant.reads_weights() {
            bench.rank_bytes
        } else {
            0
        };
        let nccl = self.plan.nccl.as_ref().filter(|_| variant.uses_nccl());
        let layers = bench.layers.iter().map(Vec::len).max();
        let record = Record {
            shape: weights.shape.to_string(),
            k: weights.shape.k,
            k_per_rank: Some(bench.ranges[0].len()),
            n: weights.shape.n,
            bits: weights.bits.half_bits() as f64 / 2.0,
            codebook: weights.codebook.name().into(),
            m,
            world,
            variant: variant.name().into(),
            times: Times::default(),
            rel_err,
            dtype: Some(args.residual.to_string()),
            layers,
            bytes_per_rank: Some(reads),
            nccl: nccl.map(|nccl| nccl.version().into()),
            ranks: Ranks::of(args),
            device: self.plan.place.describe(world),
            commit: self.plan.commit.clone(),
        };
        Ok(Part {
            record,
            seconds,
            calls: layers.unwrap_or(1),
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
        let error = match self.plan.args.residual {
            _ if !variant.computes() => return Ok(None),
            _ if !variant.exchanges_output() => accuracy::relative_error::<f32>,
            DType::F16 => accuracy::relative_error::<f16>,
            _ => accuracy::relative_error::<bf16>,
        };
        error(bench, kits, variant, linear, m)
    }
}

/// Distinct layers, of so many bytes each, that a rank walks through.
pub fn walk_length(args: &Args, place: &Place, bytes: usize) -> usize {
    if let Some(layers) = args.layers {
        return layers as usize;
    }
    let default = match place.is_host() {
        true => 8_000_000,
        false => 400_000_000,
    };
    let wanted = args.bytes.unwrap_or(default);
    wanted.div_ceil(bytes.max(1)).max(1)
}

/// What `--tuning` names.
fn tuning(args: &Args) -> Result<Tuning> {
    let Some(path) = &args.tuning else {
        return Ok(Tuning::default());
    };
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(name)?;
    Tuning::from_json(&text).with_context(name)
}

/// Where the ranks run. In the process of one of them the links are not tried.
pub fn place(args: &Args) -> Result<Place> {
    match args.rank {
        None => device::choose(args.device, ExchangePath::Auto),
        Some(_) => device::choose_untried(args.device),
    }
}

/// Why packets do not go directly, if so.
pub fn no_direct(place: &Place) -> Option<String> {
    let detour = place.path.as_ref()?;
    (detour.path == ExchangePath::HostMemory).then(|| detour.why.clone())
}

/// Ranks.
pub fn world(args: &Args, place: &Place) -> usize {
    let default = match place.is_host() {
        true => 2,
        false => place.devices.len().min(trellink::MAX_WORLD),
    };
    args.world.map_or(default, usize::from)
}

/// What is measured: `TRELLINK_COMMIT`, else the commit of the working directory's repository.
pub fn commit() -> String {
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
