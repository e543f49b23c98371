//! Epochs, scrubbing, failures.

use crate::common::*;
use half::f16;
use rand::{rngs::StdRng, SeedableRng};
use std::time::Duration;
use trellink::format::{Bits, Codebook, DType};
use trellink::reference::ReferenceLinear;
use trellink::{Arithmetic, Epilogue, ReduceForm, Split};
use trellink_sim::{Buffer, Call, Channel, Reduction, SimGroup, SimLinear, SimOutput};

/// A deadline that no launch meets unless it waits in vain: on a busy machine one may take more than a minute.
const LONG: Duration = Duration::from_secs(600);

#[test]
fn many_calls_wrap_the_epoch_and_scrub_and_stay_right() {
    let mut rng = StdRng::seed_from_u64(10);
    let config = SimGroup {
        first_epoch: u32::MAX - 3,
        scrub_period: 4,
        slot_values: 1024,
        ..group(2)
    };
    let random = Random::new(
        &mut rng,
        256,
        128,
        Codebook::Mul1,
        Bits::from_half_bits(4).unwrap(),
    );
    let linear = random.linear();
    let split = Split::even(256, 2).unwrap();
    let inputs: Vec<Vec<f16>> = (0..12)
        .map(|i| random_input(&mut rng, (i % 5 + 1) * 256))
        .collect();
    let reference = ReferenceLinear::new(&linear);
    on_ranks(&config, |rank, mut sim| {
        let layer = SimLinear::new(&linear.rows(split.range(rank)).unwrap());
        for x in &inputs {
            let rows = x.len() / 256;
            let input = Buffer::new(&columns_of(x, 256, split.range(rank)));
            let output = SimOutput {
                data: Buffer::new(&vec![f32::NAN; rows * 128]),
                dtype: DType::F32,
                epilogue: Epilogue::Store,
            };
            let call = Call {
                layers: &[&layer],
                input: &input,
                dtype: DType::F16,
                rows,
                arithmetic: Arithmetic::Fastest,
                outputs: &[&output],
            };
            sim.run(Channel::Group, &call);
            let want = reference.forward(&wide(x), rows);
            assert!(error(&output.data.read::<f32>(), &want) < 4e-4);
        }
        assert_eq!(
            sim.control(Channel::Group),
            ((u32::MAX - 3).wrapping_add(12), 0)
        );
    });
}

#[test]
fn a_rank_whose_peer_never_calls_gives_up_names_it_and_stays_failed() {
    let mut rng = StdRng::seed_from_u64(11);
    let config = SimGroup {
        timeout: Duration::from_millis(200),
        ..group(2)
    };
    let random = Random::new(
        &mut rng,
        128,
        128,
        Codebook::Mul1,
        Bits::from_half_bits(8).unwrap(),
    );
    let layer = SimLinear::new(&random.linear());
    let input = Buffer::new(&random_input(&mut rng, 128));
    let output = SimOutput {
        data: Buffer::new(&[f32::NAN; 128]),
        dtype: DType::F32,
        epilogue: Epilogue::Store,
    };
    let call = Call {
        layers: &[&layer],
        input: &input,
        dtype: DType::F16,
        rows: 1,
        arithmetic: Arithmetic::Fastest,
        outputs: &[&output],
    };
    let mut ranks = config.build();
    ranks[0].run(Channel::Group, &call);
    assert_eq!(
        ranks[0].report(),
        (1, 1, 1, 0),
        "timed out, on peer 1, at epoch 1"
    );
    assert_eq!(ranks[0].control(Channel::Group).1, 1);
    ranks[0].set_timeout(LONG);
    let begun = std::time::Instant::now();
    ranks[0].run(Channel::Group, &call);
    assert!(begun.elapsed() < LONG, "a failed group's launch waits");
    assert!(
        output.data.read::<f32>().iter().all(|y| y.is_nan()),
        "outputs are untouched"
    );
}

