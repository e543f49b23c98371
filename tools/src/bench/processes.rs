//! `bench --processes`: every rank goes through the whole plan in a process of its own, with its own part.
//!
//! NCCL is left out: its ranks would need an introduction of their own.

use super::columns::Columns;
use super::measure::{no_direct, Part, Plan};
use super::sweep::Sweep;
use super::Args;
use crate::device::Place;
use crate::failure::Outcome;
use crate::processes::{steps, Processes};
use anyhow::{ensure, Result};
use serde::de::DeserializeOwned;

/// Starts the processes and leads them through the plan; `add` gets every measurement as all ranks have it.
pub fn lead<T: DeserializeOwned>(
    args: &Args,
    place: &Place,
    world: usize,
    add: &mut dyn FnMut(Vec<Part<T>>) -> Result<()>,
) -> Result<()> {
    let no_direct = no_direct(place);
    let mut processes = Processes::start(world, |command, rank| {
        // What this program was asked for is what they are asked for.
        command.args(std::env::args_os().skip(1));
        if args.world.is_none() {
            command.args(["--world", &world.to_string()]);
        }
        command.args(["--device", place.argument()]);
        command.args(no_direct.iter().map(|why| format!("--no-direct={why}")));
        command.args(["--rank", &rank.to_string()]);
    })?;
    processes.lead(add)?;
    processes.finish()
}

/// Be a rank in a process of its own.
pub fn be_rank(args: &Args, rank: usize) -> Result<Outcome> {
    if args.column_parallel {
        let columns = Columns::new(args)?;
        ensure!(rank < columns.world, "there is no rank {rank}");
        columns.run(Some(rank), &mut |part| steps::result(&part))?;
    } else if args.all_reduce_bytes.is_empty() {
        let plan = Plan::new(args)?;
        ensure!(rank < plan.world, "there is no rank {rank}");
        plan.run(Some(rank), &mut |part| steps::result(&part))?;
    } else {
        let sweep = Sweep::new(args)?;
        ensure!(rank < sweep.world, "there is no rank {rank}");
        sweep.run(Some(rank), &mut |part| steps::result(&part))?;
    }
    steps::finished()?;
    Ok(Outcome::Good)
}
