//! A rank on a CUDA device, and how a group of them is connected.
//!
//! What must stay true: arenas and control words outlive every kernel that may touch them. The
//! arenas of all ranks are therefore owned by the group, which each rank keeps alive, and the last
//! rank to go waits for all devices before anything is unmapped.

use super::arena::Arena;
use super::call::{place_of, Site};
use super::driver::{bind, check, context, error, synchronize_context};
use super::failure::Failures;
use super::kernels::Kernels;
use super::memory::DeviceBuffer;
use super::path::{connect, KernelsOf};
use crate::board::Board;
use crate::call::{Place, Stream};
use crate::ffi::{
    TrellinkControl, TrellinkExchange, TrellinkOperation, TRELLINK_MAX_CTAS, TRELLINK_MAX_WORLD,
    TRELLINK_STATE_OK,
};
use crate::path::Route;
use crate::plan::{Tuning, WORKSPACE_BYTES};
use crate::protocol::{ArenaLayout, Epoch, Operation};
use crate::rank::Backend;
use crate::{Device, Error, Group, Rank, Result};
use cudarc::driver::{sys, CudaContext, CudaStream};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What all ranks of a group that are in this process share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Of the ranks in this process.
    pub(super) contexts: Vec<Arc<CudaContext>>,
    /// By rank; empty in a world of one.
    pub(super) arenas: Vec<Arena>,
    /// Which way the packets take.
    pub(super) route: Route,
    pub(super) failures: Failures,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for context in &self.contexts {
            // For kernels that still poll or write an arena.
            let _ = synchronize_context(context);
        }
    }
}

/// The packets and words of one exchange, as one rank sees them, and the memory of the launches that use it.
/// All launches of a rank follow one another, whichever exchange they use.
#[derive(Debug)]
pub(super) struct Channel {
    params: TrellinkExchange,
    /// Pointed to by `params`, as the rank's control word is.
    epochs: DeviceBuffer,
    /// The arena of an exchange among the CTAs of this rank alone.
    local_arena: Option<DeviceBuffer>,
    /// [`WORKSPACE_BYTES`] for transformed inputs.
    workspace: DeviceBuffer,
}

/// One rank's state on its device.
#[derive(Debug)]
pub(crate) struct CudaRank {
    shared: Arc<Shared>,
    kernels: Arc<Kernels>,
    /// For uploads and set-up; never waits for other streams.
    stream: Arc<CudaStream>,
    rank: usize,
    slot_values: usize,
    /// SMs that this rank's kernels may occupy.
    sm_share: usize,
    /// Of the group's, what is about this device and share.
    tuning: Tuning,
    /// A `TrellinkControl`, the same for both channels: what fails on one ends the other.
    control: DeviceBuffer,
    scrub_period: u32,
    /// Among all ranks; a world of one has no need of it.
    group: Option<Channel>,
    /// Among the CTAs of this rank: column-parallel layers and worlds of one.
    local: Channel,
    /// On the processes of the other ranks, if they have their own. Dropped last, after `shared` has
    /// synchronised: until then it may have to end the waits of kernels.
    #[cfg(target_os = "linux")]
    pub(super) watch: Option<crate::rendezvous::Watch>,
}

/// Builds the CUDA ranks of a group.
pub(crate) fn build_group(group: &Group) -> Result<Vec<Rank>> {
    let ordinals = ordinals(group)?;
    let mut ranks_on: BTreeMap<usize, usize> = BTreeMap::new();
    for &ordinal in &ordinals {
        *ranks_on.entry(ordinal).or_default() += 1;
    }
    let mut kernels = KernelsOf::new();
    for &ordinal in ranks_on.keys() {
        kernels.insert(ordinal, Arc::new(Kernels::load(&context(ordinal)?)?));
    }
    let shared = Arc::new(Shared::new(group, &ordinals, &kernels)?);
    let mut ranks = Vec::new();
    for (rank, &ordinal) in ordinals.iter().enumerate() {
        let kernels = &kernels[&ordinal];
        let sm_share = sm_share(kernels, ordinal, ranks_on[&ordinal])?;
        let (shared, kernels) = (shared.clone(), kernels.clone());
        ranks.push(CudaRank::new(group, rank, shared, kernels, sm_share)?.into_rank(group));
    }
    Ok(ranks)
}

/// SMs for each of the ranks that share a device.
pub(super) fn sm_share(kernels: &Kernels, ordinal: usize, ranks: usize) -> Result<usize> {
    match kernels.sm_count / ranks {
        0 => {
            let found = format!("{ranks} ranks on device {ordinal}");
            let expected = format!("at most one per SM, {}", kernels.sm_count);
            Err(Error::argument("devices", found, expected))
        }
        share => Ok(share),
    }
}

