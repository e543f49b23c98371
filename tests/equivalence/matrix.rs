//! Runs cases: layers and inputs of a format are loaded once per group, each case is called twice.

use super::cases::{Case, FORMATS, ROWS};
use super::common::*;
use std::collections::HashMap;
use std::sync::OnceLock;
use trellink::format::{DType, GROUP};
use trellink::reference::ReferenceLinear;
use trellink::weights::Linear;
use trellink::{Epilogue, RowParallel, Split};

/// Calls in flight at most: a rank whose queue is full waits inside the driver, where it may keep
/// another rank of the same device from making the call that this one waits for.
const CALLS_IN_FLIGHT: usize = 64;

/// A layer of one format with its inputs, and what the reference makes of them.
pub struct Layer {
    name: String,
    linear: RandomLinear,
    rows: usize,
    /// [rows, K]: f16 and bf16, of different numbers.
    inputs: [Values; 2],
    /// [rows, N] of each input, without the bias.
    products: [OnceLock<Vec<f64>>; 2],
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}, {}]", self.name, self.k(), self.n())
    }
}

impl Layer {
    /// A small one: K of 256 to 1152, N of 128 to 512 channels.
    pub fn random(seed: &Seed, format: usize) -> Self {
        let k = [9, 5, 8, 2, 7][format % 5] * GROUP;
        let n = [2, 1, 3, 4][format % 4] * GROUP;
        Self::random_of_shape(seed, format, k, n, *ROWS.last().unwrap())
    }

    pub fn random_of_shape(seed: &Seed, format: usize, k: usize, n: usize, rows: usize) -> Self {
        let (codebook, bits) = formats()[format];
        let mut rng = seed.rng(format as u64);
        let linear = RandomLinear::new(&mut rng, (codebook, bits), k, n);
        let linear = linear.with_bias(&mut rng, DType::ALL[format % 3]);
        Layer {
            name: format!("{codebook} {bits} bits"),
            linear,
            rows,
            inputs: [DType::F16, DType::Bf16]
                .map(|dtype| activations(&mut rng, dtype, rows * k, 2.0)),
            products: Default::default(),
        }
    }

    pub fn k(&self) -> usize {
        self.linear.k
    }

    pub fn n(&self) -> usize {
        self.linear.n
    }

    pub fn linear(&self, bias: bool) -> Linear<'_> {
        if bias {
            self.linear.linear()
        } else {
            self.linear.without_bias()
        }
    }

    /// All rows of the input of this dtype.
    pub fn input(&self, dtype: DType) -> &Values {
        &self.inputs[usize::from(dtype == DType::Bf16)]
    }

    /// What the reference makes of the first `rows` rows of the input.
    pub fn product(&self, input: DType, bias: bool, rows: usize) -> Vec<f64> {
        let products = &self.products[usize::from(input == DType::Bf16)];
        let all = products.get_or_init(|| {
            let reference = ReferenceLinear::new(&self.linear(false));
            reference.forward(&self.input(input).to_f64(), self.rows)
        });
        let mut product = all[..rows * self.n()].to_vec();
        if bias {
            let bias = self.linear.bias();
            for row in product.chunks_exact_mut(self.n()) {
                row.iter_mut().zip(&bias).for_each(|(y, bias)| *y += bias);
            }
        }
        product
    }

    /// What an output holds before the call: poison, or a residual as large as the product.
    fn before(&self, case: &Case) -> Values {
        let len = case.rows * self.n();
        match case.epilogue {
            Epilogue::Store => Values::poison(case.output, len),
            Epilogue::Add => {
                let amplitude = (self.k() as f32).sqrt();
                let number = |i: usize| amplitude * (i as f32 * 0.618).sin();
                Values::of(case.output, (0..len).map(number))
            }
        }
    }
}

/// The greatest errors of a format.
#[derive(Clone, Copy, Default)]
struct Errors {
    cases: usize,
    /// By dtype of the output, relative to the product.
    error: [f64; 3],
}

impl Errors {
    fn add(&mut self, output: DType, error: f64) {
        self.cases += 1;
        let index = DType::ALL.iter().position(|d| *d == output).unwrap();
        self.error[index] = self.error[index].max(error);
    }

    fn merge(&mut self, other: &Errors) {
        self.cases += other.cases;
        for (error, other) in self.error.iter_mut().zip(other.error) {
            *error = error.max(other);
        }
    }
}

/// What came of a run of the matrix.
pub struct Table {
    errors: Vec<Errors>,
    seconds: f64,
}

impl Table {
    pub fn print(&self, platform: &Platform) {
        let line = |name: &str, errors: &Errors| {
            let [f16, bf16, f32] = errors.error;
            say!(
                "{name:<14}{:>7}  {f32:.2e}  {f16:.2e}  {bf16:.2e}",
                errors.cases
            );
        };
        let place = if platform.is_host() {
            "the host"
        } else {
            "CUDA"
        };
        say!("row-parallel on {place}: greatest relative error by output dtype");
        say!("format          cases  f32       f16       bf16");
        let mut total = Errors::default();
        for ((codebook, bits), errors) in formats().into_iter().zip(&self.errors) {
            line(&format!("{codebook} {bits}"), errors);
            total.merge(errors);
        }
        line("all", &total);
        let calls = 2 * total.cases;
        say!("{calls} calls, two of each case, in {:.1} s", self.seconds);
    }
}

