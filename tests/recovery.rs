//! Failures of a group become answers: every rank learns what went wrong, no output of a failed call is
//! touched afterwards, and a reset brings the ranks back to work.
//!
//! `TRELLINK_REPEAT` says how often the repeated claims are tried, 3 times if not set.

mod common;

use common::*;
use std::mem::discriminant;
use std::time::Duration;
use trellink::format::{Codebook, DType};
use trellink::{AllReduce, Epilogue, Error, OperationKind, Rank, Result, RowParallel, Split};

const K: usize = 256;
const N: usize = 384;
const ROWS: usize = 3;
/// Of a call that is to fail; others get `LONG`.
const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(60);

/// What a rank may call.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Thing {
    /// The first or second layer, of one shape; rows, and the dtype of the output.
    Layer(usize, usize, DType),
    /// A layer with half the columns.
    Narrow,
    Reduce,
}

const USUAL: Thing = Thing::Layer(0, ROWS, DType::F32);

/// One rank's layers and memory.
struct Setup {
    layers: [RowParallel; 2],
    narrow: RowParallel,
    x: Box<dyn Buffer>,
}

impl Setup {
    fn new(worker: &Worker<'_>) -> Self {
        let (rank, memory) = (&worker.rank, &worker.memory);
        let split = Split::even(K, rank.world()).unwrap();
        let mut rng = Seed::new(0x4e5e7).rng(0);
        let format = (Codebook::Mul1, "4".parse().unwrap());
        let mut layer = |n| {
            let linear = RandomLinear::new(&mut rng, format, K, n);
            RowParallel::load(rank, &linear.linear(), &split).unwrap()
        };
        let layers = [layer(N), layer(N)];
        let narrow = layer(N / 3);
        let x = activations(&mut Seed::new(5).rng(0), DType::F16, 2 * ROWS * K, 1.0);
        Setup {
            x: memory.buffer(&x.slice(0..2 * ROWS * layers[0].k())),
            layers,
            narrow,
        }
    }

    /// Memory for the output of a call, poisoned.
    fn output(&self, memory: &dyn Memory, thing: Thing) -> Box<dyn Buffer> {
        let (dtype, len) = match thing {
            Thing::Layer(_, rows, dtype) => (dtype, rows * N),
            Thing::Narrow | Thing::Reduce => (DType::F32, ROWS * N / 3),
        };
        memory.buffer(&Values::poison(dtype, len))
    }

    fn call(
        &self,
        thing: Thing,
        rank: &mut Rank,
        memory: &dyn Memory,
        y: &mut dyn Buffer,
    ) -> Result<()> {
        let (stream, output) = (memory.stream(), y.output(Epilogue::Store));
        match thing {
            Thing::Layer(which, rows, _) => {
                let layer = &self.layers[which];
                layer.forward(rank, stream, self.x.input(0..rows * layer.k()), output)
            }
            Thing::Narrow => {
                let input = self.x.input(0..ROWS * self.narrow.k());
                self.narrow.forward(rank, stream, input, output)
            }
            Thing::Reduce => {
                let input = self.x.input(0..ROWS * N / 3);
                AllReduce::new().run(rank, stream, input, output)
            }
        }
    }

    /// A call as it should be; its result.
    fn result(&self, worker: &mut Worker<'_>) -> Values {
        let mut y = self.output(&*worker.memory, USUAL);
        worker.collective(|rank, memory| self.call(USUAL, rank, memory, &mut *y).unwrap());
        y.read()
    }
}

/// The group's failure once all ranks have failed; that of the call, which may know less, is of its kind.
fn failure(worker: &Worker<'_>, of_call: Result<()>) -> Error {
    let checked = worker.rank.check().expect_err("the group has failed");
    if let Err(early) = of_call {
        let alike = discriminant(&early) == discriminant(&checked);
        assert!(alike, "first {early}, then {checked}");
    }
    checked
}

fn poisoned(y: &dyn Buffer) -> bool {
    y.read().to_f64().iter().all(|value| value.is_nan())
}

