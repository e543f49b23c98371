//! Which form an all-reduce takes, how it is cut into launches, and their grids.
//!
//! What must stay true: form, launches and chunks follow from what all ranks know alike (length, dtypes,
//! epilogue, world, slot), never from a rank's device; the grid alone is the rank's own business.

use super::MAX_CTAS;
use crate::format::DType;
use crate::{Epilogue, ReduceForm};
use std::ops::Range;

/// Elements of an octet; `kOctet` in csrc/comm/octet_layout.h.
pub const OCTET: usize = 8;
/// Threads of a CTA at most; `TRELLINK_REDUCE_MAX_THREADS` in csrc/params.h.
const MAX_THREADS: usize = 512;
/// Enough to have a thread for each peer's flag, and four warps to hide each other's latencies.
const MIN_TWO_SHOT_THREADS: usize = 128;
/// In one shot, CTAs of few threads as long as there are few of them; then larger ones, then more
/// (docs/performance.md).
const MIN_ONE_SHOT_THREADS: usize = 64;
const FEW_CTAS: usize = 64;
/// Octets that are interleaved; `OctetLayout::kGroup` in csrc/comm/octet_layout.h.
const GROUP_OCTETS: usize = 16;
/// Octets of two-byte elements that go as packets together, and these packets; `HalfOctetLayout` there.
const HALF_GROUP: (usize, usize) = (32, 32 + 11);
/// Packets of an octet of f32; `FloatOctetLayout::kPackets` there.
const FLOAT_PACKETS: usize = 3;
/// Chunks of a part at most: about the SMs of a large device.
const MAX_CHUNKS: usize = 128;
/// Octets of a chunk at least, as long as there are fewer chunks than that.
const CHUNK_OCTETS: usize = 128;

/// Bytes of input, by world, above which two shots are taken. One shot moved `2 (world - 1)` times the
/// bytes when this was set, by now two thirds of that; two move `2 (world - 1) / world` times, but wait once more, which
/// fences make about 3 µs; at 400 GB/s both then took equally long here. For two ranks that is never, as measured
/// (docs/performance.md); for more it is not measured, `trellink bench --all-reduce-bytes` does.
const TWO_SHOT_BYTES: [usize; 9] = [
    usize::MAX,
    usize::MAX,
    usize::MAX,
    448 << 10,
    256 << 10,
    192 << 10,
    144 << 10,
    112 << 10,
    96 << 10,
];

/// How a whole call is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReducePlan {
    /// One shot, or two.
    pub two_shot: bool,
    world: usize,
    octets: usize,
    octets_per_launch: usize,
}

impl ReducePlan {
    /// The plan for `len` elements, a multiple of [`OCTET`].
    ///
    /// One shot also where a slot is too small for two.
    pub fn new(
        form: ReduceForm,
        world: usize,
        slot_packets: usize,
        len: usize,
        (input, output): (DType, DType),
        epilogue: Epilogue,
    ) -> Self {
        let wanted = match form {
            ReduceForm::Automatic => len.saturating_mul(input.size()) > TWO_SHOT_BYTES[world],
            ReduceForm::OneShot => false,
            ReduceForm::TwoShot => true,
        };
        let two_shot_octets = two_shot_octets(world, slot_packets, input, output, epilogue);
        let two_shot = wanted && two_shot_octets > 0;
        let capacity = if two_shot {
            two_shot_octets
        } else {
            one_shot_octets(slot_packets, input)
        };
        let octets = len / OCTET;
        // Launches of one length, rather than full ones and a short one that is all waiting.
        let launches = octets.div_ceil(capacity).max(1);
        ReducePlan {
            two_shot,
            world,
            octets,
            octets_per_launch: octets.div_ceil(launches).max(1),
        }
    }

    /// The octets of each launch.
    pub fn launches(&self) -> impl Iterator<Item = Range<usize>> {
        let (end, step) = (self.octets, self.octets_per_launch);
        (0..end)
            .step_by(step)
            .map(move |start| start..end.min(start + step))
    }

