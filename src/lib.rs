//! EXL3 linear layers for tensor parallelism: decode, GEMM, all-reduce and epilogue in one kernel.

#![warn(missing_docs)]

mod error;
pub mod format;
pub mod protocol;

pub use error::{Error, Result};
