//! What an operation is: shapes, formats and types, at random.

use crate::random::seeded;
use rand::rngs::StdRng;
use rand::Rng;
use trellink::format::{Bits, Codebook, DType, GROUP};
use trellink::plan::reduce::ReducePlan;
use trellink::{Epilogue, ReduceForm};

/// Products that one call of a layer takes, at most.
const LARGEST: usize = 1 << 25;
/// Exchanges that one call takes, at most.
const MAX_EXCHANGES: usize = 64;

/// The stream of a task's seed that decides over its norm; others are in `values`.
const NORM: u64 = 0x400;

/// One operation of all ranks.
#[derive(Clone, Debug)]
pub struct Task {
    /// Of its weights, inputs and residuals.
    pub seed: u64,
    /// What is computed.
    pub body: Body,
    /// Element type of the input.
    pub input: DType,
    /// Element type of the output.
    pub output: DType,
    /// Of the output.
    pub epilogue: Epilogue,
}

/// What is computed.
#[derive(Clone, Debug)]
pub enum Body {
    /// A row-parallel layer.
    Row {
        /// Rows of the input.
        rows: usize,
        /// The layer.
        layer: Layer,
        /// Input channels by rank, 0 for some.
        k: Vec<usize>,
        /// Loaded with one arithmetic for every number of rows.
        uniform: bool,
        /// The RMSNorm of its finished rows, if there is one.
        norm: Option<Norm>,
    },
    /// Column-parallel layers over one input.
    Column {
        /// Rows of the input.
        rows: usize,
        /// The layers, with the same K.
        layers: Vec<Layer>,
        /// By layer: output channels by rank, 0 for some.
        n: Vec<Vec<usize>>,
        /// Loaded with one arithmetic for every number of rows.
        uniform: bool,
    },
    /// An all-reduce.
    Reduce {
        /// Elements.
        len: usize,
        /// How it moves them.
        form: ReduceForm,
        /// Whether the input is the output.
        in_place: bool,
    },
}

/// The RMSNorm that follows a row-parallel layer.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// Type of its weight.
    pub weight: DType,
    /// Type of the normalised rows.
    pub out: DType,
}

/// A whole layer.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// Input channels.
    pub k: usize,
    /// Output channels.
    pub n: usize,
    /// Bits per weight.
    pub bits: Bits,
    /// Its codebook.
    pub codebook: Codebook,
    /// Type of the bias, if there is one.
    pub bias: Option<DType>,
}

impl Task {
    /// A task for ranks whose slots hold so many values.
    pub fn random(random: &mut StdRng, world: usize, slot_values: usize) -> Self {
        let mut body = match random.random_range(0..10) {
            0..5 => Body::row(random, world, slot_values),
            5..7 => Body::column(random, world),
            _ => Body::reduce(random, slot_values),
        };
        let outputs = DType::ALL;
        let inputs = match body {
            Body::Reduce { .. } => &DType::ALL[..],
            _ => &[DType::F16, DType::Bf16],
        };
        let in_place = matches!(body, Body::Reduce { in_place: true, .. });
        let output = outputs[random.random_range(0..outputs.len())];
        let input = inputs[random.random_range(0..inputs.len())];
        let seed = random.random();
        body.choose_norm(seed, slot_values);
        Task {
            seed,
            body,
            input: if in_place { output } else { input },
            output,
            epilogue: match !in_place && random.random_bool(0.5) {
                true => Epilogue::Add,
                false => Epilogue::Store,
            },
        }
    }

    /// Whether ranks wait for one another in its calls.
    pub fn exchanges_something(&self) -> bool {
        match self.body {
            Body::Row { rows, .. } => rows > 0,
            Body::Column { .. } => false,
            Body::Reduce { len, .. } => len > 0,
        }
    }

    /// Exchanges of one call.
    pub fn exchanges(&self, world: usize, slot_values: usize, on_host: bool) -> usize {
        match &self.body {
            Body::Row { rows, layer, .. } => row_exchanges(*rows, layer.n, slot_values),
            Body::Column { .. } => 0,
            Body::Reduce { len, .. } if on_host => len.div_ceil(slot_values),
            Body::Reduce { len, form, .. } => {
                let dtypes = (self.input, self.output);
                let plan = ReducePlan::new(*form, world, slot_values, *len, dtypes, self.epilogue);
                plan.launches().count()
            }
        }
    }

    /// The norm that its calls end with, if they do.
    pub fn norm(&self) -> Option<Norm> {
        match self.body {
            Body::Row { norm, .. } => norm,
            _ => None,
        }
    }

