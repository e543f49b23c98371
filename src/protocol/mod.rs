//! The all-to-all exchange of partial sums: packets, epochs, the arena, waiting.
//!
//! Every rank has one *arena*, memory that all ranks can write. A call of the exchange has an
//! [`Epoch`]. In it every rank pushes its values into the arena of every rank, its own included,
//! and then polls its own arena until the values of all ranks are there. A value travels as an
//! 8-byte [`Packet`] that carries a [`Tag`] beside the data, so the data is its own arrival flag:
//! there is no separate flag to order against, no reserved value, and nothing to clear. The tag is the
//! epoch, modulo 2^16, and a digest of the [`Operation`] that the call is.
//!
//! # The invariant
//! *While a rank is in call e, a packet in the half of its arena that belongs to e (by parity) has
//! a tag of e, or of an epoch older by at most 2^15 − 2.*
//!
//! - **Nobody writes too early.** The next call that writes this half is e + 2. A peer reaches it
//!   only after it has collected packets of call e + 1 from everybody, ours too, and we send those
//!   only after we have read everything we want of call e. This is why two halves suffice, and it
//!   holds only if every call is all-to-all: in every call every rank sends at least one value to
//!   every rank and waits for at least one of every rank. A rank without weights takes part with
//!   zeros. A tag from the future therefore means that the ranks do not make the same calls; it
//!   is reported as [`WaitFailure::Ahead`], never waited out.
//! - **Nothing else is added.** A packet of this epoch but another operation means the same; it is
//!   [`WaitFailure::Mismatch`]. Every packet is looked at, so a call in which the operations differ
//!   succeeds on no rank. Two operations share a digest by accident once in 2^16.
//! - **Nothing old looks new.** Tags are compared by signed distance, which is right as long as
//!   the oldest tag is less than 2^15 calls old. A slot that calls no longer reach would break
//!   that, so a rank rewrites a half of its arena every so often: see [`Endpoint::advance`].
//! - **Nobody waits for somebody who waits.** A rank pushes everything it owns in a call before it
//!   waits for anything, and pushing never waits.
//! - **Waits end.** A [`Wait`] policy gives up after a deadline or when the group is aborted.
//!
//! # The result
//! [`Endpoint::collect`] adds in rank order in f32, so all ranks obtain the same bits, every run
//! does, and they equal `reference::reduce`.
//!
//! # Where it runs
//! This module is generic over the memory ([`PacketMemory`]) and the waiting ([`Wait`]): the host
//! back end, the tests and a model checker run the same lines. The kernels implement the same
//! protocol in `csrc/comm/`. No other part of the crate touches a packet or an arena index.

mod arena;
mod epoch;
mod exchange;
mod memory;
mod message;
mod operation;
mod packet;
mod wait;

pub use arena::ArenaLayout;
pub use epoch::{Arrival, Epoch, Tag};
pub use exchange::{Endpoint, WaitFailure, MAX_SCRUB_PERIOD, SCRUB_PERIOD};
pub use memory::{PacketMemory, SharedArena};
pub use message::{messages, Message};
pub(crate) use operation::digest_of_scales;
#[doc(hidden)]
pub use operation::OperationWords;
pub use operation::{Operation, OperationKind};
pub use packet::Packet;
pub use wait::{BoundedWait, GiveUp, Wait};
