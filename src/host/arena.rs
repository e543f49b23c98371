//! The arenas of ranks on the host.

use crate::protocol::{PacketMemory, SharedArena};
#[cfg(target_os = "linux")]
use crate::{protocol::Epoch, protocol::Packet, rendezvous::SharedMemory};
#[cfg(target_os = "linux")]
use std::sync::{atomic::Ordering, Arc};

/// One rank's arena, of a group whose ranks are threads or processes.
#[derive(Clone, Debug)]
pub(super) enum HostArena {
    /// In the memory of this process.
    Threads(SharedArena),
    /// In memory that all processes of the group map.
    #[cfg(target_os = "linux")]
    Processes(Arc<SharedMemory>),
}

#[cfg(target_os = "linux")]
impl HostArena {
    /// An arena in which nothing has arrived, in memory that nobody else has seen yet.
    pub(super) fn fresh(memory: SharedMemory, first_epoch: Epoch) -> Self {
        let nothing = Packet::new(0.0, first_epoch.initial_tag()).to_word();
        for word in memory.words() {
            word.store(nothing, Ordering::Relaxed);
        }
        HostArena::Processes(Arc::new(memory))
    }
}

impl PacketMemory for HostArena {
    fn load(&self, index: usize) -> u64 {
        match self {
            HostArena::Threads(arena) => arena.load(index),
            // Relaxed here and below, as in `SharedArena` and for its reasons: processes differ
            // from threads in the address of a word and in nothing else.
            #[cfg(target_os = "linux")]
            HostArena::Processes(memory) => memory.words()[index].load(Ordering::Relaxed),
        }
    }

    fn store(&self, index: usize, word: u64) {
        match self {
            HostArena::Threads(arena) => arena.store(index, word),
            #[cfg(target_os = "linux")]
            HostArena::Processes(memory) => memory.words()[index].store(word, Ordering::Relaxed),
        }
    }
}
