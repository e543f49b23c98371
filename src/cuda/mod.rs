//! Execution on CUDA devices, through cudarc's driver API.
//!
//! `driver` and `memory` wrap what the driver gives; `kernels` loads the embedded fatbins;
//! `peer` says which devices reach each other, `link_probe` tries it; `path` chooses the way that
//! packets take, through an `arena` on a device or in `host_memory`; `rank` makes a group, `join` one of
//! several processes; `failure` is where kernels report; `layer` holds a shard on a
//! device; `launch` cuts a call into launches, `all_reduce` one without a layer; `call` adapts cudarc's slices
//! and streams; `decode` and `reader` are not part of any call, results and times are judged by them.

mod all_reduce;
mod arena;
mod call;
mod decode;
mod driver;
mod failure;
mod host_memory;
#[cfg(target_os = "linux")]
mod join;
mod kernels;
mod launch;
mod layer;
mod link_probe;
mod memory;
mod path;
mod peer;
mod probe;
mod rank;
mod reader;

pub use crate::plan::link::Verdict as LinkVerdict;
pub use call::{DeviceElement, DeviceOutputElement};
pub(crate) use call::{DeviceInput, DeviceOutput, StreamHandle};
pub use decode::decode;
#[cfg(target_os = "linux")]
pub(crate) use join::{join_group, prepare};
pub(crate) use layer::CudaLinear;
pub use link_probe::{probe_links, ProbedLink};
pub use peer::{links, Link};
pub use probe::{devices, DeviceInfo};
pub(crate) use rank::{build_group, CudaRank};
pub use reader::WeightReader;

/// Architectures whose machine code this build embeds, as in `CUDA_COMPUTE_CAP`.
pub const BUILT_FOR: &str = env!("TRELLINK_CUDA_ARCHS");

/// The release of nvcc that compiled the kernels.
pub const NVCC_VERSION: &str = env!("TRELLINK_NVCC_VERSION");
