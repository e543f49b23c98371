//! How a rank waits for packets, and when it gives up.
//!
//! What must stay true: every wait ends, by arrival, by the deadline or by an abort. The policy is
//! apart from the protocol so that a model checker can bring its own, without clocks.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Why a wait ended without the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GiveUp {
    /// The deadline has passed.
    TimedOut {
        /// How long the wait took.
        waited: Duration,
    },
    /// Somebody told the whole group to stop.
    Aborted,
}

/// What a rank does between two polls of a packet that has not arrived.
pub trait Wait {
    /// Called after every failed poll; `polls` counts those of this packet and starts at 1.
    ///
    /// May spin, yield or sleep. An error ends the wait.
    fn pause(&self, polls: u32) -> Result<(), GiveUp>;
}

/// Spins, then yields the processor, until a deadline or an abort.
#[derive(Clone, Debug)]
pub struct BoundedWait<'a> {
    started: Instant,
    timeout: Duration,
    /// Any value but 0 ends the wait: other processes and devices may write it.
    abort: &'a AtomicU32,
}

impl<'a> BoundedWait<'a> {
    /// Failed polls that cost no more than a glance at the cache line: a peer that is in the same
    /// call answers within microseconds. After that it is cheaper to let others run, above all
    /// where ranks are more numerous than processors.
    const SPINS: u32 = 128;

    /// A wait that begins now and ends after `timeout` at the latest, or soon after `abort` is
    /// other than 0. It bounds all waits that it is passed to together, not each on its own.
    pub fn new(timeout: Duration, abort: &'a AtomicU32) -> Self {
        BoundedWait {
            started: Instant::now(),
            timeout,
            abort,
        }
    }
}

impl Wait for BoundedWait<'_> {
    fn pause(&self, polls: u32) -> Result<(), GiveUp> {
        if polls <= Self::SPINS {
            std::hint::spin_loop();
            return Ok(());
        }
        // Relaxed: the word publishes nothing but itself, and being late by a poll does no harm.
        if self.abort.load(Ordering::Relaxed) != 0 {
            return Err(GiveUp::Aborted);
        }
        let waited = self.started.elapsed();
        if waited >= self.timeout {
            return Err(GiveUp::TimedOut { waited });
        }
        std::thread::yield_now();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_timeout_ends_after_the_spins() {
        let abort = AtomicU32::new(0);
        let wait = BoundedWait::new(Duration::ZERO, &abort);
        let end = (1..).find_map(|polls| wait.pause(polls).err());
        assert!(matches!(end, Some(GiveUp::TimedOut { .. })));
    }

    #[test]
    fn an_abort_precedes_the_deadline() {
        let abort = AtomicU32::new(1);
        let wait = BoundedWait::new(Duration::ZERO, &abort);
        let end = (1..).find_map(|polls| wait.pause(polls).err());
        assert_eq!(end, Some(GiveUp::Aborted));
    }
}
