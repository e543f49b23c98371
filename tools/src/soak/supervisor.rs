//! Over the ranks: lets them go on when all are as far, compares what they must have found alike, and
//! notices when none of them makes any progress.

use super::link::{Counts, Event, Findings, Order};
use crate::processes::frame;
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How long ranks have to end once they are told to.
const FAREWELL: Duration = Duration::from_secs(15);

/// What a run has found.
#[derive(Default, Debug)]
pub struct Found {
    /// What was done; calls once, elements by all ranks.
    pub counts: Counts,
    /// Results that were not as they must be.
    pub mismatches: Vec<String>,
    /// What happened that must not.
    pub errors: Vec<String>,
    /// By rank, what it was doing when none made progress.
    pub hang: Vec<String>,
}

/// The way to a rank.
pub enum Orders {
    /// A thread.
    Thread(Sender<Order>),
    /// A process.
    Process(ChildStdin, Child),
}

/// The ranks.
pub struct Supervisor {
    /// From all ranks.
    pub events: Receiver<(usize, Event)>,
    /// To each.
    pub orders: Vec<Orders>,
    /// Without any event for so long nothing will come any more.
    pub patience: Duration,
}

/// What a rank is known to be at.
#[derive(Clone, Debug)]
enum State {
    Doing(String, Instant),
    Ready(Findings),
    Ended,
}

impl Supervisor {
    /// Supervises until it is `enough`, and tells `progress` of every batch.
    pub fn run(
        mut self,
        enough: impl Fn(&Counts) -> bool,
        mut progress: impl FnMut(&Found),
    ) -> Found {
        let mut found = Found::default();
        let start = Instant::now();
        let mut states = vec![State::Doing("starting".into(), start); self.orders.len()];
        while self.wait_for_all(&mut states, &mut found) {
            let may_end = merge(&mut states, &mut found);
            let failed = !found.mismatches.is_empty() || !found.errors.is_empty();
            progress(&found);
            if may_end && (failed || enough(&found.counts)) {
                break;
            }
            self.tell_all(&Order::Go);
        }
        self.tell_all(&Order::Stop);
        self.see_off(&mut states, &mut found);
        found
    }

    /// Until all are ready. Not, if one has ended or none makes progress.
    fn wait_for_all(&mut self, states: &mut [State], found: &mut Found) -> bool {
        let mut addresses = vec![None; states.len()];
        while !states.iter().all(|state| matches!(state, State::Ready(_))) {
            let (rank, event) = match self.events.recv_timeout(self.patience) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => {
                    found.hang = (0..).zip(&*states).map(describe).collect();
                    return false;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    found.errors.push("all ranks have gone".into());
                    return false;
                }
            };
            match event {
                Event::Doing(what) => states[rank] = State::Doing(what, Instant::now()),
                Event::Ready(findings) => states[rank] = State::Ready(*findings),
                Event::Address(bytes) => {
                    addresses[rank] = Some(bytes);
                    if let Some(all) = addresses.iter().cloned().collect() {
                        self.tell_all(&Order::Addresses(all));
                        addresses.fill(None);
                    }
                }
                Event::Ended(error) => {
                    found.errors.push(error_of(rank, &states[rank], error));
                    states[rank] = State::Ended;
                    return false;
                }
            }
        }
        true
    }

    /// Those that have gone need no order, and what they said last tells why.
    fn tell_all(&mut self, order: &Order) {
        for orders in &mut self.orders {
            let _ = match orders {
                Orders::Thread(orders) => orders.send(order.clone()).map_err(Into::into),
                Orders::Process(pipe, _) => frame::write_value(pipe, order),
            };
        }
    }

    /// Waits for the ranks to end; those that hang are left behind, their processes killed.
    fn see_off(&mut self, states: &mut [State], found: &mut Found) {
        let limit = match found.hang.is_empty() {
            true => Instant::now() + FAREWELL,
            false => Instant::now(),
        };
        while !states.iter().all(|state| matches!(state, State::Ended)) {
            let left = limit.saturating_duration_since(Instant::now());
            let Ok((rank, event)) = self.events.recv_timeout(left) else {
                break;
            };
            match event {
                Event::Ended(error) => {
                    if let Some(error) = error {
                        found
                            .errors
                            .push(error_of(rank, &states[rank], Some(error)));
                    }
                    states[rank] = State::Ended;
                }
                Event::Doing(what) => states[rank] = State::Doing(what, Instant::now()),
                // It has its order to stop already.
                Event::Ready(_) | Event::Address(_) => {}
            }
        }
        if found.hang.is_empty() {
            let hangs = |(_, state): &(usize, &State)| !matches!(state, State::Ended);
            let left = (0..).zip(&*states).filter(hangs);
            found.hang = left.map(describe).collect();
        }
        for orders in &mut self.orders {
            if let Orders::Process(_, child) = orders {
                if !found.hang.is_empty() {
                    // It may have ended meanwhile.
                    let _ = child.kill();
                }
                let _ = child.wait();
            }
        }
    }
}

fn describe((rank, state): (usize, &State)) -> String {
    match state {
        State::Doing(what, since) => {
            let seconds = since.elapsed().as_secs_f64();
            format!("rank {rank} has been {seconds:.1} s at this: {what}")
        }
        State::Ready(_) => format!("rank {rank} waited for the others"),
        State::Ended => format!("rank {rank} had ended"),
    }
}

fn error_of(rank: usize, state: &State, error: Option<String>) -> String {
    let error = error.unwrap_or_else(|| "it ended without having been told to".into());
    match state {
        State::Doing(what, _) => format!("rank {rank}: {error} (at: {what})"),
        _ => format!("rank {rank}: {error}"),
    }
}

/// Takes all findings in. Whether all ranks say that this is a good moment to end.
fn merge(states: &mut [State], found: &mut Found) -> bool {
    let waiting = State::Doing("going on".into(), Instant::now());
    let states = states
        .iter_mut()
        .map(|state| std::mem::replace(state, waiting.clone()));
    let findings: Vec<Findings> = states
        .filter_map(|state| match state {
            State::Ready(findings) => Some(findings),
            _ => None,
        })
        .collect();
    let Some(first) = findings.first() else {
        return false;
    };
    for (rank, other) in findings.iter().enumerate() {
        found.mismatches.extend(other.mismatches.iter().cloned());
        found.errors.extend(other.errors.iter().cloned());
        let pairs = first.shared.iter().zip(&other.shared);
        let differ = pairs.filter(|(first, other)| first != other);
        let differ =
            differ.map(|((what, _), _)| format!("{what}: rank {rank} differs from rank 0"));
        found.mismatches.extend(differ.take(4));
        if first.shared.len() != other.shared.len() {
            let text = format!("rank {rank} has other outputs to compare than rank 0");
            found.errors.push(text);
        }
    }
    // Ranks make the same calls: they are counted once, what is compared on each of them.
    let mut counts = first.counts;
    counts.elements = findings.iter().map(|f| f.counts.elements).sum();
    counts.references = findings.iter().map(|f| f.counts.references).sum();
    counts.seen = findings.iter().map(|f| f.counts.seen).min().unwrap_or(0);
    found.counts.add(&counts);
    findings.iter().all(|findings| findings.may_end)
}
