//! One process survives the death of its peer again and again, each time in a new group.
//!
//! On CUDA a process needs seconds before it can join. So the survivor stays, and those who are to die
//! are started ahead of time and wait, with a context, until it is their turn. Survivor and victim
//! change ranks each time. `TRELLINK_REPEAT` says how often, 3 times if not set; a line for every ten
//! times and one for all of them say how long the survivor took to learn of a death.

use crate::child::{failure, uptime, Children, Role, This};
use crate::common::*;
use crate::job::Replays;
use crate::loss;
use crate::possessions::Possessions;
use rand::Rng;
use std::time::{Duration, Instant};
use trellink::Error;

/// The number of the process that survives; the others are victims, in the order of their numbers.
const SURVIVOR: usize = 0;
/// How often a peer dies before the survivor's possessions are counted: once as each rank.
const WARM_UP: usize = 2;
/// Replays that both make before one of them is killed between replays.
const BEFORE_REST: usize = 3;

/// Of a survivor that notices nothing: its deadline for waits is longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// When a victim is killed.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Moment {
    MidReplay,
    BetweenReplays,
}

impl Moment {
    fn named(name: &str) -> Self {
        let all = [Moment::MidReplay, Moment::BetweenReplays];
        let mut all = all.into_iter();
        all.find(|moment| format!("{moment:?}") == name).unwrap()
    }
}

/// What the survivor is to do next.
enum Order {
    /// Join as this rank, replay, and tell of the failure.
    Lose(usize, Moment),
    /// Count possessions, and tell what is more than the first time after so many groups.
    Count(usize),
    /// End.
    Leave,
}

impl Order {
    fn text(&self) -> String {
        match self {
            Order::Lose(rank, moment) => format!("{moment:?} {rank}"),
            Order::Count(groups) => format!("count {groups}"),
            Order::Leave => "leave 0".to_owned(),
        }
    }

    fn parse(text: &str) -> Self {
        let (word, number) = text.split_once(' ').unwrap();
        let number = number.parse().unwrap();
        match word {
            "leave" => Order::Leave,
            "count" => Order::Count(number),
            moment => Order::Lose(number, Moment::named(moment)),
        }
    }
}

/// The survivor and those who die beside it.
struct Deaths {
    children: Children,
    moment: Moment,
    orders: usize,
    victims: usize,
}

impl Deaths {
    fn new(platform: &Platform, moment: Moment) -> Self {
        let mut children = Children::new(platform, 2);
        children.spawn_as(SURVIVOR, 0, Role::Survive);
        Deaths {
            children,
            moment,
            orders: 0,
            victims: 0,
        }
    }

    /// Starts victims until there were so many.
    fn prepare(&mut self, victims: usize) {
        while self.victims < victims {
            self.victims += 1;
            let number = self.victims;
            self.children.spawn_as(number, number % 2, Role::Die);
        }
    }

    /// Gives the survivor an order and returns the order's number.
    fn order(&mut self, order: &Order) -> usize {
        let number = self.orders;
        self.orders += 1;
        let what = format!("order{number}");
        self.children.tell(SURVIVOR, &what, &order.text());
        number
    }

    /// Kills a victim; how long the survivor took to fail because of that.
    fn kill(&mut self, victim: usize, delay: Duration) -> Duration {
        let (victim_rank, survivor_rank) = (victim % 2, 1 - victim % 2);
        self.children.told(victim, "ready");
        let order = self.order(&Order::Lose(survivor_rank, self.moment));
        let moment = format!("{:?}", self.moment);
        self.children.tell(victim, "moment", &moment);
        self.children.told(victim, "replayed");
        self.children.told(SURVIVOR, &format!("replayed{order}"));
        std::thread::sleep(delay);
        let killed = self.children.kill(victim);
        let told = self.children.told(SURVIVOR, &format!("answer{order}"));
        let (peer, when) = loss::failure(&told);
        assert_eq!(peer, victim_rank, "death {victim}");
        let after = when.checked_sub(killed);
        let after = after.expect("the survivor does not fail before the death");
        assert!(after <= loss::LIMIT, "death {victim}: {after:?}");
        after
    }

    fn count(&mut self, groups: usize) -> String {
        let order = self.order(&Order::Count(groups));
        self.children.told(SURVIVOR, &format!("answer{order}"))
    }

    fn end(mut self) {
        self.order(&Order::Leave);
        self.children.ends_well(SURVIVOR);
    }
}

