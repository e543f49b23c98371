//! Ways to hand memory and streams of a device to a layer: all of them give the same bits.
#![cfg(feature = "cuda")]

mod common;

use common::*;
use cudarc::driver::{sys, CudaContext, CudaSlice, CudaStream};
use half::f16;
use std::sync::Arc;
use std::time::Duration;
use trellink::format::{Codebook, DType};
use trellink::{Device, Epilogue, Input, Output, Rank, RowParallel, Split, Stream};

const K: usize = 256;
const N: usize = 384;
const ROWS: usize = 3;

/// A rank alone on its device, its layer, and an input in host memory.
struct Alone {
    rank: Rank,
    layer: RowParallel,
    x: Vec<f16>,
    context: Arc<CudaContext>,
    _exclusive: Platform,
}

impl Alone {
    fn new(test: &str) -> Option<Self> {
        let platform = Platform::cuda(test)?;
        let mut rng = Seed::new(0xada).rng(0);
        let format = (Codebook::Mcg, "4".parse().unwrap());
        let linear = RandomLinear::new(&mut rng, format, K, N);
        let rank = platform.group(1).build().unwrap().remove(0);
        let Device::Cuda(ordinal) = rank.device() else {
            panic!("a rank on CUDA");
        };
        let split = Split::even(K, 1).unwrap();
        let layer = RowParallel::load(&rank, &linear.linear(), &split).unwrap();
        let Values::F16(x) = activations(&mut rng, DType::F16, ROWS * K, 2.0) else {
            panic!("asked for f16");
        };
        Some(Alone {
            rank,
            layer,
            x,
            context: CudaContext::new(ordinal).unwrap(),
            _exclusive: platform,
        })
    }

    /// A call on `stream` with whole slices of cudarc.
    fn with_slices(&mut self, stream: &Arc<CudaStream>) -> Values {
        let x = stream.clone_htod(&self.x).unwrap();
        let mut y = stream.clone_htod(&[f32::NAN; ROWS * N]).unwrap();
        self.layer
            .forward(
                &mut self.rank,
                stream.into(),
                Input::device(&x, stream),
                Output::device(&mut y, stream, Epilogue::Store),
            )
            .unwrap();
        self.read(stream, &y)
    }

    fn read(&self, stream: &Arc<CudaStream>, y: &CudaSlice<f32>) -> Values {
        let values = stream.clone_dtoh(y).unwrap();
        stream.synchronize().unwrap();
        self.rank.check().unwrap();
        assert!(values.iter().any(|&value| value != 0.0));
        Values::F32(values)
    }
}

#[test]
fn any_stream_gives_the_same_bits_on_cuda() {
    let Some(mut alone) = Alone::new("streams") else {
        return;
    };
    let _watchdog = Watchdog::new("streams", Duration::from_secs(60));
    let new = alone.context.new_stream().unwrap();
    let want = alone.with_slices(&new);
    let per_thread = alone.context.per_thread_stream();
    let default = alone.context.default_stream();
    for (name, stream) in [("per-thread", per_thread), ("default", default)] {
        alone.with_slices(&stream).assert_same_bits(&want, name);
    }
}

#[test]
fn views_and_raw_pointers_give_the_bits_of_slices_on_cuda() {
    let Some(mut alone) = Alone::new("views") else {
        return;
    };
    let _watchdog = Watchdog::new("views", Duration::from_secs(60));
    let stream = alone.context.new_stream().unwrap();
    let want = alone.with_slices(&stream);

    // Views in the middle of larger slices, whose rest must not change.
    let mut around = vec![f16::NAN; K];
    around.extend(&alone.x);
    let x = stream.clone_htod(&around).unwrap();
    let mut y = stream.clone_htod(&[7f32; (ROWS + 2) * N]).unwrap();
    let input = x.slice(K..(ROWS + 1) * K);
    let mut output = y.slice_mut(N..(ROWS + 1) * N);
    alone
        .layer
        .forward(
            &mut alone.rank,
            Stream::from(&stream),
            Input::device(&input, &stream),
            Output::device(&mut output, &stream, Epilogue::Add),
        )
        .unwrap();
    let Values::F32(all) = alone.read(&stream, &y) else {
        panic!("asked for f32");
    };
    let (before, rest) = all.split_at(N);
    let (inside, after) = rest.split_at(ROWS * N);
    assert!(before.iter().chain(after).all(|&value| value == 7.0));
    let Values::F32(stored) = &want else {
        panic!("asked for f32");
    };
    let added = stored.iter().map(|value| value + 7.0).collect();
    Values::F32(inside.to_vec()).assert_same_bits(&Values::F32(added), "views");

    let memory = platform_memory(&alone);
    let x = memory.buffer(&Values::F16(alone.x.clone()));
    let mut y = memory.buffer(&Values::poison(DType::F32, ROWS * N));
    let raw = memory.cuda_stream().cu_stream().cast();
    // SAFETY: a stream of the rank's device in its primary context, alive until the end of the test.
    let stream = unsafe { Stream::cuda_raw(raw) };
    let (input, output) = (x.input(0..ROWS * K), y.output(Epilogue::Store));
    alone
        .layer
        .forward(&mut alone.rank, stream, input, output)
        .unwrap();
    memory.synchronize();
    y.read().assert_same_bits(&want, "raw pointers");
}

