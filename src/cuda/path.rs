//! Which way the ranks of one process exchange, and the arenas that this takes.
//!
//! What must stay true: before any rank can call, its arena is full of stale tags, also where a probe has
//! written, and every probe has ended.

use super::arena::Arena;
use super::host_memory::HostMemory;
use super::kernels::Kernels;
use super::link_probe::{probe_pair, ProbedLink};
use super::memory::SymmetricBuffer;
use super::peer::require_access;
use crate::path::Route;
use crate::plan::link::{Verdict, ROUNDS};
use crate::protocol::ArenaLayout;
use crate::{Error, ExchangePath, Group, Result};
use cudarc::driver::CudaContext;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The kernels of each device of the group, by ordinal.
pub(super) type KernelsOf = BTreeMap<usize, Arc<Kernels>>;

/// The arenas of ranks with these contexts, none for a single one, and which way they exchange.
pub(super) fn connect(
    group: &Group,
    contexts: &[Arc<CudaContext>],
    kernels: &KernelsOf,
) -> Result<(Vec<Arena>, Route)> {
    if contexts.len() == 1 {
        let route = Route::direct("a single rank exchanges with nobody");
        return Ok((Vec::new(), route));
    }
    let reason = if group.path == ExchangePath::HostMemory {
        "it was asked for".to_owned()
    } else {
        match on_devices(group, contexts, kernels) {
            Ok(arenas) => return Ok((arenas, Route::direct(praise(group, kernels.len())))),
            Err(obstacle) => group.path.detour(obstacle)?,
        }
    };
    let arenas = on_host(group, contexts, kernels)?;
    Ok((arenas, Route::host_memory(reason)))
}

/// Why ranks on so many devices exchange directly.
pub(super) fn praise(group: &Group, devices: usize) -> &'static str {
    match (devices, group.probe_links) {
        (1, _) => "all ranks are on one device",
        (_, true) => "all pairs of devices have peer access and passed their probes",
        (_, false) => "all pairs of devices have peer access; their links were not probed",
    }
}

fn on_devices(
    group: &Group,
    contexts: &[Arc<CudaContext>],
    kernels: &KernelsOf,
) -> Result<Vec<Arena>> {
    let devices: Vec<usize> = kernels.keys().copied().collect();
    require_access(&devices)?;
    let arena = |context: &Arc<CudaContext>, layout: ArenaLayout| {
        let buffer = SymmetricBuffer::new(context, layout.bytes(), &devices)?;
        Ok(Arena::Device(buffer))
    };
    prepared(group, contexts, kernels, ExchangePath::Direct, arena)
}

fn on_host(
    group: &Group,
    contexts: &[Arc<CudaContext>],
    kernels: &KernelsOf,
) -> Result<Vec<Arena>> {
    let arena = |context: &Arc<CudaContext>, layout: ArenaLayout| {
        Ok(Arena::Host(HostMemory::allocate(context, layout.bytes())?))
    };
    prepared(group, contexts, kernels, ExchangePath::HostMemory, arena)
}

/// An arena for each rank, tried and then filled with stale tags.
fn prepared(
    group: &Group,
    contexts: &[Arc<CudaContext>],
    kernels: &KernelsOf,
    path: ExchangePath,
    arena: impl Fn(&Arc<CudaContext>, ArenaLayout) -> Result<Arena>,
) -> Result<Vec<Arena>> {
    let layout = ArenaLayout::new(contexts.len(), group.slot_values)?;
    let arenas = contexts.iter().map(|context| arena(context, layout));
    let arenas = arenas.collect::<Result<Vec<_>>>()?;
    if group.probe_links {
        // The first rank of each device stands for the others: they have the same links.
        let mut ends = BTreeMap::new();
        for (context, arena) in contexts.iter().zip(&arenas) {
            let kernels = &kernels[&context.ordinal()];
            ends.entry(context.ordinal()).or_insert((kernels, arena));
        }
        let ends: Vec<_> = ends.into_values().collect();
        probe_all(&ends, path)?;
    }
    for arena in &arenas {
        arena.fill_with_stale_tags(group.first_epoch, layout)?;
    }
    Ok(arenas)
}

/// Fails with the first pair of devices that does not pass.
fn probe_all(ends: &[(&Arc<Kernels>, &Arena)], path: ExchangePath) -> Result<()> {
    for (_, arena) in ends {
        arena.clear_mailbox()?;
    }
    let mut first_tag = 1;
    for (at, &first) in ends.iter().enumerate() {
        for &second in &ends[at + 1..] {
            let links = probe_pair([first, second], first_tag)?;
            links.into_iter().try_for_each(|link| accept(link, path))?;
            first_tag += ROUNDS;
        }
    }
    Ok(())
}

fn accept(link: ProbedLink, path: ExchangePath) -> Result<()> {
    match link.verdict {
        // One of two is bad if one is undecided, and that one is reported.
        Verdict::Good { .. } | Verdict::Undecided => Ok(()),
        Verdict::Bad { reason } => Err(Error::LinkProbe {
            device: link.device,
            peer: link.peer,
            path,
            reason,
        }),
    }
}
