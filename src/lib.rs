//! EXL3 linear layers for tensor parallelism: decode, GEMM, all-reduce and epilogue in one kernel.

mod call;
pub mod checkpoint;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
#[cfg(feature = "cuda")]
mod ffi;
pub mod format;
mod group;
pub mod host;
mod linear;
#[doc(hidden)]
pub mod plan;
pub mod protocol;
mod rank;
pub mod reference;
mod split;
pub mod weights;

pub use call::{Epilogue, Input, Output, Stream};
pub use checkpoint::Checkpoint;
pub use error::{Error, Result};
pub use group::{Device, Group, MAX_WORLD};
pub use linear::{Arithmetic, ColumnParallel, LoadOptions, RowParallel};
pub use rank::Rank;
pub use split::Split;
