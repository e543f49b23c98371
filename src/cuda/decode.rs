//! The decoded matrix, as the GPU decodes it: what tests and `trellink verify` compare bit for bit.

use super::driver::{check, context};
use super::kernels::{Kernels, Launch};
use super::memory::{synchronize, DeviceBuffer};
use crate::ffi::TrellinkDecode;
use crate::format::layout::BlockLayout;
use crate::format::{GROUP, TILE};
use crate::weights::Linear;
use crate::Result;
use cudarc::driver::sys;
use half::f16;

const THREADS: u32 = 128;

/// Decodes a linear on a device: f16 `[K, N]`, row-major, in the rotated basis.
///
/// Loads kernels and allocates on each call; meant for checking, not for a hot path.
///
/// # Errors
/// [`CudaUnavailable`](crate::Error::CudaUnavailable) without driver, device or kernel,
/// [`Cuda`](crate::Error::Cuda).
pub fn decode(linear: &Linear<'_>, ordinal: usize) -> Result<Vec<f16>> {
    let context = context(ordinal)?;
    let kernels = Kernels::load(&context)?;
    let stream = context
        .new_stream()
        .map_err(|e| super::driver::error(e, "cuStreamCreate"))?;
    let trellis = linear.trellis();
    let packed =
        BlockLayout::new(linear.bits()).pack(linear.k(), linear.n(), |kt, nt| trellis.tile(kt, nt));
    let blocks = DeviceBuffer::from_slice(&stream, &packed)?;

    let mut decoded = vec![f16::NAN; linear.k() * linear.n()];
    // Uploaded NaN: an element that the kernel leaves out shows.
    let out = DeviceBuffer::from_slice(&stream, &decoded)?;
    let params = TrellinkDecode {
        blocks: blocks.pointer(),
        out: out.pointer(),
        strips: (linear.n() / TILE) as u32,
        k_groups: (linear.k() / GROUP) as u32,
        codebook: linear.codebook().number(),
        half_bits: linear.bits().half_bits() as u32,
    };
    let count = params.strips * params.k_groups;
    if count == 0 {
        return Ok(decoded);
    }
    let grid = count
        .div_ceil(THREADS / 32)
        .min(kernels.sm_count as u32 * 16);
    let launch = Launch {
        grid,
        cluster: 1,
        threads: THREADS,
        shared_bytes: 0,
        stream: stream.cu_stream(),
        early: false,
    };
    // SAFETY: the decode kernel takes a TrellinkDecode; both buffers live until the
    // synchronisation below and have the sizes that the kernel derives from strips and groups.
    unsafe { kernels.launch(kernels.decode, launch, &params)? };
    // SAFETY: `decoded` is writable for its length, the buffer was made with the same length.
    let status = unsafe {
        sys::cuMemcpyDtoHAsync_v2(
            decoded.as_mut_ptr().cast(),
            out.pointer(),
            std::mem::size_of_val(decoded.as_slice()),
            stream.cu_stream(),
        )
    };
    check(status, "cuMemcpyDtoHAsync")?;
    synchronize(&stream)?;
    Ok(decoded)
}
