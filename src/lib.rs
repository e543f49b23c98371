//! EXL3 linear layers for tensor parallelism: decode, GEMM, all-reduce and epilogue in one kernel.

#![warn(missing_docs)]

pub mod checkpoint;
mod error;
pub mod format;
pub mod protocol;
pub mod reference;
mod split;
pub mod weights;

pub use checkpoint::Checkpoint;
pub use error::{Error, Result};
pub use split::Split;
