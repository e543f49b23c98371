//! One rank's part in the exchange: push, collect, advance.
//!
//! What must stay true, call by call and on every rank: push all values to all ranks, then collect
//! the values of all ranks, then advance. The module documentation argues why that is enough.

use super::{ArenaLayout, Arrival, Epoch, GiveUp, Packet, PacketMemory, Tag, Wait};
use crate::{Error, Result};
use std::time::Duration;

/// Calls between two rewritings of the same half of an arena.
pub const SCRUB_PERIOD: u32 = 1 << 13;

/// The longest period there may be: what kernels post for themselves (`csrc/comm/epoch.h`) is tagged as
/// 2^14 calls old, so no packet may be, and what was posted must not become 2^15 calls old.
pub const MAX_SCRUB_PERIOD: u32 = 1 << 13;

/// Why [`Endpoint::collect`] ended without all packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitFailure {
    /// The packets of `peer` did not arrive in time.
    TimedOut {
        /// The rank whose packets are missing.
        peer: usize,
        /// Which of its values was waited for.
        value: usize,
        /// How long the wait took.
        waited: Duration,
    },
    /// The group was told to stop.
    Aborted,
    /// `peer` already sent a packet of a later call.
    Ahead {
        /// The rank that is ahead.
        peer: usize,
        /// The call that its packet belongs to.
        found: Epoch,
    },
    /// `peer` sent a packet of another operation in this call.
    Mismatch {
        /// The rank that called something else.
        peer: usize,
        /// The tag of its packet.
        found: Tag,
    },
}

/// One rank of a group: writes the arenas of all ranks, reads its own.
#[derive(Debug)]
pub struct Endpoint<M> {
    rank: usize,
    layout: ArenaLayout,
    /// By rank; `arenas[rank]` is this rank's own.
    arenas: Vec<M>,
    epoch: Epoch,
    /// The digest of the operation that the call is.
    operation: u16,
    scrub_period: u32,
}

impl<M: PacketMemory> Endpoint<M> {
    /// The endpoint of `rank`, given the arenas of all ranks in rank order.
    ///
    /// All packets must carry [`Epoch::initial_tag`] of `first_epoch`, and all ranks must start
    /// with the same `first_epoch`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `rank` or the number of arenas does not fit `layout`.
    pub fn new(
        rank: usize,
        layout: ArenaLayout,
        arenas: Vec<M>,
        first_epoch: Epoch,
    ) -> Result<Self> {
        let world = layout.world();
        if rank >= world {
            let expected = format!("a rank below {world}");
            return Err(Error::argument("rank", rank.to_string(), expected));
        }
        if arenas.len() != world {
            let expected = format!("one arena per rank, {world}");
            return Err(Error::argument(
                "arenas",
                arenas.len().to_string(),
                expected,
            ));
        }
        Ok(Endpoint {
            rank,
            layout,
            arenas,
            epoch: first_epoch,
            operation: 0,
            scrub_period: SCRUB_PERIOD,
        })
    }

