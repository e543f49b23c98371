//! Ranks in processes of their own: this program once more for each, which it talks to through pipes.
//!
//! What must stay true: processes end when the program does, since their pipes close; and the ranks'
//! groups come together through the same pipes, in which the program passes their bytes around.

mod child;
pub mod frame;
pub mod steps;

pub use child::{join, join_with};

use anyhow::{Context as _, Result};
use std::io::Read as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The processes, in rank order.
pub struct Processes {
    processes: Vec<Process>,
}

/// One of them, with its pipes.
pub struct Process {
    child: Child,
    /// What it is asked for goes in here.
    pub requests: ChildStdin,
    /// And its answers come out here.
    pub answers: ChildStdout,
}

impl Processes {
    /// Starts this program once for each rank, with the arguments that `arguments` adds for it.
    pub fn start(world: usize, arguments: impl Fn(&mut Command, usize)) -> Result<Self> {
        let mut all = Processes {
            processes: Vec::new(),
        };
        for rank in 0..world {
            let mut command = Command::new(std::env::current_exe().context("this program")?);
            arguments(&mut command, rank);
            all.processes.push(Process::start(command)?);
        }
        Ok(all)
    }

    /// Passes the ranks' bytes around, so that all of them can [`join`] a group.
    pub fn meet(&mut self) -> Result<()> {
        if self.processes.len() == 1 {
            return Ok(()); // A single rank has nobody to meet, and says nothing.
        }
        let addresses = self.each(|process| frame::read(&mut process.answers))?;
        for bytes in &addresses {
            self.each(|process| frame::write(&mut process.requests, bytes))?;
        }
        Ok(())
    }

    /// Does `step` with every process; on an error, what the processes say explains it best.
    pub fn each<T>(&mut self, step: impl Fn(&mut Process) -> Result<T>) -> Result<Vec<T>> {
        self.each_at(|_, process| step(process))
    }

    fn each_at<T>(
        &mut self,
        mut step: impl FnMut(usize, &mut Process) -> Result<T>,
    ) -> Result<Vec<T>> {
        let processes = self.processes.iter_mut().enumerate();
        let done: Result<Vec<T>> = processes.map(|(at, process)| step(at, process)).collect();
        done.map_err(|error| match self.told() {
            Some(failed) => failed.into(),
            None => error,
        })
    }

    /// Waits for the processes, which have nothing left to do.
    pub fn finish(mut self) -> Result<()> {
        self.told().map_or(Ok(()), |failed| Err(failed.into()))
    }

    /// The processes one by one, for who talks to each of them at any time.
    pub fn into_parts(self) -> Vec<(Child, ChildStdin, ChildStdout)> {
        let parts = |process: Process| (process.child, process.requests, process.answers);
        self.processes.into_iter().map(parts).collect()
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
        if ends.iter().any(|end| !end.text.contains(frame::GONE)) {
            ends.retain(|end| !end.text.contains(frame::GONE));
        }
        let texts: Vec<&str> = ends.iter().map(|end| end.text.as_str()).collect();
        (!ends.is_empty()).then(|| Failed {
            bad_input: ends.iter().all(|end| end.bad_input),
            text: texts.join("; "),
        })
    }
}

impl Process {
    fn start(mut command: Command) -> Result<Self> {
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
