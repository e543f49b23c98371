//! What a call is made of: the stream it runs on, its input and its outputs.
//!
//! These types only carry borrowed memory and what is known about it (dtype, length, place). The
//! layers check them against their shapes.

mod input;
mod norm;
mod output;
#[cfg(any(test, feature = "cuda"))]
mod place;
mod squares;
mod stream;

pub use input::Input;
pub(crate) use input::InputData;
pub(crate) use norm::check_whole_rows;
pub use norm::RmsNorm;
pub(crate) use output::{Columns, OutputData};
pub use output::{Epilogue, Output};
#[cfg(feature = "cuda")]
pub(crate) use place::{Loan, Place};
pub(crate) use squares::InputNorm;
pub use stream::Stream;
#[cfg(feature = "cuda")]
pub(crate) use stream::StreamKind;

/// The error of a rank on the host for what it would have to read or write on a device.
#[cfg(feature = "cuda")]
fn device_memory(argument: &'static str) -> crate::Error {
    crate::Error::argument(
        argument,
        "device memory",
        "host memory, the group's ranks being on the host",
    )
}
