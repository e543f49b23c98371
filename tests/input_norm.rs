//! The RMSNorm between two layers in two halves: a row-parallel call leaves sums of squares, a column-parallel one divides by
//! what they give, and the norm's weight is in its input scales.

mod common;

use common::*;
use rand::rngs::StdRng;
use rand::Rng;
use std::time::Duration;
use trellink::format::{DType, GROUP};
use trellink::reference::{self, ReferenceLinear};
use trellink::{
    AllReduce, Arithmetic, ColumnParallel, Epilogue, LoadOptions, RmsNorm, RowParallel, Split,
};

const EPSILON: f32 = 1e-3;

/// Rows of the largest call.
const ROWS: usize = 70;

/// Two layers with a residual between them.
struct Layers {
    /// [384, hidden].
    down: RandomLinear,
    /// Each [hidden, 256].
    next: [RandomLinear; 2],
    /// Of the norm between.
    weight: Vec<f32>,
    x: Values,
    residual: Values,
}

impl Layers {
    /// `variant` decides over formats and dtypes. Weights are powers of two, with which nothing is lost, or any.
    fn random(seed: &Seed, variant: usize, hidden: usize, powers_of_two: bool) -> Self {
        let mut rng = seed.rng(variant as u64);
        let format = |i: usize| formats()[(5 * variant + 7 * i) % formats().len()];
        let down = RandomLinear::new(&mut rng, format(0), 384, hidden).tame(&mut rng);
        let next = [1, 2].map(|i| {
            let linear = RandomLinear::new(&mut rng, format(i), hidden, 256);
            if i == variant % 3 {
                linear.with_bias(&mut rng, DType::F32)
            } else {
                linear
            }
        });
        let weight = |rng: &mut StdRng| match powers_of_two {
            true => [0.25, -0.5, 1.0, 2.0][rng.random_range(0..4)],
            false => rng.random_range(-2.0..2.0),
        };
        let dtype = [DType::F16, DType::Bf16][variant % 2];
        Layers {
            weight: (0..hidden).map(|_| weight(&mut rng)).collect(),
            x: activations(&mut rng, DType::F16, ROWS * 384, 2.0),
            residual: activations(&mut rng, dtype, ROWS * hidden, 30.0),
            down,
            next,
        }
    }

    fn hidden(&self) -> usize {
        self.down.n
    }
}

/// What the row-parallel call leaves: the residual and the sums of its squares.
fn finish_rows(
    worker: &mut Worker<'_>,
    (layers, down): (&Layers, &RowParallel),
    split: &Split,
    rows: usize,
    squares: bool,
) -> [Values; 2] {
    let hidden = layers.hidden();
    let x = shard_columns(&layers.x.slice(0..rows * 384), split, worker.rank.rank());
    let x = worker.memory.buffer(&x);
    let mut y = worker
        .memory
        .buffer(&layers.residual.slice(0..rows * hidden));
    let poison = Values::poison(DType::F32, rows * hidden / GROUP);
    let mut sums = worker.memory.buffer(&poison);
    worker.collective(|rank, memory| {
        let mut output = y.output(Epilogue::Add);
        if squares {
            output = output.sums_of_squares(sums.output(Epilogue::Add));
        }
        let input = x.input(0..rows * down.k());
        down.forward(rank, memory.stream(), input, output).unwrap();
    });
    [y.read(), sums.read()]
}

/// What the column-parallel call makes of rows and sums of squares: the two outputs, or one.
fn next(
    worker: &mut Worker<'_>,
    layer: &ColumnParallel,
    [x, squares]: &[Values; 2],
    gated: bool,
) -> Vec<Values> {
    let rows = x.len() / layer.k();
    let x = worker.memory.buffer(x);
    let squares = worker.memory.buffer(squares);
    let columns = &layer.columns()[usize::from(gated)..];
    let mut outputs: Vec<_> = columns
        .iter()
        .map(|n| worker.memory.buffer(&Values::poison(DType::F32, rows * n)))
        .collect();
    worker.collective(|rank, memory| {
        let input = x.input(0..rows * layer.k());
        let input = input.rms_norm(squares.input(0..rows * layer.k() / GROUP), EPSILON);
        let stream = memory.stream();
        let mut outputs: Vec<_> = outputs
            .iter_mut()
            .map(|y| y.output(Epilogue::Store))
            .collect();
        match gated {
            true => layer.forward_swiglu(rank, stream, input, outputs.remove(0)),
            false => layer.forward(rank, stream, input, &mut outputs),
        }
        .unwrap();
    });
    outputs.iter().map(|y| y.read()).collect()
}

