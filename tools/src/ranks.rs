//! The ranks of one or several groups at work, each on a thread of its own.
//!
//! What must stay true: memory of a device is allocated and freed while no rank waits for another.
//! Either may wait for everything that runs on the device, also for a rank that waits for the one
//! that allocates. So a call takes three steps, and each ends on all ranks before the next begins:
//! prepare, run, drop.

use crate::processes::steps;
use anyhow::Result;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use trellink::{Group, Rank, Stream};

/// Where a rank's tensors are and its calls are enqueued.
pub enum Lane {
    /// The calling thread and its memory.
    Host,
    /// A stream of the rank's own.
    #[cfg(feature = "cuda")]
    Cuda(std::sync::Arc<cudarc::driver::CudaStream>),
}

impl Lane {
    /// The stream of a call.
    pub fn stream(&self) -> Stream<'_> {
        match self {
            Lane::Host => Stream::host(),
            #[cfg(feature = "cuda")]
            Lane::Cuda(stream) => Stream::from(stream),
        }
    }

    /// The lane of a rank.
    pub fn of(rank: &Rank) -> Result<Self> {
        match rank.device() {
            trellink::Device::Host => Ok(Lane::Host),
            #[cfg(feature = "cuda")]
            trellink::Device::Cuda(ordinal) => cuda_lane(ordinal),
            #[cfg(not(feature = "cuda"))]
            trellink::Device::Cuda(_) => anyhow::bail!("{}: no `cuda` feature", rank.device()),
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda_lane(ordinal: usize) -> Result<Lane> {
    use crate::tensor::driver;
    let context = driver(
        "cuDevicePrimaryCtxRetain",
        cudarc::driver::CudaContext::new(ordinal),
    )?;
    // SAFETY: every slice of this context object is made, used and freed on the one stream made
    // here, so that the stream orders all accesses. Tracking would put events of the time before a
    // capture into the captured graph.
    unsafe { context.disable_event_tracking() };
    hold_context(ordinal)?;
    Ok(Lane::Cuda(driver("cuStreamCreate", context.new_stream())?))
}

/// Holds a device's context until the program ends. One that nobody holds is made anew for every group, which takes
/// seconds.
#[cfg(feature = "cuda")]
fn hold_context(ordinal: usize) -> Result<()> {
    use cudarc::driver::CudaContext;
    use std::sync::{Arc, Mutex, PoisonError};
    static HELD: Mutex<Vec<Arc<CudaContext>>> = Mutex::new(Vec::new());
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if held.iter().all(|context| context.ordinal() != ordinal) {
        let context = CudaContext::new(ordinal);
        held.push(crate::tensor::driver("cuDevicePrimaryCtxRetain", context)?);
    }
    Ok(())
}

/// A rank and its lane.
pub struct Worker {
    /// The rank.
    pub rank: Rank,
    /// Where its tensors and calls go.
    pub lane: Lane,
}

impl Worker {
    /// Waits until everything enqueued has run.
    ///
    /// # Errors
    /// The group's first failure: what has run since the last check is not valid.
    pub fn finish(&self) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Lane::Cuda(stream) = &self.lane {
            crate::tensor::driver("cuStreamSynchronize", stream.synchronize())?;
        }
        Ok(self.rank.check()?)
    }
}

/// Ranks that work at the same time.
pub struct Crew {
    workers: Vec<Worker>,
    /// Whether other processes take the same steps with theirs.
    is_part: bool,
}

impl Crew {
    /// The ranks of one group.
    pub fn build(group: Group) -> Result<Self> {
        Self::of(group.build()?)
    }

    /// These ranks, which may belong to several groups.
    pub fn of(ranks: Vec<Rank>) -> Result<Self> {
        let worker = |rank| {
            Ok(Worker {
                lane: Lane::of(&rank)?,
                rank,
            })
        };
        let workers = ranks.into_iter().map(worker).collect::<Result<_>>()?;
        Ok(Crew {
            workers,
            is_part: false,
        })
    }

    /// The rank of this process, or none, in a crew of several processes: its steps end when those of the
    /// others do.
    pub fn part(rank: Option<Rank>) -> Result<Self> {
        Ok(Crew {
            is_part: true,
            ..Self::of(rank.into_iter().collect())?
        })
    }

    /// Number of ranks.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Runs `step` for every rank at the same time and gives the results in rank order.
    ///
    /// # Errors
    /// The first cause among the ranks' errors.
    pub fn each<T: Send>(
        &mut self,
        step: impl Fn(usize, &mut Worker) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let mut nothing = vec![(); self.len()];
        self.each_with(&mut nothing, |at, worker, ()| step(at, worker))
    }

    /// [`each`](Self::each), with what an earlier step has made for each rank.
    ///
    /// # Errors
    /// As [`each`](Self::each).
    pub fn each_with<S: Send, T: Send>(
        &mut self,
        states: &mut [S],
        step: impl Fn(usize, &mut Worker, &mut S) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        self.together(states, |at, worker, state, _| step(at, worker, state))
    }

    /// [`each_with`](Self::each_with), with a gate at which the ranks can wait for one another.
    ///
    /// # Errors
    /// As [`each`](Self::each).
    pub fn together<S: Send, T: Send>(
        &mut self,
        states: &mut [S],
        step: impl Fn(usize, &mut Worker, &mut S, &Gate) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let gate = Gate::new(self.len(), self.is_part);
        let (gate, step) = (&gate, &step);
        let results: Vec<Result<T>> = std::thread::scope(|scope| {
            let workers = self.workers.iter_mut().zip(states).enumerate();
            let threads: Vec<_> = workers
                .map(|(at, (worker, state))| {
                    scope.spawn(move || gate.guard(|| step(at, worker, state, gate)))
                })
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .map(|end| end.unwrap_or_else(|_| Err(Stopped::Panic.into())))
                .collect()
        });
        let values = first_cause(results)?;
        if self.is_part {
            steps::end_step()?;
        }
        Ok(values)
    }
}

/// All values, or the error that is most likely the cause of the others.
fn first_cause<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    let mut values = Vec::with_capacity(results.len());
    let mut causes: Vec<(u8, anyhow::Error)> = Vec::new();
    for (rank, result) in results.into_iter().enumerate() {
        match result {
            Ok(value) => values.push(value),
            Err(error) => causes.push((distance(&error), error.context(format!("rank {rank}")))),
        }
    }
    match causes.into_iter().min_by_key(|(distance, _)| *distance) {
        None => Ok(values),
        Some((_, error)) => Err(error),
    }
}

