//! `bench --all-reduce-bytes`: all-reduces of messages of several lengths, and nothing else.
//!
//! Each form of the crate's own, where there are several, and NCCL's: what the border between the forms
//! (`TWO_SHOT_BYTES` in src/plan/reduce.rs) can be set by. The same message is summed again and again, so it
//! stays in the cache where it fits, for all alike.

use super::kit::Kit;
use super::load::join;
use super::measure::{collect, commit, heading, place, world, Part, Timed};
use super::record::Ranks;
use super::time::{self, Repeat, Times};
use super::Args;
use crate::device::Place;
use crate::nccl::Nccl;
use crate::output;
use crate::ranks::{Crew, Worker};
use crate::tensor::{Element, Tensor};
use anyhow::{bail, Result};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use trellink::format::DType;
use trellink::{AllReduce, Epilogue, Group, ReduceForm};

/// One measurement; an array of these is what `--json` prints.
#[derive(Serialize, Deserialize)]
pub struct Row {
    /// Bytes of the message on each rank.
    bytes: usize,
    /// Its element type.
    dtype: String,
    world: usize,
    variant: String,
    #[serde(flatten)]
    times: Times,
    /// Calls in a replay.
    calls: usize,
    nccl: Option<String>,
    ranks: Ranks,
    device: String,
    commit: String,
}

impl Timed for Row {
    fn set_times(&mut self, times: Times) {
        self.times = times;
    }
}

/// What sums.
#[derive(Clone, Copy)]
enum Sum {
    Own(ReduceForm),
    Nccl,
}

impl Sum {
    fn name(self) -> &'static str {
        match self {
            Sum::Own(ReduceForm::Automatic) => "allreduce",
            Sum::Own(ReduceForm::OneShot) => "one-shot",
            Sum::Own(ReduceForm::TwoShot) => "two-shot",
            Sum::Nccl => "nccl",
        }
    }
}

/// What is measured: the same for all ranks.
pub struct Sweep<'a> {
    args: &'a Args,
    place: Place,
    /// Ranks.
    pub world: usize,
    sums: Vec<Sum>,
    nccl: Option<Arc<Nccl>>,
    left_out: Option<String>,
}

impl<'a> Sweep<'a> {
    /// Of what was asked for.
    pub fn new(args: &'a Args) -> Result<Self> {
        let place = place(args)?;
        let world = world(args, &place);
        if world == 1 {
            bail!("a single rank has nothing to exchange; use --world 2 or more");
        }
        let nccl = match () {
            () if place.is_host() => Err("the ranks are on the host".into()),
            () if args.processes => Err("it is compared with by ranks in one process only".into()),
            () if place.devices.len() < world => Err("it wants a device for each rank".into()),
            () => Nccl::find(),
        };
        // The host has one form.
        let mut sums = match place.is_host() {
            true => vec![Sum::Own(ReduceForm::Automatic)],
            false => vec![ReduceForm::OneShot, ReduceForm::TwoShot]
                .into_iter()
                .map(Sum::Own)
                .collect(),
        };
        sums.extend(nccl.is_ok().then_some(Sum::Nccl));
        Ok(Sweep {
            args,
            left_out: nccl.as_ref().err().map(|reason| format!("nccl: {reason}")),
            nccl: nccl.ok(),
            place,
            world,
            sums,
        })
    }

    /// Measures with all ranks, or with that of this process.
    pub fn run(
        &self,
        rank: Option<usize>,
        add: &mut dyn FnMut(Part<Row>) -> Result<()>,
    ) -> Result<()> {
        let kits = match rank {
            None => Kit::all(&self.place, self.world, false, self.nccl.as_ref())?,
            Some(rank) => Kit::all(&self.place.of_rank(rank), 1, false, None)?,
        };
        let mut crew = join(rank, Group::new(self.place.of_ranks(self.world)))?;
        for &bytes in &self.args.all_reduce_bytes {
            for &sum in &self.sums {
                add(match self.args.residual {
                    DType::F16 => self.measure::<f16>(&mut crew, &kits, bytes, sum)?,
                    _ => self.measure::<bf16>(&mut crew, &kits, bytes, sum)?,
                })?;
            }
        }
        Ok(())
    }