/// Whether sums are those of the squares beside them, to within f32's rounding.
#[track_caller]
fn assert_squares([y, sums]: &[Values; 2], what: &str) {
    let values = y.to_f64();
    for (i, (group, got)) in values.chunks_exact(GROUP).zip(sums.to_f64()).enumerate() {
        let want: f64 = group.iter().map(|y| y * y).sum();
        // Not `>`: a NaN must fail.
        let near = (got - want).abs() <= 1e-6 * want;
        assert!(near, "{what}, sum {i}: {got} for {want}");
    }
}

fn worlds(platform: &Platform) -> &'static [usize] {
    match platform.extent() {
        Extent::Reduced => &[2],
        _ => &[1, 2, 5],
    }
}

fn load_next(worker: &Worker<'_>, layers: &Layers, arithmetic: Arithmetic) -> ColumnParallel {
    let options = LoadOptions::new().arithmetic(arithmetic);
    let split = Split::even(256, worker.rank.world().min(2)).unwrap();
    let mut shares: Vec<usize> = split.iter().map(|range| range.len()).collect();
    shares.resize(worker.rank.world(), 0);
    let split = Split::explicit(&shares).unwrap();
    let [gate, up] = layers.next.each_ref().map(RandomLinear::linear);
    let linears = [(&gate, &split), (&up, &split)];
    ColumnParallel::load_normalised(&worker.rank, &linears, &layers.weight, options).unwrap()
}

