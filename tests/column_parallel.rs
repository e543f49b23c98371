//! Column-parallel layers: several linears over one input in one call, each with its own format.
//!
//! Which warps share a strip's K depends on how many strips a CTA has, so shards need not have the
//! bits of the whole layer; they are near the reference, and the same in every run.

mod common;

use common::*;
use std::time::Duration;
use trellink::format::{Bits, Codebook, DType};
use trellink::reference::ReferenceLinear;
use trellink::weights::Linear;
use trellink::{ColumnParallel, Epilogue, RowParallel, Split};

/// One linear of a group that shares its input.
struct Part {
    linear: RandomLinear,
    shards: Shards,
    output: DType,
    epilogue: Epilogue,
}

impl Part {
    /// What the rank's output holds before the call.
    fn before(&self, rows: usize, columns: usize) -> Values {
        let len = rows * columns;
        match self.epilogue {
            Epilogue::Store => Values::poison(self.output, len),
            Epilogue::Add => Values::of(self.output, (0..len).map(|i| 20.0 * (i as f32).cos())),
        }
    }
}

/// Linears with the same K, and the rows they are called with.
struct Projection {
    name: &'static str,
    k: usize,
    parts: Vec<Part>,
    x: Values,
}

/// Rows of the largest call.
const ROWS: usize = 33;

fn bits(text: &str) -> Bits {
    text.parse().unwrap()
}

/// q, k and v, where k and v have fewer columns than some worlds have ranks; gate and up, with a
/// different bitrate; as many linears as a call takes.
fn projections(seed: &Seed) -> Vec<Projection> {
    use Codebook::{Mcg, Mul1, ThreeInst};
    use DType::{Bf16, F16, F32};
    use Epilogue::{Add, Store};
    type Row = (Codebook, &'static str, usize, Shards, DType, Epilogue);

    let mut stream = 0;
    let mut projection = |name, k, input, parts: &[Row]| {
        stream += 1;
        let mut rng = seed.rng(stream);
        let part = |(i, &(codebook, rate, n, shards, output, epilogue)): (usize, &Row)| {
            let mut linear = RandomLinear::new(&mut rng, (codebook, bits(rate)), k, n);
            if i % 2 == 1 {
                linear = linear.with_bias(&mut rng, DType::ALL[i % 3]);
            }
            Part {
                linear,
                shards,
                output,
                epilogue,
            }
        };
        let parts: Vec<Part> = parts.iter().enumerate().map(part).collect();
        let x = activations(&mut rng, input, ROWS * k, 2.0);
        Projection { name, k, parts, x }
    };
    let eight: Vec<Row> = (1..=8)
        .map(|i| {
            let codebook = Codebook::ALL[i % 3];
            let rate = ["1", "2", "3", "4", "5", "6", "7", "8"][i - 1];
            (
                codebook,
                rate,
                128 * (1 + i % 3),
                Shards::ALL[i % 3],
                F32,
                Store,
            )
        })
        .collect();
    vec![
        projection(
            "q, k, v",
            640,
            F16,
            &[
                (Mcg, "3", 512, Shards::Even, F16, Store),
                (Mul1, "2.5", 128, Shards::Even, F16, Store),
                (ThreeInst, "5", 128, Shards::WithEmpty, F16, Store),
            ],
        ),
        projection(
            "gate, up",
            384,
            Bf16,
            &[
                (Mul1, "4", 1152, Shards::Uneven, Bf16, Store),
                (Mcg, "8", 1152, Shards::Uneven, Bf16, Store),
            ],
        ),
        projection(
            "outputs of different types and epilogues",
            256,
            Bf16,
            &[
                (Mul1, "1.5", 256, Shards::WithEmpty, F32, Add),
                (ThreeInst, "1", 384, Shards::Uneven, F16, Store),
                (Mul1, "3.5", 128, Shards::Even, Bf16, Add),
            ],
        ),
        projection(
            "one",
            1152,
            F16,
            &[(Mcg, "6", 768, Shards::Uneven, F32, Store)],
        ),
        projection("eight", 128, F16, &eight),
    ]
}

/// A rank's columns of all parts of a projection.
struct Loaded<'a> {
    projection: &'a Projection,
    layer: ColumnParallel,
}

impl<'a> Loaded<'a> {
    fn new(worker: &Worker<'_>, projection: &'a Projection) -> Self {
        let world = worker.rank.world();
        let linears: Vec<(Linear<'_>, Split)> = projection
            .parts
            .iter()
            .map(|part| {
                (
                    part.linear.linear(),
                    part.shards.split(part.linear.n, world),
                )
            })
            .collect();
        let linears: Vec<_> = linears
            .iter()
            .map(|(linear, split)| (linear, split))
            .collect();
        let layer = ColumnParallel::load(&worker.rank, &linears).unwrap();
        assert_eq!(layer.k(), projection.k);
        for (columns, (_, split)) in layer.columns().iter().zip(&linears) {
            assert_eq!(*columns, split.range(worker.rank.rank()).len());
        }
        Loaded { projection, layer }
    }

    /// One call with the first `rows` rows: the outputs of all parts.
    fn call(&self, worker: &mut Worker<'_>, rows: usize) -> Vec<Values> {
        let x = self.projection.x.slice(0..rows * self.projection.k);
        let x = worker.memory.buffer(&x);
        let parts = self.projection.parts.iter().zip(self.layer.columns());
        let mut outputs: Vec<_> = parts
            .clone()
            .map(|(part, &columns)| worker.memory.buffer(&part.before(rows, columns)))
            .collect();
        worker.collective(|rank, memory| {
            let outputs = outputs.iter_mut().zip(parts);
            let mut outputs: Vec<_> = outputs
                .map(|(y, (part, _))| y.output(part.epilogue))
                .collect();
            let input = x.input(0..rows * self.projection.k);
            self.layer
                .forward(rank, memory.stream(), input, &mut outputs)
                .unwrap();
        });
        outputs.iter().map(|output| output.read()).collect()
    }
}

fn worlds(platform: &Platform) -> &'static [usize] {
    match platform.extent() {
        Extent::Reduced => &[2],
        _ => &[1, 2, 3, 5, 8],
    }
}

