//! The rules of an EXL3 linear in a checkpoint (`docs/exl3-format.md`), and what passed them.
//!
//! What must stay true: a [`LinearInfo`] exists only for a linear whose every part has the dtype,
//! shape and value that the format demands, so that its view can be built without surprises.

use super::catalogue::{Catalogue, Entry};
use super::shorten;
use crate::format::{Bits, Codebook, DType, GROUP, TILE};
use crate::weights::{Bias, Linear, Scales};
use crate::{Error, Result};

const TRELLIS: &str = ".trellis";

/// Parts that no other kind of layer has: without their trellis, the checkpoint is incomplete.
const EXL3_PARTS: [&str; 4] = [".suh", ".svh", ".mcg", ".mul1"];

/// What a checkpoint says about one of its EXL3 linears.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LinearInfo {
    /// The layer's name: what its tensors' names have before the last dot.
    pub name: String,
    /// In-features, a positive multiple of 128 (the converter's padding included).
    pub k: usize,
    /// Out-features, a positive multiple of 128 (the converter's padding included).
    pub n: usize,
    /// Bits per weight.
    pub bits: Bits,
    /// How a trellis state becomes a weight.
    pub codebook: Codebook,
    /// Element type of the bias, if the layer has one.
    pub bias: Option<DType>,
    /// Bytes of the packed weights; scales and bias not counted.
    pub packed_bytes: usize,
    /// Index of the packed weights among the catalogue's entries.
    trellis: usize,
}

impl LinearInfo {
    /// The linear itself.
    pub(super) fn view<'a>(&'a self, tensors: &'a Catalogue) -> Result<Linear<'a>> {
        let trellis = &tensors.entries()[self.trellis];
        let parts = Parts {
            tensors,
            layer: &self.name,
            trellis,
        };
        Linear::from_parts(
            &self.name,
            self.k,
            self.n,
            self.bits,
            self.codebook,
            tensors.bytes(trellis),
            parts.scales("suh", "su", self.k)?,
            parts.scales("svh", "sv", self.n)?,
            parts.bias(self.n)?,
        )
    }
}

/// Every EXL3 linear of `tensors`, checked, in natural order of the names.
pub(super) fn linears(tensors: &Catalogue) -> Result<Vec<LinearInfo>> {
    let mut linears = Vec::new();
    for (at, entry) in tensors.entries().iter().enumerate() {
        if let Some(layer) = entry.name.strip_suffix(TRELLIS) {
            let parts = Parts {
                tensors,
                layer,
                trellis: entry,
            };
            linears.push(parts.check(at)?);
        }
        refuse_orphan(tensors, entry)?;
    }
    // The order of `q.trellis` and `q.a.trellis` is not that of `q` and `q.a`.
    linears.sort_by(|a, b| super::natural::compare(&a.name, &b.name));
    Ok(linears)
}

/// Refuses an EXL3 part without a trellis: a file of the checkpoint must be absent, and the layer
/// would silently be none.
fn refuse_orphan(tensors: &Catalogue, entry: &Entry) -> Result<()> {
    let layer = EXL3_PARTS
        .iter()
        .find_map(|part| entry.name.strip_suffix(part));
    match layer.map(|layer| format!("{layer}{TRELLIS}")) {
        Some(trellis) if tensors.find(&trellis).is_none() => Err(Error::MissingTensor {
            path: tensors.path(entry).into(),
            tensor: shorten(trellis),
            reason: shorten(format!(
                "is the checkpoint complete? There is `{}`",
                entry.name
            )),
        }),
        _ => Ok(()),
    }
}

/// The tensors of one layer.
struct Parts<'a> {
    tensors: &'a Catalogue,
    layer: &'a str,
    trellis: &'a Entry,
}

impl<'a> Parts<'a> {
    /// What the layer is, its trellis being entry `at` of the catalogue, if every part is right.
    fn check(&self, at: usize) -> Result<LinearInfo> {
        let (k, n, bits) = self.dimensions()?;
        let codebook = self.codebook()?;
        if !codebook.supports(bits) {
            return Err(self.tensors.invalid(
                self.trellis,
                format!("{bits} bits with codebook {codebook}"),
                "whole bits; 1.5, 2.5 and 3.5 exist with mul1 only",
            ));
        }
        self.scales("suh", "su", k)?;
        self.scales("svh", "sv", n)?;
        Ok(LinearInfo {
            name: self.layer.into(),
            k,
            n,
            bits,
            codebook,
            bias: self.bias(n)?.map(|bias| bias.dtype()),
            packed_bytes: self.tensors.bytes(self.trellis).len(),
            trellis: at,
        })
    }

