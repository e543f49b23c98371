//! Choices made when a layer is loaded.

/// How the products are formed and added up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[non_exhaustive]
pub enum Arithmetic {
    /// The fastest for each range of M. A row's bits may differ between calls whose M lie in
    /// different ranges, never with the contents or order of the other rows.
    ///
    /// On a GPU the ranges end at M = 4 and 8 (mul1), or at 8 and 16 (3inst, mcg). Within these what
    /// the codebook makes of a state is multiplied as it is, without the format's rounding of the
    /// weight to fp16 (a relative 2^-12); above, weights are formed in fp16, bit for bit the
    /// format's. A column-parallel call that mixes mul1 with another codebook always forms
    /// weights. The host has one arithmetic.
    #[default]
    Fastest,
    /// One arithmetic for every M, that of formed weights: a row's bits are the same whether it is
    /// computed alone or in a batch of any size.
    Uniform,
}

/// Options of `load_with`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// How the products are formed and added up.
    pub arithmetic: Arithmetic,
}

impl LoadOptions {
    /// The defaults.
    pub fn new() -> Self {
        LoadOptions::default()
    }

    /// Sets [`arithmetic`](Self::arithmetic).
    #[must_use]
    pub fn arithmetic(mut self, arithmetic: Arithmetic) -> Self {
        self.arithmetic = arithmetic;
        self
    }
}
