//! `bench --column-parallel`: a gate and an up projection over one input, in one launch, and nothing else.
//!
//! What SwiGLU and a normalised input cost there is the difference between the forms. Ranks exchange nothing.

use super::load::join;
use super::measure::{
    collect, commit, heading, place, walk_length, weights, world, Part, Timed, Weights,
};
use super::record::Ranks;
use super::shape::Shape;
use super::time::{self, Repeat, Times};
use super::Args;
use crate::device::Place;
use crate::output;
use crate::random::{self, RandomLinear};
use crate::ranks::{Crew, Worker};
use crate::tensor::{Element, Tensor};
use anyhow::{bail, Result};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use trellink::format::{DType, GROUP};
use trellink::reference::{self, ReferenceLinear};
use trellink::weights::Linear;
use trellink::{ColumnParallel, Epilogue, Group, Split};

const EPSILON: f32 = 1e-5;

/// One measurement; an array of these is what `--json` prints.
#[derive(Serialize, Deserialize)]
pub struct Row {
    /// Of each of the two.
    shape: String,
    k: usize,
    n: usize,
    bits: f64,
    codebook: String,
    m: usize,
    world: usize,
    variant: String,
    #[serde(flatten)]
    times: Times,
    /// Of the first 128 columns of the first output, in f32; null where the first rank is another process's.
    rel_err: Option<f64>,
    /// Element type of the outputs.
    dtype: String,
    /// Calls in a replay, each of other weights.
    layers: usize,
    /// Packed weights that one call reads on the first rank.
    bytes_per_rank: usize,
    ranks: Ranks,
    device: String,
    commit: String,
}

impl Timed for Row {
    fn set_times(&mut self, times: Times) {
        self.times = times;
    }
}

/// What a call makes of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Form {
    /// One output, or both.
    gated: bool,
    /// Of the normalised input.
    normalised: bool,
}

impl Form {
    const ALL: [Form; 4] = [
        Form::new(false, false),
        Form::new(true, false),
        Form::new(false, true),
        Form::new(true, true),
    ];

    const fn new(gated: bool, normalised: bool) -> Self {
        Form { gated, normalised }
    }

    fn name(self) -> &'static str {
        match (self.normalised, self.gated) {
            (false, false) => "gate+up",
            (false, true) => "swiglu",
            (true, false) => "norm+gate+up",
            (true, true) => "norm+swiglu",
        }
    }
}

/// What is measured: the same for all ranks.
pub struct Columns<'a> {
    args: &'a Args,
    place: Place,
    /// Ranks.
    pub world: usize,
    all: Vec<Weights>,
}

impl<'a> Columns<'a> {
    /// Of what was asked for.
    pub fn new(args: &'a Args) -> Result<Self> {
        let place = place(args)?;
        Ok(Columns {
            args,
            world: world(args, &place),
            all: weights(args, &place, &Shape::GATES)?,
            place,
        })
    }

    fn measurements(&self) -> usize {
        self.all.len() * Form::ALL.len() * self.args.m.len()
    }

    /// Measures with all ranks, or with that of this process.
    pub fn run(
        &self,
        rank: Option<usize>,
        add: &mut dyn FnMut(Part<Row>) -> Result<()>,
    ) -> Result<()> {
        for &weights in &self.all {
            let Weights {
                shape: Shape { k, n, .. },
                bits,
                codebook,
            } = weights;
            let parts = [6, 7].map(|purpose| {
                let format = (bits, codebook);
                RandomLinear::from(&mut random::generator(purpose), (k, n), format, None)
            });
            let linears = [parts[0].view()?, parts[1].view()?];
            let mut loaded = Loaded::new(self, rank, linears)?;
            for &m in &self.args.m {
                for form in Form::ALL {
                    add(loaded.measure(self, weights, form, m as usize)?)?;
                }
            }
        }
        Ok(())
    }
}

/// Ranks with the layers that they walk through.
struct Loaded<'a> {
    crew: Crew,
    /// The first rank of the crew.
    first: usize,
    /// By rank of the crew.
    layers: Vec<Vec<ColumnParallel>>,
    linears: [Linear<'a>; 2],
    bytes: usize,
}

