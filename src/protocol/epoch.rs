//! The number of a call of the exchange, and how the number on a packet compares with it.
//!
//! What must stay true: epochs wrap, so they are compared by signed distance and by nothing else.
//! `==` would take a peer that is ahead for one that is late and wait for ever; `<` would be wrong
//! once per 2^32 calls. For that reason the type does not implement `PartialOrd`.

/// The number of a call, counted modulo 2^32 from a start that the ranks agree on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Epoch(u32);

/// What a packet's tag says to a rank that polls it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arrival {
    /// Of an earlier call: the packet has not arrived yet.
    Stale,
    /// Of this call: the data is valid.
    Current,
    /// Of a later call: the ranks have not made the same calls.
    Ahead,
}

impl Epoch {
    /// The epoch with this number.
    pub const fn new(number: u32) -> Self {
        Epoch(number)
    }

    /// The number, as packets carry it.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The epoch of the next call.
    #[must_use]
    pub const fn next(self) -> Self {
        Epoch(self.0.wrapping_add(1))
    }

    /// Which half of the arena the call uses: 0 or 1.
    ///
    /// Neighbouring epochs differ in it even across the wrap, 2^32 being even.
    pub const fn parity(self) -> usize {
        (self.0 & 1) as usize
    }

    /// How many calls `tag` is later than `self`, negative if it is earlier.
    ///
    /// Right as long as the two are less than 2^31 calls apart.
    pub const fn distance(self, tag: Epoch) -> i32 {
        tag.0.wrapping_sub(self.0) as i32
    }

    /// What a packet tagged `tag` means to a rank that is in call `self`.
    pub const fn classify(self, tag: Epoch) -> Arrival {
        match self.distance(tag) {
            i32::MIN..=-1 => Arrival::Stale,
            0 => Arrival::Current,
            1..=i32::MAX => Arrival::Ahead,
        }
    }

    /// The tag of all packets of an arena before the first call, which is `self`.
    ///
    /// Two calls back has the parity of the first call and is stale to it and to all that follow,
    /// whatever the start: a fixed tag such as 0 would look ahead to a start near 2^32.
    #[must_use]
    pub const fn initial_tag(self) -> Epoch {
        Epoch(self.0.wrapping_sub(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn classification_wraps() {
        let last = Epoch::new(u32::MAX);
        assert_eq!(last.next(), Epoch::new(0));
        assert_eq!(last.classify(last.next()), Arrival::Ahead);
        assert_eq!(last.next().classify(last), Arrival::Stale);
        assert_ne!(last.parity(), last.next().parity());
    }

    #[test]
    fn the_initial_tag_is_stale_to_the_first_calls_whatever_the_start() {
        for first in [0, 1, 2, 1 << 31, u32::MAX - 1, u32::MAX].map(Epoch::new) {
            assert_eq!(first.classify(first.initial_tag()), Arrival::Stale);
            assert_eq!(first.next().classify(first.initial_tag()), Arrival::Stale);
            assert_eq!(first.parity(), first.initial_tag().parity());
        }
    }

    proptest! {
        #[test]
        fn distance_is_antisymmetric(a: u32, b: u32) {
            prop_assume!(a.wrapping_sub(b) != 1 << 31);
            let (a, b) = (Epoch::new(a), Epoch::new(b));
            prop_assert_eq!(a.distance(b), -b.distance(a));
        }

        #[test]
        fn distance_counts_calls(start: u32, calls in 0u32..1000) {
            let from = Epoch::new(start);
            let to = (0..calls).fold(from, |epoch, _| epoch.next());
            prop_assert_eq!(from.distance(to), calls as i32);
        }

        #[test]
        fn only_the_sign_of_the_distance_decides(epoch: u32, distance: i32) {
            let tag = Epoch::new(epoch.wrapping_add(distance as u32));
            let want = match distance.signum() {
                -1 => Arrival::Stale,
                0 => Arrival::Current,
                _ => Arrival::Ahead,
            };
            prop_assert_eq!(Epoch::new(epoch).classify(tag), want);
        }
    }
}