/// What was captured before a failure replays after the reset, and between the two returns at once.
#[cfg(feature = "cuda")]
#[test]
fn graphs_captured_before_a_failure_replay_after_the_reset_on_cuda() {
    use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
    let Some(platform) = Platform::cuda("graphs over a reset") else {
        return;
    };
    let _watchdog = Watchdog::new(
        "graphs over a reset",
        Duration::from_secs(60 + 10 * repeats() as u64),
    );
    on_ranks(&platform, platform.group(2), |worker| {
        let s = Setup::new(worker);
        let here = worker.rank.rank();
        let want = s.result(worker);
        let mut y = s.output(&*worker.memory, USUAL);
        let graph = worker.collective(|rank, memory| {
            let stream = memory.cuda_stream();
            let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
            stream.begin_capture(mode).unwrap();
            s.call(USUAL, rank, memory, &mut *y).unwrap();
            let graph = stream.end_capture(CUgraphInstantiate_flags(0)).unwrap();
            let graph = graph.expect("a stream that was captured has a graph");
            graph.upload().unwrap();
            memory.synchronize();
            graph
        });
        let poison = Values::poison(DType::F32, ROWS * N);
        for round in 0..repeats() {
            y.write(&poison);
            worker.collective(|_, _| (0..3).for_each(|_| graph.launch().unwrap()));
            y.read().assert_same_bits(&want, "a replay");
            y.write(&poison);
            worker.rank.set_timeout(SHORT);
            worker.phase(|_, _| {
                if here != round % 2 {
                    graph.launch().unwrap();
                }
            });
            worker.rank.check().expect_err("one rank has not replayed");
            // By now the rank that replayed knows; the other learns it here. Neither writes, and neither
            // waits: that would take the new deadline.
            worker.rank.set_timeout(LONG);
            let begun = std::time::Instant::now();
            worker.phase(|_, _| (0..20).for_each(|_| graph.launch().unwrap()));
            assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
            assert!(poisoned(&*y), "rank {here}, round {round}");
            worker.phase(|rank, _| rank.reset().unwrap());
        }
        y.write(&poison);
        worker.collective(|_, _| (0..3).for_each(|_| graph.launch().unwrap()));
        y.read()
            .assert_same_bits(&want, "a replay after the last reset");
        worker.collective(|_, _| ());
        drop(graph);
    });
}