fn ordinals(group: &Group) -> Result<Vec<usize>> {
    group
        .devices
        .iter()
        .map(|device| match device {
            Device::Cuda(ordinal) => Ok(*ordinal),
            Device::Host => Err(Error::argument("devices", "host", "CUDA devices")),
        })
        .collect()
}

impl Shared {
    fn new(group: &Group, ordinals: &[usize], kernels: &KernelsOf) -> Result<Self> {
        let mut contexts = Vec::new();
        for &ordinal in ordinals {
            contexts.push(context(ordinal)?);
        }
        let (arenas, route) = connect(group, &contexts, kernels)?;
        Ok(Shared {
            failures: Failures::of_threads(&contexts[0])?,
            contexts,
            arenas,
            route,
        })
    }
}

impl Channel {
    fn new(
        group: &Group,
        shared: &Shared,
        stream: &CudaStream,
        rank: usize,
        control: &DeviceBuffer,
        peers: Option<&[Arena]>,
    ) -> Result<Self> {
        let mut params = TrellinkExchange {
            slot_packets: group.slot_values as u64,
            report: shared.failures.report_pointer(rank),
            abort: shared.failures.abort_pointer(),
            control: control.pointer(),
            world: 1,
            ..Default::default()
        };
        let mut local_arena = None;
        let world = peers.map_or(1, <[Arena]>::len);
        let layout = ArenaLayout::new(world, group.slot_values)?;
        if let Some(arenas) = peers {
            debug_assert!(world <= TRELLINK_MAX_WORLD as usize);
            params.world = world as u32;
            params.rank = rank as u32;
            for (pointer, arena) in params.arena.iter_mut().zip(arenas) {
                *pointer = arena.pointer_in(stream.context())?;
            }
        } else {
            let arena = DeviceBuffer::new(stream.context(), layout.bytes())?;
            params.arena[0] = arena.pointer();
            local_arena = Some(arena);
        }
        params.stop = params.arena[params.rank as usize] + layout.stop_offset() as u64;
        let epochs = DeviceBuffer::new(stream.context(), 4 * TRELLINK_MAX_CTAS as usize)?;
        params.epochs = epochs.pointer();
        let channel = Channel {
            params,
            epochs,
            local_arena,
            workspace: DeviceBuffer::new(stream.context(), WORKSPACE_BYTES)?,
        };
        channel.restart(stream, group.first_epoch)?;
        Ok(channel)
    }

    /// Makes this the epoch of the next call; complete when this returns. An arena that ranks share is left to
    /// its owner.
    fn restart(&self, stream: &CudaStream, first_epoch: Epoch) -> Result<()> {
        if let Some(arena) = &self.local_arena {
            let tag = first_epoch.initial_tag().bits();
            arena.fill(stream, tag, arena.bytes() / 4)?;
        }
        let epochs = [first_epoch.get(); TRELLINK_MAX_CTAS as usize];
        self.epochs.upload(stream, &epochs)
    }

    /// The exchange that a call of this operation makes.
    pub(super) fn exchange(&self, operation: Operation) -> TrellinkExchange {
        let words = operation.to_words();
        TrellinkExchange {
            operation: TrellinkOperation {
                tag: words.tag,
                form: words.form,
                rows: words.rows,
                layer: words.layer,
                columns: words.columns,
            },
            ..self.params
        }
    }

    /// Memory for transformed inputs, [`WORKSPACE_BYTES`].
    pub(super) fn workspace(&self) -> sys::CUdeviceptr {
        self.workspace.pointer()
    }
}

impl CudaRank {
    pub(super) fn new(
        group: &Group,
        rank: usize,
        shared: Arc<Shared>,
        kernels: Arc<Kernels>,
        sm_share: usize,
    ) -> Result<Self> {
        let stream = new_stream(kernels.context())?;
        let control = DeviceBuffer::from_slice(&stream, &[control(group.scrub_period)])?;
        shared.failures.board().set_timeout(rank, group.timeout);
        let device = kernels.context().name();
        let device = device.map_err(|e| error(e, "cuDeviceGetName"))?;
        let channel = |peers| Channel::new(group, &shared, &stream, rank, &control, peers);
        Ok(CudaRank {
            group: match shared.arenas.as_slice() {
                [] => None,
                arenas => Some(channel(Some(arenas))?),
            },
            local: channel(None)?,
            control,
            scrub_period: group.scrub_period,
            slot_values: group.slot_values,
            shared,
            kernels,
            stream,
            rank,
            sm_share,
            tuning: group.tuning.for_device(&device, sm_share),
            #[cfg(target_os = "linux")]
            watch: None,
        })
    }

