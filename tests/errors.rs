//! Misuse and failing peers: every call ends, with an error that names what was wrong.

mod common;

use common::*;
use std::time::Duration;
use trellink::format::{Bits, Codebook, DType};
use trellink::{
    ColumnParallel, Device, Epilogue, Error, Group, Output, Rank, Result, RowParallel, Split,
};
#[cfg(feature = "cuda")]
use trellink::{Input, Stream};

const K: usize = 384;
const N: usize = 256;
const ROWS: usize = 3;
/// Of a call that is to fail for want of a rank; others get what `Platform::group` gives.
const SHORT: Duration = Duration::from_millis(200);

fn random_linear() -> RandomLinear {
    let bits: Bits = "3".parse().unwrap();
    RandomLinear::new(&mut Seed::new(0xe4404).rng(0), (Codebook::Mcg, bits), K, N)
}

/// One rank's layers, split evenly, and memory for calls with `ROWS` rows.
struct Setup {
    row: RowParallel,
    column: ColumnParallel,
    x: Box<dyn Buffer>,
    whole_x: Box<dyn Buffer>,
    y: Box<dyn Buffer>,
    columns_y: Box<dyn Buffer>,
}

impl Setup {
    fn new(worker: &Worker<'_>) -> Self {
        let linear = random_linear();
        let rank = &worker.rank;
        let rows = Split::even(K, rank.world()).unwrap();
        let columns = Split::even(N, rank.world()).unwrap();
        let row = RowParallel::load(rank, &linear.linear(), &rows).unwrap();
        let column = ColumnParallel::load(rank, &[(&linear.linear(), &columns)]).unwrap();
        let x = activations(&mut Seed::new(2).rng(0), DType::F16, 2 * ROWS * K, 1.0);
        let memory = &worker.memory;
        let buffer = |len| memory.buffer(&Values::poison(DType::F32, len));
        Setup {
            x: memory.buffer(&x.slice(0..2 * ROWS * row.k())),
            whole_x: memory.buffer(&x),
            y: buffer(ROWS * N),
            columns_y: buffer(ROWS * column.columns()[0]),
            row,
            column,
        }
    }

    /// A call of the row-parallel layer as it should be.
    fn call(&mut self, rank: &mut Rank, memory: &dyn Memory) -> Result<()> {
        let (input, output) = (
            self.x.input(0..ROWS * self.row.k()),
            self.y.output(Epilogue::Store),
        );
        self.row.forward(rank, memory.stream(), input, output)
    }

    /// Asserts that the group works and that outputs arrive.
    fn assert_works(&mut self, worker: &mut Worker<'_>) {
        self.y.write(&Values::poison(DType::F32, ROWS * N));
        worker.collective(|rank, memory| self.call(rank, memory).unwrap());
        let y = self.y.read();
        assert!(y.to_f64().iter().all(|value| value.is_finite()));
        let first = worker.value_of_rank_0(y.clone());
        y.assert_same_bits(&first, "ranks");
    }
}

