//! What tests of other modules and other crates want to see of the C++ side. Not part of the API.

use super::decode::decode_with;
use super::kernels::Kernels;
use crate::format::{Bits, Codebook};
use crate::weights::Linear;
use half::f16;

// SAFETY: the functions of csrc/host/probe.cpp are pure arithmetic on their arguments, whatever
// these are, hence `safe`.
unsafe extern "C" {
    safe fn trellink_probe_has_format(codebook: u32, half_bits: u32) -> bool;
    safe fn trellink_probe_word_index(half_bits: u32, lane: i32, word: i32) -> i32;
    safe fn trellink_probe_window_end(half_bits: u32, weight: i32) -> i32;
    safe fn trellink_probe_packet_tag(low: u64, high: u64) -> u32;
    safe fn trellink_probe_sum_run(run: u64) -> u64;
    safe fn trellink_probe_sum_place(column: u32) -> u32;
    safe fn trellink_probe_sum_word(column: u32) -> u32;
    safe fn trellink_probe_epoch_parity(epoch: u32) -> u32;
    safe fn trellink_probe_tag_pack(epoch: u32, operation: u32) -> u32;
    safe fn trellink_probe_tag_distance(expected: u32, tag: u32) -> i32;
    safe fn trellink_probe_tag_classify(expected: u32, tag: u32) -> i32;
    safe fn trellink_probe_tag_is_stale(expected: u32, tag: u32) -> bool;
    safe fn trellink_probe_epoch_scrubs(epoch: u32, scrub_mask: u32) -> bool;
    safe fn trellink_probe_arena_slot(
        world: u32,
        slot_packets: u64,
        parity: u32,
        source: u32,
    ) -> u64;
    safe fn trellink_probe_arena_packets(world: u32, slot_packets: u64) -> u64;
    safe fn trellink_probe_arena_stop(world: u32, slot_packets: u64) -> u64;
    safe fn trellink_probe_octet_index(pieces: u32, octet: u32) -> u64;
    safe fn trellink_probe_octet_packets(pieces: u32, octets: u32) -> u64;
    safe fn trellink_probe_half_threes(octets: u32, octet: u32) -> u64;
    safe fn trellink_probe_half_fourths(octets: u32, octet: u32) -> u64;
    safe fn trellink_probe_half_fourth_word(octet: u32) -> u32;
    safe fn trellink_probe_half_packets(octets: u32) -> u64;
    safe fn trellink_probe_two_shot_packets(
        world: u32,
        octets: u32,
        chunks: u32,
        contribution_pieces: u32,
        result_pieces: u32,
    ) -> u64;
    safe fn trellink_probe_two_shot_chunk(
        world: u32,
        octets: u32,
        chunks: u32,
        owner: u32,
        chunk: u32,
    ) -> u32;
}

/// [`host::decode`](super::decode) by every instruction set of this machine, with its name.
pub fn decode_by_every_variant(linear: &Linear<'_>) -> Vec<(&'static str, Vec<f16>)> {
    Kernels::available()
        .iter()
        .map(|kernels| (kernels.name, decode_with(kernels, linear)))
        .collect()
}

/// Whether the kernels are compiled for this codebook at `half_bits`.
pub fn has_format(codebook: Codebook, half_bits: u32) -> bool {
    trellink_probe_has_format(codebook.number(), half_bits)
}

/// `Block::word_index` of `csrc/format/block.h`; `None` outside of the block.
pub fn word_index(bits: Bits, lane: usize, word: usize) -> Option<usize> {
    let index = trellink_probe_word_index(bits.half_bits() as u32, lane as i32, word as i32);
    index.try_into().ok()
}

/// `Block::window_end` of `csrc/format/block.h`.
pub fn window_end(bits: Bits, weight: usize) -> usize {
    trellink_probe_window_end(bits.half_bits() as u32, weight as i32) as usize
}

/// The tag of a packet of `csrc/comm/packet.h`, which lies in two places of an arena.
pub fn packet_tag(places: [u64; 2]) -> u32 {
    trellink_probe_packet_tag(places[0], places[1])
}

