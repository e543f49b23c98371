//! Failures that are provoked: a rank does not do its part, the others must say so in time, and there must
//! be a group that works afterwards.

use super::link::{End, Findings};
use super::member::Member;
use super::plan::Provocation;
use super::recording::get;
use super::recover::{expect_failure, leave, rejoin, reset};
use anyhow::Result;
use trellink::Error;

/// Lets the victim do nothing while the others call, judges what they are told, and brings all of them
/// into a working group again.
pub fn provoke<'a>(
    mut member: Member<'a>,
    name: &str,
    provocation: Provocation,
) -> Result<Member<'a>, End> {
    let Provocation { victim, leaves, .. } = provocation;
    let is_victim = member.worker.rank.rank() == victim;
    member.findings.counts.provoked += 1;
    // Graphs go before the group whose memory they name; a reset keeps both.
    let graphs = match leaves {
        true => member.drop_recordings(),
        false => Vec::new(),
    };
    member.findings.counts.groups += u64::from(leaves);
    member
        .link
        .doing(format!("{name}: about to provoke a failure"))?;
    member.link.ready(Findings::default())?;
    let mut member = match (leaves, is_victim) {
        (true, true) => {
            member.findings.counts.seen += 1; // As far as it can.
            member.with_worker(|link, worker, run, plan| {
                let lane = leave(worker);
                link.doing("having left a group")?;
                link.ready(Findings::default())?;
                rejoin(link, lane, run, plan)
            })?
        }
        (true, false) => {
            member.fail(name, provocation)?;
            member.with_worker(|link, worker, run, plan| rejoin(link, leave(worker), run, plan))?
        }
        (false, _) => {
            member.fail(name, provocation)?;
            member.with_worker(|link, worker, _, _| reset(link, worker))?
        }
    };
    member.capture(graphs)?;
    Ok(member)
}

impl Member<'_> {
    /// Fails, and looks at what is said about it.
    fn fail(&mut self, name: &str, provocation: Provocation) -> Result<(), End> {
        let Provocation {
            victim, operation, ..
        } = provocation;
        let rank = self.worker.rank.rank();
        // The victim never is.
        let mut in_time = false;
        let mut complaint = None;
        if rank != victim {
            let doing = format!("{name}: calling operation {operation} without rank {victim}");
            self.link.doing(doing)?;
            (in_time, complaint) = self.call_in_vain(operation, victim)?;
        }
        self.link
            .doing(format!("{name}: waiting for all to have failed"))?;
        self.link.ready(Findings::default())?;
        // By now all know, also who has not called.
        let innocent = in_time.then_some(rank);
        let complaint = complaint.or_else(|| judge(self.worker.finish(), victim, innocent));
        match complaint {
            None => self.findings.counts.seen += 1,
            Some(told) => {
                let text = format!("{name}, rank {rank}, when rank {victim} did not call: {told}");
                self.findings.errors.push(text);
            }
        }
        Ok(())
    }

    /// Calls what cannot succeed, and again what cannot even begin. Whether the group had not failed before the
    /// first call, and what was wrong with the answers.
    fn call_in_vain(&mut self, operation: usize, victim: usize) -> Result<(bool, Option<String>)> {
        let operation = get(&mut self.operations, operation)?;
        expect_failure(&self.worker);
        // From here to the same look within the call it is a moment; who has passed that is never absent.
        let in_time = self.worker.rank.check().is_ok();
        let called = operation.call(&mut self.worker);
        let failed = called.and_then(|()| self.worker.finish());
        let again = operation.call(&mut self.worker);
        let complaint = judge_early(failed, victim).or_else(|| judge_early(again, victim));
        Ok((in_time, complaint))
    }
}

/// What is wrong with the answer of a rank once all ranks have failed because of `victim`. Ranks that were held up
/// for the whole deadline are absent as well, one that is `innocent` never; as each rank asks for itself, a victim is
/// named alone where all others were in time.
fn judge(answer: Result<()>, victim: usize, innocent: Option<usize>) -> Option<String> {
    let wrong = |error: &Error| match error {
        Error::PeerTimeout { peer, absent, .. } => {
            let both = absent.contains(&victim) && absent.contains(peer);
            !both || innocent.is_some_and(|rank| absent.contains(&rank))
        }
        _ => true,
    };
    complaint(answer, wrong)
}

/// The same before all have failed: others may still come to begin the call, and are taken for absent until then.
fn judge_early(answer: Result<()>, victim: usize) -> Option<String> {
    let wrong = |error: &Error| match error {
        Error::PeerTimeout { absent, .. } => !absent.contains(&victim),
        Error::GroupFailed { .. } => false,
        _ => true,
    };
    complaint(answer, wrong)
}

fn complaint(answer: Result<()>, wrong: impl FnOnce(&Error) -> bool) -> Option<String> {
    let Err(error) = answer else {
        return Some("no error was reported".into());
    };
    let is_wrong = error.downcast_ref().is_none_or(wrong);
    is_wrong.then(|| format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use trellink::format::DType;
    use trellink::protocol::Operation;
    use trellink::{Epilogue, OperationKind};

    fn timeout(peer: usize, absent: &[usize]) -> Result<()> {
        let operation = Operation {
            kind: OperationKind::OneShot,
            rows: 1,
            columns: 8,
            input: DType::F16,
            output: DType::F16,
            epilogue: Epilogue::Store,
            layer: 0,
        };
        let error = Error::PeerTimeout {
            rank: 0,
            peer,
            absent: absent.to_vec(),
            epoch: 1,
            waited: Duration::ZERO,
            operation,
            tile: 0,
        };
        Err(error.into())
    }

    #[test]
    fn once_all_know_the_victim_is_absent_and_nobody_who_was_in_time() {
        for absent in [&[4][..], &[2, 4], &[4, 5]] {
            assert_eq!(judge(timeout(4, absent), 4, Some(3)), None, "{absent:?}");
            assert_eq!(judge(timeout(4, absent), 4, None), None, "{absent:?}");
        }
        assert_eq!(judge(timeout(2, &[2, 4]), 4, Some(3)), None);
        for (peer, absent) in [(4, &[3, 4][..]), (2, &[2]), (2, &[4]), (4, &[])] {
            let told = judge(timeout(peer, absent), 4, Some(3));
            assert!(told.is_some(), "{peer} {absent:?}");
        }
        assert!(judge(Ok(()), 4, Some(3)).is_some());
    }

    #[test]
    fn before_that_anybody_may_be_absent_beside_the_victim_and_in_its_place_never() {
        assert_eq!(judge_early(timeout(2, &[2, 3, 4]), 4), None);
        assert!(judge_early(timeout(2, &[2]), 4).is_some());
        assert!(judge_early(timeout(4, &[]), 4).is_some());
        assert!(judge_early(Ok(()), 4).is_some());
    }
}
