//! One rank of a soak: goes through the plan, and looks at everything that its calls leave.
//!
//! What must stay true: memory is allocated and freed, and graphs are captured, while no rank waits for
//! another (see `ranks`); so all ranks end each step of a batch before any begins the next.

use super::delay::Brake;
use super::failure;
use super::fault::Fault;
use super::link::{End, Findings, Link};
use super::operation::{Found, Operation};
use super::plan::{Batch, GroupPlan, Round, Step, What};
use super::recording::{get, Operations, Recording};
use super::recover::join;
use super::task::Body;
use crate::ranks::{Lane, Worker};
use crate::tensor::Numbers;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::hash::Hasher as _;
use trellink::format::DType;
use trellink::{Device, ExchangePath};

/// The largest relative error (2-norm) of an output, as in `verify`.
const TOLERANCE: f64 = crate::verify::TOLERANCE;
/// Mismatches of one batch that are told one by one.
const TOLD: usize = 4;

/// What all ranks of a run have in common.
#[derive(Clone, Debug)]
pub struct Run {
    /// Of all decisions.
    pub seed: u64,
    /// The round to begin with.
    pub first_round: u64,
    /// By rank.
    pub devices: Vec<Device>,
    /// Which way packets take between them.
    pub path: ExchangePath,
    /// What is done wrong on purpose.
    pub fault: Fault,
}

/// Runs one rank until it is told to end.
pub fn run(run: &Run, link: &mut Link) -> Result<()> {
    let ended = (run.first_round..).try_for_each(|number| {
        let round = Round::new(run.seed, number, run.devices.len());
        let rank = join(link, run, &round.group)?;
        let lane = Lane::of(&rank)?;
        let mut member = Member {
            run,
            round: &round,
            link,
            brake: Brake::new(&lane)?,
            worker: Worker { rank, lane },
            recordings: BTreeMap::new(),
            operations: Operations::new(),
            findings: Findings::default(),
        };
        member.findings.counts.groups = 1;
        for (at, batch) in round.batches.iter().enumerate() {
            member = member.batch(at, batch)?;
        }
        // All ranks are gone before any builds the next group.
        let link = member.end();
        link.ready(Findings::default())
    });
    match ended {
        Ok(()) | Err(End::Stopped) => Ok(()),
        Err(End::Failed(error)) => Err(error),
    }
}

/// A rank in a round. Its fields are dropped in this order: graphs before the memory that they name.
pub struct Member<'a> {
    run: &'a Run,
    round: &'a Round,
    pub link: &'a mut Link,
    recordings: BTreeMap<usize, Recording>,
    pub operations: Operations,
    brake: Brake,
    pub worker: Worker,
    pub findings: Findings,
}

