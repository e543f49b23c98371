//! The C++ headers that the kernels use against their Rust counterparts: layout, packet, epoch and
//! arena say the same on both sides.

use proptest::prelude::*;
use trellink::format::layout::{BlockLayout, LANES};
use trellink::format::{Bits, Codebook};
use trellink::host::probe;
use trellink::protocol::{ArenaLayout, Arrival, Epoch, Packet, Tag};

#[test]
fn kernels_exist_for_every_format_and_for_no_other() {
    for codebook in Codebook::ALL {
        for half_bits in 0..32 {
            let bits = Bits::from_half_bits(half_bits);
            let defined = bits.is_some_and(|bits| codebook.supports(bits));
            assert_eq!(
                probe::has_format(codebook, half_bits as u32),
                defined,
                "{codebook} {half_bits}"
            );
        }
    }
}

#[test]
fn words_of_a_block_lie_where_the_layout_puts_them() {
    for bits in Bits::ALL {
        let layout = BlockLayout::new(bits);
        for lane in 0..LANES {
            for word in 0..layout.words_per_lane() {
                let want = layout.word_index(lane, word);
                assert_eq!(probe::word_index(bits, lane, word), Some(want), "{bits}");
            }
        }
        assert_eq!(probe::word_index(bits, LANES, 0), None);
        assert_eq!(probe::word_index(bits, 0, layout.words_per_lane()), None);
    }
}

#[test]
fn windows_of_a_lane_end_where_those_of_the_tile_do() {
    for bits in Bits::ALL {
        let piece_bits = BlockLayout::new(bits).piece_bits();
        for t in 0..256 {
            let end = t / 8 * piece_bits + probe::window_end(bits, t % 8);
            assert_eq!(end, bits.window_end(t), "{bits} weight {t}");
        }
    }
}

fn number(arrival: Arrival) -> i32 {
    match arrival {
        Arrival::Stale => -1,
        Arrival::Current => 0,
        Arrival::Ahead => 1,
        Arrival::Foreign => 2,
    }
}

/// Random tags, and those around a wrap or another.
fn tag_pair() -> impl Strategy<Value = (Tag, Tag)> {
    let distance = prop_oneof![any::<i32>(), -3..4i32];
    let epochs = (any::<u32>(), distance);
    (
        epochs,
        any::<u16>(),
        prop_oneof![Just(None), any::<u16>().prop_map(Some)],
    )
        .prop_map(|((epoch, distance), own, theirs)| {
            let epoch = Epoch::new(epoch);
            let found = Tag::new(epoch.after(distance), theirs.unwrap_or(own));
            (Tag::new(epoch, own), found)
        })
}

proptest! {
    #[test]
    fn places_filled_with_packets_of_the_host_have_their_tag(data: u32, tag: u32) {
        let word = Packet { data, tag: Tag::from_bits(tag) }.to_word();
        prop_assert_eq!(probe::packet_tag([word; 2]), tag);
    }

    #[test]
    fn tags_are_packed_alike(epoch: u32, operation: u16) {
        let tag = Tag::new(Epoch::new(epoch), operation).bits();
        prop_assert_eq!(probe::tag_pack(epoch, operation), tag);
        prop_assert_eq!(probe::epoch_parity(epoch) as usize, Epoch::new(epoch).parity());
    }

    #[test]
    fn tags_compare_alike((own, found) in tag_pair()) {
        prop_assert_eq!(probe::tag_distance(own.bits(), found.bits()), own.distance(found));
        prop_assert_eq!(probe::tag_classify(own.bits(), found.bits()), number(own.classify(found)));
    }

    /// What a half of an arena may hold: tags of one parity, not too old, and those of ranks ahead.
    #[test]
    fn the_polls_comparison_knows_what_is_late(
        epoch: u32, own: u16, theirs: u16, calls in -16383i32..16383,
    ) {
        let epoch = Epoch::new(epoch);
        let (expected, found) = (Tag::new(epoch, own), Tag::new(epoch.after(2 * calls), theirs));
        let stale = probe::tag_is_stale(expected.bits(), found.bits());
        prop_assert_eq!(stale, expected.classify(found) == Arrival::Stale);
    }

    #[test]
    fn a_scrub_is_due_in_the_first_two_epochs_of_a_period(epoch: u32, log_period in 1u32..31) {
        // The formula of Endpoint::advance, which takes a period; a launch takes its mask.
        let period = 1u32 << log_period;
        let near = epoch & (period | 3);
        for epoch in [epoch, near] {
            prop_assert_eq!(probe::epoch_scrubs(epoch, period - 1), epoch % period < 2);
        }
    }

    #[test]
    fn slots_lie_alike(
        world in 1usize..9,
        pairs in prop_oneof![1usize..100, (1usize << 27)..(1 << 40)],
        source in 0usize..8,
        parity in 0usize..2,
    ) {
        let source = source % world;
        let layout = ArenaLayout::new(world, 2 * pairs).unwrap();
        let slot = layout.slot_values() as u64;
        let got = probe::arena_slot(world as u32, slot, parity as u32, source as u32);
        prop_assert_eq!(got, layout.index(parity, source, 0) as u64);
        prop_assert_eq!(probe::arena_packets(world as u32, slot), layout.packets() as u64);
        // Peers write the stop word where kernels find it, a rank reads it where the host has.
        let stop = probe::arena_stop(world as u32, slot) * size_of::<Packet>() as u64;
        prop_assert_eq!(stop, layout.stop_offset() as u64);
    }
}

/// Each word of a packet but the last, which is its tag, holds one sum or none; and a message fits where a slot has a place
/// for each of its values.
#[test]
fn sums_have_places_of_their_own() {
    const COLUMNS: u32 = 128;
    let mut seen = std::collections::HashSet::new();
    for run in 0..3 {
        for column in 0..COLUMNS {
            let (place, word) = probe::sum_place(run, column);
            assert_eq!(place % 2, 0, "a packet begins at 16 bytes");
            assert!(word < 3, "run {run}, column {column}: word {word}");
            assert!(place + 2 <= (run + 1) * u64::from(COLUMNS));
            assert!(seen.insert((place, word)), "run {run}, column {column}");
        }
    }
}
