//! Negative controls: calls by kernels that are wrong on purpose, of which the tests of the exchange would not
//! be worth much if they passed; and by kernels that take their time, which must change nothing.

use crate::common::*;
use half::f16;
use rand::{rngs::StdRng, SeedableRng};
use std::time::Duration;
use trellink::format::{Codebook, DType};
use trellink::reference::ReferenceLinear;
use trellink::{Arithmetic, Choices, Epilogue, ReduceForm, Split};
use trellink_sim::Fault::{self, *};
use trellink_sim::{Buffer, Reduction, SimGroup, SimLinear, SimOutput, SimRank};

const K: usize = 256;
const N: usize = 128;
/// Calls of a case: delays make them slow.
const CALLS: usize = 6;

/// No call of a few renews tags. With one half a delayed CTA would do that to packets of its own call, and all wait.
const FIRST_EPOCH: usize = 2;
/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(600);

/// The states of a report.
pub const OK: u32 = 0;
const PEER_TIMEOUT: u32 = 1;
pub const STOPPED: u32 = 3;
const MISMATCH: u32 = 4;

/// What a rank has seen.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Seen {
    /// Of its report: state, peer, epoch.
    report: (u32, u32, u32),
    /// Calls whose sums were wrong though nothing was reported.
    wrong: usize,
}

/// So many calls of a row-parallel layer on every rank, each with another input; a rank ends with its
/// first failure. Before each call a rank may change its settings.
fn run_with(
    world: usize,
    faults: &[Fault],
    calls: usize,
    before: impl Fn(usize, &mut SimRank, usize) + Sync,
) -> Vec<Seen> {
    let mut rng = StdRng::seed_from_u64(50);
    let random = Random::new(&mut rng, K, N, Codebook::Mul1, rate(4));
    let linear = random.linear();
    let split = Split::even(K, world).unwrap();
    let inputs: Vec<Vec<f16>> = (0..calls).map(|_| random_input(&mut rng, K)).collect();
    let reference = ReferenceLinear::new(&linear);
    let wants: Vec<Vec<f64>> = inputs
        .iter()
        .map(|x| reference.forward(&wide(x), 1))
        .collect();
    let config = SimGroup {
        first_epoch: FIRST_EPOCH as u32,
        ..group(world)
    };
    on_ranks(&config, |rank, mut sim| {
        sim.set_faults(faults);
        let layer = SimLinear::new(&linear.rows(split.range(rank)).unwrap());
        let mut wrong = 0;
        for (call, (x, want)) in inputs.iter().zip(&wants).enumerate() {
            before(rank, &mut sim, call);
            let y = row_parallel_call(
                &mut sim,
                Arithmetic::Fastest,
                &layer,
                &columns_of(x, K, split.range(rank)),
                (1, N),
            );
            if sim.report().0 != OK {
                break;
            }
            wrong += usize::from(error(&y, want) > 4e-4);
        }
        let (state, peer, epoch, _) = sim.report();
        Seen {
            report: (state, peer, epoch),
            wrong,
        }
    })
}

fn run(world: usize, faults: &[Fault], calls: usize) -> Vec<Seen> {
    run_with(world, faults, calls, |_, _, _| {})
}

/// The first run of kernels with these faults of which something is noticed. Whether a peer gets a call ahead while
/// another one is held up is the machine's affair.
fn run_until(faults: &[Fault], timeout: Duration, noticed: impl Fn(&Seen) -> bool) -> Vec<Seen> {
    for _ in 0..20 {
        let seen = run_with(2, faults, CALLS, |_, sim, _| sim.set_timeout(timeout));
        if seen.iter().any(&noticed) {
            return seen;
        }
    }
    panic!("nobody has noticed {faults:?}");
}

/// A one-shot all-reduce of so many ones.
fn all_reduce_ones(sim: &mut SimRank, len: usize) {
    let output = SimOutput {
        data: Buffer::new(&vec![0f32; len]),
        dtype: DType::F32,
        epilogue: Epilogue::Store,
    };
    sim.all_reduce(&Reduction {
        input: &Buffer::new(&vec![1f32; len]),
        dtype: DType::F32,
        len,
        form: ReduceForm::OneShot,
        output: &output,
    });
}

#[test]
fn without_a_fault_all_sums_are_right() {
    let good = Seen {
        report: (OK, 0, 0),
        wrong: 0,
    };
    assert_eq!(run(2, &[], CALLS), [good; 2]);
}

#[test]
fn delayed_ctas_and_ranks_change_no_sum() {
    for faults in [&[DelayedCta][..], &[DelayedRank]] {
        for world in [2, 3] {
            for seen in run(world, faults, CALLS) {
                assert_eq!((seen.report.0, seen.wrong), (OK, 0), "{faults:?}");
            }
        }
    }
}

/// A CTA that nobody waits for would rewrite tags when peers are a call ahead, and with them their packets.
#[test]
fn ctas_that_scrub_late_cost_no_packet_of_an_all_reduce() {
    let config = SimGroup {
        sms: 6,
        scrub_period: 4,
        ..group(2)
    };
    // In five CTAs of 160 threads; a sixth would have none.
    let len = 774 * 8;
    let states = on_ranks(&config, |_, mut sim| {
        sim.set_faults(&[DelayedCta]);
        for _ in 0..CALLS {
            all_reduce_ones(&mut sim, len);
        }
        sim.report().0
    });
    assert_eq!(states, [OK; 2]);
}

