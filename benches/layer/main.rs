//! One row-parallel layer, per call: on the host, and with `--features cuda` on the GPUs there are.
//!
//! `cargo bench [--features cuda] --bench layer [-- FILTER]`. A name says what the figure belongs to:
//! `host/4096x4096/world 2/M 1`, `cuda/70b-down/world 2/M 1`. Weights and inputs are random; a world's
//! time is that of its slowest rank.

#[path = "../../tests/common/mod.rs"]
mod common;
#[cfg(feature = "cuda")]
mod device;
mod host;
mod model;

use criterion::{criterion_group, criterion_main, Criterion};
use std::time::Duration;

#[cfg(feature = "cuda")]
fn device(criterion: &mut Criterion) {
    if let Err(reason) = device::run(criterion) {
        eprintln!("cuda is not measured: {reason}");
    }
}

#[cfg(not(feature = "cuda"))]
fn device(_: &mut Criterion) {
    eprintln!("cuda is not measured: built without `--features cuda`");
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
}

criterion_group!(name = layer; config = short(); targets = host::run, device);
criterion_main!(layer);
