//! The embedded kernels, loaded into a context.
//!
//! Every kernel is loaded and configured before the first collective call: lazy loading could
//! otherwise wait behind a kernel that waits for this rank.

use super::driver::{attribute, bind, check};
use crate::plan::LinearKernel;
use crate::{Error, Result};
use cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute};
use cudarc::driver::CudaContext;
use std::ffi::{c_void, CString};
use std::sync::Arc;

include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));

/// A kernel that is ready to launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    function: sys::CUfunction,
    /// Dynamic shared memory it may be launched with.
    max_shared_bytes: usize,
}

/// The kernels of one context.
#[derive(Debug)]
pub(crate) struct Kernels {
    context: Arc<CudaContext>,
    modules: Vec<sys::CUmodule>,
    /// In the order of [`LinearKernel::ALL`].
    linear: Vec<Kernel>,
    /// Dynamic shared memory that every linear kernel may be launched with.
    pub(crate) max_shared_bytes: usize,
    pub(crate) decode: Kernel,
    pub(crate) all_reduce: Kernel,
    /// Multiprocessors of the device.
    pub(crate) sm_count: usize,
}

// SAFETY: module and function handles may be used from any thread in which the context is
// current; `launch` makes it so.
unsafe impl Send for Kernels {}
// SAFETY: as above, the handles are never changed after construction.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Loads all kernels into `context`.
    pub(crate) fn load(context: &Arc<CudaContext>) -> Result<Self> {
        bind(context)?;
        let mut modules = Modules(Vec::new());
        let mut linear = Vec::new();
        for kernel in LinearKernel::ALL {
            let symbol = format!("trellink_{}", kernel.name());
            linear.push(modules.kernel(context, kernel.name(), &symbol)?);
        }
        let decode = modules.kernel(context, "decode", "trellink_decode")?;
        let all_reduce = modules.kernel(context, "all_reduce", "trellink_all_reduce")?;
        let sm_count = attribute(
            context,
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        )?;
        Ok(Kernels {
            context: context.clone(),
            modules: std::mem::take(&mut modules.0),
            max_shared_bytes: linear.iter().map(|k| k.max_shared_bytes).min().unwrap_or(0),
            linear,
            decode,
            all_reduce,
            sm_count,
        })
    }

    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// A linear kernel.
    pub(crate) fn linear(&self, kernel: LinearKernel) -> Kernel {
        // Loaded in this order, all of them.
        self.linear[kernel as usize]
    }

    /// Enqueues a kernel whose only parameter is `params`.
    ///
    /// # Safety
    /// The kernel must be one of `self` and take a `P`; every pointer in `params` must be valid for
    /// what the kernel does until it has run; the stream must belong to this context.
    pub(crate) unsafe fn launch<P>(
        &self,
        kernel: Kernel,
        grid: u32,
        threads: u32,
        shared_bytes: u32,
        stream: sys::CUstream,
        params: &P,
    ) -> Result<()> {
        bind(&self.context)?;
        let mut arguments = [std::ptr::from_ref(params).cast_mut().cast::<c_void>()];
        // SAFETY: the driver copies the parameter before it returns; the rest is the caller's.
        let status = unsafe {
            sys::cuLaunchKernel(
                kernel.function,
                grid,
                1,
                1,
                threads,
                1,
                1,
                shared_bytes,
                stream,
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        check(status, "cuLaunchKernel")
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        if bind(&self.context).is_ok() {
            drop(Modules(std::mem::take(&mut self.modules)));
        }
    }
}

/// Loaded modules, unloaded on drop: with it a half-finished `load` leaks nothing.
struct Modules(Vec<sys::CUmodule>);

impl Modules {
    fn kernel(&mut self, context: &CudaContext, file: &str, symbol: &str) -> Result<Kernel> {
        let Some((_, image)) = FATBINS.iter().find(|(name, _)| *name == file) else {
            return Err(Error::CudaUnavailable {
                reason: format!("this build embeds no kernels (`{file}` is missing)"),
            });
        };
        let mut module = std::ptr::null_mut();
        // SAFETY: the image is a complete fatbin, embedded and aligned by the build script.
        let status = unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) };
        if status == sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU {
            return Err(no_binary(context));
        }
        check(status, "cuModuleLoadData")?;
        self.0.push(module);

        let name = CString::new(symbol).map_err(|e| Error::CudaUnavailable {
            reason: e.to_string(),
        })?;
        let mut function = std::ptr::null_mut();
        // SAFETY: the module was just loaded, the name is a C string.
        let status = unsafe { sys::cuModuleGetFunction(&mut function, module, name.as_ptr()) };
        check(status, "cuModuleGetFunction")?;
        configure(context, function)
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        for &module in &self.0 {
            // SAFETY: loaded by us, unloaded once; the context is current.
            let _ = unsafe { sys::cuModuleUnload(module) };
        }
    }
}

/// Raises a kernel's dynamic shared memory to what the device allows. Also makes the driver load it.
fn configure(context: &CudaContext, function: sys::CUfunction) -> Result<Kernel> {
    let limit = attribute(
        context,
        CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
    )?;
    let mut fixed = 0;
    // SAFETY: `fixed` is a valid place for the result, the function is loaded.
    let status = unsafe {
        sys::cuFuncGetAttribute(
            &mut fixed,
            CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
            function,
        )
    };
    check(status, "cuFuncGetAttribute")?;
    let max_shared_bytes = limit.saturating_sub(usize::try_from(fixed).unwrap_or(0));
    // SAFETY: the function is loaded.
    let status = unsafe {
        sys::cuFuncSetAttribute(
            function,
            CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            i32::try_from(max_shared_bytes).unwrap_or(i32::MAX),
        )
    };
    check(status, "cuFuncSetAttribute")?;
    Ok(Kernel {
        function,
        max_shared_bytes,
    })
}

fn no_binary(context: &CudaContext) -> Error {
    let (major, minor) = context.compute_capability().unwrap_or_default();
    Error::CudaUnavailable {
        reason: format!(
            "device {} has compute capability {major}.{minor}, this build has kernels for {}; \
             rebuild with CUDA_COMPUTE_CAP={major}{minor}",
            context.ordinal(),
            super::BUILT_FOR
        ),
    }
}