    /// The shape of a launch of so many octets, on a share of `sms` SMs.
    pub fn shape(&self, octets: usize, sms: usize) -> ReduceShape {
        let sms = sms.clamp(1, MAX_CTAS);
        if self.two_shot {
            let part = octets.div_ceil(self.world);
            let chunks = chunks(part);
            return ReduceShape {
                grid: chunks.min(sms) as u32,
                threads: threads(part.div_ceil(chunks), MIN_TWO_SHOT_THREADS),
                chunks: chunks as u32,
            };
        }
        let small = octets.div_ceil(MIN_ONE_SHOT_THREADS).min(FEW_CTAS);
        let ctas = small.max(octets.div_ceil(MAX_THREADS)).clamp(1, sms);
        let threads = threads(octets.div_ceil(ctas), MIN_ONE_SHOT_THREADS);
        // Whole warps may leave some CTAs without an octet, and no CTA may have nothing to send (see exchange.cuh).
        let grid = octets.div_ceil(threads as usize).clamp(1, sms);
        ReduceShape {
            grid: grid as u32,
            threads,
            chunks: 0,
        }
    }
}

/// The shape of one launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReduceShape {
    /// CTAs, one per SM at most: all are resident while they wait for peers.
    pub grid: u32,
    /// Threads of a CTA.
    pub threads: u32,
    /// Chunks of a part in the two-shot form: the same on all ranks, however many SMs they have.
    pub chunks: u32,
}

/// Whole warps for so many octets.
fn threads(octets: usize, at_least: usize) -> u32 {
    octets.next_multiple_of(32).clamp(at_least, MAX_THREADS) as u32
}

fn chunks(part_octets: usize) -> usize {
    part_octets.div_ceil(CHUNK_OCTETS).clamp(1, MAX_CHUNKS)
}

/// 16-byte pieces of an octet of elements of this size.
fn pieces(bytes: usize) -> usize {
    OCTET * bytes / 16
}

/// What fits the slot as packets.
fn one_shot_octets(slot_packets: usize, input: DType) -> usize {
    let (octets, packets) = match input {
        DType::F32 => (GROUP_OCTETS, GROUP_OCTETS * FLOAT_PACKETS),
        DType::F16 | DType::Bf16 => HALF_GROUP,
    };
    slot_packets / (2 * packets) * octets
}

