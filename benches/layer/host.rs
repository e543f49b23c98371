//! The host back end: whole calls, one thread per rank and its helpers.

use crate::random::{activations, generator, RandomLinear};
use criterion::{Criterion, Throughput};
use half::f16;
use std::sync::Barrier;
use std::time::{Duration, Instant};
use trellink::format::Codebook;
use trellink::{Group, Input, Output, Rank, Result, RowParallel, Split, Stream};

const K: usize = 4096;
const N: usize = 4096;

/// A rank, its layer and its memory.
struct Seat {
    rank: Rank,
    layer: RowParallel,
    x: Vec<f16>,
    out: Vec<f16>,
}

impl Seat {
    fn call(&mut self) -> Result<()> {
        let input = Input::from(&self.x[..]);
        let output = Output::store(&mut self.out[..]);
        self.layer
            .forward(&mut self.rank, Stream::host(), input, output)
    }
}

pub fn run(criterion: &mut Criterion) {
    let bits = "4".parse().expect("the format has it");
    let random = RandomLinear::new(K, N, bits, Codebook::Mul1);
    for world in [1, 2] {
        let mut group = criterion.benchmark_group(format!("host/{K}x{N}/world {world}"));
        group.throughput(Throughput::Elements((K * N) as u64));
        for rows in [1, 8] {
            let mut seats = seats(&random, world, rows).expect("a group on the host");
            group.bench_function(format!("M {rows}"), |bencher| {
                bencher.iter_custom(|calls| slowest(&mut seats, calls));
            });
        }
    }
}

fn seats(random: &RandomLinear, world: usize, rows: usize) -> Result<Vec<Seat>> {
    let linear = random.view()?;
    let split = Split::even(K, world)?;
    let seat = |rank| {
        let layer = RowParallel::load(&rank, &linear, &split)?;
        Ok(Seat {
            x: activations(&mut generator(2), rows * layer.k()),
            out: vec![f16::ZERO; rows * layer.n()],
            rank,
            layer,
        })
    };
    let ranks = Group::on_host(world).build()?;
    ranks.into_iter().map(seat).collect()
}

/// The time of the slowest rank for `calls` calls, all ranks starting together.
fn slowest(seats: &mut [Seat], calls: u64) -> Duration {
    let start = Barrier::new(seats.len());
    let timed = |seat: &mut Seat| {
        start.wait();
        let began = Instant::now();
        for _ in 0..calls {
            seat.call().expect("all ranks call");
        }
        began.elapsed()
    };
    std::thread::scope(|scope| {
        let spawn = |seat| scope.spawn(|| timed(seat));
        let threads: Vec<_> = seats.iter_mut().map(spawn).collect();
        let times = threads.into_iter().map(|t| t.join().expect("no panic"));
        times.max().unwrap_or_default()
    })
}
