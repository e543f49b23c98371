//! The RMSNorm that a row-parallel layer's call can end with.
//!
//! A norm takes nothing from the output that it follows: that has the bits it has without. The
//! normalised rows are those of the output as stored, the same on all ranks and in every run.

mod common;

use common::*;
use std::time::Duration;
use trellink::format::DType;
use trellink::reference;
use trellink::{
    AllReduce, Arithmetic, ColumnParallel, Epilogue, LoadOptions, Output, RmsNorm, RowParallel,
    Split,
};

const EPSILON: f32 = 1e-5;

/// A layer with inputs for some rows, and the weight of its norm.
struct Layer {
    linear: RandomLinear,
    x: Values,
    weight: Values,
}

impl Layer {
    /// `variant` decides over its format and dtypes.
    fn random(seed: &Seed, variant: usize, [k, n]: [usize; 2], rows: usize) -> Self {
        let mut rng = seed.rng(variant as u64);
        let format = formats()[(5 * variant + 2) % formats().len()];
        let mut linear = RandomLinear::new(&mut rng, format, k, n);
        if variant % 2 == 1 {
            linear = linear.with_bias(&mut rng, DType::ALL[variant % 3]);
        }
        Layer {
            x: activations(
                &mut rng,
                [DType::F16, DType::Bf16][variant % 2],
                rows * k,
                2.0,
            ),
            weight: activations(&mut rng, DType::ALL[variant / 2 % 3], n, 3.0),
            linear,
        }
    }

    fn rows(&self) -> usize {
        self.x.len() / self.linear.k
    }
}

/// What a call leaves: the output and the normalised rows.
type Results = [Values; 2];

/// A layer on a rank, with memory for calls of it.
struct Loaded<'a> {
    layer: &'a Layer,
    row: RowParallel,
    x: Box<dyn Buffer>,
    weight: Box<dyn Buffer>,
}

impl<'a> Loaded<'a> {
    fn new(worker: &Worker<'_>, layer: &'a Layer, shards: Shards) -> Self {
        let (rank, memory) = (&worker.rank, &worker.memory);
        let split = shards.split(layer.linear.k, rank.world());
        let options = LoadOptions::new().arithmetic(Arithmetic::Uniform);
        let linear = layer.linear.linear();
        Loaded {
            layer,
            row: RowParallel::load_with(rank, &linear, &split, options).unwrap(),
            x: memory.buffer(&shard_columns(&layer.x, &split, rank.rank())),
            weight: memory.buffer(&layer.weight),
        }
    }

    /// A call of the first rows on all ranks, with a norm or without, whose output held `before`.
    fn call(
        &self,
        worker: &mut Worker<'_>,
        rows: usize,
        (before, epilogue): (&Values, Epilogue),
        out: DType,
        norm: bool,
    ) -> Results {
        let n = self.layer.linear.n;
        let mut y = worker.memory.buffer(before);
        let mut normalised = worker.memory.buffer(&Values::poison(out, rows * n));
        worker.collective(|rank, memory| {
            let input = self.x.input(0..rows * self.row.k());
            let mut output = y.output(epilogue);
            if norm {
                let weight = self.weight.input(0..n);
                let out = normalised.output(Epilogue::Store);
                output = output.rms_norm(RmsNorm::new(weight, EPSILON, out));
            }
            self.row
                .forward(rank, memory.stream(), input, output)
                .unwrap();
        });
        [y.read(), normalised.read()]
    }
}

/// A residual as large as the product, or poison.
fn before(layer: &Layer, rows: usize, dtype: DType, epilogue: Epilogue) -> Values {
    let len = rows * layer.linear.n;
    match epilogue {
        Epilogue::Store => Values::poison(dtype, len),
        Epilogue::Add => {
            let amplitude = (layer.linear.k as f32).sqrt();
            let number = |i: usize| amplitude * (i as f32 * 0.618).sin();
            Values::of(dtype, (0..len).map(number))
        }
    }
}

/// Whether normalised rows are those of the output beside them, as nearly as their dtype can tell.
#[track_caller]
fn assert_normalised([y, normalised]: &Results, weight: &Values, what: &str) {
    let want = reference::rms_norm(&y.to_f64(), &weight.to_f64(), EPSILON.into());
    let unit_roundoff = match normalised.dtype() {
        DType::F16 => 2f64.powi(-11),
        _ => 2f64.powi(-8),
    };
    for (i, (got, want)) in normalised.to_f64().into_iter().zip(want).enumerate() {
        // The rounding, of subnormals too, and what f32 loses before: a few units of 2^-24.
        let bound = (unit_roundoff + 1e-6) * want.abs() + 2f64.powi(-25);
        // Not `>`: a NaN must fail.
        assert!(
            (got - want).abs() <= bound,
            "{what}, value {i}: {got} for {want}"
        );
    }
}

