//! Choices made when a layer is loaded.

/// How the products are formed and added up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[non_exhaustive]
pub enum Arithmetic {
    /// The fastest for each range of M. A row's bits may differ between calls whose M lie in
    /// different ranges, never with the contents or order of the other rows.
    ///
    /// On a GPU the range ends at M = 4. Up to there an input counts with 16 bits (mul1) or with two fp16
    /// (3inst, mcg; and mul1 in a column-parallel call beside them); above, it is rounded to one fp16
    /// (a relative error of about 2e-4 of the output). Up to there mul1 is multiplied without the format's
    /// rounding of its weights to fp16, which is of the same size; all other weights are bit for bit the
    /// format's. The host has one arithmetic.
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
