//! A thread per rank, and phases in which all of them call.
//!
//! Ranks that share a GPU must not allocate, copy, load or free while one of them is in a
//! collective call: such work may wait for the device, that is for a kernel that waits for a rank
//! whose own kernel is not enqueued yet. So all calls are made in [`Worker::collective`], before
//! and after which all ranks meet, and everything else outside of it.

use super::gate::{Gate, OTHER_FAILED};
use super::memory::Memory;
use super::Platform;
use std::any::Any;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use trellink::{Group, Rank};

/// One rank on its thread.
pub struct Worker<'a> {
    pub rank: Rank,
    pub memory: Box<dyn Memory>,
    gate: &'a Gate,
    shared: &'a Mutex<Option<Arc<dyn Any + Send + Sync>>>,
}

impl Worker<'_> {
    /// A phase in which every rank makes its calls, all run when this returns. All ranks are to be
    /// here. Panics if the group has failed.
    pub fn collective<T>(&mut self, calls: impl FnOnce(&mut Rank, &dyn Memory) -> T) -> T {
        let result = self.phase(calls);
        if let Err(error) = self.rank.check() {
            panic!("rank {}: {error}", self.rank.rank());
        }
        result
    }

    /// The same for calls that may fail.
    pub fn phase<T>(&mut self, calls: impl FnOnce(&mut Rank, &dyn Memory) -> T) -> T {
        self.gate.pass();
        let result = calls(&mut self.rank, &*self.memory);
        self.memory.synchronize();
        self.gate.pass();
        result
    }

    /// What rank 0 passes; all ranks are to be here.
    pub fn value_of_rank_0<T: Any + Send + Sync>(&self, value: T) -> Arc<T> {
        if self.rank.rank() == 0 {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            *shared = Some(Arc::new(value));
        }
        self.gate.pass();
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let value = shared.clone().expect("set by rank 0");
        drop(shared);
        // Nobody may pass the next value before everyone has this one.
        self.gate.pass();
        value.downcast().expect("all ranks pass the same type")
    }
}

/// Builds the group and runs `body` on a thread per rank; results in rank order.
///
/// A panic of one rank ends the others where they next meet and is passed on.
pub fn on_ranks<T: Send>(
    platform: &Platform,
    group: Group,
    body: impl Fn(&mut Worker<'_>) -> T + Sync,
) -> Vec<T> {
    let ranks = group.build().unwrap();
    let gate = Gate::new(ranks.len());
    let shared = Mutex::new(None);
    let run = |rank: Rank| {
        let _break_on_panic = gate.guard();
        let mut worker = Worker {
            memory: platform.memory(&rank),
            rank,
            gate: &gate,
            shared: &shared,
        };
        gate.pass();
        let result = body(&mut worker);
        gate.pass();
        result
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let run = &run;
        let spawn = |rank| scope.spawn(move || run(rank));
        let threads: Vec<_> = ranks.into_iter().map(spawn).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let mut done = Vec::new();
    let mut failure = None;
    for result in results {
        match result {
            Ok(value) => done.push(value),
            // The panic that explains the others goes first.
            Err(panic) => match panic.downcast_ref::<&str>() {
                Some(&OTHER_FAILED) => {}
                _ => failure = failure.or(Some(panic)),
            },
        }
    }
    if let Some(panic) = failure {
        resume_unwind(panic);
    }
    done
}
