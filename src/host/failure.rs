//! What a rank on the host reads from and writes to its group's board.

use crate::board::{Board, Failure, STATE_PEER_AHEAD, STATE_PEER_TIMEOUT};
use crate::protocol::{Epoch, WaitFailure};
use crate::{Error, Result};
use std::sync::atomic::AtomicU32;
use std::sync::Arc;
use std::time::Duration;

/// Memory that holds a board: of this process, or of all processes of the group.
pub(super) trait BoardMemory: AsRef<Board> + Send + Sync + std::fmt::Debug {}

impl<M: AsRef<Board> + Send + Sync + std::fmt::Debug> BoardMemory for M {}

/// The group's state as one rank sees it.
#[derive(Debug)]
pub(super) struct GroupState {
    rank: usize,
    memory: Arc<dyn BoardMemory>,
}

impl GroupState {
    pub(super) fn new(rank: usize, memory: Arc<dyn BoardMemory>) -> Self {
        GroupState { rank, memory }
    }

    /// The word that ends the waits of all ranks.
    pub(super) fn abort(&self) -> &AtomicU32 {
        self.board().abort()
    }

    /// The first failure of the group, as the rank that met it reported it.
    pub(super) fn first(&self) -> Option<Error> {
        self.board().failure(self.rank)
    }

    /// `Ok` while the group works, else [`Error::GroupFailed`], or [`Error::PeerLost`] as it is.
    pub(super) fn check_works(&self) -> Result<()> {
        match self.first() {
            None => Ok(()),
            Some(lost @ Error::PeerLost { .. }) => Err(lost),
            Some(first) => Err(Error::GroupFailed {
                reason: first.to_string(),
            }),
        }
    }

    /// Stops the group, and gives the error for the call that failed: this rank's own failure if it
    /// met one, else the group's.
    pub(super) fn fail(&self, epoch: Epoch, reason: WaitFailure) -> Error {
        let Some(failure) = self.failure(epoch, reason) else {
            // Somebody else has set the word, and the failure before it.
            return match self.check_works() {
                Err(error) => error,
                Ok(()) => reason.into_error(self.rank, epoch),
            };
        };
        self.board().fail(&failure);
        reason.into_error(self.rank, epoch)
    }

    /// What this rank reports; nothing if it was only stopped.
    fn failure(&self, epoch: Epoch, reason: WaitFailure) -> Option<Failure> {
        let (state, peer, found, waited) = match reason {
            WaitFailure::TimedOut { peer, waited } => (STATE_PEER_TIMEOUT, peer, 0, waited),
            WaitFailure::Ahead { peer, found } => {
                (STATE_PEER_AHEAD, peer, found.get(), Duration::ZERO)
            }
            WaitFailure::Aborted => return None,
        };
        Some(Failure {
            state,
            rank: self.rank,
            peer,
            epoch: epoch.get(),
            found,
            waited,
        })
    }

    fn board(&self) -> &Board {
        (*self.memory).as_ref()
    }
}
