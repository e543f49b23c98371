//! What the ranks of a group on the host share when something goes wrong.
//!
//! What must stay true: a failure is for ever, the first one is kept, and whoever sees the abort flag
//! can read it.

use crate::protocol::{Epoch, WaitFailure};
use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;

/// The abort flag and the first failure of a group.
#[derive(Debug, Default)]
pub(super) struct GroupState {
    abort: AtomicBool,
    first: OnceLock<Failure>,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    rank: usize,
    epoch: Epoch,
    reason: WaitFailure,
}

impl GroupState {
    /// The flag that ends the waits of all ranks.
    pub(super) fn abort(&self) -> &AtomicBool {
        &self.abort
    }

    /// The first failure of the group, as the rank that met it reported it.
    pub(super) fn first(&self) -> Option<Error> {
        // Acquire, pairs with the release in `fail`: who sees the flag finds the failure.
        if !self.abort.load(Ordering::Acquire) {
            return None;
        }
        let first = self.first.get().expect("set before the flag");
        Some(first.reason.into_error(first.rank, first.epoch))
    }

    /// `Ok` while the group works, else [`Error::GroupFailed`].
    pub(super) fn check_works(&self) -> Result<()> {
        match self.first() {
            None => Ok(()),
            Some(first) => Err(Error::GroupFailed {
                reason: first.to_string(),
            }),
        }
    }

    /// Stops the group, and gives the error for the call of `rank` that failed: its own failure if it
    /// met one, else the group's.
    pub(super) fn fail(&self, rank: usize, epoch: Epoch, reason: WaitFailure) -> Error {
        if reason == WaitFailure::Aborted {
            // Somebody else has set the flag, and the failure before it.
            return match self.check_works() {
                Err(error) => error,
                Ok(()) => reason.into_error(rank, epoch),
            };
        }
        // Whoever comes second finds the cell taken: the first failure explains the others.
        let _ = self.first.set(Failure {
            rank,
            epoch,
            reason,
        });
        self.abort.store(true, Ordering::Release);
        reason.into_error(rank, epoch)
    }
}