/// Runs calls of one row-parallel layer on every rank at once, of so many rows each; `skip` says how
/// many epochs to skip before a call.
fn calls(config: &SimGroup, seed: u64, rows: &[usize], skip: impl Fn(usize) -> u32 + Sync) {
    let mut rng = StdRng::seed_from_u64(seed);
    let random = Random::new(&mut rng, 256, 256, Codebook::Mul1, rate(4));
    let linear = random.linear();
    let split = Split::even(256, config.world).unwrap();
    let inputs: Vec<Vec<f16>> = rows
        .iter()
        .map(|rows| random_input(&mut rng, rows * 256))
        .collect();
    let reference = ReferenceLinear::new(&linear);
    let wants: Vec<Vec<f64>> = inputs
        .iter()
        .map(|x| reference.forward(&wide(x), x.len() / 256))
        .collect();
    on_ranks(config, |rank, mut sim| {
        let layer = SimLinear::new(&linear.rows(split.range(rank)).unwrap());
        for (i, (x, want)) in inputs.iter().zip(&wants).enumerate() {
            sim.skip(Channel::Group, skip(i));
            let input = Buffer::new(&columns_of(x, 256, split.range(rank)));
            let output = SimOutput {
                data: Buffer::new(&vec![f32::NAN; want.len()]),
                dtype: DType::F32,
                epilogue: Epilogue::Store,
            };
            let call = Call {
                layers: &[&layer],
                input: &input,
                dtype: DType::F16,
                rows: x.len() / 256,
                arithmetic: Arithmetic::Fastest,
                outputs: &[&output],
            };
            sim.run(Channel::Group, &call);
            assert_eq!(sim.report().0, 0, "call {i}");
            let error = error(&output.data.read::<f32>(), want);
            assert!(error < 4e-4, "call {i}: {error}");
        }
    });
}

#[test]
fn packets_that_no_call_has_touched_for_half_of_all_epochs_are_not_ahead() {
    let config = SimGroup {
        scrub_period: 4,
        slot_values: 4096,
        ..group(2)
    };
    // Epochs 1 to 11, then two after 2^15: beyond the reach of the first tags, not of the scrubbed.
    let skip = |call| if call == 11 { (1 << 15) - 8 } else { 0 };
    let rows = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 8, 8];
    calls(&config, 34, &rows, skip);
}

#[test]
fn scrubbing_after_every_call_takes_no_packet_from_a_warp_that_still_waits() {
    let config = SimGroup {
        scrub_period: 2,
        slot_values: 16 * 256,
        sms: 4,
        ..group(2)
    };
    calls(&config, 35, &[16, 15, 16, 1, 16, 14], |_| 0);
}

/// Runs the call of one row of a small layer on a rank, whatever becomes of it.
fn call_once(rank: &mut trellink_sim::SimRank) {
    call_rows(rank, 1, DType::F32);
}

/// The same of some rows and with this output; which a failed call leaves alone.
fn call_rows(rank: &mut trellink_sim::SimRank, rows: usize, dtype: DType) {
    let mut rng = StdRng::seed_from_u64(36);
    let random = Random::new(&mut rng, 128, 128, Codebook::Mul1, rate(8));
    let layer = SimLinear::new(&random.linear());
    let input = Buffer::new(&random_input(&mut rng, rows * 128));
    let output = SimOutput {
        data: Buffer::new(&vec![0xffu8; rows * 128 * dtype.size()]),
        dtype,
        epilogue: Epilogue::Store,
    };
    let call = Call {
        layers: &[&layer],
        input: &input,
        dtype: DType::F16,
        rows,
        arithmetic: Arithmetic::Fastest,
        outputs: &[&output],
    };
    rank.run(Channel::Group, &call);
    untouched(&output);
}

/// Runs an all-reduce of 512 elements on a rank, whatever becomes of it.
fn reduce_once(rank: &mut trellink_sim::SimRank, form: ReduceForm) {
    let output = SimOutput {
        data: Buffer::new(&[0xffu8; 2048]),
        dtype: DType::F32,
        epilogue: Epilogue::Store,
    };
    rank.all_reduce(&Reduction {
        input: &Buffer::new(&[1f32; 512]),
        dtype: DType::F32,
        len: 512,
        form,
        output: &output,
    });
    untouched(&output);
}

