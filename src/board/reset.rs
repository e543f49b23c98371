//! How the ranks of a group meet to bring it back to work after a failure.
//!
//! What must stay true: nobody clears anything before all ranks have come, nobody calls before all have
//! cleared, and either all ranks learn that the group works again or none does. All of that hangs on
//! one word that changes in indivisible steps: who has come, who has cleared, and how many meetings
//! have ended. A meeting ends when the last rank has cleared, or when one rank gives up that others
//! have counted on already; before that a rank may leave again, and nothing has happened.

use super::{Board, HALF_RESET, LOST};
use crate::protocol::Epoch;
use crate::{Error, Result, MAX_WORLD};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Calls between the last epoch before a reset and the first after it: more than ranks can be apart, so
/// that what a call before it has sent is late in all after it.
const EPOCHS_SKIPPED: i32 = 64;

/// Between two looks at the word.
const PAUSE: Duration = Duration::from_micros(50);

/// Where ranks meet.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Meeting {
    /// See [`State`].
    word: AtomicU32,
    /// The epoch of the first call afterwards; written by rank 0 before it comes.
    epoch: AtomicU32,
}

/// The state of a meeting: {ended meetings 15, whether the last one broke up 1, cleared 8, come 8}.
#[derive(Clone, Copy)]
struct State(u32);

impl State {
    const BROKE_UP: u32 = 1 << 16;
    const MEETING: u32 = 1 << 17;

    fn come(self) -> u32 {
        self.0 & 0xff
    }

    fn cleared(self) -> u32 {
        self.0 >> 8 & 0xff
    }

    /// Which meeting this is.
    fn number(self) -> u32 {
        self.0 / Self::MEETING
    }

    fn broke_up(self) -> bool {
        self.0 & Self::BROKE_UP != 0
    }

    /// The next meeting, to which nobody has come.
    fn ended(self, how: u32) -> Self {
        State((self.0 & !(Self::MEETING - 1)).wrapping_add(Self::MEETING) | how)
    }
}

/// One rank at a meeting.
struct Attendance<'a> {
    board: &'a Board,
    rank: usize,
    /// A bit for every rank.
    all: u32,
    started: Instant,
    timeout: Duration,
}

impl Board {
    /// Brings a failed group back to work. Every rank calls it, when nothing of its own is running any more;
    /// `epoch` is that of its next call. Between the moment when all have come and the return of any,
    /// `clear` makes the rank's arena one in which nothing has arrived, and the epoch it is given the rank's
    /// next.
    ///
    /// # Errors
    /// [`Error::PeerLost`] if a process has gone, [`Error::ResetIncomplete`] if a rank did not come within the
    /// rank's timeout, and what `clear` says.
    pub(crate) fn reset(
        &self,
        rank: usize,
        world: usize,
        epoch: Epoch,
        clear: impl FnOnce(Epoch) -> Result<()>,
    ) -> Result<()> {
        let attendance = Attendance {
            board: self,
            rank,
            all: (1 << world) - 1,
            started: Instant::now(),
            timeout: self.timeout(rank),
        };
        attendance.check_nobody_is_lost()?;
        if rank == 0 {
            let first = epoch.after(EPOCHS_SKIPPED).get();
            // Relaxed: published by the step with which this rank comes.
            self.reset.epoch.store(first, Ordering::Relaxed);
        }
        let meeting = attendance.come()?;
        let first = Epoch::new(self.reset.epoch.load(Ordering::Relaxed));
        if let Err(error) = clear(first) {
            attendance.break_up(meeting);
            return Err(error);
        }
        self.reports[rank].clear();
        // Every rank does so; nobody can have failed since they have all come.
        self.first.store(0, Ordering::SeqCst);
        self.settled.store(0, Ordering::SeqCst);
        self.abort.store(0, Ordering::SeqCst);
        attendance.end(meeting)?;
        // A process that has gone meanwhile was written down before the words above were cleared, or will
        // set them again.
        attendance.check_nobody_is_lost().inspect_err(|_| {
            self.stop(LOST | (rank as u32 + 1));
        })
    }
}