fn platform_memory(alone: &Alone) -> Box<dyn Memory> {
    alone._exclusive.memory(&alone.rank)
}

/// What cudarc tracks for its slices must cover the calls: the copy on another stream waits for them.
#[test]
fn a_copy_on_another_stream_waits_for_the_call_on_cuda() {
    let Some(mut alone) = Alone::new("two streams") else {
        return;
    };
    let _watchdog = Watchdog::new("two streams", Duration::from_secs(60));
    let (calls, copies) = (
        alone.context.new_stream().unwrap(),
        alone.context.new_stream().unwrap(),
    );
    let want = alone.with_slices(&calls);
    let x = calls.clone_htod(&alone.x).unwrap();
    for _ in 0..50 {
        let mut y = copies.clone_htod(&[f32::NAN; ROWS * N]).unwrap();
        for _ in 0..4 {
            alone
                .layer
                .forward(
                    &mut alone.rank,
                    (&calls).into(),
                    Input::device(&x, &calls),
                    Output::device(&mut y, &calls, Epilogue::Store),
                )
                .unwrap();
        }
        alone
            .read(&copies, &y)
            .assert_same_bits(&want, "a copy on another stream");
    }
}

/// cudarc keeps memory until the stream that it was told of has used it, so that must be the call's.
#[test]
fn memory_for_another_stream_than_the_calls_is_refused_on_cuda() {
    let Some(mut alone) = Alone::new("memory for another stream") else {
        return;
    };
    let _watchdog = Watchdog::new("memory for another stream", Duration::from_secs(60));
    let [calls, other] = [(); 2].map(|()| alone.context.new_stream().unwrap());
    let want = alone.with_slices(&calls);
    let x = calls.clone_htod(&alone.x).unwrap();
    let mut y = calls.clone_htod(&[f32::NAN; ROWS * N]).unwrap();
    for (input_stream, output_stream, argument) in
        [(&other, &calls, "input"), (&calls, &other, "output")]
    {
        let input = Input::device(&x, input_stream);
        let output = Output::device(&mut y, output_stream, Epilogue::Store);
        let call = alone
            .layer
            .forward(&mut alone.rank, (&calls).into(), input, output);
        refused(call, argument, "same stream");
    }
    // A raw stream changes nothing about what slices need.
    // SAFETY: a stream of the rank's device in its primary context, alive until the end of the test.
    let raw = unsafe { Stream::cuda_raw(calls.cu_stream().cast()) };
    let input = Input::device(&x, &other);
    let output = Output::device(&mut y, &calls, Epilogue::Store);
    let call = alone.layer.forward(&mut alone.rank, raw, input, output);
    refused(call, "input", "same stream");

    let input = Input::device(&x, &calls);
    let output = Output::device(&mut y, &calls, Epilogue::Store);
    let call = alone.layer.forward(&mut alone.rank, raw, input, output);
    call.unwrap();
    alone
        .read(&calls, &y)
        .assert_same_bits(&want, "after refusals");
}

/// A rank lives in its device's primary context. In another one addresses mean something else.
#[test]
fn slices_and_streams_of_another_context_are_refused_on_cuda() {
    let Some(mut alone) = Alone::new("another context") else {
        return;
    };
    let _watchdog = Watchdog::new("another context", Duration::from_secs(60));
    let own = alone.context.new_stream().unwrap();
    let want = alone.with_slices(&own);
    let elsewhere = second_context(&alone.context).new_stream().unwrap();
    let streams = [&own, &elsewhere];
    let x = streams.map(|stream| stream.clone_htod(&alone.x).unwrap());
    let mut y = streams.map(|stream| stream.clone_htod(&[0f32; ROWS * N]).unwrap());
    for argument in ["stream", "input", "output"] {
        let at = |name| usize::from(argument == name);
        let (of_x, of_y) = (at("input"), at("output"));
        let input = Input::device(&x[of_x], streams[of_x]);
        let output = Output::device(&mut y[of_y], streams[of_y], Epilogue::Store);
        let stream = streams[at("stream")].into();
        let call = alone.layer.forward(&mut alone.rank, stream, input, output);
        refused(call, argument, "primary context");
    }
    alone
        .with_slices(&own)
        .assert_same_bits(&want, "after refusals");
}

/// A context of the same device that is not its primary one.
fn second_context(primary: &CudaContext) -> Arc<CudaContext> {
    let device = primary.cu_device();
    let mut context = std::ptr::null_mut();
    // SAFETY: `context` is a valid place for the result; there are no parameters to read.
    let made = unsafe { sys::cuCtxCreate_v4(&mut context, std::ptr::null_mut(), 0, device) };
    made.result().unwrap();
    // SAFETY: the context was just made for this device, and nobody else destroys it.
    let context = unsafe { CudaContext::from_raw_context(primary.ordinal(), device, context) };
    context.unwrap()
}