/// How far an error is from the cause of a failure: a rank that fails lets its peers wait, and
/// their errors only say so.
fn distance(error: &anyhow::Error) -> u8 {
    if error.is::<Stopped>() {
        return 3;
    }
    match error.downcast_ref::<trellink::Error>() {
        Some(trellink::Error::GroupFailed { .. }) => 2,
        Some(trellink::Error::PeerTimeout { .. } | trellink::Error::PeerLost { .. }) => 1,
        _ => 0,
    }
}

/// A rank that ended without an error of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// Its thread panicked.
    Panic,
    /// Another rank failed while it waited at the gate.
    Gate,
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stopped::Panic => "the thread panicked",
            Stopped::Gate => "another rank failed",
        })
    }
}

impl std::error::Error for Stopped {}

/// A barrier that threads leave within a microsecond of one another, processes within some ten, and that opens with an error
/// when one of them will never come.
pub struct Gate {
    ranks: usize,
    arrivals: AtomicUsize,
    broken: AtomicBool,
    /// Whether the others are in other processes.
    is_part: bool,
}

impl Gate {
    fn new(ranks: usize, is_part: bool) -> Self {
        Gate {
            ranks,
            is_part,
            arrivals: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// Waits until every rank has come as often as this one.
    ///
    /// # Errors
    /// [`Stopped::Gate`] if a rank has failed.
    pub fn wait(&self) -> Result<(), Stopped> {
        if self.is_part {
            return steps::gate().map_err(|_| Stopped::Gate);
        }
        // AcqRel here and Acquire below: what a rank did before it came is seen by all who leave.
        let round = self.arrivals.fetch_add(1, Ordering::AcqRel) / self.ranks;
        let mut polls = 0u32;
        while self.arrivals.load(Ordering::Acquire) < (round + 1) * self.ranks {
            if self.broken.load(Ordering::Relaxed) {
                return Err(Stopped::Gate);
            }
            polls += 1;
            // Spinning is what makes ranks leave together; with fewer cores than ranks it must end.
            if polls < 20_000 {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Runs a rank's step; whoever waits for a rank that fails or panics is let go.
    fn guard<T>(&self, step: impl FnOnce() -> Result<T>) -> Result<T> {
        struct Break<'a>(&'a AtomicBool);
        impl Drop for Break<'_> {
            fn drop(&mut self) {
                // Relaxed: it publishes nothing but itself.
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let on_failure = Break(&self.broken);
        let value = step()?;
        std::mem::forget(on_failure);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn a_failing_rank_is_named_and_stops_those_who_wait_for_it() {
        let mut crew = Crew::build(Group::on_host(3).slot_values(128)).unwrap();
        let mut states = [0; 3];
        let results = crew.together(&mut states, |at, _, _, gate| {
            gate.wait()?;
            if at == 1 {
                bail!("out of paper");
            }
            Ok(gate.wait()?)
        });
        assert_eq!(
            format!("{:#}", results.unwrap_err()),
            "rank 1: out of paper"
        );
    }

    #[test]
    fn a_gate_can_be_passed_many_times() {
        let mut crew = Crew::build(Group::on_host(2).slot_values(128)).unwrap();
        let rounds = AtomicUsize::new(0);
        let passed = crew.together(&mut [(), ()], |_, _, (), gate| {
            for round in 0..100 {
                gate.wait()?;
                assert!(rounds.load(Ordering::SeqCst) >= 2 * round);
                rounds.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        assert_eq!(passed.unwrap().len(), 2);
    }
}
