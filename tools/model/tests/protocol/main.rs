//! The exchange protocol under loom, which runs the interleavings of a small group, with every
//! value that a relaxed load may return, within a bound on preemptions.
//!
//! The endpoint is the crate's own; memory and waiting are loom's. Every control breaks one rule and
//! must make the model fail, for the reason given.
//!
//! What loom cannot see: it executes the accesses of a thread in order, so a load never returns a
//! value that is stored later (load buffering), and what the fences do for the reads of `collect`
//! goes unchecked. It does reorder stores of different threads to one packet, so it sees what the
//! fences do for `scrub`. It knows Rust's memory model, not that of a GPU.

mod group;
mod memory;

use group::Case;
use memory::Fault;
use std::panic::{catch_unwind, AssertUnwindSafe};
use trellink::protocol::SCRUB_PERIOD;

/// Scrubs one half at the end of every call.
const EVERY_CALL: u32 = 2;

/// A first call that no scrub of the normal period is near to.
const FAR_FROM_SCRUB: u32 = 8;

/// Every rank sends and obtains every call's packets, and is at most one call ahead.
fn complete(case: Case) {
    let seen = case.check();
    println!("{seen:?}");
    assert_eq!(seen.skew.into_inner(), 1, "calls by which a rank is ahead");
    assert_eq!(seen.ended.into_inner(), 0);
    assert!(seen.finished.into_inner() > 0);
}

/// Some execution fails, and for the reason that the fault gives.
fn fails(case: Case, reason: &str) {
    let faults = case.faults;
    let panic = catch_unwind(AssertUnwindSafe(|| case.check()))
        .expect_err(&format!("{faults:?} went unnoticed"));
    let message = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
        .expect("panics carry text");
    assert!(message.contains(reason), "{faults:?}: {message}");
}

fn faulty(faults: &'static [Fault], first_epoch: u32, scrub_period: u32) -> Case {
    Case {
        faults,
        first_epoch,
        scrub_period,
        ..Case::new(2, 4)
    }
}

#[test]
fn two_ranks_lose_no_packet_and_mistake_none_for_another() {
    for first_epoch in [0, 7] {
        complete(Case {
            first_epoch,
            preemptions: 3,
            ..Case::new(2, 6)
        });
    }
}

#[test]
fn two_ranks_pass_the_wrap_of_the_epoch() {
    for first_epoch in [u32::MAX - 1, u32::MAX] {
        complete(Case {
            first_epoch,
            preemptions: 3,
            ..Case::new(2, 6)
        });
    }
}

#[test]
fn two_ranks_scrub_while_the_other_goes_on() {
    complete(Case {
        scrub_period: EVERY_CALL,
        preemptions: 3,
        ..Case::new(2, 6)
    });
}

/// The packets that nobody collects may arrive during the scrub or after it.
#[test]
fn scrub_and_late_packets_of_the_same_call_do_not_matter_to_later_calls() {
    complete(Case {
        scrub_period: EVERY_CALL,
        lengths: |call| if call % 4 < 2 { (2, 1) } else { (2, 2) },
        ..Case::new(2, 4)
    });
}

#[test]
fn three_ranks_lose_no_packet() {
    complete(Case {
        preemptions: 1,
        ..Case::new(3, 3)
    });
    complete(Case {
        preemptions: 0,
        ..Case::new(3, 5)
    });
}

#[test]
fn three_ranks_scrub_while_the_others_go_on() {
    complete(Case {
        scrub_period: EVERY_CALL,
        preemptions: 1,
        ..Case::new(3, 3)
    });
}

#[test]
fn an_abort_ends_every_wait_and_spoils_no_sum() {
    let seen = Case {
        aborted: true,
        scrub_period: EVERY_CALL,
        ..Case::new(2, 4)
    }
    .check();
    println!("{seen:?}");
    assert!(seen.ended.into_inner() > 0 && seen.finished.into_inner() > 0);
}

#[test]
fn an_abort_ends_the_waits_of_three_ranks() {
    let seen = Case {
        aborted: true,
        leaves_before: Some(1),
        preemptions: 0,
        ..Case::new(3, 3)
    }
    .check();
    println!("{seen:?}");
    assert!(seen.ended.into_inner() > 0);
}

