//! Whose fault a timeout is.
//!
//! A rank that waits in vain for packets of another knows no more than that they are missing. That other one
//! may have made its call and be held up itself: kernels of ranks that share a device may have to wait for one
//! another to end, and a rank that frees memory there holds up the launches of the others. So the board looks at who has
//! begun the call at all.
//!
//! What must stay true: a rank is said to have begun a call only on evidence. That is a report of its own
//! from that call or a later one, since ranks that are stopped leave one too, also when they come to begin
//! after the failure. Or it is a report of any rank from a later call: nobody leaves a call without packets of
//! all. Whoever has not begun when the failure has had its time to explain itself is *absent*.

use super::{Board, Failure, STATE_ABORTED, STATE_PEER_TIMEOUT};
use crate::protocol::OperationKind;

/// A timeout, and what explains it.
pub(super) struct Timeout {
    /// The report of the rank that waited; its peer is an absent rank if there is one.
    pub(super) failure: Failure,
    /// Ranks that have not begun the call, in order.
    pub(super) absent: Vec<usize>,
}

impl Board {
    /// What is known of a wait that has run out, in a group of `world` ranks.
    ///
    /// A wait among the CTAs of one rank is nobody else's fault. Of all others that one is told which was for
    /// packets of the earliest call, and from which the later ones follow, even if it was stopped before its
    /// deadline; in the same call it is the one that is passed in. Its peer stands if it is absent itself, or
    /// nobody is; else the first rank that is absent takes its place, whose packets the waiting rank lacks as well.
    pub(super) fn explain_timeout(&self, found: Failure, world: usize) -> Timeout {
        let mut failure = found;
        if !is_collective(&found) {
            return Timeout {
                failure,
                absent: Vec::new(),
            };
        }
        for other in self.collective_reports(world) {
            if waited_for_a_peer(&other) && calls_after(&failure, &other) < 0 {
                failure = other;
            }
        }
        failure.state = STATE_PEER_TIMEOUT;
        let absent = self.absent(&failure, world);
        if let (Some(first), false) = (absent.first(), absent.contains(&failure.peer)) {
            failure.peer = *first;
        }
        Timeout { failure, absent }
    }

    /// Ranks of which nothing shows that they have begun the call of this failure.
    fn absent(&self, failure: &Failure, world: usize) -> Vec<usize> {
        let begun = |rank: usize| {
            let mut reports = self.collective_reports(world);
            reports.any(|report| match calls_after(failure, &report) {
                0 => report.rank == rank,
                calls => calls > 0,
            })
        };
        (0..world).filter(|rank| !begun(*rank)).collect()
    }

    /// What ranks have reported of calls that all take part in.
    fn collective_reports(&self, world: usize) -> impl Iterator<Item = Failure> + '_ {
        let reports = (0..world).filter_map(|rank| self.report(rank));
        reports.filter(is_collective)
    }
}

/// Epochs of an exchange among the CTAs of one rank say nothing of those of the group.
pub(super) fn is_collective(failure: &Failure) -> bool {
    failure
        .operation
        .is_none_or(|operation| operation.kind != OperationKind::ColumnParallel)
}

/// Whether the rank was waiting for packets of another when its wait ended.
fn waited_for_a_peer(failure: &Failure) -> bool {
    let waited = [STATE_PEER_TIMEOUT, STATE_ABORTED].contains(&failure.state);
    waited && failure.peer != failure.rank
}

/// How many calls `other` is later than `failure`; epochs wrap.
fn calls_after(failure: &Failure, other: &Failure) -> i32 {
    other.epoch.wrapping_sub(failure.epoch) as i32
}
