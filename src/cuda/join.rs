//! A rank on a CUDA device whose peers are in other processes.
//!
//! What must stay true: an arena's mailbox is empty before its descriptor is sent; when all probes have
//! ended it is filled with stale tags, and no rank can call before all have done so. Taking down needs no order among processes:
//! memory that a process has imported stays valid when the exporter has exited, and a kernel that
//! waits for a peer that is gone is stopped by the abort word.

use super::arena::Arena;
use super::driver::{context, device_count, require_driver, uuid};
use super::failure::Failures;
use super::host_memory::HostMemory;
use super::kernels::Kernels;
use super::link_probe::Side;
use super::memory::SymmetricBuffer;
use super::path::praise;
use super::peer::require_access_from;
use super::rank::{sm_share, CudaRank, Shared};
use crate::board::{Board, BOARD_BYTES};
use crate::path::Route;
use crate::plan::link::{schedule, ROUNDS};
use crate::protocol::ArenaLayout;
use crate::rendezvous::{Links, SharedMemory, Watch};
use crate::{Device, Error, ExchangePath, Group, Rank, Result};
use cudarc::driver::{sys, CudaContext};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Makes sure that the device can be used and gives the name by which all processes know it.
pub(crate) fn prepare(ordinal: usize) -> Result<[u8; 16]> {
    require_driver()?;
    uuid(ordinal)
}

/// The rank of this process in a group whose devices are all CUDA's.
pub(crate) fn join_group(group: &Group, links: &Arc<Links>) -> Result<Rank> {
    let rank = links.rank();
    let Device::Cuda(ordinal) = group.devices[rank] else {
        return Err(Error::argument("devices", "host", "CUDA devices"));
    };
    let context = context(ordinal)?;
    let kernels = Arc::new(Kernels::load(&context)?);
    let sharers = sharers(links);
    let sm_share = sm_share(&kernels, ordinal, sharers)?;
    let memory = links.share_board()?;
    let board = RegisteredBoard::new(&context, memory.clone())?;
    let (arenas, route) = Connection::new(group, links, &kernels)?.connect()?;
    let shared = Shared {
        contexts: vec![context.clone()],
        arenas,
        route,
        failures: Failures::Processes(board),
    };
    let mut joined = CudaRank::new(group, rank, Arc::new(shared), kernels, sm_share)?;
    // All that is likely to fail comes before the others are told to go ahead.
    links.ready()?;
    joined.watch = Some(Watch::start(links.clone(), memory)?);
    Ok(joined.into_rank(group))
}

/// How a rank comes to the arenas of all.
struct Connection<'a> {
    group: &'a Group,
    links: &'a Links,
    kernels: &'a Arc<Kernels>,
    layout: ArenaLayout,
}

impl<'a> Connection<'a> {
    fn new(group: &'a Group, links: &'a Links, kernels: &'a Arc<Kernels>) -> Result<Self> {
        Ok(Connection {
            group,
            links,
            kernels,
            layout: ArenaLayout::new(links.world(), group.slot_values)?,
        })
    }

    /// The arenas of all ranks, mapped for this rank's device, and which way they take: on all ranks the
    /// same.
    fn connect(&self) -> Result<(Vec<Arena>, Route)> {
        let reason = if self.group.path == ExchangePath::HostMemory {
            "it was asked for".to_owned()
        } else {
            match self.on_devices()? {
                Ok(arenas) => {
                    let reason = praise(self.group, self.devices().len());
                    return Ok((arenas, Route::direct(reason)));
                }
                Err(reason) => reason,
            }
        };
        let arenas = self.share(|| self.on_host(), |peer| self.open(peer))?;
        self.probe(&arenas, ExchangePath::HostMemory)?;
        Ok((self.finished(arenas)?, Route::host_memory(reason)))
    }

