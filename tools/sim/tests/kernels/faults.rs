//! Negative controls: calls by kernels that are wrong on purpose, of which the tests of the exchange would not
//! be worth much if they passed; and by kernels that take their time, which must change nothing.

use crate::common::*;
use half::f16;
use rand::{rngs::StdRng, SeedableRng};
use std::time::Duration;
use trellink::format::{Codebook, DType};
use trellink::reference::ReferenceLinear;
use trellink::{Arithmetic, Epilogue, ReduceForm, Split};
use trellink_sim::Fault::{self, *};
use trellink_sim::{Buffer, Call, Channel, Reduction, SimGroup, SimLinear, SimOutput, SimRank};

const K: usize = 256;
const N: usize = 128;
/// Calls of a case: delays make them slow.
const CALLS: usize = 6;

/// The states of a report.
const OK: u32 = 0;
const PEER_TIMEOUT: u32 = 1;
const STOPPED: u32 = 3;
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
/// first failure.
fn run(world: usize, faults: &[Fault], calls: usize) -> Vec<Seen> {
    let config = SimGroup {
        timeout: Duration::from_secs(3),
        ..group(world)
    };
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
    let run = |(rank, mut sim): (usize, SimRank)| {
        sim.set_faults(faults);
        let layer = SimLinear::new(&linear.rows(split.range(rank)).unwrap());
        let mut wrong = 0;
        for (x, want) in inputs.iter().zip(&wants) {
            let y = row_parallel_call(&mut sim, &layer, &columns_of(x, K, split.range(rank)));
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
    };
    on_all(config.build(), run)
}

fn on_all<T: Send>(ranks: Vec<SimRank>, run: impl Fn((usize, SimRank)) -> T + Sync) -> Vec<T> {
    let run = &run;
    std::thread::scope(|scope| {
        let ranks = ranks.into_iter().enumerate();
        let threads: Vec<_> = ranks.map(|r| scope.spawn(move || run(r))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.collect()
    })
}

fn row_parallel_call(sim: &mut SimRank, layer: &SimLinear, x: &[f16]) -> Vec<f32> {
    let output = SimOutput {
        data: Buffer::new(&[f32::NAN; N]),
        dtype: DType::F32,
        epilogue: Epilogue::Store,
    };
    let call = Call {
        layers: &[layer],
        input: &Buffer::new(x),
        dtype: DType::F16,
        rows: 1,
        arithmetic: Arithmetic::Fastest,
        outputs: &[&output],
    };
    sim.run(Channel::Group, &call);
    output.data.read()
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

#[test]
fn a_dropped_packet_ends_in_a_timeout_that_names_its_sender() {
    // It is lost in call 15.
    let seen = run(2, &[DroppedPacket], 17);
    let (state, peer, epoch) = seen[0].report;
    // Rank 1 has all packets of that call and waits in the next one; it may give up first.
    assert!([PEER_TIMEOUT, STOPPED].contains(&state), "{seen:?}");
    assert_eq!((peer, epoch, seen[1].report.2), (1, 15, 16), "{seen:?}");
    assert_eq!((seen[0].wrong, seen[1].wrong), (0, 0));
}

/// By the delays: a peer that is a call ahead overwrites what has not been read.
#[test]
fn control_one_half() {
    for delay in [DelayedCta, DelayedRank] {
        let seen = run(2, &[OneHalf, delay], CALLS);
        assert!(
            seen.iter().any(|seen| seen.report.0 == MISMATCH),
            "{seen:?}"
        );
    }
}

#[test]
fn control_one_half_with_later_packets_waited_out() {
    let seen = run(2, &[OneHalf, Equal, DelayedRank], CALLS);
    let states: Vec<u32> = seen.iter().map(|seen| seen.report.0).collect();
    assert!(states.contains(&PEER_TIMEOUT), "{seen:?}");
    assert!(!states.contains(&MISMATCH), "{seen:?}");
}

#[test]
fn control_tags_not_compared() {
    let seen = run(2, &[AnyTag], CALLS);
    assert!(seen.iter().any(|seen| seen.wrong > 0), "{seen:?}");
}

/// Comparing with `==` finds nothing wrong with another call, and waits for ever.
#[test]
fn control_another_call_taken_for_a_late_one() {
    let config = SimGroup {
        timeout: Duration::from_millis(300),
        ..group(2)
    };
    let states = |faults: &[Fault]| {
        on_all(config.build(), |(rank, mut sim)| {
            sim.set_faults(faults);
            let output = SimOutput {
                data: Buffer::new(&[0u32; 512]),
                dtype: DType::F32,
                epilogue: Epilogue::Store,
            };
            sim.all_reduce(&Reduction {
                input: &Buffer::new(&[1f32; 512]),
                dtype: DType::F32,
                len: 256 + 256 * rank,
                form: ReduceForm::OneShot,
                output: &output,
            });
            sim.report().0
        })
    };
    assert!(states(&[]).contains(&MISMATCH));
    let waited = states(&[Equal]);
    assert!(
        waited.contains(&PEER_TIMEOUT) && !waited.contains(&MISMATCH),
        "{waited:?}"
    );
}