on_both! {
    fn wrong_lengths_are_refused_and_the_group_still_works(platform: &Platform) {
        let _watchdog = Watchdog::new("wrong lengths", Duration::from_secs(120));
        on_ranks(platform, platform.group(2), |worker| {
            let mut s = Setup::new(worker);
            let (k, own) = (s.row.k(), s.column.columns()[0]);
            worker.phase(|rank, memory| {
                let row = &s.row;
                let mut forward = |elements: usize, output: Output<'_>| {
                    row.forward(rank, memory.stream(), s.x.input(0..elements), output)
                };
                refused(forward(ROWS * k - 1, s.y.output(Epilogue::Store)), "input", "elements");
                refused(forward((ROWS + 1) * k, s.y.output(Epilogue::Add)), "input", "elements");
                refused(forward(0, s.y.output(Epilogue::Store)), "input", "0 elements");
                let half = s.columns_y.output(Epilogue::Store);
                refused(forward(ROWS * k, half), "output", "multiple of 256");

                let column = &s.column;
                let mut forward = |elements: usize, outputs: &mut [Output<'_>]| {
                    let input = s.whole_x.input(0..elements);
                    column.forward(rank, memory.stream(), input, outputs)
                };
                refused(forward(ROWS * K, &mut []), "outputs", "0");
                let mut outputs = [&mut s.columns_y, &mut s.y].map(|y| y.output(Epilogue::Store));
                refused(forward(ROWS * K, &mut outputs), "outputs", "2");
                let columns_y = &mut outputs[..1];
                refused(forward(ROWS * K - 4, columns_y), "input", "whole rows");
                refused(forward((ROWS + 1) * K, columns_y), "outputs", &format!("{own}"));
                // That of the other layer, whose rows have the columns of all ranks.
                refused(forward(ROWS * K, &mut outputs[1..]), "outputs", "elements");
            });
            s.assert_works(worker);
        });
    }

    /// Only an all-reduce takes them.
    fn f32_inputs_are_refused_by_layers(platform: &Platform) {
        let _watchdog = Watchdog::new("f32 inputs", Duration::from_secs(120));
        on_ranks(platform, platform.group(2), |worker| {
            let mut s = Setup::new(worker);
            let x = worker.memory.buffer(&Values::of(DType::F32, vec![1.0; ROWS * K]));
            worker.phase(|rank, memory| {
                let input = x.input(0..ROWS * s.row.k());
                let output = s.y.output(Epilogue::Store);
                let row = s.row.forward(rank, memory.stream(), input, output);
                refused(row, "input", "f16 or bf16");
                let outputs = &mut [s.columns_y.output(Epilogue::Store)];
                let input = x.input(0..ROWS * K);
                let column = s.column.forward(rank, memory.stream(), input, outputs);
                refused(column, "input", "f16 or bf16");
            });
            s.assert_works(worker);
        });
    }

    fn a_layer_is_refused_by_any_rank_but_its_own(platform: &Platform) {
        let _watchdog = Watchdog::new("wrong ranks", Duration::from_secs(120));
        let linear = random_linear();
        let split = Split::even(K, 2).unwrap();
        let columns = Split::even(N, 2).unwrap();
        // All on one thread: nothing here is to reach the exchange.
        let mut ranks = platform.group(2).build().unwrap();
        let row = RowParallel::load(&ranks[0], &linear.linear(), &split).unwrap();
        let column = ColumnParallel::load(&ranks[0], &[(&linear.linear(), &columns)]).unwrap();
        let mut alone = platform.group(1).build().unwrap();
        for other in [&mut ranks[1], &mut alone[0]] {
            let memory = platform.memory(other);
            let x = memory.buffer(&Values::of(DType::F16, vec![1.0; ROWS * K]));
            let mut y = memory.buffer(&Values::poison(DType::F32, ROWS * N));
            let (input, output) = (x.input(0..ROWS * row.k()), y.output(Epilogue::Store));
            let refusal = row.forward(other, memory.stream(), input, output);
            refused(refusal, "rank", "rank 0 of 2");
            let (input, output) = (x.input(0..ROWS * K), y.output(Epilogue::Store));
            let refusal = column.forward(other, memory.stream(), input, &mut [output]);
            refused(refusal, "rank", "rank 0 of 2");
            assert!(y.read().to_f64().iter().all(|value| value.is_nan()));
        }
    }

    fn splits_that_do_not_fit_layer_and_world_are_refused(platform: &Platform) {
        let linear = random_linear();
        let linear = linear.linear();
        let rank = &platform.group(2).build().unwrap()[0];
        let refused = |result: Result<()>, parts: [&str; 2]| {
            let error = result.expect_err("should be refused");
            assert!(matches!(error, Error::InvalidSplit { .. }), "{error}");
            for part in parts {
                assert!(error.to_string().contains(part), "`{part}` is not in `{error}`");
            }
        };
        let row = |split: Split| RowParallel::load(rank, &linear, &split).map(drop);
        let column = |split: Split| ColumnParallel::load(rank, &[(&linear, &split)]).map(drop);
        refused(row(Split::even(K, 3).unwrap()), ["over 3 ranks", "over 2 ranks"]);
        refused(row(Split::even(N, 2).unwrap()), ["256 channels", "384 input channels"]);
        refused(column(Split::even(N, 1).unwrap()), ["over 1 ranks", "over 2 ranks"]);
        refused(column(Split::even(K, 2).unwrap()), ["384 channels", "256 output channels"]);
    }

    fn linears_that_cannot_share_a_call_are_refused(platform: &Platform) {
        let linear = random_linear();
        let mut rng = Seed::new(3).rng(0);
        let other = RandomLinear::new(&mut rng, (linear.codebook, linear.bits), K + 128, N);
        let (linear, other) = (linear.linear(), other.linear());
        let split = Split::even(N, 1).unwrap();
        let rank = &platform.group(1).build().unwrap()[0];
        refused(ColumnParallel::load(rank, &[]), "linears", "none");
        refused(ColumnParallel::load(rank, &[(&linear, &split); 9]), "linears", "9");
        let different = [(&linear, &split), (&other, &split)];
        refused(ColumnParallel::load(rank, &different), "linears", "512");
        ColumnParallel::load(rank, &[(&linear, &split); 8]).unwrap();
    }

    /// What was called last before it stopped does not matter: it may never have called at all.
    fn a_rank_that_never_calls_is_named_and_the_group_stays_failed(platform: &Platform) {
        let _watchdog = Watchdog::new("a silent rank", Duration::from_secs(120));
        for silent in 0..3 {
            on_ranks(platform, platform.group(3).timeout(SHORT), |worker| {
                let mut s = Setup::new(worker);
                let silence = worker.phase_without(silent, |rank, memory| s.call(rank, memory));
                let error = worker.rank.check().expect_err("it stays failed");
                let Error::PeerTimeout { waited, .. } = error else {
                    panic!("{error}");
                };
                assert!(waited >= SHORT, "{error}");
                // Also the rank that was silent, and for ever.
                for _ in 0..3 {
                    let again = worker.phase(|rank, memory| s.call(rank, memory));
                    silence.assert_told(&again.expect_err("a failed group does not call"));
                }
            });
        }
    }

    fn a_rank_that_stops_after_some_calls_is_named(platform: &Platform) {
        let _watchdog = Watchdog::new("a rank that stops", Duration::from_secs(120));
        on_ranks(platform, platform.group(2), |worker| {
            let mut s = Setup::new(worker);
            for _ in 0..3 {
                s.assert_works(worker);
            }
            worker.rank.set_timeout(SHORT);
            worker.phase_without(1, |rank, memory| s.call(rank, memory));
            let error = worker.rank.check().expect_err("the group has failed");
            let named = matches!(error, Error::PeerTimeout { rank: 0, peer: 1, epoch: 4, .. });
            assert!(named, "{error}");
        });
    }

    fn ranks_that_disagree_about_the_rows_end_in_an_error(platform: &Platform) {
        let _watchdog = Watchdog::new("different rows", Duration::from_secs(120));
        on_ranks(platform, platform.group(2), |worker| {
            let s = Setup::new(worker);
            let rows = 1 + worker.rank.rank();
            let mut y = worker.memory.buffer(&Values::poison(DType::F32, rows * N));
            let called = worker.phase(|rank, memory| {
                let (input, output) = (s.x.input(0..rows * s.row.k()), y.output(Epilogue::Store));
                s.row.forward(rank, memory.stream(), input, output)
            });
            // When the call ends, the other rank may not have told its side yet.
            if let Err(error) = called {
                assert!(matches!(error, Error::Mismatch { .. }), "{error}");
            }
            let error = worker.rank.check().expect_err("the group has failed");
            let Error::Mismatch { rank, own, theirs: Some(theirs), .. } = error else {
                panic!("{error}");
            };
            assert_eq!((own.rows, theirs.rows), if rank == 0 { (1, 2) } else { (2, 1) });
        });
    }
}

