//! What a board tells of a failure.

use super::*;
use crate::format::DType;
use crate::protocol::{Epoch, Operation, OperationKind};
use crate::Epilogue;

fn timeout(rank: usize, peer: usize) -> Failure {
    Failure {
        state: STATE_PEER_TIMEOUT,
        rank,
        peer,
        epoch: 7,
        found: 0,
        tile: 5,
        waited: Duration::from_millis(3),
        operation: Some(operation(rank as u32)),
    }
}

fn operation(rows: u32) -> Operation {
    Operation {
        kind: OperationKind::RowParallel,
        rows,
        columns: 256,
        input: DType::F16,
        output: DType::F32,
        epilogue: Epilogue::Store,
        layer: 0x1234_5678,
    }
}

fn mismatch(rank: usize, peer: usize) -> Failure {
    Failure {
        state: STATE_MISMATCH,
        ..timeout(rank, peer)
    }
}

/// Which stop names: what the board says first, then what a kernel of the rank wrote, then any.
#[test]
fn a_kernels_failure_is_told_as_its_rank_met_it() {
    let board = Board::default();
    for rank in [0, 2] {
        board.reports[rank].write(&timeout(rank, 1));
    }
    board.abort.store(1, Ordering::Relaxed);
    for (rank, told) in [(0, 0), (1, 0), (2, 2)] {
        let failure = board.failure(rank);
        let named =
            matches!(failure, Some(Error::PeerTimeout { rank, peer: 1, .. }) if rank == told);
        assert!(named, "{failure:?}");
    }
}

/// A kernel that the abort word stops writes a report too, which explains nothing.
#[test]
fn who_was_only_stopped_is_told_why() {
    let board = Board::default();
    board.reports[0].write(&Failure {
        state: STATE_ABORTED,
        ..timeout(0, 0)
    });
    board.reports[2].write(&timeout(2, 1));
    board.abort.store(1, Ordering::Relaxed);
    for rank in 0..3 {
        let failure = board.failure(rank);
        let named = matches!(
            failure,
            Some(Error::PeerTimeout {
                rank: 2,
                peer: 1,
                ..
            })
        );
        assert!(named, "{failure:?}");
    }
}

/// A group of two that works again after rank 0 has failed.
fn reset_after_a_failure() -> Board {
    let board = Board::default();
    (0..2).for_each(|rank| board.set_timeout(rank, Duration::from_secs(15)));
    board.fail(&timeout(0, 1));
    std::thread::scope(|scope| {
        for rank in 0..2 {
            let board = &board;
            scope.spawn(move || board.reset(rank, 2, Epoch::new(7), |_| Ok(())).unwrap());
        }
    });
    board
}

fn tells_of_rank_1(board: &Board) {
    for rank in 0..2 {
        let failure = board.failure(rank);
        let named = matches!(failure, Some(Error::PeerTimeout { rank: 1, .. }));
        assert!(named, "{failure:?}");
    }
}

#[test]
fn a_report_from_before_a_reset_explains_nothing_after_it() {
    let board = reset_after_a_failure();
    // As a kernel fails, which names nobody.
    board.reports[1].write(&timeout(1, 0));
    board.abort.store(1, Ordering::Relaxed);
    tells_of_rank_1(&board);
}

#[test]
fn who_fails_first_after_a_reset_is_told_first() {
    let board = reset_after_a_failure();
    board.fail(&timeout(1, 0));
    board.fail(&timeout(0, 1));
    tells_of_rank_1(&board);
}

#[test]
fn a_mismatch_names_both_operations_on_both_sides() {
    let board = Board::default();
    board.fail(&mismatch(0, 1));
    board.fail(&Failure {
        state: STATE_ABORTED,
        ..timeout(1, 0)
    });
    for rank in 0..2 {
        let Some(Error::Mismatch {
            rank: 0,
            peer: 1,
            own,
            theirs,
            ..
        }) = board.failure(rank)
        else {
            panic!("{:?}", board.failure(rank));
        };
        assert_eq!((own, theirs), (operation(0), Some(operation(1))));
    }
}

/// What the peer did in another call would be a wrong hint.
#[test]
fn an_operation_of_another_epoch_is_not_taken_for_the_other_side() {
    let board = Board::default();
    board.fail(&mismatch(0, 1));
    board.fail(&Failure {
        state: STATE_ABORTED,
        epoch: 8,
        ..timeout(1, 0)
    });
    let told = board.failure(0);
    assert!(
        matches!(told, Some(Error::Mismatch { theirs: None, .. })),
        "{told:?}"
    );
}

#[test]
fn who_is_ahead_is_told_with_its_whole_epoch() {
    let board = Board::default();
    board.fail(&Failure {
        state: STATE_PEER_AHEAD,
        epoch: 0x1_ffff,
        found: 0x0001_abcd,
        ..timeout(0, 1)
    });
    let told = board.failure(0);
    let named = matches!(
        told,
        Some(Error::PeerAhead {
            epoch: 0x1_ffff,
            found: 0x2_0001,
            ..
        })
    );
    assert!(named, "{told:?}");
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
        board.abort.store(1, Ordering::Relaxed);
        let told = board.failure(0);
        assert!(matches!(told, Some(Error::GroupFailed { .. })), "{told:?}");
    }
}
