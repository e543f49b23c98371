//! Starts the ranks, as threads or as processes.

use super::link::{Event, Link, Seat};
use super::member::{self, Run};
use super::supervisor::{Orders, Supervisor};
use super::Args;
use crate::device::Place;
use crate::failure::Outcome;
use crate::processes::{frame, Processes};
use crate::ranks::Stopped;
use anyhow::Result;
use std::io::Read as _;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::{ChildStderr, ChildStdout};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::time::Duration;
use trellink::Rank;

/// A thread for each rank. They are not joined: one that hangs must not hold up the program's end.
pub(super) fn threads(run: &Run, patience: Duration) -> Supervisor {
    let world = run.devices.len();
    let (to_supervisor, events) = channel();
    let (senders, receivers): (Vec<Sender<Rank>>, Vec<Receiver<Rank>>) =
        (1..world).map(|_| channel()).unzip();
    let guests = receivers.into_iter().map(Seat::Guest);
    let seats = std::iter::once(Seat::Builder(senders)).chain(guests);
    let start = |(rank, seat)| {
        let (orders, from_supervisor) = channel();
        let link = Link::Thread {
            rank,
            events: to_supervisor.clone(),
            orders: from_supervisor,
            seat,
        };
        let run = run.clone();
        std::thread::spawn(move || act(&run, link));
        Orders::Thread(orders)
    };
    Supervisor {
        events,
        orders: seats.enumerate().map(start).collect(),
        patience,
    }
}

/// A process for each rank.
pub(super) fn processes(
    args: &Args,
    run: &Run,
    place: &Place,
    patience: Duration,
) -> Result<Supervisor> {
    let world = run.devices.len();
    let processes = Processes::start(world, |command, rank| {
        command.arg("soak").args(["--device", place.argument()]);
        command.args(["--path", args.path.name()]);
        command.args(["--world", &world.to_string()]);
        command.args(["--seed", &run.seed.to_string()]);
        command.args(["--from-round", &run.first_round.to_string()]);
        command.args(args.fault.arguments());
        command.args(["--rank", &rank.to_string()]);
    })?;
    let (to_supervisor, events) = channel();
    let mut orders = Vec::new();
    for (rank, (mut child, requests, answers)) in processes.into_parts().into_iter().enumerate() {
        let (events, errors) = (to_supervisor.clone(), child.stderr.take());
        std::thread::spawn(move || forward(rank, answers, errors, &events));
        orders.push(Orders::Process(requests, child));
    }
    Ok(Supervisor {
        events,
        orders,
        patience,
    })
}

/// Passes on what a process says, until it ends. The supervisor may have lost interest by then.
fn forward(
    rank: usize,
    mut answers: ChildStdout,
    errors: Option<ChildStderr>,
    events: &Sender<(usize, Event)>,
) {
    while let Ok(event) = frame::read_value(&mut answers) {
        let is_last = matches!(event, Event::Ended(_));
        let _ = events.send((rank, event));
        if is_last {
            return;
        }
    }
    let mut text = String::new();
    if let Some(mut errors) = errors {
        // What it has said is of use, what cannot be read is not.
        let _ = errors.read_to_string(&mut text);
    }
    let said = text.trim().trim_start_matches("error: ");
    let said = if said.is_empty() { "no message" } else { said };
    let error = format!("its process has ended: {said}");
    let _ = events.send((rank, Event::Ended(Some(error))));
}

/// Be a rank in a process of its own.
pub(super) fn be_rank(run: &Run, rank: usize) -> Result<Outcome> {
    anyhow::ensure!(rank < run.devices.len(), "there is no rank {rank}");
    act(run, Link::Process { rank });
    Ok(Outcome::Good)
}

/// Runs a rank and says how it ended, also by a panic, of which the hook has told more.
fn act(run: &Run, mut link: Link) {
    let ended = catch_unwind(AssertUnwindSafe(|| member::run(run, &mut link)));
    let ended = ended.unwrap_or_else(|_| Err(Stopped::Panic.into()));
    // Without a supervisor there is nobody left to tell.
    let _ = link.ended(ended.err().map(|error| format!("{error:#}")));
}
