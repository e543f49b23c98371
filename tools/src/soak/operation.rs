//! An operation on one rank: its layer and tensors, its calls, and what they left.

use super::task::{Body, Layer, Norm, Task};
use super::values::{self, FIRST};
use crate::ranks::{Lane, Worker};
use crate::tensor::{AnyTensor, Numbers};
use anyhow::{ensure, Result};
use trellink::weights::Linear;
use trellink::{
    AllReduce, Arithmetic, ColumnParallel, Epilogue, Input, LoadOptions, Output, Rank, RmsNorm,
    RowParallel, Split,
};

/// One rank's part of a task.
pub struct Operation {
    task: Task,
    rank: usize,
    world: usize,
    /// In what a run prints.
    name: String,
    callee: Callee,
    /// None where it is the output.
    x: Option<AnyTensor>,
    /// The outputs of the first call, until they have been read.
    first: Vec<AnyTensor>,
    outputs: Vec<AnyTensor>,
    norm: Option<Normed>,
    /// By output: the f32 that every call computes, once known.
    y: Vec<Vec<f32>>,
    /// Calls since the outputs were written.
    calls: usize,
}

/// The RMSNorm of an operation's output.
struct Normed {
    norm: Norm,
    weight: AnyTensor,
    out: AnyTensor,
}

enum Callee {
    Row(RowParallel),
    Column(ColumnParallel),
    Reduce(AllReduce),
}

/// An output that has been read, beside what it must be.
pub struct Found {
    /// Of which operation, and of which of its calls.
    pub what: String,
    /// Whether all ranks must have the same.
    pub is_shared: bool,
    /// What the rank has.
    pub found: Numbers,
    /// What it must have; nothing of a first call, which decides that.
    pub expected: Option<Numbers>,
    /// What it must be the rounded numbers of, but for what f32 loses.
    pub about: Option<Vec<f64>>,
    /// The relative error in the 2-norm, where it was worth the time.
    pub error: Option<f64>,
}

impl Operation {
    /// Loads weights and makes tensors. `number` is the task's in its round.
    pub fn new(worker: &Worker, task: &Task, number: usize) -> Result<Self> {
        let (rank, world) = (worker.rank.rank(), worker.rank.world());
        let mut operation = Operation {
            name: format!("operation {number} ({task})"),
            callee: callee(&worker.rank, task)?,
            x: None,
            first: Vec::new(),
            outputs: Vec::new(),
            norm: None,
            y: Vec::new(),
            calls: 0,
            task: task.clone(),
            rank,
            world,
        };
        let lane = &worker.lane;
        if !matches!(task.body, Body::Reduce { in_place: true, .. }) {
            operation.x = Some(AnyTensor::new(lane, &values::input(task, rank))?);
        }
        for at in 0..operation.callee.outputs() {
            let before = values::before(task, at, rank);
            if !matches!(task.body, Body::Reduce { .. }) {
                let poison = Numbers::poison(FIRST, before.values.len());
                operation.first.push(AnyTensor::new(lane, &poison)?);
            }
            operation.outputs.push(AnyTensor::new(lane, &before)?);
        }
        if let Some(norm) = task.norm() {
            let poison = Numbers::poison(norm.out, values::output_len(task, 0, rank));
            operation.norm = Some(Normed {
                norm,
                weight: AnyTensor::new(lane, &values::norm_weight(task, norm))?,
                out: AnyTensor::new(lane, &poison)?,
            });
        }
        if let Body::Reduce { .. } = task.body {
            operation.y.push(values::sums(task, world));
        }
        Ok(operation)
    }

    /// The task.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// For a reader.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its first call has still to be made.
    pub fn is_new(&self) -> bool {
        !self.first.is_empty()
    }

    /// Enqueues the call that later ones are compared with.
    pub fn call_first(&mut self, worker: &mut Worker) -> Result<()> {
        let Worker { rank, lane } = worker;
        let outputs = self.first.iter_mut();
        let outputs = outputs.map(|output| output.output(lane, Epilogue::Store));
        let input = self.x.as_ref().map(|x| x.input(lane));
        self.callee.call(rank, lane, input, outputs.collect())
    }

    /// Enqueues a call.
    pub fn call(&mut self, worker: &mut Worker) -> Result<()> {
        let Worker { rank, lane } = worker;
        let (outputs, epilogue) = (self.outputs.iter_mut(), self.task.epilogue);
        let mut norm = self.norm.as_mut();
        let outputs = outputs.map(|output| {
            let output = output.output(lane, epilogue);
            match norm.take() {
                None => output,
                Some(norm) => output.rms_norm(norm.of_call(lane)),
            }
        });
        let outputs = outputs.collect();
        let input = self.x.as_ref().map(|x| x.input(lane));
        self.callee.call(rank, lane, input, outputs)
    }

    /// A call has been made, by `call` or by a graph that holds it.
    pub fn count_call(&mut self) {
        self.calls += 1;
    }

    /// Brings the outputs back to where they were before the first call.
    pub fn rewind(&mut self, lane: &Lane) -> Result<()> {
        for (at, output) in self.outputs.iter_mut().enumerate() {
            output.write(lane, &values::before(&self.task, at, self.rank))?;
        }
        if let Some(Normed { norm, out, .. }) = &mut self.norm {
            let len = values::output_len(&self.task, 0, self.rank);
            out.write(lane, &Numbers::poison(norm.out, len))?;
        }
        self.calls = 0;
        Ok(())
    }

