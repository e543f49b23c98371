//! What the two sides of a probe have found, and what follows for the link between them.
//!
//! A side judges what arrives in its memory and what it loads from its peer's. When something goes wrong
//! the other side soon misses something as well, so what one side says is not enough to know which way is
//! bad. The probe itself is `csrc/comm/link_probe.cuh`.

use std::time::Duration;

/// Rounds of a probe. A round takes about as long as an exchange: a few µs.
pub const ROUNDS: u32 = 2048;

/// How long a probe may last, the wait for the peer's launch included. Only a bad link takes that long.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// How a side's probe ended; `TRELLINK_LINK_*` of `csrc/params.h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// All rounds went well.
    Good,
    /// A packet has not arrived.
    NoPacket,
    /// A flag has not arrived.
    NoFlag,
    /// A packet that nobody has written as a whole.
    TornPacket,
    /// A flag was there before words that had been written before it.
    StaleData,
    /// A load from the peer's memory gave something else than lies there.
    WrongLoad,
    /// It left no verdict.
    Unfinished,
}

impl Ending {
    /// What a kernel has written.
    pub fn of(state: u32) -> Self {
        match state {
            1 => Ending::Good,
            2 => Ending::NoPacket,
            3 => Ending::NoFlag,
            4 => Ending::TornPacket,
            5 => Ending::StaleData,
            6 => Ending::WrongLoad,
            _ => Ending::Unfinished,
        }
    }

    /// Whether something only has not come, for which there may be another cause.
    fn misses(self) -> bool {
        matches!(self, Ending::NoPacket | Ending::NoFlag | Ending::Unfinished)
    }
}

/// What one side has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How its probe ended.
    pub ending: Ending,
    /// In which round.
    pub round: u32,
    /// The word of the mailbox, what it should have held and what was read last.
    pub word: u32,
    /// See `word`.
    pub expected: u64,
    /// See `word`.
    pub found: u64,
    /// From the end of the first round to the end of the last.
    pub elapsed: Duration,
}

/// What is known of one device's way to a peer's memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Stores arrive whole and in the order that fences give them, loads give what is there.
    Good {
        /// How long a round took: a packet, and a flag behind a fence, in both directions at once.
        round: Duration,
    },
    /// Not so.
    Bad {
        /// What was seen.
        reason: String,
    },
    /// The probe ended early, because of the way back.
    Undecided,
}

impl Finding {
    /// What was seen, for a reader. Nothing if it is good.
    pub fn problem(&self) -> Option<String> {
        let Finding {
            round,
            word,
            expected,
            found,
            ..
        } = *self;
        let what = match self.ending {
            Ending::Good => return None,
            Ending::NoPacket => "a packet did not arrive in time",
            Ending::NoFlag => "a flag did not arrive in time",
            Ending::TornPacket => "128 bits were read that were never written together",
            Ending::StaleData => "a flag overtook data that was written before it",
            Ending::WrongLoad => "a load from the peer's memory gave wrong data",
            Ending::Unfinished => return Some("the probe left no verdict".into()),
        };
        Some(format!(
            "{what} (round {round}, word {word}: found {found:#018x}, expected {expected:#018x})"
        ))
    }

    /// Whether what this side misses has its cause on the other way.
    fn follows_from(&self, other: &Finding) -> bool {
        let other_fails = other.ending != Ending::Good;
        let earlier = !other.ending.misses() || other.round < self.round;
        self.ending.misses() && other_fails && earlier
    }
}

/// The verdicts on the accesses by side 0 to the memory of side 1, and on those by side 1 to that of side 0.
pub fn judge(findings: &[Finding; 2]) -> [Verdict; 2] {
    let mut verdicts = [0, 1].map(|side: usize| match findings {
        [a, b] if a.ending == Ending::Good && b.ending == Ending::Good => Verdict::Good {
            round: findings[side].elapsed / findings[side].round.saturating_sub(1).max(1),
        },
        _ => Verdict::Undecided,
    });
    for side in [0, 1] {
        let (own, other) = (&findings[side], &findings[1 - side]);
        let Some(reason) = own.problem() else {
            continue;
        };
        if own.follows_from(other) {
            continue;
        }
        // Loads are this side's accesses; what arrives here the other one has sent.
        let by = match own.ending {
            Ending::WrongLoad => side,
            _ => 1 - side,
        };
        verdicts[by] = Verdict::Bad { reason };
    }
    verdicts
}

