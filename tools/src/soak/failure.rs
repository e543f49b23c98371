//! Failures that are provoked: a rank does not do its part, the others must say so in time, and there must
//! be a group that works afterwards.

use super::link::{End, Findings};
use super::member::Member;
use super::plan::Provocation;
use super::recording::get;
use super::recover::{leave, rejoin, reset};
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
            member.with_worker(|link, worker, _, plan| reset(link, worker, plan))?
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
        let mut complaint = None;
        if rank != victim {
            let doing = format!("{name}: calling operation {operation} without rank {victim}");
            self.link.doing(doing)?;
            complaint = self.call_in_vain(operation, victim)?;
        }
        self.link
            .doing(format!("{name}: waiting for all to have failed"))?;
        self.link.ready(Findings::default())?;
        // By now all know, also who has not called.
        let complaint = complaint.or_else(|| judge(self.worker.finish(), victim, true));
        match complaint {
            None => self.findings.counts.seen += 1,
            Some(told) => {
                let text = format!("{name}, rank {rank}, when rank {victim} did not call: {told}");
                self.findings.errors.push(text);
            }
        }
        Ok(())
    }

    /// Calls what cannot succeed, and again what cannot even begin. What was wrong with the answers.
    fn call_in_vain(&mut self, operation: usize, victim: usize) -> Result<Option<String>> {
        let operation = get(&mut self.operations, operation)?;
        let called = operation.call(&mut self.worker);
        let failed = called.and_then(|()| self.worker.finish());
        let again = operation.call(&mut self.worker);
        Ok(judge(failed, victim, false).or_else(|| judge(again, victim, false)))
    }
}

/// What is wrong with the answer of a rank whose group has failed because of `victim`. Until `all_know`, others
/// may have been held up so long that they are taken for absent as well.
fn judge(answer: Result<()>, victim: usize, all_know: bool) -> Option<String> {
    let Err(error) = answer else {
        return Some("no error was reported".into());
    };
    match error.downcast_ref::<Error>() {
        Some(Error::PeerTimeout { peer, absent, .. }) if *peer == victim && *absent == [victim] => {
            None
        }
        Some(Error::PeerTimeout { absent, .. }) if !all_know && absent.contains(&victim) => None,
        Some(Error::GroupFailed { .. }) if !all_know => None,
        _ => Some(format!("{error:#}")),
    }
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
    fn only_the_victim_may_be_absent_once_all_know() {
        assert_eq!(judge(timeout(4, &[4]), 4, true), None);
        for (peer, absent) in [(2, &[2][..]), (2, &[2, 4]), (4, &[4, 5]), (4, &[])] {
            let told = judge(timeout(peer, absent), 4, true);
            assert!(told.is_some(), "{peer} {absent:?}");
        }
        assert!(judge(Ok(()), 4, true).is_some());
    }

    #[test]
    fn before_that_others_may_be_absent_beside_the_victim_and_in_its_place_never() {
        assert_eq!(judge(timeout(2, &[2, 4]), 4, false), None);
        assert!(judge(timeout(2, &[2]), 4, false).is_some());
        assert!(judge(timeout(4, &[]), 4, false).is_some());
    }
}
