//! Row-parallel layers against the reference: every format, number of rows, number of ranks,
//! dtype and epilogue.
//!
//! The kernel's freedoms are few, and each test claims what it must not use them for: outputs are
//! near the reference, the same on all ranks, the same in every run, and a row's do not depend on
//! the rest of its batch.

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod matrix;
mod pairwise;

use cases::FORMATS;
use common::*;
use matrix::Layer;
use std::time::Duration;
use trellink::format::DType;
use trellink::{Arithmetic, Epilogue, LoadOptions, RowParallel};

on_both! {
    fn every_case_is_near_the_reference_and_the_same_on_all_ranks_and_in_every_run(
        platform: &Platform
    ) {
        let _watchdog = Watchdog::new("the matrix", Duration::from_secs(540));
        let cases = cases::cases(platform.extent());
        let table = matrix::run(platform, &cases);
        table.print(platform);
    }

    /// Neither on what the other rows hold, NaN and infinities included, nor on its place.
    fn a_row_does_not_depend_on_the_rest_of_its_batch(platform: &Platform) {
        let _watchdog = Watchdog::new("the batch test", Duration::from_secs(300));
        let seed = Seed::new(0xba7c);
        let (formats, worlds): (Vec<usize>, &[usize]) = match platform.extent() {
            Extent::Full => ((0..FORMATS).collect(), &[1, 2, 3, 8]),
            Extent::Pairwise => ((0..FORMATS).step_by(4).collect(), &[1, 2, 3]),
            Extent::Reduced => (vec![1, 12, 17], &[2]),
        };
        let layers: Vec<Layer> = formats.iter().map(|&f| Layer::random(&seed, f)).collect();
        for &world in worlds {
            on_ranks(platform, platform.group(world), |worker| {
                for layer in &layers {
                    for rows in [2, 5, 8, 13, 33] {
                        rows_in_another_batch(worker, layer, rows);
                    }
                }
            });
        }
    }

    fn with_uniform_arithmetic_a_row_is_the_same_in_a_batch_of_any_size(platform: &Platform) {
        let _watchdog = Watchdog::new("the batch size test", Duration::from_secs(300));
        let seed = Seed::new(0x0f0e);
        let (formats, worlds): (Vec<usize>, &[usize]) = match platform.extent() {
            Extent::Full => ((0..FORMATS).collect(), &[1, 2, 5]),
            Extent::Pairwise => ((1..FORMATS).step_by(4).collect(), &[1, 3]),
            Extent::Reduced => (vec![2, 11, 19], &[2]),
        };
        let layers: Vec<Layer> = formats.iter().map(|&f| Layer::random(&seed, f)).collect();
        for &world in worlds {
            on_ranks(platform, platform.group(world), |worker| {
                for layer in &layers {
                    batches_of_every_size(worker, layer);
                }
            });
        }
    }
}

/// Compares `rows` rows with the same ones in reverse order, where every second one is replaced.
fn rows_in_another_batch(worker: &mut Worker<'_>, layer: &Layer, rows: usize) {
    let split = Shards::Uneven.split(layer.k(), worker.rank.world());
    let loaded = RowParallel::load(&worker.rank, &layer.linear(true), &split).unwrap();
    let Values::F16(x) = layer.input(DType::F16).slice(0..rows * layer.k()) else {
        unreachable!("asked for f16");
    };
    let mut other = Vec::new();
    for (row, values) in x.chunks_exact(layer.k()).enumerate().rev() {
        other.extend(values.iter().map(|&value| match (row % 2, row % 8) {
            (0, _) => value,
            (_, 1) => value * half::f16::from_f32(1000.0),
            (_, 3) => half::f16::NAN,
            (_, 5) => half::f16::INFINITY,
            _ => half::f16::ZERO,
        }));
    }
    let mut outputs = [Values::F16(x), Values::F16(other)].map(|x| {
        let x = worker
            .memory
            .buffer(&shard_columns(&x, &split, worker.rank.rank()));
        let poison = Values::poison(DType::F32, rows * layer.n());
        let mut y = worker.memory.buffer(&poison);
        worker.collective(|rank, memory| {
            let input = x.input(0..rows * loaded.k());
            let output = y.output(Epilogue::Store);
            loaded
                .forward(rank, memory.stream(), input, output)
                .unwrap();
        });
        y.read()
    });
    let [got, other] = &mut outputs;
    for row in (0..rows).step_by(2) {
        let row_of =
            |values: &Values, row: usize| values.slice(row * layer.n()..(row + 1) * layer.n());
        let (alone, mirrored) = (row_of(got, row), row_of(other, rows - 1 - row));
        assert!(alone.to_f64().iter().all(|value| value.is_finite()));
        alone.assert_same_bits(
            &mirrored,
            format_args!(
                "{layer}, row {row} of {rows}, world {}",
                worker.rank.world()
            ),
        );
    }
}

