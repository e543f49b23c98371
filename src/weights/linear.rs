//! One EXL3 linear, whole or as the shard of a rank.
//!
//! What must stay true: scales, bias and trellis agree with K and N, and both are multiples of
//! 128. A whole linear has K, N > 0; a shard may have K = 0 or N = 0.

use super::{Bias, Scales, Trellis};
use crate::format::{Bits, Codebook, GROUP, TILE};
use crate::{Error, Result};
use std::ops::Range;

/// A linear layer `y = x·W + bias` with W [K, N] packed in EXL3, as views of the loader's bytes.
///
/// Copying it copies no weights. Cut it into shards with [`rows`](Self::rows) and
/// [`columns`](Self::columns).
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    name: &'a str,
    k: usize,
    n: usize,
    codebook: Codebook,
    trellis: Trellis<'a>,
    suh: Scales<'a>,
    svh: Scales<'a>,
    bias: Option<Bias<'a>>,
}

impl<'a> Linear<'a> {
    /// A linear from its parts, for weights that come from somewhere else than a
    /// checkpoint file.
    ///
    /// | argument | shape, type |
    /// |---|---|
    /// | `k`, `n` | in- and out-features, both multiples of 128 and positive |
    /// | `trellis` | [k/16, n/16, tile words] little-endian u16, any alignment |
    /// | `suh`, `svh` | k input scales, n output scales |
    /// | `bias` | n values |
    ///
    /// ```
    /// use trellink::format::{Bits, Codebook};
    /// use trellink::weights::{Linear, Scales};
    ///
    /// let (k, n) = (128, 256);
    /// let bits: Bits = "3".parse()?;
    /// // Every bit pattern is a valid tile; 0x3C00 is 1.0 in f16.
    /// let trellis = vec![0x5A; k / 16 * (n / 16) * bits.tile_bytes()];
    /// let suh = [0x00, 0x3C].repeat(k);
    /// let svh = [0x00, 0x3C].repeat(n);
    /// let linear = Linear::from_parts(
    ///     "up_proj",
    ///     k,
    ///     n,
    ///     bits,
    ///     Codebook::Mcg,
    ///     &trellis,
    ///     Scales::from_f16_bytes(&suh)?,
    ///     Scales::from_f16_bytes(&svh)?,
    ///     None,
    /// )?;
    /// assert_eq!(linear.columns(128..256)?.n(), 128);
    /// # Ok::<(), trellink::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the first part that does not fit.
    // Nine parts are what a layer has; a struct of them would be this type once more.
    #[allow(clippy::too_many_arguments)]
    pub fn from_parts(
        name: &'a str,
        k: usize,
        n: usize,
        bits: Bits,
        codebook: Codebook,
        trellis: &'a [u8],
        suh: Scales<'a>,
        svh: Scales<'a>,
        bias: Option<Bias<'a>>,
    ) -> Result<Self> {
        check_features("k", name, k)?;
        check_features("n", name, n)?;
        if !codebook.supports(bits) {
            return Err(Error::argument(
                "bits",
                format!("{bits} bits with codebook {codebook} for linear `{name}`"),
                "whole bits; 1.5, 2.5 and 3.5 exist with mul1 only",
            ));
        }
        check_len("suh", name, suh.len(), k)?;
        check_len("svh", name, svh.len(), n)?;
        if let Some(bias) = bias {
            check_len("bias", name, bias.len(), n)?;
        }
        Ok(Linear {
            name,
            k,
            n,
            codebook,
            trellis: Trellis::new(trellis, bits, k / TILE, n / TILE)?,
            suh,
            svh,
            bias,
        })
    }

    /// The layer's name: what its tensors' names have before the last dot.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// In-features of this linear or shard: a multiple of 128, 0 for an empty shard.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Out-features of this linear or shard: a multiple of 128, 0 for an empty shard.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Bits per weight.
    pub fn bits(&self) -> Bits {
        self.trellis.bits()
    }

