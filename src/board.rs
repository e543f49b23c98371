//! Where the ranks of a group write that it has failed, and how.
//!
//! What must stay true: a failure lasts until all ranks [reset](Board::reset) the group, the first one
//! is kept, and who is stopped by the abort word can read why. The board lies in memory that all
//! ranks see, be they threads or processes, so it consists of atomic words for which every value is
//! valid: what another process left there cannot be worse than a wrong message. A kernel writes the
//! abort word and its rank's report as `csrc/params.h` lays them out, and reads its rank's timeout.

mod absent;
mod report;
mod reset;

pub(crate) use report::{
    Failure, STATE_ABORTED, STATE_MISMATCH, STATE_PEER_AHEAD, STATE_PEER_TIMEOUT,
};

use crate::{Error, MAX_WORLD};
use absent::{is_collective, Timeout};
use report::Report;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Added to a rank in `Board::first` if it has lost a peer; without it, it has written a report.
const LOST: u32 = 1 << 8;

/// In `Board::first`: some ranks have reset the group and some have not.
const HALF_RESET: u32 = 1 << 9;

/// How long a failure may take to explain itself: reports of ranks that an abort stops come a little
/// after the word, also of those whose kernels had to wait for others to end, and whose operation did not fit
/// writes its own. Far more than that takes.
const SETTLING: Duration = Duration::from_millis(50);

/// Bytes of memory that is shared to hold a board: whole pages on most machines, since CUDA registers
/// pages.
#[cfg(target_os = "linux")]
pub(crate) const BOARD_BYTES: usize = 4096;

#[cfg(target_os = "linux")]
const _: () = assert!(size_of::<Board>() <= BOARD_BYTES);

/// The failures of a group. All zero but for the timeouts: it works.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Not 0 once any rank has failed; ends the waits of all.
    abort: AtomicU32,
    /// Who failed first: its rank + 1, and `LOST` if that is how. Kernels do not write it.
    first: AtomicU32,
    /// Not 0 once the failure has had its time to explain itself: then nobody waits for more.
    settled: AtomicU32,
    /// By rank: 1 + the peer whose process it saw go. Never cleared.
    lost: [AtomicU32; MAX_WORLD],
    /// Where ranks meet to reset the group.
    reset: reset::Meeting,
    /// By rank.
    reports: [Report; MAX_WORLD],
}

/// What is known of a failure.
enum Explanation {
    Whole(Error),
    /// More may be written in a moment.
    Part(Error),
}

impl Board {
    /// The word that ends the waits of all ranks.
    pub(crate) fn abort(&self) -> &AtomicU32 {
        &self.abort
    }

    /// How long a wait of `rank` may last.
    pub(crate) fn timeout(&self, rank: usize) -> Duration {
        self.reports[rank].timeout()
    }

    /// Sets that; waits that have begun see it too.
    pub(crate) fn set_timeout(&self, rank: usize, timeout: Duration) {
        self.reports[rank].set_timeout(timeout);
    }

    /// Writes a rank's failure down and stops the group, unless it was stopped itself.
    pub(crate) fn fail(&self, failure: &Failure) {
        self.reports[failure.rank].write(failure);
        if failure.state != STATE_ABORTED {
            self.stop(failure.rank as u32 + 1);
        }
    }

    /// Writes down that `rank` saw the process of `peer` go, and stops the group.
    ///
    /// In a group that has failed before, that failure stays the one that is told: its ranks go their ways.
    #[cfg(target_os = "linux")]
    pub(crate) fn lose(&self, rank: usize, peer: usize) {
        // Relaxed on failure: the first loss is kept. Sequentially consistent with the look at `lost` at
        // the end of a reset, which clears the abort word: one of the two sees the other.
        let lost = &self.lost[rank];
        let _ = lost.compare_exchange(0, peer as u32 + 1, Ordering::SeqCst, Ordering::Relaxed);
        let first = self.first.load(Ordering::SeqCst);
        let failed_otherwise = first & LOST == 0 && self.abort.load(Ordering::SeqCst) != 0;
        if !failed_otherwise {
            self.stop(LOST | (rank as u32 + 1));
        }
    }

    fn stop(&self, who: u32) {
        // Release, pairs with the acquire in `explain`; who comes second explains nothing.
        let first = &self.first;
        let _ = first.compare_exchange(0, who, Ordering::AcqRel, Ordering::Relaxed);
        self.abort.store(1, Ordering::SeqCst);
    }

