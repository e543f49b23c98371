//! Host memory that several processes map.
//!
//! What must stay true: the memory cannot shrink, since touching a page that is gone would end the
//! process. It is sealed by its maker, and no one maps it without having looked at size and seals.

use crate::board::Board;
use crate::{Error, Result};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fd::OwnedFd;
use rustix::fs::{self, MemfdFlags, SealFlags};
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// A mapping of such memory, which stays valid when the process that made it has exited.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    map: MmapRaw,
    bytes: usize,
}

impl SharedMemory {
    /// New memory, all zero, and the descriptor to send to others.
    pub(crate) fn new(name: &str, bytes: usize) -> Result<(Self, OwnedFd)> {
        let failed = |errno: rustix::io::Errno| failed(errno.into());
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let handle = fs::memfd_create(name, flags).map_err(failed)?;
        fs::ftruncate(&handle, bytes as u64).map_err(failed)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fs::fcntl_add_seals(&handle, seals).map_err(failed)?;
        let map = map(&handle, bytes)?;
        Ok((SharedMemory { map, bytes }, handle))
    }

    /// Memory that another process made, which must have `bytes` bytes.
    pub(crate) fn open(handle: OwnedFd, bytes: usize) -> Result<Self> {
        let found = fs::fstat(&handle).map_err(|errno| failed(errno.into()))?;
        let seals = fs::fcntl_get_seals(&handle).unwrap_or(SealFlags::empty());
        if found.st_size as u64 != bytes as u64 || !seals.contains(SealFlags::SHRINK) {
            return Err(failed(std::io::Error::other(format!(
                "found {} bytes with seals {seals:?}, expected {bytes} that cannot shrink",
                found.st_size
            ))));
        }
        let map = map(&handle, bytes)?;
        Ok(SharedMemory { map, bytes })
    }

    /// The memory as words that all processes may change at any time.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping begins at a page, has `bytes` bytes that cannot go away, and lives as
        // long as `self`. Every process reaches it through atomics alone, and any bits are a u64.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast(), self.bytes / 8) }
    }

    /// Its size.
    #[cfg(feature = "cuda")]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the mapping begins.
    #[cfg(feature = "cuda")]
    pub(crate) fn as_mut_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }
}

impl AsRef<Board> for SharedMemory {
    fn as_ref(&self) -> &Board {
        assert!(self.bytes >= size_of::<Board>(), "memory for a board");
        // SAFETY: the mapping begins at a page, is large enough and lives as long as `self`. A
        // board consists of atomics, for which all bits are valid and all processes may change.
        unsafe { &*self.map.as_mut_ptr().cast::<Board>() }
    }
}

fn map(handle: &OwnedFd, bytes: usize) -> Result<MmapRaw> {
    MmapOptions::new()
        .len(bytes)
        .map_raw(handle)
        .map_err(failed)
}

fn failed(source: std::io::Error) -> Error {
    Error::Io {
        path: Path::new("shared memory").to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn two_mappings_show_the_same_words() {
        let (ours, handle) = SharedMemory::new("test", 4096).unwrap();
        let theirs = SharedMemory::open(handle, 4096).unwrap();
        ours.words()[511].store(7, Ordering::Relaxed);
        assert_eq!(theirs.words()[511].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn memory_of_another_size_or_that_may_shrink_is_refused() {
        let (_, handle) = SharedMemory::new("test", 4096).unwrap();
        assert!(SharedMemory::open(handle, 8192).is_err());
        let unsealed = fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        fs::ftruncate(&unsealed, 4096).unwrap();
        assert!(SharedMemory::open(unsealed, 4096).is_err());
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(SharedMemory::open(file.into(), 4096).is_err());
    }
}
