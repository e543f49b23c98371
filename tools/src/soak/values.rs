//! The numbers that go into an operation, and those that must come out of it.
//!
//! What must stay true: nothing here runs on a device, and every rank can make what any rank has.

use super::task::{Body, Layer, Norm, Task};
use crate::random::{seeded, RandomLinear};
use crate::tensor::Numbers;
use anyhow::Result;
use rand::Rng;
use std::ops::Range;
use trellink::format::DType;
use trellink::reference::{self, ReferenceLinear};
use trellink::weights::Linear;
use trellink::Epilogue;

/// Streams of a task's seed: weights of layer i, inputs of rank r, residuals of output i.
const WEIGHTS: u64 = 0x100;
const INPUTS: u64 = 0x200;
const RESIDUALS: u64 = 0x300;
/// Of its norm's weight; 0x400 is in `task`.
const NORM_WEIGHT: u64 = 0x500;

/// Of all norms.
pub const EPSILON: f32 = 1e-5;

/// Products for which a result is worth comparing with the reference, which is slow.
const SMALL: usize = 1 << 23;

/// The weights of layer `at` of a task.
pub fn weights(task: &Task, at: usize, layer: &Layer) -> RandomLinear {
    let mut random = seeded(task.seed, WEIGHTS + at as u64);
    let format = (layer.bits, layer.codebook);
    RandomLinear::from(&mut random, (layer.k, layer.n), format, layer.bias)
}

/// What `rank` puts in.
pub fn input(task: &Task, rank: usize) -> Numbers {
    let (rank, len) = match &task.body {
        Body::Row { rows, k, .. } => (rank, rows * k[rank]),
        // All ranks have the whole input.
        Body::Column { rows, layers, .. } => (0, rows * layers[0].k),
        Body::Reduce { len, .. } => (rank, *len),
    };
    let mut random = seeded(task.seed, INPUTS + rank as u64);
    let spreads = matches!(task.body, Body::Reduce { .. });
    let number = |_| {
        let value = random.random_range(-1.0f32..1.0);
        // Magnitudes so different that the order of additions shows.
        match spreads {
            true => value * 2f32.powi(random.random_range(-6..6)),
            false => value,
        }
    };
    Numbers::round(task.input, (0..len).map(number).collect::<Vec<_>>())
}

/// What output `at` of `rank` holds before the first call of a batch.
pub fn before(task: &Task, at: usize, rank: usize) -> Numbers {
    if is_in_place(task) {
        return input(task, rank);
    }
    let len = output_len(task, at, rank);
    if task.epilogue == Epilogue::Store {
        return Numbers::poison(task.output, len);
    }
    let mut random = seeded(task.seed, RESIDUALS + at as u64);
    let numbers = (0..len).map(|_| random.random_range(-1.0f32..1.0));
    Numbers::round(task.output, numbers.collect::<Vec<_>>())
}

/// Elements of output `at` of `rank`.
pub fn output_len(task: &Task, at: usize, rank: usize) -> usize {
    match &task.body {
        Body::Row { rows, layer, .. } => rows * layer.n,
        Body::Column { rows, n, .. } => rows * n[at][rank],
        Body::Reduce { len, .. } => *len,
    }
}

/// The sums over `world` ranks of an all-reduce, before its epilogue.
pub fn sums(task: &Task, world: usize) -> Vec<f32> {
    let ranks: Vec<Numbers> = (0..world).map(|rank| input(task, rank)).collect();
    let ranks: Vec<&[f32]> = ranks.iter().map(|rank| &rank.values[..]).collect();
    reference::reduce(&ranks)
}

/// What an output holds after `calls` calls, of which each computes `y` in f32.
pub fn after(task: &Task, before: Numbers, y: &[f32], calls: usize, world: usize) -> Numbers {
    let mut numbers = before;
    for call in 0..calls {
        let values = std::mem::take(&mut numbers.values);
        let values: Vec<f32> = match task.epilogue {
            Epilogue::Add => values.iter().zip(y).map(|(held, y)| y + held).collect(),
            // What all ranks hold is added up again.
            Epilogue::Store if is_in_place(task) && call > 0 => {
                reference::reduce(&vec![&values[..]; world])
            }
            Epilogue::Store => y.to_vec(),
        };
        numbers = Numbers::round(task.output, values);
    }
    numbers
}

