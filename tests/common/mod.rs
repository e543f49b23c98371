//! What the integration tests share: random layers, ranks on threads, memory of either back end.
//!
//! A claim about both back ends is a function of a [`Platform`] and is declared with [`on_both!`],
//! which makes two tests of it: `…::on_the_host` and, with the `cuda` feature, `…::on_cuda`. The
//! second is skipped, and says so, where there is no GPU, unless the environment requires one.
//!
//! | variable | meaning |
//! |---|---|
//! | `TRELLINK_TEST_DATA` | the folder of the test data, `tests/data` if not set |
//! | `TRELLINK_REQUIRE_CUDA` | if set, tests on GPUs fail where there is none, instead of being skipped |
//! | `TRELLINK_TEST_SEED` | seed of all random numbers, to repeat a failure |
//! | `TRELLINK_REPEAT` | how often failures are provoked, see [`repeats`] |
//! | `TRELLINK_MATRIX` | `full`, `pairwise` or `reduced`: see [`Extent`] |
//! | `TRELLINK_PATH` | `auto`, `direct` or `host-memory`: which way packets take between GPUs |

#![allow(dead_code, unused_imports, unused_macros)] // Every test program uses a part of it.

mod accuracy;
mod gate;
mod linear;
mod memory;
mod platform;
mod random;
mod ranks;
mod refusal;
mod silence;
mod values;
mod watchdog;

pub use accuracy::{check_accuracy, TOLERANCE};
pub use gate::{BreakOnPanic, Gate};
pub use linear::{combine, formats, golden, shard_columns, RandomLinear, Shards};
pub use memory::{Buffer, Memory};
pub use platform::{Extent, Platform};
pub use random::{activations, Seed};
pub use ranks::{on_ranks, Worker};
pub use refusal::refused;
pub use silence::Silence;
pub use values::Values;
pub use watchdog::Watchdog;

/// The folder of the test data: of the sources, or where these are not what the machine has.
pub fn data() -> std::path::PathBuf {
    std::env::var_os("TRELLINK_TEST_DATA").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data"),
        Into::into,
    )
}

/// How often tests of failures provoke them: what `TRELLINK_REPEAT` says, else 3 times.
pub fn repeats() -> usize {
    std::env::var("TRELLINK_REPEAT").map_or(3, |times| times.parse().expect("a number"))
}

/// Writes a line to stderr past the capture of the test harness: what was skipped and on which
/// device something ran should show in the log of a run that succeeds.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        // In one write, so that lines of tests that run at the same time stay whole.
        let line = format!($($text)*) + "\n";
        let _ = std::io::stderr().write_all(line.as_bytes());
    }};
}
pub(crate) use say;

/// Declares a claim about both back ends.
macro_rules! on_both {
    ($($(#[doc = $doc:literal])* fn $name:ident($platform:ident: &Platform) $body:block)*) => {$(
        $(#[doc = $doc])*
        mod $name {
            use super::*;

            fn claim($platform: &Platform) $body

            #[test]
            fn on_the_host() {
                claim(&Platform::host());
            }

            #[cfg(feature = "cuda")]
            #[test]
            fn on_cuda() {
                if let Some(platform) = Platform::cuda(concat!(stringify!($name), "::on_cuda")) {
                    claim(&platform);
                }
            }
        }
    )*};
}
pub(crate) use on_both;
