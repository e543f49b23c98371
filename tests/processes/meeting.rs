//! How ranks meet, and how they do not. Threads stand for processes where none has to die.

use crate::common::*;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use trellink::{Device, Error, ExchangePath, Group, Rank, Rendezvous, Result};

pub fn group(world: usize) -> Group {
    Group::on_host(world).slot_values(256)
}

/// Each rank joins the group given for it, all at the same time.
fn join_all(groups: Vec<Group>, rendezvous: &Rendezvous) -> Vec<Result<Rank>> {
    std::thread::scope(|scope| {
        let join =
            |(rank, group): (usize, Group)| scope.spawn(move || group.join(rank, rendezvous));
        let threads: Vec<_> = groups.into_iter().enumerate().map(join).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

pub fn watchdog(what: &'static str) -> Watchdog {
    Watchdog::new(what, Duration::from_secs(120))
}

fn directory(folder: &Path) -> Rendezvous {
    Rendezvous::directory(folder.join("meeting")).timeout(Duration::from_secs(30))
}

#[test]
fn ranks_meet_whatever_the_order_in_which_they_start() {
    let _watchdog = watchdog("orders of start");
    let folder = tempfile::tempdir().unwrap();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
        let rendezvous = directory(folder.path());
        std::thread::scope(|scope| {
            for rank in order {
                let rendezvous = &rendezvous;
                scope.spawn(move || group(3).join(rank, rendezvous).unwrap());
                std::thread::sleep(Duration::from_millis(30));
            }
        });
    }
}

#[test]
fn a_late_rank_is_waited_for() {
    let _watchdog = watchdog("a late rank");
    let folder = tempfile::tempdir().unwrap();
    let rendezvous = directory(folder.path());
    std::thread::scope(|scope| {
        let early = scope.spawn(|| group(2).join(0, &rendezvous));
        std::thread::sleep(Duration::from_millis(700));
        group(2).join(1, &rendezvous).unwrap();
        early.join().unwrap().unwrap();
    });
}

#[test]
fn who_does_not_come_is_named_by_all_who_did() {
    let _watchdog = watchdog("missing ranks");
    // A rank that comes too late has not come either.
    for timeout in [300, 3000, 30_000].map(Duration::from_millis) {
        let folder = tempfile::tempdir().unwrap();
        let rendezvous = directory(folder.path()).timeout(timeout);
        let results = join_all(vec![group(4), group(4)], &rendezvous);
        let errors = results.into_iter().map(Result::unwrap_err);
        let named: Vec<(usize, Vec<usize>, String)> = errors
            .map(|error| match &error {
                Error::RanksMissing { rank, missing, .. } => {
                    (*rank, missing.clone(), error.to_string())
                }
                _ => panic!("{error}"),
            })
            .collect();
        if named.iter().all(|(_, missing, _)| *missing == [2, 3]) {
            for (number, (rank, _, text)) in named.into_iter().enumerate() {
                assert_eq!(rank, number, "{text}");
                assert!(text.contains("for ranks 2 and 3 in vain"), "{text}");
            }
            return;
        }
        say!("missing ranks: again with more time, {named:?}");
    }
    panic!("ranks that came are named");
}

/// A rank that comes when the others have met finds nobody.
#[test]
fn who_comes_when_the_group_is_complete_waits_in_vain_and_disturbs_nobody() {
    let _watchdog = watchdog("one rank too many");
    let folder = tempfile::tempdir().unwrap();
    let ranks = join_all(vec![group(2), group(2)], &directory(folder.path()));
    let late = directory(folder.path()).timeout(Duration::from_millis(100));
    let error = group(2).join(1, &late).unwrap_err();
    let named = matches!(&error, Error::RanksMissing { missing, .. } if missing == &[0]);
    assert!(named, "{error}");
    for rank in ranks {
        rank.unwrap().check().unwrap();
    }
}

#[test]
fn ranks_that_describe_the_group_differently_are_both_named_on_both_sides() {
    let _watchdog = watchdog("different groups");
    let folder = tempfile::tempdir().unwrap();
    for (setting, own, theirs, other) in [
        ("slot_values", "256", "384", group(2).slot_values(300)),
        ("first_epoch", "1", "7", group(2).first_epoch(7)),
        ("scrub_period", "8192", "4", group(2).scrub_period(4)),
        (
            "path",
            "auto",
            "direct",
            group(2).path(ExchangePath::Direct),
        ),
        ("probe_links", "true", "false", group(2).probe_links(false)),
        ("a world of", "2", "3", group(3)),
    ] {
        let results = join_all(vec![group(2), other], &directory(folder.path()));
        let texts: Vec<String> = results
            .into_iter()
            .map(|result| {
                let error = result.unwrap_err();
                assert!(matches!(error, Error::SettingsDiffer { .. }), "{error}");
                error.to_string()
            })
            .collect();
        let expected = [
            format!("rank 0 has {setting} {own}, rank 1 has {theirs};"),
            format!("rank 1 has {setting} {theirs}, rank 0 has {own};"),
        ];
        for (text, expected) in texts.iter().zip(expected) {
            assert!(text.starts_with(&expected), "{text}");
        }
    }
}

#[test]
fn a_rank_that_is_taken_is_refused_and_the_others_go_on() {
    let _watchdog = watchdog("a rank that is taken");
    let folder = tempfile::tempdir().unwrap();
    let rendezvous = directory(folder.path());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| group(2).join(1, &rendezvous));
        while !folder.path().join("meeting/rank-1").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let second = group(2).join(1, &rendezvous).unwrap_err();
        assert!(
            matches!(second, Error::Rendezvous { rank: 1, .. }),
            "{second}"
        );
        group(2).join(0, &rendezvous).unwrap();
        first.join().unwrap().unwrap();
    });
}