    pub(super) fn into_rank(self, group: &Group) -> Rank {
        Rank {
            rank: self.rank,
            world: group.devices.len(),
            device: group.devices[self.rank],
            backend: Backend::Cuda(Box::new(self)),
        }
    }

    pub(crate) fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// A stream of this rank's own, for uploads.
    pub(crate) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Where its calls run.
    fn place(&self) -> Place {
        place_of(self.kernels.context())
    }

    pub(crate) fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    pub(crate) fn sm_share(&self) -> usize {
        self.sm_share
    }

    /// Whether a launch may begin before the one ahead of it has ended. Then it holds SMs while that one
    /// waits for other ranks, and must not if these need SMs of the same device.
    pub(crate) fn may_launch_early(&self) -> bool {
        self.sm_share == self.kernels.sm_count
    }

    /// Clusters of two CTAs that are resident at once. None where ranks share a device: their CTAs would have to
    /// be resident beside these, and the driver counts on the whole device.
    pub(crate) fn cluster_pairs(&self) -> usize {
        if self.sm_share == self.kernels.sm_count {
            self.kernels.cluster_pairs
        } else {
            0
        }
    }

    pub(crate) fn slot_values(&self) -> usize {
        self.slot_values
    }

    fn world(&self) -> usize {
        self.group_channel().params.world as usize
    }

    /// The exchange among all ranks; in a world of one, among the CTAs of this one.
    pub(super) fn group_channel(&self) -> &Channel {
        self.group.as_ref().unwrap_or(&self.local)
    }

    /// The exchange among the CTAs of this rank.
    pub(super) fn local_channel(&self) -> &Channel {
        &self.local
    }

    /// Which way the packets of the group take.
    pub(crate) fn route(&self) -> &Route {
        &self.shared.route
    }

    /// The first failure of the group that has reached the host.
    pub(crate) fn check(&self) -> Result<()> {
        let failure = self.shared.failures.of_rank(self.rank, self.world());
        failure.map_or(Ok(()), Err)
    }

    /// Where a call on this stream runs, in a group that works.
    pub(super) fn site<'a>(&self, stream: &Stream<'a>) -> Result<Site<'a>> {
        self.check()?;
        Site::new(stream, self.place())
    }

    /// Where the group's failures and deadlines are.
    pub(crate) fn board(&self) -> &Board {
        self.shared.failures.board()
    }

    /// Waits for everything on a stream of this rank's device.
    pub(crate) fn synchronize(&self, stream: &Stream<'_>) -> Result<()> {
        let site = Site::new(stream, self.place())?;
        bind(self.kernels.context())?;
        // SAFETY: whoever made the stream vouches for it until the call has returned.
        let status = unsafe { sys::cuStreamSynchronize(site.stream.raw) };
        check(status, "cuStreamSynchronize")
    }

    /// This rank's part of a reset of the group.
    pub(crate) fn reset(&mut self) -> Result<()> {
        synchronize_context(self.kernels.context())?;
        let channel = self.group_channel();
        // CTAs that a failure kept from entering have not advanced theirs; they are one apart at most.
        let epoch = Epoch::new(channel.epochs.download_word(&self.stream)?);
        let board = self.shared.failures.board();
        board.reset(self.rank, self.world(), epoch, |first| self.clear(first))
    }

    /// Forgets all calls before the one of this epoch. No kernel of any rank is running.
    fn clear(&self, first_epoch: Epoch) -> Result<()> {
        if let (Some(channel), Some(arena)) = (&self.group, self.shared.arenas.get(self.rank)) {
            channel.restart(&self.stream, first_epoch)?;
            let layout = ArenaLayout::new(self.shared.arenas.len(), self.slot_values)?;
            arena.fill_with_stale_tags(first_epoch, layout)?;
        }
        self.local.restart(&self.stream, first_epoch)?;
        self.control
            .upload(&self.stream, &[control(self.scrub_period)])
    }
}

/// The control word of a rank that works.
fn control(scrub_period: u32) -> TrellinkControl {
    TrellinkControl {
        failed: TRELLINK_STATE_OK,
        scrub_mask: scrub_period - 1,
    }
}

pub(super) fn new_stream(context: &Arc<CudaContext>) -> Result<Arc<CudaStream>> {
    context
        .new_stream()
        .map_err(|e| super::driver::error(e, "cuStreamCreate"))
}

const _: () = assert!(crate::MAX_WORLD == TRELLINK_MAX_WORLD as usize);