    /// Rewrites each half every `period` calls instead of every [`SCRUB_PERIOD`]; for tests.
    ///
    /// # Panics
    /// If `period` is not a power of two from 2 to [`MAX_SCRUB_PERIOD`]. Powers of two divide 2^32, so
    /// the rhythm survives the wrap; even ones let every half have its turn.
    #[must_use]
    pub fn with_scrub_period(mut self, period: u32) -> Self {
        assert!(
            period.is_power_of_two() && (2..=MAX_SCRUB_PERIOD).contains(&period),
            "scrub period {period} is not a power of two from 2 to 2^13"
        );
        self.scrub_period = period;
        self
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The shape of the arenas.
    pub fn layout(&self) -> &ArenaLayout {
        &self.layout
    }

    /// The call that this rank is in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Says what this call and the following are; the digest is the same on all ranks.
    pub fn begin(&mut self, operation: u16) {
        self.operation = operation;
    }

    /// Makes the next call `first_epoch` and this rank's arena one in which nothing has arrived.
    ///
    /// No rank may be in a call, nor begin one before all ranks have done this with the same epoch.
    pub fn restart(&mut self, first_epoch: Epoch) {
        let nothing = Packet::new(0.0, first_epoch.initial_tag()).to_word();
        for index in 0..self.layout.packets() {
            self.own_arena().store(index, nothing);
        }
        self.epoch = first_epoch;
    }

    /// What every packet of this call carries.
    fn tag(&self) -> Tag {
        Tag::new(self.epoch, self.operation)
    }

    /// Sends `values` to all ranks as values `first_value..` of this rank in this call.
    ///
    /// Never waits. Push everything this rank owns in the call before collecting anything: a peer
    /// may need it before it can send what this rank would wait for.
    ///
    /// # Panics
    /// If the values do not fit into a slot.
    pub fn push(&self, first_value: usize, values: &[f32]) {
        for arena in &self.arenas {
            for (i, &value) in values.iter().enumerate() {
                let index = self.index(self.rank, first_value + i);
                arena.store(index, Packet::new(value, self.tag()).to_word());
            }
        }
    }

    /// Waits for values `first_value..` of all ranks and writes their sums to `out`, each added up
    /// in f32 in rank order.
    ///
    /// May be called several times in a call of the exchange, for different values or the same.
    ///
    /// # Errors
    /// The first failure; `out` then holds nothing of use and the group must not go on.
    ///
    /// # Panics
    /// If the values do not fit into a slot.
    pub fn collect(
        &self,
        first_value: usize,
        out: &mut [f32],
        wait: &impl Wait,
    ) -> Result<(), WaitFailure> {
        for peer in 0..self.layout.world() {
            for (i, sum) in out.iter_mut().enumerate() {
                let value = self.receive(peer, first_value + i, wait)?;
                // The first rank's value is taken as it is: 0 + −0 would lose a sign.
                *sum = if peer == 0 { value } else { *sum + value };
            }
        }
        // Pairs with the release in `advance` of every peer: what we store from here on, in
        // particular into a half that a peer has read or scrubbed, comes after that.
        self.own_arena().fence_acquire();
        Ok(())
    }

    /// Ends the call; to be called after a successful collect.
    ///
    /// Every [`SCRUB_PERIOD`] calls it also rewrites the packets of one half of this rank's arena.
    pub fn advance(&mut self) {
        if self.epoch.get() % self.scrub_period < 2 {
            self.scrub();
        }
        // Pairs with the acquire in `collect` of every peer: a peer that has seen a packet of our
        // next call writes this half only after all that we did to it so far, the reads of
        // `collect` and the stores of `scrub` alike.
        self.own_arena().fence_release();
        self.epoch = self.epoch.next();
    }

    /// Gives every packet of the half in use the tag of this call.
    ///
    /// A slot that no call reaches any more (short messages after a long one) keeps its tag. After
    /// 2^15 calls its signed distance changes sign and the slot would look ahead, after 2^16 even
    /// current, with data from another age. With this no tag is older than the period plus one.
    ///
    /// Nobody writes newer packets here meanwhile. The next writers of this half are peers in call
    /// e + 2, who have our packets of e + 1 by then, and we send those only after this. A packet
    /// of call e that this rank did not collect may still be on its way; whichever of the two
    /// stores comes last, the slot is tagged e, and no one reads it after the end of the call.
    fn scrub(&self) {
        let nothing = Packet::new(0.0, self.tag()).to_word();
        for index in self.layout.half(self.epoch.parity()) {
            self.own_arena().store(index, nothing);
        }
    }

    /// Polls one packet of this call until it is there.
    fn receive(&self, peer: usize, value: usize, wait: &impl Wait) -> Result<f32, WaitFailure> {
        let index = self.index(peer, value);
        let mut polls = 0u32;
        loop {
            let packet = Packet::from_word(self.own_arena().load(index));
            let found = packet.tag;
            match self.tag().classify(found) {
                Arrival::Current => return Ok(packet.value()),
                Arrival::Ahead => {
                    let found = self.epoch.after(self.tag().distance(found));
                    return Err(WaitFailure::Ahead { peer, found });
                }
                Arrival::Foreign => return Err(WaitFailure::Mismatch { peer, found }),
                Arrival::Stale => {}
            }
            polls = polls.saturating_add(1);
            wait.pause(polls).map_err(|reason| match reason {
                GiveUp::TimedOut { waited } => WaitFailure::TimedOut {
                    peer,
                    value,
                    waited,
                },
                GiveUp::Aborted => WaitFailure::Aborted,
            })?;
        }
    }

    fn own_arena(&self) -> &M {
        &self.arenas[self.rank]
    }

    fn index(&self, source: usize, value: usize) -> usize {
        self.layout.index(self.epoch.parity(), source, value)
    }
}
