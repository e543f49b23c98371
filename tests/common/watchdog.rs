//! Ends a test program that hangs.

use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::time::Duration;

/// Aborts the process unless it is dropped in time: a test that waits for ever for a GPU cannot be
/// ended in a gentler way.
pub struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    /// The limit is for a program on its own machine; tools that slow it down make it longer.
    #[must_use]
    pub fn new(what: &'static str, limit: Duration) -> Self {
        let (alive, dead) = channel();
        let limit = match super::Extent::from_environment() {
            Some(super::Extent::Reduced) => limit * 20,
            _ => limit,
        };
        std::thread::spawn(move || {
            if dead.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                super::say!("{what} still runs after {limit:?}: aborting");
                std::process::abort();
            }
        });
        Watchdog { _alive: alive }
    }
}