/// A world of one meets nobody, and a rank must be one of the world.
#[test]
fn small_worlds_and_ranks_beyond_them() {
    let nowhere = Rendezvous::directory("/nowhere/at/all");
    group(1).join(0, &nowhere).unwrap();
    for join in [group(1).join(1, &nowhere), group(2).join(2, &nowhere)] {
        let error = join.unwrap_err();
        let named = matches!(
            error,
            Error::InvalidArgument {
                argument: "rank",
                ..
            }
        );
        assert!(named, "{error}");
    }
    let error = group(2).join(0, &nowhere).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    let long = Rendezvous::directory(std::env::temp_dir().join("a".repeat(120)));
    let error = group(2).join(0, &long).unwrap_err();
    assert!(error.to_string().contains("aaa"), "{error}");
    let _ = std::fs::remove_dir(std::env::temp_dir().join("a".repeat(120)));
    let error = Group::new([Device::Cuda(4096); 2])
        .join(0, &nowhere)
        .unwrap_err();
    assert!(matches!(error, Error::CudaUnavailable { .. }), "{error}");
}

/// An all-gather among threads, each of which knows its rank.
pub struct AllGather {
    parts: Mutex<Vec<Vec<u8>>>,
    gate: Gate,
}

impl AllGather {
    pub fn new(world: usize) -> Arc<Self> {
        Arc::new(AllGather {
            parts: Mutex::new(vec![Vec::new(); world]),
            gate: Gate::new(world),
        })
    }

    /// To be held by every thread that takes part: if one panics, the others wait no longer.
    pub fn guard(&self) -> BreakOnPanic<'_> {
        self.gate.guard()
    }

    /// What a rank has passed, if it has.
    pub fn part(&self, rank: usize) -> Vec<u8> {
        self.parts.lock().unwrap()[rank].clone()
    }

    pub fn of_rank(self: &Arc<Self>, rank: usize) -> Rendezvous {
        let this = self.clone();
        Rendezvous::exchange(move |bytes| {
            this.parts.lock().unwrap()[rank] = bytes.to_vec();
            this.gate.pass();
            let all = this.parts.lock().unwrap().clone();
            this.gate.pass();
            Ok(all)
        })
    }
}

#[test]
fn ranks_meet_by_an_exchange_of_the_programs_own_as_often_as_they_like() {
    let _watchdog = watchdog("an exchange of the program's own");
    let gather = AllGather::new(3);
    std::thread::scope(|scope| {
        for rank in 0..3 {
            let (gather, rendezvous) = (&gather, gather.of_rank(rank));
            scope.spawn(move || {
                let _break_on_panic = gather.guard();
                let groups: Vec<Rank> = (0..3)
                    .map(|_| group(3).join(rank, &rendezvous).unwrap())
                    .collect();
                groups.iter().for_each(|rank| rank.check().unwrap());
            });
        }
    });
}

#[test]
fn an_exchange_that_fails_or_lies_is_an_error() {
    let _watchdog = watchdog("an exchange that lies");
    let failing = Rendezvous::exchange(|_| Err("no network".into()));
    let alone = Rendezvous::exchange(|bytes| Ok(vec![bytes.to_vec()]));
    let mixed_up = Rendezvous::exchange(|bytes| Ok(vec![bytes.to_vec(), bytes.to_vec()]));
    let garbage = Rendezvous::exchange(|bytes| Ok(vec![bytes.to_vec(), vec![0xff; 1 << 20]]));
    for (rendezvous, expected) in [
        (failing, "no network"),
        (alone, "1 messages for 2 ranks"),
        (mixed_up, "it is the address of rank 0 of 2"),
        (garbage, "it does not speak this protocol"),
    ] {
        let error = group(2).join(0, &rendezvous).unwrap_err();
        assert!(
            matches!(error, Error::Rendezvous { rank: 0, .. }),
            "{error}"
        );
        assert!(error.to_string().contains(expected), "{error}");
    }
}
