//! What a rank has besides its layers, for the variants that the fused call is compared with.
//!
//! One for each rank, made once for a run: `cuda` where there can be any such variant, else `none`.
//! Another all-reduce to compare with would be one more part of the kit, beside NCCL's communicator and
//! the rank for the crate's own.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(not(feature = "cuda"))]
mod none;

#[cfg(feature = "cuda")]
pub use cuda::Kit;
#[cfg(not(feature = "cuda"))]
pub use none::Kit;
