//! How the ranks come to a group, and after a failure to one that works again.

use super::link::{End, Findings, Link};
use super::member::Run;
use super::plan::GroupPlan;
use crate::ranks::{Lane, Worker};
use std::time::Duration;
use trellink::{Group, Rank};

/// Of whatever should succeed: longer than any delay, and than a machine is busy with other things.
const DEADLINE: Duration = Duration::from_secs(30);
/// Of the calls of a failure. Ranks may be held up for longer, see `failure::judge`.
const DEADLINE_IN_VAIN: Duration = Duration::from_millis(200);

/// This rank of a new group.
pub fn join(link: &mut Link, run: &Run, plan: &GroupPlan) -> Result<Rank, End> {
    link.doing("joining a group")?;
    let group = Group::new(run.devices.iter().copied())
        .path(run.path)
        .slot_values(plan.slot_values)
        .first_epoch(plan.first_epoch)
        .scrub_period(plan.scrub_period)
        .timeout(DEADLINE);
    Ok(link.meet(group)?)
}

/// Makes the waits of all ranks short that begin from now on, of which none may be of a call that should succeed,
/// until the group is reset or another takes its place.
pub fn expect_failure(worker: &Worker) {
    worker.rank.set_timeout(DEADLINE_IN_VAIN);
}

/// Resets a failed group. All ranks do so at the same time, when nothing that they have enqueued still runs.
/// Layers stay loaded and graphs captured.
pub fn reset(link: &mut Link, mut worker: Worker) -> Result<Worker, End> {
    // By now all ranks have failed.
    worker.rank.set_timeout(DEADLINE);
    link.doing("waiting for all ranks to be about to reset a failed group")?;
    link.ready(Findings::default())?;
    link.doing("resetting a failed group")?;
    worker.rank.reset()?;
    link.ready(Findings::default())?;
    Ok(worker)
}

/// Drops a rank of a group.
pub fn leave(worker: Worker) -> Lane {
    let Worker { rank, lane } = worker;
    drop(rank);
    lane
}

/// A new rank for one that has left a group, when all have.
pub fn rejoin(link: &mut Link, lane: Lane, run: &Run, plan: &GroupPlan) -> Result<Worker, End> {
    link.doing("waiting for all ranks to have left a failed group")?;
    link.ready(Findings::default())?;
    let rank = join(link, run, plan)?;
    Ok(Worker { rank, lane })
}