/// Calls in each combination of dtypes and epilogue that `variant` chooses, compared with each other,
/// with the other ranks and with the reference.
fn check_calls(worker: &mut Worker<'_>, loaded: &Loaded<'_>, variant: usize) {
    let layer = loaded.layer;
    for (i, rows) in [1, 2, 5, 9, 17, 33, 70, 100].into_iter().enumerate() {
        if rows > layer.rows() {
            break;
        }
        let choice = variant + i;
        let dtype = DType::ALL[choice % 3];
        let epilogue = [Epilogue::Add, Epilogue::Store][choice / 3 % 2];
        let out = [DType::F16, DType::Bf16][choice / 2 % 2];
        let what = format!(
            "variant {variant}, {rows} rows, {dtype} {epilogue:?}, out {out}, world {}",
            worker.rank.world()
        );
        let held = before(layer, rows, dtype, epilogue);
        let [first, second, plain] =
            [true, true, false].map(|norm| loaded.call(worker, rows, (&held, epilogue), out, norm));
        first[0].assert_same_bits(&plain[0], format_args!("{what}: with and without a norm"));
        let on_rank_0 = worker.value_of_rank_0(first.clone());
        for i in 0..2 {
            first[i].assert_same_bits(&second[i], format_args!("{what}: two runs"));
            first[i].assert_same_bits(&on_rank_0[i], format_args!("{what}: ranks"));
        }
        if worker.rank.rank() == 0 {
            assert_normalised(&first, &layer.weight, &what);
        }
    }
}

fn worlds(platform: &Platform) -> &'static [usize] {
    match platform.extent() {
        Extent::Full => &[1, 2, 3, 4, 5, 6, 7, 8],
        Extent::Pairwise => &[1, 2, 5],
        Extent::Reduced => &[2],
    }
}

