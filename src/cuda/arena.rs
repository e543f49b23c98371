//! An arena: the memory of a rank into which all ranks of its group send, on a device or on the host.

use super::host_memory::HostMemory;
use super::memory::SymmetricBuffer;
use super::rank::new_stream;
use crate::ffi::TRELLINK_LINK_PROBE_WORDS;
use crate::protocol::{ArenaLayout, Epoch};
use crate::Result;
use cudarc::driver::{sys, CudaContext};

/// One rank's arena.
#[derive(Debug)]
pub(super) enum Arena {
    /// In the memory of the rank's device.
    Device(SymmetricBuffer),
    /// In memory of the host.
    Host(HostMemory),
}

impl Arena {
    /// Where kernels of a context find it.
    pub(super) fn pointer_in(&self, context: &CudaContext) -> Result<sys::CUdeviceptr> {
        match self {
            // Mapped once, for all devices that may reach it.
            Arena::Device(buffer) => Ok(buffer.pointer()),
            Arena::Host(memory) => memory.pointer_in(context),
        }
    }

    /// Makes it one in which nothing has arrived; complete when this returns.
    pub(super) fn fill_with_stale_tags(
        &self,
        first_epoch: Epoch,
        layout: ArenaLayout,
    ) -> Result<()> {
        // A packet's tag is its high word; the low one may hold anything.
        self.fill(first_epoch.initial_tag().bits(), layout.bytes() / 4)
    }

    /// Makes its beginning a mailbox into which nothing has come; complete when this returns.
    pub(super) fn clear_mailbox(&self) -> Result<()> {
        self.fill(0, MAILBOX_BYTES / 4)
    }

    fn fill(&self, value: u32, words: usize) -> Result<()> {
        match self {
            Arena::Device(buffer) => {
                let stream = new_stream(buffer.context())?;
                buffer.fill(&stream, value, words)
            }
            Arena::Host(memory) => {
                memory.fill(value, words);
                Ok(())
            }
        }
    }
}

/// What of an arena a probe of its links uses.
pub(super) const MAILBOX_BYTES: usize = TRELLINK_LINK_PROBE_WORDS as usize * 8;

/// Two ranks and the least slots of a group make the smallest arena that anyone shares.
const _: () = assert!(MAILBOX_BYTES <= 2 * 2 * crate::format::GROUP * 8);
