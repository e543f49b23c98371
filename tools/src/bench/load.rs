//! Weights on their ranks, ready to be called.

use super::variant::{Setting, Variant};
use crate::device::Place;
use crate::processes::steps;
use crate::ranks::Crew;
use anyhow::Result;
use std::ops::Range;
use trellink::weights::Linear;
use trellink::{Device, ExchangePath, Group, RowParallel, Split, Tuning};

/// Ranks with the layers that they walk through.
pub struct Bench {
    /// The ranks.
    pub crew: Crew,
    /// The first rank of the crew; in a process of its own the only one.
    pub first: usize,
    /// By rank of the crew: all layers have the same weights, each in memory of its own.
    pub layers: Vec<Vec<RowParallel>>,
    /// By rank: its input channels of the whole layer.
    pub ranges: Vec<Range<usize>>,
    /// Output channels.
    pub n: usize,
    /// Bytes of the packed weights of one layer on the first rank.
    pub rank_bytes: usize,
}

/// What is loaded.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// The whole layer.
    pub linear: Linear<'a>,
    /// Ranks over which K is split.
    pub world: usize,
    /// How often each rank holds its shard.
    pub layers: usize,
    /// Rows of a call at most.
    pub rows: usize,
    /// The rank of this process, if all have their own.
    pub rank: Option<usize>,
    /// By which launches are shaped.
    pub tuning: &'a Tuning,
}

/// All ranks of a group, or that of this process.
pub fn join(rank: Option<usize>, group: Group) -> Result<Crew> {
    match rank {
        None => Crew::build(group),
        Some(rank) => Crew::part(Some(steps::join(rank, group)?)),
    }
}

impl Bench {
    /// Loads the layer for the variants that run in this setting.
    pub fn load(place: &Place, load: Load<'_>, setting: Setting) -> Result<Self> {
        let split = Split::even(load.linear.k(), load.world)?;
        match setting {
            Setting::Together(path) => Self::together(place, load, &split, path),
            Setting::Alone => Self::alone(place, load, &split),
        }
    }

    /// One group of all ranks.
    fn together(place: &Place, load: Load<'_>, split: &Split, path: ExchangePath) -> Result<Self> {
        let group = load.group(place.of_ranks(load.world));
        let mut crew = join(load.rank, group.path(path))?;
        let layers = crew.each(|_, worker| {
            let layer = |_| Ok(RowParallel::load(&worker.rank, &load.linear, split)?);
            (0..load.layers).map(layer).collect()
        })?;
        Self::of(crew, layers, load, split.iter().collect())
    }

    /// The shard of each rank in a group of its own. Two on one device would be two kernels that each
    /// take all of its SMs, so there are not more ranks than devices. The host has one set of cores,
    /// which the ranks share in every case.
    fn alone(place: &Place, load: Load<'_>, split: &Split) -> Result<Self> {
        let shards = split.iter().filter(|range| !range.is_empty());
        let ranges: Vec<_> = shards.take(place.devices.len()).collect();
        let group = |device| load.group(vec![device]).build();
        let devices = place.of_ranks(ranges.len()).into_iter().enumerate();
        let devices = devices.filter(|(rank, _)| load.rank.is_none_or(|own| own == *rank));
        let groups = devices.map(|(_, device)| group(device));
        let ranks = groups.collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
        let mut crew = match load.rank {
            None => Crew::of(ranks.collect())?,
            Some(_) => Crew::part(ranks.last())?,
        };
        let first = load.rank.unwrap_or(0);
        let layers = crew.each(|at, worker| {
            let shard = load.linear.rows(ranges[first + at].clone())?;
            let whole = Split::even(shard.k(), 1)?;
            let layer = |_| Ok(RowParallel::load(&worker.rank, &shard, &whole)?);
            (0..load.layers).map(layer).collect()
        })?;
        Self::of(crew, layers, load, ranges)
    }

    fn of(
        crew: Crew,
        layers: Vec<Vec<RowParallel>>,
        load: Load<'_>,
        ranges: Vec<Range<usize>>,
    ) -> Result<Self> {
        Ok(Bench {
            crew,
            first: load.rank.unwrap_or(0),
            layers,
            n: load.linear.n(),
            rank_bytes: load.linear.rows(ranges[0].clone())?.packed_bytes(),
            ranges,
        })
    }

    /// Input channels that the outputs of a variant are the sum over.
    pub fn summed(&self, variant: Variant) -> Range<usize> {
        match variant {
            // Without an exchange a rank has the sum over its own.
            Variant::Gemm => self.ranges[0].clone(),
            _ => 0..self.ranges.last().map_or(0, |last| last.end),
        }
    }
}

impl Load<'_> {
    fn group(&self, devices: Vec<Device>) -> Group {
        const LARGEST: usize = 64 * 8192;
        Group::new(devices)
            .slot_values((self.rows * self.linear.n()).min(LARGEST))
            .tuning(self.tuning.clone())
    }
}
