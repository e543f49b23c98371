//! Ranks in different processes of one machine: how they meet, share memory and miss one another.
//!
//! Every process connects to every other by a Unix socket (`address`, `meet`). Over it travel the
//! settings, which must agree (`message`), and file descriptors of the memory that they share
//! (`links`, `shared_memory`). Afterwards the connection stays open and says, by closing, that a
//! process has died (`watch`). Nothing of that is in the way of a call: the exchange itself goes
//! through the shared memory, as between threads.
//!
//! What must stay true: no bytes that come through a socket end in a panic, an allocation of their
//! choosing or a wait beyond the deadline, and nobody but the same user gets as far as sending some.

#[cfg(target_os = "linux")]
mod address;
#[cfg(target_os = "linux")]
mod credentials;
#[cfg(target_os = "linux")]
mod links;
#[cfg(target_os = "linux")]
mod meet;
pub mod message;
#[cfg(target_os = "linux")]
mod shared_memory;
#[cfg(target_os = "linux")]
mod socket;
#[cfg(target_os = "linux")]
mod watch;

#[cfg(target_os = "linux")]
pub(crate) use {links::Links, shared_memory::SharedMemory, watch::Watch};

#[cfg(target_os = "linux")]
pub use place::Rendezvous;

#[cfg(target_os = "linux")]
use place::Exchange;

#[cfg(target_os = "linux")]
mod place;
