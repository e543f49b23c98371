//! `trellink verify`: every linear of checkpoints, as the device runs it, against the reference.

mod calls;
mod checks;
mod golden;
mod report;

use crate::device::{self, Choice, Place};
use crate::failure::Outcome;
use crate::output;
use crate::ranks::Crew;
use anyhow::{bail, Context as _, Result};
use checks::Verdict;
use golden::Golden;
use report::Report;
use std::path::PathBuf;
use trellink::checkpoint::LinearInfo;
use trellink::format::GROUP;
use trellink::{Checkpoint, Group};

/// Arguments of `verify`.
#[derive(clap::Args)]
pub struct Args {
    /// Checkpoints: directories, indices or safetensors files, each one by itself
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Ranks over which each linear is split, 1 to 8
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    world: u8,
    /// Where the ranks run
    #[arg(long, value_enum, default_value_t)]
    device: Choice,
    /// Rows of the random input, 1 to 1024
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1024))]
    rows: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One linear to verify.
struct Case<'a> {
    path: &'a PathBuf,
    checkpoint: &'a Checkpoint,
    info: &'a LinearInfo,
    golden: Golden,
}

/// Runs `verify`.
pub fn run(args: &Args) -> Result<Outcome> {
    let checkpoints = open(&args.paths)?;
    let cases = cases(&checkpoints)?;
    let place = device::choose(args.device)?;
    let mut crew = crew(args, &place, &cases)?;
    let mut report = Report::new(&place, args.world.into());
    let bar = output::progress(cases.len());
    for case in &cases {
        bar.set_message(case.info.name.clone());
        let rows = case.rows(args.rows.into());
        let verdict = verify(case, rows, &place, &mut crew)
            .with_context(|| format!("{}: `{}`", case.path.display(), case.info.name))?;
        report.add(case, rows, verdict);
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.print(args.json)
}

fn open(paths: &[PathBuf]) -> Result<Vec<(&PathBuf, Checkpoint)>> {
    let mut checkpoints = Vec::new();
    for path in paths {
        let checkpoint = Checkpoint::open(path)?;
        if checkpoint.linears().is_empty() {
            bail!(
                "{}: no EXL3 linear, so there is nothing to verify",
                path.display()
            );
        }
        checkpoints.push((path, checkpoint));
    }
    Ok(checkpoints)
}

fn cases<'a>(checkpoints: &'a [(&'a PathBuf, Checkpoint)]) -> Result<Vec<Case<'a>>> {
    let mut cases = Vec::new();
    for (path, checkpoint) in checkpoints {
        for info in checkpoint.linears() {
            let golden = Golden::of(checkpoint, info);
            cases.push(Case {
                path,
                checkpoint,
                info,
                golden: golden.with_context(|| path.display().to_string())?,
            });
        }
    }
    Ok(cases)
}

/// The ranks, with arenas that hold the largest linear's output and not much more: eight of the
/// default size would take half a gigabyte of host memory.
fn crew(args: &Args, place: &Place, cases: &[Case<'_>]) -> Result<Crew> {
    const LARGEST: usize = 64 * 8192;
    let values = cases
        .iter()
        .map(|case| case.rows(args.rows.into()) * case.info.n);
    let slot_values = values.max().unwrap_or(GROUP).min(LARGEST);
    let devices = place.of_ranks(args.world.into());
    Crew::build(Group::new(devices).slot_values(slot_values))
}

impl Case<'_> {
    /// Rows of the input, if a random one has `random`.
    fn rows(&self, random: usize) -> usize {
        let rows = |x: &Vec<_>| x.len() / self.info.k;
        self.golden.x.as_ref().map_or(random, rows)
    }
}

/// Runs one linear every way, on an input of `rows` rows.
fn verify(case: &Case<'_>, rows: usize, place: &Place, crew: &mut Crew) -> Result<Verdict> {
    let linear = case.checkpoint.linear(&case.info.name)?;
    let mut random = crate::random::generator(2);
    let x = match &case.golden.x {
        Some(x) => x.clone(),
        None => crate::random::activations(&mut random, rows * linear.k()),
    };
    let residual = crate::random::activations(&mut random, rows * linear.n());
    let decode = checks::decode(&linear, place, &case.golden)?;
    let row = calls::row_parallel(crew, &linear, &x, &residual)?;
    let column = calls::column_parallel(crew, &linear, &x)?;
    let outputs = checks::outputs(&linear, &x, &residual, &case.golden, &row, &column);
    Ok(Verdict { decode, outputs })
}
