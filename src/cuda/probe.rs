//! What devices there are, for programs that choose or report.

use super::driver::{attribute, context, device_count, error};
use crate::Result;
use cudarc::driver::sys::CUdevice_attribute;

/// One CUDA device.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// The driver's ordinal.
    pub ordinal: usize,
    /// Product name.
    pub name: String,
    /// Compute capability, major and minor.
    pub compute_capability: (i32, i32),
    /// Multiprocessors.
    pub sm_count: usize,
    /// Memory in bytes.
    pub memory_bytes: usize,
    /// L2 cache in bytes.
    pub l2_bytes: usize,
}

/// Every device the driver shows, in ordinal order.
///
/// # Errors
/// [`Error::CudaUnavailable`](crate::Error::CudaUnavailable) without driver or device,
/// [`Error::Cuda`](crate::Error::Cuda).
pub fn devices() -> Result<Vec<DeviceInfo>> {
    (0..device_count()?).map(device).collect()
}

fn device(ordinal: usize) -> Result<DeviceInfo> {
    let context = context(ordinal)?;
    Ok(DeviceInfo {
        ordinal,
        name: context.name().map_err(|e| error(e, "cuDeviceGetName"))?,
        compute_capability: context
            .compute_capability()
            .map_err(|e| error(e, "cuDeviceGetAttribute"))?,
        sm_count: attribute(
            &context,
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        )?,
        memory_bytes: context
            .total_mem()
            .map_err(|e| error(e, "cuDeviceTotalMem"))?,
        l2_bytes: attribute(
            &context,
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE,
        )?,
    })
}
