//! The memory that packets live in, as the protocol sees it.
//!
//! What must stay true: a packet is read and written in one indivisible 64-bit access. Nothing
//! more is asked of `load` and `store`, since the tag that makes a packet valid is in the word.

use super::{ArenaLayout, Epoch, Packet};
use std::sync::atomic::{fence, AtomicU64, Ordering};
use std::sync::Arc;

/// One rank's arena, as seen by some rank.
///
/// The indices are those of [`ArenaLayout::index`].
pub trait PacketMemory {
    /// Reads the packet at `index` indivisibly, with relaxed ordering.
    fn load(&self, index: usize) -> u64;

    /// Writes the packet at `index` indivisibly, with relaxed ordering.
    fn store(&self, index: usize, word: u64);

    /// A release fence: what this rank did before is seen as done by whoever reads a packet that
    /// it stores later and then issues [`fence_acquire`](Self::fence_acquire).
    fn fence_release(&self) {
        fence(Ordering::Release);
    }

    /// An acquire fence, the other end of [`fence_release`](Self::fence_release).
    fn fence_acquire(&self) {
        fence(Ordering::Acquire);
    }
}

/// An arena in the memory of this process, shared by ranks that are threads.
#[derive(Clone, Debug)]
pub struct SharedArena {
    packets: Arc<[AtomicU64]>,
}

impl SharedArena {
    /// An arena in which nothing has arrived, for a group whose first call is `first_epoch`.
    pub fn new(layout: &ArenaLayout, first_epoch: Epoch) -> Self {
        let nothing = Packet::new(0.0, first_epoch.initial_tag()).to_word();
        SharedArena {
            packets: (0..layout.packets())
                .map(|_| AtomicU64::new(nothing))
                .collect(),
        }
    }
}

impl PacketMemory for SharedArena {
    fn load(&self, index: usize) -> u64 {
        // Relaxed, pairs with the store below: data and tag are one word, so there is no second
        // location whose visibility the tag would have to vouch for.
        self.packets[index].load(Ordering::Relaxed)
    }

    fn store(&self, index: usize, word: u64) {
        // Relaxed, pairs with the load above, for the same reason. What must not be reordered
        // across calls is ordered by the fences of the endpoint.
        self.packets[index].store(word, Ordering::Relaxed);
    }
}
