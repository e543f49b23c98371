//! One rank of a group: what a thread needs to call layers.

use crate::{Device, ExchangePath, Result};

/// One rank of a group.
///
/// A rank belongs to one thread at a time: collective calls take it by `&mut`, so that a rank's
/// calls have one order. It may be moved between threads (`Send`) and its state may be looked at
/// from several (`Sync`).
///
/// Every rank must make the same collective calls in the same order. Dropping a rank while others
/// still call makes their calls fail with [`PeerTimeout`](crate::Error::PeerTimeout). Between
/// processes a rank should be dropped before its process ends; else the others take it for dead, and
/// their calls fail with [`PeerLost`](crate::Error::PeerLost).
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
    /// have already run are seen, calls still in flight are not waited for.
    ///
    /// # Errors
    /// [`PeerTimeout`](crate::Error::PeerTimeout), [`PeerAhead`](crate::Error::PeerAhead),
    /// [`PeerLost`](crate::Error::PeerLost) or [`GroupFailed`](crate::Error::GroupFailed): the
    /// first failure. Outputs of calls since the
    /// last successful check are not valid.
    pub fn check(&self) -> Result<()> {
        match &self.backend {
            Backend::Host(host) => host.check(),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.check(),
        }
    }
}