impl<'a> Member<'a> {
    /// Drops everything but the link.
    fn end(self) -> &'a mut Link {
        self.link
    }

    /// With what `change` makes of the worker.
    pub fn with_worker(
        self,
        change: impl FnOnce(&mut Link, Worker, &Run, &GroupPlan) -> Result<Worker, End>,
    ) -> Result<Self, End> {
        let worker = change(&mut *self.link, self.worker, self.run, &self.round.group)?;
        Ok(Member { worker, ..self })
    }

    fn batch(mut self, at: usize, batch: &Batch) -> Result<Self, End> {
        let (round, rank) = (self.round.number, self.worker.rank.rank());
        let name = format!("round {round}, batch {at}");
        self.link.doing(format!("{name}: preparing"))?;
        self.run.fault.stall((round, at), rank);
        self.prepare(batch)?;
        self.link.ready(Findings::default())?;

        self.make_first_calls(&name)?;
        for (at, step) in batch.steps.iter().enumerate() {
            self.step(&format!("{name}, step {at}"), step)?;
        }
        self.link.doing(format!("{name}: waiting for its calls"))?;
        self.worker.finish().context(name.clone())?;
        self.link.ready(Findings::default())?;

        self.link.doing(format!("{name}: comparing"))?;
        self.compare(&name, at)?;
        if let Some(provocation) = batch.failure {
            self = failure::provoke(self, &name, provocation)?;
        }
        self.findings.counts.batches += 1;
        self.findings.may_end = true;
        let findings = std::mem::take(&mut self.findings);
        self.link.ready(findings)?;
        Ok(self)
    }

    fn prepare(&mut self, batch: &Batch) -> Result<()> {
        let dropped = |at: &usize| batch.dropped.contains(at);
        self.recordings
            .retain(|_, recording| !recording.calls().iter().any(dropped));
        self.operations.retain(|at, _| !dropped(at));
        for at in batch.made.clone() {
            let task = &self.round.tasks[at];
            let operation = Operation::new(&self.worker, task, at);
            let operation = operation.with_context(|| task.to_string())?;
            self.operations.insert(at, operation);
        }
        for operation in self.operations.values_mut() {
            operation.rewind(&self.worker.lane)?;
        }
        self.capture(batch.captured.clone())
    }

    /// Captures graphs, without calling anything.
    pub fn capture(&mut self, graphs: impl IntoIterator<Item = usize>) -> Result<()> {
        for graph in graphs {
            let calls = &self.round.graphs[graph];
            let recording = Recording::new(&mut self.worker, &mut self.operations, calls)?;
            self.recordings.insert(graph, recording);
        }
        Ok(())
    }

    /// Drops all graphs and says which there were.
    pub fn drop_recordings(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.recordings).into_keys().collect()
    }

    fn make_first_calls(&mut self, name: &str) -> Result<()> {
        let new = self.operations.iter().filter(|(_, o)| o.is_new());
        let new: Vec<usize> = new.map(|(at, _)| *at).collect();
        new.into_iter().try_for_each(|at| {
            let operation = get(&mut self.operations, at)?;
            let name = format!("{name}: first call of {}", operation.name());
            self.link.doing(&*name)?;
            operation.call_first(&mut self.worker).context(name)?;
            self.count(at)
        })
    }

    fn step(&mut self, name: &str, step: &Step) -> Result<()> {
        let delay = step.delays[self.worker.rank.rank()];
        delay.sleep();
        self.brake.on_stream(&self.worker.lane, delay.device_mb)?;
        let Member {
            worker, operations, ..
        } = self;
        match step.what {
            What::Call(at) => {
                let operation = get(operations, at)?;
                let name = format!("{name}: {}", operation.name());
                self.link.doing(&*name)?;
                operation.call(worker).context(name)?;
                self.made(at)
            }
            What::Replay(graph) => {
                let recording = self.recordings.get(&graph);
                let recording = recording.with_context(|| format!("{name}: no graph {graph}"))?;
                let name = format!("{name}: graph {graph}, operations {:?}", recording.calls());
                self.link.doing(&*name)?;
                recording.replay(worker, operations).context(name)?;
                let calls = recording.calls().to_vec();
                self.findings.counts.replayed += calls.len() as u64;
                calls.into_iter().try_for_each(|at| self.made(at))
            }
        }
    }

    /// A call of an operation has been enqueued.
    fn made(&mut self, at: usize) -> Result<()> {
        let operation = get(&mut self.operations, at)?;
        operation.count_call();
        self.findings.counts.rms_norm += u64::from(operation.task().norm().is_some());
        self.count(at)
    }

    /// Counts a call of an operation.
    fn count(&mut self, at: usize) -> Result<()> {
        let task = get(&mut self.operations, at)?.task();
        let counts = &mut self.findings.counts;
        match task.body {
            Body::Row { .. } => counts.row_parallel += 1,
            Body::Column { .. } => counts.column_parallel += 1,
            Body::Reduce { .. } => counts.all_reduce += 1,
        }
        let on_host = matches!(self.worker.lane, Lane::Host);
        let (world, slot_values) = (self.worker.rank.world(), self.round.group.slot_values);
        counts.exchanges += task.exchanges(world, slot_values, on_host) as u64;
        Ok(())
    }

    fn compare(&mut self, name: &str, batch: usize) -> Result<()> {
        let rank = self.worker.rank.rank();
        let mut mismatches = Vec::new();
        for (number, operation) in &mut self.operations {
            for mut found in operation.found(&self.worker.lane, *number)? {
                let here = (self.round.number, batch);
                self.run.fault.corrupt(here, rank, &mut found);
                let counts = &mut self.findings.counts;
                counts.elements += found.found.values.len() as u64;
                let has_reference = found.error.is_some() || found.about.is_some();
                counts.references += u64::from(has_reference);
                let complaint = difference(&found)
                    .or_else(|| wrongly_rounded(&found))
                    .or_else(|| too_far(&found));
                let told = complaint.map(|c| format!("{name}, rank {rank}: {}: {c}", found.what));
                mismatches.extend(told);
                if found.is_shared {
                    let what = format!("{name}: {}", found.what);
                    self.findings.shared.push((what, digest(&found)));
                }
            }
        }
        let more = mismatches.len().saturating_sub(TOLD);
        mismatches.truncate(TOLD);
        if more > 0 {
            mismatches.push(format!("{name}, rank {rank}: and {more} more"));
        }
        self.findings.mismatches.extend(mismatches);
        Ok(())
    }
}

/// Where an output is not what it must be.
fn difference(found: &Found) -> Option<String> {
    let expected = found.expected.as_ref()?;
    let pairs = found.found.bits().zip(expected.bits()).enumerate();
    let mut wrong = pairs.filter(|(_, (found, expected))| found != expected);
    let (at, (got, want)) = wrong.next()?;
    let count = 1 + wrong.count();
    let (got, want) = (f32::from_bits(got), f32::from_bits(want));
    let len = expected.values.len();
    Some(format!(
        "{count} of {len} elements differ, the first at {at}: {got:e} instead of {want:e}"
    ))
}

/// Where numbers are not those that they are about, rounded.
fn wrongly_rounded(found: &Found) -> Option<String> {
    let about = found.about.as_ref()?;
    let Numbers { dtype, values } = &found.found;
    let unit_roundoff = match dtype {
        DType::F16 => 2f64.powi(-11),
        _ => 2f64.powi(-8),
    };
    // The rounding, of subnormals too, and what f32 loses before: a few units of 2^-24.
    let bound = |want: f64| (unit_roundoff + 1e-6) * want.abs() + 2f64.powi(-25);
    let pairs = values.iter().zip(about).enumerate();
    // Not `>`: a NaN is wrong.
    let is_right = |got: f32, want: f64| (f64::from(got) - want).abs() <= bound(want);
    let mut wrong = pairs.filter(|(_, (got, want))| !is_right(**got, **want));
    let (at, (got, want)) = wrong.next()?;
    let (count, len) = (1 + wrong.count(), about.len());
    Some(format!(
        "{count} of {len} elements are not rounded from the reference, the first at {at}: {got:e} for {want:e}"
    ))
}

fn too_far(found: &Found) -> Option<String> {
    let error = found.error?;
    // It is never NaN: `relative_error` makes that infinite.
    (error > TOLERANCE).then(|| format!("relative error {error:.1e} from the reference"))
}

fn digest(found: &Found) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    found.found.bits().for_each(|bits| hasher.write_u32(bits));
    hasher.finish()
}
