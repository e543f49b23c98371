//! Weights on their ranks, ready to be called.

use crate::device::Place;
use crate::ranks::Crew;
use anyhow::Result;
use serde::Serialize;
use std::ops::Range;
use trellink::weights::Linear;
use trellink::{Group, RowParallel, Split};

/// What is measured of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// The layer over all ranks, exchange and epilogue included.
    Fused,
    /// One rank's shard as a world of its own on every device at the same time: no exchange.
    Gemm,
    // A floor (streaming the same bytes and nothing else) would be the third; it needs its own
    // `Bench::load` and no `accuracy`.
}

impl Variant {
    /// In the order of the output.
    pub const ALL: [Variant; 2] = [Variant::Fused, Variant::Gemm];

    /// What is loaded: the whole layer, or the first rank's shard, which no other exceeds.
    pub fn linear(self, whole: Linear<'_>, world: usize) -> Result<Linear<'_>> {
        match self {
            Variant::Fused => Ok(whole),
            Variant::Gemm => Ok(whole.rows(Split::even(whole.k(), world)?.range(0))?),
        }
    }

    /// Ranks over which `linear` is split.
    pub fn ranks_per_group(self, world: usize) -> usize {
        match self {
            Variant::Fused => world,
            Variant::Gemm => 1,
        }
    }
}

/// Ranks with the layers that they walk through.
pub struct Bench {
    /// The ranks.
    pub crew: Crew,
    /// By rank: all layers have the same weights, each in memory of its own.
    pub layers: Vec<Vec<RowParallel>>,
    /// How K is divided over the ranks of a group.
    pub split: Split,
    /// What was loaded.
    pub variant: Variant,
    /// Output channels.
    pub n: usize,
    /// Bytes of the packed weights of one layer on the first rank.
    pub rank_bytes: usize,
}

impl Bench {
    /// Loads `linear` as often as `layers` says on every rank.
    pub fn load(
        place: &Place,
        variant: Variant,
        world: usize,
        linear: &Linear<'_>,
        layers: usize,
        rows: usize,
    ) -> Result<Self> {
        const LARGEST: usize = 64 * 8192;
        let slot_values = (rows * linear.n()).min(LARGEST);
        let split = Split::even(linear.k(), variant.ranks_per_group(world))?;
        let mut crew = match variant {
            Variant::Fused => {
                Crew::build(Group::new(place.of_ranks(world)).slot_values(slot_values))?
            }
            Variant::Gemm => worlds_of_one(place, world, slot_values)?,
        };
        let layers = crew.each(|_, worker| {
            let load = |_| Ok(RowParallel::load(&worker.rank, linear, &split)?);
            (0..layers).map(load).collect()
        })?;
        Ok(Bench {
            crew,
            layers,
            rank_bytes: linear.rows(split.range(0))?.packed_bytes(),
            split,
            variant,
            n: linear.n(),
        })
    }

    /// Input channels of a rank.
    pub fn range_of(&self, at: usize) -> Range<usize> {
        match self.variant {
            Variant::Fused => self.split.range(at),
            Variant::Gemm => self.split.range(0),
        }
    }
}

/// A group of one rank on each device. Two on one device would be two kernels that each take all
/// of its SMs. The host has one set of cores, which the ranks share in every case.
fn worlds_of_one(place: &Place, world: usize, slot_values: usize) -> Result<Crew> {
    let devices = place.of_ranks(world.min(place.devices.len()));
    let build = |device| Group::new([device]).slot_values(slot_values).build();
    let groups = devices
        .into_iter()
        .map(build)
        .collect::<Result<Vec<_>, _>>()?;
    Crew::of(groups.into_iter().flatten().collect())
}
