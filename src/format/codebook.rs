//! The three functions that turn a 16-bit trellis state into a weight.

use super::Bits;
use std::fmt;

/// How a 16-bit state becomes a weight.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Codebook {
    /// Linear congruential step, then the sum of two masked halves. No marker tensor.
    ThreeInst,
    /// Multiplication by `0xCBAC1FED`, then the sum of two masked halves.
    Mcg,
    /// Multiplication by `0x83DCD12D`, then an affine function of the sum of the bytes.
    Mul1,
}

impl Codebook {
    /// Every codebook of the format.
    pub const ALL: [Codebook; 3] = [Codebook::ThreeInst, Codebook::Mcg, Codebook::Mul1];

    /// The value that the linear's marker tensor (`.mcg` or `.mul1`) holds; 3inst has no marker.
    pub fn marker(self) -> Option<u32> {
        match self {
            Codebook::ThreeInst => None,
            Codebook::Mcg => Some(0xCBAC_1FED),
            Codebook::Mul1 => Some(0x83DC_D12D),
        }
    }

    /// Its number in `csrc/format/codebook.h`, by which kernels know it.
    pub(crate) fn number(self) -> u32 {
        match self {
            Codebook::ThreeInst => 0,
            Codebook::Mcg => 1,
            Codebook::Mul1 => 2,
        }
    }

    /// Whether the format defines this codebook at `bits`: half-integer rates exist for mul1 only.
    pub fn supports(self, bits: Bits) -> bool {
        self == Codebook::Mul1 || !bits.is_half()
    }

    /// Lower-case name, as in file names and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Codebook::ThreeInst => "3inst",
            Codebook::Mcg => "mcg",
            Codebook::Mul1 => "mul1",
        }
    }
}

impl fmt::Display for Codebook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Codebook {
    type Err = crate::Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|c| c.name() == s)
            .ok_or_else(|| {
                crate::Error::argument("codebook", format!("`{s}`"), "3inst, mcg or mul1")
            })
    }
}