    /// The first failure of a group of `world` ranks; a lost peer as `rank` has seen it, if it has.
    ///
    /// One look at a word while the group works. Who asks first after a failure may have to wait until it has
    /// explained itself.
    pub(crate) fn failure(&self, rank: usize, world: usize) -> Option<Error> {
        if self.abort.load(Ordering::Acquire) == 0 {
            return None;
        }
        let started = Instant::now();
        loop {
            // Relaxed here and below: the word publishes nothing but itself.
            let settled = self.settled.load(Ordering::Relaxed) != 0;
            match self.explain(rank, world) {
                Explanation::Whole(error) => return Some(error),
                Explanation::Part(error) if settled => return Some(error),
                Explanation::Part(_) if started.elapsed() >= SETTLING => {
                    self.settled.store(1, Ordering::Relaxed);
                }
                Explanation::Part(_) => std::thread::yield_now(),
            }
        }
    }

    fn explain(&self, rank: usize, world: usize) -> Explanation {
        let first = self.first.load(Ordering::Acquire);
        if first & HALF_RESET != 0 {
            let told = self
                .loss(rank)
                .or_else(|| (0..MAX_WORLD).find_map(|rank| self.loss(rank)));
            return Explanation::Whole(told.unwrap_or_else(|| Error::GroupFailed {
                reason: "some ranks have reset it and some have not".into(),
            }));
        }
        let who = ((first & !LOST) as usize).checked_sub(1);
        if first & LOST != 0 {
            let told = self.loss(rank).or_else(|| self.loss(who?));
            // Only a process that breaks the rules leaves a name and nothing behind it.
            return told.map_or_else(|| Explanation::Part(unexplained()), Explanation::Whole);
        }
        let ranks = who.into_iter().chain(0..MAX_WORLD);
        let mut causes = ranks.filter_map(|rank| self.report(rank));
        match causes.find(|failure| failure.state != STATE_ABORTED) {
            Some(failure) if failure.state == STATE_PEER_TIMEOUT => {
                self.tell_timeout(failure, world)
            }
            Some(failure) => self.tell(failure),
            None => Explanation::Part(unexplained()),
        }
    }

    /// A timeout as an error. All is known of it when all ranks have said that they were in the call.
    fn tell_timeout(&self, found: Failure, world: usize) -> Explanation {
        let Timeout { failure, absent } = self.explain_timeout(found, world);
        let whole = absent.is_empty();
        let error = failure.into_error(None, absent);
        match whole {
            true => Explanation::Whole(error),
            false => Explanation::Part(error),
        }
    }

    /// Another failure as an error, with what the peer was doing if that matters.
    fn tell(&self, failure: Failure) -> Explanation {
        let peer = self.report(failure.peer);
        let theirs = peer.filter(|peer| peer.epoch == failure.epoch);
        let theirs = theirs.and_then(|peer| peer.operation);
        let whole = failure.state != STATE_MISMATCH || theirs.is_some();
        let error = failure.into_error(theirs, Vec::new());
        match whole {
            true => Explanation::Whole(error),
            false => Explanation::Part(error),
        }
    }

    fn loss(&self, rank: usize) -> Option<Error> {
        let peer = self.lost.get(rank)?.load(Ordering::SeqCst) as usize;
        let peer = peer.checked_sub(1)?;
        Some(Error::PeerLost { rank, peer })
    }

    /// A rank's report, if it has written one.
    fn report(&self, rank: usize) -> Option<Failure> {
        let failure = self.reports.get(rank)?.read()?;
        // Among the CTAs of one rank, kernels call it rank 0 of 1.
        let peer = if is_collective(&failure) {
            failure.peer
        } else {
            rank
        };
        Some(Failure {
            rank,
            peer,
            ..failure
        })
    }

    /// Where in the board a kernel of `rank` writes its report.
    #[cfg(feature = "cuda")]
    pub(crate) fn report_offset(rank: usize) -> usize {
        std::mem::offset_of!(Board, reports) + rank * size_of::<Report>()
    }
}

fn unexplained() -> Error {
    Error::GroupFailed {
        reason: "a rank stopped it and left no report".into(),
    }
}

impl AsRef<Board> for Board {
    fn as_ref(&self) -> &Board {
        self
    }
}

/// Kernels are told of the start of the board.
#[cfg(feature = "cuda")]
const _: () = assert!(std::mem::offset_of!(Board, abort) == 0);

#[cfg(test)]
mod tests;
