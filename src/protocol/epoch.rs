//! The number of a call of the exchange, what packets carry of it, and how that compares.
//!
//! What must stay true: epochs wrap, so they are compared by signed distance and by nothing else.
//! `==` would take a peer that is ahead for one that is late and wait for ever; `<` would be wrong
//! once per wrap. For that reason no type here implements `PartialOrd`.

/// The number of a call, counted modulo 2^32 from a start that the ranks agree on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Epoch(u32);

/// What a packet says of the call that it belongs to: the epoch modulo 2^16 in the high half, a digest of
/// the [`Operation`](super::Operation) in the low one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tag(u32);

/// What a packet's tag says to a rank that polls it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arrival {
    /// Of an earlier call: the packet has not arrived yet.
    Stale,
    /// Of this call: the data is valid.
    Current,
    /// Of this epoch, but another operation: the ranks have not made the same call.
    Foreign,
    /// Of a later call: the ranks have not made the same calls.
    Ahead,
}

impl Epoch {
    /// The epoch with this number.
    pub const fn new(number: u32) -> Self {
        Epoch(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The epoch of the next call.
    #[must_use]
    pub const fn next(self) -> Self {
        self.after(1)
    }

    /// The epoch so many calls later, or earlier if negative.
    #[must_use]
    pub const fn after(self, calls: i32) -> Self {
        Epoch(self.0.wrapping_add_signed(calls))
    }

    /// Which half of the arena the call uses: 0 or 1.
    ///
    /// Neighbouring epochs differ in it even across the wrap, 2^16 and 2^32 being even.
    pub const fn parity(self) -> usize {
        (self.0 & 1) as usize
    }

    /// The tag of all packets of an arena before the first call, which is `self`.
    ///
    /// Two calls back has the parity of the first call and is stale to it and to all that follow,
    /// whatever the start: a fixed tag such as 0 would look ahead to a start near 2^16.
    #[must_use]
    pub const fn initial_tag(self) -> Tag {
        Tag::new(self.after(-2), 0)
    }
}

impl Tag {
    /// The tag of packets of call `epoch`, which is an operation with this digest.
    pub const fn new(epoch: Epoch, operation: u16) -> Self {
        Tag(epoch.0 << 16 | operation as u32)
    }

    /// The tag with these bits.
    pub const fn from_bits(bits: u32) -> Self {
        Tag(bits)
    }

    /// Its bits, as packets carry them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// How many calls `found` is later than `self`, negative if it is earlier.
    ///
    /// Right as long as the two are less than 2^15 calls apart.
    pub const fn distance(self, found: Tag) -> i32 {
        ((found.0 >> 16) as u16).wrapping_sub((self.0 >> 16) as u16) as i16 as i32
    }

    /// What a packet tagged `found` means to a rank that waits for packets tagged `self`.
    pub const fn classify(self, found: Tag) -> Arrival {
        match self.distance(found) {
            i32::MIN..=-1 => Arrival::Stale,
            0 if found.0 == self.0 => Arrival::Current,
            0 => Arrival::Foreign,
            1..=i32::MAX => Arrival::Ahead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tag(epoch: u32, operation: u16) -> Tag {
        Tag::new(Epoch::new(epoch), operation)
    }

    #[test]
    fn classification_wraps() {
        for last in [u32::MAX, 0xffff] {
            let (here, next) = (Epoch::new(last), Epoch::new(last).next());
            assert_eq!(tag(last, 3).classify(Tag::new(next, 3)), Arrival::Ahead);
            assert_eq!(Tag::new(next, 3).classify(tag(last, 3)), Arrival::Stale);
            assert_ne!(here.parity(), next.parity());
        }
        assert_eq!(Epoch::new(u32::MAX).next(), Epoch::new(0));
    }

    #[test]
    fn the_initial_tag_is_stale_to_the_first_calls_whatever_the_start() {
        for first in [0, 1, 2, 0xffff, 1 << 31, u32::MAX - 1, u32::MAX].map(Epoch::new) {
            for operation in [0, 1, u16::MAX] {
                for call in [first, first.next()] {
                    let current = Tag::new(call, operation);
                    assert_eq!(current.classify(first.initial_tag()), Arrival::Stale);
                }
            }
        }
    }

    #[test]
    fn another_operation_is_neither_current_nor_late() {
        for (own, theirs) in [(0, 1), (1, 0), (0, u16::MAX), (u16::MAX, 0)] {
            assert_eq!(tag(7, own).classify(tag(7, theirs)), Arrival::Foreign);
            assert_eq!(tag(7, own).classify(tag(5, theirs)), Arrival::Stale);
            assert_eq!(tag(7, own).classify(tag(9, theirs)), Arrival::Ahead);
        }
    }

    proptest! {
        #[test]
        fn distance_counts_calls(start: u32, calls in -20_000i32..20_000, operations: [u16; 2]) {
            let from = Epoch::new(start);
            let (own, found) = (Tag::new(from, operations[0]), Tag::new(from.after(calls), operations[1]));
            prop_assert_eq!(own.distance(found), calls);
            let want = match calls.signum() {
                -1 => Arrival::Stale,
                0 if operations[0] == operations[1] => Arrival::Current,
                0 => Arrival::Foreign,
                _ => Arrival::Ahead,
            };
            prop_assert_eq!(own.classify(found), want);
        }
    }
}
