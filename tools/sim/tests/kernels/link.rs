//! A good link passes its probe, and each kind of lie fails it on the side that it was told to.
//!
//! Side 0 lies: one of its accesses to the mailbox of side 1 goes wrong. What is judged is the way
//! towards a side, so side 1 finds lies of stores, and side 0, which loads from there, those of loads.

use std::ops::Range;
use std::time::Duration;
use trellink::plan::link::{judge, Ending, Finding, Verdict};
use trellink_sim::{probe_link, torn_loads, Lie, LinkFault};

const ROUNDS: u32 = 100;
/// Far more than a good probe takes here, so that only what is missing takes that long.
const PATIENCE: Duration = Duration::from_secs(60);
/// For what never arrives: long enough for the rounds before it, if not on a machine that is busy.
const SHORT: Duration = Duration::from_secs(5);

/// Words of a mailbox, see `csrc/comm/link_probe.cuh`.
const PACKETS: Range<usize> = 0..128;
const WORDS: Range<usize> = 128..256;
const FLAGS: Range<usize> = 256..260;
const EXHIBIT: Range<usize> = 260..324;
/// Stores into packets, and into words, of one round.
const STORES: u64 = 32;

/// What both sides find where one access goes wrong, which must end the probe of a side like this.
fn with(fault: LinkFault, side: usize, expected: (Ending, u32)) -> [Finding; 2] {
    let probe = |deadline| probe_link(ROUNDS, 7, deadline, Some(fault.clone()));
    let mut found = probe(SHORT);
    if ending(&found[side]) != expected {
        found = probe(PATIENCE);
    }
    assert_eq!(ending(&found[side]), expected, "{found:?}");
    // All lies are about accesses of side 0, and no other way is blamed.
    let [there, back] = judge(&found);
    assert!(matches!(there, Verdict::Bad { .. }), "{found:?}");
    assert_eq!(back, Verdict::Undecided, "{found:?}");
    found
}

fn fault(lie: Lie, words: Range<usize>, access: u64) -> LinkFault {
    LinkFault { lie, words, access }
}

fn ending(finding: &Finding) -> (Ending, u32) {
    (finding.ending, finding.round)
}

#[test]
fn an_access_of_16_bytes_sees_one_store() {
    assert_eq!(torn_loads(1_000_000), 0);
}

#[test]
fn a_good_link_passes_all_rounds_on_both_sides() {
    for first_tag in [1, 2, u32::MAX - ROUNDS] {
        let found = probe_link(ROUNDS, first_tag, PATIENCE, None);
        let endings = found.each_ref().map(ending);
        assert_eq!(endings, [(Ending::Good, ROUNDS); 2], "{first_tag}");
        let verdicts = judge(&found);
        assert!(verdicts.iter().all(|v| matches!(v, Verdict::Good { .. })));
    }
}

#[test]
fn a_packet_that_never_arrives_ends_the_probe_at_its_deadline() {
    let dropped = fault(Lie::Dropped, PACKETS, 20 * STORES + 3);
    let [other, _] = with(dropped, 1, (Ending::NoPacket, 20));
    // It misses what its peer does not send any more.
    assert_eq!(other.round, 21);
}

#[test]
fn a_flag_that_never_arrives_is_missed() {
    with(fault(Lie::Dropped, FLAGS, 30), 1, (Ending::NoFlag, 30));
}

#[test]
fn words_that_are_not_there_behind_their_flag_are_seen() {
    for lie in [Lie::Dropped, Lie::Late] {
        // Seen in round 40, and the probe ends where all meet again.
        with(
            fault(lie, WORDS, 40 * STORES + 5),
            1,
            (Ending::StaleData, 41),
        );
    }
}

#[test]
fn a_torn_packet_is_seen_although_its_tag_is_right() {
    let torn = fault(Lie::Torn, PACKETS, 50 * STORES + 7);
    let [_, found] = with(torn, 1, (Ending::TornPacket, 50));
    assert_eq!(found.word % 2, 0, "the half without the tag");
}

#[test]
fn a_load_that_gives_something_else_is_seen_by_the_side_that_loads() {
    // Loads are in rounds 0, 16, 32.
    let misread = fault(Lie::Misread, EXHIBIT, 2 * STORES + 1);
    with(misread, 0, (Ending::WrongLoad, 33));
}
