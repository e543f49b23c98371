//! How the ranks come to a group, and to another one after a failure.

use super::link::{End, Findings, Link};
use super::plan::GroupPlan;
use crate::ranks::{Lane, Worker};
use trellink::{Device, Group, Rank};

/// Whether graphs that were captured before [`recover`] can be replayed after it. They name the memory of
/// the group that is dropped.
pub const GRAPHS_SURVIVE: bool = false;

/// This rank of a new group on these devices.
pub fn join(link: &mut Link, devices: &[Device], plan: &GroupPlan) -> Result<Rank, End> {
    link.doing("joining a group")?;
    let group = Group::new(devices.iter().copied())
        .slot_values(plan.slot_values)
        .first_epoch(plan.first_epoch)
        .scrub_period(plan.scrub_period)
        .timeout(plan.deadline);
    Ok(link.meet(group)?)
}

/// Makes a rank of a failed group one that works. All ranks do so at the same time, when nothing that they
/// have enqueued still runs. Layers stay loaded.
pub fn recover(
    link: &mut Link,
    worker: Worker,
    devices: &[Device],
    plan: &GroupPlan,
) -> Result<Worker, End> {
    rejoin(link, leave(worker), devices, plan)
}

/// Drops a rank of a group.
pub fn leave(worker: Worker) -> Lane {
    let Worker { rank, lane } = worker;
    drop(rank);
    lane
}

/// A new rank for one that has left a group, when all have.
pub fn rejoin(
    link: &mut Link,
    lane: Lane,
    devices: &[Device],
    plan: &GroupPlan,
) -> Result<Worker, End> {
    link.doing("waiting for all ranks to have left a failed group")?;
    link.ready(Findings::default())?;
    let rank = join(link, devices, plan)?;
    Ok(Worker { rank, lane })
}
