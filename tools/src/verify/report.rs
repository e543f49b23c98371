//! What `verify` prints: one line per linear, the failures, and the sum.

use super::checks::Verdict;
use super::Case;
use crate::device::Place;
use crate::failure::Outcome;
use crate::output;
use anyhow::Result;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Report {
    device: String,
    why: String,
    world: usize,
    linears: Vec<Line>,
    passed: usize,
    failed: usize,
}

#[derive(Serialize)]
struct Line {
    path: String,
    linear: String,
    k: usize,
    n: usize,
    bits: f64,
    codebook: &'static str,
    rows: usize,
    #[serde(flatten)]
    verdict: Verdict,
    passed: bool,
    failures: Vec<String>,
}

impl Report {
    pub(super) fn new(place: &Place, world: usize) -> Self {
        Report {
            device: place.describe(world),
            why: place.why.clone(),
            world,
            linears: Vec::new(),
            passed: 0,
            failed: 0,
        }
    }

    pub(super) fn add(&mut self, case: &Case<'_>, rows: usize, verdict: Verdict) {
        let failures = verdict.failures();
        if failures.is_empty() {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
        self.linears.push(Line {
            path: case.path.display().to_string(),
            linear: case.info.name.clone(),
            k: case.info.k,
            n: case.info.n,
            bits: case.info.bits.half_bits() as f64 / 2.0,
            codebook: case.info.codebook.name(),
            rows,
            verdict,
            passed: failures.is_empty(),
            failures,
        });
    }

    pub(super) fn print(&self, json: bool) -> Result<Outcome> {
        if json {
            output::print_json(self)?;
        } else {
            output::print(&self.text())?;
        }
        Ok(if self.failed == 0 {
            Outcome::Good
        } else {
            Outcome::Mismatch
        })
    }

    fn text(&self) -> String {
        let header = [
            "linear", "K", "N", "bits", "codebook", "decode", "row err", "col err", "status",
        ];
        let mut table = output::table(&header, 1..4);
        let several = self
            .linears
            .iter()
            .any(|line| line.path != self.linears[0].path);
        for line in &self.linears {
            table.add_row(line.cells(several));
        }
        let mut lines = vec![
            format!(
                "{} ranks on {}, because {}",
                self.world, self.device, self.why
            ),
            output::render(&table),
        ];
        for line in self.linears.iter().filter(|line| !line.passed) {
            lines.push(format!(
                "{}: {}",
                line.title(several),
                line.failures.join("; ")
            ));
        }
        let (total, passed, failed) = (self.linears.len(), self.passed, self.failed);
        lines.push(format!("{total} linears: {passed} passed, {failed} failed"));
        lines.join("\n")
    }
}

impl Line {
    fn title(&self, with_path: bool) -> String {
        if with_path {
            format!("{}: {}", self.path, self.linear)
        } else {
            self.linear.clone()
        }
    }

    fn cells(&self, with_path: bool) -> [String; 9] {
        let Verdict { decode, outputs } = &self.verdict;
        let worst = |error: f64, from_file: Option<f64>| {
            format!("{:.1e}", error.max(from_file.unwrap_or(0.0)))
        };
        let differ = decode.decode_mismatches + decode.inner_mismatches.unwrap_or(0);
        [
            self.title(with_path),
            self.k.to_string(),
            self.n.to_string(),
            self.bits.to_string(),
            self.codebook.to_owned(),
            if differ == 0 {
                "exact".into()
            } else {
                format!("{differ} differ")
            },
            worst(outputs.row_error, outputs.row_error_from_file),
            worst(outputs.column_error, outputs.column_error_from_file),
            if self.passed { "ok" } else { "FAILED" }.to_owned(),
        ]
    }
}
