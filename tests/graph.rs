//! Captured calls: a chain of layers is captured once per rank and replayed thousands of times.
//!
//! A replay passes the host by altogether, so whatever differs from call to call has to happen on
//! the device: the epoch, which wraps in the middle of these runs, the halves of the arenas, and
//! their scrubbing.
#![cfg(feature = "cuda")]

mod common;

use common::*;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::CudaGraph;
use std::time::Duration;
use trellink::format::DType;
use trellink::{ColumnParallel, Epilogue, Rank, RmsNorm, RowParallel, Split};

const HIDDEN: usize = 256;
const INNER: usize = 640;
const FIRST: usize = 896;
const BLOCKS: usize = 3;
/// Row-parallel calls of a chain: each takes an epoch.
const EPOCHS_PER_CHAIN: u32 = 1 + BLOCKS as u32;
/// Chains that a rank enqueues before it waits for them. A rank whose queue is full would wait
/// inside the driver, perhaps with a lock that another rank of the same device needs.
const CHAINS_IN_FLIGHT: usize = 16;

/// The weights of the chain h = first(x), then h += down(up(h)) for every block; from the second on, up
/// reads the RMSNorm that the call of down before it has made of h.
struct Model {
    first: RandomLinear,
    blocks: Vec<(RandomLinear, RandomLinear)>,
}

impl Model {
    fn random(seed: &Seed) -> Self {
        let mut rng = seed.rng(0);
        let mut linear = |i: usize, k, n| {
            let format = formats()[(7 * i + 3) % formats().len()];
            RandomLinear::new(&mut rng, format, k, n).tame(&mut rng)
        };
        Model {
            first: linear(0, FIRST, HIDDEN),
            blocks: (0..BLOCKS)
                .map(|i| {
                    (
                        linear(2 * i + 1, HIDDEN, INNER),
                        linear(2 * i + 2, INNER, HIDDEN),
                    )
                })
                .collect(),
        }
    }
}

/// A rank's shards of a model.
struct Layers {
    first: RowParallel,
    blocks: Vec<(ColumnParallel, RowParallel)>,
}

impl Layers {
    fn load(rank: &Rank, model: &Model) -> Self {
        let inner = inner_split(rank.world());
        let block = |(up, down): &(RandomLinear, RandomLinear)| {
            let up = ColumnParallel::load(rank, &[(&up.linear(), &inner)]).unwrap();
            let down = RowParallel::load(rank, &down.linear(), &inner).unwrap();
            (up, down)
        };
        let split = first_split(rank.world());
        Layers {
            first: RowParallel::load(rank, &model.first.linear(), &split).unwrap(),
            blocks: model.blocks.iter().map(block).collect(),
        }
    }
}

fn first_split(world: usize) -> Split {
    Shards::Uneven.split(FIRST, world)
}

fn inner_split(world: usize) -> Split {
    Shards::Even.split(INNER, world)
}

/// The chain for a number of rows, with the memory it works on.
struct Chain {
    rows: usize,
    x: Box<dyn Buffer>,
    hidden: Box<dyn Buffer>,
    normalised: Box<dyn Buffer>,
    norm_weight: Box<dyn Buffer>,
    inner: Box<dyn Buffer>,
}

impl Chain {
    fn new(worker: &Worker<'_>, layers: &Layers, rows: usize) -> Self {
        let buffer = |len| worker.memory.buffer(&Values::poison(DType::F16, len));
        let inner = layers.blocks[0].1.k();
        Chain {
            rows,
            x: buffer(rows * layers.first.k()),
            hidden: buffer(rows * HIDDEN),
            normalised: buffer(rows * HIDDEN),
            norm_weight: {
                let weight = (0..HIDDEN).map(|i| 1.0 + (i as f32).sin() / 2.0);
                worker.memory.buffer(&Values::of(DType::Bf16, weight))
            },
            inner: buffer(rows * inner),
        }
    }

    /// Makes all calls once, on the stream of `memory`.
    fn run(&mut self, layers: &Layers, rank: &mut Rank, memory: &dyn Memory) {
        let input = self.x.input(0..self.rows * layers.first.k());
        let output = self.hidden.output(Epilogue::Store);
        layers
            .first
            .forward(rank, memory.stream(), input, output)
            .unwrap();
        for (i, (up, down)) in layers.blocks.iter().enumerate() {
            let input = match i {
                0 => &self.hidden,
                _ => &self.normalised,
            };
            let input = input.input(0..self.rows * HIDDEN);
            let output = self.inner.output(Epilogue::Store);
            up.forward(rank, memory.stream(), input, &mut [output])
                .unwrap();
            let input = self.inner.input(0..self.rows * down.k());
            let normalised = self.normalised.output(Epilogue::Store);
            let norm = RmsNorm::new(self.norm_weight.input(0..HIDDEN), 1e-5, normalised);
            let output = self.hidden.output(Epilogue::Add).rms_norm(norm);
            down.forward(rank, memory.stream(), input, output).unwrap();
        }
    }

    /// The chain as a graph: nothing runs.
    fn capture(&mut self, layers: &Layers, rank: &mut Rank, memory: &dyn Memory) -> CudaGraph {
        let stream = memory.cuda_stream();
        stream
            .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .unwrap();
        self.run(layers, rank, memory);
        let graph = stream.end_capture(CUgraphInstantiate_flags(0)).unwrap();
        let graph = graph.expect("a stream that was captured has a graph");
        // The first launch would otherwise allocate while other ranks already wait.
        graph.upload().unwrap();
        memory.synchronize();
        graph
    }

