//! When a process dies, the others learn of it.

use crate::child::{Children, Role};
use crate::common::*;
use crate::meeting;
use std::time::{Duration, Instant};
use trellink::{Error, Group, Rendezvous};

/// For a survivor to learn of a death, whatever the deadline of its waits.
pub const LIMIT: Duration = Duration::from_secs(1);

/// When a survivor's call failed, by the clock of `uptime`, and because of whom.
pub fn failure(told: &str) -> (usize, Duration) {
    let (peer, micros) = told.split_once(' ').unwrap();
    let when = Duration::from_micros(micros.parse().unwrap());
    (peer.parse().unwrap(), when)
}

on_both! {
    fn survivors_of_a_killed_process_fail_within_a_second_and_stay_failed(platform: &Platform) {
        let _watchdog = Watchdog::new("killed processes", Duration::from_secs(300));
        for (world, victim) in [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)] {
            let mut children = Children::start(platform, world, Role::CallForever);
            for rank in 0..world {
                children.told(rank, "started");
            }
            let killed = children.kill(victim);
            for survivor in (0..world).filter(|rank| *rank != victim) {
                let (peer, when) = failure(&children.told(survivor, "failure"));
                assert_eq!(peer, victim, "rank {survivor} of {world}");
                let after = when.saturating_sub(killed);
                assert!(after <= LIMIT, "rank {survivor} of {world}: {after:?}");
                children.ends_well(survivor);
            }
        }
    }
}

on_both! {
    fn processes_reset_their_group_until_one_of_them_is_killed(platform: &Platform) {
        let _watchdog = Watchdog::new("resets of processes", Duration::from_secs(300));
        for world in [2, 3] {
            let mut children = Children::start(platform, world, Role::Reset);
            let sums = children.told(0, "sums");
            for rank in 1..world {
                assert!(children.told(rank, "sums") == sums, "rank {rank} of {world}");
            }
            let killed = children.kill(world - 1);
            for survivor in 0..world - 1 {
                let (peer, when) = failure(&children.told(survivor, "failure"));
                assert_eq!(peer, world - 1, "rank {survivor} of {world}");
                let after = when.saturating_sub(killed);
                assert!(after <= LIMIT, "rank {survivor} of {world}: {after:?}");
                children.ends_well(survivor);
            }
        }
    }
}

/// Whoever has not called is told as well, and a new group can be built where the old one met.
#[test]
fn an_idle_rank_learns_of_a_death_and_can_join_again() {
    let _watchdog = Watchdog::new("an idle rank", Duration::from_secs(300));
    let platform = Platform::host();
    let mut children = Children::new(&platform, 2);
    for _ in 0..3 {
        children.spawn(1, Role::Idle);
        let rendezvous = Rendezvous::directory(children.meeting());
        let rank = platform.group(2).join(0, &rendezvous).unwrap();
        children.told(1, "started");
        rank.check().unwrap();
        children.kill(1);
        let killed = Instant::now();
        let error = loop {
            match rank.check() {
                Err(error) => break error,
                Ok(()) => assert!(killed.elapsed() < LIMIT),
            }
        };
        let named = matches!(error, Error::PeerLost { rank: 0, peer: 1 });
        assert!(named, "{error}");
    }
}

#[test]
fn a_rank_that_is_dropped_is_not_lost() {
    let _watchdog = Watchdog::new("a dropped rank", Duration::from_secs(300));
    let folder = tempfile::tempdir().unwrap();
    let meeting = Rendezvous::directory(folder.path().join("meeting"));
    let join = |rank| Group::on_host(2).join(rank, &meeting).unwrap();
    std::thread::scope(|scope| {
        let dropped = scope.spawn(|| drop(join(1)));
        let rank = join(0);
        dropped.join().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        rank.check().unwrap();
    });
}

#[test]
fn joining_and_leaving_leaves_nothing_behind() {
    let _watchdog = Watchdog::new("joining and leaving", Duration::from_secs(300));
    let mut children = Children::new(&Platform::host(), 2);
    children.spawn(0, Role::JoinAndLeave);
    assert_eq!(children.told(0, "leaks"), "none");
    children.ends_well(0);
    assert_eq!(std::fs::read_dir(children.meeting()).unwrap().count(), 0);
}

/// A process that stops between meeting and being connected keeps nobody waiting.
#[test]
fn a_process_that_dies_while_others_are_still_missing_ends_the_meeting() {
    let _watchdog = Watchdog::new("a death in a meeting", Duration::from_secs(120));
    let mut children = Children::new(&Platform::host(), 3);
    children.spawn(1, Role::SayHello);
    let meeting = Rendezvous::directory(children.meeting());
    std::thread::scope(|scope| {
        let joined = scope.spawn(|| meeting::group(3).join(0, &meeting));
        // That it has been let in, which only a child that is no whole rank can say.
        children.told(1, "started");
        children.kill(1);
        let error = joined.join().unwrap().unwrap_err();
        let named = matches!(error, Error::PeerLost { rank: 0, peer: 1 });
        assert!(named, "{error}");
    });
}
