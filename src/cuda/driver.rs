//! The driver's statuses as this crate's errors, and the one place that asks whether there is a driver.

use crate::{Error, Result};
use cudarc::driver::{result::DriverError, sys, CudaContext};
use std::sync::Arc;

/// Turns a driver status into an error that names the call.
pub(crate) fn check(status: sys::CUresult, call: &'static str) -> Result<()> {
    if status == sys::CUresult::CUDA_SUCCESS {
        Ok(())
    } else {
        Err(error(DriverError(status), call))
    }
}

/// The crate's error for a failed driver call.
pub(crate) fn error(error: DriverError, call: &'static str) -> Error {
    let text = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(
            |_| "unknown".into(),
            |text| text.to_string_lossy().into_owned(),
        )
    };
    Error::Cuda {
        call,
        code: error.0 as i32,
        name: text(error.error_name()),
        description: text(error.error_string()),
    }
}

/// Whether the driver's library can be loaded. It stays so, for cudarc. That has the same question only where it
/// loads the library itself; where another crate has it link libcuda, as candle does, it has not.
fn has_driver() -> bool {
    const NAMES: &[&str] = if cfg!(windows) {
        &["nvcuda.dll"]
    } else {
        &["libcuda.so.1", "libcuda.so"]
    };
    // SAFETY: libcuda's initialisers and finalisers have no preconditions.
    let load = |name: &&str| unsafe { libloading::Library::new(*name) };
    let library = NAMES.iter().find_map(|name| load(name).ok());
    library.map(std::mem::forget).is_some()
}

/// Fails with [`Error::CudaUnavailable`] where there is no driver: cudarc would panic on first use.
pub(crate) fn require_driver() -> Result<()> {
    if !has_driver() {
        return Err(Error::CudaUnavailable {
            reason: "libcuda was not found; install an NVIDIA driver or use the host".into(),
        });
    }
    // The driver is there but may have no device or not match it.
    cudarc::driver::result::init().map_err(|e| Error::CudaUnavailable {
        reason: error(e, "cuInit").to_string(),
    })
}

/// How many devices the driver shows.
pub(crate) fn device_count() -> Result<usize> {
    require_driver()?;
    let count = CudaContext::device_count().map_err(|e| error(e, "cuDeviceGetCount"))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The handle of a device, without a context on it.
pub(crate) fn device(ordinal: usize) -> Result<sys::CUdevice> {
    let count = device_count()?;
    if ordinal >= count {
        return Err(Error::CudaUnavailable {
            reason: format!("device {ordinal} was asked for, the driver shows {count}"),
        });
    }
    cudarc::driver::result::device::get(ordinal as i32).map_err(|e| error(e, "cuDeviceGet"))
}

/// What a device is called in every process, whatever its ordinal there.
#[cfg(target_os = "linux")]
pub(crate) fn uuid(ordinal: usize) -> Result<[u8; 16]> {
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    // SAFETY: `uuid` is a valid place for the result. The second version tells the instances of a GPU in MIG
    // mode apart.
    let status = unsafe { sys::cuDeviceGetUuid_v2(&mut uuid, device(ordinal)?) };
    check(status, "cuDeviceGetUuid")?;
    Ok(uuid.bytes.map(|byte| byte as u8))
}

/// The primary context of a device, current on the calling thread.
pub(crate) fn context(ordinal: usize) -> Result<Arc<CudaContext>> {
    device(ordinal)?;
    CudaContext::new(ordinal).map_err(|e| error(e, "cuDevicePrimaryCtxRetain"))
}

/// A device attribute.
pub(crate) fn attribute(
    context: &CudaContext,
    attribute: sys::CUdevice_attribute,
) -> Result<usize> {
    let value = context
        .attribute(attribute)
        .map_err(|e| error(e, "cuDeviceGetAttribute"))?;
    Ok(usize::try_from(value).unwrap_or(0))
}

/// Makes the context current on the calling thread, where it stays: to put back what was current before would
/// cost every call as much again.
pub(crate) fn bind(context: &CudaContext) -> Result<()> {
    context
        .bind_to_thread()
        .map_err(|e| error(e, "cuCtxSetCurrent"))
}

/// Waits for everything enqueued in the context. Kernels of this crate end by themselves, at the latest at their
/// deadline. Fails, and ends the capture, while a stream of the device is being captured.
pub(crate) fn synchronize_context(context: &CudaContext) -> Result<()> {
    bind(context)?;
    // SAFETY: no precondition.
    check(unsafe { sys::cuCtxSynchronize() }, "cuCtxSynchronize")
}
