//! Memory that stands in for a device's.

use std::cell::UnsafeCell;

/// Bytes at a fixed address, aligned as cuMemAlloc would (enough for every vector access).
#[derive(Debug)]
pub struct Buffer {
    words: Box<[UnsafeCell<u128>]>,
    bytes: usize,
}

// SAFETY: the contents are reached through raw pointers by kernels, which synchronise as kernels
// do, and by `read` and `write` between launches; the address never changes.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A copy of `data`.
    pub fn new<T: Copy>(data: &[T]) -> Self {
        let bytes = std::mem::size_of_val(data);
        let words = (0..bytes.div_ceil(16)).map(|_| UnsafeCell::new(0));
        let buffer = Buffer {
            words: words.collect(),
            bytes,
        };
        // SAFETY: the buffer has room for `bytes`, nobody else has it yet, and T is plain data.
        unsafe {
            std::ptr::copy_nonoverlapping(data.as_ptr().cast::<u8>(), buffer.base(), bytes);
        }
        buffer
    }

    /// A copy of the contents as `T`, which must be what was put in.
    pub fn read<T: Copy>(&self) -> Vec<T> {
        let len = self.bytes / std::mem::size_of::<T>();
        // SAFETY: aligned for every T here, initialised when made, and no launch is running.
        unsafe { std::slice::from_raw_parts(self.base().cast::<T>(), len) }.to_vec()
    }

    /// The address that kernels get.
    pub fn pointer(&self) -> u64 {
        self.base() as u64
    }

    fn base(&self) -> *mut u8 {
        self.words.as_ptr().cast_mut().cast()
    }
}