#[test]
fn groups_that_cannot_be_are_refused() {
    let host = Device::Host;
    refused(Group::on_host(0).build(), "devices", "0");
    refused(Group::on_host(9).build(), "devices", "9");
    refused(Group::new([Device::Cuda(0); 9]).build(), "devices", "9");
    refused(
        Group::new([host, Device::Cuda(0)]).build(),
        "devices",
        "one kind",
    );
    refused(
        Group::new([Device::Cuda(1), host, host]).build(),
        "devices",
        "one kind",
    );
    refused(Group::on_host(2).slot_values(0).build(), "slot_values", "0");
    refused(
        Group::on_host(2).slot_values(usize::MAX).build(),
        "slot_values",
        "2^28",
    );
    for period in [0, 1, 3, 48, 1 << 31] {
        let group = Group::on_host(2).scrub_period(period);
        refused(group.build(), "scrub_period", "power of two");
    }
}

#[test]
fn a_device_that_is_not_there_is_named_or_the_lack_of_cuda_is() {
    let error = Group::new([Device::Cuda(4096)]).build().unwrap_err();
    assert!(matches!(error, Error::CudaUnavailable { .. }), "{error}");
}

/// Memory and streams of a device on a rank of the host; nothing is ever read through them.
#[cfg(feature = "cuda")]
#[test]
fn a_rank_on_the_host_refuses_device_memory_and_streams() {
    let linear = random_linear();
    let mut rank = Group::on_host(1).build().unwrap().remove(0);
    let split = Split::even(K, 1).unwrap();
    let layer = RowParallel::load(&rank, &linear.linear(), &split).unwrap();
    let x = vec![half::f16::ONE; ROWS * K];
    let mut y = vec![0f32; ROWS * N];
    // SAFETY: the calls are refused before anything is launched, so the address is never used.
    let device_x = unsafe { Input::device_raw(0x1000, DType::F16, ROWS * K) };
    let refusal = layer.forward(&mut rank, Stream::host(), device_x, y.as_mut_slice().into());
    refused(refusal, "input", "device memory");
    // SAFETY: as above.
    let device_y = unsafe { Output::device_raw(0x1000, DType::F32, ROWS * N, Epilogue::Store) };
    let refusal = layer.forward(&mut rank, Stream::host(), x.as_slice().into(), device_y);
    refused(refusal, "output", "device memory");
    // SAFETY: as above, for the stream.
    let stream = unsafe { Stream::cuda_raw(std::ptr::null_mut()) };
    let refusal = layer.forward(
        &mut rank,
        stream,
        x.as_slice().into(),
        y.as_mut_slice().into(),
    );
    refused(refusal, "stream", "CUDA stream");
    layer
        .forward(
            &mut rank,
            Stream::host(),
            x.as_slice().into(),
            y.as_mut_slice().into(),
        )
        .unwrap();
}

