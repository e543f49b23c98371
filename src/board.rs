//! Where the ranks of a group write that it has failed, and how.
//!
//! What must stay true: a failure is for ever, the first one is kept, and who is stopped by the
//! abort word can read why. The board lies in memory that all ranks see, be they threads or
//! processes, so it consists of atomic words for which every value is valid: what another process
//! left there cannot be worse than a wrong message. A kernel writes the abort word and its rank's
//! report as `csrc/params.h` lays them out.

use crate::{Error, MAX_WORLD};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// `Report::state`, the numbers of `csrc/params.h`.
pub(crate) const STATE_OK: u32 = 0;
pub(crate) const STATE_PEER_TIMEOUT: u32 = 1;
pub(crate) const STATE_PEER_AHEAD: u32 = 2;

/// Added to a rank in `Board::first` if it has lost a peer; without it, it has written a report.
const LOST: u32 = 1 << 8;

/// Bytes of memory that is shared to hold a board: whole pages on most machines, since CUDA registers
/// pages.
#[cfg(target_os = "linux")]
pub(crate) const BOARD_BYTES: usize = 4096;

#[cfg(target_os = "linux")]
const _: () = assert!(size_of::<Board>() <= BOARD_BYTES);

/// The failures of a group. All zero: it works.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Not 0 once any rank has failed; ends the waits of all.
    abort: AtomicU32,
    /// Who failed first: its rank + 1, and `LOST` if that is how. Kernels do not write it.
    first: AtomicU32,
    /// By rank: 1 + the peer whose process it saw go.
    lost: [AtomicU32; MAX_WORLD],
    /// By rank.
    reports: [Report; MAX_WORLD],
}

/// What a failed wait leaves; the layout of `TrellinkReport`.
#[repr(C)]
#[derive(Debug, Default)]
struct Report {
    /// Written last.
    state: AtomicU32,
    rank: AtomicU32,
    peer: AtomicU32,
    epoch: AtomicU32,
    found: AtomicU32,
    reserved: AtomicU32,
    waited_ns: AtomicU64,
}

/// What a report says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) state: u32,
    pub(crate) rank: usize,
    pub(crate) peer: usize,
    pub(crate) epoch: u32,
    pub(crate) found: u32,
    pub(crate) waited: Duration,
}

impl Failure {
    pub(crate) fn into_error(self) -> Error {
        let Failure {
            state,
            rank,
            peer,
            epoch,
            found,
            waited,
        } = self;
        match state {
            STATE_PEER_TIMEOUT => Error::PeerTimeout {
                rank,
                peer,
                epoch,
                waited,
            },
            STATE_PEER_AHEAD => Error::PeerAhead {
                rank,
                peer,
                epoch,
                found,
            },
            state => Error::GroupFailed {
                reason: format!("rank {rank} stopped in state {state} at epoch {epoch}"),
            },
        }
    }
}

impl Board {
    /// The word that ends the waits of all ranks.
    pub(crate) fn abort(&self) -> &AtomicU32 {
        &self.abort
    }

    /// Writes a rank's failure down and stops the group.
    pub(crate) fn fail(&self, failure: &Failure) {
        let report = &self.reports[failure.rank];
        report.rank.store(failure.rank as u32, Ordering::Relaxed);
        report.peer.store(failure.peer as u32, Ordering::Relaxed);
        report.epoch.store(failure.epoch, Ordering::Relaxed);
        report.found.store(failure.found, Ordering::Relaxed);
        let waited_ns = u64::try_from(failure.waited.as_nanos()).unwrap_or(u64::MAX);
        report.waited_ns.store(waited_ns, Ordering::Relaxed);
        // Release, pairs with the acquire in `report`: who sees the state finds the rest.
        report.state.store(failure.state, Ordering::Release);
        self.stop(failure.rank as u32 + 1);
    }

    /// Writes down that `rank` saw the process of `peer` go, and stops the group.
    ///
    /// In a group that has failed before nobody is lost: its ranks go their ways.
    #[cfg(target_os = "linux")]
    pub(crate) fn lose(&self, rank: usize, peer: usize) {
        let first = self.first.load(Ordering::Acquire);
        let failed_otherwise = first & LOST == 0 && self.abort.load(Ordering::Acquire) != 0;
        if failed_otherwise {
            return;
        }
        // Relaxed on failure: the first loss is kept. Release pairs with the acquire in `loss`.
        let lost = &self.lost[rank];
        let _ = lost.compare_exchange(0, peer as u32 + 1, Ordering::Release, Ordering::Relaxed);
        self.stop(LOST | (rank as u32 + 1));
    }

    fn stop(&self, who: u32) {
        // Release, pairs with the acquire in `failure`; who comes second explains nothing.
        let first = &self.first;
        let _ = first.compare_exchange(0, who, Ordering::AcqRel, Ordering::Relaxed);
        self.abort.store(1, Ordering::Release);
    }

