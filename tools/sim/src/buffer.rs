//! Memory that stands in for a device's.

use std::ffi::c_void;

extern "C" {
    fn trellink_sim_allocate(bytes: u64, memory: *mut *mut c_void) -> *mut c_void;
    fn trellink_sim_free(allocation: *mut c_void);
}

/// Bytes at a fixed address, aligned to 16 (enough for every vector access). What follows them is not
/// mapped, so a kernel that goes beyond them ends the process.
#[derive(Debug)]
pub struct Buffer {
    allocation: *mut c_void,
    base: *mut u8,
    bytes: usize,
}

// SAFETY: the contents are reached through raw pointers by kernels, which synchronise as kernels
// do, and by `read` between launches; the address never changes.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A copy of `data`.
    pub fn new<T: Copy>(data: &[T]) -> Self {
        let bytes = std::mem::size_of_val(data);
        let mut memory = std::ptr::null_mut();
        // SAFETY: writes one pointer; `Drop` frees what is returned, once.
        let allocation = unsafe { trellink_sim_allocate(bytes as u64, &mut memory) };
        let base = memory.cast::<u8>();
        let buffer = Buffer {
            allocation,
            base,
            bytes,
        };
        buffer.write(data);
        buffer
    }

    /// Replaces the contents by as many bytes.
    pub(crate) fn write<T: Copy>(&self, data: &[T]) {
        assert_eq!(std::mem::size_of_val(data), self.bytes);
        // SAFETY: the buffer has room for `bytes`, no launch is running, and T is plain data.
        unsafe {
            std::ptr::copy_nonoverlapping(data.as_ptr().cast::<u8>(), self.base, self.bytes);
        }
    }

    /// A copy of the contents as `T`, which must be what was put in.
    pub fn read<T: Copy>(&self) -> Vec<T> {
        let len = self.bytes / std::mem::size_of::<T>();
        // SAFETY: aligned for every T here, initialised when made, and no launch is running.
        unsafe { std::slice::from_raw_parts(self.base.cast::<T>(), len) }.to_vec()
    }

    /// The address that kernels get.
    pub fn pointer(&self) -> u64 {
        self.base as u64
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: made by `trellink_sim_allocate`, and no launch is running that was given it.
        unsafe { trellink_sim_free(self.allocation) }
    }
}
