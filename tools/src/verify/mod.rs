//! `trellink verify`: every linear of checkpoints, as the device runs it, against the reference.

mod calls;
mod checks;
mod golden;
mod pipe;
mod process;
mod processes;
mod report;

use crate::device::{self, Choice, Place};
use crate::failure::Outcome;
use crate::output;
use crate::ranks::Crew;
use anyhow::{bail, Context as _, Result};
use calls::RankOutputs;
use checks::Verdict;
pub use checks::TOLERANCE;
use golden::Golden;
use half::f16;
use processes::Processes;
use report::Report;
use std::path::PathBuf;
use trellink::checkpoint::LinearInfo;
use trellink::format::GROUP;
use trellink::weights::Linear;
use trellink::{Checkpoint, ExchangePath, Group};

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
    /// Which way packets take between GPUs: auto, direct or host-memory
    #[arg(long, default_value_t)]
    path: ExchangePath,
    /// Rows of the random input, 1 to 1024
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1024))]
    rows: u16,
    /// Run each rank in a process of its own
    #[arg(long)]
    processes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Be a rank of a `--processes` run, whose parent is at the other end of the pipes
    #[arg(long, hide = true)]
    rank: Option<u8>,
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
    let place = match args.rank {
        None => device::choose(args.device, args.path)?,
        Some(_) => device::choose_untried(args.device)?,
    };
    let group = group(args, &place, &cases);
    if let Some(rank) = args.rank {
        return process::run(rank.into(), group, &cases, args.rows.into());
    }
    let mut ranks = if args.processes {
        Ranks::Processes(Processes::start(args, &place)?)
    } else {
        Ranks::Threads(Crew::build(group)?)
    };
    let mut report = Report::new(&place, args.world.into());
    let bar = output::progress(cases.len());
    for case in &cases {
        bar.set_message(case.info.name.clone());
        let rows = case.rows(args.rows.into());
        let verdict = verify(case, rows, &place, &mut ranks)
            .with_context(|| format!("{}: `{}`", case.path.display(), case.info.name))?;
        report.add(case, rows, verdict);
        bar.inc(1);
    }
    bar.finish_and_clear();
    ranks.finish()?;
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

/// The ranks' group, with arenas that hold the largest linear's output and not much more: eight of
/// the default size would take half a gigabyte of host memory.
fn group(args: &Args, place: &Place, cases: &[Case<'_>]) -> Group {
    const LARGEST: usize = 64 * 8192;
    let values = cases
        .iter()
        .map(|case| case.rows(args.rows.into()) * case.info.n);
    let slot_values = values.max().unwrap_or(GROUP).min(LARGEST);
    let devices = place.of_ranks(args.world.into());
    Group::new(devices).slot_values(slot_values).path(args.path)
}

/// Where the ranks are.
enum Ranks {
    Threads(Crew),
    Processes(Processes),
}

impl Ranks {
    /// Runs the next linear on all ranks. The processes know by themselves which one is the next.
    fn run(&mut self, linear: &Linear<'_>, inputs: &Inputs) -> Result<Vec<RankOutputs>> {
        match self {
            Ranks::Threads(crew) => calls::run(crew, linear, &inputs.x, &inputs.residual),
            Ranks::Processes(processes) => processes.run(),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Ranks::Threads(_) => Ok(()),
            Ranks::Processes(processes) => processes.finish(),
        }
    }
}

/// What goes into the calls of a linear: the same in every process.
struct Inputs {
    x: Vec<f16>,
    residual: Vec<f16>,
}

impl Case<'_> {
    /// Rows of the input, if a random one has `random`.
    fn rows(&self, random: usize) -> usize {
        let rows = |x: &Vec<_>| x.len() / self.info.k;
        self.golden.x.as_ref().map_or(random, rows)
    }

    fn linear(&self) -> Result<Linear<'_>> {
        Ok(self.checkpoint.linear(&self.info.name)?)
    }

    /// The file's input or a random one of `rows` rows, and a residual.
    fn inputs(&self, rows: usize) -> Inputs {
        let mut random = crate::random::generator(2);
        let x = match &self.golden.x {
            Some(x) => x.clone(),
            None => crate::random::activations(&mut random, rows * self.info.k),
        };
        let residual = crate::random::activations(&mut random, rows * self.info.n);
        Inputs { x, residual }
    }
}

/// Runs one linear every way, on an input of `rows` rows.
fn verify(case: &Case<'_>, rows: usize, place: &Place, ranks: &mut Ranks) -> Result<Verdict> {
    let linear = case.linear()?;
    let inputs = case.inputs(rows);
    let decode = checks::decode(&linear, place, &case.golden)?;
    let outputs = ranks.run(&linear, &inputs)?;
    let Inputs { x, residual } = &inputs;
    let outputs = checks::outputs(&linear, x, residual, &case.golden, &outputs)?;
    Ok(Verdict { decode, outputs })
}
