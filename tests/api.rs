//! What the public types promise, mostly to the compiler.

mod common;

use common::*;
use trellink::checkpoint::Checkpoint;
use trellink::format::{Codebook, DType};
use trellink::weights::Linear;
use trellink::{
    Arithmetic, ColumnParallel, Device, Epilogue, Error, Group, LoadOptions, Rank, RowParallel,
    Split, Stream,
};

const fn send_and_sync<T: Send + Sync>() {}
const fn copies<T: Copy>() {}
const fn outlives_borrows<T: 'static>() {}

/// Ranks and layers move to the threads that run them and may be looked at from others; errors go
/// wherever errors go.
const _: () = {
    send_and_sync::<Rank>();
    send_and_sync::<RowParallel>();
    send_and_sync::<ColumnParallel>();
    send_and_sync::<Group>();
    #[cfg(target_os = "linux")]
    send_and_sync::<trellink::Rendezvous>();
    send_and_sync::<Split>();
    send_and_sync::<Linear<'_>>();
    send_and_sync::<Checkpoint>();
    send_and_sync::<Error>();
    outlives_borrows::<Rank>();
    outlives_borrows::<RowParallel>();
    outlives_borrows::<ColumnParallel>();
    outlives_borrows::<Error>();
    copies::<Stream<'_>>();
    copies::<Device>();
    copies::<Epilogue>();
    copies::<LoadOptions>();
    copies::<Linear<'_>>();
};

#[test]
fn errors_are_std_errors_of_modest_size() {
    let error: Box<dyn std::error::Error + Send + Sync> =
        Box::new(Split::even(100, 2).unwrap_err());
    assert!(error.to_string().contains("100"));
    // Every call returns one; clippy's limit is 128 bytes.
    assert!(size_of::<Error>() <= 128, "{} bytes", size_of::<Error>());
}

on_both! {
    fn ranks_and_layers_say_what_they_are(platform: &Platform) {
        let mut rng = Seed::new(0xa91).rng(0);
        let format = (Codebook::Mul1, "3".parse().unwrap());
        let linear = RandomLinear::new(&mut rng, format, 384, 256);
        let devices = platform.devices_for(3);
        on_ranks(platform, platform.group(3), |worker| {
            let rank = &worker.rank;
            assert_eq!(rank.world(), 3);
            assert_eq!(rank.device(), devices[rank.rank()]);
            rank.check().unwrap();

            let options = LoadOptions::new().arithmetic(Arithmetic::Uniform);
            let split = Split::explicit(&[256, 0, 128]).unwrap();
            let row = RowParallel::load_with(rank, &linear.linear(), &split, options).unwrap();
            assert_eq!((row.k(), row.n()), (split.range(rank.rank()).len(), 256));
            assert_eq!(row.options(), options);

            let halves = Split::explicit(&[128, 128, 0]).unwrap();
            let last = Split::explicit(&[0, 0, 256]).unwrap();
            let whole = linear.linear();
            let column = ColumnParallel::load(rank, &[(&whole, &halves), (&whole, &last)]).unwrap();
            let columns = [&halves, &last].map(|split| split.range(rank.rank()).len());
            assert_eq!((column.k(), column.columns()), (384, &columns[..]));
            assert_eq!(column.options(), LoadOptions::default());
        });
    }

    /// M = 0 exchanges nothing: a rank that makes no such call does not wait for those that do.
    fn a_call_without_rows_does_nothing(platform: &Platform) {
        let mut rng = Seed::new(0xa92).rng(0);
        let format = (Codebook::Mul1, "3".parse().unwrap());
        let linear = RandomLinear::new(&mut rng, format, 256, 128);
        let split = Split::even(256, 2).unwrap();
        let x = activations(&mut rng, DType::F16, 128, 1.0);
        on_ranks(platform, platform.group(2), |worker| {
            let layer = RowParallel::load(&worker.rank, &linear.linear(), &split).unwrap();
            let nothing = worker.memory.buffer(&Values::poison(DType::F16, 0));
            let mut no_output = worker.memory.buffer(&Values::poison(DType::F32, 0));
            let x = worker.memory.buffer(&x);
            let mut y = worker.memory.buffer(&Values::poison(DType::F32, 128));
            worker.collective(|rank, memory| {
                for _ in 0..rank.rank() * 3 {
                    let (input, output) = (nothing.input(0..0), no_output.output(Epilogue::Store));
                    layer.forward(rank, memory.stream(), input, output).unwrap();
                }
                let (input, output) = (x.input(0..128), y.output(Epilogue::Store));
                layer.forward(rank, memory.stream(), input, output).unwrap();
            });
            assert!(y.read().to_f64().iter().all(|value| value.is_finite()));
        });
    }
}
