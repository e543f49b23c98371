//! Random damage to a valid file: it opens or is refused, and what opens can be read to the end.

use super::builder::Builder;
use super::{open, walk};
use proptest::prelude::*;

/// One act of damage.
#[derive(Clone, Debug)]
enum Damage {
    /// Flips the bits of `mask` in byte `at`.
    Flip { at: usize, mask: u8 },
    /// Cuts the file at byte `at`.
    Truncate { at: usize },
    /// Puts a copy of `len` bytes from `from` over those at `to`.
    Splice { from: usize, to: usize, len: usize },
    /// Takes out `len` bytes from `at` on.
    Remove { at: usize, len: usize },
    /// Writes a digit into the header, where it is most likely to change a number.
    Digit { at: usize, digit: u8 },
}

impl Damage {
    /// Positions are taken modulo what there is.
    fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        if len == 0 {
            return;
        }
        match *self {
            Damage::Flip { at, mask } => bytes[at % len] ^= mask,
            Damage::Truncate { at } => bytes.truncate(at % len),
            Damage::Splice { from, to, len: n } => {
                let from = from % len;
                let piece = bytes[from..(from + n).min(len)].to_vec();
                let to = to % len;
                let end = (to + piece.len()).min(len);
                bytes.splice(to..end, piece);
            }
            Damage::Remove { at, len: n } => {
                let at = at % len;
                bytes.drain(at..(at + n).min(len));
            }
            Damage::Digit { at, digit } => {
                let digits: Vec<usize> = (0..len).filter(|&i| bytes[i].is_ascii_digit()).collect();
                if !digits.is_empty() {
                    bytes[digits[at % digits.len()]] = b'0' + digit;
                }
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    // Most of the file is data, in which nothing can go wrong: damage the front of it more.
    let at = prop_oneof![3 => 0usize..400, 1 => any::<usize>()];
    prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, mask)| Damage::Flip { at, mask }),
        at.clone().prop_map(|at| Damage::Truncate { at }),
        (at.clone(), at.clone(), 0usize..64).prop_map(|(from, to, len)| Damage::Splice {
            from,
            to,
            len
        }),
        (at.clone(), 0usize..64).prop_map(|(at, len)| Damage::Remove { at, len }),
        (at, 0u8..10).prop_map(|(at, digit)| Damage::Digit { at, digit }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_files_never_panic(damages in prop::collection::vec(damage(), 1..4)) {
        let mut bytes = Builder::valid().build();
        for damage in damages {
            damage.apply(&mut bytes);
        }
        if let Ok(checkpoint) = open(bytes) {
            walk(&checkpoint);
        }
    }

    #[test]
    fn arbitrary_headers_never_panic(header in ".{0,200}", data in prop::collection::vec(any::<u8>(), 0..16)) {
        let _ = open(super::builder::framed(header.as_bytes(), &data));
    }

    #[test]
    fn arbitrary_entries_never_panic(
        dtype in prop::sample::select(vec!["U8", "F4", "I16", "F16", "F32", "I32", "C64"]),
        shape in prop::collection::vec(prop_oneof![0u64..200, any::<u64>()], 0..4),
        offsets in prop::array::uniform2(prop_oneof![0u64..200, any::<u64>()]),
        part in prop::sample::select(vec!["trellis", "suh", "mcg", "weight"]),
    ) {
        let file = Builder::valid().entry(&format!("a.r.{part}"), dtype, &shape, offsets);
        if let Ok(checkpoint) = open(file.build()) {
            walk(&checkpoint);
        }
    }
}
