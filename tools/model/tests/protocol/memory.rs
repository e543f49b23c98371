//! Arenas in loom's memory, which may misbehave on purpose.

use loom::sync::atomic::{fence, AtomicU64, Ordering};
use std::cell::Cell;
use std::sync::Arc;
use trellink::protocol::{ArenaLayout, Arrival, Epoch, Packet, PacketMemory, Tag};

/// What a rank does otherwise than the protocol asks. Each is the memory's doing: the endpoint on
/// top of it runs its own lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// `advance` does not release.
    NoRelease,
    /// `collect` does not acquire.
    NoAcquire,
    /// Both halves of an arena are the same memory.
    OneHalf,
    /// A packet of a later call is taken for one of this call.
    AheadIsCurrent,
    /// A packet that is not of this call is waited out, whichever call it is of.
    AheadIsStale,
    /// A packet is late if its tag is less as a plain integer, otherwise of this call.
    PlainOrder,
    /// The half that is rewritten is the one that the next call uses.
    ScrubsOtherHalf,
    /// Arenas begin with tag 0, whatever the first call.
    InitialTagZero,
    /// Tags are compared without the operation.
    OperationIgnored,
}

/// The packets of one rank's arena.
#[derive(Clone)]
pub struct Arena(Arc<[AtomicU64]>);

impl Arena {
    /// An arena in which nothing has arrived.
    pub fn new(layout: &ArenaLayout, first_epoch: Epoch, faults: &[Fault]) -> Self {
        let tag = match faults.contains(&Fault::InitialTagZero) {
            true => Tag::from_bits(0),
            false => first_epoch.initial_tag(),
        };
        let nothing = Packet::new(0.0, tag).to_word();
        let packets = 0..layout.packets();
        Arena(packets.map(|_| AtomicU64::new(nothing)).collect())
    }
}

/// An arena as one rank sees it.
pub struct View {
    arena: Arena,
    faults: &'static [Fault],
    /// The call that the rank is in; known here because `advance` ends with a release.
    epoch: Cell<Epoch>,
    /// The operation that the rank is at; known here because it sends before it waits.
    operation: Cell<u16>,
    /// Whether the rank is between the acquire of `collect` and the release of `advance`, where
    /// the only stores are those that scrub.
    collected: Cell<bool>,
}

impl View {
    /// `arena` as seen by a rank whose first call is `first_epoch`.
    pub fn new(arena: Arena, first_epoch: Epoch, faults: &'static [Fault]) -> Self {
        View {
            arena,
            faults,
            epoch: Cell::new(first_epoch),
            operation: Cell::new(0),
            collected: Cell::new(false),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    fn place(&self, index: usize) -> &AtomicU64 {
        let half = self.arena.0.len() / 2;
        let other_half = self.has(Fault::ScrubsOtherHalf) && self.collected.get();
        let index = match (self.has(Fault::OneHalf), other_half) {
            (true, _) => index % half,
            (false, true) => (index + half) % (2 * half),
            (false, false) => index,
        };
        &self.arena.0[index]
    }

    /// A tag that the endpoint's comparison judges as the faulty one would judge `tag`.
    fn retag(&self, tag: Tag) -> Tag {
        let epoch = self.epoch.get();
        let current = Tag::new(epoch, self.operation.get());
        let stale = epoch.initial_tag();
        if self.has(Fault::PlainOrder) {
            return if tag.bits() < current.bits() {
                stale
            } else {
                current
            };
        }
        match current.classify(tag) {
            Arrival::Ahead if self.has(Fault::AheadIsCurrent) => current,
            Arrival::Ahead if self.has(Fault::AheadIsStale) => stale,
            Arrival::Foreign if self.has(Fault::OperationIgnored) => current,
            _ => tag,
        }
    }
}

impl PacketMemory for View {
    fn load(&self, index: usize) -> u64 {
        // Relaxed: what `PacketMemory` asks for, and all that the model may grant.
        let mut packet = Packet::from_word(self.place(index).load(Ordering::Relaxed));
        packet.tag = self.retag(packet.tag);
        packet.to_word()
    }

    fn store(&self, index: usize, word: u64) {
        if !self.collected.get() {
            self.operation
                .set(Packet::from_word(word).tag.bits() as u16);
        }
        // Relaxed: as above.
        self.place(index).store(word, Ordering::Relaxed);
    }

    fn fence_release(&self) {
        if !self.has(Fault::NoRelease) {
            fence(Ordering::Release);
        }
        self.epoch.set(self.epoch.get().next());
        self.collected.set(false);
    }

    fn fence_acquire(&self) {
        if !self.has(Fault::NoAcquire) {
            fence(Ordering::Acquire);
        }
        self.collected.set(true);
    }
}
