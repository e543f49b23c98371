//! The layers that are measured, by their whole K and N.

use std::fmt;
use std::str::FromStr;
use trellink::format::GROUP;

/// A whole layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    name: Option<&'static str>,
    /// Input channels of all ranks together.
    pub k: usize,
    /// Output channels.
    pub n: usize,
}

impl Shape {
    /// The attention outputs and MLP down projections of the Llama family.
    pub const PRESETS: [Shape; 4] = [
        Shape::preset("8b-o", 4096, 4096),
        Shape::preset("8b-down", 14336, 4096),
        Shape::preset("70b-o", 8192, 8192),
        Shape::preset("70b-down", 28672, 8192),
    ];

    /// The gate and up projections of the same, each of them.
    pub const GATES: [Shape; 2] = [
        Shape::preset("8b-gate", 4096, 14336),
        Shape::preset("70b-gate", 8192, 28672),
    ];

    const fn preset(name: &'static str, k: usize, n: usize) -> Self {
        let name = Some(name);
        Shape { name, k, n }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "{}x{}", self.k, self.n),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let preset = Shape::PRESETS
            .into_iter()
            .chain(Shape::GATES)
            .find(|shape| shape.name == Some(text));
        if let Some(preset) = preset {
            return Ok(preset);
        }
        let channels = |text: &str| {
            text.trim()
                .parse()
                .ok()
                .filter(|&channels| is_legal(channels))
        };
        let numbers = text.split_once(['x', '×']);
        match numbers.map(|(k, n)| (channels(k), channels(n))) {
            Some((Some(k), Some(n))) => Ok(Shape { name: None, k, n }),
            _ => Err(format!(
                "expected 8b-o, 8b-down, 8b-gate, 70b-o, 70b-down, 70b-gate or KxN with multiples of {GROUP} up to {LARGEST}"
            )),
        }
    }
}

/// Channels at most: what a random layer takes stays within a machine's memory.
const LARGEST: usize = 1 << 17;

fn is_legal(channels: usize) -> bool {
    channels > 0 && channels <= LARGEST && channels.is_multiple_of(GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_presets_or_multiples_of_128() {
        for preset in Shape::PRESETS.into_iter().chain(Shape::GATES) {
            assert_eq!(preset.to_string().parse(), Ok(preset));
        }
        let shape: Shape = "256x128".parse().unwrap();
        assert_eq!(
            (shape.k, shape.n, shape.to_string()),
            (256, 128, "256x128".into())
        );
        for wrong in [
            "",
            "x",
            "128",
            "128x",
            "0x128",
            "100x128",
            "128x-128",
            "8b",
            "131200x128",
        ] {
            assert!(wrong.parse::<Shape>().is_err(), "{wrong}");
        }
    }
}
