//! What `bench` prints: one line per weights, M and variant, measured now or stored earlier.

use super::record::Record;
use super::variant::Variant;
use crate::output;
use anyhow::Result;

/// The columns, the numbers among them to the right.
const HEADER: [&str; 15] = [
    "shape",
    "K/rank",
    "N",
    "bits",
    "codebook",
    "M",
    "layers",
    "bytes/rank",
    "variant",
    "us median",
    "min",
    "max",
    "/fused",
    "/floor",
    "rel err",
];
const NUMBERS: [std::ops::Range<usize>; 3] = [1..4, 5..8, 9..15];

/// All measurements, and what there is to say about them.
#[derive(Default)]
pub struct Report {
    /// The measurements.
    pub records: Vec<Record>,
    /// Why they were made where they were made, if they were made now.
    pub why: Option<String>,
    /// What was asked for and not measured, with the reason.
    pub left_out: Vec<String>,
}

impl Report {
    /// Prints an array of records, or a table.
    pub fn print(&self, json: bool) -> Result<()> {
        if !json {
            return output::print(&self.text());
        }
        // Standard output is for a program to read.
        for line in &self.left_out {
            eprintln!("left out: {line}");
        }
        output::print_json(&self.records)
    }

    fn text(&self) -> String {
        let mut lines = self.places();
        lines.push(
            "us per call; /fused, /floor: as a multiple of that variant's; K/rank: of the first rank"
                .into(),
        );
        lines.extend(self.legend());
        lines.extend(self.left_out.iter().map(|line| format!("left out: {line}")));
        lines.push(self.table());
        lines.join("\n")
    }

    /// Where, and what, each once.
    fn places(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for record in &self.records {
            let ranks = record.ranks.describe(record.world);
            let (device, commit) = (&record.device, &record.commit);
            let why = self.why.iter().map(|why| format!(", because {why}"));
            let why: String = why.collect();
            let line = format!("{ranks} on {device}{why}; commit {commit}");
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }

    /// What the variants are, of those that occur.
    fn legend(&self) -> Vec<String> {
        let occurs = |v: &Variant| self.records.iter().any(|r| r.variant == v.name());
        let known = Variant::ALL.into_iter().filter(occurs);
        let mut lines: Vec<String> = known.map(|v| format!("{v}: {}", v.about())).collect();
        let mut versions: Vec<&str> = self
            .records
            .iter()
            .filter_map(|r| r.nccl.as_deref())
            .collect();
        versions.sort_unstable();
        versions.dedup();
        if !versions.is_empty() {
            lines.push(format!("NCCL {}", versions.join(", ")));
        }
        lines
    }

    fn table(&self) -> String {
        let mut table = output::table(&HEADER, NUMBERS.into_iter().flatten());
        for record in &self.records {
            table.add_row(cells(record, &self.records));
        }
        output::render(&table)
    }
}

fn cells(record: &Record, all: &[Record]) -> [String; HEADER.len()] {
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".into());
    let ratio = |variant: Variant| {
        let ratio = record.ratio_to(variant.name(), all);
        or_dash(ratio.map(|ratio| format!("{ratio:.2}")))
    };
    let number = |number: Option<usize>| or_dash(number.map(|number| number.to_string()));
    [
        record.shape.clone(),
        number(record.k_per_rank),
        record.n.to_string(),
        record.bits.to_string(),
        record.codebook.clone(),
        record.m.to_string(),
        number(record.layers),
        or_dash(record.bytes_per_rank.map(output::bytes)),
        record.variant.clone(),
        format!("{:.2}", record.times.median),
        format!("{:.2}", record.times.min),
        format!("{:.2}", record.times.max),
        ratio(Variant::Fused),
        ratio(Variant::Floor),
        or_dash(record.rel_err.map(|error| format!("{error:.1e}"))),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn a_table_has_ratios_a_legend_and_what_is_missing() {
        let report = Report {
            records: vec![
                record("fused", 4.0, 1, 12.0),
                record("gemm+nccl", 4.0, 1, 30.0),
                record("floor", 4.0, 1, 6.0),
                record("elsewhere", 4.0, 1, 24.0),
            ],
            why: None,
            left_out: vec!["nccl: no reason".into()],
        };
        let text = report.text();
        let row = |variant: &str| -> Vec<&str> {
            let line = text
                .lines()
                .find(|line| line.contains(&format!(" {variant} ")));
            line.unwrap().split_whitespace().rev().collect()
        };
        assert_eq!(row("fused")[..3], ["1.0e-4", "2.00", "1.00"], "{text}");
        assert_eq!(row("gemm+nccl")[..3], ["1.0e-4", "5.00", "2.50"]);
        assert_eq!(row("floor")[..3], ["-", "1.00", "0.50"]);
        assert_eq!(row("elsewhere")[..3], ["1.0e-4", "4.00", "2.00"]);
        assert!(text.starts_with("2 ranks on two of them; commit abc\n"));
        assert!(text.contains("\nfloor: ") && !text.contains("\ngemm: "));
        assert!(text.contains("\nNCCL 2.28.9\n"));
        assert!(text.contains("\nleft out: nccl: no reason\n"));
    }
}