impl<'a> Loaded<'a> {
    fn new(columns: &Columns<'_>, rank: Option<usize>, linears: [Linear<'a>; 2]) -> Result<Self> {
        let Columns { args, world, .. } = *columns;
        let split = Split::even(linears[0].n(), world)?;
        let bytes = 2 * linears[0].columns(split.range(0))?.packed_bytes();
        let count = walk_length(args, &columns.place, bytes);
        // As large as a message is by default; a row of both fits for every shape.
        let mut crew = join(rank, Group::new(columns.place.of_ranks(world)))?;
        let layers = crew.each(|_, worker| {
            let pair = [(&linears[0], &split), (&linears[1], &split)];
            let layer = |_| Ok(ColumnParallel::load(&worker.rank, &pair)?);
            (0..count).map(layer).collect()
        })?;
        Ok(Loaded {
            crew,
            first: rank.unwrap_or(0),
            layers,
            linears,
            bytes,
        })
    }

    fn measure(
        &mut self,
        columns: &Columns<'_>,
        weights: Weights,
        form: Form,
        m: usize,
    ) -> Result<Part<Row>> {
        let Columns { args, world, .. } = *columns;
        let rel_err = self.relative_error(form, m)?;
        let replays = args.replays as usize;
        let seconds = match args.residual {
            DType::F16 => self.replays::<f16>(form, m, replays)?,
            _ => self.replays::<bf16>(form, m, replays)?,
        };
        let layers = self.layers[0].len();
        let record = Row {
            shape: weights.shape.to_string(),
            k: weights.shape.k,
            n: weights.shape.n,
            bits: weights.bits.half_bits() as f64 / 2.0,
            codebook: weights.codebook.name().into(),
            m,
            world,
            variant: form.name().into(),
            times: Times::default(),
            rel_err,
            dtype: args.residual.to_string(),
            layers,
            bytes_per_rank: self.bytes,
            ranks: Ranks::of(args),
            device: columns.place.describe(world),
            commit: commit(),
        };
        Ok(Part {
            record,
            seconds,
            calls: layers,
        })
    }

    /// Seconds of `replays` walks, by rank of the crew.
    fn replays<R: Element>(
        &mut self,
        form: Form,
        m: usize,
        replays: usize,
    ) -> Result<Vec<Vec<f64>>> {
        let layers = &self.layers;
        let mut walks = self
            .crew
            .each(|at, worker| Walk::<R>::new(form, worker, &layers[at], m))?;
        let seconds = self.crew.together(&mut walks, |_, worker, walk, gate| {
            time::time(walk, worker, replays, gate)
        })?;
        self.crew.each_with(&mut walks, |_, worker, walk| {
            let values = walk.outputs[0].values(&worker.lane)?;
            if !values.into_iter().all(|value| value.widen().is_finite()) {
                bail!("the outputs are not finite: what was timed is not what a model computes");
            }
            Ok(())
        })?;
        Ok(seconds)
    }

    /// Of the first rank's first 128 columns, which depend on their own weights alone.
    fn relative_error(&mut self, form: Form, m: usize) -> Result<Option<f64>> {
        let layers = &self.layers;
        let found = self.crew.each(|at, worker| {
            let mut walk = Walk::<f32>::new(form, worker, &layers[at], m)?;
            walk.once(worker)?;
            worker.finish()?;
            walk.outputs[0].values(&worker.lane)
        })?;
        if self.first > 0 {
            return Ok(None);
        }
        let k = self.linears[0].k();
        let mut x: Vec<f64> = inputs(k, m).into_iter().map(f64::from).collect();
        if form.normalised {
            x = reference::rms_norm(&x, &vec![1.0; k], EPSILON.into());
        }
        let part = |linear: &Linear<'_>| -> Result<Vec<f64>> {
            let first = ReferenceLinear::new(&linear.columns(0..GROUP)?);
            Ok(first.forward(&x, m))
        };
        let [gate, up] = &self.linears;
        let want = match form.gated {
            true => reference::swiglu(&part(gate)?, &part(up)?),
            false => part(gate)?,
        };
        let rows = found[0].chunks_exact(self.layers[0][0].columns()[0]);
        let found = rows.flat_map(|row| &row[..GROUP]).copied();
        Ok(Some(reference::relative_error(found.map(f64::from), &want)))
    }
}