    /// The group's first failure; a lost peer as `rank` has seen it, if it has.
    pub(crate) fn failure(&self, rank: usize) -> Option<Error> {
        let first = self.first.load(Ordering::Acquire);
        let who = (first & !LOST) as usize;
        if who == 0 {
            return None;
        }
        let told = if first & LOST != 0 {
            self.loss(rank).or_else(|| self.loss(who - 1))
        } else {
            self.report(who - 1).map(Failure::into_error)
        };
        // Only a process that breaks the rules leaves a name and nothing behind it.
        Some(told.unwrap_or_else(|| Error::GroupFailed {
            reason: format!("rank {} stopped it and left no report", who - 1),
        }))
    }

    fn loss(&self, rank: usize) -> Option<Error> {
        let peer = self.lost.get(rank)?.load(Ordering::Acquire) as usize;
        let peer = peer.checked_sub(1)?;
        Some(Error::PeerLost { rank, peer })
    }

    /// A rank's report, if it has written one.
    pub(crate) fn report(&self, rank: usize) -> Option<Failure> {
        let report = self.reports.get(rank)?;
        let state = report.state.load(Ordering::Acquire);
        let load = |word: &AtomicU32| word.load(Ordering::Relaxed);
        (state != STATE_OK).then(|| Failure {
            state,
            rank: load(&report.rank) as usize,
            peer: load(&report.peer) as usize,
            epoch: load(&report.epoch),
            found: load(&report.found),
            waited: Duration::from_nanos(report.waited_ns.load(Ordering::Relaxed)),
        })
    }

    /// Where in the board a kernel of `rank` writes its report.
    #[cfg(feature = "cuda")]
    pub(crate) fn report_offset(rank: usize) -> usize {
        std::mem::offset_of!(Board, reports) + rank * size_of::<Report>()
    }
}

impl AsRef<Board> for Board {
    fn as_ref(&self) -> &Board {
        self
    }
}

/// Kernels are told of the start of the board and of a report.
#[cfg(feature = "cuda")]
const _: () = {
    use crate::ffi::TrellinkReport as Theirs;
    use std::mem::offset_of;
    assert!(offset_of!(Board, abort) == 0);
    assert!(size_of::<Report>() == size_of::<Theirs>());
    assert!(offset_of!(Report, state) == offset_of!(Theirs, state));
    assert!(offset_of!(Report, rank) == offset_of!(Theirs, rank));
    assert!(offset_of!(Report, peer) == offset_of!(Theirs, peer));
    assert!(offset_of!(Report, epoch) == offset_of!(Theirs, epoch));
    assert!(offset_of!(Report, found) == offset_of!(Theirs, found));
    assert!(offset_of!(Report, waited_ns) == offset_of!(Theirs, waited_ns));
    assert!(STATE_OK == crate::ffi::TRELLINK_STATE_OK);
    assert!(STATE_PEER_TIMEOUT == crate::ffi::TRELLINK_STATE_PEER_TIMEOUT);
    assert!(STATE_PEER_AHEAD == crate::ffi::TRELLINK_STATE_PEER_AHEAD);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(rank: usize, peer: usize) -> Failure {
        Failure {
            state: STATE_PEER_TIMEOUT,
            rank,
            peer,
            epoch: 7,
            found: 0,
            waited: Duration::from_millis(3),
        }
    }

    #[test]
    fn a_board_without_failures_says_nothing() {
        let board = Board::default();
        assert!(board.failure(0).is_none());
        assert_eq!(board.abort().load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_first_failure_is_kept() {
        let board = Board::default();
        board.fail(&timeout(2, 1));
        board.fail(&timeout(0, 2));
        for rank in 0..3 {
            let first = board.failure(rank);
            let kept = matches!(
                first,
                Some(Error::PeerTimeout {
                    rank: 2,
                    peer: 1,
                    ..
                })
            );
            assert!(kept, "{first:?}");
        }
        assert_eq!(board.report(0), Some(timeout(0, 2)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn each_rank_tells_of_its_own_loss_and_others_of_the_first() {
        let board = Board::default();
        board.lose(1, 3);
        board.lose(2, 3);
        board.fail(&timeout(0, 3));
        for (rank, witness) in [(0, 1), (1, 1), (2, 2)] {
            let told = board.failure(rank);
            assert!(
                matches!(told, Some(Error::PeerLost { rank, peer: 3 }) if rank == witness),
                "{told:?}"
            );
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn who_goes_after_a_failure_is_not_lost() {
        let board = Board::default();
        board.fail(&timeout(0, 1));
        board.lose(0, 1);
        assert!(matches!(board.failure(0), Some(Error::PeerTimeout { .. })));
    }

    #[test]
    fn words_that_no_rank_writes_are_a_failure_without_a_report() {
        for first in [3, 200, LOST | 2, LOST | 250, u32::MAX, !LOST] {
            let board = Board::default();
            board.first.store(first, Ordering::Relaxed);
            let told = board.failure(0);
            assert!(matches!(told, Some(Error::GroupFailed { .. })), "{told:?}");
        }
    }
}