#[cfg(feature = "cuda")]
#[test]
fn a_rank_on_a_device_refuses_what_its_kernels_cannot_use_on_cuda() {
    let Some(platform) = Platform::cuda("unusable memory") else {
        return;
    };
    let _watchdog = Watchdog::new("unusable memory", Duration::from_secs(120));
    on_ranks(&platform, platform.group(2), |worker| {
        let mut s = Setup::new(worker);
        let k = s.row.k();
        let host_x = vec![half::f16::ONE; ROWS * k];
        let mut host_y = vec![0f32; ROWS * N];
        worker.phase(|rank, memory| {
            let row = &s.row;
            let mut forward = |stream: Stream<'_>, input: Input<'_>, output: Output<'_>| {
                row.forward(rank, stream, input, output)
            };
            let device_x = || s.x.input(0..ROWS * k);
            refused(
                forward(Stream::host(), device_x(), s.y.output(Epilogue::Store)),
                "stream",
                "the host",
            );
            refused(
                forward(
                    memory.stream(),
                    host_x.as_slice().into(),
                    s.y.output(Epilogue::Store),
                ),
                "input",
                "host memory",
            );
            refused(
                forward(memory.stream(), device_x(), host_y.as_mut_slice().into()),
                "output",
                "host memory",
            );
            // SAFETY: refused before anything is launched, so the address is never used.
            let f32_x = unsafe { Input::device_raw(0x1000, DType::F32, ROWS * k) };
            refused(
                forward(memory.stream(), f32_x, s.y.output(Epilogue::Store)),
                "input",
                "f32",
            );
            // SAFETY: as above.
            let odd_x = unsafe { Input::device_raw(0x1004, DType::Bf16, ROWS * k) };
            refused(
                forward(memory.stream(), odd_x, s.y.output(Epilogue::Store)),
                "input",
                "aligned to 8",
            );
            // SAFETY: as above.
            let odd_y = unsafe { Output::device_raw(0x1008, DType::F32, ROWS * N, Epilogue::Add) };
            refused(
                forward(memory.stream(), device_x(), odd_y),
                "output",
                "aligned to 16",
            );
        });
        s.assert_works(worker);
    });
}

/// Streams and slices know their device.
#[cfg(feature = "cuda")]
#[test]
fn a_rank_refuses_streams_and_slices_of_another_device_on_cuda() {
    use cudarc::driver::CudaContext;

    let Some(platform) = Platform::cuda("another device") else {
        return;
    };
    let devices = platform.devices_for(2);
    let (Device::Cuda(own), Device::Cuda(other)) = (devices[0], devices[1]) else {
        panic!("two ranks on CUDA");
    };
    if own == other {
        say!("another device: skipped, the machine has one GPU");
        return;
    }
    let linear = random_linear();
    let mut rank = platform.group(1).build().unwrap().remove(0);
    let split = Split::even(K, 1).unwrap();
    let layer = RowParallel::load(&rank, &linear.linear(), &split).unwrap();
    let [own, other] = [own, other].map(|ordinal| {
        let context = CudaContext::new(ordinal).unwrap();
        context.new_stream().unwrap()
    });
    let x =
        [&own, &other].map(|stream| stream.clone_htod(&vec![half::f16::ONE; ROWS * K]).unwrap());
    let mut y = [&own, &other].map(|stream| stream.clone_htod(&vec![0f32; ROWS * N]).unwrap());
    for (i, argument) in [(1, "stream"), (2, "input"), (3, "output")] {
        let stream = if i == 1 { &other } else { &own };
        let at = usize::from(i == 2);
        let input_stream = [&own, &other][at];
        let input = Input::device(&x[at], input_stream);
        let at = usize::from(i == 3);
        let output_stream = [&own, &other][at];
        let output = Output::device(&mut y[at], output_stream, Epilogue::Store);
        let refusal = layer.forward(&mut rank, Stream::from(stream), input, output);
        refused(refusal, argument, "CUDA device");
    }
    let (input, output) = (
        Input::device(&x[0], &own),
        Output::device(&mut y[0], &own, Epilogue::Store),
    );
    layer
        .forward(&mut rank, (&own).into(), input, output)
        .unwrap();
    own.synchronize().unwrap();
    rank.check().unwrap();
}
