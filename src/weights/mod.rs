//! One EXL3 linear as views of bytes that somebody else owns, and its shards.
//!
//! Nothing here copies a weight or touches a file: a [`Linear`] and everything it hands out borrow
//! from the loader's memory, and a shard is a smaller view of the same bytes. What must stay true:
//! a view that exists has been checked, so that reading it within its bounds cannot fail.

mod bias;
mod linear;
mod scales;
mod trellis;

pub use bias::Bias;
pub use linear::Linear;
pub use scales::Scales;
pub use trellis::Trellis;
