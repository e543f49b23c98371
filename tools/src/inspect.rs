//! `trellink inspect`: what a checkpoint holds.

use crate::failure::Outcome;
use crate::output;
use anyhow::Result;
use serde::Serialize;
use std::path::PathBuf;
use trellink::checkpoint::LinearInfo;
use trellink::Checkpoint;

/// Arguments of `inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// A checkpoint: a directory, an index or a safetensors file
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    linears: Vec<Line<'a>>,
    total: Total,
    files: Vec<String>,
}

/// One linear.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    k: usize,
    n: usize,
    bits: f64,
    codebook: &'static str,
    bias: Option<&'static str>,
    packed_bytes: usize,
}

#[derive(Serialize)]
struct Total {
    linears: usize,
    parameters: usize,
    /// Weighted by parameters; none without a parameter.
    average_bits: Option<f64>,
    packed_bytes: usize,
}

/// Runs `inspect`.
pub fn run(args: &Args) -> Result<Outcome> {
    let checkpoint = Checkpoint::open(&args.path)?;
    let report = Report {
        linears: checkpoint.linears().iter().map(line).collect(),
        total: total(checkpoint.linears()),
        files: checkpoint
            .files()
            .map(|file| file.display().to_string())
            .collect(),
    };
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&text(&report))?;
    }
    Ok(Outcome::Good)
}

fn line(info: &LinearInfo) -> Line<'_> {
    Line {
        name: &info.name,
        k: info.k,
        n: info.n,
        bits: info.bits.half_bits() as f64 / 2.0,
        codebook: info.codebook.name(),
        bias: info.bias.map(|dtype| dtype.name()),
        packed_bytes: info.packed_bytes,
    }
}

fn total(linears: &[LinearInfo]) -> Total {
    let parameters: usize = linears.iter().map(|info| info.k * info.n).sum();
    let packed_bytes: usize = linears.iter().map(|info| info.packed_bytes).sum();
    Total {
        linears: linears.len(),
        parameters,
        average_bits: (parameters > 0).then(|| 8.0 * packed_bytes as f64 / parameters as f64),
        packed_bytes,
    }
}

fn text(report: &Report<'_>) -> String {
    let header = ["linear", "K", "N", "bits", "codebook", "bias", "bytes"];
    let mut table = output::table(&header, 1..4);
    for line in &report.linears {
        table.add_row([
            line.name.to_owned(),
            line.k.to_string(),
            line.n.to_string(),
            line.bits.to_string(),
            line.codebook.to_owned(),
            line.bias.unwrap_or("-").to_owned(),
            output::bytes(line.packed_bytes),
        ]);
    }
    let total = &report.total;
    let average = total
        .average_bits
        .map_or("no".into(), |bits| format!("{bits:.2}"));
    format!(
        "{}\n{} linears, {} parameters, {average} bits on average, {} packed, in {}",
        output::render(&table),
        total.linears,
        total.parameters,
        output::bytes(total.packed_bytes),
        report.files.join(", "),
    )
}
