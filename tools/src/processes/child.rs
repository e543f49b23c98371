//! In the process of a rank: how it joins the others.

use anyhow::Result;
use trellink::{Group, Rank};

/// Joins `group` as `rank`; the parent passes the ranks' bytes around.
#[cfg(target_os = "linux")]
pub fn join(rank: usize, group: Group) -> Result<Rank> {
    use super::frame;
    use std::io::{stdin, stdout};
    let world = group.world();
    let rendezvous = trellink::Rendezvous::exchange(move |bytes| {
        frame::write(stdout(), bytes)?;
        let of_all = (0..world).map(|_| frame::read(stdin()));
        Ok(of_all.collect::<Result<_>>()?)
    });
    Ok(group.join(rank, &rendezvous)?)
}

/// Refuses: there are no such groups here.
#[cfg(not(target_os = "linux"))]
pub fn join(_rank: usize, _group: Group) -> Result<Rank> {
    anyhow::bail!("ranks can have processes of their own on Linux only")
}
