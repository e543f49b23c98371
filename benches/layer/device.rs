//! The CUDA back end: replays of graphs, timed by events on every rank's stream.
//!
//! A graph is a chain of calls over more distinct weights than L2 holds, so every call reads its
//! weights from memory, as in a model. What such a time is to be held against, the floor of reading the
//! weights and NCCL, `trellink bench` measures beside it.

use crate::random::{activations, generator, RandomLinear};
use criterion::{Criterion, Throughput};
use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaGraph, CudaSlice, CudaStream, DevicePtr, DevicePtrMut};
use half::f16;
use std::sync::Arc;
use std::time::Duration;
use trellink::cuda::{devices, links};
use trellink::format::{Codebook, DType};
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

/// A rank with its chain. The graph, dropped first, has the addresses of the other fields.
struct Seat {
    graph: CudaGraph,
    stream: Arc<CudaStream>,
    rank: Rank,
    calls: u64,
    _layers: Arc<Vec<RowParallel>>,
    _x: CudaSlice<f16>,
    _out: CudaSlice<f16>,
}

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
            let random = RandomLinear::new(shard_k * world, n, "4".parse()?, Codebook::Mul1);
            let calls = (CACHES * l2_bytes).div_ceil(shard_k * n / 2).max(4);
            let mut ranks = Group::new(ordinals.iter().map(|&o| Device::Cuda(o))).build()?;
            let chains = load(&ranks, &random, calls)?;
            let mut group = criterion.benchmark_group(format!("cuda/{name}/world {world}"));
            group.throughput(Throughput::Bytes((shard_k * n / 2) as u64));
            for rows in ROWS {
                let seats = ranks.into_iter().zip(&chains);
                let seats = seats.map(|(rank, layers)| Seat::capture(rank, layers, rows));
                let seats = seats.collect::<Result<Vec<_>>>()?;
                group.bench_function(format!("M {rows}"), |bencher| {
                    bencher.iter_custom(|calls| slowest(&seats, calls).expect("replays run"));
                });
                ranks = seats.into_iter().map(|seat| seat.rank).collect();
            }
        }
    }
    Ok(())
}

/// Of every rank, as many layers as a chain has: the same weights at different places.
fn load(ranks: &[Rank], random: &RandomLinear, calls: usize) -> Result<Vec<Arc<Vec<RowParallel>>>> {
    let linear = random.view()?;
    let split = Split::even(linear.k(), ranks.len())?;
    let chain = |rank| {
        let layers = (0..calls).map(|_| RowParallel::load(rank, &linear, &split));
        Ok(Arc::new(layers.collect::<trellink::Result<Vec<_>>>()?))
    };
    ranks.iter().map(chain).collect()
}

impl Seat {
    fn capture(mut rank: Rank, layers: &Arc<Vec<RowParallel>>, rows: usize) -> Result<Self> {
        let Device::Cuda(ordinal) = rank.device() else {
            return Err("the rank is on the host".into());
        };
        let stream = CudaContext::new(ordinal)?.new_stream()?;
        let (k, n) = (layers[0].k(), layers[0].n());
        let x = stream.clone_htod(&activations(&mut generator(2), rows * k))?;
        let mut out = stream.alloc_zeros::<f16>(rows * n)?;
        stream.synchronize()?;
        // Addresses alone: cudarc would record its own events into the graph.
        let x_pointer = x.device_ptr(&stream).0;
        let out_pointer = out.device_ptr_mut(&stream).0;
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        for layer in layers.iter() {
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
        graph.upload()?;
        Ok(Seat {
            graph,
            stream,
            rank,
            calls: layers.len() as u64,
            _layers: layers.clone(),
            _x: x,
            _out: out,
        })
    }
}

/// The time of the slowest rank for `calls` calls, measured over whole replays after one that is not timed: it keeps
/// the devices busy meanwhile, and its exchanges bring them into step.
fn slowest(seats: &[Seat], calls: u64) -> Result<Duration> {
    let chain = seats[0].calls;
    let replays = calls.div_ceil(chain);
    // In turn, so that no rank's queue is full before the others have anything in theirs.
    let replay = || seats.iter().try_for_each(|seat| seat.graph.launch());
    let record = || {
        let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
        let events = seats.iter().map(|seat| seat.stream.record_event(timed));
        events.collect::<std::result::Result<Vec<_>, _>>()
    };
    replay()?;
    let starts = record()?;
    for _ in 0..replays {
        replay()?;
    }
    let ends = record()?;
    let mut slowest: f32 = 0.0;
    for ((seat, start), end) in seats.iter().zip(&starts).zip(&ends) {
        slowest = slowest.max(start.elapsed_ms(end)?);
        seat.rank.check()?;
    }
    let seconds = f64::from(slowest) / 1e3;
    Ok(Duration::from_secs_f64(
        seconds * calls as f64 / (replays * chain) as f64,
    ))
}
