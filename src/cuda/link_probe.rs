//! Trying the way between two devices before packets depend on it.
//!
//! What must stay true: nothing is allocated or freed between the first launch of a probe and the end of
//! both, since that may wait for a kernel that waits for one that is not launched yet.

use super::arena::{Arena, MAILBOX_BYTES};
use super::driver::{context, require_driver};
use super::host_memory::HostMemory;
use super::kernels::{Kernels, Launch};
use super::memory::{synchronize, MappedHost, SymmetricBuffer};
use super::peer::links;
use super::rank::new_stream;
use crate::ffi::{TrellinkLinkProbe, TrellinkLinkVerdict, TRELLINK_LINK_PROBE_THREADS};
use crate::plan::link::{judge, Ending, Finding, Verdict, ROUNDS, TIMEOUT};
use crate::{ExchangePath, Result};
use cudarc::driver::{sys, CudaStream};
use std::sync::Arc;
use std::time::Duration;

/// What a probe has found of one ordered pair of devices.
#[derive(Clone, Debug)]
pub struct ProbedLink {
    /// Ordinal of the device that writes and loads.
    pub device: usize,
    /// Ordinal of the device whose memory it is, or that reads in host memory what the other wrote.
    pub peer: usize,
    /// What was seen.
    pub verdict: Verdict,
}

/// Probes every ordered pair of distinct devices among `ordinals`, as a group with this path would before it
/// is used: with [`Direct`](ExchangePath::Direct) those that have peer access both ways, through the devices'
/// own memory; else all of them, through host memory. A pair that is not probed is not in the result.
///
/// # Errors
/// [`Error::CudaUnavailable`](crate::Error::CudaUnavailable) without driver, device or kernel,
/// [`Error::Cuda`](crate::Error::Cuda).
pub fn probe_links(ordinals: &[usize], path: ExchangePath) -> Result<Vec<ProbedLink>> {
    require_driver()?;
    let mut kernels = Vec::new();
    for &ordinal in ordinals {
        kernels.push(Arc::new(Kernels::load(&context(ordinal)?)?));
    }
    let mut probed = Vec::new();
    for (at, first) in kernels.iter().enumerate() {
        for second in &kernels[at + 1..] {
            let devices = [first, second].map(|kernels| kernels.context().ordinal());
            let accessible = || Ok(links(&devices)?.iter().all(|link| link.access));
            if path != ExchangePath::Direct || accessible()? {
                probed.extend(probe_alone([first, second], devices, path)?);
            }
        }
    }
    Ok(probed)
}

/// Probes two devices, by memory that nothing else uses.
fn probe_alone(
    kernels: [&Arc<Kernels>; 2],
    devices: [usize; 2],
    path: ExchangePath,
) -> Result<[ProbedLink; 2]> {
    let mailbox = |kernels: &Arc<Kernels>| {
        let context = kernels.context();
        let mailbox = match path {
            ExchangePath::Direct => {
                Arena::Device(SymmetricBuffer::new(context, MAILBOX_BYTES, &devices)?)
            }
            _ => Arena::Host(HostMemory::allocate(context, MAILBOX_BYTES)?),
        };
        mailbox.clear_mailbox()?;
        Ok(mailbox)
    };
    let [first, second] = kernels;
    let mailboxes = (mailbox(first)?, mailbox(second)?);
    probe_pair([(first, &mailboxes.0), (second, &mailboxes.1)], 1)
}

/// Probes the two ways between two devices, by arenas of theirs whose mailboxes hold nothing but what probes
/// with lesser tags have left.
pub(super) fn probe_pair(
    ends: [(&Arc<Kernels>, &Arena); 2],
    first_tag: u32,
) -> Result<[ProbedLink; 2]> {
    let [(first, first_arena), (second, second_arena)] = ends;
    let sides = [
        Side::new(first, first_arena, second_arena)?,
        Side::new(second, second_arena, first_arena)?,
    ];
    let started: Result<Vec<()>> = sides.iter().map(|side| side.start(first_tag)).collect();
    // Also if the second could not be started: the first still uses the memory.
    let findings = [sides[0].finish(), sides[1].finish()];
    started?;
    let [first_finding, second_finding] = findings;
    let verdicts = judge(&[first_finding?, second_finding?]);
    let ordinals = [first, second].map(|kernels| kernels.context().ordinal());
    let [there, back] = verdicts;
    let link = |device: usize, peer: usize, verdict| ProbedLink {
        device: ordinals[device],
        peer: ordinals[peer],
        verdict,
    };
    Ok([link(0, 1, there), link(1, 0, back)])
}

/// One device in a probe.
pub(super) struct Side {
    kernels: Arc<Kernels>,
    stream: Arc<CudaStream>,
    own: sys::CUdeviceptr,
    peer: sys::CUdeviceptr,
    verdict: MappedHost<TrellinkLinkVerdict>,
}

impl Side {
    /// The device of these kernels, its mailbox in one arena and its peer's in the other.
    pub(super) fn new(kernels: &Arc<Kernels>, own: &Arena, peer: &Arena) -> Result<Self> {
        let context = kernels.context();
        Ok(Side {
            kernels: kernels.clone(),
            stream: new_stream(context)?,
            own: own.pointer_in(context)?,
            peer: peer.pointer_in(context)?,
            verdict: MappedHost::new(context)?,
        })
    }

    /// Starts the probe; the peer is to do so about now, with the same tag.
    pub(super) fn start(&self, first_tag: u32) -> Result<()> {
        let params = TrellinkLinkProbe {
            own: self.own,
            peer: self.peer,
            verdict: self.verdict.device_pointer(),
            timeout_ns: TIMEOUT.as_nanos() as u64,
            first_tag,
            rounds: ROUNDS,
        };
        let launch = Launch {
            grid: 1,
            cluster: 1,
            threads: TRELLINK_LINK_PROBE_THREADS,
            shared_bytes: 0,
            stream: self.stream.cu_stream(),
            early: false,
        };
        // SAFETY: the kernel takes a TrellinkLinkProbe. Arenas have room for a mailbox, and whoever holds a
        // side keeps them until it is finished.
        unsafe {
            self.kernels
                .launch(self.kernels.link_probe, launch, &params)
        }
    }

    /// Waits for the end of the probe, which its deadline brings about at the latest.
    pub(super) fn finish(&self) -> Result<Finding> {
        synchronize(&self.stream)?;
        let verdict = self.verdict.read();
        Ok(Finding {
            ending: Ending::of(verdict.state),
            round: verdict.round,
            word: verdict.word,
            expected: verdict.expected,
            found: verdict.found,
            elapsed: Duration::from_nanos(verdict.elapsed_ns),
        })
    }
}

/// The numbers of `Ending::of` are those of the kernel.
const _: () = {
    use crate::ffi::*;
    let states = [
        TRELLINK_LINK_UNFINISHED,
        TRELLINK_LINK_GOOD,
        TRELLINK_LINK_NO_PACKET,
        TRELLINK_LINK_NO_FLAG,
        TRELLINK_LINK_TORN_PACKET,
        TRELLINK_LINK_STALE_DATA,
        TRELLINK_LINK_WRONG_LOAD,
    ];
    let mut number = 0;
    while number < states.len() {
        assert!(states[number] == number as u32);
        number += 1;
    }
};