fn row_counts(platform: &Platform) -> &'static [usize] {
    match platform.extent() {
        Extent::Reduced => &[1, 9],
        _ => &[1, 7, 8, 9, ROWS],
    }
}

on_both! {
    fn shards_of_several_linears_are_near_the_reference_and_the_same_in_every_run(
        platform: &Platform
    ) {
        let _watchdog = Watchdog::new("column-parallel layers", Duration::from_secs(240));
        let seed = Seed::new(0xc01);
        for projection in projections(&seed) {
            let references: Vec<Vec<f64>> = projection
                .parts
                .iter()
                .map(|part| {
                    let reference = ReferenceLinear::new(&part.linear.linear());
                    reference.forward(&projection.x.to_f64(), ROWS)
                })
                .collect();
            for &world in worlds(platform) {
                let outputs = on_ranks(platform, platform.group(world), |worker| {
                    let loaded = Loaded::new(worker, &projection);
                    let rows = row_counts(platform).iter();
                    rows.map(|&rows| {
                        let first = loaded.call(worker, rows);
                        for (i, (first, second)) in
                            first.iter().zip(loaded.call(worker, rows)).enumerate()
                        {
                            let what = format!("{}, part {i}, {rows} rows", projection.name);
                            first.assert_same_bits(&second, format_args!("two runs of {what}"));
                        }
                        first
                    })
                    .collect::<Vec<_>>()
                });
                for (r, &rows) in row_counts(platform).iter().enumerate() {
                    for (i, part) in projection.parts.iter().enumerate() {
                        let split = part.shards.split(part.linear.n, world);
                        let want = &references[i][..rows * part.linear.n];
                        let of_ranks: Vec<&Values> = outputs.iter().map(|o| &o[r][i]).collect();
                        check_shards(part, &split, &of_ranks, want, rows, projection.name);
                    }
                }
            }
        }
    }

    /// Two layers of a model: the group's exchange and the one inside a rank go on side by side.
    fn a_row_parallel_layer_reads_what_a_column_parallel_one_wrote(platform: &Platform) {
        let _watchdog = Watchdog::new("two layers", Duration::from_secs(240));
        let seed = Seed::new(0x2a7e5);
        let mut rng = seed.rng(0);
        let (hidden, inner, rows) = (256, 896, 9);
        let up = RandomLinear::new(&mut rng, (Codebook::Mul1, bits("3")), hidden, inner);
        let up = up.tame(&mut rng);
        let down = RandomLinear::new(&mut rng, (Codebook::Mcg, bits("4")), inner, hidden);
        let down = down.tame(&mut rng);
        let x = activations(&mut rng, DType::F16, rows * hidden, 2.0);
        for &world in worlds(platform) {
            let split = Shards::Uneven.split(inner, world);
            let outputs = on_ranks(platform, platform.group(world), |worker| {
                let up = ColumnParallel::load(&worker.rank, &[(&up.linear(), &split)]).unwrap();
                let down = RowParallel::load(&worker.rank, &down.linear(), &split).unwrap();
                let own = split.range(worker.rank.rank()).len();
                let x = worker.memory.buffer(&x);
                let mut a = worker.memory.buffer(&Values::poison(DType::F16, rows * own));
                let poison = Values::poison(DType::F32, rows * hidden);
                let mut outputs = [0; 8].map(|_| worker.memory.buffer(&poison));
                worker.collective(|rank, memory| {
                    for y in &mut outputs {
                        let input = x.input(0..rows * hidden);
                        up.forward(rank, memory.stream(), input, &mut [a.output(Epilogue::Store)])
                            .unwrap();
                        let input = a.input(0..rows * own);
                        let output = y.output(Epilogue::Store);
                        down.forward(rank, memory.stream(), input, output).unwrap();
                    }
                });
                for y in &outputs[1..] {
                    y.read().assert_same_bits(&outputs[0].read(), "calls in a row");
                }
                (a.read(), outputs[0].read())
            });
            // From the activations that the layer itself computed: their rounding is not in question.
            let activations: Vec<&Values> = outputs.iter().map(|(a, _)| a).collect();
            let activations = combine(&activations, &split, rows);
            let want = ReferenceLinear::new(&down.linear()).forward(&activations, rows);
            for (_, y) in &outputs {
                check_accuracy(y, &want, None, format_args!("world {world}"));
                y.assert_same_bits(&outputs[0].1, format_args!("ranks, world {world}"));
            }
        }
    }
}

/// Each rank's columns against those of the reference [rows, N].
fn check_shards(
    part: &Part,
    split: &Split,
    outputs: &[&Values],
    want: &[f64],
    rows: usize,
    name: &str,
) {
    let n = split.channels();
    for (rank, (got, range)) in outputs.iter().zip(split.iter()).enumerate() {
        if range.is_empty() {
            assert_eq!(got.len(), 0);
            continue;
        }
        let columns = want.chunks_exact(n).flat_map(|row| &row[range.clone()]);
        let want: Vec<f64> = columns.copied().collect();
        let residual = match part.epilogue {
            Epilogue::Store => None,
            Epilogue::Add => Some(part.before(rows, range.len())),
        };
        let what = format!("{name}, rank {rank} of {}, {rows} rows", split.world());
        check_accuracy(got, &want, residual.as_ref(), what);
    }
}
