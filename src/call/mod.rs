//! What a call is made of: the stream it runs on, its input and its outputs.
//!
//! These types only carry borrowed memory and what is known about it (dtype, length, place). The
//! layers check them against their shapes.

mod input;
mod norm;
mod output;
mod squares;
mod stream;

pub use input::Input;
pub(crate) use input::InputData;
pub(crate) use norm::check_whole_rows;
pub use norm::RmsNorm;
pub(crate) use output::{Columns, OutputData};
pub use output::{Epilogue, Output};
pub(crate) use squares::InputNorm;
pub use stream::Stream;
#[cfg(feature = "cuda")]
pub(crate) use stream::StreamKind;
