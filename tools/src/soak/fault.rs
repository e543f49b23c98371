//! What a run does wrong on purpose, so that tests can see it noticed.

use super::operation::Found;

/// In the first batch of which round.
#[derive(Clone, Copy, Default, Debug, clap::Args)]
pub struct Fault {
    /// Flip a bit of what rank 0 has computed in this round
    #[arg(long, hide = true, value_name = "ROUND")]
    corrupt: Option<u64>,
    /// Let rank 0 hang in this round
    #[arg(long, hide = true, value_name = "ROUND")]
    stall: Option<u64>,
}

impl Fault {
    /// Flips the lowest bit of the first element, if its time has come.
    pub fn corrupt(&self, (round, batch): (u64, usize), rank: usize, found: &mut Found) {
        if self.corrupt == Some(round) && batch == 0 && rank == 0 {
            if let (Some(first), Some(_)) = (found.found.values.first_mut(), &found.expected) {
                *first = f32::from_bits(first.to_bits() ^ 1);
            }
        }
    }

    /// Never returns, if its time has come.
    pub fn stall(&self, (round, batch): (u64, usize), rank: usize) {
        while self.stall == Some(round) && batch == 0 && rank == 0 {
            std::thread::park();
        }
    }

    /// As arguments of another run of this program.
    pub fn arguments(&self) -> Vec<String> {
        let argument = |name: &str, round: Option<u64>| round.map(|r| format!("--{name}={r}"));
        let all = [
            argument("corrupt", self.corrupt),
            argument("stall", self.stall),
        ];
        all.into_iter().flatten().collect()
    }
}
