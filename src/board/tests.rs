//! What a board tells of a failure.

use super::*;
use crate::format::DType;
use crate::protocol::{Epoch, Operation, OperationKind};
use crate::Epilogue;

/// Ranks of the groups here.
const WORLD: usize = 4;

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

/// A report of a rank that a stop has reached: in its wait for `peer`, or where that is itself before it began.
fn stopped(rank: usize, peer: usize) -> Failure {
    Failure {
        state: STATE_ABORTED,
        ..timeout(rank, peer)
    }
}

/// A board with reports as kernels write them.
fn board_of(reports: &[Failure]) -> Board {
    let board = Board::default();
    for failure in reports {
        board.reports[failure.rank].write(failure);
    }
    board.abort.store(1, Ordering::Relaxed);
    board
}

/// Of a timeout: who waited for whom in which epoch, and who had not begun the call; the same on all ranks.
fn told(reports: &[Failure]) -> (usize, usize, u32, Vec<usize>) {
    let board = board_of(reports);
    let told = [0, 1, 2, 3].map(|rank| match board.failure(rank, WORLD) {
        Some(Error::PeerTimeout {
            rank,
            peer,
            epoch,
            absent,
            ..
        }) => (rank, peer, epoch, absent),
        other => panic!("{other:?}"),
    });
    assert!(told.iter().all(|other| *other == told[0]), "{told:?}");
    told[0].clone()
}

#[test]
fn who_has_not_begun_the_call_is_named() {
    let reports = [timeout(0, 3), timeout(1, 3), stopped(2, 3)];
    assert_eq!(told(&reports), (0, 3, 7, vec![3]));
}

/// Rank 2 was held up by kernels on its device, as its report shows once they have ended.
#[test]
fn who_was_held_up_is_not_named_in_place_of_who_has_not_called() {
    let reports = [timeout(0, 2), timeout(1, 2), stopped(2, 2)];
    assert_eq!(told(&reports), (0, 3, 7, vec![3]));
}

/// Where a busy machine lets more than that time pass before the rank begins, another attempt is made.
#[test]
fn a_rank_that_begins_within_the_time_to_settle_is_not_absent() {
    let began_in_time = || {
        let board = board_of(&[timeout(0, 2), timeout(1, 2)]);
        let (asks, asked) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let told = scope.spawn(|| {
                asks.send(Instant::now()).unwrap();
                board.failure(0, WORLD)
            });
            let asked = asked.recv().unwrap();
            std::thread::sleep(SETTLING / 4);
            board.reports[2].write(&stopped(2, 2));
            let in_time = asked.elapsed() < SETTLING;
            let told = told.join().unwrap();
            let named = matches!(
                &told,
                Some(Error::PeerTimeout { peer: 3, absent, .. }) if *absent == [3]
            );
            assert!(named || !in_time, "{told:?}");
            in_time
        })
    };
    assert!((0..100).any(|_| began_in_time()));
}

/// A blames B and B blames C: what counts is who has begun.
#[test]
fn a_chain_of_waits_ends_at_who_has_not_begun() {
    let reports = [timeout(0, 1), timeout(1, 2), timeout(2, 3)];
    assert_eq!(told(&reports), (0, 3, 7, vec![3]));
}

#[test]
fn ranks_that_all_began_and_wait_in_a_circle_are_late_and_nobody_is_absent() {
    let reports = [timeout(0, 1), timeout(1, 2), timeout(2, 3), timeout(3, 0)];
    assert_eq!(told(&reports), (0, 1, 7, vec![]));
}

#[test]
fn of_several_that_have_not_begun_all_are_told_and_the_missed_one_is_named() {
    assert_eq!(told(&[timeout(0, 3), stopped(1, 2)]), (0, 3, 7, vec![2, 3]));
    assert_eq!(told(&[timeout(0, 1), stopped(1, 1)]), (0, 2, 7, vec![2, 3]));
}

/// A CTA that waits for others of its own rank may be the first to give up.
#[test]
fn a_rank_does_not_blame_itself_while_another_has_not_begun() {
    let reports = [timeout(0, 0), stopped(1, 3), stopped(2, 3)];
    assert_eq!(told(&reports), (0, 3, 7, vec![3]));
}