/// Kills `TRELLINK_REPEAT` victims after those of the warm-up.
fn survive_all(platform: &Platform, moment: Moment) {
    let times = repeats();
    let _watchdog = Watchdog::new("kills", Duration::from_secs(120 + 20 * times as u64));
    let mut rng = Seed::new(0xdead).rng(0);
    let mut delay = || Duration::from_micros(rng.random_range(0..20_000));
    let mut deaths = Deaths::new(platform, moment);
    deaths.prepare(WARM_UP);
    for victim in 1..=WARM_UP {
        deaths.kill(victim, delay());
    }
    // Nobody else is there when memory of devices is counted, here and at the end.
    deaths.count(0);
    let ahead = if platform.is_host() { 2 } else { 6 };
    let started = Instant::now();
    let mut took = Vec::new();
    for time in 1..=times {
        deaths.prepare(WARM_UP + times.min(time + ahead));
        took.push(deaths.kill(WARM_UP + time, delay()));
        if time % 10 == 0 {
            let (elapsed, last) = (started.elapsed(), took[time - 10..].iter().max().unwrap());
            say!("{moment:?}: {time} deaths in {elapsed:?}, the last ten noticed after at most {last:?}");
        }
    }
    took.sort_unstable();
    if let (Some(least), Some(most)) = (took.first(), took.last()) {
        let median = took[times / 2];
        say!("{moment:?}: {times} of {times} deaths noticed, after {least:?} to {most:?}, median {median:?}");
    }
    assert_eq!(deaths.count(times), "none");
    deaths.end();
}

on_both! {
    fn a_survivor_names_each_peer_killed_mid_replay_within_a_second(platform: &Platform) {
        survive_all(platform, Moment::MidReplay);
    }

    fn a_survivor_names_each_peer_killed_between_replays_within_a_second(platform: &Platform) {
        survive_all(platform, Moment::BetweenReplays);
    }
}

/// In the processes.
impl This {
    pub fn survive(&self) {
        let mut before = None;
        for number in 0.. {
            let answer = match Order::parse(&self.hear(&format!("order{number}"))) {
                Order::Lose(rank, moment) => self.lose(rank, moment, &format!("replayed{number}")),
                Order::Count(groups) => {
                    let now = Possessions::count(&self.platform);
                    let before = before.get_or_insert_with(|| Possessions::count(&self.platform));
                    now.leaked_since(before, groups).unwrap_or("none".into())
                }
                Order::Leave => return,
            };
            self.tell(&format!("answer{number}"), &answer);
        }
    }

    /// Joins, replays until the peer has died, and leaves; the failure.
    fn lose(&self, rank: usize, moment: Moment, replayed: &str) -> String {
        let mut rank = self.join_as(rank);
        let memory = self.platform.memory(&rank);
        let mut replays = Replays::new(&mut rank, &*memory);
        (0..BEFORE_REST).for_each(|_| replays.replay(&mut rank, &*memory).unwrap());
        self.tell(replayed, "");
        let waiting = Instant::now();
        let error = loop {
            assert!(waiting.elapsed() < PATIENCE, "the peer lives");
            let result = match moment {
                Moment::MidReplay => replays.replay(&mut rank, &*memory),
                Moment::BetweenReplays => rank.check(),
            };
            if let Err(error) = result {
                break error;
            }
        };
        let when = uptime();
        for _ in 0..10 {
            let again = replays.replay(&mut rank, &*memory).unwrap_err();
            assert!(matches!(again, Error::PeerLost { .. }), "{again}");
        }
        let own = rank.rank();
        let named = matches!(error, Error::PeerLost { rank, .. } if rank == own);
        assert!(named, "rank {own}: {error}");
        failure(&error, when)
    }

    pub fn die(&self) {
        self.tell("ready", "");
        let moment = Moment::named(&self.hear("moment"));
        let mut rank = self.join_as(self.rank());
        let memory = self.platform.memory(&rank);
        let mut replays = Replays::new(&mut rank, &*memory);
        (0..BEFORE_REST).for_each(|_| replays.replay(&mut rank, &*memory).unwrap());
        self.tell("replayed", "");
        // Until it is killed.
        match moment {
            Moment::MidReplay => loop {
                replays.replay(&mut rank, &*memory).unwrap();
            },
            Moment::BetweenReplays => drop(self.hear("nothing more")),
        }
    }
}