/// As above, where one CTA of a cluster sends everything.
#[test]
fn ctas_of_clusters_that_scrub_late_cost_no_packet() {
    // Two clusters; what the second CTA of the first rewrites holds packets of a call.
    const ROWS: usize = 7;
    const N: usize = 256;
    let config = SimGroup {
        sms: 4,
        cluster_pairs: 2,
        scrub_period: 4,
        choices: Choices {
            k_splits: Some(2),
            ..Choices::default()
        },
        ..group(2)
    };
    let mut rng = StdRng::seed_from_u64(51);
    let random = Random::new(&mut rng, K, N, Codebook::Mul1, rate(4));
    let linear = random.linear();
    let split = Split::even(K, 2).unwrap();
    let x = random_input(&mut rng, ROWS * K);
    let want = ReferenceLinear::new(&linear).forward(&wide(&x), ROWS);
    let seen = on_ranks(&config, |rank, mut sim| {
        sim.set_faults(&[DelayedCta]);
        let layer = SimLinear::new(&linear.rows(split.range(rank)).unwrap());
        let x = columns_of(&x, K, split.range(rank));
        let mut worst = 0f64;
        for _ in 0..CALLS {
            let y = row_parallel_call(&mut sim, Arithmetic::Fastest, &layer, &x, (ROWS, N));
            worst = worst.max(error(&y, &want));
        }
        (sim.report().0, worst)
    });
    for (state, worst) in seen {
        assert!(state == OK && worst < 4e-4, "state {state}, error {worst}");
    }
}

/// While a packet of the caller itself is late, too.
#[test]
fn a_mismatch_names_the_rank_whose_packet_is_wrong() {
    let mut rng = StdRng::seed_from_u64(52);
    let random = Random::new(&mut rng, K, N, Codebook::Mul1, rate(4));
    let linear = random.linear();
    let split = Split::even(K, 2).unwrap();
    let mut seen = 0;
    // In these calls it is rank 1 that has a CTA delayed, in one of them the one that would find the mismatch. Which
    // thread finds it first is up to chance, and so is whether that thread misses a packet of its own rank.
    for first_epoch in (4..7).cycle().take(15) {
        let config = SimGroup {
            first_epoch,
            ..group(2)
        };
        let reports = on_ranks(&config, |rank, mut sim| {
            sim.set_faults(&[DelayedCta]);
            let layer = SimLinear::new(&linear.rows(split.range(rank)).unwrap());
            let rows = 1 + rank;
            let x = vec![f16::ONE; rows * K / 2];
            row_parallel_call(&mut sim, Arithmetic::Fastest, &layer, &x, (rows, N));
            sim.report()
        });
        // Whoever is told of the other's failure before it has found one says so.
        for (rank, (state, peer, ..)) in reports.into_iter().enumerate() {
            if state == MISMATCH {
                assert_eq!(peer as usize, 1 - rank);
                seen += rank;
            }
        }
    }
    assert!(seen > 0, "rank 1 has found no mismatch");
}

#[test]
fn a_dropped_packet_ends_in_a_timeout_that_names_its_sender() {
    // It is lost in epoch 15; rank 1 has all packets of that one and waits in the next.
    let seen = run_with(2, &[DroppedPacket], 16, |rank, sim, call| {
        if (rank, FIRST_EPOCH + call) == (0, 15) {
            sim.set_timeout(Duration::from_secs(1));
        }
    });
    assert_eq!(seen[0].report, (PEER_TIMEOUT, 1, 15), "{seen:?}");
    let (state, _, epoch) = seen[1].report;
    assert_eq!((state, epoch), (STOPPED, 16), "{seen:?}");
    assert_eq!((seen[0].wrong, seen[1].wrong), (0, 0));
}

/// By the delays: a peer that is a call ahead overwrites what has not been read.
#[test]
fn control_one_half() {
    for delay in [DelayedCta, DelayedRank] {
        run_until(&[OneHalf, delay], LONG, |seen| seen.report.0 == MISMATCH);
    }
}

#[test]
fn control_one_half_with_later_packets_waited_out() {
    let faults = [OneHalf, Equal, DelayedRank];
    let seen = run_until(&faults, Duration::from_secs(3), |seen| {
        seen.report.0 == PEER_TIMEOUT
    });
    assert!(
        seen.iter().all(|seen| seen.report.0 != MISMATCH),
        "{seen:?}"
    );
}

#[test]
fn control_tags_not_compared() {
    let seen = run(2, &[AnyTag], CALLS);
    assert!(seen.iter().any(|seen| seen.wrong > 0), "{seen:?}");
}

/// Comparing with `==` finds nothing wrong with another call, and waits for ever.
#[test]
fn control_another_call_taken_for_a_late_one() {
    let states = |faults: &[Fault], timeout| {
        let config = SimGroup {
            timeout,
            ..group(2)
        };
        on_ranks(&config, |rank, mut sim| {
            sim.set_faults(faults);
            all_reduce_ones(&mut sim, 256 + 256 * rank);
            sim.report().0
        })
    };
    assert!(states(&[], LONG).contains(&MISMATCH));
    let waited = states(&[Equal], Duration::from_millis(300));
    assert!(
        waited.contains(&PEER_TIMEOUT) && !waited.contains(&MISMATCH),
        "{waited:?}"
    );
}
