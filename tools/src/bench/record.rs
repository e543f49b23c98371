//! One measurement, as it is stored: an array of these is what `--json` prints and `--from-json` reads.
//!
//! Only what identifies a measurement is demanded of a stored one, so that figures of other programs
//! can be put beside these.

use super::time::Times;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One measurement.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// A preset's name or the whole K and N.
    pub shape: String,
    /// Input channels of the whole layer.
    pub k: usize,
    /// Input channels of the first rank, in every variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k_per_rank: Option<usize>,
    /// Output channels.
    pub n: usize,
    /// Bits per weight.
    pub bits: f64,
    /// By name.
    pub codebook: String,
    /// Rows of the input.
    pub m: usize,
    /// Ranks that hold the layer, in every variant.
    pub world: usize,
    /// By name; of variants that this program does not know, too.
    pub variant: String,
    /// µs per call.
    #[serde(flatten)]
    pub times: Times,
    /// Of an output; null where there is none.
    #[serde(default)]
    pub rel_err: Option<f64>,
    /// Element type of the residual, or of the output that is exchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Distinct weight tensors, hence calls, in one replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<usize>,
    /// Packed weights that one call reads on the first rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_rank: Option<usize>,
    /// NCCL's version, where it took part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nccl: Option<String>,
    /// Where it is not said: threads of one process.
    #[serde(default)]
    pub ranks: Ranks,
    /// The devices of the ranks.
    pub device: String,
    /// What was measured.
    pub commit: String,
}

/// How the ranks ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ranks {
    /// As threads of one process.
    #[default]
    Threads,
    /// Each in a process of its own.
    Processes,
}

impl Ranks {
    /// Of a run with these arguments.
    pub fn of(args: &super::Args) -> Self {
        match args.processes {
            true => Ranks::Processes,
            false => Ranks::Threads,
        }
    }

    /// So many of them.
    pub fn describe(self, world: usize) -> String {
        match self {
            Ranks::Threads => format!("{world} ranks"),
            Ranks::Processes => format!("{world} ranks in processes"),
        }
    }
}

impl Record {
    /// Whether `other` measures the same task at the same place.
    pub fn is_comparable(&self, other: &Record) -> bool {
        let task = |r: &Record| (r.shape.clone(), r.k, r.n, r.codebook.clone(), r.m, r.world);
        let place = |r: &Record| (r.ranks, r.device.clone());
        task(self) == task(other) && self.bits == other.bits && place(self) == place(other)
    }

    /// This time as a multiple of that of `variant` for the same task, preferably of the same commit.
    pub fn ratio_to(&self, variant: &str, all: &[Record]) -> Option<f64> {
        let of_task = |r: &&Record| r.variant == variant && self.is_comparable(r);
        let mut candidates = all.iter().filter(of_task);
        let same = candidates.clone().find(|r| r.commit == self.commit);
        let base = same.or_else(|| candidates.next_back())?;
        Some(self.times.median / base.times.median)
    }
}

/// Reads an array of measurements.
pub fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    use anyhow::Context as _;
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(name)?;
    serde_json::from_str(&text).with_context(name)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A measurement of 70b-o by two ranks.
    pub fn record(variant: &str, bits: f64, m: usize, us: f64) -> Record {
        Record {
            shape: "70b-o".into(),
            k: 8192,
            k_per_rank: Some(4096),
            n: 8192,
            bits,
            codebook: "mul1".into(),
            m,
            world: 2,
            variant: variant.into(),
            times: Times {
                median: us,
                min: us - 1.0,
                max: us + 1.0,
            },
            rel_err: (variant != "floor").then_some(1e-4),
            dtype: Some("bf16".into()),
            layers: Some(24),
            bytes_per_rank: Some(16_777_216),
            nccl: variant.contains("nccl").then(|| "2.28.9".into()),
            ranks: Ranks::Threads,
            device: "two of them".into(),
            commit: "abc".into(),
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let records = vec![record("fused", 4.0, 1, 12.5), record("floor", 1.5, 2, 6.25)];
        let text = serde_json::to_string(&records).unwrap();
        assert!(text.contains("\"us_median\":12.5"), "{text}");
        assert!(text.contains("\"rel_err\":null"), "{text}");
        assert_eq!(serde_json::from_str::<Vec<Record>>(&text).unwrap(), records);
    }

    #[test]
    fn ratios_are_to_the_same_task_and_rather_of_the_same_commit() {
        let mut all = vec![
            record("fused", 4.0, 1, 10.0),
            record("fused", 4.0, 2, 20.0),
            record("gemm+nccl", 4.0, 1, 25.0),
            record("elsewhere", 4.0, 1, 30.0),
        ];
        all.push(Record {
            commit: "def".into(),
            ..record("fused", 4.0, 1, 5.0)
        });
        all[3].commit = "1.6.5".into();
        assert_eq!(all[2].ratio_to("fused", &all), Some(2.5));
        assert_eq!(all[4].ratio_to("fused", &all), Some(1.0));
        assert_eq!(all[3].ratio_to("fused", &all), Some(6.0), "the latest");
        assert_eq!(all[2].ratio_to("floor", &all), None);
        all[2].ranks = Ranks::Processes;
        assert_eq!(all[2].ratio_to("fused", &all), None);
        (all[2].ranks, all[2].device) = (Ranks::Threads, "others".into());
        assert_eq!(all[2].ratio_to("fused", &all), None);
    }
}