/// Where `csrc/comm/sum_layout.h` has a column of a run of the message: the first place of its packet in the slot, and the
/// word there.
pub fn sum_place(run: u64, column: u32) -> (u64, u32) {
    let place = trellink_probe_sum_run(run) + u64::from(trellink_probe_sum_place(column));
    (place, trellink_probe_sum_word(column))
}

/// `epoch_parity` of `csrc/comm/epoch.h`.
pub fn epoch_parity(epoch: u32) -> u32 {
    trellink_probe_epoch_parity(epoch)
}

/// `tag_pack` of `csrc/comm/epoch.h`.
pub fn tag_pack(epoch: u32, operation: u16) -> u32 {
    trellink_probe_tag_pack(epoch, operation.into())
}

/// `tag_distance` of `csrc/comm/epoch.h`.
pub fn tag_distance(expected: u32, tag: u32) -> i32 {
    trellink_probe_tag_distance(expected, tag)
}

/// `tag_classify` of `csrc/comm/epoch.h`: −1 stale, 0 current, 1 ahead, 2 of another operation.
pub fn tag_classify(expected: u32, tag: u32) -> i32 {
    trellink_probe_tag_classify(expected, tag)
}

/// `tag_is_stale` of `csrc/comm/epoch.h`.
pub fn tag_is_stale(expected: u32, tag: u32) -> bool {
    trellink_probe_tag_is_stale(expected, tag)
}

/// `epoch_scrubs` of `csrc/comm/epoch.h`.
pub fn epoch_scrubs(epoch: u32, scrub_mask: u32) -> bool {
    trellink_probe_epoch_scrubs(epoch, scrub_mask)
}

/// `ArenaLayout::slot` of `csrc/comm/arena_layout.h`.
pub fn arena_slot(world: u32, slot_packets: u64, parity: u32, source: u32) -> u64 {
    trellink_probe_arena_slot(world, slot_packets, parity, source)
}

/// `ArenaLayout::packets` of `csrc/comm/arena_layout.h`.
pub fn arena_packets(world: u32, slot_packets: u64) -> u64 {
    trellink_probe_arena_packets(world, slot_packets)
}

/// `ArenaLayout::stop` of `csrc/comm/arena_layout.h`, in packets.
pub fn arena_stop(world: u32, slot_packets: u64) -> u64 {
    trellink_probe_arena_stop(world, slot_packets)
}

/// `OctetLayout::index` of `csrc/comm/octet_layout.h`.
pub fn octet_index(pieces: u32, octet: u32) -> u64 {
    trellink_probe_octet_index(pieces, octet)
}

/// `OctetLayout::packets` of `csrc/comm/octet_layout.h`.
pub fn octet_packets(pieces: u32, octets: u32) -> u64 {
    trellink_probe_octet_packets(pieces, octets)
}

/// `HalfOctetLayout` of `csrc/comm/octet_layout.h`: the packet of an octet's first three words, that of its fourth, and
/// which of that packet's words it is.
pub fn half_octet(octets: u32, octet: u32) -> (u64, u64, u32) {
    (
        trellink_probe_half_threes(octets, octet),
        trellink_probe_half_fourths(octets, octet),
        trellink_probe_half_fourth_word(octet),
    )
}

/// `HalfOctetLayout::packets` of `csrc/comm/octet_layout.h`.
pub fn half_octet_packets(octets: u32) -> u64 {
    trellink_probe_half_packets(octets)
}

/// `TwoShotLayout::packets` of `csrc/comm/octet_layout.h`, for octets of so many pieces.
pub fn two_shot_packets(world: u32, octets: u32, chunks: u32, pieces: [u32; 2]) -> u64 {
    trellink_probe_two_shot_packets(world, octets, chunks, pieces[0], pieces[1])
}

/// `part(owner) + chunk(owner, chunk)` of `TwoShotLayout` of `csrc/comm/octet_layout.h`.
pub fn two_shot_chunk(world: u32, octets: u32, chunks: u32, owner: u32, chunk: u32) -> u32 {
    trellink_probe_two_shot_chunk(world, octets, chunks, owner, chunk)
}