on_both! {
    fn a_stalled_rank_is_named_at_the_deadline_and_a_reset_brings_all_back(platform: &Platform) {
        let _watchdog = Watchdog::new("stalls", Duration::from_secs(60 + 10 * repeats() as u64));
        for world in [2, 3] {
            on_ranks(platform, platform.group(world), |worker| {
                let s = Setup::new(worker);
                let here = worker.rank.rank();
                let want = s.result(worker);
                for round in 0..repeats() {
                    let stalled = round % world;
                    worker.rank.set_timeout(SHORT);
                    let mut y = s.output(&*worker.memory, USUAL);
                    let silence = worker.phase_without(stalled, |rank, memory| {
                        s.call(USUAL, rank, memory, &mut *y)
                    });
                    let error = worker.rank.check().expect_err("it stays failed");
                    let Error::PeerTimeout { waited, operation, tile, .. } = error else {
                        panic!("rank {here}: {error}");
                    };
                    assert!(waited >= SHORT, "{waited:?}");
                    assert_eq!(operation.kind, OperationKind::RowParallel);
                    assert_eq!((operation.rows as usize, operation.columns as usize), (ROWS, N));
                    assert!((tile as usize) < ROWS * N / 128, "{tile}");
                    // Whoever calls again is told the same, and nothing is touched.
                    let again = worker.phase(|rank, memory| s.call(USUAL, rank, memory, &mut *y));
                    silence.assert_told(&again.expect_err("a failed group does not call"));
                    assert!(poisoned(&*y), "rank {here}, round {round}");

                    worker.rank.set_timeout(LONG);
                    worker.phase(|rank, _| rank.reset().unwrap());
                    worker.rank.check().unwrap();
                    for _ in 0..3 {
                        s.result(worker).assert_same_bits(&want, "after a reset");
                    }
                }
            });
        }
    }

    fn ranks_that_call_different_things_learn_both_sides(platform: &Platform) {
        let _watchdog = Watchdog::new("mismatches", Duration::from_secs(60 + 10 * repeats() as u64));
        let pairs = [
            (USUAL, Thing::Layer(0, ROWS + 1, DType::F32)), // rows
            (USUAL, Thing::Narrow), // N
            (USUAL, Thing::Layer(0, ROWS, DType::F16)), // dtype
            (USUAL, Thing::Reduce), // kind
            (USUAL, Thing::Layer(1, ROWS, DType::F32)), // order
        ];
        on_ranks(platform, platform.group(2), |worker| {
            let s = Setup::new(worker);
            let here = worker.rank.rank();
            let want = s.result(worker);
            for round in 0..repeats() {
                for (one, other) in pairs {
                    let things = if round % 2 == 0 { [one, other] } else { [other, one] };
                    let mut y = s.output(&*worker.memory, things[here]);
                    let of_call = worker.phase(|rank, memory| {
                        s.call(things[here], rank, memory, &mut *y)
                    });
                    let error = failure(worker, of_call);
                    let Error::Mismatch { rank, peer, own, theirs, .. } = error else {
                        panic!("rank {here}, {things:?}: {error}");
                    };
                    assert_eq!(peer, 1 - rank);
                    let theirs = theirs.expect("both have told");
                    assert_ne!(own, theirs);
                    for (rank, said) in [(rank, own), (peer, theirs)] {
                        let reduces = said.kind != OperationKind::RowParallel;
                        assert_eq!(reduces, things[rank] == Thing::Reduce, "{things:?}: {said}");
                    }
                    assert!(poisoned(&*y), "rank {here}, {things:?}");
                    let again = worker.phase(|rank, memory| {
                        s.call(things[here], rank, memory, &mut *y)
                    });
                    let again = again.expect_err("a failed group does not call");
                    assert!(matches!(again, Error::Mismatch { .. }), "{again}");
                    assert!(poisoned(&*y), "rank {here}, {things:?}");
                    worker.phase(|rank, _| rank.reset().unwrap());
                    s.result(worker).assert_same_bits(&want, "after a reset");
                }
            }
        });
    }

    /// Two layers of one shape, in another order on one rank.
    fn a_swapped_order_is_found_at_the_first_call(platform: &Platform) {
        let _watchdog = Watchdog::new("orders", Duration::from_secs(120));
        on_ranks(platform, platform.group(2), |worker| {
            let s = Setup::new(worker);
            let here = worker.rank.rank();
            let mut y = s.output(&*worker.memory, USUAL);
            let of_calls = worker.phase(|rank, memory| {
                for which in [here, 1 - here] {
                    s.call(Thing::Layer(which, ROWS, DType::F32), rank, memory, &mut *y)?;
                }
                Ok(())
            });
            let error = failure(worker, of_calls);
            assert!(matches!(error, Error::Mismatch { epoch: 1, .. }), "{error}");
            assert!(poisoned(&*y));
        });
    }

    /// By any rank, for all; what was enqueued or captured does not know it.
    fn the_deadline_can_be_changed_at_run_time(platform: &Platform) {
        let _watchdog = Watchdog::new("deadlines", Duration::from_secs(120));
        let group = platform.group(2).timeout(Duration::from_secs(3600));
        on_ranks(platform, group, |worker| {
            let s = Setup::new(worker);
            assert_eq!(worker.rank.timeout(), Duration::from_secs(3600));
            let want = s.result(worker);
            worker.phase(|rank, _| {
                if rank.rank() == 1 {
                    rank.set_timeout(SHORT);
                }
            });
            assert_eq!(worker.rank.timeout(), SHORT);
            let mut y = s.output(&*worker.memory, USUAL);
            let of_call = worker.phase(|rank, memory| match rank.rank() {
                0 => s.call(USUAL, rank, memory, &mut *y),
                _ => Ok(()),
            });
            let error = failure(worker, of_call);
            let Error::PeerTimeout { rank: 0, peer: 1, waited, .. } = error else {
                panic!("{error}");
            };
            assert!(waited >= SHORT && waited < LONG, "{waited:?}");
            worker.rank.set_timeout(LONG);
            worker.phase(|rank, _| rank.reset().unwrap());
            s.result(worker).assert_same_bits(&want, "after a reset");
        });
    }

    fn a_rank_that_does_not_reset_is_named_and_may_come_later(platform: &Platform) {
        let _watchdog = Watchdog::new("missing resets", Duration::from_secs(120));
        on_ranks(platform, platform.group(3), |worker| {
            let s = Setup::new(worker);
            let here = worker.rank.rank();
            let want = s.result(worker);
            worker.rank.set_timeout(SHORT);
            let mut y = s.output(&*worker.memory, USUAL);
            worker.phase(|rank, memory| {
                let _ = (here != 1).then(|| s.call(USUAL, rank, memory, &mut *y));
            });
            worker.phase(|rank, _| {
                if here == 1 {
                    return;
                }
                let error = rank.reset().expect_err("rank 1 does not come");
                let Error::ResetIncomplete { rank, missing, .. } = error else {
                    panic!("{error}");
                };
                assert_eq!((rank, missing.contains(&1)), (here, true));
            });
            worker.rank.check().expect_err("it stays failed");
            worker.rank.set_timeout(LONG);
            worker.phase(|rank, _| rank.reset().unwrap());
            s.result(worker).assert_same_bits(&want, "after a reset");
        });
    }

    fn a_reset_of_a_group_that_works_does_no_harm(platform: &Platform) {
        let _watchdog = Watchdog::new("needless resets", Duration::from_secs(120));
        for world in [1, 2] {
            on_ranks(platform, platform.group(world).first_epoch(u32::MAX - 30), |worker| {
                let s = Setup::new(worker);
                let want = s.result(worker);
                for _ in 0..4 {
                    worker.phase(|rank, _| rank.reset().unwrap());
                    s.result(worker).assert_same_bits(&want, "after a reset");
                }
                worker.phase(|rank, memory| rank.synchronize(memory.stream()).unwrap());
            });
        }
    }
}
