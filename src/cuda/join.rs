//! A rank on a CUDA device whose peers are in other processes.
//!
//! What must stay true: an arena is full of stale tags before its descriptor is sent, and no rank
//! can call before all ranks have mapped all arenas. Taking down needs no order among processes:
//! memory that a process has imported stays valid when the exporter has exited, and a kernel that
//! waits for a peer that is gone is stopped by the abort word.

use super::driver::{bind, check, context, device_count, require_driver, uuid};
use super::failure::Failures;
use super::kernels::Kernels;
use super::memory::SymmetricBuffer;
use super::peer::require_access_from;
use super::rank::{fill_with_stale_tags, sm_share, CudaRank, Shared};
use crate::board::{Board, BOARD_BYTES};
use crate::protocol::ArenaLayout;
use crate::rendezvous::{Links, SharedMemory, Watch};
use crate::{Device, Error, Group, Rank, Result};
use cudarc::driver::{sys, CudaContext};
use std::os::fd::AsFd;
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
    require_access_from(ordinal, &ordinals(links)?)?;

    let memory = links.share_board()?;
    let board = RegisteredBoard::new(&context, memory.clone())?;
    let shared = Shared {
        contexts: vec![context.clone()],
        arenas: share_arenas(group, links, &context)?,
        failures: Failures::Processes(board),
    };
    let mut joined = CudaRank::new(group, rank, Arc::new(shared), kernels, sm_share)?;
    // All that is likely to fail comes before the others are told to go ahead.
    links.ready()?;
    joined.watch = Some(Watch::start(links.clone(), memory)?);
    Ok(joined.into_rank(group))
}

/// The arenas of all ranks, mapped for this rank's device.
fn share_arenas(
    group: &Group,
    links: &Links,
    context: &Arc<CudaContext>,
) -> Result<Vec<SymmetricBuffer>> {
    let layout = ArenaLayout::new(links.world(), group.slot_values)?;
    let own = SymmetricBuffer::exportable(context, layout.bytes())?;
    fill_with_stale_tags(group, &own, layout)?;
    links.share_arena(own.bytes(), own.export()?.as_fd())?;
    let mut own = Some(own);
    let mut arenas = Vec::new();
    for peer in 0..links.world() {
        match own.take_if(|_| peer == links.rank()) {
            Some(own) => arenas.push(own),
            None => arenas.push(import(links, peer, context, layout)?),
        }
    }
    Ok(arenas)
}

fn import(
    links: &Links,
    peer: usize,
    context: &Arc<CudaContext>,
    layout: ArenaLayout,
) -> Result<SymmetricBuffer> {
    let (descriptor, bytes) = links.receive_arena(peer)?;
    match usize::try_from(bytes) {
        Ok(bytes) if bytes >= layout.bytes() => SymmetricBuffer::import(context, descriptor, bytes),
        _ => Err(Error::Rendezvous {
            rank: links.rank(),
            reason: format!(
                "the arena of rank {peer} has {bytes} bytes where {} are needed",
                layout.bytes()
            ),
        }),
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
    context: Arc<CudaContext>,
    memory: Arc<SharedMemory>,
    device_pointer: sys::CUdeviceptr,
}

impl RegisteredBoard {
    fn new(context: &Arc<CudaContext>, memory: Arc<SharedMemory>) -> Result<Self> {
        bind(context)?;
        let pointer = memory.as_mut_ptr().cast();
        let flags = sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP;
        // SAFETY: the mapping begins at a page, has BOARD_BYTES bytes, and is not registered yet:
        // each rank has a mapping of its own.
        let status = unsafe { sys::cuMemHostRegister_v2(pointer, BOARD_BYTES, flags) };
        check(status, "cuMemHostRegister")?;
        let mut board = RegisteredBoard {
            context: context.clone(),
            memory,
            device_pointer: 0,
        };
        // SAFETY: the pointer has just been registered with DEVICEMAP.
        let status =
            unsafe { sys::cuMemHostGetDevicePointer_v2(&mut board.device_pointer, pointer, 0) };
        check(status, "cuMemHostGetDevicePointer")?;
        Ok(board)
    }

    pub(super) fn board(&self) -> &Board {
        (*self.memory).as_ref()
    }

    /// Where kernels find it.
    pub(super) fn device_pointer(&self) -> sys::CUdeviceptr {
        self.device_pointer
    }
}

impl Drop for RegisteredBoard {
    fn drop(&mut self) {
        if bind(&self.context).is_ok() {
            // SAFETY: registered in `new` and unregistered only here, before the mapping goes. The
            // owner makes sure that no kernel of this process uses it any more.
            let _ = unsafe { sys::cuMemHostUnregister(self.memory.as_mut_ptr().cast()) };
        }
    }
}
