//! What a soak does, as its seed decides: the same on all ranks, and each round without those before it.
//!
//! A round is the life of a group. It has several batches; in each, some operations are made and some
//! dropped, then the ranks make calls of those that are there, one after the other.

use super::task::Task;
use crate::random::seeded;
use rand::rngs::StdRng;
use rand::Rng;
use std::ops::Range;
use std::time::Duration;

/// Operations and graphs that there are at a time, at most.
const OPERATIONS: usize = 6;
const GRAPHS: usize = 3;

/// The life of a group.
#[derive(Debug)]
pub struct Round {
    /// From 0.
    pub number: u64,
    /// How the group is built.
    pub group: GroupPlan,
    /// All operations of the round.
    pub tasks: Vec<Task>,
    /// All graphs of the round: the operations that each replays.
    pub graphs: Vec<Vec<usize>>,
    /// What happens, in this order.
    pub batches: Vec<Batch>,
}

/// The settings of a group.
#[derive(Clone, Copy, Debug)]
pub struct GroupPlan {
    /// Small ones make an operation take many exchanges.
    pub slot_values: usize,
    /// Some are just ahead of the wrap.
    pub first_epoch: u32,
    /// Calls between two renewals of an arena's tags.
    pub scrub_period: u32,
}

/// Calls between two comparisons.
#[derive(Debug)]
pub struct Batch {
    /// Operations that are dropped before it, and with them the graphs that replay them.
    pub dropped: Vec<usize>,
    /// Operations that are made before it.
    pub made: Range<usize>,
    /// Graphs that are captured before it.
    pub captured: Range<usize>,
    /// Its calls.
    pub steps: Vec<Step>,
    /// The failure after it, if there is one.
    pub failure: Option<Provocation>,
}

/// One call, or the calls of a graph.
#[derive(Debug)]
pub struct Step {
    /// Which.
    pub what: What,
    /// By rank, before it.
    pub delays: Vec<Delay>,
}

/// What a step calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// An operation.
    Call(usize),
    /// All operations of a graph.
    Replay(usize),
}

/// What holds a rank up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delay {
    /// Its thread sleeps.
    pub host: Duration,
    /// So many megabytes are overwritten on its stream.
    pub device_mb: u32,
}

/// A rank that does not do its part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Provocation {
    /// The rank.
    pub victim: usize,
    /// Whether it drops its rank instead of just not calling.
    pub leaves: bool,
    /// What the others call.
    pub operation: usize,
}

impl Round {
    /// Round `number` of a run of `world` ranks.
    pub fn new(seed: u64, number: u64, world: usize) -> Self {
        let mut random = seeded(seed, number);
        // The first has failures, so that a short run sees some, too.
        let fails = world > 1 && (number == 0 || random.random_bool(0.4));
        let group = GroupPlan::random(&mut random);
        let mut draft = Draft {
            world,
            slot_values: group.slot_values,
            random,
            tasks: Vec::new(),
            graphs: Vec::new(),
            alive: Vec::new(),
            replayable: Vec::new(),
        };
        let batches = draft.random.random_range(3..=6);
        let batches = (0..batches).map(|_| draft.batch(fails)).collect();
        Round {
            number,
            group,
            tasks: draft.tasks,
            graphs: draft.graphs,
            batches,
        }
    }
}

impl GroupPlan {
    fn random(random: &mut StdRng) -> Self {
        let slots = [256, 1024, 4096, 16_384, 65_536];
        let first_epoch = match random.random_bool(0.5) {
            true => 1,
            false => u32::MAX - random.random_range(0..400),
        };
        GroupPlan {
            slot_values: slots[random.random_range(0..slots.len())],
            first_epoch,
            scrub_period: 1 << random.random_range(3..12),
        }
    }
}

/// A round while it is being thought out.
struct Draft {
    world: usize,
    slot_values: usize,
    random: StdRng,
    tasks: Vec<Task>,
    graphs: Vec<Vec<usize>>,
    /// Operations and graphs that there are.
    alive: Vec<usize>,
    replayable: Vec<usize>,
}

impl Draft {
    fn batch(&mut self, may_fail: bool) -> Batch {
        let dropped = self.drop_some();
        let made = self.make_some();
        let captured = self.capture_some();
        let laggard = self
            .random
            .random_bool(0.3)
            .then(|| self.random.random_range(0..self.world));
        let steps = self.random.random_range(8..=40);
        let steps = (0..steps).map(|_| self.step(laggard)).collect();
        let failure = (may_fail && self.random.random_bool(0.5)).then(|| self.provocation());
        Batch {
            dropped,
            made,
            captured,
            steps,
            failure: failure.flatten(),
        }
    }

