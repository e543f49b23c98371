//! `trellink soak`: random calls for a while, with failures provoked, every result checked.
//!
//! `plan` says what happens, from a seed; a `task` is one operation of it. Each rank, a thread or a process,
//! goes through the plan (`member`): its `operation`s, their `recording`s as graphs, with a `delay` now and
//! then, and with a `failure` from which it must `recover`, by a reset or in another group. `values` says what
//! must come out. The `supervisor` talks to the ranks through their `link`s; `start` starts them, `report` prints.

mod delay;
mod failure;
mod fault;
mod link;
mod member;
mod operation;
mod plan;
mod recording;
mod recover;
mod report;
mod start;
mod supervisor;
mod task;
mod values;

use crate::device::{self, Choice, Place};
use crate::failure::Outcome;
use crate::output;
use anyhow::Result;
use fault::Fault;
use link::Counts;
use member::Run;
use report::Report;
use std::time::{Duration, Instant};
use trellink::ExchangePath;

/// Arguments of `soak`.
#[derive(clap::Args)]
pub struct Args {
    /// How long, in minutes; fractions are allowed. Default: 1
    #[arg(long, conflicts_with = "seconds", value_parser = positive)]
    minutes: Option<f64>,
    /// Or in seconds
    #[arg(long, value_parser = positive)]
    seconds: Option<f64>,
    /// Or in batches of calls, which take the same course however slow the machine is
    #[arg(long, hide = true, conflicts_with_all = ["minutes", "seconds"], value_name = "COUNT")]
    batches: Option<u64>,
    /// Run each rank in a process of its own
    #[arg(long)]
    processes: bool,
    /// Ranks, 1 to 8. Default: one per GPU and at least 2; 3 on the host
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    world: Option<u8>,
    /// Where the ranks run; they share GPUs if there are fewer
    #[arg(long, value_enum, default_value_t)]
    device: Choice,
    /// Which way packets take between GPUs: auto, direct or host-memory
    #[arg(long, default_value_t, value_name = "PATH")]
    path: ExchangePath,
    /// What all random decisions follow from. Default: another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// Begin with this round: a round does not depend on those before it
    #[arg(long, default_value_t = 0, value_name = "ROUND")]
    from_round: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Seconds without any progress after which the run has failed
    #[arg(long, default_value_t = 120.0, value_name = "SECONDS", value_parser = positive)]
    patience: f64,
    #[command(flatten)]
    fault: Fault,
    /// Be a rank of a `--processes` run, whose parent is at the other end of the pipes
    #[arg(long, hide = true, requires = "seed")]
    rank: Option<u8>,
}

/// A time in the units of its argument.
fn positive(text: &str) -> Result<f64, String> {
    const LONGEST: f64 = 1e7;
    let number = text.parse().ok();
    let number = number.filter(|number| *number > 0.0 && *number <= LONGEST);
    number.ok_or_else(|| format!("expected a number above 0, and at most {LONGEST}"))
}

/// Ranks that share a GPU have two streams each, and streams in one hardware queue wait for one another: there are
/// 8 queues if nothing is said. The driver reads this when it starts, and so do the processes of ranks.
fn give_streams_queues() {
    const QUEUES: &str = "CUDA_DEVICE_MAX_CONNECTIONS";
    if std::env::var_os(QUEUES).is_none() {
        std::env::set_var(QUEUES, "32");
    }
}

/// Runs `soak`.
pub fn run(args: &Args) -> Result<Outcome> {
    give_streams_queues();
    let place = match args.rank {
        None => device::choose(args.device, args.path)?,
        Some(_) => device::choose_untried(args.device)?,
    };
    let run = Run {
        seed: args.seed.unwrap_or_else(rand::random),
        first_round: args.from_round,
        devices: place.of_ranks(world(args, &place)),
        path: args.path,
        fault: args.fault,
    };
    if let Some(rank) = args.rank {
        return start::be_rank(&run, rank.into());
    }
    let world = run.devices.len();
    let mut report = Report::new(&place, world, run.seed, args.processes);
    // Now, so that it is known whatever happens.
    if !args.json {
        output::print(&report.header())?;
    }
    let length = args.seconds.or(args.minutes.map(|minutes| minutes * 60.0));
    let length = Duration::from_secs_f64(length.unwrap_or(60.0));
    let patience = Duration::from_secs_f64(args.patience);
    let supervisor = match args.processes {
        true => start::processes(args, &run, &place, patience)?,
        false => start::threads(&run, patience),
    };
    let start = Instant::now();
    let bar = output::progress(length.as_secs() as usize);
    let mut minutes = 0;
    let enough = |counts: &Counts| match args.batches {
        Some(batches) => counts.batches >= batches,
        None => start.elapsed() >= length,
    };
    let found = supervisor.run(enough, |found| {
        bar.set_position(start.elapsed().as_secs());
        let (groups, calls) = (found.counts.groups, found.counts.calls());
        bar.set_message(format!("s, {groups} groups, {calls} calls"));
        // So that a run that is stopped from outside has told of something.
        if !args.json && start.elapsed().as_secs() / 60 > minutes {
            minutes += 1;
            let so_far = format!("after {minutes} min: {groups} groups, {calls} calls");
            // Whoever reads no more does not end the run.
            let _ = output::print(&so_far);
        }
    });
    bar.finish_and_clear();
    report.add(found, start.elapsed());
    report.print(args.json)
}

fn world(args: &Args, place: &Place) -> usize {
    let default = match place.is_host() {
        true => 3,
        false => place.devices.len().clamp(2, trellink::MAX_WORLD),
    };
    args.world.map_or(default, usize::from)
}
