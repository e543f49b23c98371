//! How the program ends: its exit status, and errors as one line on standard error.

use std::io::Write as _;
use std::process::ExitCode;
use trellink::Error;

/// Exit status when a comparison or a device failed.
pub const FAILED: u8 = 1;
/// Exit status on bad input: arguments, paths, files, devices that are not there.
const BAD_INPUT: u8 = 2;

/// What a command that ran to its end found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Everything holds.
    Good,
    /// At least one comparison failed; the output says which.
    Mismatch,
}

/// Prints an error with its causes and gives the exit status it stands for.
pub fn report(error: &anyhow::Error) -> ExitCode {
    print(&chain(error));
    ExitCode::from(status(error))
}

/// An error with its causes, but for those that it already ends with.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Help and version go to standard output, everything else that is wrong with the arguments is an
/// error like any other.
pub fn report_arguments(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nobody is left to be told that the help could not be printed.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        print("no command was given; `trellink --help` lists them");
        return ExitCode::from(BAD_INPUT);
    }
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim);
    let told =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let told: Vec<&str> = told.filter(|line| !line.is_empty()).collect();
    print(told.join(" ").trim_start_matches("error: "));
    ExitCode::from(BAD_INPUT)
}

/// A panic is a bug in this program, but it too is told in one line.
pub fn keep_panics_short() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let place = place.unwrap_or_else(|| "unknown place".into());
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        print(&format!(
            "internal error at {place}: {}",
            text.unwrap_or("no message")
        ));
    }));
}

fn print(message: &str) {
    let line = message.replace('\n', " ");
    // With standard error closed there is only the exit status left.
    let _ = writeln!(std::io::stderr(), "error: {line}");
}

/// Only what happens while devices and ranks work is a failure; all else comes from the input.
fn status(error: &anyhow::Error) -> u8 {
    let at_work = error.chain().any(|cause| {
        matches!(
            cause.downcast_ref::<Error>(),
            Some(
                Error::Cuda { .. }
                    | Error::PeerTimeout { .. }
                    | Error::PeerAhead { .. }
                    | Error::Mismatch { .. }
                    | Error::ResetIncomplete { .. }
                    | Error::PeerLost { .. }
                    | Error::RanksMissing { .. }
                    | Error::Rendezvous { .. }
                    | Error::GroupFailed { .. }
            )
        ) || cause.is::<crate::ranks::Stopped>()
            || cause.is::<crate::nccl::Failed>()
            || cause
                .downcast_ref::<crate::processes::Failed>()
                .is_some_and(|failed| !failed.bad_input)
    });
    if at_work {
        FAILED
    } else {
        BAD_INPUT
    }
}
