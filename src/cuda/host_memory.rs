//! Page-locked host memory that kernels of all devices reach: arenas where no device's memory will do, and
//! pages that processes share.
//!
//! What must stay true: what kernels may still touch is neither freed nor unregistered; the owner sees to
//! that.

use super::driver::{bind, check};
#[cfg(target_os = "linux")]
use crate::rendezvous::SharedMemory;
use crate::Result;
use cudarc::driver::{sys, CudaContext};
use std::ffi::c_void;
use std::sync::Arc;

/// Such memory, whose contents the host changes only while no kernel runs that knows it.
#[derive(Debug)]
pub(super) struct HostMemory {
    context: Arc<CudaContext>,
    pointer: *mut u8,
    bytes: usize,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    /// The driver's.
    Allocated,
    /// A mapping, kept for its life, that other processes may have too.
    #[cfg(target_os = "linux")]
    Registered(#[allow(dead_code)] Arc<SharedMemory>),
}

// SAFETY: the memory is reached through raw pointers with volatile accesses only, whichever the thread; the
// context handle is itself Send and Sync.
unsafe impl Send for HostMemory {}
// SAFETY: as above; no reference to the contents is handed out.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// At least `bytes` of uninitialised memory, for all devices of this process.
    pub(super) fn allocate(context: &Arc<CudaContext>, bytes: usize) -> Result<Self> {
        bind(context)?;
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        let mut pointer: *mut c_void = std::ptr::null_mut();
        // SAFETY: `pointer` is a valid place for the result.
        let status = unsafe { sys::cuMemHostAlloc(&mut pointer, bytes, flags) };
        check(status, "cuMemHostAlloc")?;
        Ok(HostMemory {
            context: context.clone(),
            pointer: pointer.cast(),
            bytes,
            origin: Origin::Allocated,
        })
    }

    /// Memory that processes share, for all devices of this one. It must not be registered already.
    #[cfg(target_os = "linux")]
    pub(super) fn register(context: &Arc<CudaContext>, memory: Arc<SharedMemory>) -> Result<Self> {
        bind(context)?;
        let (pointer, bytes) = (memory.as_mut_ptr(), memory.bytes());
        let flags = sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP;
        // SAFETY: the mapping begins at a page, has so many bytes and lives as long as the result.
        let status = unsafe { sys::cuMemHostRegister_v2(pointer.cast(), bytes, flags) };
        check(status, "cuMemHostRegister")?;
        Ok(HostMemory {
            context: context.clone(),
            pointer,
            bytes,
            origin: Origin::Registered(memory),
        })
    }

    /// Where kernels of a context find it: not for every device the same address, if it was registered.
    pub(super) fn pointer_in(&self, context: &CudaContext) -> Result<sys::CUdeviceptr> {
        bind(context)?;
        let mut pointer = 0;
        // SAFETY: the memory was allocated or registered for all contexts and mapped into them.
        let status =
            unsafe { sys::cuMemHostGetDevicePointer_v2(&mut pointer, self.pointer.cast(), 0) };
        check(status, "cuMemHostGetDevicePointer")?;
        Ok(pointer)
    }

    /// Fills `words` u32 words from the start with `value`.
    pub(super) fn fill(&self, value: u32, words: usize) {
        assert!(words * 4 <= self.bytes, "a fill must fit its memory");
        let start = self.pointer.cast::<u32>();
        for word in 0..words {
            // SAFETY: within the memory, which begins at a page; volatile, since devices read it.
            unsafe { start.add(word).write_volatile(value) };
        }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if bind(&self.context).is_err() {
            return;
        }
        let pointer = self.pointer.cast();
        // Undoes, once, what made it. A failure has nobody left to be reported to.
        let _ = match self.origin {
            // SAFETY: allocated by cuMemHostAlloc and freed only here.
            Origin::Allocated => unsafe { sys::cuMemFreeHost(pointer) },
            #[cfg(target_os = "linux")]
            // SAFETY: registered by `register` and unregistered only here; the mapping goes afterwards.
            Origin::Registered(_) => unsafe { sys::cuMemHostUnregister(pointer) },
        };
    }
}
