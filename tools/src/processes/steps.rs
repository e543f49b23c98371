//! Processes that go through the same steps, each with its rank, as the threads of a crew do.
//!
//! What must stay true: a step ends in all processes before the next begins in any, and gates within a step
//! are passed by all that are still in it at once. Results come between steps.

use super::{frame, join_with, Process, Processes};
use anyhow::{bail, ensure, Context as _, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{stdin, stdout};
use trellink::{Group, Rank};

/// From the process of a rank.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
enum Answer {
    /// It waits at a gate within a step.
    Gate,
    /// It waits at the end of a step.
    StepEnd,
    /// It wants the bytes of all.
    Address(Vec<u8>),
    /// What it has found.
    Result(Value),
    /// It has nothing left to do.
    Finished,
}

/// Waits until all others in this step are at the same gate.
pub fn gate() -> Result<()> {
    wait(&Answer::Gate)
}

/// Waits until all others have ended this step.
pub fn end_step() -> Result<()> {
    wait(&Answer::StepEnd)
}

/// Joins `group` as `rank`, as all do.
pub fn join(rank: usize, group: Group) -> Result<Rank> {
    join_with(rank, group, |bytes| {
        frame::write_value(stdout(), &Answer::Address(bytes.to_vec()))?;
        frame::read_value(stdin())
    })
}

/// Hands a result over.
pub fn result(value: &impl Serialize) -> Result<()> {
    let value = serde_json::to_value(value).context("JSON")?;
    frame::write_value(stdout(), &Answer::Result(value))
}

/// Says that there is nothing left to do.
pub fn finished() -> Result<()> {
    frame::write_value(stdout(), &Answer::Finished)
}

fn wait(answer: &Answer) -> Result<()> {
    frame::write_value(stdout(), answer)?;
    let go = frame::read(stdin())?;
    ensure!(go.is_empty(), "told {go:?} instead of to go on");
    Ok(())
}

impl Processes {
    /// Leads the processes through their steps until all have finished. `results` gets those of all ranks,
    /// as often as there are some.
    pub fn lead<T: DeserializeOwned>(
        &mut self,
        mut results: impl FnMut(Vec<T>) -> Result<()>,
    ) -> Result<()> {
        let world = self.processes.len();
        let mut found: Vec<Option<T>> = (0..world).map(|_| None).collect();
        let mut waiting: Vec<Option<Answer>> = vec![None; world];
        loop {
            self.each_at(|at, process| {
                while waiting[at].is_none() {
                    match frame::read_value(&mut process.answers)? {
                        Answer::Result(value) => {
                            found[at] = Some(serde_json::from_value(value).context("JSON")?);
                        }
                        answer => waiting[at] = Some(answer),
                    }
                }
                Ok(())
            })?;
            if found.iter().all(Option::is_some) {
                results(found.iter_mut().filter_map(Option::take).collect())?;
            }
            if all_are(&waiting, &Answer::Finished) {
                return Ok(());
            }
            self.answer(&mut waiting)?;
        }
    }

    /// Lets those go on that can.
    fn answer(&mut self, waiting: &mut [Option<Answer>]) -> Result<()> {
        let addresses = waiting.iter().map(|answer| match answer {
            Some(Answer::Address(bytes)) => Some(bytes.clone()),
            _ => None,
        });
        if let Some(addresses) = addresses.collect::<Option<Vec<_>>>() {
            waiting.fill(None);
            let tell =
                |process: &mut Process| frame::write_value(&mut process.requests, &addresses);
            return self.each(tell).map(drop);
        }
        let gate = Some(Answer::Gate);
        let may_go = match all_are(waiting, &Answer::StepEnd) {
            true => Some(Answer::StepEnd),
            false => gate,
        };
        if !waiting.contains(&may_go) {
            bail!("the ranks do not take the same steps: {waiting:?}");
        }
        self.each_at(|at, process| {
            if waiting[at] == may_go {
                waiting[at] = None;
                frame::write(&mut process.requests, &[])?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn all_are(waiting: &[Option<Answer>], answer: &Answer) -> bool {
    waiting.iter().all(|waits| waits.as_ref() == Some(answer))
}
