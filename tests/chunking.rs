//! Outputs larger than a slot of the exchange: a call then takes several exchanges.
//!
//! Whole rows are cut off where a slot holds one; that changes no bit of the result. Where it does
//! not, a row's columns are cut, which may move the border between what two CTAs add up.

mod common;

use common::*;
use std::time::Duration;
use trellink::format::{Codebook, DType};
use trellink::reference::ReferenceLinear;
use trellink::{ColumnParallel, Epilogue, RowParallel};

const K: usize = 640;
const N: usize = 384;
const ROWS: [usize; 5] = [1, 3, 8, 9, 33];

/// Slots for a third of a row, two thirds, a row, two rows and a half, 22 rows.
const SLOTS: [usize; 5] = [128, 256, 384, 1000, 8500];

/// The outputs of all row counts with both epilogues, and whether the slot holds a row.
fn row_parallel(platform: &Platform, world: usize, slot: usize, layer: &Layer) -> Vec<Values> {
    let group = platform.group(world).slot_values(slot);
    let mut outputs = on_ranks(platform, group, |worker| {
        let split = Shards::Uneven.split(K, world);
        let loaded = RowParallel::load(&worker.rank, &layer.linear.linear(), &split).unwrap();
        let x = shard_columns(&layer.x, &split, worker.rank.rank());
        let x = worker.memory.buffer(&x);
        let mut outputs: Vec<_> = cases()
            .map(|(rows, epilogue)| worker.memory.buffer(&before(rows, epilogue)))
            .collect();
        worker.collective(|rank, memory| {
            for ((rows, epilogue), y) in cases().zip(&mut outputs) {
                let input = x.input(0..rows * loaded.k());
                let output = y.output(epilogue);
                loaded
                    .forward(rank, memory.stream(), input, output)
                    .unwrap();
            }
        });
        let outputs: Vec<Values> = outputs.iter().map(|y| y.read()).collect();
        let first = worker.value_of_rank_0(outputs.clone());
        for (y, first) in outputs.iter().zip(&*first) {
            y.assert_same_bits(first, format_args!("ranks, slot of {slot} values"));
        }
        outputs
    });
    outputs.swap_remove(0)
}

fn cases() -> impl Iterator<Item = (usize, Epilogue)> {
    let epilogues = [Epilogue::Store, Epilogue::Add];
    ROWS.into_iter()
        .flat_map(move |rows| epilogues.map(|epilogue| (rows, epilogue)))
}

/// A residual in f16: a chunk that is added twice or left out shows.
fn before(rows: usize, epilogue: Epilogue) -> Values {
    match epilogue {
        Epilogue::Store => Values::poison(DType::F32, rows * N),
        Epilogue::Add => {
            let numbers = (0..rows * N).map(|i| 30.0 * (i as f32 * 0.37).sin());
            Values::of(DType::F16, numbers)
        }
    }
}

struct Layer {
    linear: RandomLinear,
    x: Values,
}

impl Layer {
    fn random(seed: &Seed, stream: u64, n: usize) -> Self {
        let mut rng = seed.rng(stream);
        let format = (Codebook::Mul1, "2.5".parse().unwrap());
        let linear = RandomLinear::new(&mut rng, format, K, n).with_bias(&mut rng, DType::Bf16);
        let largest = *ROWS.last().unwrap();
        Layer {
            linear,
            x: activations(&mut rng, DType::Bf16, largest * K, 2.0),
        }
    }

    fn product(&self, rows: usize) -> Vec<f64> {
        let x = self.x.slice(0..rows * K).to_f64();
        ReferenceLinear::new(&self.linear.linear()).forward(&x, rows)
    }
}

fn worlds(platform: &Platform) -> &'static [usize] {
    match platform.extent() {
        Extent::Reduced => &[2],
        _ => &[1, 2, 5],
    }
}

on_both! {
    fn cutting_rows_off_changes_no_bit_and_cutting_columns_no_more_than_the_last(
        platform: &Platform
    ) {
        let _watchdog = Watchdog::new("chunked row-parallel calls", Duration::from_secs(240));
        let layer = Layer::random(&Seed::new(0x5107), 0, N);
        let products = ROWS.map(|rows| layer.product(rows));
        for &world in worlds(platform) {
            let whole = row_parallel(platform, world, 1 << 16, &layer);
            for slot in SLOTS {
                let cut = row_parallel(platform, world, slot, &layer);
                for (i, (rows, epilogue)) in cases().enumerate() {
                    let what = format!("{rows} rows, slot of {slot}, world {world}");
                    let residual = (epilogue == Epilogue::Add).then(|| before(rows, epilogue));
                    check_accuracy(&cut[i], &products[i / 2], residual.as_ref(), &what);
                    if slot >= N {
                        cut[i].assert_same_bits(&whole[i], what);
                    }
                }
            }
        }
    }

    fn column_parallel_calls_are_cut_in_the_same_way(platform: &Platform) {
        let _watchdog = Watchdog::new("chunked column-parallel calls", Duration::from_secs(240));
        let seed = Seed::new(0x5108);
        let layers = [(1, 256), (2, 128), (3, 512)].map(|(i, n)| Layer::random(&seed, i, n));
        let x = &layers[0].x;
        let rows = 9;
        let products = layers.each_ref().map(|layer| {
            let x = x.slice(0..rows * K).to_f64();
            ReferenceLinear::new(&layer.linear.linear()).forward(&x, rows)
        });
        let call = |slot: usize| {
            let group = platform.group(2).slot_values(slot);
            on_ranks(platform, group, |worker| {
                // Whole layers on both ranks: what is cut is the call, not the layer.
                let splits = layers.each_ref().map(|layer| {
                    let mut columns = [0; 2];
                    columns[worker.rank.rank()] = layer.linear.n;
                    trellink::Split::explicit(&columns).unwrap()
                });
                let linears = layers.each_ref().map(|layer| layer.linear.linear());
                let linears: Vec<_> = linears.iter().zip(&splits).collect();
                let loaded = ColumnParallel::load(&worker.rank, &linears).unwrap();
                let x = worker.memory.buffer(x);
                let mut outputs = layers.each_ref().map(|layer| {
                    let poison = Values::poison(DType::F32, rows * layer.linear.n);
                    worker.memory.buffer(&poison)
                });
                worker.collective(|rank, memory| {
                    let outputs = outputs.iter_mut();
                    let mut outputs: Vec<_> = outputs.map(|y| y.output(Epilogue::Store)).collect();
                    let input = x.input(0..rows * K);
                    loaded
                        .forward(rank, memory.stream(), input, &mut outputs)
                        .unwrap();
                });
                outputs.map(|y| y.read())
            })
        };
        let whole = call(1 << 16);
        // All layers together have 896 columns; the cuts at 640 and 256 fall inside and between them.
        for slot in [128, 256, 640, 896, 2000] {
            for (cut, whole) in call(slot).iter().zip(&whole) {
                for (i, want) in products.iter().enumerate() {
                    let what = format!("layer {i}, slot of {slot}");
                    check_accuracy(&cut[i], want, None, &what);
                    if slot >= 896 {
                        cut[i].assert_same_bits(&whole[i], what);
                    }
                }
            }
        }
    }
}