    /// K, N and bits from the shape of the trellis.
    fn dimensions(&self) -> Result<(usize, usize, Bits)> {
        let trellis = self.trellis;
        self.expect_dtype(trellis, &["I16"])?;
        let found = || format!("shape {:?}", trellis.shape);
        let &[k_tiles, n_tiles, words] = trellis.shape.as_slice() else {
            let expected = "shape [K/16, N/16, 16·bits]";
            return Err(self.tensors.invalid(trellis, found(), expected));
        };
        let bits = Bits::from_tile_words(words).ok_or_else(|| {
            let expected = "16·bits words in a tile, bits being 1 to 8 or 1.5, 2.5, 3.5";
            self.tensors.invalid(trellis, found(), expected)
        })?;
        let features = |tiles: usize| {
            let features = tiles.checked_mul(TILE)?;
            (features > 0 && features.is_multiple_of(GROUP)).then_some(features)
        };
        match (features(k_tiles), features(n_tiles)) {
            (Some(k), Some(n)) => Ok((k, n, bits)),
            _ => Err(self.tensors.invalid(
                trellis,
                found(),
                "shape [K/16, N/16, 16·bits] with K and N positive multiples of 128",
            )),
        }
    }

    /// The codebook that the markers name.
    fn codebook(&self) -> Result<Codebook> {
        match (self.find("mcg"), self.find("mul1")) {
            (None, None) => Ok(Codebook::ThreeInst),
            (Some(marker), None) => self.marked(marker, Codebook::Mcg),
            (None, Some(marker)) => self.marked(marker, Codebook::Mul1),
            (Some(mcg), Some(mul1)) => Err(self.tensors.invalid(
                mcg,
                format!("a second codebook marker, `{}`", mul1.name),
                "one marker at most",
            )),
        }
    }

    /// `codebook`, if `marker` holds its value.
    fn marked(&self, marker: &Entry, codebook: Codebook) -> Result<Codebook> {
        self.expect_dtype(marker, &["I32"])?;
        // The format has a scalar; some writers know only arrays.
        if !marker.shape.is_empty() && marker.shape != [1] {
            return Err(self.wrong_shape(marker, "shape []"));
        }
        let &[a, b, c, d] = self.tensors.bytes(marker) else {
            return Err(self.wrong_shape(marker, "4 bytes"));
        };
        let value = u32::from_le_bytes([a, b, c, d]);
        if Some(value) != codebook.marker() {
            return Err(self.tensors.invalid(
                marker,
                format!("{value:#010X}, as in experimental files"),
                format!("{:#010X}", codebook.marker().unwrap_or_default()),
            ));
        }
        Ok(codebook)
    }

    /// The scales of one side, from `half` (f16 values) or else `signs` (sign bits).
    fn scales(&self, half: &str, signs: &str, channels: usize) -> Result<Scales<'a>> {
        match (self.find(half), self.find(signs)) {
            (Some(entry), None) => {
                self.expect_dtype(entry, &["F16"])?;
                self.expect_len(entry, channels)?;
                Scales::from_f16_bytes(self.tensors.bytes(entry))
            }
            (None, Some(entry)) => {
                self.expect_dtype(entry, &["I16"])?;
                self.expect_len(entry, channels / 16)?;
                Scales::from_sign_bytes(self.tensors.bytes(entry))
            }
            (Some(entry), Some(other)) => Err(self.tensors.invalid(
                entry,
                format!("`{}` beside it", other.name),
                "scales as values or as sign bits, not both",
            )),
            (None, None) => Err(self.missing(
                half,
                format!(
                    "a linear has {half} [{channels}] or {signs} [{}]",
                    channels / 16
                ),
            )),
        }
    }

    /// The bias, if there is one.
    fn bias(&self, channels: usize) -> Result<Option<Bias<'a>>> {
        let Some(entry) = self.find("bias") else {
            return Ok(None);
        };
        self.expect_dtype(entry, &["F16", "BF16", "F32"])?;
        let dtype = match entry.dtype.as_str() {
            "BF16" => DType::Bf16,
            "F32" => DType::F32,
            _ => DType::F16,
        };
        self.expect_len(entry, channels)?;
        Bias::new(self.tensors.bytes(entry), dtype).map(Some)
    }

    fn find(&self, part: &str) -> Option<&'a Entry> {
        self.tensors.find(&format!("{}.{part}", self.layer))
    }

    fn expect_dtype(&self, entry: &Entry, accepted: &[&str]) -> Result<()> {
        if accepted.contains(&entry.dtype.as_str()) {
            return Ok(());
        }
        let found = format!("dtype {}", entry.dtype);
        let expected = format!("dtype {}", accepted.join(" or "));
        Err(self.tensors.invalid(entry, found, expected))
    }

    fn expect_len(&self, entry: &Entry, len: usize) -> Result<()> {
        if entry.shape == [len] {
            return Ok(());
        }
        Err(self.wrong_shape(entry, &format!("shape [{len}]")))
    }

    fn wrong_shape(&self, entry: &Entry, expected: &str) -> Error {
        let found = format!("shape {:?}", entry.shape);
        self.tensors.invalid(entry, found, expected)
    }

    /// The error for an absent part: it is missed in the file that has the trellis.
    fn missing(&self, part: &str, reason: String) -> Error {
        Error::MissingTensor {
            path: self.tensors.path(self.trellis).into(),
            tensor: shorten(format!("{}.{part}", self.layer)),
            reason,
        }
    }
}
