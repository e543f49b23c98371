//! What `bench` prints: one line per weights, M and variant.

use super::load::{Bench, Variant};
use super::time::Times;
use super::Weights;
use crate::device::Place;
use crate::output;
use anyhow::Result;
use serde::Serialize;

/// One measurement.
#[derive(Serialize)]
pub struct Row {
    /// A preset's name or the whole K and N.
    shape: String,
    /// Input channels of the whole layer.
    k: usize,
    /// Input channels of the first rank, in every variant.
    k_per_rank: usize,
    n: usize,
    bits: f64,
    codebook: &'static str,
    m: usize,
    /// Ranks that hold the layer, in every variant.
    world: usize,
    variant: Variant,
    #[serde(flatten)]
    times: Times,
    rel_err: f64,
    /// Distinct weight tensors, hence calls, in one replay.
    layers: usize,
    /// Packed weights of one call on the first rank.
    bytes_per_rank: usize,
    device: String,
    commit: String,
}

impl Row {
    /// A measurement of `bench`; world, device and commit are filled in by the report.
    pub fn new(weights: Weights, bench: &Bench, m: usize, times: Times, rel_err: f64) -> Self {
        Row {
            shape: weights.shape.to_string(),
            k: weights.shape.k,
            k_per_rank: bench.range_of(0).len(),
            n: weights.shape.n,
            bits: weights.bits.half_bits() as f64 / 2.0,
            codebook: weights.codebook.name(),
            m,
            world: 0,
            variant: bench.variant,
            times,
            rel_err,
            layers: bench.layers.iter().map(Vec::len).max().unwrap_or(0),
            bytes_per_rank: bench.rank_bytes,
            device: String::new(),
            commit: String::new(),
        }
    }

    fn cells(&self) -> [String; 13] {
        let variant = match self.variant {
            Variant::Fused => "fused",
            Variant::Gemm => "gemm",
        };
        [
            self.shape.clone(),
            self.k_per_rank.to_string(),
            self.n.to_string(),
            self.bits.to_string(),
            self.codebook.to_owned(),
            self.m.to_string(),
            self.layers.to_string(),
            output::bytes(self.bytes_per_rank),
            variant.to_owned(),
            format!("{:.2}", self.times.median),
            format!("{:.2}", self.times.min),
            format!("{:.2}", self.times.max),
            format!("{:.1e}", self.rel_err),
        ]
    }
}

/// All measurements of a run.
pub struct Report {
    device: String,
    why: String,
    commit: String,
    world: usize,
    rows: Vec<Row>,
}

impl Report {
    /// An empty one.
    pub fn new(place: &Place, world: usize) -> Self {
        Report {
            device: place.describe(world),
            why: place.why.clone(),
            commit: commit(),
            world,
            rows: Vec::new(),
        }
    }

    /// Adds a measurement.
    pub fn add(&mut self, row: Row) {
        self.rows.push(Row {
            world: self.world,
            device: self.device.clone(),
            commit: self.commit.clone(),
            ..row
        });
    }

    /// Prints an array of rows, or a table.
    pub fn print(&self, json: bool) -> Result<()> {
        if json {
            output::print_json(&self.rows)
        } else {
            output::print(&self.text())
        }
    }

    fn text(&self) -> String {
        let header = [
            "shape",
            "K/rank",
            "N",
            "bits",
            "codebook",
            "M",
            "layers",
            "bytes/rank",
            "variant",
            "us median",
            "min",
            "max",
            "rel err",
        ];
        let mut table = output::table(&header, 1..4);
        for row in &self.rows {
            table.add_row(row.cells());
        }
        format!(
            "{} ranks on {}, because {}; commit {}\n\
             us per call; K/rank = K of the layer / {}; fused: all ranks with exchange and residual \
             add, gemm: the same shard without exchange\n{}",
            self.world,
            self.device,
            self.why,
            self.commit,
            self.world,
            output::render(&table),
        )
    }
}

/// What was measured: `TRELLINK_COMMIT`, else the commit of the working directory's repository.
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
