//! The ranks of `verify --processes`: this program once more for each of them.
//!
//! What must stay true: the processes take each step together, as threads would, so that none waits
//! for another that still reads files. They end when this program does: their pipes close.

use super::calls::RankOutputs;
use super::pipe::{self, Request};
use super::Args;
use crate::device::Place;
use anyhow::{Context as _, Result};
use std::io::Read as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The processes, in rank order.
pub(super) struct Processes {
    processes: Vec<Process>,
}

struct Process {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
}

impl Processes {
    /// Starts one process for each rank and lets them meet.
    pub(super) fn start(args: &Args, place: &Place) -> Result<Self> {
        let mut processes = Vec::new();
        for rank in 0..args.world {
            processes.push(Process::start(args, place, rank)?);
        }
        let mut all = Processes { processes };
        let addresses = all.each(|process| pipe::read(&mut process.answers))?;
        for bytes in &addresses {
            all.each(|process| pipe::write(&mut process.requests, bytes))?;
        }
        Ok(all)
    }

    /// Runs the next linear.
    pub(super) fn run(&mut self) -> Result<Vec<RankOutputs>> {
        self.ask(Request::Prepare)?;
        self.each(|process| pipe::read(&mut process.answers))?;
        self.ask(Request::Run)?;
        self.each(|process| pipe::read_outputs(&mut process.answers))
    }

    /// Waits for the processes, which have nothing left to do.
    pub(super) fn finish(mut self) -> Result<()> {
        self.told().map_or(Ok(()), |failed| Err(failed.into()))
    }

    fn ask(&mut self, request: Request) -> Result<()> {
        self.each(|process| pipe::write(&mut process.requests, request.bytes()))?;
        Ok(())
    }

    /// Does `step` with every process; on an error, what the processes say explains it best.
    fn each<T>(&mut self, step: impl Fn(&mut Process) -> Result<T>) -> Result<Vec<T>> {
        let done: Result<Vec<T>> = self.processes.iter_mut().map(step).collect();
        done.map_err(|error| match self.told() {
            Some(failed) => failed.into(),
            None => error,
        })
    }

    /// Waits for the end of all processes; what those that failed have said.
    fn told(&mut self) -> Option<Failed> {
        // All pipes close before any process is waited for: each may wait for a request, for room
        // for an answer, or for another process that does.
        let processes = std::mem::take(&mut self.processes).into_iter();
        let children: Vec<Child> = processes.map(|process| process.child).collect();
        let ends = children.into_iter().enumerate();
        let mut ends: Vec<End> = ends.filter_map(|(rank, child)| end(rank, child)).collect();
        // Who only misses the others does not know the cause.
        if ends.iter().any(|end| !end.text.contains(pipe::GONE)) {
            ends.retain(|end| !end.text.contains(pipe::GONE));
        }
        let texts: Vec<&str> = ends.iter().map(|end| end.text.as_str()).collect();
        (!ends.is_empty()).then(|| Failed {
            bad_input: ends.iter().all(|end| end.bad_input),
            text: texts.join("; "),
        })
    }
}

impl Process {
    fn start(args: &Args, place: &Place, rank: u8) -> Result<Self> {
        // What was chosen here, not to be chosen again.
        let device = if place.is_host() { "host" } else { "cuda" };
        let mut command = Command::new(std::env::current_exe().context("this program")?);
        command.arg("verify").args(["--device", device]);
        command.args(["--world", &args.world.to_string()]);
        command.args(["--path", args.path.name()]);
        command.args(["--rows", &args.rows.to_string()]);
        command.args(["--rank", &rank.to_string()]);
        command.arg("--").args(&args.paths);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pipes
            .stderr(Stdio::piped())
            .spawn()
            .context("a process for a rank")?;
        Ok(Process {
            requests: child.stdin.take().context("a pipe to a rank")?,
            answers: child.stdout.take().context("a pipe from a rank")?,
            child,
        })
    }
}

/// How a process ended that failed.
struct End {
    bad_input: bool,
    text: String,
}

/// Waits for the end of a process; nothing if it was a good one.
fn end(rank: usize, mut child: Child) -> Option<End> {
    let mut text = String::new();
    if let Some(mut error) = child.stderr.take() {
        // What it has said is of use, what cannot be read is not.
        let _ = error.read_to_string(&mut text);
    }
    let (bad_input, status) = match child.wait() {
        Ok(status) if status.success() => return None,
        Ok(status) => (status.code() == Some(2), status.to_string()),
        Err(error) => (false, error.to_string()),
    };
    let said = text.trim().trim_start_matches("error: ");
    let said = if said.is_empty() { &status } else { said };
    let text = format!("rank {rank}: {said}");
    Some(End { bad_input, text })
}

/// Processes of ranks that failed.
#[derive(Debug)]
pub struct Failed {
    /// Whether all of them blame the input.
    pub bad_input: bool,
    text: String,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failed {}
