//! Captured all-reduces of both forms between row-parallel layers: replays give the bits of eager calls,
//! across the wrap of epochs and the renewal of tags.
#![cfg(feature = "cuda")]

mod common;

use common::*;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::CudaGraph;
use std::time::Duration;
use trellink::format::{Codebook, DType};
use trellink::{AllReduce, Epilogue, Rank, ReduceForm, RowParallel, Split};

const K: usize = 384;
const N: usize = 256;
const ROWS: usize = 2;
const SMALL: usize = 1024;
/// More than the slots hold in one shot.
const LARGE: usize = 40_000;
const SLOT_VALUES: usize = 8192;
const REPLAYS: usize = 2000;
/// Chains that a rank enqueues before it waits for them.
const CHAINS_IN_FLIGHT: usize = 16;

/// The calls of a chain, and the memory they work on. No output is the input of the next chain, so every
/// chain gives the same bits.
struct Chain {
    layer: RowParallel,
    x: Box<dyn Buffer>,
    y: Box<dyn Buffer>,
    small: Box<dyn Buffer>,
    small_sum: Box<dyn Buffer>,
    large: Box<dyn Buffer>,
    large_sum: Box<dyn Buffer>,
}

impl Chain {
    fn new(worker: &Worker<'_>, seed: &Seed) -> Self {
        let format = (Codebook::Mul1, "4".parse().unwrap());
        let linear = RandomLinear::new(&mut seed.rng(0), format, K, N);
        let split = Split::even(K, worker.rank.world()).unwrap();
        let layer = RowParallel::load(&worker.rank, &linear.linear(), &split).unwrap();
        let mut rng = seed.rng(1 + worker.rank.rank() as u64);
        let mut random = |dtype, len| {
            let values = activations(&mut rng, dtype, len, 1.0);
            worker.memory.buffer(&values)
        };
        let poison = |dtype, len| worker.memory.buffer(&Values::poison(dtype, len));
        Chain {
            x: random(DType::F16, ROWS * layer.k()),
            y: poison(DType::F32, ROWS * N),
            small: random(DType::Bf16, SMALL),
            small_sum: poison(DType::F32, SMALL),
            large: random(DType::F16, LARGE),
            large_sum: poison(DType::F16, LARGE),
            layer,
        }
    }

    /// Makes all calls once, on the stream of `memory`.
    fn run(&mut self, rank: &mut Rank, memory: &dyn Memory) {
        let store = Epilogue::Store;
        let stream = || memory.stream();
        for form in [ReduceForm::TwoShot, ReduceForm::OneShot] {
            let reduce = AllReduce::new().form(form);
            let (input, output) = (self.large.input(0..LARGE), self.large_sum.output(store));
            reduce.run(rank, stream(), input, output).unwrap();
            let input = self.x.input(0..ROWS * self.layer.k());
            let output = self.y.output(store);
            self.layer.forward(rank, stream(), input, output).unwrap();
            let (input, output) = (self.small.input(0..SMALL), self.small_sum.output(store));
            reduce.run(rank, stream(), input, output).unwrap();
        }
        // What is written here is the large sum on all ranks, times the world.
        let sum = self.large_sum.output(store);
        AllReduce::new().run_in_place(rank, stream(), sum).unwrap();
    }

    fn capture(&mut self, rank: &mut Rank, memory: &dyn Memory) -> CudaGraph {
        let stream = memory.cuda_stream();
        stream
            .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .unwrap();
        self.run(rank, memory);
        let graph = stream.end_capture(CUgraphInstantiate_flags(0)).unwrap();
        let graph = graph.expect("a stream that was captured has a graph");
        // The first launch would otherwise allocate while other ranks already wait.
        graph.upload().unwrap();
        memory.synchronize();
        graph
    }

    fn poison(&mut self) {
        self.y.write(&Values::poison(DType::F32, ROWS * N));
        self.small_sum.write(&Values::poison(DType::F32, SMALL));
        self.large_sum.write(&Values::poison(DType::F16, LARGE));
    }

    fn outputs(&self) -> [Values; 3] {
        [&self.y, &self.small_sum, &self.large_sum].map(|buffer| buffer.read())
    }
}

fn replays_equal_eager_calls(platform: &Platform, world: usize) {
    let seed = Seed::new(0xa9a);
    // The epochs wrap after some hundred chains of about twenty exchanges.
    let group = platform
        .group(world)
        .first_epoch(u32::MAX - 5000)
        .scrub_period(64)
        .slot_values(SLOT_VALUES);
    on_ranks(platform, group, |worker| {
        let mut chain = Chain::new(worker, &seed);
        let graph = worker.collective(|rank, memory| chain.capture(rank, memory));
        worker.collective(|rank, memory| chain.run(rank, memory));
        let eager = chain.outputs();
        for values in &eager {
            assert!(values.to_f64().iter().all(|value| value.is_finite()));
        }
        chain.poison();
        worker.collective(|rank, memory| {
            for i in 0..REPLAYS {
                if i % 97 == 96 {
                    chain.run(rank, memory);
                }
                graph.launch().unwrap();
                if i % CHAINS_IN_FLIGHT == CHAINS_IN_FLIGHT - 1 {
                    memory.synchronize();
                }
            }
        });
        for (replayed, eager) in chain.outputs().iter().zip(&eager) {
            replayed.assert_same_bits(eager, "replays and eager calls");
            let first = worker.value_of_rank_0(replayed.clone());
            replayed.assert_same_bits(&first, "ranks");
        }
        // The last replays have run; graphs go before the ranks whose memory they name.
        worker.collective(|_, _| ());
        drop(graph);
    });
}

#[test]
fn replays_of_two_ranks_equal_eager_calls_on_cuda() {
    if let Some(platform) = Platform::cuda("replayed all-reduces of two ranks") {
        let _watchdog = Watchdog::new("two ranks", Duration::from_secs(240));
        replays_equal_eager_calls(&platform, 2);
    }
}

#[test]
fn replays_of_four_ranks_that_share_gpus_equal_eager_calls_on_cuda() {
    if let Some(platform) = Platform::cuda("replayed all-reduces of four ranks") {
        let _watchdog = Watchdog::new("four ranks", Duration::from_secs(240));
        replays_equal_eager_calls(&platform, 4);
    }
}
