//! Runs trellink's kernels on the CPU: the sources of `csrc/kernels`, compiled against a shim that
//! executes them CUDA thread by CUDA thread, warp operation by warp operation.
//!
//! For tests on machines without a GPU. It checks what the kernels compute and how they
//! synchronise; it says nothing of speed, of a GPU's memory model, or of the driver's side. Slow:
//! keep shapes small.

mod all_reduce;
#[allow(missing_docs, dead_code, clippy::all)]
#[rustfmt::skip]
#[path = "../../../src/ffi/bindings.rs"]
mod bindings;
mod buffer;
mod fault;
mod group;
mod layer;
mod link;

pub use all_reduce::Reduction;
pub use buffer::Buffer;
pub use fault::Fault;
pub use group::{Channel, SimGroup, SimRank};
pub use layer::{decode, most_tokens, Call, Epilogues, SimLinear, SimNorm, SimOutput};
pub use link::{probe_link, torn_loads, Lie, LinkFault};
