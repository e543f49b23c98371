//! In the process of a rank: how it joins the others.

use super::frame;
use anyhow::Result;
use std::io::{stdin, stdout};
use trellink::{Group, Rank};

/// Joins `group` as `rank`; the parent passes the ranks' bytes around, in frames of their own.
pub fn join(rank: usize, group: Group) -> Result<Rank> {
    let world = group.world();
    join_with(rank, group, move |bytes| {
        frame::write(stdout(), bytes)?;
        (0..world).map(|_| frame::read(stdin())).collect()
    })
}

/// Joins `group` as `rank`; `exchange` gives every rank the bytes of all.
#[cfg(target_os = "linux")]
pub fn join_with<F>(rank: usize, group: Group, exchange: F) -> Result<Rank>
where
    F: Fn(&[u8]) -> Result<Vec<Vec<u8>>> + Send + Sync + 'static,
{
    let rendezvous = trellink::Rendezvous::exchange(move |bytes| Ok(exchange(bytes)?));
    Ok(group.join(rank, &rendezvous)?)
}

/// Refuses: there are no such groups here.
#[cfg(not(target_os = "linux"))]
pub fn join_with<F>(_rank: usize, _group: Group, _exchange: F) -> Result<Rank>
where
    F: Fn(&[u8]) -> Result<Vec<Vec<u8>>> + Send + Sync + 'static,
{
    anyhow::bail!("ranks can have processes of their own on Linux only")
}