    fn drop_some(&mut self) -> Vec<usize> {
        let (random, mut dropped) = (&mut self.random, Vec::new());
        self.alive.retain(|&operation| {
            let stays = random.random_bool(0.7);
            if !stays {
                dropped.push(operation);
            }
            stays
        });
        let graphs = &self.graphs;
        self.replayable
            .retain(|&graph| graphs[graph].iter().all(|held| !dropped.contains(held)));
        dropped
    }

    fn make_some(&mut self) -> Range<usize> {
        let first = self.tasks.len();
        let wanted = self.random.random_range(2..=OPERATIONS);
        while self.alive.len() < wanted {
            self.alive.push(self.tasks.len());
            let task = Task::random(&mut self.random, self.world, self.slot_values);
            self.tasks.push(task);
        }
        first..self.tasks.len()
    }

    fn capture_some(&mut self) -> Range<usize> {
        let first = self.graphs.len();
        while self.replayable.len() < GRAPHS && self.random.random_bool(0.7) {
            let calls = self.random.random_range(1..=4);
            let calls = (0..calls).map(|_| self.any_operation()).collect();
            self.replayable.push(self.graphs.len());
            self.graphs.push(calls);
        }
        first..self.graphs.len()
    }

    fn any_operation(&mut self) -> usize {
        self.alive[self.random.random_range(0..self.alive.len())]
    }

    fn step(&mut self, laggard: Option<usize>) -> Step {
        let replays = !self.replayable.is_empty() && self.random.random_bool(0.4);
        let what = match replays {
            true => {
                let at = self.random.random_range(0..self.replayable.len());
                What::Replay(self.replayable[at])
            }
            false => What::Call(self.any_operation()),
        };
        let delays = (0..self.world).map(|rank| self.delay(laggard == Some(rank)));
        Step {
            what,
            delays: delays.collect(),
        }
    }

    fn delay(&mut self, lags: bool) -> Delay {
        let random = &mut self.random;
        let mut us = match random.random_range(0..100) {
            0..75 => 0,
            75..97 => random.random_range(0..300),
            _ => random.random_range(0..5000),
        };
        if lags {
            us += random.random_range(200..2000);
        }
        Delay {
            host: Duration::from_micros(us),
            device_mb: match random.random_bool(0.2) {
                true => random.random_range(1..1000),
                false => 0,
            },
        }
    }

    /// Of an operation in which the ranks wait for one another, if there is one.
    fn provocation(&mut self) -> Option<Provocation> {
        let collective = |&&at: &&usize| self.tasks[at].exchanges_something();
        let collective: Vec<usize> = self.alive.iter().filter(collective).copied().collect();
        if collective.is_empty() {
            return None;
        }
        Some(Provocation {
            victim: self.random.random_range(0..self.world),
            leaves: self.random.random_bool(0.3),
            operation: collective[self.random.random_range(0..collective.len())],
        })
    }
}

impl Delay {
    /// Holds the calling thread up.
    pub fn sleep(&self) {
        if !self.host.is_zero() {
            std::thread::sleep(self.host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_follows_from_the_seed_and_its_number_alone() {
        let text = |seed, number| format!("{:?}", Round::new(seed, number, 3));
        assert_eq!(text(1, 5), text(1, 5));
        assert_ne!(text(1, 5), text(1, 6));
        assert_ne!(text(1, 5), text(2, 5));
    }

    #[test]
    fn steps_and_failures_name_only_what_is_there() {
        for (number, world) in (0..200).zip((1..=8).cycle()) {
            let round = Round::new(7, number, world);
            let mut alive: Vec<usize> = Vec::new();
            let mut graphs: Vec<usize> = Vec::new();
            for batch in &round.batches {
                alive.retain(|at| !batch.dropped.contains(at));
                alive.extend(batch.made.clone());
                graphs.extend(batch.captured.clone());
                graphs.retain(|&at| round.graphs[at].iter().all(|held| alive.contains(held)));
                for step in &batch.steps {
                    assert_eq!(step.delays.len(), world);
                    match step.what {
                        What::Call(at) => assert!(alive.contains(&at)),
                        What::Replay(at) => assert!(graphs.contains(&at)),
                    }
                }
                if let Some(failure) = batch.failure {
                    assert!(alive.contains(&failure.operation) && failure.victim < world);
                    assert!(round.tasks[failure.operation].exchanges_something());
                }
            }
        }
    }

    #[test]
    fn a_single_rank_provokes_nothing_and_several_soon_do() {
        let failures = |world, rounds: Range<u64>| -> usize {
            let rounds = rounds.map(|number| Round::new(3, number, world));
            let of_round =
                |round: Round| round.batches.iter().filter(|b| b.failure.is_some()).count();
            rounds.map(of_round).sum()
        };
        assert_eq!(failures(1, 0..50), 0);
        assert!(failures(2, 0..10) > 0);
    }
}