fn untouched(output: &SimOutput) {
    let bytes = output.data.read::<u8>();
    let same = bytes.iter().all(|byte| *byte == 0xff);
    assert!(same, "the outputs of a failed call");
}

/// What a rank may call.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Thing {
    Layer(usize, DType),
    Reduce(ReduceForm),
}

impl Thing {
    fn call(self, rank: &mut trellink_sim::SimRank) {
        match self {
            Thing::Layer(rows, dtype) => call_rows(rank, rows, dtype),
            Thing::Reduce(form) => reduce_once(rank, form),
        }
    }
}

#[test]
fn ranks_that_call_different_things_fail_both_and_touch_no_output() {
    let things = [
        Thing::Layer(1, DType::F32),
        Thing::Layer(3, DType::F32),
        Thing::Layer(1, DType::F16),
        Thing::Reduce(ReduceForm::OneShot),
        Thing::Reduce(ReduceForm::TwoShot),
    ];
    for (i, here) in things.iter().enumerate() {
        for there in &things[i + 1..] {
            let mut ranks = SimGroup {
                timeout: LONG,
                ..group(2)
            }
            .build();
            std::thread::scope(|scope| {
                for (rank, thing) in ranks.iter_mut().zip([here, there]) {
                    scope.spawn(|| thing.call(rank));
                }
            });
            let states = [0, 1].map(|rank| ranks[rank].report().0);
            // A rank may be stopped by the other before it sees for itself.
            let (mismatch, stopped) = (4, 3);
            assert!(
                states
                    .iter()
                    .all(|state| [mismatch, stopped].contains(state)),
                "{here:?}, {there:?}: {states:?}"
            );
            assert!(states.contains(&mismatch), "{here:?}, {there:?}");
            // And for ever: neither waits nor touches anything.
            let begun = std::time::Instant::now();
            ranks.iter_mut().for_each(|rank| here.call(rank));
            assert!(begun.elapsed() < LONG);
        }
    }
}

/// Everything that it would wait for is there.
#[test]
fn a_rank_that_comes_after_the_failure_does_not_begin() {
    let config = SimGroup {
        timeout: Duration::from_millis(200),
        ..group(2)
    };
    let mut ranks = config.build();
    call_once(&mut ranks[0]);
    call_once(&mut ranks[1]);
    let (state, peer, ..) = ranks[1].report();
    assert_eq!((state, peer), (3, 1), "stopped, and by no wait");
}

#[test]
fn the_tile_that_is_missing_is_named() {
    let config = SimGroup {
        timeout: Duration::from_millis(200),
        sms: 1,
        ..group(2)
    };
    let mut ranks = config.build();
    call_rows(&mut ranks[0], 5, DType::F32);
    let (tile, rows) = ranks[0].reported_place();
    // One of the five that a warp waited for.
    assert!(tile < 5 && rows == 5, "tile {tile} of {rows} rows");
}

#[test]
fn a_rank_that_gave_up_stops_the_others_which_blame_nobody() {
    let config = SimGroup {
        timeout: Duration::from_millis(200),
        ..group(3)
    };
    let mut ranks = config.build();
    call_once(&mut ranks[0]);
    call_once(&mut ranks[2]);
    assert_eq!(ranks[0].control(Channel::Group).1, 1, "timed out");
    assert_eq!(ranks[2].report().0, 3, "stopped, which is no cause");
}

#[test]
fn a_peer_that_is_calls_ahead_is_named_with_its_epoch() {
    let config = SimGroup {
        first_epoch: u32::MAX,
        ..group(2)
    };
    let mut ranks = config.build();
    ranks[1].skip(Channel::Group, 2);
    std::thread::scope(|scope| {
        for rank in &mut ranks {
            scope.spawn(|| call_once(rank));
        }
    });
    let (state, peer, epoch, found) = ranks[0].report();
    assert_eq!((state, peer, epoch), (2, 1, u32::MAX), "ahead, peer 1");
    assert_eq!(found >> 16, 1, "the epoch that its packet is of");
    assert_ne!(ranks[1].report().0, 1, "stopped before the deadline");
}