/// Nobody leaves a call without packets of all; so rank 3 was there, though it has left no report. This is what is
/// seen where packets of rank 1 are lost on their way to rank 0.
#[test]
fn who_waits_in_a_later_call_shows_that_all_have_begun_the_earlier_one() {
    let next = |failure: Failure| Failure {
        epoch: 8,
        ..failure
    };
    let reports = [timeout(0, 1), next(timeout(1, 0)), next(stopped(2, 0))];
    assert_eq!(told(&reports), (0, 1, 7, vec![]));
    let reports = [next(timeout(0, 1)), timeout(2, 1)];
    assert_eq!(told(&reports), (2, 1, 7, vec![]), "the earlier call");
    let reports = [stopped(0, 1), next(timeout(2, 0))];
    assert_eq!(told(&reports), (0, 1, 7, vec![]), "stopped in it");
    let reports = [next(timeout(2, 0)), stopped(1, 1)];
    assert_eq!(told(&reports), (2, 0, 8, vec![0, 1, 3]), "not in a wait");
}

#[test]
fn calls_across_the_wrap_of_epochs_are_in_order() {
    let at = |failure: Failure, epoch| Failure { epoch, ..failure };
    let reports = [at(timeout(0, 1), 0), at(timeout(1, 2), u32::MAX)];
    assert_eq!(told(&reports), (1, 2, u32::MAX, vec![]));
}

/// Its epochs are not those of the group, and its kernels take themselves for rank 0.
#[test]
fn a_column_parallel_call_says_nothing_of_who_has_begun_a_collective_one() {
    let local = |failure: Failure| Failure {
        operation: failure.operation.map(|operation| Operation {
            kind: OperationKind::ColumnParallel,
            ..operation
        }),
        ..failure
    };
    let board = board_of(&[timeout(0, 3), stopped(2, 2)]);
    let beside = Failure {
        rank: 0,
        ..local(stopped(1, 0))
    };
    board.reports[1].write(&beside);
    let told = board.failure(0, WORLD);
    let named = matches!(
        &told,
        Some(Error::PeerTimeout { rank: 0, peer: 3, absent, .. }) if *absent == [1, 3]
    );
    assert!(named, "{told:?}");
    let board = Board::default();
    let alone = Failure {
        rank: 0,
        ..local(timeout(2, 0))
    };
    board.reports[2].write(&alone);
    board.abort.store(1, Ordering::Relaxed);
    let told = board.failure(0, WORLD);
    let named = matches!(
        &told,
        Some(Error::PeerTimeout { rank: 2, peer: 2, absent, .. }) if absent.is_empty()
    );
    assert!(named, "{told:?}");
}

/// The first who asks waits for more to be written; all others need not.
#[test]
fn a_failure_has_its_time_to_settle_once() {
    let board = board_of(&[timeout(0, 3)]);
    let asked = Instant::now();
    assert!(board.failure(1, WORLD).is_some());
    assert!(asked.elapsed() >= SETTLING);
    assert_ne!(board.settled.load(Ordering::Relaxed), 0);
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
        let failure = board.failure(rank, WORLD);
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
        let failure = board.failure(rank, 2);
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
        }) = board.failure(rank, WORLD)
        else {
            panic!("{:?}", board.failure(rank, WORLD));
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
    let told = board.failure(0, WORLD);
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
    let told = board.failure(0, WORLD);
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
    assert!(board.failure(0, WORLD).is_none());
    assert_eq!(board.abort().load(Ordering::Relaxed), 0);
}

#[test]
fn the_first_failure_is_kept() {
    let board = Board::default();
    board.fail(&timeout(2, 1));
    board.fail(&timeout(0, 2));
    for rank in 0..3 {
        let first = board.failure(rank, WORLD);
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
        let told = board.failure(rank, WORLD);
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
    assert!(matches!(
        board.failure(0, WORLD),
        Some(Error::PeerTimeout { .. })
    ));
}

#[test]
fn words_that_no_rank_writes_are_a_failure_without_a_report() {
    for first in [3, 200, LOST | 2, LOST | 250, u32::MAX, !LOST] {
        let board = Board::default();
        board.first.store(first, Ordering::Relaxed);
        board.abort.store(1, Ordering::Relaxed);
        let told = board.failure(0, WORLD);
        assert!(matches!(told, Some(Error::GroupFailed { .. })), "{told:?}");
    }
}
