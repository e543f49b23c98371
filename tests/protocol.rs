//! The exchange protocol among ranks that are threads of this process.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use trellink::protocol::{
    ArenaLayout, Arrival, BoundedWait, Endpoint, Epoch, Packet, PacketMemory, SharedArena, Tag,
    WaitFailure, MAX_SCRUB_PERIOD, SCRUB_PERIOD,
};
use trellink::Error;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

type Group = (Vec<Endpoint<SharedArena>>, Vec<SharedArena>);

fn group(world: usize, slot_values: usize, first_epoch: u32) -> Group {
    let layout = ArenaLayout::new(world, slot_values).unwrap();
    let first = Epoch::new(first_epoch);
    let arenas: Vec<_> = (0..world)
        .map(|_| SharedArena::new(&layout, first))
        .collect();
    let endpoints = (0..world)
        .map(|rank| Endpoint::new(rank, layout, arenas.clone(), first).unwrap())
        .collect();
    (endpoints, arenas)
}

fn collect(endpoint: &Endpoint<SharedArena>, out: &mut [f32]) -> Result<(), WaitFailure> {
    let running = AtomicU32::new(0);
    endpoint.collect(0, out, &BoundedWait::new(LONG, &running))
}

/// What `rank` sends in `call`: sums of such values depend on the order of addition.
fn contribution(rank: usize, call: u32, len: usize) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64((rank as u64) << 32 | call as u64);
    (0..len)
        .map(|_| rng.random_range(-1.0f32..1.0) * 10f32.powi(rng.random_range(-4..4)))
        .collect()
}

