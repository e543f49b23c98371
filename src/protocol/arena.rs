//! Where a packet lies in an arena.
//!
//! An arena is `[parity 2][source rank world][slot_values]` packets, and a word by which kernels stop
//! those of other ranks. What must stay true: all
//! address arithmetic of arenas is here, and `csrc/comm/arena_layout.h` says the same.

use super::Packet;
use crate::{Error, Result};

/// Behind the packets, in words of their size; of 16 bytes in all.
const STOP_WORDS: usize = 2;

/// The shape of every arena of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArenaLayout {
    world: usize,
    slot_values: usize,
}

impl ArenaLayout {
    /// Arenas for `world` ranks, each of which sends at most `slot_values` values per call.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no rank, if `slot_values` is zero or odd (kernels
    /// write packets in 16-byte pairs), or if the arena exceeds the address space.
    pub fn new(world: usize, slot_values: usize) -> Result<Self> {
        if world == 0 {
            return Err(Error::argument("world", "0", "at least one rank"));
        }
        if slot_values == 0 || !slot_values.is_multiple_of(2) {
            return Err(Error::argument(
                "slot_values",
                slot_values.to_string(),
                "a positive multiple of 2, packets being written in pairs",
            ));
        }
        let bytes = (2 * size_of::<Packet>())
            .checked_mul(world)
            .and_then(|slots| slots.checked_mul(slot_values))
            .and_then(|packets| packets.checked_add(STOP_WORDS * size_of::<Packet>()));
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(Error::argument(
                "slot_values",
                format!("{slot_values} for {world} ranks"),
                "an arena that fits in the address space",
            ));
        }
        Ok(ArenaLayout { world, slot_values })
    }

    /// Ranks of the group.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Values that one rank can send in one call.
    pub fn slot_values(&self) -> usize {
        self.slot_values
    }

    /// Index of the packet that carries value `value` of rank `source` in calls of `parity`.
    ///
    /// # Panics
    /// If an argument is out of range: the packet would land in the slot of another rank.
    pub fn index(&self, parity: usize, source: usize, value: usize) -> usize {
        assert!(
            parity < 2 && source < self.world && value < self.slot_values,
            "no packet (parity {parity}, source {source}, value {value}) in {self:?}"
        );
        (parity * self.world + source) * self.slot_values + value
    }

    /// Indices of all packets of one half.
    ///
    /// # Panics
    /// If `parity` is neither 0 nor 1.
    pub fn half(&self, parity: usize) -> std::ops::Range<usize> {
        let start = self.index(parity, 0, 0);
        start..start + self.packets() / 2
    }

    /// Packets of an arena.
    pub fn packets(&self) -> usize {
        2 * self.world * self.slot_values
    }

    /// Bytes from an arena's start to its stop word, which lies behind the packets: kernels write there when the
    /// group fails.
    pub fn stop_offset(&self) -> usize {
        self.packets() * size_of::<Packet>()
    }

    /// Bytes of an arena.
    pub fn bytes(&self) -> usize {
        self.stop_offset() + STOP_WORDS * size_of::<Packet>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn impossible_arenas_are_refused() {
        for (world, slot_values) in [(0, 2), (1, 0), (2, 3), (2, usize::MAX - 1), (8, 1 << 60)] {
            let refused = ArenaLayout::new(world, slot_values);
            assert!(
                matches!(refused, Err(Error::InvalidArgument { .. })),
                "{world} {slot_values}"
            );
        }
    }

    #[test]
    #[should_panic(expected = "no packet")]
    fn a_value_beyond_the_slot_has_no_index() {
        ArenaLayout::new(2, 4).unwrap().index(0, 0, 4);
    }

    proptest! {
        #[test]
        fn indices_are_disjoint_and_fill_the_arena(world in 1usize..9, pairs in 1usize..20) {
            let layout = ArenaLayout::new(world, 2 * pairs).unwrap();
            let mut seen = vec![false; layout.packets()];
            for parity in 0..2 {
                for source in 0..world {
                    for value in 0..layout.slot_values() {
                        let index = layout.index(parity, source, value);
                        prop_assert!(layout.half(parity).contains(&index));
                        prop_assert!(!std::mem::replace(&mut seen[index], true));
                    }
                }
            }
            prop_assert!(seen.into_iter().all(|seen| seen));
            prop_assert_eq!(layout.bytes(), 8 * layout.packets() + 16);
        }

        #[test]
        fn slots_begin_on_16_bytes(world in 1usize..9, pairs in 1usize..20, source in 0usize..8) {
            let layout = ArenaLayout::new(world, 2 * pairs).unwrap();
            prop_assert_eq!(layout.index(1, source % world, 0) * 8 % 16, 0);
        }
    }
}