    /// The arenas on devices, or what is in their way.
    fn on_devices(&self) -> Result<Result<Vec<Arena>, String>> {
        let ordinals = ordinals(self.links)?;
        let access = require_access_from(ordinals[self.links.rank()], &ordinals);
        if let Some(obstacle) = self.agree(access)? {
            return Ok(Err(obstacle));
        }
        let arenas = self.share(|| self.on_device(), |peer| self.import(peer))?;
        let probed = self.probe(&arenas, ExchangePath::Direct);
        match self.agree(probed)? {
            Some(obstacle) => Ok(Err(obstacle)),
            None => Ok(Ok(self.finished(arenas)?)),
        }
    }

    /// What is in the way of any rank, if it allows a detour.
    fn agree(&self, own: Result<()>) -> Result<Option<String>> {
        let obstacle = match own {
            Ok(()) => None,
            Err(obstacle) => Some(self.group.path.detour(obstacle)?),
        };
        self.links.first_obstacle(obstacle)
    }

    /// Makes this rank's arena, sends it to all, and gets theirs; in rank order.
    fn share(
        &self,
        own: impl FnOnce() -> Result<(Arena, usize, OwnedFd)>,
        of_peer: impl Fn(usize) -> Result<Arena>,
    ) -> Result<Vec<Arena>> {
        let (own, bytes, descriptor) = own()?;
        own.clear_mailbox()?;
        self.links.share_arena(bytes, descriptor.as_fd())?;
        let mut own = Some(own);
        let arena = |peer| match own.take_if(|_| peer == self.links.rank()) {
            Some(own) => Ok(own),
            None => of_peer(peer),
        };
        (0..self.links.world()).map(arena).collect()
    }

    fn on_device(&self) -> Result<(Arena, usize, OwnedFd)> {
        let buffer = SymmetricBuffer::exportable(self.context(), self.layout.bytes())?;
        let (bytes, descriptor) = (buffer.bytes(), buffer.export()?);
        Ok((Arena::Device(buffer), bytes, descriptor))
    }

    fn import(&self, peer: usize) -> Result<Arena> {
        let (descriptor, bytes) = self.links.receive_arena(peer)?;
        let needed = self.layout.bytes();
        let Some(bytes) = usize::try_from(bytes).ok().filter(|bytes| *bytes >= needed) else {
            let reason =
                format!("the arena of rank {peer} has {bytes} bytes where {needed} are needed");
            let rank = self.links.rank();
            return Err(Error::Rendezvous { rank, reason });
        };
        let buffer = SymmetricBuffer::import(self.context(), descriptor, bytes)?;
        Ok(Arena::Device(buffer))
    }

    fn on_host(&self) -> Result<(Arena, usize, OwnedFd)> {
        let bytes = self.host_bytes();
        let (memory, descriptor) = SharedMemory::new("trellink-arena", bytes)?;
        let memory = HostMemory::register(self.context(), Arc::new(memory))?;
        Ok((Arena::Host(memory), bytes, descriptor))
    }

    fn open(&self, peer: usize) -> Result<Arena> {
        let (descriptor, _) = self.links.receive_arena(peer)?;
        let memory = SharedMemory::open(descriptor, self.host_bytes())?;
        let memory = HostMemory::register(self.context(), Arc::new(memory))?;
        Ok(Arena::Host(memory))
    }

    /// Bytes of an arena on the host: whole pages, which is what CUDA registers.
    fn host_bytes(&self) -> usize {
        self.layout.bytes().next_multiple_of(BOARD_BYTES)
    }