on_both! {
    fn calls_normalise_what_they_store_and_store_what_they_do_without_a_norm(
        platform: &Platform
    ) {
        let _watchdog = Watchdog::new("calls with a norm", Duration::from_secs(300));
        let seed = Seed::new(0x4035);
        let layers: Vec<Layer> = (0..12)
            .map(|variant| {
                let n = [128, 384, 512, 1024][variant % 4];
                Layer::random(&seed, variant, [640, n], 100)
            })
            .collect();
        for &world in worlds(platform) {
            on_ranks(platform, platform.group(world).slot_values(1 << 17), |worker| {
                for (variant, layer) in layers.iter().enumerate() {
                    let shards = Shards::ALL[variant % 3];
                    let loaded = Loaded::new(worker, layer, shards);
                    check_calls(worker, &loaded, variant);
                }
            });
        }
    }

    /// Beyond 32 groups of 128 columns a lane has several to add up, beyond 64 it waits more than once.
    fn rows_as_wide_as_those_of_large_models_are_normalised(platform: &Platform) {
        let _watchdog = Watchdog::new("wide rows", Duration::from_secs(300));
        let seed = Seed::new(0x4036);
        for (variant, n) in [4096, 5120, 8192, 8320, 16384].into_iter().enumerate() {
            let layer = Layer::random(&seed, variant, [256, n], 9);
            on_ranks(platform, platform.group(2).slot_values(9 * n), |worker| {
                let loaded = Loaded::new(worker, &layer, Shards::Even);
                check_calls(worker, &loaded, variant);
            });
        }
    }

    fn a_call_of_more_rows_than_a_slot_holds_has_the_bits_of_one_that_fits(platform: &Platform) {
        let _watchdog = Watchdog::new("chunked calls with a norm", Duration::from_secs(240));
        let layer = Layer::random(&Seed::new(0x4037), 3, [640, 384], 33);
        let call = |slot| {
            let group = platform.group(2).slot_values(slot);
            on_ranks(platform, group, |worker| {
                let loaded = Loaded::new(worker, &layer, Shards::Uneven);
                let held = before(&layer, 33, DType::Bf16, Epilogue::Add);
                loaded.call(worker, 33, (&held, Epilogue::Add), DType::F16, true)
            })
            .swap_remove(0)
        };
        let whole = call(1 << 16);
        for slot in [384, 1000, 8500] {
            for (cut, whole) in call(slot).iter().zip(&whole) {
                cut.assert_same_bits(whole, format_args!("slot of {slot}"));
            }
        }
    }

    fn a_normalised_row_depends_neither_on_its_batch_nor_on_its_place(platform: &Platform) {
        let _watchdog = Watchdog::new("batches with a norm", Duration::from_secs(240));
        let layer = Layer::random(&Seed::new(0x4038), 4, [640, 512], 40);
        on_ranks(platform, platform.group(2), |worker| {
            let loaded = Loaded::new(worker, &layer, Shards::Even);
            let call = |worker: &mut Worker<'_>, rows| {
                let held = before(&layer, rows, DType::F16, Epilogue::Store);
                let held = (&held, Epilogue::Store);
                loaded.call(worker, rows, held, DType::Bf16, true)[1].clone()
            };
            let all = call(worker, 40);
            for rows in [1, 7, 20] {
                let some = call(worker, rows);
                some.assert_same_bits(&all.slice(0..rows * 512), format_args!("{rows} rows"));
            }
        });
    }

    fn norms_that_cannot_be_are_refused_and_the_group_still_works(platform: &Platform) {
        let _watchdog = Watchdog::new("refused norms", Duration::from_secs(120));
        let layer = Layer::random(&Seed::new(0x4039), 1, [256, 384], 2);
        on_ranks(platform, platform.group(2).slot_values(1024), |worker| {
            let loaded = Loaded::new(worker, &layer, Shards::Even);
            let memory = &worker.memory;
            let mut y = memory.buffer(&Values::poison(DType::F16, 2 * 384));
            let mut outs = [DType::F16, DType::F32]
                .map(|dtype| memory.buffer(&Values::poison(dtype, 2 * 384)));
            let mut short = memory.buffer(&Values::poison(DType::F16, 384));
            worker.phase(|rank, memory| {
                let mut forward = |weight: usize, epsilon: f32, out: Output<'_>| {
                    let weight = loaded.weight.input(0..weight);
                    let norm = RmsNorm::new(weight, epsilon, out);
                    let output = y.output(Epilogue::Store).rms_norm(norm);
                    let input = loaded.x.input(0..2 * loaded.row.k());
                    loaded.row.forward(rank, memory.stream(), input, output)
                };
                let [out, wide] = &mut outs;
                for (weight, epsilon, argument, part) in [
                    (256, EPSILON, "weight", "384"),
                    (384, -1e-5, "epsilon", "-0.00001"),
                    (384, f32::NAN, "epsilon", "finite"),
                    (384, f32::INFINITY, "epsilon", "finite"),
                ] {
                    let out = out.output(Epilogue::Store);
                    refused(forward(weight, epsilon, out), argument, part);
                }
                let wide = wide.output(Epilogue::Store);
                refused(forward(384, EPSILON, wide), "out", "f16 or bf16");
                let short = short.output(Epilogue::Store);
                refused(forward(384, EPSILON, short), "out", "2 rows of 384");
            });
            let held = before(&layer, 2, DType::F32, Epilogue::Add);
            let results = loaded.call(worker, 2, (&held, Epilogue::Add), DType::F16, true);
            assert_normalised(&results, &layer.weight, "after the refusals");
        });
    }

    fn rows_that_do_not_fit_a_slot_are_refused(platform: &Platform) {
        let _watchdog = Watchdog::new("rows without a slot", Duration::from_secs(120));
        let layer = Layer::random(&Seed::new(0x403a), 2, [256, 512], 1);
        on_ranks(platform, platform.group(2).slot_values(384), |worker| {
            let loaded = Loaded::new(worker, &layer, Shards::Even);
            let mut y = worker.memory.buffer(&Values::poison(DType::F16, 512));
            let mut out = worker.memory.buffer(&Values::poison(DType::F16, 512));
            worker.phase(|rank, memory| {
                let out = out.output(Epilogue::Store);
                let norm = RmsNorm::new(loaded.weight.input(0..512), EPSILON, out);
                let output = y.output(Epilogue::Store).rms_norm(norm);
                let input = loaded.x.input(0..loaded.row.k());
                let result = loaded.row.forward(rank, memory.stream(), input, output);
                refused(result, "output", "`slot_values` of at least 512");
            });
            // Without a norm the columns of a row may be cut.
            let held = before(&layer, 1, DType::F32, Epilogue::Store);
            loaded.call(worker, 1, (&held, Epilogue::Store), DType::F16, false);
        });
    }

    fn only_row_parallel_layers_take_a_norm(platform: &Platform) {
        let _watchdog = Watchdog::new("norms of other calls", Duration::from_secs(120));
        let layer = Layer::random(&Seed::new(0x403b), 2, [256, 128], 1);
        on_ranks(platform, platform.group(1), |worker| {
            let linear = layer.linear.linear();
            let split = Split::even(128, 1).unwrap();
            let column = ColumnParallel::load(&worker.rank, &[(&linear, &split)]).unwrap();
            let memory = &worker.memory;
            let (x, weight) = (memory.buffer(&layer.x), memory.buffer(&layer.weight));
            let [mut y, mut out] =
                [0; 2].map(|_| memory.buffer(&Values::poison(DType::F16, 128)));
            worker.phase(|rank, memory| {
                let stream = memory.stream();
                let output = with_norm(&mut *y, &*weight, &mut *out);
                let result = column.forward(rank, stream, x.input(0..256), &mut [output]);
                refused(result, "outputs", "RMSNorm");
                let reduce = AllReduce::new();
                let output = with_norm(&mut *y, &*weight, &mut *out);
                let result = reduce.run(rank, stream, x.input(0..128), output);
                refused(result, "output", "RMSNorm");
                let output = with_norm(&mut *y, &*weight, &mut *out);
                let result = reduce.run_in_place(rank, stream, output);
                refused(result, "buffer", "RMSNorm");
            });
        });
    }
}

