//! The CUDA back end: replays of graphs, timed by events on every rank's stream.
//!
//! A graph is a chain of calls over more distinct weights than L2 holds, so every call reads its
//! weights from memory, as in a model. Beside the calls stands the floor, the same chain of weights read
//! and nothing else. (`trellink bench` compares with NCCL as well.)

use crate::model::{activations, model, RandomLinear};
use criterion::{Criterion, Throughput};
use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaGraph, CudaSlice, CudaStream, DevicePtr, DevicePtrMut};
use half::f16;
use std::sync::{Arc, Barrier};
use std::time::Duration;
use trellink::cuda::{devices, links, WeightReader};
use trellink::format::DType;
use trellink::{Device, Epilogue, Group, Input, Output, Rank, RowParallel, Split, Stream};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A projection of a well-known model: K of one rank of two, and N.
const PRESETS: [(&str, usize, usize); 4] = [
    ("8b-o", 2048, 4096),
    ("8b-down", 7168, 4096),
    ("70b-o", 4096, 8192),
    ("70b-down", 14336, 8192),
];
const ROWS: [usize; 2] = [1, 8];
/// Weights of a chain, in multiples of L2.
const CACHES: usize = 4;

/// What a chain does with each layer.
#[derive(Clone)]
enum Step {
    /// Calls them with this many rows.
    Call(usize),
    /// Reads their weights.
    Read(Arc<WeightReader>),
}

/// A rank with its chain. The graph's addresses are those of the other fields.
struct Seat {
    graph: CudaGraph,
    stream: Arc<CudaStream>,
    rank: Rank,
    calls: u64,
    _layers: Arc<Vec<RowParallel>>,
    _step: Step,
    _x: CudaSlice<f16>,
    _out: CudaSlice<f16>,
}

// SAFETY: a seat, and with it its graph, is used by one thread at a time.
unsafe impl Send for Seat {}

pub fn run(criterion: &mut Criterion) -> Result<()> {
    let found = devices()?;
    let ordinals: Vec<usize> = found.iter().map(|device| device.ordinal).collect();
    let linked = |pair: &[usize]| links(pair).is_ok_and(|links| links.iter().all(|l| l.access));
    let mut worlds = vec![&ordinals[..1]];
    match ordinals.get(..2) {
        Some(pair) if linked(pair) => worlds.push(pair),
        _ => eprintln!("cuda: world 2 is not measured: there are no two linked devices"),
    }
    let l2_bytes = found[0].l2_bytes;
    for (name, shard_k, n) in PRESETS {
        for ordinals in &worlds {
            let world = ordinals.len();
            // Every rank holds the preset's shape, whatever the world.
            let model = model(shard_k * world, n);
            let calls = (CACHES * l2_bytes).div_ceil(shard_k * n / 2).max(4);
            let mut ranks = Group::new(ordinals.iter().map(|&o| Device::Cuda(o))).build()?;
            let chains = load(&ranks, &model, calls)?;
            let mut group = criterion.benchmark_group(format!("cuda/{name}/world {world}"));
            group.throughput(Throughput::Bytes((shard_k * n / 2) as u64));
            for (name, steps) in steps_of(ordinals)? {
                let seats = ranks.into_iter().zip(&chains).zip(steps);
                let seats = seats.map(|((rank, layers), step)| Seat::capture(rank, layers, step));
                let mut seats = seats.collect::<Result<Vec<_>>>()?;
                group.bench_function(name, |bencher| {
                    bencher.iter_custom(|calls| slowest(&mut seats, calls));
                });
                ranks = seats.into_iter().map(|seat| seat.rank).collect();
            }
        }
    }
    Ok(())
}

