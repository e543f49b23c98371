//! Choices made when a layer is loaded.

/// How the products are formed and added up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[non_exhaustive]
pub enum Arithmetic {
    /// The fastest for each range of M. A row's bits may differ between calls with different
    /// numbers of rows, never with the contents or order of the other rows.
    #[default]
    Fastest,
    /// One arithmetic for every M: a row's bits are the same whether it is computed alone or in a
    /// batch of any size.
    ///
    /// In this version the kernels have one arithmetic, so this costs nothing and `Fastest` gives
    /// the same bits.
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