on_both! {
    fn a_row_parallel_call_leaves_the_sums_of_what_it_stores_and_stores_what_it_does_without(
        platform: &Platform
    ) {
        let _watchdog = Watchdog::new("sums of squares", Duration::from_secs(300));
        let seed = Seed::new(0x59a1);
        for &world in worlds(platform) {
            for variant in 0..6 {
                let layers = Layers::random(&seed, variant, [256, 640, 1280][variant % 3], false);
                // Rows are cut between columns too.
                let slot = [1 << 16, 384, 1000][(variant + world) % 3];
                on_ranks(platform, platform.group(world).slot_values(slot), |worker| {
                    let split = Shards::ALL[variant % 3].split(384, world);
                    let down = layers.down.linear();
                    let down = RowParallel::load(&worker.rank, &down, &split).unwrap();
                    for rows in [1, 5, 9, 33, ROWS] {
                        let what = format!("variant {variant}, {rows} rows, world {world}");
                        let [first, second, plain] = [true, true, false]
                            .map(|squares| finish_rows(worker, (&layers, &down), &split, rows, squares));
                        assert_squares(&first, &what);
                        first[0].assert_same_bits(&plain[0], format_args!("{what}: without"));
                        let on_rank_0 = worker.value_of_rank_0(first.clone());
                        for i in 0..2 {
                            first[i].assert_same_bits(&second[i], format_args!("{what}: two runs"));
                            first[i].assert_same_bits(&on_rank_0[i], format_args!("{what}: ranks"));
                        }
                    }
                });
            }
        }
    }

    fn the_next_layer_computes_what_it_would_of_the_normalised_rows(platform: &Platform) {
        let _watchdog = Watchdog::new("normalised inputs", Duration::from_secs(300));
        let seed = Seed::new(0x59a2);
        for &world in worlds(platform) {
            for variant in 0..6 {
                let layers = Layers::random(&seed, variant, [256, 640, 1280][variant % 3], variant % 2 == 0);
                // Any weight is rounded once more, with its product with the scales.
                let tolerance = TOLERANCE + if variant % 2 == 0 { 0.0 } else { 2f64.powi(-11) };
                let arithmetic = [Arithmetic::Fastest, Arithmetic::Uniform][variant / 3];
                let [gate, up] = layers.next.each_ref().map(|linear| ReferenceLinear::new(&linear.linear()));
                on_ranks(platform, platform.group(world), |worker| {
                    let split = Split::even(384, world.min(3)).unwrap();
                    let mut shares: Vec<usize> = split.iter().map(|range| range.len()).collect();
                    shares.resize(world, 0);
                    let split = Split::explicit(&shares).unwrap();
                    let down = layers.down.linear();
                    let down = RowParallel::load(&worker.rank, &down, &split).unwrap();
                    let layer = load_next(worker, &layers, arithmetic);
                    for rows in [1, 5, 9, 33] {
                        let results = finish_rows(worker, (&layers, &down), &split, rows, true);
                        let outputs = next(worker, &layer, &results, false);
                        let gated = next(worker, &layer, &results, true);
                        let columns = layer.columns()[0];
                        if columns == 0 {
                            continue;
                        }
                        let weight: Vec<f64> = layers.weight.iter().copied().map(f64::from).collect();
                        let x = reference::rms_norm(&results[0].to_f64(), &weight, EPSILON.into());
                        let own = |y: Vec<f64>| {
                            let first = worker.rank.rank() * columns;
                            let rows = y.chunks_exact(256).flat_map(|row| row[first..first + columns].to_vec());
                            rows.collect::<Vec<_>>()
                        };
                        let want = [&gate, &up].map(|linear| own(linear.forward(&x, rows)));
                        let what = format!("variant {variant}, {rows} rows, world {world}");
                        for (got, want) in outputs.iter().zip(&want) {
                            let error = reference::relative_error(got.to_f64().into_iter(), want);
                            assert!(error < tolerance, "{what}: {error:.2e}");
                        }
                        let want = reference::swiglu(&want[0], &want[1]);
                        let error = reference::relative_error(gated[0].to_f64().into_iter(), &want);
                        assert!(error < 2.0 * tolerance, "{what}, gated: {error:.2e}");
                    }
                });
            }
        }
    }

    /// Rows whose root of the mean square is a power of two lose nothing.
    fn outputs_are_divided_by_the_root_of_the_mean_square_of_their_row(platform: &Platform) {
        let _watchdog = Watchdog::new("exact roots", Duration::from_secs(240));
        let seed = Seed::new(0x59a3);
        // One group of columns, and more than a lane adds up in one round.
        for hidden in [128, 4480, 8320] {
            let mut layers = Layers::random(&seed, 0, hidden, true);
            layers.next = [1, 2].map(|i| RandomLinear::new(&mut seed.rng(90 + i), formats()[11], hidden, 256));
            on_ranks(platform, platform.group(1), |worker| {
                let layer = load_next(worker, &layers, Arithmetic::Uniform);
                for rows in [1, 9, 20] {
                    let x = layers.residual.slice(0..rows * hidden);
                    // A root of 2^(row % 3 - 1): all of the sum is in one group, which differs from row to row.
                    let root = |row: usize| 2f32.powi(row as i32 % 3 - 1);
                    let groups = hidden / GROUP;
                    let sum = |i: usize| {
                        let (row, group) = (i / groups, i % groups);
                        let all = (root(row) * root(row) - EPSILON) * hidden as f32;
                        if group == row * 7 % groups { all } else { 0.0 }
                    };
                    let squares = Values::of(DType::F32, (0..rows * groups).map(sum));
                    let normalised = next(worker, &layer, &[x.clone(), squares], false);
                    // (1 - epsilon) * K / K + epsilon need not be 1 in f32, but is that to within some 2^-24.
                    let plain = plain(worker, &layer, &x);
                    for (got, plain) in normalised.iter().zip(&plain) {
                        let values = got.to_f64().into_iter().zip(plain.to_f64()).enumerate();
                        for (i, (got, plain)) in values {
                            let want = plain / f64::from(root(i / 256));
                            assert!(
                                (got - want).abs() <= 1e-6 * want.abs(),
                                "{hidden} channels, {rows} rows, value {i}: {got} for {want}"
                            );
                        }
                    }
                }
            });
        }
    }

    fn a_normalised_row_depends_neither_on_its_batch_nor_on_how_a_call_is_cut(platform: &Platform) {
        let _watchdog = Watchdog::new("normalised batches", Duration::from_secs(240));
        let layers = Layers::random(&Seed::new(0x59a4), 1, 640, false);
        let sums: Vec<f32> = layers
            .residual
            .to_f64()
            .chunks_exact(GROUP)
            .map(|group| group.iter().map(|y| y * y).sum::<f64>() as f32)
            .collect();
        let call = |slot, rows: usize, gated| {
            on_ranks(platform, platform.group(1).slot_values(slot), |worker| {
                let layer = load_next(worker, &layers, Arithmetic::Uniform);
                let x = layers.residual.slice(0..rows * 640);
                let squares = Values::of(DType::F32, sums[..rows * 5].iter().copied());
                next(worker, &layer, &[x, squares], gated)
            })
            .swap_remove(0)
        };
        for gated in [false, true] {
            let all = call(1 << 16, 40, gated);
            for (slot, rows) in [(1 << 16, 1), (1 << 16, 9), (512, 9), (1500, 40)] {
                for (some, all) in call(slot, rows, gated).iter().zip(&all) {
                    let what = format_args!("{rows} rows in slots of {slot}");
                    some.assert_same_bits(&all.slice(0..rows * 256), what);
                }
            }
        }
    }

    fn a_whole_norm_and_its_half_go_together(platform: &Platform) {
        let _watchdog = Watchdog::new("both norms", Duration::from_secs(120));
        let layers = Layers::random(&Seed::new(0x59a5), 2, 640, false);
        on_ranks(platform, platform.group(2), |worker| {
            let split = Split::even(384, 2).unwrap();
            let down = RowParallel::load(&worker.rank, &layers.down.linear(), &split).unwrap();
            let [residual, sums] = finish_rows(worker, (&layers, &down), &split, 3, true);
            let x = shard_columns(&layers.x.slice(0..3 * 384), &split, worker.rank.rank());
            let x = worker.memory.buffer(&x);
            let weight = worker.memory.buffer(&Values::of(DType::F32, layers.weight.iter().copied()));
            let mut y = worker.memory.buffer(&layers.residual.slice(0..3 * 640));
            let mut squares = worker.memory.buffer(&Values::poison(DType::F32, 3 * 5));
            let mut normalised = worker.memory.buffer(&Values::poison(DType::F16, 3 * 640));
            worker.collective(|rank, memory| {
                let out = normalised.output(Epilogue::Store);
                let output = y
                    .output(Epilogue::Add)
                    .sums_of_squares(squares.output(Epilogue::Store))
                    .rms_norm(RmsNorm::new(weight.input(0..640), EPSILON, out));
                let input = x.input(0..3 * down.k());
                down.forward(rank, memory.stream(), input, output).unwrap();
            });
            y.read().assert_same_bits(&residual, "the residual");
            squares.read().assert_same_bits(&sums, "the sums");
            let weight: Vec<f64> = layers.weight.iter().copied().map(f64::from).collect();
            let want = reference::rms_norm(&residual.to_f64(), &weight, EPSILON.into());
            check_accuracy(&normalised.read(), &want, None, "the norm");
        });
    }

    fn halves_that_do_not_fit_are_refused_and_the_group_still_works(platform: &Platform) {
        let _watchdog = Watchdog::new("refused halves", Duration::from_secs(120));
        let layers = Layers::random(&Seed::new(0x59a6), 0, 256, true);
        on_ranks(platform, platform.group(2), |worker| {
            let split = Split::even(384, 1).unwrap();
            let split = Split::explicit(&[split.channels(), 0]).unwrap();
            let down = RowParallel::load(&worker.rank, &layers.down.linear(), &split).unwrap();
            let layer = load_next(worker, &layers, Arithmetic::Fastest);
            refuse_weights(worker, &layers);
            let memory = &worker.memory;
            let x = memory.buffer(&layers.residual.slice(0..2 * 256));
            let mut y = memory.buffer(&Values::poison(DType::F16, 2 * 256));
            let mut outputs = [0; 2].map(|_| memory.buffer(&Values::poison(DType::F16, 2 * 128)));
            let mut sums = memory.buffer(&Values::poison(DType::F32, 4));
            let mut halves = memory.buffer(&Values::poison(DType::F16, 4));
            let mut three = memory.buffer(&Values::poison(DType::F32, 3));
            let own_x = memory.buffer(&layers.x.slice(0..2 * down.k()));
            worker.phase(|rank, memory| {
                let stream = memory.stream();
                let store = Epilogue::Store;
                let own = down.k();
                let mut row = |out| {
                    let output = y.output(store).sums_of_squares(out);
                    down.forward(rank, stream, own_x.input(0..2 * own), output)
                };
                refused(row(halves.output(store)), "squares", "f32");
                refused(row(three.output(store)), "squares", "2 rows of 2");

                let mut column = |squares, epsilon| {
                    let input = x.input(0..2 * 256).rms_norm(squares, epsilon);
                    let mut outputs = outputs.each_mut().map(|y| y.output(store));
                    layer.forward(rank, stream, input, &mut outputs)
                };
                refused(column(sums.input(0..3), EPSILON), "squares", "2 rows of 2");
                refused(column(halves.input(0..4), EPSILON), "squares", "f32");
                refused(column(sums.input(0..4), f32::NAN), "epsilon", "finite");
                refused(column(sums.input(0..4), -1.0), "epsilon", "-1");
                {
                    let [first, second] = outputs.each_mut().map(|y| y.output(store));
                    let mut outputs = [first.sums_of_squares(sums.output(store)), second];
                    let result = layer.forward(rank, stream, x.input(0..2 * 256), &mut outputs);
                    refused(result, "outputs", "sums of squares");
                }

                let normalised = |squares| own_x.input(0..2 * own).rms_norm(squares, EPSILON);
                let result = down.forward(rank, stream, normalised(sums.input(0..4)), y.output(store));
                refused(result, "input", "only a column-parallel");
                let input = x.input(0..2 * 256).rms_norm(sums.input(0..4), EPSILON);
                let result = AllReduce::new().run(rank, stream, input, y.output(store));
                refused(result, "input", "only a column-parallel");
                let output = y.output(store).sums_of_squares(sums.output(store));
                let result = AllReduce::new().run(rank, stream, x.input(0..2 * 256), output);
                refused(result, "output", "sums of squares");
            });
            assert_squares(&finish_rows(worker, (&layers, &down), &split, 2, true), "after the refusals");
        });
    }
}

