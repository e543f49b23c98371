//! What `soak` prints.

use super::link::Counts;
use super::supervisor::Found;
use crate::device::Place;
use crate::failure::Outcome;
use crate::output;
use anyhow::Result;
use serde::Serialize;
use std::time::Duration;

/// What was run, and what was found.
#[derive(Serialize)]
pub struct Report {
    device: String,
    why: String,
    world: usize,
    processes: bool,
    seed: u64,
    seconds: f64,
    calls: u64,
    #[serde(flatten)]
    counts: Counts,
    mismatches: Vec<String>,
    errors: Vec<String>,
    /// By rank, what it was at when nothing went on any more.
    hang: Vec<String>,
    passed: bool,
}

impl Report {
    /// Of a run that is about to begin.
    pub fn new(place: &Place, world: usize, seed: u64, processes: bool) -> Self {
        Report {
            device: place.describe(world),
            why: place.why.clone(),
            world,
            processes,
            seed,
            seconds: 0.0,
            calls: 0,
            counts: Counts::default(),
            mismatches: Vec::new(),
            errors: Vec::new(),
            hang: Vec::new(),
            passed: false,
        }
    }

    /// What it has found.
    pub fn add(&mut self, found: Found, time: Duration) {
        let Found {
            counts,
            mismatches,
            errors,
            hang,
        } = found;
        let is_clean = mismatches.is_empty() && errors.is_empty() && hang.is_empty();
        self.passed = is_clean && counts.provoked == counts.seen;
        (self.counts, self.calls) = (counts, counts.calls());
        (self.mismatches, self.errors, self.hang) = (mismatches, errors, hang);
        self.seconds = time.as_secs_f64();
    }

    /// What is known before.
    pub fn header(&self) -> String {
        let kind = if self.processes {
            "processes"
        } else {
            "threads"
        };
        let Report {
            world,
            device,
            why,
            seed,
            ..
        } = self;
        format!("{world} ranks, {kind}, on {device}, because {why}; seed {seed}")
    }

    /// Prints, the header excepted.
    pub fn print(&self, json: bool) -> Result<Outcome> {
        match json {
            true => output::print_json(self)?,
            false => output::print(&self.text())?,
        }
        Ok(match self.passed {
            true => Outcome::Good,
            false => Outcome::Mismatch,
        })
    }

    fn text(&self) -> String {
        let Counts {
            groups,
            batches,
            row_parallel,
            column_parallel,
            all_reduce,
            rms_norm,
            replayed,
            exchanges,
            provoked,
            seen,
            elements,
            references,
        } = self.counts;
        let mut lines = vec![
            format!(
                "{} calls in {:.1} s: {row_parallel} row-parallel, {rms_norm} of them with an RMSNorm, \
                 {column_parallel} column-parallel, {all_reduce} all-reduce; {replayed} of all replayed; {exchanges} exchanges",
                self.calls, self.seconds
            ),
            format!("{groups} groups, {batches} batches; {provoked} failures provoked, {seen} seen as expected"),
            format!(
                "{elements} elements compared bit for bit, {references} results with the reference: {} mismatches",
                self.mismatches.len()
            ),
        ];
        let told = |title: &str, all: &[String]| -> Vec<String> {
            all.iter().map(|text| format!("{title}: {text}")).collect()
        };
        lines.extend(told("mismatch", &self.mismatches));
        lines.extend(told("error", &self.errors));
        lines.extend(told("no progress", &self.hang));
        lines.push(match self.passed {
            true => "passed".into(),
            false => format!(
                "FAILED; --seed {} repeats it, --from-round a round of it",
                self.seed
            ),
        });
        lines.join("\n")
    }
}