fn rank_order_sum(world: usize, call: u32, len: usize) -> Vec<f32> {
    let mut sum = contribution(0, call, len);
    for rank in 1..world {
        for (sum, value) in sum.iter_mut().zip(contribution(rank, call, len)) {
            *sum += value;
        }
    }
    sum
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// One whole call of all ranks, one after another on this thread.
fn call_in_lockstep(endpoints: &mut [Endpoint<SharedArena>], len: usize) {
    for endpoint in endpoints.iter() {
        endpoint.push(0, &vec![1.0; len]);
    }
    for endpoint in endpoints.iter_mut() {
        let mut out = vec![0.0; len];
        collect(endpoint, &mut out).unwrap();
        endpoint.advance();
    }
}

/// Runs `calls` calls of random lengths with a thread per rank and checks every sum, bit for bit.
/// Epochs wrap halfway.
fn run_ranks(world: usize, calls: u32, scrub_period: u32) {
    const SLOT: usize = 48;
    let (endpoints, _) = group(world, SLOT, u32::MAX - calls / 2);
    std::thread::scope(|scope| {
        for endpoint in endpoints {
            let mut endpoint = endpoint.with_scrub_period(scrub_period);
            scope.spawn(move || {
                // Lengths must agree between ranks; the pieces in which they push need not.
                let mut lengths = StdRng::seed_from_u64(1);
                let mut pieces = StdRng::seed_from_u64(endpoint.rank() as u64);
                for call in 0..calls {
                    let len = lengths.random_range(1..=SLOT);
                    let values = contribution(endpoint.rank(), call, len);
                    let cut = pieces.random_range(0..=len);
                    endpoint.push(cut, &values[cut..]);
                    endpoint.push(0, &values[..cut]);
                    let mut out = vec![f32::NAN; len];
                    collect(&endpoint, &mut out).unwrap();
                    let want = rank_order_sum(world, call, len);
                    assert_eq!(bits(&out), bits(&want), "call {call}");
                    endpoint.advance();
                }
            });
        }
    });
}

#[test]
fn rank_order_sum_is_bit_identical_on_all_ranks_across_the_epoch_wrap() {
    run_ranks(2, 10_000, SCRUB_PERIOD);
    for world in [1, 3, 4, 5, 8] {
        run_ranks(world, 2_000, SCRUB_PERIOD);
    }
}

#[test]
fn scrubbing_in_every_call_loses_no_packet() {
    run_ranks(4, 3_000, 2);
    run_ranks(3, 3_000, 8);
}

#[test]
fn special_values_arrive_bit_for_bit() {
    let (endpoints, _) = group(1, 4, 9);
    let sent = [-0.0, f32::INFINITY, f32::NAN, f32::from_bits(1)];
    endpoints[0].push(0, &sent);
    let mut out = [0.0; 4];
    collect(&endpoints[0], &mut out).unwrap();
    assert_eq!(bits(&out), bits(&sent));
}

#[test]
fn nan_of_one_rank_reaches_the_sum_of_all() {
    let (endpoints, _) = group(2, 2, 0);
    endpoints[0].push(0, &[1.0, f32::NAN]);
    endpoints[1].push(0, &[2.0, 2.0]);
    for endpoint in &endpoints {
        let mut out = [0.0; 2];
        collect(endpoint, &mut out).unwrap();
        assert_eq!(out[0], 3.0);
        assert!(out[1].is_nan());
    }
}

#[test]
fn a_stalled_peer_is_named_in_the_timeout() {
    let (endpoints, _) = group(4, 2, 5);
    for rank in [0, 1, 3] {
        endpoints[rank].push(0, &[1.0, 2.0]);
    }
    let running = AtomicU32::new(0);
    let failure = endpoints[3]
        .collect(0, &mut [0.0; 2], &BoundedWait::new(SHORT, &running))
        .unwrap_err();
    let WaitFailure::TimedOut {
        peer: 2,
        value: 0,
        waited,
    } = failure
    else {
        panic!("{failure:?}");
    };
    assert!((SHORT..LONG).contains(&waited), "{waited:?}");
}

#[test]
fn one_missing_packet_of_many_times_out() {
    let (endpoints, _) = group(2, 8, u32::MAX);
    endpoints[0].push(0, &[1.0; 8]);
    endpoints[1].push(0, &[1.0; 5]);
    endpoints[1].push(6, &[1.0; 2]);
    let running = AtomicU32::new(0);
    let wait = BoundedWait::new(SHORT, &running);
    let missing = endpoints[0].collect(0, &mut [0.0; 8], &wait);
    assert!(matches!(
        missing,
        Err(WaitFailure::TimedOut {
            peer: 1,
            value: 5,
            ..
        })
    ));
    assert_eq!(endpoints[0].collect(6, &mut [0.0; 2], &wait), Ok(()));
}

#[test]
fn an_abort_from_another_thread_ends_the_wait() {
    let (endpoints, _) = group(2, 2, 0);
    let abort = AtomicU32::new(0);
    let failure = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(SHORT);
            abort.store(1, Ordering::Relaxed);
        });
        endpoints[0].collect(0, &mut [0.0; 2], &BoundedWait::new(LONG, &abort))
    });
    assert_eq!(failure, Err(WaitFailure::Aborted));
}

#[test]
fn a_peer_that_runs_ahead_is_an_error_and_no_hang() {
    for first in [0, 7, u32::MAX - 1, u32::MAX] {
        let (mut endpoints, _) = group(3, 2, first);
        endpoints[0].push(0, &[1.0; 2]);
        endpoints[1].push(0, &[1.0; 2]);
        // Rank 2 leaves two calls without waiting for anybody, so it is back in this half.
        endpoints[2].advance();
        endpoints[2].advance();
        endpoints[2].push(0, &[1.0; 2]);
        let found = endpoints[2].epoch();
        let failure = collect(&endpoints[0], &mut [0.0; 2]).unwrap_err();
        assert_eq!(failure, WaitFailure::Ahead { peer: 2, found });
    }
}

#[test]
fn a_packet_of_another_operation_is_an_error_on_both_sides_and_is_never_added() {
    for first in [0, 7, 0xfffe, u32::MAX] {
        let (mut endpoints, _) = group(2, 4, first);
        for (rank, endpoint) in endpoints.iter_mut().enumerate() {
            endpoint.begin(3 + rank as u16);
            endpoint.push(0, &[1.0; 4]);
        }
        for (rank, endpoint) in endpoints.iter().enumerate() {
            let peer = 1 - rank;
            let found = Tag::new(endpoint.epoch(), 3 + peer as u16);
            // Whichever of the values it is.
            for value in 0..4 {
                let running = AtomicU32::new(0);
                let wait = BoundedWait::new(LONG, &running);
                let failure = endpoint.collect(value, &mut [0.0], &wait);
                assert_eq!(failure, Err(WaitFailure::Mismatch { peer, found }));
            }
        }
    }
}

