//! The EXL3 format as facts: codebooks, bitrates, the tile, the layout in which kernels read it.
//!
//! Nothing here touches a file, a device or a thread. The page these facts come from is
//! `docs/exl3-format.md`.

mod bits;
mod codebook;
mod dtype;
pub mod layout;

pub use bits::Bits;
pub use codebook::Codebook;
pub use dtype::DType;

/// Channels that the Walsh-Hadamard transform mixes; also the unit of every split.
pub const GROUP: usize = 128;

/// Edge of a weight tile, in channels.
pub const TILE: usize = 16;

/// Weights in a tile.
pub const TILE_WEIGHTS: usize = TILE * TILE;
