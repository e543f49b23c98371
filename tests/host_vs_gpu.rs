//! The two back ends against one another: the same layers and inputs on the host and on CUDA.
#![cfg(feature = "cuda")]

mod common;

use common::*;
use std::time::Duration;
use trellink::format::DType;
use trellink::{ColumnParallel, Epilogue, Group, RowParallel};

/// The rows of a call for few rows, and of one for more.
const ROWS: [usize; 2] = [3, 19];

/// One layer of each format, alternately on two and on three ranks.
struct Layer {
    name: String,
    linear: RandomLinear,
    x: Values,
    world: usize,
}

fn layers(seed: &Seed) -> Vec<Layer> {
    let layer = |(i, format): (usize, _)| {
        let mut rng = seed.rng(i as u64);
        let (k, n) = (128 * (3 + i % 4), 128 * (1 + i % 3));
        let linear = RandomLinear::new(&mut rng, format, k, n).with_bias(&mut rng, DType::F32);
        let input = [DType::F16, DType::Bf16][i % 2];
        Layer {
            name: format!("{} {} bits", format.0, format.1),
            linear,
            x: activations(&mut rng, input, ROWS[1] * k, 2.0),
            world: 2 + i % 2,
        }
    };
    formats().into_iter().enumerate().map(layer).collect()
}

/// Rank 0's outputs of a row-parallel layer, for each of `ROWS`.
fn row_parallel(platform: &Platform, group: Group, layer: &Layer) -> Vec<Values> {
    let mut outputs = on_ranks(platform, group, |worker| {
        let split = Shards::Uneven.split(layer.linear.k, worker.rank.world());
        let loaded = RowParallel::load(&worker.rank, &layer.linear.linear(), &split).unwrap();
        let x = shard_columns(&layer.x, &split, worker.rank.rank());
        let x = worker.memory.buffer(&x);
        ROWS.map(|rows| {
            let poison = Values::poison(DType::F32, rows * layer.linear.n);
            let mut y = worker.memory.buffer(&poison);
            worker.collective(|rank, memory| {
                let input = x.input(0..rows * loaded.k());
                let output = y.output(Epilogue::Store);
                loaded
                    .forward(rank, memory.stream(), input, output)
                    .unwrap();
            });
            y.read()
        })
    });
    outputs.swap_remove(0).to_vec()
}

/// All ranks' outputs of a column-parallel layer, for the larger of `ROWS`.
fn column_parallel(platform: &Platform, group: Group, layer: &Layer) -> Vec<Values> {
    on_ranks(platform, group, |worker| {
        let split = Shards::Uneven.split(layer.linear.n, worker.rank.world());
        let linear = layer.linear.linear();
        let loaded = ColumnParallel::load(&worker.rank, &[(&linear, &split)]).unwrap();
        let x = worker.memory.buffer(&layer.x);
        let poison = Values::poison(DType::F32, ROWS[1] * loaded.columns()[0]);
        let mut y = worker.memory.buffer(&poison);
        worker.collective(|rank, memory| {
            let input = x.input(0..layer.x.len());
            let output = y.output(Epilogue::Store);
            loaded
                .forward(rank, memory.stream(), input, &mut [output])
                .unwrap();
        });
        y.read()
    })
}

#[test]
fn host_and_gpu_compute_the_same_layers_on_cuda() {
    let Some(cuda) = Platform::cuda("host and GPU") else {
        return;
    };
    let _watchdog = Watchdog::new("host and GPU", Duration::from_secs(240));
    let host = Platform::host();
    for layer in layers(&Seed::new(0x4057)) {
        let on_host = row_parallel(&host, host.group(layer.world), &layer);
        let on_cuda = row_parallel(&cuda, cuda.group(layer.world), &layer);
        for (got, want) in on_cuda.iter().zip(&on_host) {
            let what = format!("{}, row-parallel", layer.name);
            check_accuracy(got, &want.to_f64(), None, what);
        }
        let on_host = column_parallel(&host, host.group(layer.world), &layer);
        let on_cuda = column_parallel(&cuda, cuda.group(layer.world), &layer);
        for (rank, (got, want)) in on_cuda.iter().zip(&on_host).enumerate() {
            if want.len() > 0 {
                let what = format!("{}, column-parallel, rank {rank}", layer.name);
                check_accuracy(got, &want.to_f64(), None, what);
            } else {
                assert_eq!(got.len(), 0);
            }
        }
    }
}