/// Who probes with whom when each of `parties` can do one probe at a time: steps, in each of which
/// nobody occurs twice, and after all of which everyone has met everyone.
pub fn schedule(parties: usize) -> Vec<Vec<(usize, usize)>> {
    // The circle method: one stays, the others move on by one place; with an odd number one pauses.
    let places = parties.next_multiple_of(2);
    let steps = places.saturating_sub(1);
    let at = |step: usize, place: usize| match place {
        0 => 0,
        place => 1 + (place - 1 + step) % steps,
    };
    let pairs = |step: usize| {
        let pairs = (0..places / 2).map(move |i| (at(step, i), at(step, places - 1 - i)));
        let ordered = pairs.map(|(a, b)| (a.min(b), a.max(b)));
        ordered.filter(|(_, b)| *b < parties).collect()
    };
    (0..steps).map(pairs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(ending: Ending, round: u32) -> Finding {
        Finding {
            ending,
            round,
            word: 3,
            expected: 7,
            found: 0,
            elapsed: Duration::from_micros(2047 * 3),
        }
    }

    fn is_bad(verdict: &Verdict, part: &str) -> bool {
        matches!(verdict, Verdict::Bad { reason } if reason.contains(part))
    }

    #[test]
    fn a_good_link_says_what_a_round_takes() {
        let both = [finding(Ending::Good, ROUNDS); 2];
        let round = Duration::from_micros(3);
        assert_eq!(judge(&both), [0, 1].map(|_| Verdict::Good { round }));
    }

    #[test]
    fn what_arrives_wrong_is_the_senders_way_and_what_is_loaded_wrong_the_loaders() {
        for ending in [Ending::TornPacket, Ending::StaleData] {
            let verdicts = judge(&[finding(ending, 9), finding(Ending::NoFlag, 9)]);
            assert!(is_bad(&verdicts[1], "round 9"), "{verdicts:?}");
            assert_eq!(verdicts[0], Verdict::Undecided);
        }
        let verdicts = judge(&[finding(Ending::WrongLoad, 9), finding(Ending::NoPacket, 9)]);
        assert!(is_bad(&verdicts[0], "load"), "{verdicts:?}");
        assert_eq!(verdicts[1], Verdict::Undecided);
    }

    #[test]
    fn of_two_that_miss_something_the_earlier_one_is_the_cause() {
        let verdicts = judge(&[finding(Ending::NoPacket, 4), finding(Ending::NoFlag, 5)]);
        assert!(is_bad(&verdicts[1], "a packet did not arrive"));
        assert_eq!(verdicts[0], Verdict::Undecided);
        let verdicts = judge(&[finding(Ending::NoPacket, 4), finding(Ending::NoPacket, 4)]);
        assert!(verdicts.iter().all(|verdict| is_bad(verdict, "in time")));
    }

    #[test]
    fn one_that_ends_well_does_not_excuse_the_other() {
        // The last round's words are checked after the other side has seen everything.
        let verdicts = judge(&[
            finding(Ending::Good, ROUNDS),
            finding(Ending::NoFlag, ROUNDS - 1),
        ]);
        assert!(is_bad(&verdicts[0], "flag"), "{verdicts:?}");
        assert_eq!(verdicts[1], Verdict::Undecided);
    }

    #[test]
    fn everyone_meets_everyone_once_and_nobody_is_in_two_places() {
        for parties in 0..=8 {
            let mut met = std::collections::BTreeSet::new();
            for step in schedule(parties) {
                let mut busy = std::collections::BTreeSet::new();
                for (a, b) in step {
                    assert!(a < b && b < parties);
                    assert!(busy.insert(a) && busy.insert(b), "{parties}: {a}, {b}");
                    assert!(met.insert((a, b)), "{parties}: {a}, {b}");
                }
            }
            assert_eq!(met.len(), parties * parties.saturating_sub(1) / 2);
        }
    }
}
