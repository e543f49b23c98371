//! EXL3 linear layers for tensor parallelism: decode, GEMM, all-reduce and epilogue in one kernel.

#![warn(missing_docs)]

// The layers that use all of it are not part of the crate yet.
#[allow(dead_code)]
mod call;
mod error;
pub mod format;
mod group;
#[allow(dead_code)]
pub mod host;
pub mod protocol;
mod rank;
pub mod reference;
mod split;
pub mod weights;

pub use call::{Epilogue, Input, Output, Stream};
pub use error::{Error, Result};
pub use group::{Device, Group, MAX_WORLD};
pub use rank::Rank;
pub use split::Split;
