//! Calls in CUDA graphs: captured once on every rank, replayed for every token.
//!
//! ```text
//! cargo run --release --features cuda --example graph
//! ```
//!
//! Uses the first two GPUs, or the only one. One thread serves all ranks, which is right where each has a GPU of
//! its own.

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaGraph, CudaSlice, CudaStream};
use half::bf16;
use std::sync::Arc;
use trellink::{Checkpoint, Device, Epilogue, Group, Input, Output, Rank, RowParallel, Split};

const LAYERS: usize = 4;
const TOKENS: usize = 100;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A rank with what its graph names: fields are dropped in this order, the graph first.
struct Seat {
    graph: CudaGraph,
    layers: Vec<RowParallel>,
    rank: Rank,
    stream: Arc<CudaStream>,
    residual: CudaSlice<bf16>,
    _x: CudaSlice<bf16>,
}

fn main() -> Result<()> {
    let model = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/models/austen-3bpw-mcg"
    );
    let checkpoint = Checkpoint::open(model)?;
    let devices = trellink::cuda::devices()?;
    let devices = devices.iter().take(2).map(|d| Device::Cuda(d.ordinal));
    let ranks = Group::new(devices).build()?;
    let capture = |rank| capture(rank, &checkpoint);
    let seats = ranks.into_iter().map(capture).collect::<Result<Vec<_>>>()?;

    // All ranks replay the same graphs in the same order. Calls that are not captured may come between.
    for _ in 0..TOKENS {
        for seat in &seats {
            seat.graph.launch()?; // enqueued, not awaited
        }
    }
    let mut residuals = Vec::new();
    for seat in &seats {
        seat.rank.synchronize((&seat.stream).into())?; // waits, and says whether all exchanges went well
        residuals.push(seat.stream.clone_dtoh(&seat.residual)?);
    }
    assert!(residuals.iter().all(|residual| *residual == residuals[0]));
    let calls = TOKENS * seats[0].layers.len();
    println!("{} ranks: the same bits after {calls} calls", seats.len());
    Ok(())
}

/// Loads a rank's part of the layers and captures a call of each.
fn capture(mut rank: Rank, checkpoint: &Checkpoint) -> Result<Seat> {
    let Device::Cuda(ordinal) = rank.device() else {
        return Err("the rank is on the host".into());
    };
    let context = CudaContext::new(ordinal)?;
    // cudarc would record events on slices and wait for them, which does not go with capture.
    // SAFETY: each slice is used on one stream alone, on which it is allocated and freed.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream()?;
    let load = |i| {
        let linear = checkpoint.linear(&format!("model.layers.{i}.mlp.down_proj"))?;
        let split = Split::even(linear.k(), rank.world())?;
        Ok(RowParallel::load(&rank, &linear, &split)?)
    };
    let layers = (0..LAYERS).map(load).collect::<Result<Vec<_>>>()?;
    let x = stream.clone_htod(&vec![bf16::from_f32(0.5); layers[0].k()])?;
    let mut residual = stream.alloc_zeros::<bf16>(layers[0].n())?;
    stream.synchronize()?;

    // Thread-local: what other threads do with CUDA meanwhile is no business of this capture.
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    for layer in &layers {
        let input = Input::device(&x, &stream);
        let output = Output::device(&mut residual, &stream, Epilogue::Add);
        layer.forward(&mut rank, (&stream).into(), input, output)?;
    }
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags)?.ok_or("nothing was captured")?;
    graph.upload()?; // else the first launch does it, while another rank may wait for this one
    Ok(Seat {
        graph,
        layers,
        rank,
        stream,
        residual,
        _x: x,
    })
}