impl Attendance<'_> {
    /// Waits until all ranks have come; the number of the meeting.
    fn come(&self) -> Result<u32> {
        let own = 1 << self.rank;
        let meeting = self.step(|state| Some(State(state.0 | own))).number();
        loop {
            let state = self.state();
            if state.number() != meeting {
                return Err(self.incomplete(0));
            }
            if state.come() == self.all {
                return Ok(meeting);
            }
            if let Err(error) = self.may_go_on(state.come()) {
                let mut left = false;
                self.step(|state| {
                    left = state.number() == meeting && state.come() != self.all;
                    left.then_some(State(state.0 & !own))
                });
                if left {
                    return Err(error);
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Says that this rank has cleared and waits until all have.
    fn end(&self, meeting: u32) -> Result<()> {
        self.step(|state| {
            let cleared = State(state.0 | 1 << (8 + self.rank));
            (state.number() == meeting).then(|| match cleared.cleared() == self.all {
                true => cleared.ended(0),
                false => cleared,
            })
        });
        loop {
            let state = self.state();
            if state.number() != meeting {
                // Nobody can end another meeting before this rank comes to it.
                return match state.broke_up() {
                    false => Ok(()),
                    true => {
                        self.board.stop(HALF_RESET);
                        Err(self.incomplete(0))
                    }
                };
            }
            if let Err(error) = self.may_go_on(state.cleared()) {
                if self.break_up(meeting) {
                    return Err(error);
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Ends a meeting at which all have come; the group stays failed. False if it has ended already.
    fn break_up(&self, meeting: u32) -> bool {
        let mut broken = false;
        self.step(|state| {
            broken = state.number() == meeting;
            broken.then(|| state.ended(State::BROKE_UP))
        });
        if broken {
            self.board.stop(HALF_RESET);
        }
        broken
    }

    fn state(&self) -> State {
        // Acquire, pairs with the release in `step`: who sees that a rank has cleared finds it cleared.
        State(self.board.reset.word.load(Ordering::Acquire))
    }

    /// Changes the word in one step, if at all; what it is then.
    fn step(&self, mut change: impl FnMut(State) -> Option<State>) -> State {
        let mut change = |word| change(State(word)).map(|state| state.0);
        let word = &self.board.reset.word;
        match word.fetch_update(Ordering::AcqRel, Ordering::Acquire, &mut change) {
            Ok(before) => change(before).map_or(State(before), State),
            Err(same) => State(same),
        }
    }

    /// Fails when a process has gone or the time is over, of which `done` ranks have made use.
    fn may_go_on(&self, done: u32) -> Result<()> {
        self.check_nobody_is_lost()?;
        if self.started.elapsed() < self.timeout {
            return Ok(());
        }
        Err(self.incomplete(self.all & !done))
    }

    fn check_nobody_is_lost(&self) -> Result<()> {
        let mut witnesses = std::iter::once(self.rank).chain(0..MAX_WORLD);
        let loss = witnesses.find_map(|witness| self.board.loss(witness));
        loss.map_or(Ok(()), Err)
    }

    fn incomplete(&self, missing: u32) -> Error {
        Error::ResetIncomplete {
            rank: self.rank,
            missing: (0..MAX_WORLD)
                .filter(|rank| missing >> rank & 1 != 0)
                .collect(),
            waited: self.started.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{mpsc::channel, Arc};

    /// Of a rank that waits for one that has panicked, too.
    const LONG: Duration = Duration::from_secs(15);
    const SHORT: Duration = Duration::from_millis(40);

    fn board(timeout: Duration) -> Board {
        let board = Board::default();
        (0..MAX_WORLD).for_each(|rank| board.set_timeout(rank, timeout));
        board.stop(1);
        board
    }

    /// All ranks reset at once, each with what its `clear` says.
    fn all(board: &Board, clear: &(impl Fn(usize, Epoch) -> Result<()> + Sync)) -> Vec<Result<()>> {
        std::thread::scope(|scope| {
            let reset = |rank| {
                let epoch = Epoch::new(u32::MAX - rank as u32);
                board.reset(rank, 3, epoch, |epoch| clear(rank, epoch))
            };
            let threads = [0, 1, 2].map(|rank| scope.spawn(move || reset(rank)));
            threads.map(|thread| thread.join().unwrap()).into()
        })
    }

    #[test]
    fn ranks_that_all_come_begin_again_with_one_epoch_any_number_of_times() {
        let board = board(LONG);
        // Interpreted, a meeting takes seconds.
        for _ in 0..if cfg!(miri) { 5 } else { 200 } {
            board.stop(2);
            let results = all(&board, &|_, epoch| {
                assert_eq!(epoch.get(), 63, "64 after rank 0's");
                Ok(())
            });
            assert!(results.iter().all(Result::is_ok), "{results:?}");
            assert!(board.failure(0, 3).is_none());
        }
    }

    #[test]
    fn nobody_clears_before_all_have_come_and_nobody_returns_before_all_have_cleared() {
        let board = board(LONG);
        let (come, cleared) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for rank in 0..3 {
                let (board, come, cleared) = (&board, &come, &cleared);
                scope.spawn(move || {
                    std::thread::sleep(SHORT * rank as u32);
                    come.fetch_add(1, Ordering::SeqCst);
                    let reset = board.reset(rank, 3, Epoch::new(0), |_| {
                        assert_eq!(come.load(Ordering::SeqCst), 3);
                        std::thread::sleep(SHORT * rank as u32);
                        cleared.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    });
                    reset.unwrap();
                    assert_eq!(cleared.load(Ordering::SeqCst), 3);
                });
            }
        });
    }

    #[test]
    fn a_rank_that_does_not_come_is_named_and_the_next_attempt_may_succeed() {
        let board = Arc::new(board(SHORT));
        // Elsewhere, so that a reset that does not end fails the test.
        let (send, receive) = channel();
        let waiting = board.clone();
        std::thread::spawn(move || {
            let clear = |_| -> Result<()> { panic!("not all have come") };
            let _ = send.send(waiting.reset(0, 2, Epoch::new(0), clear));
        });
        let error = receive.recv_timeout(LONG).unwrap().unwrap_err();
        let Error::ResetIncomplete {
            rank: 0,
            missing,
            waited,
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(missing, [1]);
        assert!(waited >= SHORT);
        assert!(board.failure(0, 3).is_some(), "it stays failed");
        board.set_timeout(0, LONG);
        board.set_timeout(1, LONG);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| board.reset(1, 2, Epoch::new(0), |_| Ok(())));
            board.reset(0, 2, Epoch::new(0), |_| Ok(())).unwrap();
            other.join().unwrap().unwrap();
        });
        assert!(board.failure(0, 3).is_none());
    }

    #[test]
    fn a_rank_that_cannot_clear_fails_the_reset_of_all() {
        let board = board(LONG);
        let results = all(&board, &|rank, _| match rank {
            1 => Err(Error::argument("device", "broken", "whole")),
            _ => Ok(()),
        });
        assert!(matches!(results[1], Err(Error::InvalidArgument { .. })));
        for rank in [0, 2] {
            let incomplete = matches!(results[rank], Err(Error::ResetIncomplete { .. }));
            assert!(incomplete, "{:?}", results[rank]);
        }
        assert!(matches!(
            board.failure(0, 3),
            Some(Error::GroupFailed { .. })
        ));
        let results = all(&board, &|_, _| Ok(()));
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert!(board.failure(0, 3).is_none());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_group_that_has_lost_a_process_cannot_be_reset() {
        // Before the failure, after it, and while ranks wait for the one that has gone.
        for moment in 0..3 {
            let board = board(LONG);
            std::thread::scope(|scope| {
                if moment < 2 {
                    board.lose(0, 1);
                }
                let reset = scope.spawn(|| board.reset(0, 2, Epoch::new(0), |_| Ok(())));
                if moment == 2 {
                    std::thread::sleep(SHORT);
                    board.lose(0, 1);
                }
                let error = reset.join().unwrap().unwrap_err();
                assert!(
                    matches!(error, Error::PeerLost { rank: 0, peer: 1 }),
                    "{error}"
                );
            });
        }
    }
}