/// What is measured, by name: for each rank what its chain does.
fn steps_of(ordinals: &[usize]) -> Result<Vec<(String, Vec<Step>)>> {
    let calls = |rows| (format!("M {rows}"), vec![Step::Call(rows); ordinals.len()]);
    let read = |&ordinal: &usize| Ok(Step::Read(Arc::new(WeightReader::load(ordinal)?)));
    let mut steps: Vec<_> = ROWS.into_iter().map(calls).collect();
    let readers = ordinals.iter().map(read).collect::<Result<_>>()?;
    steps.push(("floor".into(), readers));
    Ok(steps)
}

/// Of every rank, as many layers as a chain has: the same weights at different places.
fn load(ranks: &[Rank], model: &RandomLinear, calls: usize) -> Result<Vec<Arc<Vec<RowParallel>>>> {
    let linear = model.linear();
    let split = Split::even(model.k, ranks.len())?;
    let chain = |rank| {
        let layers = (0..calls).map(|_| RowParallel::load(rank, &linear, &split));
        Ok(Arc::new(layers.collect::<trellink::Result<Vec<_>>>()?))
    };
    ranks.iter().map(chain).collect()
}

impl Seat {
    fn capture(mut rank: Rank, layers: &Arc<Vec<RowParallel>>, step: Step) -> Result<Self> {
        let Device::Cuda(ordinal) = rank.device() else {
            return Err("the rank is on the host".into());
        };
        let stream = CudaContext::new(ordinal)?.new_stream()?;
        let (k, n) = (layers[0].k(), layers[0].n());
        let rows = match step {
            Step::Call(rows) => rows,
            Step::Read(_) => 1,
        };
        let x = stream.clone_htod(&activations(rows * k))?;
        let mut out = stream.alloc_zeros::<f16>(rows * n)?;
        stream.synchronize()?;
        // Addresses alone: cudarc would record its own events into the graph.
        let x_pointer = x.device_ptr(&stream).0;
        let out_pointer = out.device_ptr_mut(&stream).0;
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        for layer in layers.iter() {
            if let Step::Read(reader) = &step {
                reader.read(layer, Stream::from(&stream))?;
                continue;
            }
            // SAFETY: both buffers have these sizes and stay in the seat beside the graph.
            let (input, output) = unsafe {
                let input = Input::device_raw(x_pointer, DType::F16, rows * k);
                let store = Epilogue::Store;
                let output = Output::device_raw(out_pointer, DType::F16, rows * n, store);
                (input, output)
            };
            layer.forward(&mut rank, Stream::from(&stream), input, output)?;
        }
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = stream.end_capture(flags)?.ok_or("nothing was captured")?;
        Ok(Seat {
            graph,
            stream,
            rank,
            calls: layers.len() as u64,
            _layers: layers.clone(),
            _step: step,
            _x: x,
            _out: out,
        })
    }

    /// The device's time for `replays` replays, after one that is not timed.
    fn time(&self, replays: u64) -> Result<Duration> {
        let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
        self.graph.launch()?;
        let start = self.stream.record_event(timed)?;
        for _ in 0..replays {
            self.graph.launch()?;
        }
        let end = self.stream.record_event(timed)?;
        let elapsed_ms = start.elapsed_ms(&end)?;
        self.rank.check()?;
        Ok(Duration::from_secs_f64(f64::from(elapsed_ms) / 1e3))
    }
}

/// The time of the slowest rank for `calls` calls, measured over whole replays.
fn slowest(seats: &mut [Seat], calls: u64) -> Duration {
    let chain = seats[0].calls;
    let replays = calls.div_ceil(chain);
    let start = Barrier::new(seats.len());
    let timed = |seat: &mut Seat| {
        start.wait();
        seat.time(replays).expect("replays run")
    };
    let slowest = std::thread::scope(|scope| {
        let spawn = |seat| scope.spawn(|| timed(seat));
        let threads: Vec<_> = seats.iter_mut().map(spawn).collect();
        let times = threads.into_iter().map(|t| t.join().expect("no panic"));
        times.max().unwrap_or_default()
    });
    slowest.mul_f64(calls as f64 / (replays * chain) as f64)
}