/// An output of 128 columns that stores, with its norm.
fn with_norm<'a>(
    y: &'a mut dyn Buffer,
    weight: &'a dyn Buffer,
    out: &'a mut dyn Buffer,
) -> Output<'a> {
    let out = out.output(Epilogue::Store);
    y.output(Epilogue::Store)
        .rms_norm(RmsNorm::new(weight.input(0..128), EPSILON, out))
}

#[cfg(feature = "cuda")]
#[test]
fn memory_that_is_not_aligned_or_not_on_the_device_is_refused_on_cuda() {
    use trellink::Input;

    let Some(platform) = Platform::cuda("norms in wrong memory") else {
        return;
    };
    let _watchdog = Watchdog::new("norms in wrong memory", Duration::from_secs(120));
    let layer = Layer::random(&Seed::new(0x403c), 0, [256, 128], 1);
    on_ranks(&platform, platform.group(1), |worker| {
        let loaded = Loaded::new(worker, &layer, Shards::Even);
        let mut y = worker.memory.buffer(&Values::poison(DType::F16, 128));
        let on_host = vec![half::f16::ONE; 128];
        worker.phase(|rank, memory| {
            let mut forward = |weight: Input<'_>, out: Output<'_>| {
                let norm = RmsNorm::new(weight, EPSILON, out);
                let output = y.output(Epilogue::Store).rms_norm(norm);
                let input = loaded.x.input(0..loaded.row.k());
                loaded.row.forward(rank, memory.stream(), input, output)
            };
            // SAFETY: a call that is refused touches nothing.
            let raw_out =
                |address| unsafe { Output::device_raw(address, DType::F16, 128, Epilogue::Store) };
            // SAFETY: as above.
            let raw_weight = |address| unsafe { Input::device_raw(address, DType::F16, 128) };
            let weight = || loaded.weight.input(0..128);
            refused(
                forward(weight(), raw_out(0x1004)),
                "out",
                "aligned to 8 bytes",
            );
            refused(
                forward(raw_weight(0x1002), raw_out(0x1000)),
                "weight",
                "aligned",
            );
            let host = Input::from(&on_host[..]);
            refused(forward(host, raw_out(0x1000)), "weight", "host memory");
            let mut host = on_host.clone();
            refused(
                forward(weight(), Output::from(&mut host[..])),
                "out",
                "host memory",
            );
        });
        let held = before(&layer, 1, DType::F32, Epilogue::Store);
        let results = loaded.call(worker, 1, (&held, Epilogue::Store), DType::F16, true);
        assert_normalised(&results, &layer.weight, "after the refusals");
    });
}

/// Infinities and NaN stay in their row.
#[test]
fn a_row_of_nan_leaves_the_others_alone_on_the_host() {
    let platform = Platform::host();
    let mut layer = Layer::random(&Seed::new(0x403d), 6, [256, 256], 3);
    let call = |layer: &Layer| {
        on_ranks(&platform, platform.group(1), |worker| {
            let loaded = Loaded::new(worker, layer, Shards::Even);
            let held = before(layer, 3, DType::F32, Epilogue::Store);
            loaded.call(worker, 3, (&held, Epilogue::Store), DType::F16, true)
        })
        .swap_remove(0)
    };
    let [_, clean] = call(&layer);
    let Values::F16(x) = &mut layer.x else {
        unreachable!("variants that are even have f16");
    };
    x[256 + 7] = half::f16::INFINITY;
    let [_, got] = call(&layer);
    assert!(got
        .slice(256..512)
        .to_f64()
        .iter()
        .all(|y| y.is_nan() || *y == 0.0));
    for row in [0, 2] {
        let range = row * 256..(row + 1) * 256;
        got.slice(range.clone())
            .assert_same_bits(&clean.slice(range), "other rows");
    }
}
