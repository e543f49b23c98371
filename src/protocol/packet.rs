//! The unit of the exchange: one f32 with the tag of the call it belongs to.
//!
//! What must stay true: data and tag travel in one 64-bit access, so whoever sees the tag of a
//! call sees its data. All 2^32 bit patterns of the data are legal (NaN, −0 and infinities pass
//! unchanged), which is why the data is kept as bits and the type is not compared as a float.

use super::Tag;

/// One value and its tag; as a u64 the data are the low and the tag the high 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The bits of the f32.
    pub data: u32,
    /// The call that the value belongs to.
    pub tag: Tag,
}

impl Packet {
    /// A packet that carries `value` in the call that `tag` stands for.
    pub fn new(value: f32, tag: Tag) -> Self {
        Packet {
            data: value.to_bits(),
            tag,
        }
    }

    /// The value, bit for bit.
    pub fn value(self) -> f32 {
        f32::from_bits(self.data)
    }

    /// From the word in memory.
    pub fn from_word(word: u64) -> Self {
        Packet {
            data: word as u32,
            tag: Tag::from_bits((word >> 32) as u32),
        }
    }

    /// The word in memory.
    pub fn to_word(self) -> u64 {
        (self.tag.bits() as u64) << 32 | self.data as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn special_values_pass_bit_for_bit() {
        let signalling_nan = f32::from_bits(0x7f80_0001);
        for value in [
            -0.0,
            f32::NAN,
            signalling_nan,
            f32::INFINITY,
            f32::MIN_POSITIVE / 2.0,
        ] {
            let word = Packet::new(value, Tag::from_bits(7)).to_word();
            assert_eq!(Packet::from_word(word).data, value.to_bits());
        }
    }

    #[test]
    fn data_are_the_low_half() {
        let packet = Packet::new(1.0, Tag::from_bits(0x1234_5678));
        assert_eq!(packet.to_word(), 0x1234_5678_3f80_0000);
    }

    proptest! {
        #[test]
        fn words_and_packets_are_inverse(word: u64) {
            prop_assert_eq!(Packet::from_word(word).to_word(), word);
        }
    }
}
