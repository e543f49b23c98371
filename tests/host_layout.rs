//! The C++ headers that the kernels use against their Rust counterparts: layout, packet, epoch and
//! arena say the same on both sides.

use proptest::prelude::*;
use trellink::format::layout::{BlockLayout, LANES};
use trellink::format::{Bits, Codebook};
use trellink::host::probe;
use trellink::protocol::{ArenaLayout, Arrival, Epoch, Packet};

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
    }
}

/// Random epochs, and those around a wrap or another.
fn epoch_pair() -> impl Strategy<Value = (u32, u32)> {
    (any::<u32>(), prop_oneof![any::<i32>(), -3..4i32])
        .prop_map(|(epoch, distance)| (epoch, epoch.wrapping_add(distance as u32)))
}

proptest! {
    #[test]
    fn packets_are_packed_alike(data: u32, epoch: u32) {
        let word = Packet { data, epoch: Epoch::new(epoch) }.to_word();
        prop_assert_eq!(probe::packet_pack(data, epoch), word);
        prop_assert_eq!(probe::packet_unpack(word), (data, epoch));
    }

    #[test]
    fn epochs_compare_alike((epoch, tag) in epoch_pair()) {
        let (here, there) = (Epoch::new(epoch), Epoch::new(tag));
        prop_assert_eq!(probe::epoch_parity(epoch) as usize, here.parity());
        prop_assert_eq!(probe::epoch_distance(epoch, tag), here.distance(there));
        prop_assert_eq!(probe::epoch_classify(epoch, tag), number(here.classify(there)));
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
    }
}
