//! Memory that this crate owns: on a device, shared between devices, and host memory mapped into them.
//!
//! Each type frees what it holds when dropped. Nothing here knows what the bytes mean.

use super::driver::{attribute, bind, check};
use crate::{Error, Result};
use cudarc::driver::sys::{self, CUdevice_attribute};
use cudarc::driver::{CudaContext, CudaStream};
use std::ffi::c_void;
use std::mem::MaybeUninit;
#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// Plain memory of one device, for one context.
#[derive(Debug)]
pub(crate) struct DeviceBuffer {
    context: Arc<CudaContext>,
    pointer: sys::CUdeviceptr,
    bytes: usize,
}

impl DeviceBuffer {
    /// Uninitialised memory. No bytes is legal and has a null pointer.
    pub(crate) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self> {
        bind(context)?;
        let mut pointer = 0;
        if bytes > 0 {
            // SAFETY: `pointer` is a valid place for the result and a context is current.
            let status = unsafe { sys::cuMemAlloc_v2(&mut pointer, bytes) };
            check(status, "cuMemAlloc")?;
        }
        Ok(DeviceBuffer {
            context: context.clone(),
            pointer,
            bytes,
        })
    }

    /// A copy of `data`; complete when this returns.
    pub(crate) fn from_slice<T: Copy>(stream: &CudaStream, data: &[T]) -> Result<Self> {
        let buffer = DeviceBuffer::new(stream.context(), std::mem::size_of_val(data))?;
        buffer.upload(stream, data)?;
        Ok(buffer)
    }

    /// Copies `data` to the start of the buffer; complete when this returns.
    pub(crate) fn upload<T: Copy>(&self, stream: &CudaStream, data: &[T]) -> Result<()> {
        let bytes = std::mem::size_of_val(data);
        assert!(bytes <= self.bytes, "an upload must fit its buffer");
        if bytes == 0 {
            return Ok(());
        }
        bind(&self.context)?;
        // SAFETY: `data` is readable for `bytes` until the synchronisation below, the buffer holds
        // at least as many, and the stream belongs to the buffer's context.
        let status = unsafe {
            sys::cuMemcpyHtoDAsync_v2(
                self.pointer,
                data.as_ptr().cast(),
                bytes,
                stream.cu_stream(),
            )
        };
        check(status, "cuMemcpyHtoDAsync")?;
        synchronize(stream)
    }

    /// The first word of the buffer.
    pub(crate) fn download_word(&self, stream: &CudaStream) -> Result<u32> {
        let mut word = 0u32;
        assert!(
            size_of_val(&word) <= self.bytes,
            "a download must fit its buffer"
        );
        bind(&self.context)?;
        let to = std::ptr::from_mut(&mut word).cast();
        // SAFETY: `word` is writable until the synchronisation below, the buffer holds as many bytes, and
        // the stream belongs to the buffer's context.
        let status = unsafe { sys::cuMemcpyDtoHAsync_v2(to, self.pointer, 4, stream.cu_stream()) };
        check(status, "cuMemcpyDtoHAsync")?;
        synchronize(stream)?;
        Ok(word)
    }

    pub(crate) fn pointer(&self) -> sys::CUdeviceptr {
        self.pointer
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.pointer != 0 && bind(&self.context).is_ok() {
            // SAFETY: allocated by cuMemAlloc in this context and freed only here. For kernels that still use
            // it the driver waits, as it does for memory of this kind. A failure has nobody left to be
            // reported to; the driver keeps it for the next call.
            let _ = unsafe { sys::cuMemFree_v2(self.pointer) };
        }
    }
}

/// Waits for everything enqueued on a stream.
pub(crate) fn synchronize(stream: &CudaStream) -> Result<()> {
    bind(stream.context())?;
    // SAFETY: the stream is alive, borrowed from its owner.
    check(
        unsafe { sys::cuStreamSynchronize(stream.cu_stream()) },
        "cuStreamSynchronize",
    )
}

