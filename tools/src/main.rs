//! The `trellink` program: verifies, inspects and measures EXL3 linears.
//!
//! Exit status: 0 if all went well, 1 if a comparison or a device failed, 2 on bad input.

mod bench;
mod device;
mod failure;
#[cfg(feature = "cuda")]
mod graph;
mod info;
mod inspect;
mod nccl;
mod output;
mod processes;
mod random;
mod ranks;
mod soak;
mod tensor;
mod verify;

use clap::{Parser, Subcommand};
use failure::Outcome;
use std::process::ExitCode;

/// EXL3-quantised linear layers: check, look at and measure them.
#[derive(Parser)]
#[command(name = "trellink", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare every linear of checkpoints, as the device runs it, with the reference
    Verify(verify::Args),
    /// List the linears of a checkpoint
    Inspect(inspect::Args),
    /// Show how the program was built, which devices there are and which would be used
    Info(info::Args),
    /// Measure µs per call of row-parallel layers with random weights
    Bench(bench::Args),
    /// Measure what a table may choose instead of the plan's model on GPUs, and write the table
    Tune(bench::tune::Args),
    /// Make random calls for a while, provoke failures, and check every result
    Soak(soak::Args),
}

fn main() -> ExitCode {
    failure::keep_panics_short();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::report_arguments(&error),
    };
    let outcome = match &cli.command {
        Command::Verify(args) => verify::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Info(args) => info::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Tune(args) => bench::tune::run(args),
        Command::Soak(args) => soak::run(args),
    };
    match outcome {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Mismatch) => ExitCode::from(failure::FAILED),
        Err(error) => failure::report(&error),
    }
}
