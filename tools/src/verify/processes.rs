//! The ranks of `verify --processes`.
//!
//! What must stay true: the processes take each step together, as threads would, so that none waits
//! for another that still reads files.

use super::calls::RankOutputs;
use super::pipe::{self, Request};
use super::Args;
use crate::device::Place;
use crate::processes::{self, frame};
use anyhow::Result;

/// One process for each rank.
pub(super) struct Processes(processes::Processes);

impl Processes {
    /// Starts them and lets them meet.
    pub(super) fn start(args: &Args, place: &Place) -> Result<Self> {
        let world = usize::from(args.world);
        let mut all = processes::Processes::start(world, |command, rank| {
            command.arg("verify").args(["--device", place.argument()]);
            command.args(["--world", &args.world.to_string()]);
            command.args(["--path", args.path.name()]);
            command.args(["--rows", &args.rows.to_string()]);
            command.args(["--rank", &rank.to_string()]);
            command.arg("--").args(&args.paths);
        })?;
        all.meet()?;
        Ok(Processes(all))
    }

    /// Runs the next linear.
    pub(super) fn run(&mut self) -> Result<Vec<RankOutputs>> {
        self.ask(Request::Prepare)?;
        self.0.each(|process| frame::read(&mut process.answers))?;
        self.ask(Request::Run)?;
        self.0
            .each(|process| pipe::read_outputs(&mut process.answers))
    }

    /// Waits for the processes, which have nothing left to do.
    pub(super) fn finish(self) -> Result<()> {
        self.0.finish()
    }

    fn ask(&mut self, request: Request) -> Result<()> {
        self.0
            .each(|process| frame::write(&mut process.requests, request.bytes()))?;
        Ok(())
    }
}