/// Memory of one device that kernels on several devices read and write (VMM).
///
/// Made with the virtual memory calls because peer access to pool memory needs more than
/// `cuCtxEnablePeerAccess`, and because the same allocation can be exported to another process.
#[derive(Debug)]
pub(crate) struct SymmetricBuffer {
    context: Arc<CudaContext>,
    pointer: sys::CUdeviceptr,
    /// Rounded up to the device's granularity.
    bytes: usize,
    handle: sys::CUmemGenericAllocationHandle,
    /// How far construction got; decides what drop undoes.
    mapped: bool,
}

impl SymmetricBuffer {
    /// At least `bytes` of uninitialised memory on `context`'s device, readable and writable from
    /// all `devices` (which include its own).
    pub(crate) fn new(context: &Arc<CudaContext>, bytes: usize, devices: &[usize]) -> Result<Self> {
        let handles = sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE;
        Self::allocate(context, bytes, devices, handles)
    }

    /// The same for this device alone, to be [exported](Self::export) to other processes.
    #[cfg(target_os = "linux")]
    pub(crate) fn exportable(context: &Arc<CudaContext>, bytes: usize) -> Result<Self> {
        require(
            context,
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED,
            "file descriptors of its memory, which ranks in several processes need",
        )?;
        Self::allocate(context, bytes, &[context.ordinal()], FILE_DESCRIPTOR)
    }

    fn allocate(
        context: &Arc<CudaContext>,
        bytes: usize,
        devices: &[usize],
        handles: sys::CUmemAllocationHandleType,
    ) -> Result<Self> {
        require(
            context,
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
            "virtual memory management, which ranks need to share memory",
        )?;
        bind(context)?;
        let properties = allocation_properties(context.ordinal(), handles);
        let bytes = bytes.next_multiple_of(granularity(&properties)?);

        let mut handle = 0;
        // SAFETY: `handle` is a valid place for the result, `properties` is fully initialised.
        let status = unsafe { sys::cuMemCreate(&mut handle, bytes, &properties, 0) };
        check(status, "cuMemCreate")?;
        Self::mapped(context, bytes, devices, handle)
    }

    /// Memory of another process, readable and writable from this context's device. It stays valid
    /// when the process that exported it has exited.
    #[cfg(target_os = "linux")]
    pub(crate) fn import(
        context: &Arc<CudaContext>,
        descriptor: OwnedFd,
        bytes: usize,
    ) -> Result<Self> {
        bind(context)?;
        let mut handle = 0;
        // The driver takes the descriptor's number for the pointer, and keeps none of it.
        let number = descriptor.as_raw_fd() as usize as *mut c_void;
        // SAFETY: `handle` is a valid place for the result and the descriptor is open.
        let status =
            unsafe { sys::cuMemImportFromShareableHandle(&mut handle, number, FILE_DESCRIPTOR) };
        check(status, "cuMemImportFromShareableHandle")?;
        Self::mapped(context, bytes, &[context.ordinal()], handle)
    }

    /// A file descriptor that stands for this memory in other processes.
    #[cfg(target_os = "linux")]
    pub(crate) fn export(&self) -> Result<OwnedFd> {
        bind(&self.context)?;
        let mut descriptor: i32 = -1;
        // SAFETY: the allocation was made with this handle type, for which the driver writes an int.
        let status = unsafe {
            sys::cuMemExportToShareableHandle(
                std::ptr::from_mut(&mut descriptor).cast(),
                self.handle,
                FILE_DESCRIPTOR,
                0,
            )
        };
        check(status, "cuMemExportToShareableHandle")?;
        // SAFETY: the driver has just opened it for the caller, who owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    /// Maps an allocation of `bytes` bytes, which the result owns.
    fn mapped(
        context: &Arc<CudaContext>,
        bytes: usize,
        devices: &[usize],
        handle: sys::CUmemGenericAllocationHandle,
    ) -> Result<Self> {
        let mut buffer = SymmetricBuffer {
            context: context.clone(),
            pointer: 0,
            bytes,
            handle,
            mapped: false,
        };
        buffer.map()?;
        buffer.allow(devices)?;
        Ok(buffer)
    }

    /// Its size, rounded up to what the device maps.
    #[cfg(target_os = "linux")]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn map(&mut self) -> Result<()> {
        // SAFETY: `self.pointer` is a valid place for the result.
        let status = unsafe { sys::cuMemAddressReserve(&mut self.pointer, self.bytes, 0, 0, 0) };
        check(status, "cuMemAddressReserve")?;
        // SAFETY: the range was just reserved with this size and nothing is mapped there.
        let status = unsafe { sys::cuMemMap(self.pointer, self.bytes, 0, self.handle, 0) };
        check(status, "cuMemMap")?;
        self.mapped = true;
        Ok(())
    }