    /// What the calls have left since then, and first calls if they are new.
    pub fn found(&mut self, lane: &Lane, number: usize) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for (at, first) in std::mem::take(&mut self.first).into_iter().enumerate() {
            let found = first.numbers(lane)?;
            let turn = !self.task.is_shared() || number % self.world == self.rank;
            all.push(Found {
                what: format!("first output {at} of {}", self.name),
                is_shared: self.task.is_shared(),
                expected: None,
                about: None,
                error: match turn {
                    true => values::error(&self.task, at, self.rank, self.world, &found.values)?,
                    false => None,
                },
                found: found.clone(),
            });
            self.y.push(found.values);
        }
        ensure!(self.y.len() == self.outputs.len(), "no first call was made");
        for (at, output) in self.outputs.iter().enumerate() {
            let before = values::before(&self.task, at, self.rank);
            let (y, calls) = (&self.y[at], self.calls);
            all.push(Found {
                what: format!("output {at} after {calls} calls of {}", self.name),
                // Without a call each rank still has its own input in place.
                is_shared: self.task.is_shared() && calls > 0,
                found: output.numbers(lane)?,
                expected: Some(values::after(&self.task, before, y, calls, self.world)),
                about: None,
                error: None,
            });
        }
        all.extend(self.found_normalised(lane)?);
        Ok(all)
    }

    /// The normalised rows, held against the output as it is.
    fn found_normalised(&self, lane: &Lane) -> Result<Option<Found>> {
        let (Some(Normed { norm, out, .. }), [output]) = (&self.norm, &self.outputs[..]) else {
            return Ok(None);
        };
        if self.calls == 0 {
            return Ok(None);
        }
        Ok(Some(Found {
            what: format!("RMSNorm after {} calls of {}", self.calls, self.name),
            is_shared: true,
            found: out.numbers(lane)?,
            expected: None,
            about: Some(values::normalised(
                &self.task,
                *norm,
                &output.numbers(lane)?,
            )),
            error: None,
        }))
    }
}

impl Normed {
    fn of_call<'a>(&'a mut self, lane: &'a Lane) -> RmsNorm<'a> {
        let out = self.out.output(lane, Epilogue::Store);
        RmsNorm::new(self.weight.input(lane), values::EPSILON, out)
    }
}

fn callee(rank: &Rank, task: &Task) -> Result<Callee> {
    let options = |uniform: bool| match uniform {
        true => LoadOptions::new().arithmetic(Arithmetic::Uniform),
        false => LoadOptions::new(),
    };
    match &task.body {
        Body::Row {
            layer, k, uniform, ..
        } => {
            let (weights, split) = (values::weights(task, 0, layer), Split::explicit(k)?);
            let layer = RowParallel::load_with(rank, &weights.view()?, &split, options(*uniform))?;
            Ok(Callee::Row(layer))
        }
        Body::Column {
            layers, n, uniform, ..
        } => {
            let weights = |(at, layer): (usize, &Layer)| values::weights(task, at, layer);
            let weights: Vec<_> = layers.iter().enumerate().map(weights).collect();
            let views = weights.iter().map(|weights| weights.view());
            let views: Vec<Linear<'_>> = views.collect::<Result<_, _>>()?;
            let splits = n.iter().map(|n| Split::explicit(n));
            let splits: Vec<Split> = splits.collect::<Result<_, _>>()?;
            let linears: Vec<_> = views.iter().zip(&splits).collect();
            let layers = ColumnParallel::load_with(rank, &linears, options(*uniform))?;
            Ok(Callee::Column(layers))
        }
        Body::Reduce { form, .. } => Ok(Callee::Reduce(AllReduce::new().form(*form))),
    }
}

impl Callee {
    fn outputs(&self) -> usize {
        match self {
            Callee::Column(layers) => layers.columns().len(),
            _ => 1,
        }
    }

    fn call(
        &self,
        rank: &mut Rank,
        lane: &Lane,
        input: Option<Input<'_>>,
        mut outputs: Vec<Output<'_>>,
    ) -> Result<()> {
        match (self, input) {
            (Callee::Column(layers), Some(input)) => {
                layers.forward(rank, lane.stream(), input, &mut outputs)?;
            }
            (Callee::Row(layer), Some(input)) => {
                layer.forward(rank, lane.stream(), input, only(outputs)?)?;
            }
            (Callee::Reduce(reduce), Some(input)) => {
                reduce.run(rank, lane.stream(), input, only(outputs)?)?;
            }
            (Callee::Reduce(reduce), None) => {
                reduce.run_in_place(rank, lane.stream(), only(outputs)?)?;
            }
            (_, None) => anyhow::bail!("a layer without an input"),
        }
        Ok(())
    }
}

fn only<'a>(outputs: Vec<Output<'a>>) -> Result<Output<'a>> {
    ensure!(
        outputs.len() == 1,
        "{} outputs instead of one",
        outputs.len()
    );
    let mut outputs = outputs.into_iter();
    outputs.next().ok_or_else(|| anyhow::anyhow!("no output"))
}
