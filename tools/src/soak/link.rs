//! What the ranks and the supervisor say to each other, and the ranks' end of it.
//!
//! What must stay true: a rank says what it is about to do before it does anything that may take for ever.

use crate::processes::{frame, join_with};
use anyhow::{anyhow, Context as _, Result};
use serde::{Deserialize, Serialize};
use std::io::{stdin, stdout};
use std::sync::mpsc::{Receiver, Sender};
use trellink::{Group, Rank};

/// From a rank.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// What it does from now on.
    Doing(String),
    /// It waits until all ranks are as far, and has this to report.
    Ready(Box<Findings>),
    /// It wants the bytes of all ranks.
    Address(Vec<u8>),
    /// It has ended, with an error or because it was told to.
    Ended(Option<String>),
}

/// To a rank.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Go on.
    Go,
    /// End.
    Stop,
    /// The bytes of all ranks.
    Addresses(Vec<Vec<u8>>),
}

/// What a rank has found since it was last ready.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Findings {
    /// Whether this is a good moment to end.
    pub may_end: bool,
    /// What was done.
    pub counts: Counts,
    /// What all ranks must have found alike: of what, and a digest of it.
    pub shared: Vec<(String, u64)>,
    /// What was not as it must be.
    pub mismatches: Vec<String>,
    /// What happened that must not.
    pub errors: Vec<String>,
}

/// What was done.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Counts {
    /// Groups that were built.
    pub groups: u64,
    /// Calls between two comparisons.
    pub batches: u64,
    /// Calls of row-parallel layers.
    pub row_parallel: u64,
    /// Calls of column-parallel layers.
    pub column_parallel: u64,
    /// Calls of all-reduces.
    pub all_reduce: u64,
    /// Of the row-parallel calls, those that ended with an RMSNorm.
    pub rms_norm: u64,
    /// Of all calls, those that were replayed.
    pub replayed: u64,
    /// Exchanges between the ranks.
    pub exchanges: u64,
    /// Failures that were provoked.
    pub provoked: u64,
    /// Of these, those of which this rank was told as it must be.
    pub seen: u64,
    /// Elements that were compared bit for bit.
    pub elements: u64,
    /// Results that were compared with the reference in f64.
    pub references: u64,
}

/// Why a rank ends.
pub enum End {
    /// It was told to.
    Stopped,
    /// It cannot go on.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for End {
    fn from(error: E) -> Self {
        End::Failed(error.into())
    }
}

/// A rank's end.
pub enum Link {
    /// A thread of the supervisor's process.
    Thread {
        /// This rank.
        rank: usize,
        /// To the supervisor.
        events: Sender<(usize, Event)>,
        /// From it.
        orders: Receiver<Order>,
        /// How it gets to its rank of a group.
        seat: Seat,
    },
    /// A process of its own.
    Process {
        /// This rank.
        rank: usize,
    },
}

/// How threads get to their ranks: one builds the group and gives the others theirs.
pub enum Seat {
    /// Of rank 0.
    Builder(Vec<Sender<Rank>>),
    /// Of the others.
    Guest(Receiver<Rank>),
}

impl Link {
    /// Says what this rank does from now on.
    pub fn doing(&mut self, what: impl Into<String>) -> Result<()> {
        self.say(Event::Doing(what.into()))
    }

    /// Reports, and waits until all ranks are as far.
    pub fn ready(&mut self, findings: Findings) -> Result<(), End> {
        self.say(Event::Ready(Box::new(findings)))?;
        match self.order()? {
            Order::Go => Ok(()),
            Order::Stop => Err(End::Stopped),
            order => Err(anyhow!("{order:?} for a rank that was ready").into()),
        }
    }

    /// Says that this rank has ended.
    pub fn ended(&mut self, error: Option<String>) -> Result<()> {
        self.say(Event::Ended(error))
    }

    /// This rank of a new group, which all ranks build alike at the same time.
    pub fn meet(&mut self, group: Group) -> Result<Rank> {
        match self {
            Link::Process { rank } => join(*rank, group),
            Link::Thread { seat, .. } => match seat {
                Seat::Guest(ranks) => ranks.recv().context("rank 0 has built no group"),
                Seat::Builder(others) => {
                    let mut ranks = group.build()?.into_iter();
                    let own = ranks.next().context("a group without ranks")?;
                    for (other, rank) in others.iter().zip(ranks) {
                        // One that has ended needs none, and the supervisor knows.
                        let _ = other.send(rank);
                    }
                    Ok(own)
                }
            },
        }
    }

    fn say(&mut self, event: Event) -> Result<()> {
        match self {
            Link::Thread { rank, events, .. } => {
                let said = events.send((*rank, event));
                said.map_err(|_| anyhow!("the supervisor has gone"))
            }
            Link::Process { .. } => frame::write_value(stdout(), &event),
        }
    }

    fn order(&mut self) -> Result<Order> {
        match self {
            Link::Thread { orders, .. } => orders.recv().context("the supervisor has gone"),
            Link::Process { .. } => frame::read_value(stdin()),
        }
    }
}

/// In a process of its own.
fn join(rank: usize, group: Group) -> Result<Rank> {
    join_with(rank, group, |bytes| {
        frame::write_value(stdout(), &Event::Address(bytes.to_vec()))?;
        match frame::read_value(stdin())? {
            Order::Addresses(all) => Ok(all),
            order => Err(anyhow!(
                "{order:?} for a rank that wants to meet the others"
            )),
        }
    })
}

impl Counts {
    /// Adds what another batch, or another rank, has.
    pub fn add(&mut self, other: &Counts) {
        self.groups += other.groups;
        self.batches += other.batches;
        self.row_parallel += other.row_parallel;
        self.column_parallel += other.column_parallel;
        self.all_reduce += other.all_reduce;
        self.rms_norm += other.rms_norm;
        self.replayed += other.replayed;
        self.exchanges += other.exchanges;
        self.provoked += other.provoked;
        self.seen += other.seen;
        self.elements += other.elements;
        self.references += other.references;
    }

    /// All calls.
    pub fn calls(&self) -> u64 {
        self.row_parallel + self.column_parallel + self.all_reduce
    }
}