    fn allow(&self, devices: &[usize]) -> Result<()> {
        let mut descriptors: Vec<sys::CUmemAccessDesc> = Vec::new();
        for &ordinal in devices {
            descriptors.push(sys::CUmemAccessDesc {
                location: device_location(ordinal),
                flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
            });
        }
        // SAFETY: the range is mapped, and `descriptors` holds as many entries as are named.
        let status = unsafe {
            sys::cuMemSetAccess(
                self.pointer,
                self.bytes,
                descriptors.as_ptr(),
                descriptors.len(),
            )
        };
        check(status, "cuMemSetAccess")
    }

    /// Fills `words` u32 words from the start with `value`; complete when this returns.
    pub(crate) fn fill(&self, stream: &CudaStream, value: u32, words: usize) -> Result<()> {
        fill(stream, self.pointer, self.bytes, value, words)
    }

    pub(crate) fn pointer(&self) -> sys::CUdeviceptr {
        self.pointer
    }

    /// The context of the rank that made it, or has imported it.
    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }
}

impl Drop for SymmetricBuffer {
    fn drop(&mut self) {
        if bind(&self.context).is_err() {
            return;
        }
        // SAFETY: each step undoes one that succeeded, in reverse order; the owner makes sure that
        // no kernel of any device uses the memory any more.
        unsafe {
            if self.mapped {
                let _ = sys::cuMemUnmap(self.pointer, self.bytes);
            }
            if self.pointer != 0 {
                let _ = sys::cuMemAddressFree(self.pointer, self.bytes);
            }
            let _ = sys::cuMemRelease(self.handle);
        }
    }
}

impl DeviceBuffer {
    /// Fills `words` u32 words from the start with `value`; complete when this returns.
    pub(crate) fn fill(&self, stream: &CudaStream, value: u32, words: usize) -> Result<()> {
        fill(stream, self.pointer, self.bytes, value, words)
    }
}

fn fill(
    stream: &CudaStream,
    pointer: sys::CUdeviceptr,
    bytes: usize,
    value: u32,
    words: usize,
) -> Result<()> {
    assert!(words * 4 <= bytes, "a fill must fit its buffer");
    bind(stream.context())?;
    // SAFETY: the range lies in the buffer, which belongs to the stream's device.
    let status = unsafe { sys::cuMemsetD32Async(pointer, value, words, stream.cu_stream()) };
    check(status, "cuMemsetD32Async")?;
    synchronize(stream)
}

fn device_location(ordinal: usize) -> sys::CUmemLocation {
    let mut location = MaybeUninit::<sys::CUmemLocation>::zeroed();
    let pointer = location.as_mut_ptr();
    // SAFETY: `pointer` is valid for writes. The struct is {type: int, id: int} in every CUDA
    // version; since 13.2 the id is a member of an anonymous union, which is why it is written
    // through its offset rather than by name. All other bytes are zero, which is valid for them.
    unsafe {
        std::ptr::addr_of_mut!((*pointer).type_)
            .write(sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE);
        pointer.cast::<i32>().add(1).write(ordinal as i32);
        location.assume_init()
    }
}

/// Handles of memory that other processes import.
#[cfg(target_os = "linux")]
const FILE_DESCRIPTOR: sys::CUmemAllocationHandleType =
    sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;

/// Fails unless the context's device has what this attribute stands for.
fn require(context: &CudaContext, supported: CUdevice_attribute, what: &str) -> Result<()> {
    if attribute(context, supported)? != 0 {
        return Ok(());
    }
    Err(Error::CudaUnavailable {
        reason: format!("device {} has no {what}", context.ordinal()),
    })
}