/// The weight of a task's norm.
pub fn norm_weight(task: &Task, norm: Norm) -> Numbers {
    let mut random = seeded(task.seed, NORM_WEIGHT);
    let columns = match &task.body {
        Body::Row { layer, .. } => layer.n,
        _ => 0,
    };
    let numbers = (0..columns).map(|_| random.random_range(-2.0f32..2.0));
    Numbers::round(norm.weight, numbers.collect::<Vec<_>>())
}

/// What its norm must come to, but for rounding, of rows that its calls have left.
pub fn normalised(task: &Task, norm: Norm, h: &Numbers) -> Vec<f64> {
    let weight = widen(&norm_weight(task, norm).values);
    reference::rms_norm(&widen(&h.values), &weight, EPSILON.into())
}

fn is_in_place(task: &Task) -> bool {
    matches!(task.body, Body::Reduce { in_place: true, .. })
}

/// How far the result `y` of layer `at` on `rank` is from the reference in f64; nothing where that would
/// take too long, or there is no result.
pub fn error(task: &Task, at: usize, rank: usize, world: usize, y: &[f32]) -> Result<Option<f64>> {
    let (rows, layer, columns) = match &task.body {
        Body::Row { rows, layer, .. } => (*rows, layer, 0..layer.n),
        Body::Column {
            rows, layers, n, ..
        } => (*rows, &layers[at], range(&n[at], rank)),
        Body::Reduce { .. } => return Ok(None),
    };
    let products = rows * layer.k * columns.len();
    if products == 0 || products > SMALL {
        return Ok(None);
    }
    let weights = weights(task, at, layer);
    let linear: Linear<'_> = weights.view()?;
    let x = whole_input(task, rows, layer.k, world);
    let expected = ReferenceLinear::new(&linear.columns(columns)?).forward(&x, rows);
    let y = y.iter().map(|&value| value.into());
    Ok(Some(reference::relative_error(y, &expected)))
}

/// The input [rows, K] of the whole layer.
fn whole_input(task: &Task, rows: usize, k: usize, world: usize) -> Vec<f64> {
    let Body::Row { k: shares, .. } = &task.body else {
        return widen(&input(task, 0).values);
    };
    let mut x = vec![0.0; rows * k];
    for rank in 0..world {
        let part = widen(&input(task, rank).values);
        let channels = range(shares, rank);
        let of_rank = part.chunks_exact(channels.len().max(1));
        for (row, part) in x.chunks_exact_mut(k).zip(of_rank) {
            row[channels.clone()].copy_from_slice(part);
        }
    }
    x
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// The channels of `rank`.
fn range(shares: &[usize], rank: usize) -> Range<usize> {
    let first = shares[..rank].iter().sum();
    first..first + shares[rank]
}

/// What a first call is stored as: its bits before the rounding of an output.
pub const FIRST: DType = DType::F32;

#[cfg(test)]
mod tests {
    use super::*;
    use trellink::ReduceForm;

    fn reduce(in_place: bool, epilogue: Epilogue) -> Task {
        Task {
            seed: 5,
            body: Body::Reduce {
                len: 16,
                form: ReduceForm::Automatic,
                in_place,
            },
            input: DType::F16,
            output: DType::F16,
            epilogue,
        }
    }

    #[test]
    fn calls_in_place_add_up_what_the_call_before_left() {
        let task = reduce(true, Epilogue::Store);
        let y = sums(&task, 3);
        let once = after(&task, before(&task, 0, 1), &y, 1, 3);
        let twice = after(&task, before(&task, 0, 1), &y, 2, 3);
        assert_eq!(before(&task, 0, 1), input(&task, 1));
        assert_eq!(once, Numbers::round(DType::F16, y));
        let tripled = once.values.iter().map(|value| 3.0 * value);
        assert_eq!(twice, Numbers::round(DType::F16, tripled));
    }

    #[test]
    fn calls_that_add_round_each_time() {
        let task = reduce(false, Epilogue::Add);
        let held = Numbers::round(DType::F16, [1024.0]);
        // Half a unit in the last place, rounded to even: nothing is ever added.
        assert_eq!(after(&task, held.clone(), &[0.5], 9, 2), held);
        assert_eq!(after(&task, held, &[0.75], 2, 2).values, [1026.0]);
    }
}