/// Weights that cannot be taken in.
fn refuse_weights(worker: &Worker<'_>, layers: &Layers) {
    let split = Split::even(256, 2).unwrap();
    let linear = layers.next[0].linear();
    let load = |weight: &[f32]| {
        let options = LoadOptions::default();
        ColumnParallel::load_normalised(&worker.rank, &[(&linear, &split)], weight, options)
    };
    refused(
        load(&layers.weight[1..]),
        "weight",
        "256, one per input channel",
    );
    for (value, part) in [(f32::NAN, "NaN for channel 7"), (1e30, "finite f16")] {
        let mut weight = layers.weight.clone();
        weight[7] = value;
        refused(load(&weight), "weight", part);
    }
}

/// The outputs without a norm.
fn plain(worker: &mut Worker<'_>, layer: &ColumnParallel, x: &Values) -> Vec<Values> {
    let rows = x.len() / layer.k();
    let x = worker.memory.buffer(x);
    let poison = |n: &usize| Values::poison(DType::F32, rows * n);
    let columns = layer.columns().iter();
    let mut outputs: Vec<_> = columns.map(|n| worker.memory.buffer(&poison(n))).collect();
    worker.collective(|rank, memory| {
        let mut outputs: Vec<_> = outputs
            .iter_mut()
            .map(|y| y.output(Epilogue::Store))
            .collect();
        let input = x.input(0..rows * layer.k());
        layer
            .forward(rank, memory.stream(), input, &mut outputs)
            .unwrap();
    });
    outputs.iter().map(|y| y.read()).collect()
}