    fn measure<R: Element>(
        &self,
        crew: &mut Crew,
        kits: &[Kit],
        bytes: usize,
        sum: Sum,
    ) -> Result<Part<Row>> {
        let dtype = self.args.residual;
        let (len, replays) = (bytes / dtype.size(), self.args.replays as usize);
        // Enough for a replay to take longer than its start, not too many of the long ones.
        let most = if self.place.is_host() { 8 } else { 200 };
        let calls = ((64 << 20) / bytes).clamp(4, most);
        let mut walks = crew.each(|at, worker| {
            let mut random = crate::random::generator(4 + worker.rank.rank() as u64);
            let values = crate::random::activations(&mut random, len).into_iter();
            let values: Vec<R> = values.map(|value| R::round(value.to_f32())).collect();
            Ok(Calls {
                sum,
                kit: &kits[at],
                message: Tensor::for_peers(&worker.lane, values.clone())?,
                out: Tensor::for_peers(&worker.lane, values)?,
                calls,
            })
        })?;
        let seconds = crew.together(&mut walks, |_, worker, walk, gate| {
            time::time(walk, worker, replays, gate)
        })?;
        // Memory is freed on all ranks before the next is allocated on any.
        crew.each_with(
            &mut walks.into_iter().map(Some).collect::<Vec<_>>(),
            |_, _, walk| {
                drop(walk.take());
                Ok(())
            },
        )?;
        let nccl = self.nccl.as_ref().filter(|_| matches!(sum, Sum::Nccl));
        let record = Row {
            bytes,
            dtype: dtype.to_string(),
            world: self.world,
            variant: sum.name().into(),
            times: Times::default(),
            calls,
            nccl: nccl.map(|nccl| nccl.version().into()),
            ranks: Ranks::of(self.args),
            device: self.place.describe(self.world),
            commit: commit(),
        };
        Ok(Part {
            record,
            seconds,
            calls,
        })
    }
}

/// One rank's calls, all on the same memory.
struct Calls<'a, R> {
    sum: Sum,
    kit: &'a Kit,
    message: Tensor<R>,
    out: Tensor<R>,
    calls: usize,
}

impl<R: Element> Repeat for Calls<'_, R> {
    fn once(&mut self, worker: &mut Worker) -> Result<()> {
        let Worker { rank, lane } = worker;
        match self.sum {
            Sum::Nccl => self
                .kit
                .nccl_sum(lane, Some(&mut self.message), &mut self.out),
            Sum::Own(form) => {
                let (input, output) = (
                    self.message.input(lane),
                    self.out.output(lane, Epilogue::Store),
                );
                Ok(AllReduce::new()
                    .form(form)
                    .run(rank, lane.stream(), input, output)?)
            }
        }
    }

    fn run(&mut self, worker: &mut Worker) -> Result<()> {
        (0..self.calls).try_for_each(|_| self.once(worker))
    }
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let sweep = Sweep::new(args)?;
    let (place, count) = (&sweep.place, sweep.sums.len() * args.all_reduce_bytes.len());
    let rows = collect(
        args,
        place,
        sweep.world,
        count,
        |_: &Row| String::new(),
        |add| sweep.run(None, add),
    )?;
    let left_out = sweep
        .left_out
        .iter()
        .map(|line| format!("left out: {line}"));
    let left_out: Vec<String> = left_out.collect();
    if args.json {
        left_out.iter().for_each(|line| eprintln!("{line}"));
        return output::print_json(&rows);
    }
    let mut lines = vec![heading(args, place, sweep.world)];
    lines.push(format!(
        "us per all-reduce of {} on every rank",
        args.residual
    ));
    lines.extend(left_out);
    let mut table = output::table(
        &["bytes", "variant", "us median", "min", "max"],
        [0, 2, 3, 4],
    );
    for row in &rows {
        let Times { median, min, max } = row.times;
        let us = |us: f64| format!("{us:.2}");
        let bytes = row.bytes.to_string();
        table.add_row([bytes, row.variant.clone(), us(median), us(min), us(max)]);
    }
    lines.push(output::render(&table));
    output::print(&lines.join("\n"))
}

/// Bytes, in which `k` and `m` stand for powers of 1024.
pub fn bytes(text: &str) -> Result<usize, String> {
    const LARGEST: usize = 1 << 30;
    let text = text.to_ascii_lowercase();
    let (digits, unit) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1 << 10),
        None => text
            .strip_suffix('m')
            .map_or((&*text, 1), |digits| (digits, 1 << 20)),
    };
    let number = digits.parse().ok();
    let bytes = number.and_then(|number: usize| number.checked_mul(unit));
    bytes
        .filter(|&bytes| bytes > 0 && bytes <= LARGEST && bytes % 16 == 0)
        .ok_or_else(|| format!("expected a multiple of 16 up to {LARGEST}, as in 2k or 16m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_numbers_with_a_unit() {
        assert_eq!(bytes("16"), Ok(16));
        assert_eq!(bytes("2k"), Ok(2048));
        assert_eq!(bytes("16M"), Ok(16 << 20));
        for wrong in [
            "",
            "k",
            "0",
            "17",
            "2g",
            "-16",
            "2048m",
            "99999999999999999999k",
        ] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
