//! One rank of a group: what a thread needs to call layers.

use crate::board::Board;
use crate::{Device, ExchangePath, Result, Stream, MAX_WORLD};
use std::time::Duration;

/// One rank of a group.
///
/// A rank belongs to one thread at a time: collective calls take it by `&mut`, so that a rank's
/// calls have one order. It may be moved between threads (`Send`) and its state may be looked at
/// from several (`Sync`).
///
/// On a GPU dropping a rank waits for everything that is enqueued on its device, its own calls included. These
/// wait for those of the other ranks, at most until the [timeout](Self::timeout): what that means for a thread
/// that serves several ranks is said at [`Group::new`](crate::Group::new). Graphs that hold calls of the rank
/// must not run afterwards ([why](crate#safety)).
///
/// Every rank must make the same collective calls in the same order. Dropping a rank while others
/// still call makes their calls fail with [`PeerTimeout`](crate::Error::PeerTimeout). Between
/// processes a rank should be dropped before its process ends; else the others take it for dead, and
/// their calls fail with [`PeerLost`](crate::Error::PeerLost). A group that has failed otherwise works again
/// after all ranks have called [`reset`](Self::reset).
#[derive(Debug)]
pub struct Rank {
    pub(crate) rank: usize,
    pub(crate) world: usize,
    pub(crate) device: Device,
    pub(crate) backend: Backend,
}

#[derive(Debug)]
pub(crate) enum Backend {
    Host(crate::host::HostRank),
    #[cfg(feature = "cuda")]
    Cuda(Box<crate::cuda::CudaRank>),
}

impl Rank {
    /// This rank's number, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of ranks in the group.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Where this rank runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The way that packets take between the ranks of the group, the same on all of them:
    /// [`Direct`](ExchangePath::Direct) or [`HostMemory`](ExchangePath::HostMemory). Ranks on the host
    /// have no memory but its; a single rank sends nothing, and is said to do so directly.
    pub fn path(&self) -> ExchangePath {
        match &self.backend {
            Backend::Host(_) => ExchangePath::HostMemory,
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.route().path,
        }
    }

    /// Why they take this one, for a reader: of a detour, which link was found wanting and how.
    pub fn path_reason(&self) -> &str {
        match &self.backend {
            Backend::Host(_) => "the ranks are on the host",
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => &cuda.route().reason,
        }
    }

    /// Whether the group still works, without synchronising: on a GPU failures of calls that
    /// have already run are seen, calls still in flight are not waited for. One look at a word in host
    /// memory, while it works; after a failure who looks first may wait up to 50 ms for the other ranks' reports.
    ///
    /// # Errors
    /// The group's first failure: [`PeerTimeout`](crate::Error::PeerTimeout), [`Mismatch`](crate::Error::Mismatch),
    /// [`PeerAhead`](crate::Error::PeerAhead), [`PeerLost`](crate::Error::PeerLost) or
    /// [`GroupFailed`](crate::Error::GroupFailed). Outputs of calls since the last successful check are not
    /// valid. Every later check and call gives it as well, until [`reset`](Self::reset).
    pub fn check(&self) -> Result<()> {
        match &self.backend {
            Backend::Host(host) => host.check(),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.check(),
        }
    }

    /// Waits until everything enqueued on `stream` has run, then [checks](Self::check): if there is no
    /// error, the outputs of all calls on it are valid.
    ///
    /// The wait ends, since those of the calls do. On the host there is nothing to wait for.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); [`InvalidArgument`](crate::Error::InvalidArgument) for a stream of another
    /// device; [`Cuda`](crate::Error::Cuda).
    pub fn synchronize(&self, stream: Stream<'_>) -> Result<()> {
        match &self.backend {
            Backend::Host(_) => stream.require_host()?,
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.synchronize(&stream)?,
        }
        self.check()
    }

    /// How long a wait of this rank may last.
    pub fn timeout(&self) -> Duration {
        self.board().timeout(self.rank)
    }

    /// Sets how long a wait of any rank of the group may last, from now on: captured graphs need no change,
    /// and kernels that wait already obey it too (on the host, waits that begin). Any rank may do this at any
    /// time; it is not collective.
    pub fn set_timeout(&self, timeout: Duration) {
        (0..MAX_WORLD).for_each(|rank| self.board().set_timeout(rank, timeout));
    }

    /// Brings a group that has failed back to work. Collective: every rank calls it, from its own thread or
    /// process, and it returns when all have. For the other ranks it waits no longer than the
    /// [timeout](Self::timeout); on a GPU it first waits for the rank's own kernels, which may take until theirs, so
    /// that it returns after twice the timeout at the latest.
    ///
    /// Calls before it are void, finished or not; all ranks continue with the next call together. Layers,
    /// memory and captured graphs stay good. In a group that works it does no harm.
    ///
    /// On a GPU it waits for everything on the rank's device, so nothing may be enqueued there that waits for
    /// something else to come, no capture be under way, and no call or replay of the group may follow from
    /// another thread until it has returned. Outputs of failed calls hold what they held, or nothing of use.
    ///
    /// # Errors
    /// [`ResetIncomplete`](crate::Error::ResetIncomplete) if a rank has not come in time; the group stays failed and
    /// reset may be called again. [`PeerLost`](crate::Error::PeerLost) if the process of a rank has died: build a new
    /// group. [`Cuda`](crate::Error::Cuda).
    pub fn reset(&mut self) -> Result<()> {
        match &mut self.backend {
            Backend::Host(host) => host.reset(),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.reset(),
        }
    }

    fn board(&self) -> &Board {
        match &self.backend {
            Backend::Host(host) => host.board(),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.board(),
        }
    }
}
