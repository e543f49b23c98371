//! What a rank on the host reads from and writes to its group's board.

use crate::board::{self, Board, Failure};
use crate::format::GROUP;
use crate::protocol::{Epoch, Operation, Tag, WaitFailure};
use crate::{Error, Group, Result};
use std::sync::Arc;
use std::time::Duration;

/// Memory that holds a board: of this process, or of all processes of the group.
pub(super) trait BoardMemory: AsRef<Board> + Send + Sync + std::fmt::Debug {}

impl<M: AsRef<Board> + Send + Sync + std::fmt::Debug> BoardMemory for M {}

/// The group's state as one rank sees it.
#[derive(Clone, Debug)]
pub(super) struct GroupState {
    rank: usize,
    world: usize,
    memory: Arc<dyn BoardMemory>,
}

impl GroupState {
    /// A rank of `group`.
    pub(super) fn new(rank: usize, memory: Arc<dyn BoardMemory>, group: &Group) -> Self {
        (*memory).as_ref().set_timeout(rank, group.timeout);
        let world = group.world();
        GroupState {
            rank,
            world,
            memory,
        }
    }

    /// `Ok` while the group works, else its first failure, as the rank that met it reported it.
    pub(super) fn check(&self) -> Result<()> {
        let failure = self.board().failure(self.rank, self.world);
        failure.map_or(Ok(()), Err)
    }

    /// Stops the group, and gives the error for the call that failed: the group's first failure.
    pub(super) fn fail(&self, epoch: Epoch, operation: Operation, wait: WaitFailure) -> Error {
        // Of a rank that was only stopped: who failed may want to know what it was doing.
        let mut failure = Failure {
            state: board::STATE_ABORTED,
            rank: self.rank,
            peer: self.rank,
            epoch: epoch.get(),
            found: 0,
            tile: 0,
            waited: Duration::ZERO,
            operation: Some(operation),
        };
        match wait {
            WaitFailure::TimedOut {
                peer,
                value,
                waited,
            } => {
                (failure.state, failure.peer) = (board::STATE_PEER_TIMEOUT, peer);
                (failure.tile, failure.waited) = ((value / GROUP) as u32, waited);
            }
            WaitFailure::Ahead { peer, found } => {
                (failure.state, failure.peer) = (board::STATE_PEER_AHEAD, peer);
                failure.found = Tag::new(found, 0).bits();
            }
            WaitFailure::Mismatch { peer, found } => {
                (failure.state, failure.peer) = (board::STATE_MISMATCH, peer);
                failure.found = found.bits();
            }
            WaitFailure::Aborted => {}
        }
        self.board().fail(&failure);
        // A failure of its own, or somebody else's whose word has ended the wait.
        let first = self.board().failure(self.rank, self.world);
        first.unwrap_or_else(|| Error::GroupFailed {
            reason: "another rank has reset it meanwhile".into(),
        })
    }

    pub(super) fn board(&self) -> &Board {
        (*self.memory).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::DType;
    use crate::{Epilogue, OperationKind};

    #[test]
    fn a_wait_that_timed_out_names_the_128_values_it_was_in() {
        let group = crate::Group::on_host(2);
        let state = GroupState::new(1, Arc::new(Board::default()), &group);
        let operation = Operation {
            kind: OperationKind::RowParallel,
            rows: 3,
            columns: 256,
            input: DType::F16,
            output: DType::F32,
            epilogue: Epilogue::Store,
            layer: 7,
        };
        let wait = WaitFailure::TimedOut {
            peer: 0,
            value: 2 * GROUP + 5,
            waited: Duration::from_millis(4),
        };
        let error = state.fail(Epoch::new(9), operation, wait);
        let told = matches!(
            error,
            Error::PeerTimeout { rank: 1, peer: 0, epoch: 9, tile: 2, waited, .. }
                if waited == Duration::from_millis(4)
        );
        assert!(told, "{error}");
    }
}
