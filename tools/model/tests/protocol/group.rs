//! A group of ranks in loom's threads, and what must hold in every execution.

use crate::memory::{Arena, Fault, View};
use loom::sync::atomic::{AtomicBool, Ordering};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool as StdAtomicBool, AtomicUsize};
use std::sync::Arc;
use std::time::Duration;
use trellink::protocol::{ArenaLayout, Endpoint, Epoch, GiveUp, Wait, WaitFailure, SCRUB_PERIOD};

/// The smallest slot there is. Only its first value is exchanged, unless a case says otherwise.
const SLOT_VALUES: usize = 2;

/// Failed polls after everybody has sent, or after an abort, that prove a wait endless. Loom never
/// returns the same old value again after a yield if there is a newer one.
const ENDLESS: u32 = 10;

/// One group to check.
#[derive(Clone)]
pub struct Case {
    /// Ranks.
    pub world: usize,
    /// Calls that every rank makes.
    pub calls: usize,
    /// Epoch of the first call.
    pub first_epoch: u32,
    /// Calls between two scrubs of the same half.
    pub scrub_period: u32,
    /// Values that every rank pushes and those that it collects, by call.
    pub lengths: fn(usize) -> (usize, usize),
    /// What a rank calls, by rank and call. From a call on in which ranks differ, none gets a sum.
    pub operations: fn(usize, usize) -> u16,
    /// Somebody aborts the group, at any moment.
    pub aborted: bool,
    /// The last rank leaves for good before this call.
    pub leaves_before: Option<usize>,
    /// Failed polls of one packet, before everybody has sent, that an execution may hold.
    ///
    /// Two of three ranks can take turns at polling for ever while the third is runnable, and loom
    /// would follow them: it bounds preemptions, and a yield is none. Such an execution is cut
    /// off. As a failed poll changes nothing, the same happens with fewer of them in another.
    ///
    /// No deadlock hides in that. A wait for packets that everybody has sent is not cut off, and
    /// in a deadlock the rank that has made the fewest calls waits for such packets.
    pub vain_polls: u32,
    /// What the ranks do wrong.
    pub faults: &'static [Fault],
    /// Preemptions per execution.
    pub preemptions: usize,
}

impl Case {
    /// A group without scrub, abort or fault that begins shortly before the epochs wrap.
    pub fn new(world: usize, calls: usize) -> Self {
        Case {
            world,
            calls,
            first_epoch: u32::MAX - 1,
            scrub_period: SCRUB_PERIOD,
            lengths: |_| (1, 1),
            operations: |_, _| 0,
            aborted: false,
            leaves_before: None,
            vain_polls: if world == 2 { 3 } else { 1 },
            faults: &[],
            preemptions: 2,
        }
    }

    /// Runs every execution within the bound. Panics at the first in which a rank fails or
    /// obtains a wrong sum.
    pub fn check(self) -> Seen {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(self.preemptions);
        builder.max_branches = 20_000;
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        builder.check(move || self.execute(&shared));
        Arc::into_inner(seen).expect("the model is over")
    }

    fn execute(&self, seen: &Arc<Seen>) {
        seen.executions.fetch_add(1, STD);
        let layout = ArenaLayout::new(self.world, SLOT_VALUES).unwrap();
        let first = Epoch::new(self.first_epoch);
        let arenas: Vec<_> = (0..self.world)
            .map(|_| Arena::new(&layout, first, self.faults))
            .collect();
        let abort = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(Progress::new(self.world));
        let mut ranks = (0..self.world).map(|rank| {
            let views = arenas.iter();
            let views = views.map(|arena| View::new(arena.clone(), first, self.faults));
            let endpoint = Endpoint::new(rank, layout, views.collect(), first).unwrap();
            Rank {
                endpoint: endpoint.with_scrub_period(self.scrub_period),
                case: self.clone(),
                abort: abort.clone(),
                progress: progress.clone(),
                seen: seen.clone(),
            }
        });
        // The first rank is this thread: one fewer to schedule.
        let first_rank = ranks.next().expect("a group has ranks");
        let mut threads: Vec<_> = ranks
            .map(|rank| loom::thread::spawn(move || rank.run()))
            .collect();
        if self.aborted {
            let (abort, progress) = (abort.clone(), progress.clone());
            // Relaxed, as in production: the flag publishes nothing but itself.
            threads.push(loom::thread::spawn(move || {
                abort.store(true, Ordering::Relaxed);
                progress.aborted.store(true, STD);
            }));
        }
        first_rank.run();
        for thread in threads {
            thread.join().unwrap();
        }
        seen.cut_off
            .fetch_add(progress.cut_off.load(STD) as usize, STD);
    }
}

/// Outside the model: what happened is counted with std's atomics, which loom does not see.
const STD: std::sync::atomic::Ordering = std::sync::atomic::Ordering::Relaxed;

/// What occurred in any execution, to show that a claim is not empty.
#[derive(Default, Debug)]
pub struct Seen {
    /// Executions.
    pub executions: AtomicUsize,
    /// Those that were cut off because ranks polled in turns for too long.
    pub cut_off: AtomicUsize,
    /// The most calls by which one rank was ahead of another when it pushed.
    pub skew: AtomicUsize,
    /// Ranks that an abort ended.
    pub ended: AtomicUsize,
    /// Ranks that found that another called something else.
    pub mismatches: AtomicUsize,
    /// Ranks that made all their calls.
    pub finished: AtomicUsize,
}