#[test]
fn an_abort_ends_the_wait_for_a_rank_that_left() {
    for call in 0..3 {
        let seen = Case {
            aborted: true,
            leaves_before: Some(call),
            preemptions: 3,
            ..Case::new(2, 3)
        }
        .check();
        println!("{seen:?}");
        // The rank that stays can only be ended, never finish.
        assert_eq!(seen.finished.into_inner(), 0);
        assert!(seen.ended.into_inner() > 0);
    }
}

/// Rank 1 calls in another order than the rest.
fn differing(world: usize) -> Case {
    Case {
        operations: |rank, call| {
            if rank == 1 {
                (call ^ 1) as u16
            } else {
                call as u16
            }
        },
        ..Case::new(world, 3)
    }
}

#[test]
fn ranks_that_call_something_else_get_no_sum_and_find_out() {
    for case in [
        Case {
            preemptions: 3,
            scrub_period: EVERY_CALL,
            ..differing(2)
        },
        Case {
            preemptions: 1,
            ..differing(3)
        },
    ] {
        let seen = case.check();
        println!("{seen:?}");
        assert_eq!(seen.finished.into_inner(), 0);
        assert!(seen.mismatches.into_inner() > 0);
    }
}

#[test]
fn control_operation_ignored() {
    fails(
        Case {
            faults: &[Fault::OperationIgnored],
            ..differing(2)
        },
        "wrong sum",
    );
}

#[test]
fn control_scrub_without_release() {
    fails(faulty(&[Fault::NoRelease], 0, EVERY_CALL), "endless wait");
}

#[test]
fn control_scrub_without_acquire() {
    fails(faulty(&[Fault::NoAcquire], 0, EVERY_CALL), "endless wait");
}

#[test]
fn control_three_ranks_with_one_half_or_without_fences() {
    let case = |faults, scrub_period| Case {
        preemptions: 1,
        ..Case {
            faults,
            scrub_period,
            ..Case::new(3, 3)
        }
    };
    fails(case(&[Fault::OneHalf], SCRUB_PERIOD), "Ahead");
    fails(case(&[Fault::NoRelease], EVERY_CALL), "endless wait");
    fails(case(&[Fault::NoAcquire], EVERY_CALL), "endless wait");
}

#[test]
fn control_scrub_of_the_other_half() {
    fails(
        faulty(&[Fault::ScrubsOtherHalf], 0, EVERY_CALL),
        "endless wait",
    );
}

#[test]
fn control_one_half() {
    fails(
        faulty(&[Fault::OneHalf], FAR_FROM_SCRUB, SCRUB_PERIOD),
        "Ahead",
    );
}

#[test]
fn control_one_half_with_later_packets_taken_for_current() {
    fails(
        faulty(
            &[Fault::OneHalf, Fault::AheadIsCurrent],
            FAR_FROM_SCRUB,
            SCRUB_PERIOD,
        ),
        "wrong sum",
    );
}

#[test]
fn control_one_half_with_later_packets_waited_out() {
    fails(
        faulty(
            &[Fault::OneHalf, Fault::AheadIsStale],
            FAR_FROM_SCRUB,
            SCRUB_PERIOD,
        ),
        "endless wait",
    );
}

#[test]
fn control_plain_comparison_at_the_wrap() {
    fails(
        faulty(&[Fault::PlainOrder], u32::MAX - 1, SCRUB_PERIOD),
        "wrong sum",
    );
    // Away from the wrap it is as good as the other: the control is about nothing else.
    complete(faulty(&[Fault::PlainOrder], FAR_FROM_SCRUB, SCRUB_PERIOD));
}

#[test]
fn control_initial_tag_zero_near_the_wrap() {
    fails(
        faulty(&[Fault::InitialTagZero], u32::MAX - 1, SCRUB_PERIOD),
        "Ahead",
    );
}

/// Not a claim about the protocol: without scrub the fences only order loads, which loom does not
/// reorder. Should this fail one day, loom has learnt it, and it becomes a control.
#[test]
fn limit_of_the_model_fences_without_scrub() {
    complete(faulty(
        &[Fault::NoRelease, Fault::NoAcquire],
        FAR_FROM_SCRUB,
        SCRUB_PERIOD,
    ));
}