/// Runs `cases` and checks each: near the reference, the same on all ranks, the same when run again.
pub fn run(platform: &Platform, cases: &[Case]) -> Table {
    let started = std::time::Instant::now();
    let seed = Seed::new(0xe93);
    let layers: Vec<Layer> = (0..FORMATS).map(|f| Layer::random(&seed, f)).collect();
    compute_references(&layers);
    let mut errors = vec![Errors::default(); FORMATS];
    let mut checked = 0;
    for world in 1..=trellink::MAX_WORLD {
        let of_world: Vec<Case> = cases.iter().filter(|c| c.world == world).copied().collect();
        if of_world.is_empty() {
            continue;
        }
        let on_rank_0 = on_ranks(platform, platform.group(world), |worker| {
            let mut errors = vec![Errors::default(); FORMATS];
            for (format, layer) in layers.iter().enumerate() {
                let of_format = of_world.iter().filter(|c| c.format == format);
                let cases: Vec<Case> = of_format.copied().collect();
                Calls::prepare(worker, layer, &cases).check(worker, &mut errors[format]);
            }
            errors
        })
        .swap_remove(0);
        for (errors, new) in errors.iter_mut().zip(&on_rank_0) {
            errors.merge(new);
        }
        checked += of_world.len();
    }
    assert_eq!(checked, cases.len());
    assert_eq!(errors.iter().map(|e| e.cases).sum::<usize>(), cases.len());
    Table {
        errors,
        seconds: started.elapsed().as_secs_f64(),
    }
}

/// Fills in the products of all layers, on all processors.
fn compute_references(layers: &[Layer]) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || loop {
        let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let Some(layer) = layers.get(i / 2) else {
            return;
        };
        layer.product([DType::F16, DType::Bf16][i % 2], false, 1);
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

/// The cases of one layer on one rank, with everything in its memory.
struct Calls<'a> {
    layer: &'a Layer,
    cases: &'a [Case],
    loaded: HashMap<(bool, Shards), RowParallel>,
    inputs: HashMap<(DType, Shards), Box<dyn Buffer>>,
    outputs: Vec<Box<dyn Buffer>>,
}

impl<'a> Calls<'a> {
    fn prepare(worker: &Worker<'_>, layer: &'a Layer, cases: &'a [Case]) -> Self {
        let (rank, memory) = (&worker.rank, &worker.memory);
        let split = |shards: Shards| -> Split { shards.split(layer.k(), rank.world()) };
        let mut loaded = HashMap::new();
        let mut inputs = HashMap::new();
        for case in cases {
            let split = split(case.shards);
            loaded.entry((case.bias, case.shards)).or_insert_with(|| {
                RowParallel::load(rank, &layer.linear(case.bias), &split).unwrap()
            });
            inputs.entry((case.input, case.shards)).or_insert_with(|| {
                let shard = shard_columns(layer.input(case.input), &split, rank.rank());
                memory.buffer(&shard)
            });
        }
        let outputs = cases.iter().map(|case| memory.buffer(&layer.before(case)));
        Calls {
            layer,
            cases,
            loaded,
            inputs,
            outputs: outputs.collect(),
        }
    }

    fn check(&mut self, worker: &mut Worker<'_>, errors: &mut Errors) {
        let first = self.call(worker, false);
        let second = self.call(worker, true);
        let on_rank_0 = worker.value_of_rank_0(first.clone());
        for (i, case) in self.cases.iter().enumerate() {
            let layer = self.layer;
            first[i].assert_same_bits(&second[i], format_args!("two runs of {case:?}, {layer}"));
            let rank = worker.rank.rank();
            first[i].assert_same_bits(
                &on_rank_0[i],
                format_args!("ranks {rank} and 0 in {case:?}, {layer}"),
            );
            if rank == 0 {
                errors.add(case.output, self.accuracy(case, &first[i]));
            }
        }
    }

    fn accuracy(&self, case: &Case, got: &Values) -> f64 {
        let product = self.layer.product(case.input, case.bias, case.rows);
        let residual = match case.epilogue {
            Epilogue::Store => None,
            Epilogue::Add => Some(self.layer.before(case)),
        };
        let what = format!("{case:?}, {}", self.layer);
        check_accuracy(got, &product, residual.as_ref(), what)
    }

    /// Makes all calls, forwards or backwards, and reads their outputs, in the order of the cases.
    fn call(&mut self, worker: &mut Worker<'_>, backwards: bool) -> Vec<Values> {
        for (case, output) in self.cases.iter().zip(&mut self.outputs) {
            output.write(&self.layer.before(case));
        }
        let mut order: Vec<usize> = (0..self.cases.len()).collect();
        if backwards {
            order.reverse();
        }
        worker.collective(|rank, memory| {
            for (i, &case) in order.iter().enumerate() {
                let Case {
                    rows,
                    bias,
                    shards,
                    input,
                    epilogue,
                    ..
                } = self.cases[case];
                let loaded = &self.loaded[&(bias, shards)];
                let input = self.inputs[&(input, shards)].input(0..rows * loaded.k());
                let output = self.outputs[case].output(epilogue);
                loaded
                    .forward(rank, memory.stream(), input, output)
                    .unwrap();
                if i % CALLS_IN_FLIGHT == CALLS_IN_FLIGHT - 1 {
                    memory.synchronize();
                }
            }
        });
        self.outputs.iter().map(|output| output.read()).collect()
    }
}