/// Compares the first rows of the largest batch with batches that are those rows.
fn batches_of_every_size(worker: &mut Worker<'_>, layer: &Layer) {
    let (k, n) = (layer.k(), layer.n());
    let split = Shards::Even.split(k, worker.rank.world());
    let options = LoadOptions::new().arithmetic(Arithmetic::Uniform);
    let loaded =
        RowParallel::load_with(&worker.rank, &layer.linear(true), &split, options).unwrap();
    assert_eq!(loaded.options().arithmetic, Arithmetic::Uniform);
    let x = layer.input(DType::Bf16);
    let x = worker
        .memory
        .buffer(&shard_columns(x, &split, worker.rank.rank()));
    let mut outputs: Vec<_> = cases::ROWS
        .iter()
        .map(|rows| worker.memory.buffer(&Values::poison(DType::F32, rows * n)))
        .collect();
    worker.collective(|rank, memory| {
        for (rows, y) in cases::ROWS.iter().zip(&mut outputs) {
            let input = x.input(0..rows * loaded.k());
            let output = y.output(Epilogue::Store);
            loaded
                .forward(rank, memory.stream(), input, output)
                .unwrap();
        }
    });
    let largest = outputs.last().unwrap().read();
    for (rows, y) in cases::ROWS.iter().zip(&outputs) {
        y.read().assert_same_bits(
            &largest.slice(0..rows * n),
            format_args!("{layer}, {rows} rows, world {}", worker.rank.world()),
        );
    }
}

/// Shapes that the matrix is too small for: several chunks of K in shared memory, several strips
/// a CTA, more strips a CTA than it has warps, and both at once.
#[cfg(feature = "cuda")]
#[test]
fn large_shards_are_near_the_reference_and_the_same_on_all_ranks_on_cuda() {
    use trellink::{Device, Split};

    let Some(platform) = Platform::cuda("large shards") else {
        return;
    };
    let _watchdog = Watchdog::new("large shards", Duration::from_secs(300));
    let seed = Seed::new(0x1a59e);
    let one = platform.devices_for(1);
    // Eight ranks on one device have an eighth of its SMs each: 16 or 17 of an H200.
    let crowd: Vec<Device> = std::iter::repeat_n(one[0], 8).collect();
    // 3328 channels are 26 groups; of 32 rows, 23 groups fit the shared memory of an H200.
    let mut lopsided = vec![128; 8];
    lopsided[3] = 3328;
    let shapes = [
        (one.clone(), vec![3328], 2304),
        (one, vec![15488], 256),
        (platform.devices_for(2), vec![3456, 256], 4608),
        (platform.devices_for(2), vec![0, 6144], 384),
        (crowd, lopsided, 4480),
    ];
    let formats = match platform.extent() {
        Extent::Reduced => vec![8],
        _ => vec![2, 8, 15, 18, 20, 26],
    };
    for (devices, k_of_ranks, n) in shapes {
        let split = Split::explicit(&k_of_ranks).unwrap();
        for &format in &formats {
            let layer = Layer::random_of_shape(&seed, format, split.channels(), n, 33);
            // Slots for all rows: a call that is cut would be small again.
            let group = platform.group_on(devices.clone()).slot_values(33 * 4608);
            on_ranks(&platform, group, |worker| {
                let loaded = RowParallel::load(&worker.rank, &layer.linear(true), &split).unwrap();
                for rows in [1, 8, 9, 33] {
                    large_call(worker, &layer, &loaded, &split, rows);
                }
            });
        }
    }
}

#[cfg(feature = "cuda")]
fn large_call(
    worker: &mut Worker<'_>,
    layer: &Layer,
    loaded: &RowParallel,
    split: &trellink::Split,
    rows: usize,
) {
    let (k, n) = (layer.k(), layer.n());
    let x = layer.input(DType::F16).slice(0..rows * k);
    let x = worker
        .memory
        .buffer(&shard_columns(&x, split, worker.rank.rank()));
    let poison = Values::poison(DType::F32, rows * n);
    let outputs = [0; 2].map(|_| {
        let mut y = worker.memory.buffer(&poison);
        worker.collective(|rank, memory| {
            let input = x.input(0..rows * loaded.k());
            loaded
                .forward(rank, memory.stream(), input, y.output(Epilogue::Store))
                .unwrap();
        });
        y.read()
    });
    let what = format!("{layer}, {rows} rows, world {}", worker.rank.world());
    outputs[0].assert_same_bits(&outputs[1], format_args!("{what}: two runs"));
    let first = worker.value_of_rank_0(outputs[0].clone());
    outputs[0].assert_same_bits(&first, format_args!("{what}: ranks"));
    if worker.rank.rank() == 0 {
        let want = layer.product(DType::F16, true, rows);
        check_accuracy(&outputs[0], &want, None, &what);
    }
}

#[test]
fn the_covering_cases_contain_every_pair_of_levels() {
    let levels = cases::LEVELS;
    let cases = pairwise::cover(&levels);
    for a in 0..levels.len() {
        for b in 0..a {
            let mut seen = vec![false; levels[a] * levels[b]];
            for case in &cases {
                assert!(case[a] < levels[a]);
                seen[case[a] * levels[b] + case[b]] = true;
            }
            assert!(seen.iter().all(|&seen| seen), "factors {a} and {b}");
        }
    }
    let most: usize = cases::LEVELS.iter().product();
    assert!(cases.len() * 50 < most, "{} of {most} cases", cases.len());
}