#[test]
fn ranks_that_restart_forget_what_was_sent_and_go_on() {
    let (mut endpoints, _) = group(3, 4, 5);
    call_in_lockstep(&mut endpoints, 4);
    // One that failed: rank 2 has sent nothing, rank 0 something else.
    endpoints[0].begin(9);
    endpoints[0].push(0, &[7.0; 4]);
    endpoints[1].push(0, &[8.0; 3]);
    for first in [Epoch::new(69), Epoch::new(u32::MAX)] {
        endpoints.iter_mut().for_each(|endpoint| {
            endpoint.begin(0);
            endpoint.restart(first);
        });
        for _ in 0..4 {
            call_in_lockstep(&mut endpoints, 4);
        }
    }
}

/// The greatest age in calls of any packet of any arena, during `calls` short calls that follow a
/// long one, once every half has had its first scrub.
fn oldest_tag_within(calls: u32, scrub_period: u32, first_epoch: u32) -> i32 {
    let (endpoints, arenas) = group(2, 64, first_epoch);
    let mut endpoints: Vec<_> = endpoints
        .into_iter()
        .map(|endpoint| endpoint.with_scrub_period(scrub_period))
        .collect();
    call_in_lockstep(&mut endpoints, 64);
    let mut oldest = 0;
    for call in 0..calls {
        call_in_lockstep(&mut endpoints, 1);
        if call > scrub_period {
            oldest = oldest.max(oldest_tag(&arenas, &endpoints[0]));
        }
    }
    oldest
}

fn oldest_tag(arenas: &[SharedArena], endpoint: &Endpoint<SharedArena>) -> i32 {
    let packets = 0..endpoint.layout().packets();
    let words = packets.flat_map(|index| arenas.iter().map(move |arena| arena.load(index)));
    let now = Tag::new(endpoint.epoch(), 0);
    words
        .map(|word| Packet::from_word(word).tag.distance(now))
        .inspect(|age| assert!(*age > 0, "a packet from the future"))
        .max()
        .unwrap()
}

#[test]
fn scrubbing_bounds_the_age_of_slots_that_no_call_reaches() {
    for first_epoch in [0, 3, u32::MAX - 40] {
        let oldest = oldest_tag_within(100, 16, first_epoch);
        assert_eq!(oldest, 16, "started at {first_epoch}");
        // The period decides it, not the length of the run.
        assert_eq!(oldest_tag_within(200, 64, first_epoch), 64);
    }
}

#[test]
fn a_tag_is_mistaken_after_half_the_epochs_but_not_within_the_longest_scrub_period() {
    let old = Tag::new(Epoch::new(10), 0);
    let after = |calls: i32| Tag::new(Epoch::new(10).after(calls), 0).classify(old);
    assert_eq!(after((1 << 15) - 1), Arrival::Stale);
    assert_eq!(after((1 << 15) + 2), Arrival::Ahead);
    assert_eq!(after(1 << 16), Arrival::Current);
    assert_eq!(after(MAX_SCRUB_PERIOD as i32 + 1), Arrival::Stale);
}

#[test]
fn ranks_and_arenas_must_fit_the_layout() {
    let layout = ArenaLayout::new(2, 2).unwrap();
    let first = Epoch::new(0);
    let arena = SharedArena::new(&layout, first);
    let wrong_rank = Endpoint::new(2, layout, vec![arena.clone(); 2], first);
    assert!(matches!(
        wrong_rank,
        Err(Error::InvalidArgument {
            argument: "rank",
            ..
        })
    ));
    let wrong_arenas = Endpoint::new(0, layout, vec![arena], first);
    assert!(matches!(
        wrong_arenas,
        Err(Error::InvalidArgument {
            argument: "arenas",
            ..
        })
    ));
}