    /// Tries this rank's links, each while the peer does, if it stands for its device; fails with the first
    /// that is bad. All ranks take the same steps, whatever they find.
    fn probe(&self, arenas: &[Arena], path: ExchangePath) -> Result<()> {
        let (rank, devices) = (self.links.rank(), self.devices());
        let mut outcome = Ok(());
        if !self.group.probe_links {
            return outcome;
        }
        for (step, pairs) in schedule(devices.len()).into_iter().enumerate() {
            let pairs = pairs.into_iter().map(|(a, b)| [devices[a], devices[b]]);
            let peer = pairs
                .filter(|pair| pair.contains(&rank))
                .map(|[a, b]| if a == rank { b } else { a })
                .next();
            let side = peer.map(|peer| Side::new(self.kernels, &arenas[rank], &arenas[peer]));
            let side = side.transpose()?;
            // Both start now, and nobody allocates while a peer's kernel waits.
            self.links.ready()?;
            let (Some(peer), Some(side)) = (peer, side) else {
                continue;
            };
            side.start(1 + step as u32 * ROUNDS)?;
            if let (Ok(()), Some(reason)) = (&outcome, side.finish()?.problem()) {
                outcome = Err(self.bad_link(peer, path, reason));
            }
        }
        outcome
    }

    /// What came in, or did not, is of the peer's sending, as far as one side can tell.
    fn bad_link(&self, peer: usize, path: ExchangePath, reason: String) -> Error {
        let own = self.context().ordinal();
        let rank = self.links.rank();
        let reason = format!("rank {rank} says of what rank {peer} sent: {reason}");
        Error::LinkProbe {
            device: ordinals(self.links).map_or(own, |ordinals| ordinals[peer]),
            peer: own,
            path,
            reason,
        }
    }

    /// The arenas when nobody probes any more; this rank's is ready for use.
    fn finished(&self, arenas: Vec<Arena>) -> Result<Vec<Arena>> {
        if self.group.probe_links {
            self.links.ready()?;
        }
        arenas[self.links.rank()].fill_with_stale_tags(self.group.first_epoch, self.layout)?;
        Ok(arenas)
    }

    fn context(&self) -> &Arc<CudaContext> {
        self.kernels.context()
    }

    /// The first rank of each device, which stands for it.
    fn devices(&self) -> Vec<usize> {
        let device = |rank: usize| self.links.hello(rank).device;
        let is_first = |rank: &usize| !(0..*rank).any(|other| device(other) == device(*rank));
        (0..self.links.world()).filter(is_first).collect()
    }
}

/// The ordinals that the devices of all ranks have in this process.
fn ordinals(links: &Links) -> Result<Vec<usize>> {
    let visible = (0..device_count()?).map(uuid).collect::<Result<Vec<_>>>()?;
    let ordinal = |rank| {
        let device = links.hello(rank).device;
        let found = visible.iter().position(|uuid| *uuid == device);
        found.ok_or_else(|| Error::Rendezvous {
            rank: links.rank(),
            reason: format!(
                "the device of rank {rank} is not visible to this process; let every process see \
                 the devices of all ranks (CUDA_VISIBLE_DEVICES)"
            ),
        })
    };
    (0..links.world()).map(ordinal).collect()
}

/// Ranks that run on this rank's device, itself included.
fn sharers(links: &Links) -> usize {
    let own = links.hello(links.rank()).device;
    let ranks = 0..links.world();
    ranks
        .filter(|rank| links.hello(*rank).device == own)
        .count()
}

/// A board in memory that processes share, mapped for kernels.
#[derive(Debug)]
pub(super) struct RegisteredBoard {
    memory: Arc<SharedMemory>,
    device_pointer: sys::CUdeviceptr,
    /// Kept for its life.
    _registered: HostMemory,
}

impl RegisteredBoard {
    fn new(context: &Arc<CudaContext>, memory: Arc<SharedMemory>) -> Result<Self> {
        // Each rank has a mapping of its own, so it is not registered yet.
        let registered = HostMemory::register(context, memory.clone())?;
        Ok(RegisteredBoard {
            memory,
            device_pointer: registered.pointer_in(context)?,
            _registered: registered,
        })
    }

    pub(super) fn board(&self) -> &Board {
        (*self.memory).as_ref()
    }

    /// Where kernels find it.
    pub(super) fn device_pointer(&self) -> sys::CUdeviceptr {
        self.device_pointer
    }
}