    /// A new input, and poison in everything that the chain is to write.
    fn reset(&mut self, worker: &Worker<'_>, seed: &Seed, number: u64) {
        let mut rng = seed.rng(number << 8 | self.rows as u64);
        let x = activations(&mut rng, DType::F16, self.rows * FIRST, 1.0);
        let split = first_split(worker.rank.world());
        self.x.write(&shard_columns(&x, &split, worker.rank.rank()));
        self.poison();
    }

    /// h, and what it was normalised to last.
    fn results(&self) -> [Values; 2] {
        [self.hidden.read(), self.normalised.read()]
    }

    fn poison(&mut self) {
        let hidden = Values::poison(DType::F16, self.rows * HIDDEN);
        self.hidden.write(&hidden);
        self.normalised.write(&hidden);
        let inner = self.inner.read().len();
        self.inner.write(&Values::poison(DType::F16, inner));
    }
}

/// Replays of each graph between two comparisons, and after how many chains one is made eagerly.
struct Plan {
    replays: Vec<usize>,
    eager_every: usize,
}

impl Plan {
    fn of(platform: &Platform) -> Self {
        let replays = match platform.extent() {
            Extent::Reduced => vec![1, 20, 60],
            _ => vec![1, 99, 900, 4000, 5000],
        };
        Plan {
            replays,
            eager_every: 97,
        }
    }

    /// Two graphs are replayed in turn. The epochs of the group wrap early in the last batch, those
    /// of the exchange inside a rank, which column-parallel calls take, somewhat later.
    fn first_epoch(&self) -> u32 {
        let (last, others) = self.replays.split_last().unwrap();
        let chains = 2 * (others.iter().sum::<usize>() + last / 5);
        u32::MAX - chains as u32 * EPOCHS_PER_CHAIN
    }
}

fn replays_equal_eager_calls(platform: &Platform, world: usize) {
    let seed = Seed::new(0x62a9);
    let model = Model::random(&seed);
    let plan = Plan::of(platform);
    let group = platform
        .group(world)
        .first_epoch(plan.first_epoch())
        .scrub_period(64)
        .slot_values(8 * HIDDEN);
    on_ranks(platform, group, |worker| {
        let layers = Layers::load(&worker.rank, &model);
        let mut chains = [1, 8].map(|rows| Chain::new(worker, &layers, rows));
        let graphs = worker.collective(|rank, memory| {
            let chains = chains.each_mut();
            chains.map(|chain| chain.capture(&layers, rank, memory))
        });
        for (number, &replays) in plan.replays.iter().enumerate() {
            for chain in &mut chains {
                chain.reset(worker, &seed, number as u64);
            }
            worker.collective(|rank, memory| {
                for chain in &mut chains {
                    chain.run(&layers, rank, memory);
                }
            });
            let eager = chains.each_ref().map(Chain::results);
            for (results, chain) in eager.iter().zip(&mut chains) {
                for y in results {
                    assert!(y.to_f64().iter().all(|value| value.is_finite()));
                    assert!(y.to_f64().iter().any(|value| value.abs() > 0.1));
                }
                chain.poison();
            }
            worker.collective(|rank, memory| {
                for i in 0..replays {
                    if i % plan.eager_every == plan.eager_every - 1 {
                        chains[i % 2].run(&layers, rank, memory);
                    }
                    for graph in &graphs {
                        graph.launch().unwrap();
                    }
                    if i % CHAINS_IN_FLIGHT == CHAINS_IN_FLIGHT - 1 {
                        memory.synchronize();
                    }
                }
            });
            for (chain, eager) in chains.iter().zip(&eager) {
                let what = format!("{} rows, batch {number} of replays", chain.rows);
                let replayed = chain.results();
                let first = worker.value_of_rank_0(replayed.clone());
                for i in 0..2 {
                    replayed[i].assert_same_bits(&eager[i], format_args!("{what}: eager calls"));
                    replayed[i].assert_same_bits(&first[i], format_args!("{what}: ranks"));
                }
            }
        }
        // The last replays have run; graphs go before the ranks whose memory they name.
        worker.collective(|_, _| ());
        drop(graphs);
    });
}

#[test]
fn replays_of_two_ranks_equal_eager_calls_across_the_wrap_of_epochs_on_cuda() {
    if let Some(platform) = Platform::cuda("replays of two ranks") {
        let _watchdog = Watchdog::new("replays of two ranks", Duration::from_secs(240));
        replays_equal_eager_calls(&platform, 2);
    }
}

#[test]
fn replays_of_four_ranks_that_share_gpus_equal_eager_calls_on_cuda() {
    if let Some(platform) = Platform::cuda("replays of four ranks") {
        let _watchdog = Watchdog::new("replays of four ranks", Duration::from_secs(240));
        replays_equal_eager_calls(&platform, 4);
    }
}

#[test]
fn replays_of_one_rank_equal_eager_calls_on_cuda() {
    if let Some(platform) = Platform::cuda("replays of one rank") {
        let _watchdog = Watchdog::new("replays of one rank", Duration::from_secs(240));
        replays_equal_eager_calls(&platform, 1);
    }
}