/// What fits the slots of all ranks as flags, contributions and results.
fn two_shot_octets(
    world: usize,
    slot_packets: usize,
    input: DType,
    output: DType,
    epilogue: Epilogue,
) -> usize {
    let result = match epilogue {
        Epilogue::Store => output,
        Epilogue::Add => DType::F32,
    };
    let group_packets = GROUP_OCTETS * 2 * (pieces(input.size()) + pieces(result.size()));
    // A chunk has four packets of flags and, but for the last, the octets of eight groups: no more than
    // a packet a group, and four.
    let groups = slot_packets.saturating_sub(4) / (group_packets + 1);
    groups * GROUP_OCTETS * world
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::probe;
    use proptest::prelude::*;

    fn plans() -> impl Strategy<Value = (ReducePlan, usize, (DType, DType), Epilogue)> {
        let dtype = || proptest::sample::select(DType::ALL.to_vec());
        let epilogue = proptest::sample::select(vec![Epilogue::Store, Epilogue::Add]);
        let form = proptest::sample::select(vec![
            ReduceForm::Automatic,
            ReduceForm::OneShot,
            ReduceForm::TwoShot,
        ]);
        let sizes = (1usize..9, 1usize..5000, 0usize..200_000);
        (sizes, form, dtype(), dtype(), epilogue).prop_map(
            |(sizes, form, input, output, epilogue)| {
                let (world, slot, octets) = sizes;
                let (slot, len, dtypes) = (128 * slot, octets * OCTET, (input, output));
                let plan = ReducePlan::new(form, world, slot, len, dtypes, epilogue);
                (plan, slot, dtypes, epilogue)
            },
        )
    }

    proptest! {
        #[test]
        fn launches_cover_the_tensor_and_fit_the_slot(
            (plan, slot, (input, output), epilogue) in plans(),
            sms in 1usize..300,
        ) {
            let mut next = 0;
            for octets in plan.launches() {
                prop_assert_eq!(octets.start, next);
                prop_assert!(!octets.is_empty());
                next = octets.end;
                let count = octets.len() as u32;
                let shape = plan.shape(octets.len(), sms);
                prop_assert!(shape.grid >= 1 && shape.grid as usize <= sms.min(MAX_CTAS));
                let before_the_last = (shape.grid as usize - 1) * shape.threads as usize;
                prop_assert!(plan.two_shot || before_the_last < octets.len(), "an idle CTA");
                prop_assert!(shape.threads % 32 == 0);
                prop_assert!((MIN_ONE_SHOT_THREADS..=MAX_THREADS).contains(&(shape.threads as usize)));
                let input_pieces = pieces(input.size()) as u32;
                let packets = if plan.two_shot {
                    let result = if epilogue == Epilogue::Add { DType::F32 } else { output };
                    let pieces = [input_pieces, pieces(result.size()) as u32];
                    probe::two_shot_packets(plan.world as u32, count, shape.chunks, pieces)
                } else {
                    match input {
                        DType::F32 => probe::octet_packets(FLOAT_PACKETS as u32, count),
                        DType::F16 | DType::Bf16 => probe::half_octet_packets(count),
                    }
                };
                prop_assert!(packets <= slot as u64, "{} packets in a slot of {}", packets, slot);
            }
            prop_assert_eq!(next, plan.octets);
        }

        #[test]
        fn chunks_of_all_owners_cover_the_message_in_order(
            world in 1u32..9, octets in 1u32..5000, chunks in 1u32..129,
        ) {
            let bound = |owner, chunk| probe::two_shot_chunk(world, octets, chunks, owner, chunk);
            let mut next = 0;
            for owner in 0..world {
                for chunk in 0..chunks {
                    prop_assert_eq!(bound(owner, chunk), next);
                    next = bound(owner, chunk + 1);
                    prop_assert!(next >= bound(owner, chunk));
                }
            }
            prop_assert_eq!(next, octets);
        }
    }

    #[test]
    fn words_of_half_octets_share_no_packet_but_fourths_do() {
        for octets in [1, 2, 3, 31, 32, 33, 100] {
            let places = probe::half_octet_packets(octets);
            let mut seen = std::collections::HashSet::new();
            for octet in 0..octets {
                let (threes, fourths, word) = probe::half_octet(octets, octet);
                let words = (0..3).map(|word| (threes, word)).chain([(fourths, word)]);
                for (packet, word) in words {
                    assert!(packet % 2 == 0 && packet < places && word < 3);
                    assert!(seen.insert((packet, word)), "{octet} of {octets}");
                }
                // Who sends fourths has the words of the two behind it at hand, if these exist.
                let (_, first, _) = probe::half_octet(octets, octet - word);
                assert_eq!(first, fourths);
                assert_eq!(octet / 32, (octet - word) / 32);
            }
        }
    }

    #[test]
    fn pieces_of_octets_share_no_packet_and_fill_their_run() {
        for pieces in [1, 2, 3, 4] {
            let octets = 48;
            let mut seen = vec![false; probe::octet_packets(pieces, octets) as usize];
            for octet in 0..octets {
                for piece in 0..u64::from(pieces) {
                    let stride = 2 * GROUP_OCTETS as u64;
                    let first = probe::octet_index(pieces, octet) + piece * stride;
                    for packet in [first, first + 1] {
                        assert!(!std::mem::replace(&mut seen[packet as usize], true));
                    }
                }
            }
            assert!(seen.into_iter().all(|seen| seen));
        }
    }

    #[test]
    fn the_smallest_slot_has_room_for_one_shot_of_every_dtype() {
        for dtype in DType::ALL {
            assert!(one_shot_octets(crate::format::GROUP, dtype) > 0);
        }
    }

    #[test]
    fn short_tensors_take_one_shot_and_long_ones_two() {
        let two_shot = |world, bytes: usize| {
            let dtypes = (DType::F16, DType::F16);
            let plan = ReducePlan::new(
                ReduceForm::Automatic,
                world,
                64 * 8192,
                bytes / 2,
                dtypes,
                Epilogue::Store,
            );
            plan.two_shot
        };
        for world in 3..9 {
            assert!(!two_shot(world, 64 << 10) && two_shot(world, 2 << 20));
        }
        assert!(!two_shot(2, 1 << 26), "both forms move as many bytes");
        assert!(!two_shot(1, 1 << 30), "there is nobody to send to");
    }

    #[test]
    fn a_short_tensor_is_dealt_to_many_ctas() {
        let (dtypes, store) = ((DType::F16, DType::F16), Epilogue::Store);
        let plan = ReducePlan::new(ReduceForm::Automatic, 2, 64 * 8192, 8192, dtypes, store);
        let shape = plan.shape(plan.launches().next().unwrap().len(), 132);
        assert_eq!((shape.grid, shape.threads), (16, 64));
    }
}