/// The input of every rank, [m, k].
fn inputs(k: usize, m: usize) -> Vec<f16> {
    random::activations(&mut random::generator(8), m * k)
}

/// One rank's walk: a call for each layer, all on the same memory.
struct Walk<'a, R> {
    form: Form,
    layers: &'a [ColumnParallel],
    x: Tensor<f16>,
    squares: Tensor<f32>,
    /// Both, or the one.
    outputs: Vec<Tensor<R>>,
}

impl<'a, R: Element> Walk<'a, R> {
    fn new(form: Form, worker: &Worker, layers: &'a [ColumnParallel], m: usize) -> Result<Self> {
        let x = inputs(layers[0].k(), m);
        let squares = |x: &[f16]| x.iter().map(|x| x.to_f32().powi(2)).sum();
        let squares = x.chunks_exact(GROUP).map(squares).collect();
        let columns = &layers[0].columns()[usize::from(form.gated)..];
        let outputs = columns.iter().map(|n| {
            let zeros = vec![R::round(0.0); m * n];
            Tensor::new(&worker.lane, zeros)
        });
        Ok(Walk {
            form,
            layers,
            outputs: outputs.collect::<Result<_>>()?,
            squares: Tensor::new(&worker.lane, squares)?,
            x: Tensor::new(&worker.lane, x)?,
        })
    }

    fn call(&mut self, worker: &mut Worker, layer: &ColumnParallel) -> Result<()> {
        let Worker { rank, lane } = worker;
        let mut input = self.x.input(lane);
        if self.form.normalised {
            input = input.rms_norm(self.squares.input(lane), EPSILON);
        }
        let outputs = self.outputs.iter_mut();
        let mut outputs: Vec<_> = outputs
            .map(|out| out.output(lane, Epilogue::Store))
            .collect();
        let stream = lane.stream();
        match self.form.gated {
            true => layer.forward_swiglu(rank, stream, input, outputs.remove(0))?,
            false => layer.forward(rank, stream, input, &mut outputs)?,
        }
        Ok(())
    }
}

impl<R: Element> Repeat for Walk<'_, R> {
    fn once(&mut self, worker: &mut Worker) -> Result<()> {
        let layers = self.layers;
        self.call(worker, &layers[0])
    }

    fn run(&mut self, worker: &mut Worker) -> Result<()> {
        let mut layers = self.layers.iter();
        layers.try_for_each(|layer| self.call(worker, layer))
    }
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let columns = Columns::new(args)?;
    let (place, count) = (&columns.place, columns.measurements());
    let rows = collect(
        args,
        place,
        columns.world,
        count,
        |_: &Row| String::new(),
        |add| columns.run(None, add),
    )?;
    if args.json {
        return output::print_json(&rows);
    }
    let mut lines = vec![heading(args, place, columns.world)];
    lines.push(format!(
        "us per call of two column-parallel linears of this shape, {} outputs",
        args.residual
    ));
    lines.push(table(&rows));
    output::print(&lines.join("\n"))
}

fn table(rows: &[Row]) -> String {
    let heads = [
        "K x N",
        "codebook",
        "bits",
        "M",
        "variant",
        "us median",
        "min",
        "max",
        "rel err",
    ];
    let mut table = output::table(&heads, [2, 3, 5, 6, 7, 8]);
    for row in rows {
        let Times { median, min, max } = row.times;
        let us = |us: f64| format!("{us:.2}");
        table.add_row([
            row.shape.clone(),
            row.codebook.clone(),
            row.bits.to_string(),
            row.m.to_string(),
            row.variant.clone(),
            us(median),
            us(min),
            us(max),
            row.rel_err
                .map_or("".into(), |error| format!("{error:.1e}")),
        ]);
    }
    output::render(&table)
}