/// What has been executed so far, whoever knows of it.
struct Progress {
    /// By rank, the calls that it has begun.
    begun: Vec<AtomicUsize>,
    /// By rank, the calls for which it has sent everything.
    sent: Vec<AtomicUsize>,
    aborted: StdAtomicBool,
    cut_off: StdAtomicBool,
}

impl Progress {
    fn new(world: usize) -> Self {
        Progress {
            begun: (0..world).map(|_| AtomicUsize::new(0)).collect(),
            sent: (0..world).map(|_| AtomicUsize::new(0)).collect(),
            aborted: StdAtomicBool::new(false),
            cut_off: StdAtomicBool::new(false),
        }
    }

    /// Notes that `rank` begins `call`; returns by how much it is ahead of the last.
    fn begin(&self, rank: usize, call: usize) -> usize {
        self.begun[rank].store(call + 1, STD);
        let begun = self.begun.iter().map(|calls| calls.load(STD));
        call + 1 - begun.min().expect("a group has ranks")
    }

    /// Calls for which every rank has sent everything.
    fn sent_by_all(&self) -> usize {
        let sent = self.sent.iter().map(|calls| calls.load(STD));
        sent.min().expect("a group has ranks")
    }
}

/// A wait without a clock, in one call of one rank.
struct ModelWait<'a> {
    rank: &'a Rank,
    call: usize,
    /// Failed polls since the wait should have ended.
    late: Cell<u32>,
}

impl Wait for ModelWait<'_> {
    fn pause(&self, polls: u32) -> Result<(), GiveUp> {
        // Relaxed, as in production: being late by a poll does no harm.
        if self.rank.abort.load(Ordering::Relaxed) {
            return Err(GiveUp::Aborted);
        }
        let progress = &self.rank.progress;
        if progress.sent_by_all() > self.call || progress.aborted.load(STD) {
            self.late.set(self.late.get() + 1);
            if self.late.get() > ENDLESS {
                let waited = Duration::ZERO;
                return Err(GiveUp::TimedOut { waited });
            }
        } else {
            if polls > self.rank.case.vain_polls {
                progress.cut_off.store(true, STD);
            }
            if progress.cut_off.load(STD) {
                return Err(GiveUp::Aborted);
            }
        }
        loom::thread::yield_now();
        Ok(())
    }
}

struct Rank {
    endpoint: Endpoint<View>,
    case: Case,
    abort: Arc<AtomicBool>,
    progress: Arc<Progress>,
    seen: Arc<Seen>,
}

impl Rank {
    fn run(mut self) {
        let (rank, world) = (self.endpoint.rank(), self.case.world);
        for call in 0..self.case.calls {
            if rank + 1 == world && self.case.leaves_before == Some(call) {
                return;
            }
            let (pushed, collected) = (self.case.lengths)(call);
            let values: Vec<_> = (0..pushed)
                .map(|i| contribution(world, rank, call, i))
                .collect();
            self.seen
                .skew
                .fetch_max(self.progress.begin(rank, call), STD);
            self.endpoint.begin((self.case.operations)(rank, call));
            self.endpoint.push(0, &values);
            self.progress.sent[rank].store(call + 1, STD);
            let mut sums = vec![f32::NAN; collected];
            let wait = ModelWait {
                rank: &self,
                call,
                late: Cell::new(0),
            };
            match self.endpoint.collect(0, &mut sums, &wait) {
                Ok(()) => {}
                Err(WaitFailure::Aborted) => {
                    if !self.progress.cut_off.load(STD) {
                        self.seen.ended.fetch_add(1, STD);
                    }
                    return;
                }
                // It stops the group, as in production.
                Err(WaitFailure::Mismatch { .. }) if !self.same_operation(call) => {
                    self.seen.mismatches.fetch_add(1, STD);
                    self.abort.store(true, Ordering::Relaxed);
                    self.progress.aborted.store(true, STD);
                    return;
                }
                Err(WaitFailure::TimedOut { peer, .. }) => {
                    panic!("endless wait for rank {peer} at rank {rank} in call {call}")
                }
                Err(failure) => panic!("{failure:?} at rank {rank} in call {call}"),
            }
            assert!(
                self.same_operation(call),
                "wrong sum of different operations at rank {rank} in call {call}"
            );
            for (i, sum) in sums.into_iter().enumerate() {
                let want: f32 = (0..world)
                    .map(|peer| contribution(world, peer, call, i))
                    .sum();
                assert_eq!(sum, want, "wrong sum {i} at rank {rank} in call {call}");
            }
            self.endpoint.advance();
        }
        self.seen.finished.fetch_add(1, STD);
    }

    fn same_operation(&self, call: usize) -> bool {
        let operation = |rank| (self.case.operations)(rank, call);
        (1..self.case.world).all(|rank| operation(rank) == operation(0))
    }
}

/// A power of two of its own for every value of a group, so that a sum tells what is in it.
fn contribution(world: usize, rank: usize, call: usize, value: usize) -> f32 {
    2f32.powi(((call * world + rank) * SLOT_VALUES + value) as i32)
}
