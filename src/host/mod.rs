//! The host back end: ranks that run on the CPU.
//!
//! It runs the same format and the same exchange as the kernels, so a program can be developed and
//! tested without a GPU. What must stay true: `csrc/host` decodes and multiplies with the lines of
//! `csrc/format`, everything between ranks goes through [`protocol`](crate::protocol), and a
//! row's result depends on neither the other rows nor the number of threads.

mod all_reduce;
mod arena;
mod decode;
mod failure;
mod finish;
mod input;
mod kernels;
mod layer;
mod norm;
#[doc(hidden)]
pub mod probe;
mod rank;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub(crate) use layer::HostLinear;
#[cfg(target_os = "linux")]
pub(crate) use rank::join_group;
pub(crate) use rank::{build_group, HostRank};