fn allocation_properties(
    ordinal: usize,
    handles: sys::CUmemAllocationHandleType,
) -> sys::CUmemAllocationProp {
    let mut properties = MaybeUninit::<sys::CUmemAllocationProp>::zeroed();
    let pointer = properties.as_mut_ptr();
    // SAFETY: `pointer` is valid for writes; every enum field is written, the rest is integers
    // and pointers, for which zero is valid.
    unsafe {
        std::ptr::addr_of_mut!((*pointer).type_)
            .write(sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED);
        std::ptr::addr_of_mut!((*pointer).requestedHandleTypes).write(handles);
        std::ptr::addr_of_mut!((*pointer).location).write(device_location(ordinal));
        properties.assume_init()
    }
}

fn granularity(properties: &sys::CUmemAllocationProp) -> Result<usize> {
    let mut granularity = 0;
    // SAFETY: both pointers are valid for the call.
    let status = unsafe {
        sys::cuMemGetAllocationGranularity(
            &mut granularity,
            properties,
            sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_RECOMMENDED,
        )
    };
    check(status, "cuMemGetAllocationGranularity")?;
    Ok(granularity.max(1))
}

/// Page-locked host memory that kernels of every device read and write: a `T` that consists of atomics, or
/// plain data of which only copies are read.
#[derive(Debug)]
pub(crate) struct MappedHost<T> {
    context: Arc<CudaContext>,
    pointer: *mut T,
    device_pointer: sys::CUdeviceptr,
}

// SAFETY: the pointer is that of an allocation of its own, which may be freed by any thread; the context
// handle is itself Send and Sync.
unsafe impl<T: Send> Send for MappedHost<T> {}
// SAFETY: as above; `get` hands out a reference to a T that is Sync itself.
unsafe impl<T: Sync> Sync for MappedHost<T> {}

impl<T: Default + Sync> MappedHost<T> {
    pub(crate) fn new(context: &Arc<CudaContext>) -> Result<Self> {
        bind(context)?;
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        let mut pointer: *mut c_void = std::ptr::null_mut();
        // SAFETY: `pointer` is a valid place for the result.
        let status =
            unsafe { sys::cuMemHostAlloc(&mut pointer, std::mem::size_of::<T>().max(8), flags) };
        check(status, "cuMemHostAlloc")?;
        let mut host = MappedHost {
            context: context.clone(),
            pointer: pointer.cast::<T>(),
            device_pointer: 0,
        };
        // SAFETY: allocated above, page-aligned, large enough for a T, and nobody else has it yet.
        unsafe { host.pointer.write(T::default()) };
        // SAFETY: the pointer came from cuMemHostAlloc with DEVICEMAP.
        let status =
            unsafe { sys::cuMemHostGetDevicePointer_v2(&mut host.device_pointer, pointer, 0) };
        check(status, "cuMemHostGetDevicePointer")?;
        Ok(host)
    }

    /// The value, which kernels may change at any time.
    pub(crate) fn get(&self) -> &T {
        // SAFETY: initialised in `new` and valid for the life of `self`. It consists of atomics, so that a
        // device may write behind the compiler's back.
        unsafe { &*self.pointer }
    }

    /// Where kernels find it; the same address on every device (unified addressing).
    pub(crate) fn device_pointer(&self) -> sys::CUdeviceptr {
        self.device_pointer
    }
}

impl<T: Copy> MappedHost<T> {
    /// The value as it is now. Fields may be torn against each other while a kernel writes.
    pub(crate) fn read(&self) -> T {
        // SAFETY: initialised in `new` and valid for the life of `self`; volatile, because a device writes
        // behind the compiler's back.
        unsafe { self.pointer.read_volatile() }
    }
}

impl<T> Drop for MappedHost<T> {
    fn drop(&mut self) {
        if bind(&self.context).is_ok() {
            // SAFETY: allocated by cuMemHostAlloc and freed only here.
            let _ = unsafe { sys::cuMemFreeHost(self.pointer.cast()) };
        }
    }
}