    /// Of a call that is added up over the ranks, the outputs are the same on all.
    pub fn is_shared(&self) -> bool {
        !matches!(self.body, Body::Column { .. })
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.body {
            Body::Row {
                rows,
                layer,
                k,
                uniform,
                norm,
            } => {
                let arithmetic = arithmetic(*uniform);
                write!(
                    f,
                    "row-parallel {layer}, {rows} rows, K by rank {k:?}{arithmetic}"
                )?;
                match norm {
                    Some(Norm { weight, out }) => write!(f, ", RMSNorm by {weight} to {out}"),
                    None => Ok(()),
                }
            }
            Body::Column {
                rows,
                layers,
                n,
                uniform,
            } => {
                let layers: Vec<String> = layers.iter().map(ToString::to_string).collect();
                let (layers, arithmetic) = (layers.join(" and "), arithmetic(*uniform));
                write!(
                    f,
                    "column-parallel {layers}, {rows} rows, N by rank {n:?}{arithmetic}"
                )
            }
            Body::Reduce {
                len,
                form,
                in_place,
            } => {
                let place = if *in_place { " in place" } else { "" };
                write!(f, "all-reduce of {len} elements{place}, {form:?}")
            }
        }?;
        let verb = match self.epilogue {
            Epilogue::Store => "stored as",
            Epilogue::Add => "added to",
        };
        write!(f, ", {} {verb} {}", self.input, self.output)
    }
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Layer { k, n, .. } = self;
        write!(f, "{k}x{n} {} bits {}", self.bits, self.codebook)?;
        match self.bias {
            Some(dtype) => write!(f, " with {dtype} bias"),
            None => Ok(()),
        }
    }
}

fn arithmetic(uniform: bool) -> &'static str {
    if uniform {
        ", one arithmetic"
    } else {
        ""
    }
}

impl Body {
    fn row(random: &mut StdRng, world: usize, slot_values: usize) -> Self {
        let k = shares(random, world);
        let layer = Layer::random(random, k.iter().sum());
        let mut rows = random_rows(random, layer.k * layer.n);
        while row_exchanges(rows, layer.n, slot_values) > MAX_EXCHANGES {
            rows /= 2;
        }
        Body::Row {
            rows,
            layer,
            k,
            uniform: random.random_bool(0.3),
            norm: None,
        }
    }

    /// Gives some layers a norm, if a slot holds a row. The task's seed decides, so that all other decisions
    /// are as they were before there were norms.
    fn choose_norm(&mut self, seed: u64, slot_values: usize) {
        let mut random = seeded(seed, NORM);
        if let Body::Row { layer, norm, .. } = self {
            if layer.n <= slot_values && random.random_bool(0.4) {
                *norm = Some(Norm {
                    weight: DType::ALL[random.random_range(0..DType::ALL.len())],
                    out: [DType::F16, DType::Bf16][random.random_range(0..2)],
                });
            }
        }
    }

    fn column(random: &mut StdRng, world: usize) -> Self {
        let k = GROUP * random.random_range(1..=6);
        let count = random.random_range(1..=3);
        let (mut layers, mut n) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let shares = shares(random, world);
            let columns = shares.iter().sum();
            layers.push(Layer {
                n: columns,
                ..Layer::random(random, k)
            });
            n.push(shares);
        }
        let products = layers.iter().map(|layer| layer.k * layer.n).sum();
        Body::Column {
            rows: random_rows(random, products),
            layers,
            n,
            uniform: random.random_bool(0.3),
        }
    }

    fn reduce(random: &mut StdRng, slot_values: usize) -> Self {
        let forms = [
            ReduceForm::Automatic,
            ReduceForm::OneShot,
            ReduceForm::TwoShot,
        ];
        // As many short ones as long ones, whatever the longest.
        let longest = (slot_values * 12 / 8).clamp(16, 16_384);
        let octets = random.random_range(0.0..(longest as f64).ln()).exp() as usize;
        Body::Reduce {
            len: 8 * if random.random_bool(0.02) { 0 } else { octets },
            form: forms[random.random_range(0..forms.len())],
            in_place: random.random_bool(0.3),
        }
    }
}

impl Layer {
    fn random(random: &mut StdRng, k: usize) -> Self {
        let bits = Bits::ALL[random.random_range(0..Bits::ALL.len())];
        let codebooks = Codebook::ALL.into_iter().filter(|c| c.supports(bits));
        let codebooks: Vec<Codebook> = codebooks.collect();
        let biases = [
            None,
            None,
            None,
            Some(DType::F16),
            Some(DType::Bf16),
            Some(DType::F32),
        ];
        Layer {
            k,
            n: GROUP * random.random_range(1..=8),
            bits,
            codebook: codebooks[random.random_range(0..codebooks.len())],
            bias: biases[random.random_range(0..biases.len())],
        }
    }
}

/// Channels by rank: uneven, some ranks without any, but not all.
fn shares(random: &mut StdRng, world: usize) -> Vec<usize> {
    let share = |random: &mut StdRng| match random.random_range(0..10) {
        0..2 => 0,
        _ => GROUP * random.random_range(1..=4),
    };
    let mut shares: Vec<usize> = (0..world).map(|_| share(random)).collect();
    if shares.iter().all(|&channels| channels == 0) {
        shares[random.random_range(0..world)] = GROUP;
    }
    shares
}

/// Rows about the borders of the kernels, as far as the product with so many weights is not too large.
fn random_rows(random: &mut StdRng, weights: usize) -> usize {
    let usual = [1, 1, 1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 100];
    let rows = match random.random_range(0..50) {
        0 => 0,
        _ => usual[random.random_range(0..usual.len())],
    };
    rows.min(LARGEST / weights)
}

fn row_exchanges(rows: usize, n: usize, slot_values: usize) -> usize {
    trellink::protocol::messages(rows, n, slot_values).count()
}