    /// How a trellis state becomes a weight.
    pub fn codebook(&self) -> Codebook {
        self.codebook
    }

    /// The packed weights: K/16 × N/16 tiles.
    pub fn trellis(&self) -> Trellis<'a> {
        self.trellis
    }

    /// The input scales, one per in-feature.
    pub fn suh(&self) -> Scales<'a> {
        self.suh
    }

    /// The output scales, one per out-feature.
    pub fn svh(&self) -> Scales<'a> {
        self.svh
    }

    /// The bias, one value per out-feature, if the layer has one.
    ///
    /// A row shard keeps the whole bias: it is to be added once, after the reduction.
    pub fn bias(&self) -> Option<Bias<'a>> {
        self.bias
    }

    /// The same linear with other input scales, as many as there are in-features.
    pub(crate) fn with_suh<'b>(self, suh: Scales<'b>) -> Linear<'b>
    where
        'a: 'b,
    {
        debug_assert_eq!(suh.len(), self.k);
        Linear { suh, ..self }
    }

    /// Bytes of the packed weights of this linear or shard; scales and bias not counted.
    pub fn packed_bytes(&self) -> usize {
        self.trellis.packed_bytes()
    }

    /// The row shard of in-features `channels`: `suh` and the trellis are cut, `svh` and `bias`
    /// stay whole.
    ///
    /// An empty range is legal and gives a shard with K = 0.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless both bounds are multiples of 128 and the range lies
    /// within 0..K.
    pub fn rows(&self, channels: Range<usize>) -> Result<Linear<'a>> {
        check_shard("rows", self.name, &channels, self.k)?;
        Ok(Linear {
            k: channels.len(),
            trellis: self
                .trellis
                .slice(tiles(&channels), 0..self.trellis.n_tiles()),
            suh: self.suh.slice(channels),
            ..*self
        })
    }

    /// The column shard of out-features `channels`: `svh`, `bias` and the trellis are cut, `suh`
    /// stays whole.
    ///
    /// An empty range is legal and gives a shard with N = 0.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless both bounds are multiples of 128 and the range lies
    /// within 0..N.
    pub fn columns(&self, channels: Range<usize>) -> Result<Linear<'a>> {
        check_shard("columns", self.name, &channels, self.n)?;
        Ok(Linear {
            n: channels.len(),
            trellis: self
                .trellis
                .slice(0..self.trellis.k_tiles(), tiles(&channels)),
            svh: self.svh.slice(channels.clone()),
            bias: self.bias.map(|bias| bias.slice(channels)),
            ..*self
        })
    }
}

fn tiles(channels: &Range<usize>) -> Range<usize> {
    channels.start / TILE..channels.end / TILE
}

fn check_features(argument: &'static str, name: &str, features: usize) -> Result<()> {
    if features == 0 || !features.is_multiple_of(GROUP) {
        return Err(Error::argument(
            argument,
            format!("{features} for linear `{name}`"),
            "a positive multiple of 128; pad the layer as the converter does",
        ));
    }
    Ok(())
}

fn check_len(argument: &'static str, name: &str, found: usize, expected: usize) -> Result<()> {
    if found != expected {
        return Err(Error::argument(
            argument,
            format!("{found} channels for linear `{name}`"),
            format!("{expected} channels"),
        ));
    }
    Ok(())
}

fn check_shard(
    argument: &'static str,
    name: &str,
    channels: &Range<usize>,
    features: usize,
) -> Result<()> {
    let inside = channels.start <= channels.end && channels.end <= features;
    let aligned = channels.start.is_multiple_of(GROUP) && channels.end.is_multiple_of(GROUP);
    if !inside || !aligned {
        return Err(Error::argument(
            argument,
            format!(
                "channels {}..{} of linear `{name}`",
                channels.start, channels.end
            ),
            format!("a range within 0..{features} whose bounds are multiples of 128"),
        ));
    }
    Ok(())
}
